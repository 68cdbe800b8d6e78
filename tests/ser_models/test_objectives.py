"""The contract of every objective in the table: it fits, learns, repeats itself and survives the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ser_models.adapters.composition import attach_adapters
from ser_models.encoders import FAMILIES, SpeechEncoder
from ser_models.objectives import OBJECTIVES, ClusterObjective, LocalAttributes, find_objective
from ser_models.objectives.store import restore_objective, save_objective

from .test_tapt import spread_rows, tones

# B clips · T frames · D features · L hidden states of the teacher that are distilled

FAMILY = {kind: "whisper" if made.fits("whisper") else "wav2vec2-layer" for kind, made in OBJECTIVES.items()}
Make = Callable[[str], SpeechEncoder]


def made_objective(kind: str, make_encoder: Make, seed: int = 0) -> nn.Module:
    """An objective with default options on a tiny encoder that it fits, with all it needs made from tones."""
    entry, encoder = OBJECTIVES[kind], make_encoder(FAMILY[kind])
    few = {"clusters": 6} if entry.reads in ("waves", "frames") else {}
    options, generator = entry.options(**few), torch.Generator().manual_seed(seed)
    if entry.adapter is not None:
        attach_adapters(encoder, entry.adapter, seed=0)
    if entry.reads == "teacher":
        return entry.build(encoder, options, generator, teacher_LND=teacher_states(make_encoder).flatten(1, 2))
    objective = entry.build(encoder, options, generator)
    if isinstance(objective, ClusterObjective):
        hidden_BTD, mask_BT = objective.targets.hidden(*tones(0.9, 0.8, 0.7))
        objective.targets.fit(hidden_BTD[mask_BT], spread_rows(6))
    if isinstance(objective, LocalAttributes):
        objective.set_prototypes(torch.randn(6, 32, generator=torch.Generator().manual_seed(1)))
    return objective


@torch.no_grad()
def teacher_states(make_encoder: Make) -> Tensor:
    return make_encoder("whisper")(*tones(0.9, 0.8)).hidden_LBTD[[1, 3]]


def scalars(kind: str, objective: nn.Module, make_encoder: Make, seed: int = 0) -> dict[str, Tensor]:
    """What the objective measures of a fixed batch of what it reads; `seed` is that of the global generator."""
    wave_BS, length_B = tones(0.9, 0.8)
    reads = OBJECTIVES[kind].reads
    torch.manual_seed(seed)
    if reads == "waves":
        return objective(wave_BS, length_B, np.random.default_rng(0))  # type: ignore[no-any-return]
    states_LBTD = teacher_states(make_encoder)
    frames_B = make_encoder("whisper").frames(length_B)
    if reads == "teacher":
        return objective(wave_BS, length_B, states_LBTD, frames_B)  # type: ignore[no-any-return]
    mask_BT = torch.arange(states_LBTD.shape[2]) < frames_B[:, None]
    hide_BT = torch.zeros_like(mask_BT)
    hide_BT[:, 3:9] = True
    return objective(states_LBTD[-1], mask_BT, hide_BT)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_its_loss_is_finite_and_reaches_what_it_trains(kind: str, make_encoder: Make) -> None:
    objective = made_objective(kind, make_encoder).train()
    trained = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimiser = torch.optim.Adam(trained.values(), lr=1e-3)
    for _ in range(2):  # what starts at zero hides what is behind it from the first step
        optimiser.zero_grad()
        measured = scalars(kind, objective, make_encoder)
        assert torch.isfinite(measured["loss"]), f"the loss of {kind} is {measured['loss']}"
        measured["loss"].backward()
        optimiser.step()
    dead = [name for name, p in trained.items() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead, f"{kind} gives no gradient to {dead}"
    assert "masked" in measured or "compared" in measured, f"{kind} does not say of how many frames its loss is a mean"


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_seed_decides_and_nothing_global(kind: str, make_encoder: Make) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (made_objective(kind, make_encoder, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before), f"building {kind} draws from the global generator"
    assert all(torch.equal(value, again[name]) for name, value in first.items() if value.isfinite().all())
    assert any(not torch.equal(value, other[name]) for name, value in first.items()), f"{kind} ignores its generator"
    objectives = [made_objective(kind, make_encoder).train() for _ in range(2)]
    for module in (module for objective in objectives for module in objective.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.3
        elif isinstance(getattr(module, "dropout", None), float):  # Whisper's layers
            module.dropout = 0.3
    # What reads waves draws from the generator it is given; the global one is seeded for the others, once a step.
    seeds = (0, 1) if OBJECTIVES[kind].reads == "waves" else (0, 0)
    losses = [scalars(kind, each, make_encoder, seed)["loss"] for each, seed in zip(objectives, seeds, strict=True)]
    assert torch.equal(losses[0], losses[1]), f"{kind} draws from the global generator, perhaps the encoder's dropout"


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_its_heads_survive_the_disk(kind: str, make_encoder: Make, tmp_path: Path) -> None:
    saved, fresh = (made_objective(kind, make_encoder, seed).eval() for seed in (0, 1))
    save_objective(saved, tmp_path / "objective.safetensors")
    with torch.no_grad():
        expected = scalars(kind, saved, make_encoder)["loss"]
        assert not torch.equal(scalars(kind, fresh, make_encoder)["loss"], expected), f"{kind} has no heads to save"
        restore_objective(fresh, tmp_path / "objective.safetensors")
        assert torch.equal(scalars(kind, fresh, make_encoder)["loss"], expected), f"{kind} does not save all its heads"


def test_the_docs_tell_of_every_objective() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    missing = [kind for kind, entry in OBJECTIVES.items() if entry.reads != "teacher" and f"`{kind}`" not in page]
    assert not missing, f"docs/training.md says nothing of {missing} in Task-adaptive pretraining"


def test_an_objective_is_found_by_name_or_by_family() -> None:
    for family in FAMILIES:
        assert OBJECTIVES[find_objective(None, family)].fits(family)
        assert find_objective("masked_clusters", family) == "masked_clusters"
    with pytest.raises(ValueError, match="no objective 'magic'; known: contrastive, masked_clusters"):
        find_objective("magic", "whisper")
    with pytest.raises(ValueError, match="'contrastive' does not fit encoders of hubert; these do: masked_clusters"):
        find_objective("contrastive", "hubert")
