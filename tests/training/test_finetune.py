from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training.ground import CLASSES, Ground

from ser_models.adapters import ADAPTERS
from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import adapter_parameters, adapter_tags
from ser_models.build import build_model
from ser_models.defaults import MEAN_STD
from ser_models.encoders import load_encoder
from ser_models.losses import weighted_classes
from ser_models.metrics import uar
from ser_models.pooling import POOLINGS
from ser_models.training import mix, time_masks
from seral.errors import OptionError, TrainError
from seral.features.audio import extract_features
from seral.options import parse
from seral.task.examples import Targets
from seral.training.adapter_training import dev_scores, freeze_tags
from seral.training.finetune import frames_layer
from seral.training.finetune_options import FinetuneOptions
from seral.training.linear_probe import linear_probe
from seral.training.model import load_model
from seral.training.scoring import score

LORA = {
    "adapter": "lora",
    "settings": {"lora": {"rank": 4}},
    "top_layers": 1,
    "epochs": 4,
    "patience": 4,
    "lr": 0.005,
    "head_lr": 0.01,
    "batch_size": 8,
    "mixup": 0.0,
    "time_mask_prob": 0.0,
}

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ground(speech_pool: str) -> Ground:
    return Ground(speech_pool)


def trained_weights(folder: Path) -> dict[str, torch.Tensor]:
    head = load_file(folder / "model" / "head.safetensors")
    return head | load_file(folder / "model" / "adapter" / "adapter_model.safetensors")


def test_frozen_training_is_reproducible_and_its_history_is_what_the_model_scores(
    ground: Ground, tmp_path: Path
) -> None:
    first = ground.train(tmp_path / "a", {"adapter": "frozen"})
    ground.train(tmp_path / "b", {"adapter": "frozen"})
    a, b = (load_file(tmp_path / name / "model" / "head.safetensors") for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    dev = ground.units(ground.fold.dev)
    predicted = score(str(tmp_path / "a" / "model"), ground.store, dev).probability_NC.argmax(1)
    truth = ground.labels(dev.ids)
    recalls = [np.mean(predicted[truth == c] == c) for c in np.unique(truth)]
    assert first["head"]["dev_uar"] == pytest.approx(np.mean(recalls))


def test_lora_starts_at_the_head_learns_and_keeps_the_best_on_dev(ground: Ground, tmp_path: Path) -> None:
    history = ground.train(tmp_path, LORA)
    epochs = history["adapter"]["epochs"]
    assert epochs[0]["dev_uar"] == pytest.approx(history["head"]["dev_uar"])
    assert epochs[4]["loss"] < epochs[1]["loss"]
    dev = ground.units(ground.fold.dev)
    model = str(tmp_path / "model")
    scores = score(model, ground.store, dev)
    truth, predicted = ground.labels(dev.ids), scores.probability_NC.argmax(1)
    uar = np.mean([np.mean(predicted[truth == c] == c) for c in np.unique(truth)])
    assert uar == pytest.approx(min(epochs, key=lambda epoch: epoch["dev_loss"])["dev_uar"])
    assert not list(tmp_path.glob(".train")), "the work folder of Ray Train is left behind"
    assert sorted(path.name for path in (tmp_path / "model" / "adapter").iterdir())[0] == "adapter_config.json"
    assert load_model(model).classes == CLASSES


def test_without_dev_the_last_epoch_is_kept(ground: Ground, tmp_path: Path) -> None:
    short, judged = LORA | {"epochs": 2, "patience": 1}, LORA | {"epochs": 2, "patience": 2}
    history = ground.train(tmp_path / "without", short, judged=False)
    epochs = history["adapter"]["epochs"]
    assert [sorted(epoch) for epoch in epochs] == [["loss"]] * 3, "nobody is judged, and patience has nothing to go by"
    assert epochs[2]["loss"] < epochs[1]["loss"]
    with_dev = ground.train(tmp_path / "with", judged)["adapter"]["epochs"]
    assert [epoch["loss"] for epoch in with_dev] == [epoch["loss"] for epoch in epochs], "dev teaches nothing"
    losses = [epoch["dev_loss"] for epoch in with_dev]
    last, best = (trained_weights(tmp_path / name) for name in ("without", "with"))
    assert all(torch.equal(last[name], best[name]) for name in last) == (losses.index(min(losses)) == 2)


def test_two_lora_trainings_agree_bit_for_bit(ground: Ground, tmp_path: Path) -> None:
    for name in ("a", "b"):
        ground.train(tmp_path / name, LORA)
    a, b = (trained_weights(tmp_path / name) for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_adapters_learn_soft_labels_and_sure_ones_as_hard_ones(ground: Ground, tmp_path: Path) -> None:
    sure_CC = np.eye(len(CLASSES), dtype=np.float32)
    votes: dict[str, Callable[[Any], Any]] = {
        "hard": lambda label_N: None,
        "sure": lambda label_N: sure_CC[label_N],
        "unsure": lambda label_N: (0.6 * sure_CC + 0.1)[label_N],
    }
    lost = {name: ground.train(tmp_path / name, LORA, soft=soft)["adapter"]["epochs"] for name, soft in votes.items()}
    hard, sure, unsure = ([epoch["loss"] for epoch in lost[name][1:]] for name in votes)
    assert sure == pytest.approx(hard, rel=1e-2)
    # A clip that is in doubt costs at least the entropy of its votes.
    least = float(-(0.7 * np.log(0.7) + 0.3 * np.log(0.1)))
    assert min(unsure) > 0.9 * least > max(hard)
    dev = ground.units(ground.fold.dev)
    sharp, blunt = (
        score(str(tmp_path / name / "model"), ground.store, dev).probability_NC for name in ("sure", "unsure")
    )
    assert blunt.max(1).mean() < sharp.max(1).mean()


@pytest.mark.parametrize("kind", [kind for kind, adapter in ADAPTERS.items() if adapter.trains])
def test_what_was_kept_of_an_adapter_scores_as_it_did_in_training(kind: str, ground: Ground, tmp_path: Path) -> None:
    values = LORA | {"adapter": f"{kind}+layer_sum", "settings": {}, "epochs": 2, "lr": None}
    layer = frames_layer("seral-tiny", parse(FinetuneOptions, values))
    extract_features(ground.store.pool, "seral-tiny", frames_layer=layer)
    history = ground.train(tmp_path, values)["adapter"]
    best = min(history["epochs"], key=lambda epoch: epoch["dev_loss"])
    dev = ground.units(ground.fold.dev)
    predicted = score(str(tmp_path / "model"), ground.store, dev).probability_NC.argmax(1)
    assert uar(ground.labels(dev.ids), predicted) == pytest.approx(best["dev_uar"])
    model = load_model(str(tmp_path / "model"))
    sizes = [parameter.numel() for parameter in adapter_parameters(model.encoder).values()]
    on_top = [parameter.numel() for part in (model.pool, model.head) for parameter in part.parameters()]
    assert sizes
    assert history["trainable"] == sum(sizes) + sum(on_top)


def test_focal_loss_trains_another_head_and_other_adapters(ground: Ground, tmp_path: Path) -> None:
    histories = {loss: ground.train(tmp_path / loss, LORA | {"loss": loss}) for loss in ("cross_entropy", "focal")}
    plain, focal = (histories[loss]["adapter"]["epochs"] for loss in ("cross_entropy", "focal"))
    assert focal[1]["loss"] < plain[1]["loss"], "clips that are right already count less"
    assert focal[4]["loss"] < focal[1]["loss"]
    heads = [load_file(tmp_path / loss / "model" / "head.safetensors") for loss in histories]
    assert not torch.equal(heads[0]["head.output.weight"], heads[1]["head.output.weight"])


@pytest.mark.parametrize("pooling", [kind for kind in POOLINGS if kind != MEAN_STD])
def test_adapters_learn_under_any_pooling_of_frames(pooling: str, ground: Ground, tmp_path: Path) -> None:
    history = ground.train(tmp_path, LORA | {"pooling": pooling})
    epochs = history["adapter"]["epochs"]
    assert epochs[0]["dev_uar"] == pytest.approx(history["head"]["dev_uar"]), "training starts at the fitted head"
    assert epochs[4]["loss"] < epochs[1]["loss"]
    dev, model = ground.units(ground.fold.dev), str(tmp_path / "model")
    predicted = score(model, ground.store, dev).probability_NC.argmax(1)
    best = min(epochs, key=lambda epoch: epoch["dev_loss"])
    assert uar(ground.labels(dev.ids), predicted) == pytest.approx(best["dev_uar"])
    went_on = ground.train(tmp_path / "on", LORA | {"pooling": pooling, "epochs": 1}, start=model)
    assert went_on["adapter"]["epochs"][0]["dev_uar"] == pytest.approx(best["dev_uar"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling": "attentive"}, "pooling=attentive needs frames, .*: choose an adapter, such as adapter=lora"),
        ({"pooling": "max", "adapter": "lora"}, "no pooling 'max'; known: mean_std, relu_mean, attentive"),
        ({"loss": "hinge"}, "no loss 'hinge'; known: cross_entropy, focal"),
    ],
)
def test_losses_and_poolings_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(FinetuneOptions, values)
    assert parse(FinetuneOptions, LORA | {"pooling": "attentive"}).head_only.pooling == MEAN_STD


def test_training_goes_on_from_a_model(ground: Ground, tmp_path: Path) -> None:
    values = LORA | {"adapter": "lora+bottleneck", "epochs": 2, "lr": 0.01}
    ground.train(tmp_path / "first", values)
    start, dev = str(tmp_path / "first" / "model"), ground.units(ground.fold.dev)
    expected = uar(ground.labels(dev.ids), score(start, ground.store, dev).probability_NC.argmax(1))
    went_on = ground.train(tmp_path / "second", values, start=start, freeze=("bottleneck",))
    assert went_on["adapter"]["epochs"][0]["dev_uar"] == pytest.approx(expected)
    with pytest.raises(TrainError, match=r"'gate'.*bottleneck, head, layer_sum, lora_A, lora_B"):
        ground.train(tmp_path / "third", values, start=start, freeze=("gate",))
    with pytest.raises(OptionError, match="frozen"):
        ground.train(tmp_path / "fourth", {"adapter": "frozen"}, start=start)


def test_frozen_parts_of_a_model_stay(ground: Ground) -> None:
    encoder = attach_adapters(load_encoder("seral-tiny"), "lora+bottleneck", seed=0)
    model = build_model(encoder, CLASSES)
    freeze_tags(model, ["lora_A", "head"])
    learns = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    tags = adapter_tags(model)
    assert learns == {*tags["lora_B"], *tags["bottleneck"], "pool.layer_weight"}


@pytest.mark.slow
def test_a_killed_ray_train_worker_is_restored_and_ends_in_the_same_weights(
    ground: Ground, tmp_path: Path, kill_ray_train_worker: Callable[[Path], AbstractContextManager[list[int]]]
) -> None:
    values = LORA | {"epochs": 6, "patience": 6}
    ground.train(tmp_path / "whole", values, rated=True, train_workers=1)
    with kill_ray_train_worker(tmp_path / "cut" / ".train") as killed:
        ground.train(tmp_path / "cut", values, rated=True, train_workers=1, max_failures=1)
    assert killed, "training ended before a worker could be killed"
    whole, cut = (trained_weights(tmp_path / name) for name in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize("adapter", ["lora", "wap"])
def test_infinite_loss_names_the_utterances(ground: Ground, tmp_path: Path, adapter: str) -> None:
    values = LORA | {"adapter": adapter, "settings": {}, "lr": 1e30, "epochs": 6}
    layer = frames_layer("seral-tiny", parse(FinetuneOptions, values))
    extract_features(ground.store.pool, "seral-tiny", frames_layer=layer)
    with pytest.raises(TrainError, match=r"loss is (nan|inf).*demo-"):
        ground.train(tmp_path, values)


@pytest.mark.slow
def test_an_error_that_lasts_ends_ray_train_at_once(ground: Ground, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"loss is (nan|inf).*demo-") as raised:
        ground.train(tmp_path, LORA | {"lr": 1e30, "epochs": 6}, train_workers=1, max_failures=2)
    assert raised.value.lasting  # one after tries that failed would not say so


def test_adapter_options_are_checked(ground: Ground) -> None:
    with pytest.raises(OptionError, match="adapter"):
        parse(FinetuneOptions, {"adapter": "lorra"})
    assert frames_layer("seral-tiny", FinetuneOptions()) is None
    assert frames_layer("seral-tiny", parse(FinetuneOptions, LORA)) == 3


def test_time_masks_never_hide_more_than_half_nor_touch_padding() -> None:
    mask_BT = torch.arange(100)[None] < torch.tensor([100, 60, 9, 2])[:, None]
    for seed in range(20):
        out = time_masks(mask_BT, 0.5, 15, np.random.default_rng(seed))
        assert not bool((out & ~mask_BT).any())
        assert (out.sum(1) * 2 >= mask_BT.sum(1) // 2 * 2).all()


def test_mixing_pairs_each_clip_with_one_other_by_the_same_share_in_logits_and_targets() -> None:
    rows_BC = torch.eye(6)
    sure_B = torch.arange(6) < 3
    logits_BC, target_BC, known_mixed_B = mix([rows_BC, 3 * rows_BC, sure_B], 0.5, np.random.default_rng(0))
    torch.testing.assert_close(target_BC, 3 * logits_BC)
    torch.testing.assert_close(logits_BC.sum(1), torch.ones(6))
    assert bool(((logits_BC > 0).sum(1) <= 2).all())
    assert float(logits_BC.diagonal().min()) < 1
    assert known_mixed_B.tolist() == [bool(sure_B[row > 0].all()) for row in logits_BC]
    assert mix([rows_BC], 0.0, np.random.default_rng(0))[0] is rows_BC


def test_clips_without_a_class_or_without_ratings_count_only_where_they_are_known() -> None:
    target = Targets(
        label_N=np.array([0, 1, -1, 0]), value_NK=np.array([[1, 2], [3, 1], [2, 5], [np.nan, 1]], np.float32)
    )
    hot_NC = weighted_classes(torch.from_numpy(target.label_N), 2)
    torch.testing.assert_close(hot_NC, torch.tensor([[0.75, 0], [0, 1.5], [0, 0], [0.75, 0]]))
    logits_NC = torch.tensor([[9.0, 0], [0, 9], [0, 0], [9, 0]])
    value_NK = torch.tensor([[1.0, 2], [3, 1], [2, 5], [77, 77]])
    scores = dev_scores(logits_NC, value_NK, target, dimension_weight=3.0)
    assert scores["dev_uar"] == 1
    assert scores["dev_ccc"] == pytest.approx(1)
    assert scores["dev_loss"] == pytest.approx(0, abs=1e-3)
    worse = dev_scores(logits_NC, value_NK.flip(0), target, dimension_weight=3.0)
    assert worse["dev_loss"] == pytest.approx(3 * (1 - worse["dev_ccc"]), abs=1e-3)
    assert "dev_uar" not in dev_scores(logits_NC[:, :0], value_NK, target, dimension_weight=1.0)


def test_the_linear_probe_matches_scikit_learn_on_the_chosen_layer(ground: Ground) -> None:
    parts = [ground.fold.train, ground.fold.dev, ground.fold.test]
    train, dev, test = ((ground.units(ids), ground.labels(ids)) for ids in parts)
    result = linear_probe(train, dev, test, len(CLASSES))
    confusion = np.array(result["confusion"])
    assert confusion.sum(1).tolist() == np.bincount(test[1], minlength=len(CLASSES)).tolist()
    present = confusion.sum(1) > 0
    assert result["test_uar"] == pytest.approx((np.diag(confusion)[present] / confusion.sum(1)[present]).mean())
    assert 0 <= result["layer"] <= ground.store.num_layers
    assert 0 <= result["test_uar"] <= 1
    json.dumps(result)
