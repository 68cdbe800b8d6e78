"""The clips that a round asks about, chosen by its arm's strategy."""

# N rows · L hidden states · D features
from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from seral import storage
from seral.errors import StateError
from seral.loop.rounds import SELECTION, LoopFold, Round, read_scores, round_folder
from seral.selection.candidates import Candidates, metadata_columns
from seral.selection.minutes import select_for_minutes
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, select
from seral.selection.source import read_vectors
from seral.selection.strategies import WRAPPERS


def pick(this: Round, picked_ids: Sequence[str], *, count: float, further: int) -> list[str]:
    """The ids to ask about, `picked_ids` of this round and all of the rounds before it left out.

    `count` labels are wanted; `further` is how often the round has asked before.
    """
    unasked = this.unasked(this.asked_ids)
    unpicked = sorted(set(unasked) - set(picked_ids))
    count = min(count, len(unpicked))
    pace = this.arm.pace
    if pace is None and count == len(unpicked):
        return unpicked
    if pace is None and count <= 0:
        return []
    strategy = this.strategy
    if further:  # in the place of new clips
        wrappers = [wrapper for wrapper in strategy.wrappers if not WRAPPERS[wrapper.name].relabels]
        strategy = strategy.model_copy(update={"wrappers": wrappers})
    candidates = _candidates(this, strategy, unasked).but(sorted(set(unasked) & set(picked_ids)))
    rng = this.trajectory.generator(this.number, f"select.{further}" if further else "select")
    if pace is None:
        return select(strategy, candidates, int(count), rng)
    minutes = this.arm.schedule[this.number] - this.fold.minutes(this.asked_ids, pace)
    if this.number and not (pace.seconds(candidates.need("duration_s")) <= 60 * minutes).any():
        return []  # earlier rounds left too little
    return select_for_minutes(strategy, Parts([PoolPart(candidates)]), minutes, rng, pace).ids


def _candidates(this: Round, strategy: StrategyOptions, ids: Sequence[str]) -> Candidates:
    """The candidates with every column that the strategy reads."""
    first = this.number == 0
    columns = _before_a_model(this.fold, ids) if first else _by_the_last_model(this, strategy, ids)
    if "surprisal_NQ" in strategy.needs:
        columns["surprisal_NQ"] = read_vectors(str(this.fold.surprisal), ids)
    return Candidates(ids=np.asarray(ids), **metadata_columns(this.fold.rows(ids)), **columns)


def _before_a_model(fold: LoopFold, ids: Sequence[str]) -> dict[str, Any]:
    """The middle layer's means, standardised."""
    mean_NLD = fold.data.utterances(ids).mean_NLD
    middle_ND = mean_NLD[:, mean_NLD.shape[1] // 2]
    return {"embedding_ND": (middle_ND - middle_ND.mean(0)) / np.maximum(middle_ND.std(0), 1e-6)}


def _by_the_last_model(this: Round, strategy: StrategyOptions, ids: Sequence[str]) -> dict[str, Any]:
    """Probabilities of the candidates by the round before, and what else of it the strategy reads."""
    path = round_folder(this.folder, this.number - 1)
    columns: dict[str, Any] = {"probability_NC": read_scores(path, ids, this.classes)}
    if strategy.needs & {"embedding_ND", "dropout_RNC", "labelled_doubt_M"}:
        with np.load(io.BytesIO(storage.read_bytes(storage.join(path, SELECTION))), allow_pickle=False) as arrays:
            if arrays["ids"].tolist() != list(ids):
                raise StateError(f"{path}/{SELECTION} is about other utterances than this round's candidates")
            columns |= {name: arrays[name] for name in arrays.files if name != "ids"}
    return columns
