"""Options of every run on a pool: the task, the part of the pool it is about, and its folds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from ser_models.metrics import METRICS
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import unknown_name
from seral.features.options import EncoderName, FeatureOptions
from seral.labels.options import VoteOptions
from seral.options import Options
from seral.pool.protocols import find_protocol
from seral.pool.split_options import SplitOptions

if TYPE_CHECKING:
    from seral.pool.shards import Pool


class TaskOptions(Options):
    """Options of every kind of run on a pool."""

    pool: str
    """The pool of speech."""
    run: str
    """The run folder: made when missing, resumed when there."""
    encoder: EncoderName = "seral-tiny"
    """A hub id, a folder written by save_pretrained, or the embedded `seral-tiny`; or features that were computed
    elsewhere, `{features: FOLDER}`, for heads alone."""
    classes: list[str] = Field(default=[])
    """The emotions to tell apart; utterances whose gold label means none of them are left out."""
    dimensions: list[Literal["valence", "arousal", "dominance"]] = Field(default=[])
    """Ratings to predict, beside the classes or instead of them; with them, let batches hold 32 clips or more."""
    class_map: dict[str, str] | None = None
    """A corpus's word -> one of the classes; None = the usual words (seral.task.gold.CLASS_MAP)."""
    votes: VoteOptions | None = None
    """Learn from the votes of the corpus's own raters, and judge by them; None = by its one gold label."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    """Everything is done once per seed and fold."""
    features: FeatureOptions = FeatureOptions()
    feature_cache: str | None = None
    """Folder of the features; None = inside the pool."""
    cluster: ClusterOptions = ClusterOptions()

    @property
    def corpora_read(self) -> list[str] | None:
        """Corpora of the pool whose features the run reads, whatever for; None = all."""
        return None

    @property
    def needs_network(self) -> str | None:
        """The option for which features of the encoder are not enough; None = they are."""
        return None

    @model_validator(mode="after")
    def _check_targets(self) -> Self:
        if len(self.classes) == 1 or not (self.classes or self.dimensions):
            raise ValueError(f"name at least two classes, or dimensions; got classes {self.classes}")
        return self


class CorpusOptions(Options):
    """A part of the pool, and its folds."""

    corpora: list[str] | None = None
    """Only these corpora of the pool; None = all."""
    split: SplitOptions = SplitOptions()
    folds: list[int] | None = None
    """Folds to run; None = all the split gives."""


class ProtocolOptions(TaskOptions, CorpusOptions):
    """A task on part of one pool, which a named protocol may describe."""

    @property
    def corpora_read(self) -> list[str] | None:
        """The corpora that the task is about."""
        return self.corpora

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
            value = values[option] if option != "split" else SplitOptions.model_validate(values[option])
            if value != fixed[option]:
                raise ValueError(f"{option}: {name} says {fixed[option]!r}, got {value!r}; leave one of the two out")
        return values | fixed


class ReadingOptions(TaskOptions):
    """A task whose models may read what is said, beside the sound of it."""

    text_encoder: str | None = None
    """A hub id or a folder of a text encoder for the transcripts of the pool; None = nothing is read. Which trainings
    use them is `finetune.modalities`."""
    metrics: list[str] = Field(default=[])
    """Metrics of one's own beside the usual ones in every evaluation, as `package.module:name` (docs/plugins.md)."""

    @field_validator("metrics")
    @classmethod
    def _metrics_are_there(cls, names: list[str]) -> list[str]:
        for name in names:
            if name not in METRICS:
                raise ValueError(unknown_name("metric", name, METRICS))
            METRICS[name]  # raises PluginError, a ValueError, for what cannot be used
        return names


TaskT = TypeVar("TaskT", bound=TaskOptions)


def absolute_encoder(name: str) -> str:
    """An encoder's folder with its whole path, since workers may have another working directory; other names as is."""
    return storage.absolute(name) if Path(name).expanduser().is_dir() else name


def with_absolute_paths(options: TaskT) -> TaskT:
    """Options whose paths are whole, since workers may have another working directory."""
    uris = {name: getattr(options, name) for name in ("pool", "run", "feature_cache")}
    absolute = {name: storage.absolute(uri) for name, uri in uris.items() if uri is not None}
    absolute["encoder"] = absolute_encoder(options.encoder)
    if isinstance(options, ReadingOptions) and options.text_encoder is not None:
        absolute["text_encoder"] = absolute_encoder(options.text_encoder)
    return options.model_copy(update=absolute)


def protocol_name(options: ProtocolOptions, pool: Pool) -> str:
    """The protocol's name, or for options without one their corpora, number of classes, split."""
    if options.protocol is not None:
        return options.protocol
    corpora = options.corpora or sorted(pool.column("corpus").unique().to_pylist())
    return f"{'+'.join(corpora)}-{len(options.classes)}c-{options.split.scheme}"
