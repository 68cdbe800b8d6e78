"""What every run is about: a pool, an encoder, classes to tell apart, and folds in which no two parts share a voice.

RUN/config.yaml            the resolved options; a run is resumed with the same ones or not at all
RUN/environment.json       versions, host, pool hash, protocol, classes
"""

# N rows · L encoder layers (L+1 hidden states) · D features · E features of a transcript
from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import yaml
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ser_models.fitting import PooledRows
from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.errors import OptionError, StateError
from seral.features.audio import FeatureOptions, extract_features
from seral.features.batches import rows_of
from seral.features.store import FeatureStore, TextFeatures
from seral.features.text import extract_text
from seral.options import Options, deep_copy, dump, parse
from seral.pool.protocols import find_protocol
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import Fold, SplitOptions, folds_of
from seral.progress import say
from seral.task.examples import Utterances, pooled_rows
from seral.task.gold import Oracle
from seral.versions import versions

PACKAGES = ("seral", "ray", "torch", "transformers", "peft", "faiss-cpu", "pyarrow", "numpy", "scikit-learn")


class TaskOptions(Options):
    """What every kind of run is told."""

    pool: str
    """The pool of speech."""
    run: str
    """The run folder: made when missing, resumed when there."""
    encoder: str = "seral-tiny"
    """A hub id, a folder written by save_pretrained, or the embedded `seral-tiny`."""
    classes: list[str] = Field(default=[])
    """The emotions to tell apart; utterances whose gold label means none of them are left out."""
    dimensions: list[Literal["valence", "arousal", "dominance"]] = Field(default=[])
    """Ratings to predict, beside the classes or instead of them; with them, let batches hold 32 clips or more."""
    class_map: dict[str, str] | None = None
    """A corpus's word -> one of the classes; None = the usual words (seral.task.gold.CLASS_MAP)."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    """Everything is done once per seed and fold."""
    features: FeatureOptions = FeatureOptions()
    feature_cache: str | None = None
    """Where features are kept; None = inside the pool."""
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if len(self.classes) == 1 or not (self.classes or self.dimensions):
            raise ValueError(f"name at least two classes, or dimensions; got classes {self.classes}")
        return self


class CorpusOptions(Options):
    """Which part of the pool, and how it is cut into folds."""

    corpora: list[str] | None = None
    """Only these corpora of the pool; None = all."""
    split: SplitOptions = SplitOptions()
    folds: list[int] | None = None
    """Which folds to run; None = all the split gives."""


class ProtocolOptions(TaskOptions, CorpusOptions):
    """A task on part of one pool, which a named protocol may describe."""

    protocol: str | None = None
    """A name in seral.pool.protocols.PROTOCOLS, such as emodb-7c-loso@v1: sets corpora, classes, dimensions, class_map
    and split, which then may say nothing else."""

    @model_validator(mode="before")
    @classmethod
    def _follow_protocol(cls, values: Any) -> Any:
        if not isinstance(values, dict) or (name := values.get("protocol")) is None:
            return values
        fixed = find_protocol(name).fixed()
        fixed["split"] = SplitOptions(**fixed["split"])
        for option in sorted(fixed.keys() & values.keys()):
            given = values[option] if option != "split" else SplitOptions.model_validate(values[option])
            if given != fixed[option]:
                raise ValueError(f"{option}: {name} says {fixed[option]!r}, got {given!r}; leave one of the two out")
        return values | fixed


class ReadingOptions(TaskOptions):
    """A task whose models may read what is said, beside hearing how."""

    text_encoder: str | None = None
    """A hub id or a folder of a text encoder for the transcripts of the pool; None = nothing is read. Which trainings
    use them is `finetune.modalities`."""


TaskT = TypeVar("TaskT", bound=TaskOptions)


@dataclass(frozen=True, kw_only=True)
class FoldData:
    """One fold and the pooled features of the pool. Holds no label."""

    store: FeatureStore
    fold: Fold
    classes: tuple[str, ...]
    class_map: Mapping[str, str] | None
    dimensions: tuple[str, ...]
    metadata: pa.Table
    """Of the utterances that may take part."""
    ids: Sequence[str]
    mean_NLD: NDArray[np.float16]
    std_NLD: NDArray[np.float16]
    text_NE: NDArray[np.float16] | None
    """Vectors of the transcripts, NaN where there is none; None where nobody reads."""

    def utterances(self, ids: Sequence[str]) -> Utterances:
        """Pooled features of some utterances, in the order asked for."""
        rows = rows_of(self.ids, ids)
        mean_NLD, std_NLD = (array[rows].astype(np.float32) for array in (self.mean_NLD, self.std_NLD))
        text_NE = None if self.text_NE is None else self.text_NE[rows].astype(np.float32)
        return Utterances(ids=list(ids), mean_NLD=mean_NLD, std_NLD=std_NLD, text_NE=text_NE)

    def pooled(self, ids: Sequence[str]) -> PooledRows:
        """The same as the model library takes it."""
        return pooled_rows(self.utterances(ids))

    def oracle(self) -> Oracle:
        """The gold labels of the pool, in the classes of the run."""
        return Oracle(self.store.pool, self.classes, self.class_map, self.dimensions)


def codes(emotions: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class names as indices."""
    code = {name: index for index, name in enumerate(classes)}
    return np.array([code[emotion] for emotion in emotions], np.int64)


def with_absolute_paths(options: TaskT) -> TaskT:
    """Workers may have another working directory."""
    given = {name: getattr(options, name) for name in ("pool", "run", "feature_cache")}
    found = {name: storage.absolute(uri) for name, uri in given.items() if uri is not None}
    found["encoder"] = absolute_encoder(options.encoder)
    if isinstance(options, ReadingOptions) and options.text_encoder is not None:
        found["text_encoder"] = absolute_encoder(options.text_encoder)
    return options.model_copy(update=found)


def open_run(options: TaskT, may_change: Collection[str]) -> tuple[TaskT, Pool]:
    """Begin a run or resume it: its options with absolute paths, its pool, and Ray at hand."""
    options = with_absolute_paths(options)
    pool = open_pool(options.pool)
    claim(options, pool, may_change)
    connect(options.cluster)
    return options, pool


def features_of(options: TaskOptions, pool: Pool, encoder: str, frames_layer: int | None) -> FeatureStore:
    """The features of a run's pool by an encoder, and of its transcripts, computed where they are missing."""
    text = None
    if isinstance(options, ReadingOptions) and options.text_encoder is not None:
        text = extract_text(pool, options.text_encoder, uri=options.feature_cache, on=options.cluster)
    store = extract_features(
        pool,
        encoder,
        uri=options.feature_cache,
        frames_layer=frames_layer,
        options=options.features,
        on=options.cluster,
    )
    return replace(store, text=text)


def read_options(model: type[TaskT], run: str) -> TaskT:
    """The resolved options of a run."""
    path = storage.join(run, "config.yaml")
    if not storage.exists(path):
        raise StateError(f"there is no run at {run}: {path} is missing")
    return parse(model, yaml.safe_load(storage.read_bytes(path)))


def claim(options: TaskOptions, pool: Pool, may_change: Collection[str]) -> None:
    """Write the options of a new run; refuse to resume one that was made with other options or another pool.

    `may_change` names options that may differ, those of options inside by path, such as people.wait.
    """
    path = storage.join(options.run, "config.yaml")
    if storage.exists(path):
        old, new = (o.model_dump(mode="json") for o in (read_options(type(options), options.run), options))
        kept, given = (_without(values, may_change) for values in (old, new))
        changed = [name for name in given if kept.get(name) != given[name]]
        if changed:
            differences = "; ".join(f"{name}: was {old[name]!r}, now {new[name]!r}" for name in changed)
            raise StateError(f"{options.run} holds a run with other options ({differences}); give `run` another folder")
        facts = storage.join(options.run, "environment.json")
        if storage.exists(facts) and storage.read_json(facts)["pool_hash"] != pool.hash:
            raise StateError(f"the pool {pool.uri} has changed since {options.run} began; give `run` another folder")
    storage.write_bytes(path, dump(options).encode())


def claim_folder(options: Options, folder: str, may_change: Collection[str]) -> None:
    """Write the options of a new result to its folder; refuse a folder that holds one with others.

    `may_change` names options that may differ, those of options inside by path, such as training.cluster.
    """
    path, new = storage.join(folder, "options.yaml"), options.model_dump(mode="json")
    if storage.exists(path):
        old, given = (_without(values, may_change) for values in (yaml.safe_load(storage.read_bytes(path)), new))
        if changed := [name for name in given if old.get(name) != given[name]]:
            raise StateError(f"{folder} holds a result with another {', '.join(changed)}; give `out` another folder")
    storage.write_bytes(path, dump(options).encode())


def _without(values: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    left = deep_copy(values)
    for path in paths:
        *outer, name = path.split(".")
        held: Any = left
        for step in outer:
            held = held.get(step) if isinstance(held, dict) else None
        if isinstance(held, dict):
            held.pop(name, None)
    return left


def of_corpora(pools: Sequence[Pool], corpora: Sequence[str] | None) -> list[pa.Table]:
    """Metadata of each pool, of some corpora only where any are named. Raises OptionError for one that no pool has."""
    tables = [pool.metadata for pool in pools]
    if corpora is None:
        return tables
    present = {name for table in tables for name in table["corpus"].to_pylist()}
    if unknown := sorted(set(corpora) - present):
        where = ", ".join(pool.uri for pool in pools)
        raise OptionError(f"no corpus {', '.join(unknown)} in {where}; it has {', '.join(sorted(present))}")
    return [table.filter(pc.is_in(table["corpus"], pa.array(corpora))) for table in tables]


def absolute_encoder(name: str) -> str:
    """An encoder's folder with its whole path, since workers may have another working directory; other names as is."""
    return storage.absolute(name) if Path(name).expanduser().is_dir() else name


def eligible(options: TaskOptions, pool: Pool, corpora: Sequence[str] | None) -> pa.Table:
    """Metadata of what may take part: chosen corpora, no duplicates, and an answer among the classes or ratings."""
    table = askable(pool, corpora)
    oracle = Oracle(pool, options.classes, options.class_map, options.dimensions)
    if options.classes and (ignored := oracle.ignored(table["utterance_id"].to_pylist())):
        words = ", ".join(f"{word} ({count})" for word, count in sorted(ignored.items()))
        say(f"outside the classes and left out: {words}")
    table = table.filter(pc.is_in(table["utterance_id"], pa.array(sorted(oracle.answerable))))
    if isinstance(options, ProtocolOptions) and options.protocol is not None:
        complete = find_protocol(options.protocol).utterances
        if complete not in (None, table.num_rows):
            say(f"{options.protocol} is about {complete} utterances, this pool has {table.num_rows} of them")
    return table


def askable(pool: Pool, corpora: Sequence[str] | None) -> pa.Table:
    """Metadata of what anybody can be asked about: chosen corpora, no duplicates."""
    table = of_corpora([pool], corpora)[0]
    return table.filter(pc.is_null(table["duplicate_of"]))


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


def fold_data(options: TaskOptions, store: FeatureStore, fold: Fold, metadata: pa.Table) -> FoldData:
    """A fold with its features, less what the encoder could make nothing of."""
    if unusable := set(store.unusable["source"].to_pylist()):
        say(f"{len(unusable)} utterances give no usable features and are left out")
        fold = fold.without(unusable)
    ids, mean_NLD, std_NLD = store.pooled()
    return FoldData(
        store=store,
        fold=fold,
        classes=tuple(options.classes),
        class_map=options.class_map,
        dimensions=tuple(options.dimensions),
        metadata=metadata,
        ids=ids,
        mean_NLD=mean_NLD,
        std_NLD=std_NLD,
        text_NE=None if store.text is None else _text_rows(store.text, ids),
    )


def _text_rows(text: TextFeatures, ids: Sequence[str]) -> NDArray[np.float16]:
    vectors = text.vectors()
    nothing_E = np.full(text.width, np.nan, np.float16)
    return np.stack([vectors.get(name, nothing_E) for name in ids])


def write_environment(options: TaskOptions, pool: Pool, protocol: str, facts: Mapping[str, Any]) -> None:
    """What a run stands on, beside its options."""
    path = storage.join(options.run, "environment.json")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    storage.write_json(
        path,
        {
            "versions": versions(PACKAGES),
            "python": platform.python_version(),
            "host": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus},
            "pool": pool.uri,
            "pool_hash": pool.hash,
            "protocol": protocol,
            "classes": options.classes,
            "dimensions": options.dimensions,
            **facts,
            "created": storage.read_json(path)["created"] if storage.exists(path) else now,
        },
    )


def protocol_name(options: ProtocolOptions, pool: Pool) -> str:
    """The protocol's name, or what says the same of options without one: corpora, number of classes, split."""
    if options.protocol is not None:
        return options.protocol
    corpora = options.corpora or sorted(set(pool.metadata["corpus"].to_pylist()))
    return f"{'+'.join(corpora)}-{len(options.classes)}c-{options.split.scheme}"
