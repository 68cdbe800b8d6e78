"""Labelled speech of any pools: whose labels are used, and the features of it."""

# N clips
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral.errors import OptionError
from seral.features.index import ShardIndex
from seral.features.store import FeatureStore
from seral.pool.shards import Pool
from seral.task.eligibility import askable, eligible
from seral.task.examples import Targets, Utterances
from seral.task.gold import Oracle
from seral.task.options import TaskOptions
from seral.training.data import Labelled
from seral.training.finetune_options import FinetuneOptions
from seral.training.options import SourceOptions, TrainingOptions
from seral.training.raters import raters_of_corpora


@dataclass(frozen=True, kw_only=True)
class Speech:
    """Features of some clips of a pool."""

    store: FeatureStore
    index: ShardIndex
    metadata: pa.Table

    @property
    def ids(self) -> list[str]:
        """The utterances that have features."""
        return list(self.index.present(self.metadata["utterance_id"].to_pylist()))

    def utterances(self, ids: Sequence[str]) -> Utterances:
        """Pooled features of some utterances."""
        return Utterances.of(self.store, self.index, ids)


@dataclass(frozen=True, kw_only=True)
class LabelledSpeech:
    """Clips of a pool whose class is known, or what shares of the votes the classes have."""

    speech: Speech
    ids: list[str]
    targets: Targets
    corpus_N: NDArray[np.str_]
    """The corpus of each clip."""
    votes_NC: NDArray[np.float32] | None
    """Shares of raters' votes as they were given; None = nobody voted."""

    @property
    def learnt(self) -> pa.Table:
        """Metadata of the clips, for what learns from them to be kept off them."""
        metadata = self.speech.metadata
        return metadata.filter(pc.is_in(metadata["utterance_id"], pa.array(self.ids, pa.string())))


def labelled_speech(
    source: SourceOptions, options: TaskOptions, speech_of: Callable[[str], Speech], training: FinetuneOptions
) -> LabelledSpeech:
    """The labelled clips of a source that have features. Raises OptionError where no clip has one of the classes.

    `speech_of` gives the speech of a pool. Raters who are to be learnt are, by a head on these features.
    """
    speech = speech_of(source.pool)
    pool = speech.store.pool
    oracle = Oracle(
        pool, options.classes, source.class_map or options.class_map, [], votes=options.votes, complete=False
    )
    metadata = askable(pool, source.corpora)
    metadata = metadata.filter(pa.array(oracle.answers(metadata["utterance_id"])))
    speech = Speech(store=speech.store, index=speech.index, metadata=metadata)
    if not (ids := speech.ids):
        raise OptionError(f"no clip of {source.pool} has one of the classes {', '.join(options.classes)}")
    corpus_of = dict(zip(*(metadata[name].to_pylist() for name in ("utterance_id", "corpus")), strict=True))
    corpus_N = np.array([corpus_of[name] for name in ids])
    targets = oracle.targets(ids)
    votes_NC = targets.soft_NC
    if targets.votes_N is not None:
        targets = raters_of_corpora(
            Labelled(speech.utterances(ids), targets), corpus_N, speech.store, options.classes, training
        )
    return LabelledSpeech(speech=speech, ids=ids, targets=targets, corpus_N=corpus_N, votes_NC=votes_NC)


def sides(options: TrainingOptions, pool: Pool) -> tuple[pa.Table, pa.Table]:
    """Metadata of the target's utterances, and of the source's: other corpora, so other speakers."""
    if not options.source_corpora:
        target = eligible(options, pool, options.corpora)
        return target, target.slice(0, 0)
    source = eligible(options, pool, options.source_corpora)
    present = sorted(set(pool.column("corpus").unique().to_pylist()) - set(options.source_corpora))
    target = eligible(options, pool, options.corpora or present)
    return target, source
