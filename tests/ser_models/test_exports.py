"""What leaves seral says what seral says: each format against the model that it was made from, on every family."""

# B batch · S samples
from __future__ import annotations

import copy
import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ser_models.adapters.composition import attach_adapters
from ser_models.build import SerModel, build_model, use_pooling
from ser_models.encoders import SpeechEncoder, wrap
from ser_models.exports import FORMATS, write_export
from ser_models.exports.bundle import bundle
from ser_models.exports.graph import GRAPH, ONNX
from ser_models.inference import Model

MakeEncoder = Callable[[str], SpeechEncoder]
GRAPHS = ["wav2vec2-group", "hubert-batch-norm", "wavlm-group", "data2vec-audio", "whisper", "moonshine"]
"""Families whose graphs are traced: half a minute each."""
FAMILIES = [*GRAPHS, "wav2vec2-conformer", "wav2vec2-bert", "qwen2_audio", "moonshine_streaming", "ast"]
OWN = "gate+bottleneck+prefix+wap"
TOLERANCE = 1e-4
SAMPLES = (6000, 9000, 4000)


def a_model(encoder: SpeechEncoder, adapters: str | None = None, **options: Any) -> SerModel:
    """A model whose adapters and head have weights that show."""
    if adapters:
        attach_adapters(encoder, adapters, seed=0)
    model = build_model(encoder, **({"classes": ["anger", "joy", "fear"]} | options)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad or not adapters):
            if adapters or parameter in set(model.head.parameters()):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        model.pool.centre_mean.add_(0.1)
        model.pool.scale_mean.mul_(1.3)
    return model


def clips() -> list[Tensor]:
    return [0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples)) for samples in SAMPLES]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Waves (B, S), lengths (B,) and the mask (B, S)."""
    wave_BS = torch.nn.utils.rnn.pad_sequence(clips(), batch_first=True)
    length_B = torch.tensor(SAMPLES)
    return wave_BS, length_B, (torch.arange(wave_BS.shape[1]) < length_B[:, None]).long()


def probabilities(model: SerModel) -> Tensor:
    wave_BS, length_B, _ = batch()
    with torch.inference_mode():
        share_BC = model.split(model(wave_BS, length_B))[0].softmax(1)
    assert share_BC.std(0).max() > 20 * TOLERANCE, "clips too much alike to show a difference"
    return share_BC


def opened(folder: Path) -> Any:
    from transformers import AutoModelForAudioClassification

    return AutoModelForAudioClassification.from_pretrained(folder, trust_remote_code=True)


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """transformers copies code of folders to its cache; here into one of this test."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.mark.parametrize("adapters", [OWN, "lora+gate"])
@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_gives_the_same_probabilities(
    name: str, adapters: str | None, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    model = a_model(make_encoder(name), adapters)
    expected_BC = probabilities(model)
    write_export(copy.deepcopy(model), tmp_path / "hf", "hf")
    exported = opened(tmp_path / "hf")
    wave_BS, _, mask_BS = batch()
    with torch.inference_mode():
        padded_BC = exported(wave_BS, attention_mask=mask_BS).logits.softmax(1)
        alone_C = exported(clips()[2][None]).logits.softmax(1)[0]
    assert torch.allclose(padded_BC, expected_BC, atol=TOLERANCE)
    assert torch.allclose(alone_C, expected_BC[2], atol=TOLERANCE)
    again = Model.load(tmp_path / "hf").predict_proba(clips())
    assert torch.allclose(torch.from_numpy(again), expected_BC, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["wav2vec2-group", "whisper"])
def test_a_pipeline_gives_the_same_probabilities(name: str, make_encoder: MakeEncoder, tmp_path: Path) -> None:
    from transformers import pipeline

    model = a_model(make_encoder(name))
    expected_BC = probabilities(model)
    write_export(model, tmp_path / "hf", "hf")
    pipe = pipeline("audio-classification", model=str(tmp_path / "hf"), trust_remote_code=True)
    answers = pipe([clip.numpy() for clip in clips()], batch_size=3)
    for answer, share_C in zip(answers, expected_BC.tolist(), strict=True):
        scores = {entry["label"]: entry["score"] for entry in answer}
        assert scores == pytest.approx(dict(zip(model.classes, share_C, strict=True)), abs=TOLERANCE)


def test_an_export_needs_nothing_of_seral(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    model = a_model(make_encoder("wavlm-layer"), OWN)
    expected_BC = probabilities(model)
    write_export(model, tmp_path / "hf", "hf")
    script = f"""
import sys
for name in ("seral", "ser_models", "ray", "pyarrow", "peft"):
    sys.modules[name] = None
import torch
from transformers import AutoModelForAudioClassification
model = AutoModelForAudioClassification.from_pretrained({str(tmp_path / "hf")!r}, trust_remote_code=True)
wave = 0.1 * torch.randn({SAMPLES[0]}, generator=torch.Generator().manual_seed({SAMPLES[0]}))
with torch.inference_mode():
    print(model(wave[None]).logits.softmax(1)[0].tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path,
        env={"HF_MODULES_CACHE": str(tmp_path / "fresh"), "PATH": "/usr/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert json.loads(done.stdout) == pytest.approx(expected_BC[0].tolist(), abs=TOLERANCE)


def test_poolings_dimensions_and_temperature_go_along(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    model = a_model(make_encoder("hubert-group"), dimensions=["valence"], hidden=8)
    use_pooling(model, "attentive", start=2)
    wave_BS, length_B, mask_BS = batch()
    with torch.inference_mode():
        logits_BC, value_BK = model.split(model(wave_BS, length_B))
    write_export(model, tmp_path / "hf", "hf", temperature=2.0)
    with torch.inference_mode():
        output = opened(tmp_path / "hf")(wave_BS, attention_mask=mask_BS)
    assert torch.allclose(output.logits, logits_BC / 2, atol=TOLERANCE)
    assert torch.allclose(output.hidden_states[0], value_BK, atol=TOLERANCE)
    loaded = Model.load(tmp_path / "hf")
    assert torch.allclose(torch.from_numpy(loaded.predict_proba(clips())), (logits_BC / 2).softmax(1), atol=TOLERANCE)
    assert torch.allclose(torch.from_numpy(loaded.rate(clips())), value_BK, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("adapters", [None, "lora+gate+prefix"])
@pytest.mark.parametrize("name", GRAPHS)
def test_a_traced_graph_gives_the_same_probabilities(
    name: str, adapters: str | None, make_encoder: MakeEncoder, tmp_path: Path
) -> None:
    model = a_model(make_encoder(name), adapters)
    expected_BC = probabilities(model)
    write_export(model, tmp_path, "torch-export")
    graph = torch.export.load(tmp_path / GRAPH).module()
    wave_BS, _, mask_BS = batch()
    assert torch.allclose(graph(wave_BS, mask_BS)[0], expected_BC, atol=TOLERANCE)
    alone = clips()[2][None]
    assert torch.allclose(graph(alone, torch.ones_like(alone).long())[0][0], expected_BC[2], atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("name", GRAPHS)
def test_onnxruntime_gives_the_same_probabilities(
    name: str, make_encoder: MakeEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import onnxruntime

    model = a_model(make_encoder(name))
    expected_BC = probabilities(model)
    torchs_own = logging.getLogger("torch.onnx._internal.exporter._registration")
    torchs_own.addHandler(caplog.handler)
    write_export(model, tmp_path, "onnx")
    torchs_own.removeHandler(caplog.handler)
    assert not [text for text in caplog.messages if "torchvision" in text], "no model of speech has such operators"
    session = onnxruntime.InferenceSession(str(tmp_path / ONNX))
    wave_BS, _, mask_BS = batch()
    alone = clips()[2][None]
    for wave, mask, share in [(wave_BS, mask_BS, expected_BC), (alone, torch.ones_like(alone).long(), expected_BC[2:])]:
        (answer,) = session.run(None, {"input_values": wave.numpy(), "attention_mask": mask.numpy()})
        assert torch.allclose(torch.from_numpy(answer), share, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("adapters", ["lora", "dora", "adalora", "ia3"])
@pytest.mark.parametrize("name", FAMILIES)
def test_peft_gives_the_same_hidden_states(name: str, adapters: str, make_encoder: MakeEncoder, tmp_path: Path) -> None:
    from peft import AutoPeftModelForFeatureExtraction

    model = a_model(make_encoder(name), adapters)
    wave_BS, length_B, _ = batch()
    with torch.inference_mode():
        expected = model.encoder(wave_BS, length_B)
    write_export(model, tmp_path / "peft", "peft")
    # Warnings are errors here: peft warns of weights that find no layer.
    adapted = AutoPeftModelForFeatureExtraction.from_pretrained(tmp_path / "peft").merge_and_unload()
    network = adapted.get_encoder() if adapted.config.is_encoder_decoder else adapted
    with torch.inference_mode():
        actual = wrap(network, normalise=getattr(model.encoder, "normalise", False)).eval()(wave_BS, length_B)
    mask = expected.mask_BT[None, ..., None]
    assert torch.allclose(actual.hidden_LBTD * mask, expected.hidden_LBTD * mask, atol=TOLERANCE)
    config = json.loads((tmp_path / "peft/adapter_config.json").read_text(encoding="utf-8"))
    assert config["task_type"] == "FEATURE_EXTRACTION"
    assert config["base_model_name_or_path"] == str(tmp_path / "peft/encoder")


def test_peft_refuses_what_is_not_its_own(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    for adapters in ("gate", "lora+gate", None):
        with pytest.raises(ValueError, match="take hf, onnx or torch-export"):
            write_export(a_model(make_encoder("wav2vec2-layer"), adapters), tmp_path, "peft")


def test_an_unknown_format_is_refused_by_name(make_encoder: MakeEncoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"no format 'tflite'; known: {', '.join(FORMATS)}"):
        write_export(a_model(make_encoder("wav2vec2-layer")), tmp_path, "tflite")


def test_a_bundle_refuses_two_meanings_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("first", "second"):
        other = "from clash.second import Second\n" if module == "first" else ""
        (tmp_path / "clash").mkdir(exist_ok=True)
        text = f"{other}SIZE = 1\nclass {module.capitalize()}:\n    size = SIZE\n"
        text += "    other = Second\n" if other else ""
        (tmp_path / "clash" / f"{module}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    assert importlib.util.find_spec("clash.first")
    with pytest.raises(ValueError, match=r"clash.first and clash.second both have a SIZE"):
        bundle([import_module("clash.first").First], "", "A clash.")
