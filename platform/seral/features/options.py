"""Options of features, and of what is looked for by them."""

from __future__ import annotations

from pydantic import Field

from seral.cluster import ClusterOptions
from seral.options import Options


class FeatureOptions(Options):
    """Options of the extraction of features."""

    max_clip_s: float = Field(default=30.0, gt=0)
    """Only the first so many seconds of a clip are encoded (Whisper's limit is 30)."""


class ExtractOptions(Options):
    """Options of the features of a pool: which encoder makes them, and where they are kept."""

    pool: str
    """The pool."""
    encoder: str = "seral-tiny"
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
    encoder: str = "seral-tiny"
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
