"""Distillation: the loss against a loop in plain Python, and a student that learns a tiny teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ser_models.encoders import SpeechEncoder, load_encoder, save_encoder
from ser_models.objectives.distillation import (
    Distillation,
    DistillationOptions,
    distillation_loss,
    statistics_loss,
    student_of,
    teacher_states,
)

# L teacher states · B batch · T frames · D features

MASK_BT = torch.tensor([[True, True, True, True], [True, True, False, False]])


def states(seed: int) -> Tensor:
    return torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(seed))


def tones(*seconds: float) -> tuple[Tensor, Tensor]:
    """Clips of different pitch, zero padded: (B, S) and lengths."""
    length_B = torch.tensor([int(16_000 * s) for s in seconds])
    time_S = torch.arange(int(length_B.max())) / 16_000
    wave_BS = torch.stack([0.1 * torch.sin(2 * math.pi * 150 * (row + 1) * time_S) for row in range(len(seconds))])
    return wave_BS * (torch.arange(wave_BS.shape[1]) < length_B[:, None]), length_B


def made_distillation(student: SpeechEncoder, teacher: SpeechEncoder) -> tuple[Distillation, Tensor, Tensor]:
    """The student with its heads, the teacher's states 1 and 2 on the clips of `tones(0.9, 0.5)`, their frames."""
    with torch.inference_mode():
        output = teacher(*tones(0.9, 0.5))
        teacher_LBTD = output.hidden_LBTD[1:3].clone()
    frames_LND = teacher_LBTD[:, output.mask_BT]
    objective = Distillation(student, DistillationOptions(), torch.Generator().manual_seed(0), teacher_LND=frames_LND)
    return objective, teacher_LBTD, output.mask_BT.sum(1)


def test_the_loss_equals_the_formula_written_as_a_loop() -> None:
    predicted, target = states(0), states(1)
    expected = 0.0
    for layer in range(2):
        terms = []
        for clip, frame in MASK_BT.nonzero().tolist():
            p, h = predicted[layer, clip, frame], target[layer, clip, frame]
            cosine = float(p @ h / (p.norm() * h.norm()))
            terms.append(float((p - h).abs().sum()) / 5 - 0.7 * math.log(1 / (1 + math.exp(-cosine))))
        expected += sum(terms) / len(terms)
    assert float(distillation_loss(predicted, target, MASK_BT, cosine_weight=0.7)) == pytest.approx(expected, rel=1e-5)


def test_the_right_answer_costs_only_what_a_cosine_of_one_leaves() -> None:
    least = 2 * math.log(1 + math.exp(-1))
    assert float(distillation_loss(states(0), states(0), MASK_BT)) == pytest.approx(least, rel=1e-5)
    assert float(statistics_loss(states(0), states(0), MASK_BT)) == 0.0


def test_padded_frames_count_for_nothing() -> None:
    predicted, target = states(0), states(1)
    spoilt = torch.where(MASK_BT[None, :, :, None], predicted, torch.nan)
    for loss in (distillation_loss, statistics_loss):
        assert float(loss(spoilt, target, MASK_BT)) == float(loss(predicted, target, MASK_BT))


def test_statistics_see_a_shift_of_a_clip_and_not_the_order_of_its_frames() -> None:
    target = states(1)
    whole_BT = torch.ones(2, 4, dtype=torch.bool)
    assert float(statistics_loss(target.flip(2), target, whole_BT)) == pytest.approx(0.0, abs=1e-5)
    assert float(statistics_loss(target + 0.5, target, whole_BT)) == pytest.approx(2 * 0.5, rel=1e-4)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2, 4, 5\), \(2, 2, 3, 5\), \(2, 4\)"):
        distillation_loss(states(0), states(1)[:, :, :3], MASK_BT)


def test_a_student_learns_its_teacher(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    model, teacher_LBTD, teacher_B = made_distillation(make_encoder("wav2vec2-layer"), make_encoder("whisper"))
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        scalars = model(*tones(0.9, 0.5), teacher_LBTD, teacher_B)
        optimiser.zero_grad()
        scalars["loss"].backward()
        optimiser.step()
        losses.append(float(scalars["loss"].detach()))
    assert set(scalars) == {"loss", "frames", "statistics", "compared"}
    assert losses[-1] < 0.7 * losses[0]
    assert all(head.grad is not None and head.grad.abs().sum() > 0 for head in (model.head_LDE, model.bias_LD))


@torch.no_grad()
def test_zero_padding_does_not_change_the_loss(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    model, teacher_LBTD, teacher_B = made_distillation(make_encoder("wav2vec2-layer"), make_encoder("whisper"))
    model.eval()
    wave_BS, length_B = tones(0.9, 0.5)
    padded_BS = torch.nn.functional.pad(wave_BS, (0, 3200))
    padded_LBTD = torch.nn.functional.pad(teacher_LBTD, (0, 0, 0, 10), value=7.0)
    for name, value in model(padded_BS, length_B, padded_LBTD, teacher_B).items():
        torch.testing.assert_close(value, model(wave_BS, length_B, teacher_LBTD, teacher_B)[name])


def test_a_constant_teacher_feature_is_centred_and_not_divided_by_nothing(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    frames_LND = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0))
    frames_LND[..., 1] = 4.0
    model = Distillation(
        make_encoder("wav2vec2-layer"), DistillationOptions(), torch.Generator().manual_seed(0), teacher_LND=frames_LND
    )
    assert model.spread_LD[0, 1] == 1.0
    assert model.centre_LD[0, 1] == pytest.approx(4.0)


def test_a_student_is_the_bottom_of_its_teacher(encoder: SpeechEncoder, tmp_path: Path) -> None:
    wave_BS, length_B = tones(0.9, 0.5)
    with torch.inference_mode():
        teacher_LBTD = encoder(wave_BS, length_B).hidden_LBTD
        student = student_of(encoder.requires_grad_(False), 2)
        student_LBTD = student(wave_BS, length_B).hidden_LBTD
        save_encoder(student, tmp_path)
        loaded_LBTD = load_encoder(tmp_path)(wave_BS, length_B).hidden_LBTD
    assert len(student_LBTD) == 3
    assert encoder.num_layers == 3, "the teacher keeps its layers"
    assert torch.equal(student_LBTD[:2], teacher_LBTD[:2])
    if encoder.final_norm is None:
        assert torch.equal(student_LBTD[2], teacher_LBTD[2])
    assert torch.equal(loaded_LBTD, student_LBTD)
    assert all(parameter.requires_grad for parameter in student.parameters())
    for layers in (0, 4):
        with pytest.raises(ValueError, match=f"expected 1 to 3 layers to keep, as many as there are, got {layers}"):
            student_of(encoder, layers)


def test_by_default_the_teacher_is_learned_at_thirds_of_its_depth() -> None:
    assert teacher_states(12) == [4, 8, 12]
    assert teacher_states(8) == [3, 6, 8]
    assert teacher_states(4) == [2, 3, 4]
    assert teacher_states(1) == [1]
