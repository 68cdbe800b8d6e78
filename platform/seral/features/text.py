"""Vectors of a pool's transcripts, computed once per text encoder and kept beside the audio features.

    FEATURES/text-<fingerprint>/<shard>.parquet   schema.TEXT_VECTOR: the mean of the tokens' last hidden states, fp16

An utterance without transcript has none; nothing is made up for it.
"""

# N rows · E features of a transcript
from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ser_models.audio_text import TextEncoder, load_text_encoder
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import FeatureError, OptionError
from seral.features.actors import map_shards
from seral.features.batches import FixedShapes
from seral.features.store import Half, TextFeatures
from seral.pool.shards import Pool
from seral.schema import TEXT_VECTOR

FORMAT = 2
"""Goes up whenever vectors of the same encoder change."""
TOKENS_IN_BATCH, TEXTS_IN_BATCH = 1024, 16
"""Of the fixed shapes in which transcripts are read."""


def extract_text(
    pool: Pool,
    encoder: str,
    *,
    uri: str | None = None,
    on: ClusterOptions | None = None,
    corpora: Collection[str] | None = None,
) -> TextFeatures:
    """Compute what is missing of the vectors of the transcripts of a pool, or of some corpora; open them."""
    on = on or ClusterOptions()
    model = open_text_encoder(encoder)
    features = TextFeatures(
        uri=storage.absolute(uri or storage.join(pool.uri, "features")),
        pool=pool,
        encoder=encoder,
        fingerprint=f"{model.fingerprint()}-v{FORMAT}",
        width=model.width,
        shards=tuple(pool.shards_of(corpora)),
    )
    del model
    missing = [shard for shard in features.shards if not storage.exists(features.table_uri(shard))]
    if missing:
        arguments = {"features": features, "device": "cuda" if on.use_gpu else "cpu"}
        label = f"transcripts of {len(missing)} shards"
        map_shards(pool, missing, TextActor, arguments, on, label, into=features.folder)
    return features


def open_text_encoder(encoder: str) -> TextEncoder:
    """The text encoder; one that cannot be loaded is an OptionError that says what was tried."""
    try:
        return load_text_encoder(encoder)
    except (OSError, ValueError) as error:
        raise OptionError(f"cannot load the text encoder {encoder!r}: {error}") from error


class TextActor:
    """One text encoder in one process: a shard of transcripts in, a shard of vectors out."""

    def __init__(self, features: TextFeatures, device: str) -> None:
        torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
        self.features = features
        self.encoder = load_text_encoder(features.encoder).to(device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        table = self.features.pool.read(row["shard"], ["utterance_id", "text"])
        text_of = dict(zip(table["utterance_id"].to_pylist(), table["text"].to_pylist(), strict=True))
        vectors = read_texts(self.encoder, text_of)
        rows = [{"utterance_id": name, "vector": vector_E.tobytes()} for name, vector_E in vectors.items()]
        storage.write_table(self.features.table_uri(row["shard"]), pa.Table.from_pylist(rows, TEXT_VECTOR))
        return {"rows": table.num_rows}


def read_texts(encoder: TextEncoder, text_of: dict[str, str | None]) -> dict[str, Half]:
    """Vectors of the utterances that have a transcript; what is said twice is read once."""
    texts = sorted({text for text in text_of.values() if text and text.strip()})
    vector_of: dict[str, Half] = {}
    shapes = FixedShapes(size=TOKENS_IN_BATCH, rows=TEXTS_IN_BATCH, margin=1, longest=encoder.limit)
    for batch in shapes.batches(encoder.lengths(texts) if texts else []):
        part = [texts[position] for position in batch.filled]
        vector_BE = encoder(part, batch.length).half().cpu().numpy()
        if not np.isfinite(vector_BE).all():
            bad = part[int(np.flatnonzero(~np.isfinite(vector_BE).all(1))[0])]
            raise FeatureError(f"the text encoder gives NaN or infinite vectors in fp16, for {bad!r}")
        vector_of |= dict(zip(part, vector_BE, strict=True))
    return {name: vector_of[text] for name, text in text_of.items() if text in vector_of}
