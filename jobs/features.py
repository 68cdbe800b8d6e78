"""Compute and cache the encoder features of a pool: python jobs/features.py pool=data/pool encoder=seral-tiny"""

from seral.cluster import ClusterOptions
from seral.features.audio import FeatureOptions, extract_features
from seral.options import Options, run_job
from seral.pool.shards import open_pool


class FeatureJobOptions(Options):
    """Which pool, which encoder."""

    pool: str
    """The pool."""
    encoder: str = "seral-tiny"
    """A hub id, a folder, or an embedded encoder."""
    frames_layer: int | None = None
    """Also keep the frames of this hidden state, for training adapters above it."""
    feature_cache: str | None = None
    """Where features are kept; None = inside the pool."""
    features: FeatureOptions = FeatureOptions()
    cluster: ClusterOptions = ClusterOptions()


def extract(options: FeatureJobOptions) -> str:
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


if __name__ == "__main__":
    run_job(FeatureJobOptions, extract, __doc__)
