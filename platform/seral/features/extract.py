"""The features of a pool as a verb: computed once, and kept where runs on the pool find them."""

from __future__ import annotations

from seral.features.audio import extract_features
from seral.features.options import ExtractOptions
from seral.pool.shards import open_pool


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
