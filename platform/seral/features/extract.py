"""The features of a pool as a verb: computed once, and kept where runs on the pool find them."""

from __future__ import annotations

from seral.cluster import ClusterOptions
from seral.features.audio import FeatureOptions, extract_features
from seral.options import Options
from seral.pool.shards import open_pool


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


def extract(options: ExtractOptions) -> str:
    """Compute what is missing; returns where the features are."""
    store = extract_features(
        open_pool(options.pool),
        options.encoder,
        uri=options.feature_cache,
        frames_layer=options.frames_layer,
        options=options.features,
        on=options.cluster,
    )
    return f"{store.uri}/{store.fingerprint}"
