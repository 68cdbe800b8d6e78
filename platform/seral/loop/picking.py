"""The clips that a round asks about, chosen by its arm's strategy."""

# N rows · L hidden states · D features
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, compress, groupby
from operator import itemgetter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral import storage
from seral.errors import StateError
from seral.features.store import PooledShard
from seral.loop.folders import round_folder
from seral.loop.pool_scores import LABELLED, SELECTION, Projection, vector_column, write_source_scores
from seral.loop.reasons import explain
from seral.loop.rounds import OF_A_MODEL, LoopFold, Round
from seral.pool.ids import Ids, positions
from seral.selection.candidates import Candidates, metadata_columns
from seral.selection.minutes import select_for_minutes
from seral.selection.parts.actors import RemoteParts, despite_losses
from seral.selection.parts.distributed import exact_in_parts, select_in_parts
from seral.selection.parts.local import Parts, Picks
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions
from seral.selection.source import read_vectors, shards
from seral.selection.source_options import SourceOptions
from seral.selection.strategies import WRAPPERS

INITIAL = "initial"
"""Folder of what is selected by before there is a model."""


def pick(this: Round, picked_ids: Sequence[str], *, count: float, further: int) -> Picks:
    """The clips to ask about, `picked_ids` of this round and all of the rounds before it left out.

    `count` labels are wanted; `further` is how often the round has asked before.
    """
    unasked = this.unasked(this.asked_ids)
    unpicked = unasked.without(picked_ids)
    count = min(count, len(unpicked))
    pace = this.arm.pace
    if pace is None and count == len(unpicked):
        return Picks(list(unpicked), exact=True)
    if pace is None and count <= 0:
        return Picks([], exact=True)
    strategy, minutes = _strategy(this, further), None
    if pace is not None:
        minutes = this.arm.schedule[this.number] - this.fold.minutes(this.asked_ids, pace)
        if this.number and pace.seconds(np.asarray(this.fold.rows(unpicked)["duration_s"])).min() > 60 * minutes:
            return Picks([], exact=True)  # earlier rounds left too little

    def select() -> Picks:
        with _unpicked(this, strategy, unasked, picked_ids) as parts:
            if pace is None or minutes is None:
                picks = select_in_parts(strategy, parts, int(count), _generator(this, further))
            else:
                picks = select_for_minutes(strategy, parts, minutes, _generator(this, further), pace)
            chosen = strategy if picks.strategy is None else StrategyOptions(name=picks.strategy)
            return picks._replace(reasons=tuple(explain(chosen, parts, picks.ids, _generator(this, further))))

    return despite_losses(select, this.options.cluster)


def picks_of(this: Round, picked_ids: Sequence[str], ids: list[str], *, further: int) -> Picks:
    """The picks that a round asked about before, with the reasons that `pick` gives with them."""
    unasked = this.unasked(this.asked_ids)
    if len(ids) >= len(unasked.without(picked_ids)):
        return Picks(ids, exact=True)
    strategy = _strategy(this, further)

    def select() -> Picks:
        with _unpicked(this, strategy, unasked, picked_ids) as parts:
            reasons = explain(strategy, parts, ids, _generator(this, further))
            return Picks(ids, exact=True, reasons=tuple(reasons))

    return despite_losses(select, this.options.cluster)


def _strategy(this: Round, further: int) -> StrategyOptions:
    """The strategy of a round's question."""
    strategy = this.strategy if this.fold.models is None else this.strategy.with_source()
    if further:  # in the place of new clips
        wrappers = [wrapper for wrapper in strategy.wrappers if not WRAPPERS[wrapper.name].relabels]
        strategy = strategy.model_copy(update={"wrappers": wrappers})
    return strategy


def _generator(this: Round, further: int) -> np.random.Generator:
    """The random numbers of a round's question, from their beginning."""
    return this.trajectory.generator(this.number, f"select.{further}" if further else "select")


@contextmanager
def _unpicked(this: Round, strategy: StrategyOptions, unasked: Ids, picked_ids: Sequence[str]) -> Iterator[Parts]:
    """The candidates of a round's question, where `picked_ids` are picked by now."""
    candidates = this.candidates(unasked, this.number) if this.number and this.selects_by_model else unasked
    with _candidates(this, strategy, candidates) as parts:
        present_M = positions(pa.array(Ids(picked_ids)), pa.array(Ids(candidates))) >= 0
        parts.each(PoolPart.count_as_picked, sorted(compress(picked_ids, present_M)))
        yield parts


@contextmanager
def _candidates(this: Round, strategy: StrategyOptions, ids: Sequence[str]) -> Iterator[Parts]:
    """The candidates with every column that the strategy reads, in as many parts as the run has processes for."""
    source = _source(this, strategy)
    if source is None:
        columns = metadata_columns(this.fold.rows(ids))
        if "surprisal_NQ" in strategy.needs:
            columns["surprisal_NQ"] = read_vectors(str(this.fold.surprisal), ids)
        yield Parts([PoolPart(Candidates(ids=np.asarray(ids), **columns))])
        return
    names = shards(source)
    count = min(this.fold.processes, len(names)) if exact_in_parts(strategy) else 1
    parts: Parts
    if count == 1:
        parts = Parts([PoolPart(source, names)])
    else:
        # What is labelled counts once: it is in the first part.
        others = source.model_copy(update={"labelled": None, "labelled_features": None})
        dealt = [part.tolist() for part in np.array_split(np.array(names), count)]
        parts = RemoteParts([(others if number else source, files) for number, files in enumerate(dealt)])
    with parts:
        if parts.count() != len(ids):
            raise StateError(f"{source.features} is about {parts.count()} utterances, and {len(ids)} are candidates")
        yield parts


def _source(this: Round, strategy: StrategyOptions) -> SourceOptions | None:
    """The files of the columns that the strategy reads; None where ids and metadata do."""
    fold, utterances = this.fold, storage.join(this.data.store.pool.uri, "utterances")
    surprisal = str(fold.surprisal) if "surprisal_NQ" in strategy.needs else None
    if this.number and this.selects_by_model:
        path = round_folder(this.folder, this.number - 1)
        folder, labelled = storage.join(path, SELECTION), storage.join(path, LABELLED)
        about = labelled if storage.exists(labelled) else None
        return SourceOptions(
            features=folder,
            predictions=folder,
            metadata=utterances,
            surprisal=surprisal,
            labelled=about,
            labelled_features=about,
        )
    if fold.models is not None and strategy.needs & OF_A_MODEL:
        folder = storage.join(write_source_scores(fold, fold.models, strategy.needs), SELECTION)
        return SourceOptions(features=folder, predictions=folder, metadata=utterances, surprisal=surprisal)
    if "embedding_ND" in strategy.needs:
        return SourceOptions(features=write_initial(fold), metadata=utterances, surprisal=surprisal)
    return None


def write_initial(fold: LoopFold) -> str:
    """Write, where it is missing, what the first round selects by: the middle layer's means, standardised.

    Returns the folder of the files, one a shard, which are the same for all arms and seeds.
    """
    folder, store = storage.join(fold.folder, INITIAL), fold.data.store
    state, moments = (store.num_layers + 1) // 2, fold.data.unlabelled.moments.mean
    centre_D, scale_D = moments.mean[state].numpy(), np.maximum(moments.scale()[state].numpy(), 1e-6)
    project, present = Projection(fold.embedding_width), set(storage.list_names(folder, ".parquet"))
    rows_of = fold.data.index.rows_by_shard(fold.data.fold.train)
    missing = {shard: rows for shard, rows in rows_of.items() if f"{shard}.parquet" not in present}

    def standardised(_: str, part: PooledShard, asked_N: NDArray[np.bool_]) -> tuple[list[str], NDArray[np.float16]]:
        mean_ND = part.mean_NLD[asked_N, state].astype(np.float32)
        return list(compress(part.ids, asked_N)), project((mean_ND - centre_D) / scale_D).astype(np.float16)

    for shard, parts in groupby(store.read_ahead(missing, standardised), key=itemgetter(0)):
        ids, vectors = zip(*(part for _, part in parts), strict=True)
        table = pa.table({"utterance_id": list(chain(*ids)), "embedding": vector_column(np.concatenate(vectors))})
        storage.write_table(storage.join(folder, f"{shard}.parquet"), table)
    return folder
