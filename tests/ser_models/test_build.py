"""The three entrances of the SER model agree, and a saved model comes back the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ser_models.build import SerModel, adopt_head, build_model, load_model, save_model
from ser_models.defaults import DROPOUT, STD_GAIN
from ser_models.encoders import SpeechEncoder, load_encoder
from ser_models.heads import Head, LayerPool
from ser_models.pooling import masked_mean_std

CLASSES = ("anger", "joy", "sadness")
DIMENSIONS = ("valence", "arousal", "dominance")
OUTPUTS = {"classes": (CLASSES, ()), "dimensions": ((), DIMENSIONS), "multi-task": (CLASSES, DIMENSIONS)}


def waves() -> tuple[torch.Tensor, torch.Tensor]:
    length_B = torch.tensor([16000, 9000, 12345])
    wave_BS = 0.1 * torch.randn(3, 16000, generator=torch.Generator().manual_seed(0))
    return wave_BS * (torch.arange(16000) < length_B[:, None]), length_B


def lively(encoder: SpeechEncoder, options: dict[str, Any] | None = None, outputs: str = "classes") -> SerModel:
    """A model whose head, layer weights and standardisation all differ from their start."""
    generator = torch.Generator().manual_seed(1)
    classes, dimensions = OUTPUTS[outputs]
    model = build_model(encoder, classes, dimensions=dimensions, **(options or {})).eval()
    with torch.no_grad():
        for tensor in [*model.pool.parameters(), *model.head.parameters()]:
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator))
        shape = (20, *model.pool.centre_mean.shape)
        model.pool.fit(torch.randn(shape, generator=generator), torch.rand(shape, generator=generator))
    return model


@pytest.mark.parametrize("start", [0, 1, 3])
def test_audio_frames_and_statistics_give_the_same_logits(encoder: SpeechEncoder, start: int) -> None:
    model = lively(encoder)
    wave_BS, length_B = waves()
    with torch.no_grad():
        logits_BC = model(wave_BS, length_B)
        output = encoder(wave_BS, length_B)
        mean_LBD, std_LBD = masked_mean_std(output.hidden_LBTD, output.mask_BT)
        pooled_BC = model.forward_pooled(mean_LBD.transpose(0, 1), std_LBD.transpose(0, 1))
        statistics = model.statistics_from(
            output.hidden_LBTD[start],
            output.mask_BT,
            start=start,
            below_mean_LBD=mean_LBD[:start],
            below_std_LBD=std_LBD[:start],
        )
        from_BC = model.forward_pooled(*statistics)
    torch.testing.assert_close(pooled_BC, logits_BC)
    torch.testing.assert_close(from_BC, logits_BC, atol=1e-4, rtol=1e-4)


def test_outputs_depend_on_neither_padding_nor_batch_mates(encoder: SpeechEncoder) -> None:
    model = lively(encoder, outputs="multi-task")
    wave_BS, length_B = waves()
    with torch.no_grad():
        logits_BC = model(wave_BS, length_B)
        longer_BC = model(torch.nn.functional.pad(wave_BS, (0, 5000)), length_B)
        alone_BC = torch.cat([model(wave_BS[i : i + 1, : length_B[i]], length_B[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(longer_BC, logits_BC, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(alone_BC, logits_BC, atol=2e-4, rtol=1e-4)


def test_statistics_below_the_start_are_counted(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    model = lively(make_encoder("wav2vec2-layer"))
    hidden_BTD, mask_BT = torch.zeros(1, 5, 32), torch.ones(1, 5, dtype=torch.bool)
    below = torch.zeros(2, 1, 32)
    with pytest.raises(ValueError, match="state 3 need the statistics of the 3 states below, got 2"):
        model.statistics_from(hidden_BTD, mask_BT, start=3, below_mean_LBD=below, below_std_LBD=below)


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("options", [{}, {"std_gain": 0.0, "dropout": 0.0}, {"hidden": 16, "std_gain": 1.0}])
def test_a_saved_model_comes_back_the_same(tmp_path: Path, options: dict[str, Any], outputs: str) -> None:
    encoder = load_encoder("seral-tiny")
    model = lively(encoder, options, outputs)
    save_model(model, tmp_path / "model")
    again = load_model(tmp_path / "model", encoder).eval()
    assert (again.classes, again.dimensions) == OUTPUTS[outputs]
    hidden = 0 if again.head.hidden is None else again.head.hidden.out_features
    shape = {"std_gain": again.pool.std_gain, "hidden": hidden, "dropout": again.head.dropout.p}
    assert shape == {"std_gain": STD_GAIN, "hidden": 0, "dropout": DROPOUT} | options
    with torch.no_grad():
        torch.testing.assert_close(again(*waves()), model(*waves()), atol=0, rtol=0)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["head.safetensors", "model.json"]


def test_a_model_is_refused_on_another_encoder(tmp_path: Path, make_encoder: Callable[[str], SpeechEncoder]) -> None:
    save_model(lively(load_encoder("seral-tiny")), tmp_path)
    with pytest.raises(ValueError, match=r"was trained on .*192.*this encoder is .*32"):
        load_model(tmp_path, make_encoder("wav2vec2-layer"))


def test_a_folder_without_its_last_file_is_incomplete(tmp_path: Path) -> None:
    save_model(lively(load_encoder("seral-tiny")), tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["classes"] == list(CLASSES)
    (tmp_path / "model.json").unlink()
    with pytest.raises(ValueError, match="no complete model"):
        load_model(tmp_path, load_encoder("seral-tiny"))


def test_parts_that_do_not_fit_are_refused(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = make_encoder("wav2vec2-layer")
    with pytest.raises(ValueError, match="pool is for"):
        SerModel(encoder, LayerPool(3, 32), Head(64, 3), classes=CLASSES)
    with pytest.raises(ValueError, match="2 outputs for 3 classes"):
        SerModel(encoder, LayerPool(4, 32), Head(64, 2), classes=CLASSES)
    with pytest.raises(ValueError, match=r"std_gain 0\.0"):
        adopt_head(build_model(encoder, CLASSES), LayerPool(4, 32, std_gain=0.0), Head(32, 3))
    with pytest.raises(ValueError, match=r"5 outputs for 3 classes.*3 dimensions"):
        SerModel(encoder, LayerPool(4, 32), Head(64, 5), classes=CLASSES, dimensions=DIMENSIONS)
    with pytest.raises(ValueError, match="at least 1 class or dimension, got 0"):
        build_model(encoder)


def test_a_model_saved_before_there_were_dimensions_is_a_classifier(tmp_path: Path) -> None:
    encoder = load_encoder("seral-tiny")
    model = lively(encoder)
    save_model(model, tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    assert description.pop("dimensions") == []
    (tmp_path / "model.json").write_text(json.dumps(description))
    again = load_model(tmp_path, encoder).eval()
    assert again.dimensions == ()
    with torch.no_grad():
        torch.testing.assert_close(again(*waves()), model(*waves()), atol=0, rtol=0)


@torch.no_grad()
def test_a_multi_task_model_says_what_its_two_halves_say() -> None:
    encoder = load_encoder("seral-tiny")
    both = lively(encoder, outputs="multi-task")
    logits_BC, value_BK = both.split(both(*waves()))
    for outputs, rows, expected in (("classes", slice(0, 3), logits_BC), ("dimensions", slice(3, 6), value_BK)):
        half = build_model(encoder, OUTPUTS[outputs][0], dimensions=OUTPUTS[outputs][1]).eval()
        half.pool.load_state_dict(both.pool.state_dict())
        half.head.output.weight.copy_(both.head.output.weight[rows])
        half.head.output.bias.copy_(both.head.output.bias[rows])
        torch.testing.assert_close(half(*waves()), expected)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"hidden": 8}])
def test_a_fresh_model_knows_nothing(options: dict[str, Any]) -> None:
    encoder = load_encoder("seral-tiny")
    model = build_model(encoder, CLASSES, dimensions=DIMENSIONS, **options).eval()
    logits_BC, value_BK = model.split(model(*waves()))
    torch.testing.assert_close(logits_BC, torch.zeros(3, 3))
    torch.testing.assert_close(value_BK, torch.zeros(3, 3))
