"""Folds of a task and the features that they are learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ser_models.fitting import PooledRows
from ser_models.moments import PooledMoments
from seral.errors import FeatureError
from seral.features.audio import extract_features
from seral.features.index import ShardIndex
from seral.features.moments import pooled_moments
from seral.features.provenance import check_unheard
from seral.features.speakers import Centring, SpeakerShifts, centrings, speaker_sums
from seral.features.store import FeatureStore
from seral.features.text import extract_text
from seral.labels.options import VoteOptions
from seral.pool.ids import one_array
from seral.pool.shards import Pool
from seral.pool.split_options import SplitOptions
from seral.pool.splits import Fold, folds_of
from seral.progress import say
from seral.task.examples import Unlabelled, Utterances, pooled_rows, some_of
from seral.task.gold import Oracle
from seral.task.options import ReadingOptions, TaskOptions

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class FoldData:
    """One fold, and where the features of its utterances are. Holds no label, and no features of the pool."""

    store: FeatureStore
    fold: Fold
    classes: tuple[str, ...]
    class_map: Mapping[str, str] | None
    dimensions: tuple[str, ...]
    votes: VoteOptions | None
    """Way in which raters' votes are the labels; None = the gold ones are."""
    metadata: pa.Table
    """The metadata of the utterances that may take part."""
    index: ShardIndex
    moments: PooledMoments | None = None
    """Of the features of the training part; None = computed when they are asked for."""
    metrics: tuple[str, ...] = ()
    """Metrics beside the usual ones, names in ser_models.metrics.METRICS."""
    centrings: Mapping[str, Centring] = field(default_factory=dict)
    """Means that may be taken from features, those of a source too, by normalisation."""

    def utterances(self, ids: Sequence[str]) -> Utterances:
        """Pooled features of some utterances, in the order asked for, read from storage, in half precision."""
        return Utterances.of(self.store, self.index, ids)

    @property
    def shifts(self) -> dict[str, SpeakerShifts]:
        """Shifts that are taken from features, by normalisation."""
        return {name: centring.shifts for name, centring in self.centrings.items()}

    @property
    def unlabelled(self) -> Unlabelled:
        """The training part without its labels."""
        train = self.fold.train
        moments = self.moments or pooled_moments(self.store, self.index, {"training part": train})["training part"]
        return Unlabelled(moments=moments, read=lambda: self.utterances(some_of(train)))

    def pooled(self, ids: Sequence[str]) -> PooledRows:
        """Pooled features of some utterances as the model library takes them."""
        return pooled_rows(self.utterances(ids))

    def oracle(self) -> Oracle:
        """The gold labels of the pool, in the classes of the run."""
        return Oracle(self.store.pool, self.classes, self.class_map, self.dimensions, votes=self.votes)


def codes(emotions: Sequence[str | None], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class names as indices; -1 for None, a clip on which votes are tied."""
    code: dict[str | None, int] = {None: -1} | {name: index for index, name in enumerate(classes)}
    return np.array([code[emotion] for emotion in emotions], np.int64)


def features_of(options: TaskOptions, pool: Pool, encoder: str, frames_layer: int | None) -> FeatureStore:
    """The features of a run's pool by an encoder, and of its transcripts, computed where they are missing.

    Of a run that names its corpora those of shards that hold clips of them.
    """
    text, corpora = None, options.corpora_read
    if isinstance(options, ReadingOptions) and options.text_encoder is not None:
        text = extract_text(pool, options.text_encoder, uri=options.feature_cache, on=options.cluster, corpora=corpora)
    store = extract_features(
        pool,
        encoder,
        uri=options.feature_cache,
        frames_layer=frames_layer,
        options=options.features,
        on=options.cluster,
        corpora=corpora,
    )
    return replace(store, text=text)


def folds_by_seed(
    metadata: pa.Table, split: SplitOptions, numbers: Sequence[int] | None, seeds: Sequence[int], store: FeatureStore
) -> dict[tuple[int, int], Fold]:
    """(number, seed) -> fold, less what has no features; every seed deals the speakers of k-fold anew."""
    unusable = set(store.unusable["source"].to_pylist())
    dealt = {seed: split.model_copy(update={"seed": split.seed + seed}) for seed in seeds}
    return {
        (number, seed): fold.without(unusable)
        for seed, anew in dealt.items()
        for number, fold in folds_of(metadata, anew, numbers).items()
    }


def with_centring(data_of: Mapping[Key, FoldData], source: pa.Table, normalise: str) -> dict[Key, FoldData]:
    """The folds with the means of their speakers or corpora, and of those of the source's clips: a pass over each
    store.

    As they are with none, and with auto where there are more than fit the memory. Raises FeatureError for these, and
    with speaker where none is known.
    """
    if normalise == "none":
        return dict(data_of)
    try:
        return _centred(data_of, source, normalise)
    except FeatureError as error:
        if normalise != "auto":
            raise
        say(f"no means are taken away: {error}")
        return dict(data_of)


def _centred(data_of: Mapping[Key, FoldData], source: pa.Table, normalise: str) -> dict[Key, FoldData]:
    columns = ["utterance_id", "corpus", "speaker"]
    centred = dict[Key, FoldData]()
    for fingerprint in dict.fromkeys(data.store.fingerprint for data in data_of.values()):
        own = {number: data for number, data in data_of.items() if data.store.fingerprint == fingerprint}
        one = next(iter(own.values()))
        metadata = pa.concat_tables([one.metadata.select(columns), source.select(columns)])
        ids = {
            name for data in own.values() for part in (data.fold.train, data.fold.dev, data.fold.test) for name in part
        }
        ids.update(one.index.present(source["utterance_id"].to_pylist()))
        sums = speaker_sums(one.store, one.index, metadata, sorted(ids))
        for number, data in own.items():
            moments = data.unlabelled.moments
            made = centrings(sums, data.fold.train, moments, normalise)
            centred[number] = replace(data, moments=moments, centrings=made)
    return {number: centred[number] for number in data_of}


def fold_data(options: TaskOptions, store: FeatureStore, fold: Fold, metadata: pa.Table) -> FoldData:
    """A fold with its features, less what the encoder could make nothing of.

    Raises OptionError where the encoder has learnt from labels of its clips or speakers.
    """
    check_unheard(store.encoder, metadata, chain(fold.train, fold.dev, fold.test))
    if unusable := set(store.unusable["source"].to_pylist()):
        say(f"{len(unusable)} utterances give no usable features and are left out")
        fold = fold.without(unusable)
    index, ids = store.index(), one_array(metadata["utterance_id"])
    if index.ids.equals(ids):
        index = replace(index, ids=ids)  # in memory once
    return FoldData(
        store=store,
        fold=fold,
        classes=tuple(options.classes),
        class_map=options.class_map,
        dimensions=tuple(options.dimensions),
        votes=options.votes,
        metadata=metadata,
        index=index,
        metrics=tuple(options.metrics) if isinstance(options, ReadingOptions) else (),
    )
