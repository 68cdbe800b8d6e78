"""Recipes of trainings: named sets of defaults, of which what is set beside them wins.

`careful` are the defaults of the options themselves. The others take their figures from papers, and say where a paper
is silent. What a recipe comes to is written out in every configuration that is printed or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from pydantic import BaseModel

PAPER_LR, PAPER_FULL_LR = 5e-4, 1e-4
"""Learning rates of adapters, and of the encoder's own weights: Lashkarashvili et al. 2024."""
WHOLE_LAYERS = {"full", "last_block"}
"""Adapters that train the encoder's own matrices."""


def paper(kinds: Collection[str]) -> dict[str, Any]:
    """Adapters as in Lashkarashvili et al. 2024 (arXiv 2402.11747): in all layers, 2,000 steps of 32 clips,
    AdamW with linear decay and no weight decay, gradients of norm 1, the best dev checkpoint and no earlier end.

    The head is Linear 256 - mean over frames - Linear, on the last hidden state, or with `layer_sum` on a sum of all
    that starts with equal weights; LoRA's alpha is 1, gates start at sigmoid(1). All of it learns at one rate: 5e-4, or
    1e-4 where the encoder's own matrices learn.

    Ours, where the paper is silent: no dropout before the classifier, no time masks, classes that weigh alike, and dev
    is judged by the loss.
    """
    lr = PAPER_FULL_LR if WHOLE_LAYERS & set(kinds) else PAPER_LR
    own: dict[str, dict[str, Any]] = {"lora": {"alpha": 1.0}, "gate": {"start": "paper"}}
    return {
        "settings": {kind: values for kind, values in own.items() if kind in kinds},
        "head": {
            **_plain_head("sum" if "layer_sum" in kinds else "last"),
            "hidden": 256,
            "activation": "none",
        },
        "steps": 2000,
        "patience": None,
        "lr": lr,
        "head_lr": lr,
        "warmup": 0.0,
        "batch_size": 32,
        "class_weights": "none",
        "mixup": 0.0,
        "time_mask_prob": 0.0,
    }


def after(kinds: Collection[str]) -> dict[str, Any]:
    """Fine-tuning as in Li et al. 2023, AFTER (arXiv 2310.00283): the mean over frames of ReLU of the last
    hidden state, a linear classifier, class weights N / n_c, time masks (0.08, 15 frames), Adam at 1e-4 throughout, 30
    epochs of 64 clips.

    Ours, where the paper is silent: rates that stay as they are, no dropout before the classifier, and the model with
    the lowest dev loss. Its masks of features are left out.
    """
    return {
        "head": _plain_head("last"),
        "epochs": 30,
        "patience": None,
        "lr": 1e-4,
        "head_lr": 1e-4,
        "warmup": 0.0,
        "decay": "none",
        "batch_size": 64,
        "pooling": "relu_mean",
        "mixup": 0.0,
        "time_mask_prob": 0.08,
        "time_mask_frames": 15,
    }


def _plain_head(layers: str) -> dict[str, Any]:
    """A head that learns from random weights, on means as they are."""
    fixed = {"start": "random", "standardise": False, "normalise": "none"}
    return {**fixed, "layers": layers, "std_gain": 0.0, "dropout": 0.0}


RECIPES: dict[str, Callable[[Collection[str]], dict[str, Any]]] = {
    "careful": lambda kinds: {},
    "paper": paper,
    "after": after,
}
"""Recipe -> kinds of adapters -> options that differ from the defaults."""


def by_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options as plain values, with what they leave out by their recipe; an unknown recipe changes nothing."""
    kinds = [kind.strip() for kind in str(values.get("adapter", "")).split("+")]
    recipe = RECIPES.get(str(values.get("recipe", "careful")))
    return _filled({} if recipe is None else recipe(kinds), values)


def _filled(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with values over them; mappings, and models by what is set of them, entry by entry."""
    filled = dict(defaults)
    for name, value in values.items():
        default = defaults.get(name)
        if isinstance(default, Mapping) and isinstance(value, BaseModel):
            value = {field: getattr(value, field) for field in value.model_fields_set}
        nested = isinstance(default, Mapping) and isinstance(value, Mapping)
        filled[name] = _filled(defaults[name], value) if nested else value
    return filled
