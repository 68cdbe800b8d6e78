"""The cached features of a pool."""

# N rows · T frames · L hidden states (encoder layers + 1) · D features · E features of a transcript

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral import storage
from seral.errors import FeatureError
from seral.features.index import ShardIndex
from seral.pool.shards import Pool
from seral.schema import ENCODER_KEY, QUARANTINE


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

    def index(self) -> ShardIndex:
        """The rows of the utterances that have a transcript."""
        return ShardIndex.of_files(self.pool.shards, [self.table_uri(shard) for shard in self.pool.shards])

    def shard_vectors(self, shard: str, ids: Sequence[str]) -> Half:
        """Vectors (N, E) of some utterances of a shard, NaN where there is no transcript."""
        table = storage.read_table(self.table_uri(shard))
        row_of = {name: row for row, name in enumerate(table["utterance_id"].to_pylist())}
        rows_NE = stack_vectors(table["vector"], (table.num_rows, self.width))
        vector_NE = np.full((len(ids), self.width), np.nan, np.float16)
        present = [(at, row_of[name]) for at, name in enumerate(ids) if name in row_of]
        if present:
            to, rows = map(list, zip(*present, strict=True))
            vector_NE[to] = rows_NE[rows]
        return vector_NE


Half = NDArray[np.float16]


class PooledShard(NamedTuple):
    """Pooled features of some rows of one shard, fp16."""

    ids: list[str]
    mean_NLD: Half
    std_NLD: Half
    text_NE: Half | None
    """Vectors of the transcripts, NaN where there is none; None where nobody reads."""


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

    def index(self) -> ShardIndex:
        """The rows of the utterances that have features."""
        uris = [self.table_uri("pooled", shard) for shard in self.pool.shards]
        return ShardIndex.of_files(self.pool.shards, uris)

    def pooled(self) -> tuple[list[str], Half, Half]:
        """All pooled features: ids sorted, mean and std (N, L, D). For studies of a pool that fits the memory."""
        index = self.index()
        mean_NLD, std_NLD, _ = self.read(index, index.names())
        return index.names(), mean_NLD, std_NLD

    def read(self, index: ShardIndex, ids: Sequence[str]) -> tuple[Half, Half, Half | None]:
        """Pooled features of some utterances, in the order asked for: mean and std (N, L, D), transcripts (N, E).

        Only the row groups that hold them are read. Raises FeatureError for utterances that have none.
        """
        position = index.rows(ids)
        order = np.lexsort((index.row_N[position], index.shard_N[position]))
        shape = (len(ids), self.num_layers + 1, self.width)
        mean_NLD, std_NLD = np.empty(shape, np.float16), np.empty(shape, np.float16)
        text_NE = None if self.text is None else np.empty((len(ids), self.text.width), np.float16)
        shards, starts = np.unique(index.shard_N[position[order]], return_index=True)
        for shard, to in zip(shards.tolist(), np.split(order, starts[1:]), strict=bool(len(shards))):
            part = self.read_shard(index.shards[shard], index.row_N[position[to]])
            mean_NLD[to], std_NLD[to] = part.mean_NLD, part.std_NLD
            if text_NE is not None:
                text_NE[to] = part.text_NE
        return mean_NLD, std_NLD, text_NE

    def read_shard(self, shard: str, rows: Sequence[int] | NDArray[Any]) -> PooledShard:
        """Pooled features of some rows of a shard.

        Raises FeatureError when the file is not there, is damaged, or was made by another encoder.
        """
        uri = self.table_uri("pooled", shard)
        try:
            table = storage.read_rows(uri, rows, ["utterance_id", "mean", "std"])
        except (OSError, pa.ArrowInvalid) as error:
            raise FeatureError(
                f"features of shard {shard!r} cannot be read: {error}. The same command computes them again where the "
                f"file is missing; delete {uri} if it is damaged"
            ) from error
        made_by = (table.schema.metadata or {}).get(ENCODER_KEY.encode(), b"").decode()
        if made_by not in ("", self.fingerprint):
            raise FeatureError(
                f"features of shard {shard!r} were made by the encoder {made_by}, not by {self.fingerprint}: delete "
                f"{uri}, and the same command computes them again"
            )
        ids, shape = table["utterance_id"].to_pylist(), (table.num_rows, self.num_layers + 1, self.width)
        mean_NLD, std_NLD = (stack_vectors(table[name], shape) for name in ("mean", "std"))
        text_NE = None if self.text is None else self.text.shard_vectors(shard, ids)
        return PooledShard(ids, mean_NLD, std_NLD, text_NE)

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
    """Binary cells of fp16 as one array. Raises FeatureError where they are of another size."""
    parts = [vector_numbers(chunk) for chunk in column.chunks if len(chunk)]
    flat = np.concatenate(parts) if len(parts) > 1 else (parts[0] if parts else np.empty(0, np.float16))
    if flat.size != math.prod(shape):
        raise FeatureError(f"{len(column)} rows of features hold {flat.size} numbers, not {shape}: of another encoder?")
    return flat.reshape(shape)


def vector_numbers(cells: pa.Array) -> Half:
    """The fp16 numbers of a column of binary vectors, one after another, without a copy."""
    kind = cells.type
    if pa.types.is_fixed_size_binary(kind):
        start, end = cells.offset * kind.byte_width, (cells.offset + len(cells)) * kind.byte_width
        return np.frombuffer(cells.buffers()[1], np.uint8)[start:end].view(np.float16)
    width = np.int64 if pa.types.is_large_binary(kind) else np.int32
    limit = np.frombuffer(cells.buffers()[1], width)[cells.offset : cells.offset + len(cells) + 1]
    return np.frombuffer(cells.buffers()[2], np.uint8)[limit[0] : limit[-1]].view(np.float16)
