"""Adapter training without labels: every loss against a known answer, the teacher, and the guards against collapse."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from ser_models.adapters.wap import WapOptions, WapTransformer
from ser_models.objectives.local_attributes import (
    LocalAttributes,
    LocalAttributesOptions,
    collapse_signs,
    distillation_loss,
    mask_loss,
    nearest_prototype,
    perplexity,
)
from ser_models.objectives.teacher import follow, rate_at, teacher_of

WIDTH, K = 16, 8
OPTIONS = LocalAttributesOptions(clusters=K, outputs=6)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def made_objective(**weights: float) -> LocalAttributes:
    wap = WapTransformer(WIDTH, WapOptions(layers=2, heads=2, feedforward=24, dropout=0.0), generator())
    options = LocalAttributesOptions(clusters=K, outputs=6, **weights)
    objective = LocalAttributes(wap, options, generator(1))
    objective.set_prototypes(torch.randn(K, WIDTH, generator=generator(2)))
    return objective.train()


def made_batch() -> tuple[Tensor, Tensor, Tensor]:
    """Clips of 9, 6 and 4 frames, of which frames 1 to 3 are hidden; padded frames hold NaN."""
    mask_BT = torch.arange(9) < torch.tensor([9, 6, 4])[:, None]
    hidden_BTD = torch.randn(3, 9, WIDTH, generator=generator(3)).masked_fill(~mask_BT[..., None], torch.nan)
    hide_BT = torch.zeros(3, 9, dtype=torch.bool)
    hide_BT[:, 1:3] = True
    return hidden_BTD, mask_BT, hide_BT


def update(objective: LocalAttributes, steps: int = 1) -> None:
    """Gradient steps that move what starts at zero."""
    optimiser = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        objective(*made_batch())["loss"].backward()
        optimiser.step()


def test_a_teacher_with_rate_one_stays_and_with_rate_zero_is_the_student() -> None:
    student = torch.nn.Linear(3, 2)
    teacher = teacher_of(student)
    with torch.no_grad():
        student.weight.add_(1.0)
    before = copy.deepcopy(teacher.state_dict())
    follow(teacher, student, 1.0)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())
    follow(teacher, student, 0.75)
    torch.testing.assert_close(teacher.weight, before["weight"] + 0.25)
    follow(teacher, student, 0.0)
    assert torch.equal(teacher.weight, student.weight)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got 1.5"):
        follow(teacher, student, 1.5)


def test_a_teacher_has_its_student_s_buffers() -> None:
    """Such as the statistics of a batch norm, which are no parameters."""
    student = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    teacher = teacher_of(student)
    student(torch.randn(8, 3, generator=generator()) + 5)
    follow(teacher, student, 0.99)
    assert all(map(torch.equal, teacher.buffers(), student.buffers()))
    assert not torch.equal(teacher[1].running_mean, torch.zeros(2))


def test_the_rate_rises_on_a_line() -> None:
    assert [rate_at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([0.99, 0.9945, 0.999])


def test_perfect_predictions_cost_nothing_and_zero_costs_one() -> None:
    target_MD = torch.nn.functional.layer_norm(torch.randn(5, WIDTH, generator=generator()), (WIDTH,))
    assert float(mask_loss(target_MD, target_MD)) == 0
    assert float(mask_loss(torch.zeros(5, WIDTH), target_MD)) == pytest.approx(1, abs=1e-3)


def test_distilling_equal_logits_at_equal_temperatures_is_the_entropy() -> None:
    logits_BP = torch.randn(4, 6, generator=generator(), requires_grad=True)
    zero_P = torch.zeros(6)
    loss = distillation_loss(logits_BP, logits_BP, zero_P, teacher_temperature=0.1, student_temperature=0.1)
    p_BP = torch.softmax(logits_BP.detach() / 0.1, -1)
    assert float(loss.detach()) == pytest.approx(float(torch.special.entr(p_BP).sum(1).mean()), rel=1e-4)
    (gradient,) = torch.autograd.grad(loss, logits_BP)
    assert float(gradient.abs().max()) < 1e-5


def test_a_teacher_at_its_centre_asks_for_the_uniform() -> None:
    teacher_BP = torch.randn(1, 6, generator=generator()).expand(3, 6)
    loss = distillation_loss(torch.zeros(3, 6), teacher_BP, teacher_BP[0])
    assert float(loss) == pytest.approx(math.log(6), rel=1e-5)


def test_the_nearest_prototype_is_that_of_a_search_by_hand() -> None:
    frame_ND, prototype_KD = (torch.randn(n, WIDTH, generator=generator(n)) + 3 for n in (50, K))
    assert torch.equal(nearest_prototype(frame_ND, prototype_KD), torch.cdist(frame_ND, prototype_KD).argmin(1))


def test_perplexity_counts_the_prototypes_in_use() -> None:
    assert float(perplexity(torch.zeros(9, dtype=torch.long), K)) == pytest.approx(1)
    assert float(perplexity(torch.arange(K).repeat(3), K)) == pytest.approx(K)
    assert float(perplexity(torch.tensor([0, 0, 5, 5]), K)) == pytest.approx(2)


def test_the_loss_is_the_weighted_sum_of_its_parts() -> None:
    scalars = made_objective(alpha=0.5, beta=3.0)(*made_batch())
    expected = scalars["mask"] + 0.5 * scalars["distillation"] + 3 * scalars["attribute"]
    torch.testing.assert_close(scalars["loss"].detach(), expected)


@pytest.mark.parametrize(
    ("weights", "absent"),
    [({"alpha": 0.0}, {"distillation", "centre_norm"}), ({"beta": 0.0}, {"attribute", "perplexity"})],
)
def test_a_weight_of_zero_leaves_its_part_out(weights: dict[str, float], absent: set[str]) -> None:
    objective, whole = made_objective(**weights), made_objective()
    assert set(whole(*made_batch())) - set(objective(*made_batch())) == absent
    assert len(list(objective.parameters())) < len(list(whole.parameters()))


@pytest.mark.parametrize("weights", [{}, {"alpha": 0.0}, {"beta": 0.0}])
def test_gradients_reach_all_of_the_student_and_nothing_of_the_teacher(weights: dict[str, float]) -> None:
    objective = made_objective(**weights)
    update(objective)
    objective.zero_grad()
    objective(*made_batch())["loss"].backward()
    teachers = {name for name, _ in objective.named_parameters() if "teacher" in name}
    assert len(teachers) > 10
    for name, parameter in objective.named_parameters():
        has_gradient = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert has_gradient is (name not in teachers), name


def test_the_teacher_moves_only_when_told_and_hears_no_dropout() -> None:
    objective = made_objective()
    hidden_BTD, mask_BT, _ = made_batch()
    before = objective.targets(hidden_BTD, mask_BT)[mask_BT]
    update(objective, steps=3)
    assert torch.equal(objective.targets(hidden_BTD, mask_BT)[mask_BT], before)
    objective.follow(0.5)
    assert not torch.equal(objective.targets(hidden_BTD, mask_BT)[mask_BT], before)
    assert objective.student.training
    assert not objective.teacher.training


def test_padding_has_no_influence() -> None:
    objective, batch = made_objective(), made_batch()
    update(objective, steps=2)
    objective.eval()
    padding = ((0, 0, 0, 5), (0, 5), (0, 5))
    padded = [torch.nn.functional.pad(tensor, pad) for tensor, pad in zip(batch, padding, strict=True)]
    torch.testing.assert_close(objective(*padded)["loss"], objective(*batch)["loss"], rtol=1e-5, atol=1e-6)


def test_the_student_never_sees_what_is_hidden() -> None:
    objective = made_objective(alpha=0.0, beta=0.0)
    update(objective, steps=2)
    objective.teacher.scale_D.fill_(1e9)  # a teacher that says nothing: what is left of the loss is the student's
    hidden_BTD, mask_BT, hide_BT = made_batch()
    reference = objective(hidden_BTD, mask_BT, hide_BT)["loss"]
    changed = objective(torch.where(hide_BT[..., None], 100.0, hidden_BTD), mask_BT, hide_BT)["loss"]
    visible = objective(torch.where(hide_BT[..., None], hidden_BTD, -hidden_BTD), mask_BT, hide_BT)["loss"]
    torch.testing.assert_close(changed, reference, rtol=1e-6, atol=0)
    assert not torch.allclose(visible, reference, rtol=1e-3)


def test_the_centre_follows_the_teacher_in_training_only() -> None:
    objective = made_objective()
    assert objective.clips is not None
    objective.eval()(*made_batch())
    assert float(objective.clips.centre_P.norm()) == 0
    scalars = objective.train()(*made_batch())
    assert float(scalars["centre_norm"]) > 0


def test_guards_see_a_teacher_that_says_the_same_of_everything() -> None:
    objective = made_objective()
    hidden_BTD, mask_BT, hide_BT = made_batch()
    healthy = {name: float(value.detach()) for name, value in objective(hidden_BTD, mask_BT, hide_BT).items()}
    assert collapse_signs(healthy, OPTIONS) == []
    constant_BTD = torch.ones_like(hidden_BTD)
    flat = {name: float(value.detach()) for name, value in objective(constant_BTD, mask_BT, hide_BT).items()}
    assert flat["z_std"] == pytest.approx(0, abs=1e-5)
    assert flat["perplexity"] == pytest.approx(1)
    frames, prototypes = collapse_signs(flat, OPTIONS)
    assert "z_std" in frames
    assert "1.0 of 8 prototypes" in prototypes


def test_what_cannot_be_learned_from_is_refused() -> None:
    objective = made_objective()
    hidden_BTD, mask_BT, hide_BT = made_batch()
    with pytest.raises(ValueError, match="hide at least one frame"):
        objective(hidden_BTD, mask_BT, torch.zeros_like(hide_BT))
    with pytest.raises(ValueError, match="real frames only"):
        objective(hidden_BTD, mask_BT, ~mask_BT)
    with pytest.raises(ValueError, match=r"\(8, 16\), got \(3, 16\)"):
        objective.set_prototypes(torch.zeros(3, WIDTH))
    with pytest.raises(ValueError, match="alpha must be at least 0, got -1"):
        LocalAttributesOptions(alpha=-1)
