"""The beginning of every run: its folder is claimed, Ray is there, its pool is open."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import pyarrow as pa

from seral.cluster import connect
from seral.features.precomputed import need_network
from seral.features.store import FeatureStore
from seral.labels.consensus import usual_method
from seral.labels.votes import raters_per_clip
from seral.options import Options
from seral.pool.screened import screen_tables
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import Fold
from seral.progress import say
from seral.task.eligibility import eligible
from seral.task.folds import FoldData, features_of, fold_data
from seral.task.gold import read_votes
from seral.task.options import ProtocolOptions, TaskT, with_absolute_paths
from seral.task.run import claim, earlier_option, verb_of, write_environment


@dataclass(frozen=True, kw_only=True)
class RunContext(Generic[TaskT]):
    """An open run: its options with absolute paths, and its pool."""

    options: TaskT
    pool: Pool

    def eligible(self, corpora: Sequence[str] | None) -> pa.Table:
        """Metadata of the utterances of some corpora (None: of all) that may take part."""
        return eligible(self.options, self.pool, corpora)

    def features(self, encoder: str | None = None, frames_layer: int | None = None) -> FeatureStore:
        """Features of the pool by an encoder (None: the one of the options), computed where they are missing."""
        return features_of(self.options, self.pool, encoder or self.options.encoder, frames_layer)

    def fold_data(self, store: FeatureStore, fold: Fold, metadata: pa.Table) -> FoldData:
        """A fold with its features, less the utterances that the encoder could make nothing of."""
        return fold_data(self.options, store, fold, metadata)

    def write_environment(self, protocol: str, facts: Mapping[str, Any]) -> None:
        """Write what the run stands on; `protocol` names its task."""
        write_environment(self.options, self.pool, protocol, facts)


def open_run(
    options: TaskT, verb: str, may_change: Collection[str], *, config: Options | None = None, grown: bool = False
) -> RunContext[TaskT]:
    """Begin a run, or resume it.

    `config` is what its options file holds where that is more than the task, as in a sweep; None = `options`. With
    `grown` the pool may have changed since the run began.
    """
    options = with_absolute_paths(options)
    need_network(options.encoder, options.needs_network)
    pool = open_pool(options.pool)
    options = _with_near_duplicates(_with_vote_method(options, pool), pool)
    claim(config or options, verb, may_change, pool=pool, grown=grown)
    connect(options.cluster)
    return RunContext(options=options, pool=pool)


def _with_vote_method(options: TaskT, pool: Pool) -> TaskT:
    """Options that name the method of votes: that of the run so far, or the usual one for the raters; it is said."""
    if options.votes is None or options.votes.method is not None:
        return options
    method = earlier_option(options.run, "votes.method")
    if method is None:
        raters = raters_per_clip(read_votes(pool))
        method = usual_method(raters)
        say(f"votes.method={method}: the clips of {pool.uri} have {raters:g} raters (median)")
    return options.model_copy(update={"votes": options.votes.model_copy(update={"method": method})})


def _with_near_duplicates(options: TaskT, pool: Pool) -> TaskT:
    """Options that name the pool's tables of near-duplicates, as they were when the run began; it is said."""
    if not isinstance(options, ProtocolOptions) or options.protocol is not None:
        return options  # a protocol is the same everywhere
    if options.split.near_duplicates is not None:
        return options
    tables = screen_tables(pool.uri)
    if verb_of(options.run) is not None:
        tables = earlier_option(options.run, "split.near_duplicates")
    elif tables:
        say(f"near-duplicates are kept in one part of a fold: {', '.join(tables)}")
    if not tables:
        return options
    split = options.split.model_copy(update={"near_duplicates": tuple(tables)})
    return options.model_copy(update={"split": split})
