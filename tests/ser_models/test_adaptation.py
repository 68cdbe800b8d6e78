"""Learning from labels of several corpora: what tells corpora apart has no influence, and absent classes have none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from ser_models.adaptation import AdaptationOptions, LabelledAdaptation, smoothed_cross_entropy, standardised
from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.lora import LoraOptions
from ser_models.encoders import load_encoder


def test_the_loss_over_all_classes_is_torchs() -> None:
    torch.manual_seed(0)
    logits_BC, label_B, weight_C = torch.randn(7, 4), torch.tensor([0, 1, 2, 3, 0, 1, 1]), torch.tensor([0.5, 1, 2, 3])
    expected = functional.cross_entropy(logits_BC, label_B, weight=weight_C, reduction="none")
    log_BC = functional.log_softmax(logits_BC, 1)
    weight_B = weight_C[label_B]
    expected = (0.9 * expected - 0.1 * weight_B * log_BC.mean(1)).sum() / weight_B.sum()
    target_BC = functional.one_hot(label_B, 4).float()
    assert smoothed_cross_entropy(logits_BC, target_BC, weight_C, 0.1) == pytest.approx(float(expected), rel=1e-6)
    plain = functional.cross_entropy(logits_BC, label_B, weight=weight_C)
    assert smoothed_cross_entropy(logits_BC, target_BC, weight_C, 0.0) == pytest.approx(float(plain), rel=1e-6)


def test_shares_of_votes_cost_as_much_as_the_clip_once_for_each_class_by_its_share() -> None:
    torch.manual_seed(0)
    logits_BC, weight_C = torch.randn(2, 3), torch.tensor([0.5, 1, 2])
    target_BC = torch.tensor([[0.25, 0.75, 0], [0, 0, 1]])
    loss = smoothed_cross_entropy(logits_BC, target_BC, weight_C, 0.1)
    hot_BC = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], *[[0, 0, 1]] * 4])
    assert loss == pytest.approx(float(smoothed_cross_entropy(logits_BC[[0] * 4 + [1] * 4], hot_BC, weight_C, 0.1)))


def test_a_class_that_the_corpus_lacks_changes_nothing() -> None:
    torch.manual_seed(0)
    logits_BC, label_B, weight_C = torch.randn(5, 4), torch.tensor([0, 2, 2, 3, 0]), torch.tensor([1.0, 0, 2, 1])
    target_BC = functional.one_hot(label_B, 4).float()
    other_BC = logits_BC.clone()
    other_BC[:, 1] = 50
    loss, other = (smoothed_cross_entropy(logits, target_BC, weight_C, 0.1) for logits in (logits_BC, other_BC))
    assert loss == other
    columns = [0, 2, 3]
    three = smoothed_cross_entropy(logits_BC[:, columns], target_BC[:, columns], weight_C[columns], 0.1)
    assert loss == pytest.approx(float(three), rel=1e-6)


def test_an_offset_and_a_scale_of_a_corpus_are_taken_away() -> None:
    torch.manual_seed(0)
    part_LBD = torch.randn(3, 6, 5)
    moved_LBD = 7 * part_LBD + torch.randn(3, 1, 5)
    torch.testing.assert_close(standardised(moved_LBD), standardised(part_LBD), rtol=1e-4, atol=1e-5)
    dead_LBD = torch.full((3, 6, 5), 2.0)
    assert not standardised(dead_LBD).any()


def test_adapters_below_and_above_learn_and_the_encoder_does_not() -> None:
    encoder = attach_adapters(load_encoder("seral-tiny"), {"lora": LoraOptions(rank=2, top_layers=2)}, seed=0)
    start, generator = encoder.num_layers - 2, torch.Generator().manual_seed(0)
    model = LabelledAdaptation(encoder, 3, start=start, options=AdaptationOptions(), generator=generator)
    names = set(model.trained())
    assert {"layer_weight", "output.weight", "output.bias"} < names
    assert all("lora" in name for name in names if name.startswith("encoder."))
    batch: dict[str, Any] = {
        "hidden_BTD": torch.randn(6, 20, encoder.width),
        "mask_BT": torch.ones(6, 20, dtype=torch.bool),
        "below_mean_LBD": torch.randn(start, 6, encoder.width),
        "below_std_LBD": torch.rand(start, 6, encoder.width),
        "target_BC": functional.one_hot(torch.tensor([0, 0, 2, 2, 0, 2]), 3).float(),
        "weight_C": torch.tensor([1.0, 0.0, 1.0]),
    }
    scalars = model(**batch)
    scalars["loss"].backward()
    assert float(scalars["clips"]) == 6
    gradients = {name: parameter.grad for name, parameter in model.trained().items()}
    reached = {name for name, grad in gradients.items() if grad is not None and grad.abs().sum() > 0}
    assert {name for name in names if "lora_B" in name} <= reached, "A follows: B is zero at first"
    weight_grad = gradients["output.weight"]
    assert weight_grad is not None
    assert not weight_grad[1].any(), "nothing is learnt of a class that is not there"


@pytest.mark.parametrize(
    ("values", "message"),
    [({"lr": 0.0}, "lr must be positive"), ({"smoothing": 1.0}, r"smoothing must lie in \[0, 1\)")],
)
def test_impossible_options_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdaptationOptions(**values)
