"""The cached features of a pool."""

# N rows · T frames · L hidden states (encoder layers + 1) · D features · E features of a transcript

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral import storage
from seral.pool.shards import Pool
from seral.schema import POOLED, QUARANTINE, TEXT_VECTOR


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """The cached transcripts of one pool by one text encoder."""

    uri: str
    pool: Pool
    encoder: str
    """Argument of load_text_encoder."""
    fingerprint: str
    width: int

    @property
    def folder(self) -> str:
        """Address of the tables."""
        return storage.join(self.uri, f"text-{self.fingerprint}")

    def table_uri(self, shard: str) -> str:
        """Address of one shard."""
        return storage.join(self.folder, f"{shard}.parquet")

    def vectors(self) -> dict[str, Half]:
        """The vectors (E,) of all utterances that have a transcript, by id."""
        table = storage.read_tables([self.table_uri(shard) for shard in self.pool.shards], TEXT_VECTOR)
        rows_NE = stack_vectors(table["vector"], (table.num_rows, self.width))
        return dict(zip(table["utterance_id"].to_pylist(), rows_NE, strict=True))


Half = NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class FeatureStore:
    """The cached features of one pool by one encoder."""

    uri: str
    pool: Pool
    encoder: str
    """Argument of load_encoder."""
    fingerprint: str
    num_layers: int
    width: int
    text: TextFeatures | None = None
    """Vectors of the transcripts, for models that read them."""

    def table_uri(self, table: str, shard: str) -> str:
        """Address of one shard of `pooled`, `frames-<k>` or `quarantine`."""
        return storage.join(self.uri, self.fingerprint, table, f"{shard}.parquet")

    def pooled(self) -> tuple[list[str], Half, Half]:
        """All pooled features: ids sorted, mean and std (N, L, D)."""
        table = storage.read_tables([self.table_uri("pooled", shard) for shard in self.pool.shards], POOLED)
        table = table.sort_by("utterance_id")
        shape = (table.num_rows, self.num_layers + 1, self.width)
        mean, std = (stack_vectors(table[name], shape) for name in ("mean", "std"))
        return table["utterance_id"].to_pylist(), mean, std

    def frames_by_shard(self, layer: int, ids: set[str]) -> Iterator[dict[str, NDArray[np.float16]]]:
        """Hidden state `layer` frame by frame, id -> (T, D) fp16, of the given ids, one shard at a time."""
        return (self.shard_frames(layer, shard, ids) for shard in self.pool.shards)

    def shard_frames(self, layer: int, shard: str, ids: set[str]) -> dict[str, NDArray[np.float16]]:
        """Hidden state `layer` frame by frame, id -> (T, D) fp16, of those of the given ids that one shard holds."""
        table = storage.read_table(self.table_uri(f"frames-{layer}", shard))
        names = table["utterance_id"].to_pylist()
        return {
            name: np.frombuffer(data.as_buffer(), np.float16).reshape(-1, self.width)
            for name, data in zip(names, table["frames"], strict=True)
            if name in ids
        }

    def frames(self, layer: int, ids: set[str]) -> dict[str, NDArray[np.float16]]:
        """Hidden state `layer` frame by frame, id -> (T, D) fp16, in memory: for the labelled part, not for a pool."""
        return {name: f.copy() for part in self.frames_by_shard(layer, ids) for name, f in part.items()}

    @property
    def unusable(self) -> pa.Table:
        """Utterances the encoder could make nothing of (schema.QUARANTINE, `source` holds the id)."""
        uris = [self.table_uri("quarantine", shard) for shard in self.pool.shards]
        return storage.read_tables(uris, QUARANTINE)


def stack_vectors(column: pa.ChunkedArray, shape: tuple[int, ...]) -> Half:
    """Binary cells of fp16 as one array."""
    return np.frombuffer(b"".join(value.as_py() for value in column), np.float16).reshape(shape)
