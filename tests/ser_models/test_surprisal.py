from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ser_models.encoders import SpeechEncoder, load_encoder, save_encoder
from ser_models.objectives import OBJECTIVES, find_objective, load_objective, save_objective, surprisal
from ser_models.objectives.surprisal import PASSES, complementary_spans

from .test_tapt import OPTIONS, objective_on, tapt_optimizer, tapt_step, tones

# B clips · T frames · K units

FAMILIES = ["wav2vec2-layer", "hubert-group", "whisper"]


@pytest.mark.parametrize("frames", [[1], [2, 3], [4, 9, 40], [400, 7]])
def test_every_frame_is_hidden_once_and_no_clip_whole(frames: list[int]) -> None:
    masks = complementary_spans(torch.tensor(frames), max(frames))
    total_BT = torch.stack(masks).sum(0)
    for row, count in zip(total_BT, frames, strict=True):
        assert row[:count].tolist() == ([1] * count if count > 1 else [0])
        assert not row[count:].any()
    for hidden_BT in masks:
        assert (hidden_BT.sum(1) < torch.tensor(frames).clamp(min=1)).all()
    assert len(masks) == PASSES


@pytest.mark.parametrize("family", FAMILIES)
def test_surprisal_is_the_loss_summed_over_the_units(family: str, make_encoder: Callable[[str], SpeechEncoder]) -> None:
    objective = objective_on(make_encoder(family))
    wave_BS, length_B = tones(0.95, 0.7)
    surprisal_BK = surprisal(objective, wave_BS, length_B, np.random.default_rng(0))
    assert surprisal_BK.shape == (2, objective.units)
    np.testing.assert_allclose(surprisal_BK.norm(dim=1), 1, rtol=1e-5)
    objective.eval()
    rng, total_BK = np.random.default_rng(0), torch.zeros_like(surprisal_BK)
    for hidden_BT in complementary_spans(
        objective.encoder.frames(length_B), int(objective.encoder.frames(length_B).max())
    ):
        with torch.no_grad():
            loss_M, unit_MG = objective.frame_losses(wave_BS, length_B, hidden_BT, rng)
        for number, (clip, _) in enumerate(torch.nonzero(hidden_BT).tolist()):
            for unit in unit_MG[number].tolist():
                total_BK[clip, unit] += loss_M[number]
    torch.testing.assert_close(surprisal_BK, total_BK / total_BK.norm(dim=1, keepdim=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_of_frames_have_the_mean_that_is_trained(
    family: str, make_encoder: Callable[[str], SpeechEncoder]
) -> None:
    objective = objective_on(make_encoder(family)).eval()
    wave_BS, length_B = tones(0.95, 0.8)
    hidden_BT = complementary_spans(objective.encoder.frames(length_B), int(objective.encoder.frames(length_B).max()))[
        0
    ]
    with torch.no_grad():
        loss_M, _ = objective.frame_losses(wave_BS, length_B, hidden_BT, np.random.default_rng(1))
        measured = objective(
            wave_BS, length_B, np.random.default_rng(1), step=objective.options.steps, hidden_BT=hidden_BT
        )
    torch.testing.assert_close(loss_M.mean(), measured.get("contrastive", measured["loss"]))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("teacher", [False, True])
def test_an_objective_that_was_saved_measures_the_same(
    family: str, teacher: bool, make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    before, objective = make_encoder(family), objective_on(make_encoder(family), seed=3)
    optimiser = tapt_optimizer(objective)
    wave_BS, length_B = tones(0.95, 0.7)
    for step in range(3):
        tapt_step(objective, optimiser, wave_BS, length_B, step=step, rng=np.random.default_rng(step))
    save_objective(objective, tmp_path / "objective.safetensors", teacher=teacher)
    save_encoder(objective.encoder, tmp_path / "encoder")
    again = load_objective(
        OBJECTIVES[find_objective(None, family.partition("-")[0])].build,
        load_encoder(str(tmp_path / "encoder")),
        objective.options,
        tmp_path / "objective.safetensors",
        teacher=None if teacher else before,
    )
    expected, restored = (surprisal(o, wave_BS, length_B, np.random.default_rng(0)) for o in (objective, again))
    torch.testing.assert_close(restored, expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(
        surprisal(objective_on(make_encoder(family)), wave_BS, length_B, np.random.default_rng(0)), expected, atol=1e-3
    )


def test_an_objective_of_another_kind_is_refused(make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path) -> None:
    save_objective(objective_on(make_encoder("wav2vec2-layer")), tmp_path / "o.safetensors")
    other = make_encoder("hubert-group")
    with pytest.raises(ValueError, match="it is of another objective than ClusterObjective"):
        load_objective(OBJECTIVES["masked_clusters"].build, other, OPTIONS, tmp_path / "o.safetensors")


def test_neither_padding_nor_company_changes_it_and_the_mode_is_left_as_it_was(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    objective = objective_on(make_encoder("hubert-group")).train()
    wave_BS, length_B = tones(0.95, 0.7)
    together_BK = surprisal(objective, wave_BS, length_B, np.random.default_rng(0))
    alone_BK = surprisal(objective, wave_BS[1:, : int(length_B[1])], length_B[1:], np.random.default_rng(0))
    torch.testing.assert_close(together_BK[1:], alone_BK, atol=1e-5, rtol=1e-4)
    assert objective.training
