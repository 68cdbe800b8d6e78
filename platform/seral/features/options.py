"""Options of features, and of what is looked for by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from seral.cluster import ClusterOptions
from seral.options import Options


def _folder_of_features(value: Any) -> Any:
    """The folder of `{features: FOLDER}`, which has to be one of features; any other value as it is."""
    if not isinstance(value, Mapping):
        return value
    from seral.features.precomputed import COMMAND, is_precomputed  # late: it imports torch

    if list(value) != ["features"] or not isinstance(folder := value["features"], str):
        raise ValueError("expected a name, a folder, or {features: FOLDER}")
    if not is_precomputed(folder):
        raise ValueError(f"{folder} is no folder of features: make one by {COMMAND}")
    return folder


EncoderName = Annotated[str, BeforeValidator(_folder_of_features)]
"""A hub id, a folder, or an embedded encoder; a folder of features also as `{features: FOLDER}`."""


class FeatureOptions(Options):
    """Options of the extraction of features."""

    max_clip_s: float = Field(default=30.0, gt=0)
    """Only the first so many seconds of a clip are encoded (Whisper's limit is 30)."""


class ExtractOptions(Options):
    """Options of the features of a pool: which encoder makes them, and where they are kept."""

    pool: str
    """The pool."""
    encoder: EncoderName = "seral-tiny"
    """A hub id, a folder, or an embedded encoder."""
    frames_layer: int | None = None
    """Also keep the frames of this hidden state, for training adapters above it."""
    feature_cache: str | None = None
    """A folder for the features; None = inside the pool."""
    features: FeatureOptions = FeatureOptions()
    cluster: ClusterOptions = ClusterOptions()


class ScreenOptions(Options):
    """Options of the search for near-duplicates and outliers."""

    pool: str
    """The pool."""
    encoder: EncoderName = "seral-tiny"
    """A hub id, a folder, or an embedded encoder; features that are not there yet are computed."""
    feature_cache: str | None = None
    """Address of the features; None = inside the pool."""
    state: int | None = Field(default=None, ge=0)
    """Index of the hidden state; None = the last one."""
    components: int = Field(default=128, ge=2)
    """Principal components of the vectors; fewer in a pool of less than eight utterances for each."""
    similarity: float = Field(default=0.9, gt=0, le=1)
    """Cosine from which two utterances are near-duplicates."""
    duration_tolerance: float = Field(default=0.05, ge=0, lt=1)
    """Share by which the longer of two may be longer."""
    neighbours: int = Field(default=10, ge=1)
    """The distance to the pool is the mean over so many nearest others."""
    exact_rows: int = Field(default=100_000, ge=2)
    """Above so many utterances, near-duplicates are looked up in an index, and the distance is to others among so many
    drawn at random."""
    threads: int = Field(default=1, ge=1)
    """Threads of the search."""
    features: FeatureOptions = FeatureOptions()
    cluster: ClusterOptions = ClusterOptions()


class ImportFeaturesOptions(Options):
    """Options of features that come in from elsewhere: their tables, whose they are, and the folder they become."""

    tables: list[str] = Field(min_length=1)
    """Parquet files or .npz files, or folders of them: a row an utterance, with columns as in docs/encoders.md."""
    pools: list[str] = Field(min_length=1)
    """The pools whose utterances the rows are about."""
    out: str
    """A new folder, which is then an `encoder`."""
    made_by: str = Field(min_length=1, pattern=r"^[^\n]+$")
    """Name of what computed the features, such as iic/emotion2vec_plus_large: a model that was trained on those of one
    maker reads no other's."""
    id_column: str | None = None
    """Column that says whose features a row holds; None = the first of utterance_id, id, source, path, file, audio,
    wav, key, name."""
