"""Recipes: what they fill in, what wins over them, and that their trainings are the ones they name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training.ground import CLASSES, Ground

from ser_models.encoders import load_encoder
from ser_models.heads import Head, LayerPool
from ser_models.inference import Model
from ser_models.metrics import uar
from ser_models.training import balanced_draw, rate_scale
from seral.errors import OptionError
from seral.options import dump, load, parse
from seral.training.finetune import cached_layer
from seral.training.finetune_options import FinetuneOptions, HeadOptions
from seral.training.model import load_model
from seral.training.options import SupervisedOptions
from seral.training.scoring import score
from seral.training.waves import read_waves

pytestmark = pytest.mark.ray
SHORT = {"recipe": "paper", "steps": 5, "batch_size": 16}


@pytest.fixture(scope="module")
def ground(speech_pool: str) -> Ground:
    return Ground(speech_pool)


def test_careful_is_the_default_and_fills_in_nothing() -> None:
    assert FinetuneOptions() == parse(FinetuneOptions, {"recipe": "careful"})
    set_of = parse(FinetuneOptions, {"recipe": "careful", "adapter": "lora"}).model_fields_set
    assert set_of == {"recipe", "adapter"}


def test_what_is_set_wins_over_a_recipe_and_the_result_says_what_is_in_force() -> None:
    values = {"recipe": "paper", "adapter": "lora+gate+layer_sum", "settings": {"lora": {"rank": 4}}}
    options = parse(FinetuneOptions, values, ["batch_size=4", "head.dropout=0.3"])
    assert (options.steps, options.patience, options.mixup, options.warmup) == (2000, None, 0.0, 0.0)
    assert (options.batch_size, options.lr, options.head_lr, options.class_weights) == (4, 5e-4, 5e-4, "none")
    head = options.head
    assert (head.start, head.hidden, head.activation, head.layers, head.dropout) == ("random", 256, "none", "sum", 0.3)
    assert options.settings == {"lora": {"alpha": 1.0, "rank": 4}, "gate": {"start": "paper"}}
    assert options.adapters()["lora"].alpha == 1.0
    assert options.adapters()["gate"].start == "paper"
    again = parse(FinetuneOptions, options.model_dump(mode="json"))
    assert again == options
    assert "steps: 2000" in dump(options)
    assert options.summary == ("lora+gate+layer_sum by the recipe paper, 2,000 steps at most, 4 clips a step at 0.0005")
    assert FinetuneOptions().summary == "a head on the frozen encoder"


def test_a_recipe_follows_the_adapters_and_takes_models_for_values() -> None:
    full = FinetuneOptions(recipe="paper", adapter="full", head=HeadOptions(l2=1.0))
    assert (full.peak_lr, full.head_lr, full.settings) == (1e-4, 1e-4, {})
    assert (full.head.layers, full.head.l2, full.head.standardise) == ("last", 1.0, False)
    after = FinetuneOptions(recipe="after", adapter="full")
    assert (after.pooling, after.epochs, after.batch_size, after.decay) == ("relu_mean", 30, 64, "none")
    assert after.head_only.head.start == "fitted"


def test_a_recipe_of_steps_needs_an_adapter() -> None:
    with pytest.raises(OptionError, match="such as adapter=lora"):
        parse(FinetuneOptions, {"recipe": "paper"})
    with pytest.raises(OptionError, match="expected 'careful', 'paper' or 'after'"):
        parse(FinetuneOptions, {"recipe": "papers", "adapter": "lora"})
    with pytest.raises(OptionError, match=r"set head\.normalise=none"):
        parse(FinetuneOptions, {"recipe": "paper", "adapter": "lora", "head": {"normalise": "speaker"}})


def test_the_configuration_of_a_run_is_written_out(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    values = {"pool": "p", "run": "r", "encoder": "e", "classes": ["a", "b"]}
    finetune = {"recipe": "paper", "adapter": "lora"}
    path.write_text(json.dumps({**values, "finetune": finetune}), encoding="utf-8")
    assert load(SupervisedOptions, path).finetune.steps == 2000
    assert load(SupervisedOptions, path, ["finetune.steps=7"]).finetune.steps == 7


def test_paper_learns_a_projecting_head_from_random_in_so_many_steps(ground: Ground, tmp_path: Path) -> None:
    values = SHORT | {"adapter": "lora+layer_sum", "head": {"hidden": 8}}
    history = ground.train(tmp_path, values)
    clips = len(ground.fold.train[::2])
    epochs = history["adapter"]["epochs"]
    assert len(epochs) - 1 == parse(FinetuneOptions, values).epochs_on(clips) == -(-5 // -(-clips // 16))
    assert history["head"]["steps"] == 0
    assert history["head"]["loss"] is None
    model = load_model(str(tmp_path / "model"))
    assert (model.head.activation, model.pool.standardised, model.pool.std_gain) == ("none", False, 0.0)
    assert model.head.hidden is not None
    described = json.loads((tmp_path / "model" / "model.json").read_text(encoding="utf-8"))
    assert described["options"] == {
        "std_gain": 0.0,
        "hidden": 8,
        "dropout": 0.0,
        "standardised": False,
        "activation": "none",
    }
    # What is loaded is what was judged in training.
    scores = score(str(tmp_path / "model"), ground.store, ground.units(ground.fold.dev))
    recalls = [np.mean(scores.probability_NC.argmax(1)[ground.labels(ground.fold.dev) == c] == c) for c in range(4)]
    best = min((epoch for epoch in epochs if "dev_loss" in epoch), key=lambda epoch: epoch["dev_loss"])
    assert np.mean(recalls) == pytest.approx(best["dev_uar"], abs=1e-6)


def test_two_paper_trainings_agree_and_another_seed_does_not(ground: Ground, tmp_path: Path) -> None:
    values = SHORT | {"adapter": "gate", "steps": 2}
    twins = [ground.train(tmp_path / name, values)["adapter"]["epochs"] for name in "ab"]
    assert twins[0] == twins[1]
    weights = [head_from(seed).output.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def head_from(seed: int) -> Head:
    generator = torch.Generator().manual_seed(seed)
    head = Head(6, len(CLASSES), hidden=5, activation="none", generator=generator)
    head.draw(generator)
    return head.eval()


def test_a_projection_of_frames_before_the_mean_is_that_of_the_mean() -> None:
    head, pool = head_from(0), LayerPool(2, 6, std_gain=0.0, standardised=False)
    pool.fit(*(torch.rand(5, 2, 6, generator=torch.Generator().manual_seed(2)) for _ in range(2)))  # not used
    frames_LTD = torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(1)) * 40
    assert head.hidden is not None
    expected_C = head.output(head.hidden(frames_LTD.mean(0)).mean(0))
    mean_BLD = frames_LTD.mean(1)[None]
    torch.testing.assert_close(head(pool(mean_BLD, torch.zeros(1, 2, 6)))[0], expected_C, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pool.weigh(mean_BLD, torch.zeros(1, 2, 6)), mean_BLD.mean(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "change", [{"balanced": True, "class_weights": "none"}, {"logit_adjustment": 1.0, "class_weights": "none"}]
)
def test_imbalance_options_reach_head_and_adapters(change: dict[str, Any], ground: Ground, tmp_path: Path) -> None:
    short = {"adapter": "lora", "top_layers": 1, "epochs": 1, "batch_size": 8, "mixup": 0.0}
    plain = ground.train(tmp_path / "plain", short | {"class_weights": "none"})
    other = ground.train(tmp_path / "other", short | change)
    assert plain["adapter"]["epochs"][1]["loss"] != other["adapter"]["epochs"][1]["loss"]
    # Draws are of adapter training alone; the adjustment is of the head's fit too.
    assert (plain["head"]["loss"] == other["head"]["loss"]) == ("balanced" in change)


def test_balanced_draws_are_even_and_deterministic() -> None:
    label_N = np.repeat([0, 1, 2, -1], [900, 60, 30, 10])
    draws = [balanced_draw(label_N, np.random.default_rng(seed)) for seed in (3, 3)]
    np.testing.assert_array_equal(*draws)
    counts = np.unique(label_N[draws[0]], return_counts=True)[1]
    assert counts.sum() == len(label_N)
    assert counts.min() > 200
    assert counts.max() < 300


def test_rates_fall_from_the_first_step_stay_or_warm_up() -> None:
    assert [rate_scale(share, 0.0) for share in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.0]
    assert [rate_scale(share, 0.0, decay=False) for share in (0.0, 0.9)] == [1.0, 1.0]
    assert rate_scale(0.0) < rate_scale(0.05) < 1.0 == rate_scale(0.1)


AFTER = {"recipe": "after", "adapter": "full", "settings": {"full": {"stem": True}}, "epochs": 2, "batch_size": 16}


def test_after_trains_everything_from_audio_and_scores_as_in_training(ground: Ground, tmp_path: Path) -> None:
    assert cached_layer("seral-tiny", parse(FinetuneOptions, AFTER)) is None
    history = ground.train(tmp_path, AFTER | {"lr": 1e-3, "head_lr": 1e-2})
    adapter, folder = history["adapter"], str(tmp_path / "model")
    model, plain = load_model(folder), load_encoder("seral-tiny")
    assert adapter["trainable"] > 0.98 * adapter["parameters"]
    front = {id(parameter) for part in plain.front for parameter in part.parameters()}
    names = [name for name, parameter in plain.model.named_parameters() if id(parameter) in front]
    trained = dict(model.encoder.model.named_parameters())
    before = dict(plain.model.named_parameters())
    assert names
    best = int(np.argmin([epoch["dev_loss"] for epoch in adapter["epochs"]]))
    assert any(not torch.equal(trained[name], before[name]) for name in names) == (best > 0)
    scores = score(folder, ground.store, ground.units(ground.fold.dev))
    truth_N = ground.labels(ground.fold.dev)
    assert adapter["epochs"][best]["dev_uar"] == pytest.approx(uar(truth_N, scores.probability_NC.argmax(1)), abs=0.03)
    assert (adapter["effect"] > 0.01) == (best > 0)
    # The whole network hears the same in a program of its own, without caches.
    ids = list(ground.fold.dev)[:3]
    waves = read_waves(ground.store, ids)
    share_NC = Model.load(folder).predict_proba([waves[name][:, 0] for name in ids])
    np.testing.assert_allclose(share_NC, scores.probability_NC[:3], atol=5e-3)


def test_training_from_audio_gives_what_training_from_frames_gives(ground: Ground, tmp_path: Path) -> None:
    values = AFTER | {"epochs": 1, "time_mask_prob": 0.0, "lr": 1e-12, "head_lr": 1e-2}
    audio = ground.train(tmp_path / "audio", values, judged=False)
    frames = ground.train(tmp_path / "frames", values | {"settings": {}}, judged=False)
    losses = [history["adapter"]["epochs"][1]["loss"] for history in (audio, frames)]
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


def test_convolutions_do_not_learn_from_copies(ground: Ground, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="leave augment, source and prior out"):
        ground.train(tmp_path, AFTER | {"augment": {"gain_db": [-6, 6]}})
