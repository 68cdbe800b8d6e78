"""The cached features of a pool."""

# N rows · T frames · L hidden states (encoder layers + 1) · D features · E features of a transcript

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import DamagedError, FeatureError
from seral.features.index import NAMED, ShardIndex
from seral.pool.shards import Pool
from seral.schema import ENCODER_KEY, QUARANTINE, pooled_schema

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """The cached transcripts of one pool by one text encoder."""

    uri: str
    pool: Pool
    encoder: str
    """Argument of load_text_encoder."""
    fingerprint: str
    width: int
    shards: tuple[str, ...]
    """Shards of the pool that are read."""

    @property
    def folder(self) -> str:
        """Address of the tables."""
        return storage.join(self.uri, f"text-{self.fingerprint}")

    def table_uri(self, shard: str) -> str:
        """Address of one shard."""
        return storage.join(self.folder, f"{shard}.parquet")

    def index(self) -> ShardIndex:
        """The rows of the utterances that have a transcript."""
        return ShardIndex.of_files(self.shards, [self.table_uri(shard) for shard in self.shards])

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


CLIPS_AT_ONCE = 64
"""Clips whose frames are read together."""
READERS = 3
"""Threads of a process that read features."""
DENSE = 0.9
"""Share of the rows from a first to a last one from which on all of them are read."""
GROUP_BYTES, GROUPS_AT_ONCE = 2_000_000, 8
"""Bytes, about, of a row group of pooled features, and row groups that are read and computed with together."""


class PooledShard(NamedTuple):
    """Pooled features of some rows of one shard, fp16."""

    ids: list[str]
    mean_NLD: Half
    std_NLD: Half
    text_NE: Half | None
    """Vectors of the transcripts, NaN where there is none; None where nobody reads."""

    def only(self, asked_N: NDArray[np.bool_]) -> PooledShard:
        """The rows that were asked for: a copy, unless they are all."""
        if asked_N.all():
            return self
        ids = list(compress(self.ids, asked_N))
        text_NE = None if self.text_NE is None else self.text_NE[asked_N]
        return PooledShard(ids, self.mean_NLD[asked_N], self.std_NLD[asked_N], text_NE)


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
    shards: tuple[str, ...]
    """Shards of the pool that are read: all, or those of some corpora. The files are the same either way."""
    text: TextFeatures | None = None
    """Vectors of the transcripts, for models that read them."""

    @property
    def embedding_width(self) -> int:
        """Numbers that a head reads of a clip: mean and standard deviation of a weighted state, and the transcript."""
        return 2 * self.width + (0 if self.text is None else self.text.width)

    @property
    def schema(self) -> pa.Schema:
        """Columns of a shard of pooled features."""
        return pooled_schema((self.num_layers + 1) * self.width)

    @property
    def rows_in_group(self) -> int:
        """Rows of a row group, a power of two: few enough to read those of a clip here and there."""
        rows = GROUP_BYTES / (4 * (self.num_layers + 1) * self.width)
        return max(16, int(2 ** round(math.log2(rows))))

    def pieces(self, rows: NDArray[np.int32]) -> list[NDArray[np.int32]]:
        """Ascending rows of a shard in pieces that are in memory at a time, none with a part of a row group."""
        return np.split(rows, np.flatnonzero(np.diff(rows // (GROUPS_AT_ONCE * self.rows_in_group))) + 1)

    def table_uri(self, table: str, shard: str) -> str:
        """Address of one shard of `pooled`, `frames-<k>` or `quarantine`."""
        return storage.join(self.uri, self.fingerprint, table, f"{shard}.parquet")

    def index(self) -> ShardIndex:
        """The rows of the utterances that have features."""
        return ShardIndex.of_files(self.shards, [self.table_uri("pooled", shard) for shard in self.shards])

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
        except (OSError, DamagedError) as error:
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

    def read_ahead(
        self,
        rows_of: Mapping[str, NDArray[np.int32]],
        work: Callable[[str, PooledShard, NDArray[np.bool_]], T],
        threads: int = READERS,
    ) -> Iterator[tuple[str, T]]:
        """Apply `work` to features of ascending rows of some shards, piece by piece, and yield the results in order.

        It gets the few rows between them as well, which cost less than a copy without them, and which are asked for,
        (N,). So many threads read and work, each on a piece of its own: while one computes, others wait for the disk.
        """

        def of_piece(shard: str, piece: NDArray[np.int32]) -> tuple[str, T]:
            span = np.arange(piece[0], piece[-1] + 1, dtype=np.int32)
            rows = span if len(piece) >= DENSE * len(span) else piece
            return shard, work(shard, self.read_shard(shard, rows), np.isin(rows, piece, assume_unique=True))

        with ThreadPoolExecutor(threads) as readers:
            ahead = deque[Future[tuple[str, T]]]()
            for shard, rows in rows_of.items():
                for piece in self.pieces(rows):
                    ahead.append(readers.submit(of_piece, shard, piece))
                    if len(ahead) > threads:
                        yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def frame_tables(self, layer: int) -> list[str]:
        """Addresses of all tables of frames of a hidden state: of whole shards, and of some of their clips."""
        folder, whole = storage.join(self.uri, self.fingerprint), frames_table(layer)
        names = [n for n in storage.list_names(folder) if n == whole or n.startswith(f"{whole}-of-")]
        files = [(name, file) for name in names for file in storage.list_names(storage.join(folder, name), ".parquet")]
        shards = {f"{shard}.parquet" for shard in self.shards}
        return [storage.join(folder, *parts) for parts in files if parts[1] in shards]

    def frames_by_table(self, layer: int, ids: Collection[str]) -> Iterator[dict[str, Half]]:
        """Frames that are kept of hidden state `layer`, id -> (T, D) fp16, of the given ids, some clips at a time."""
        wanted = set(ids)
        for uri in self.frame_tables(layer):
            if not wanted:
                return
            for frames in self.read_frames(uri, wanted):
                wanted -= frames.keys()
                yield frames

    def read_frames(self, uri: str, ids: Collection[str]) -> Iterator[dict[str, Half]]:
        """Frames in one table, id -> (T, D) fp16, of those of the given ids that it holds, some clips at a time."""
        present = storage.read_table(uri, ["utterance_id"])["utterance_id"]
        rows = np.flatnonzero(pc.is_in(present, pa.array(list(ids), pa.string())).to_numpy())
        for at in range(0, len(rows), CLIPS_AT_ONCE):
            table = storage.read_rows(uri, rows[at : at + CLIPS_AT_ONCE], ["utterance_id", "frames"])
            frames = (np.frombuffer(data.as_buffer(), np.float16) for data in table["frames"])
            names = table["utterance_id"].to_pylist()
            yield dict(zip(names, (f.reshape(-1, self.width) for f in frames), strict=True))

    def shard_frames(self, layer: int, shard: str, ids: Collection[str]) -> dict[str, Half]:
        """Hidden state `layer` frame by frame, id -> (T, D) fp16, of those of the given ids that one shard holds."""
        tables = self.read_frames(self.table_uri(frames_table(layer), shard), ids)
        return {name: frames_TD for frames in tables for name, frames_TD in frames.items()}

    def frames(self, layer: int, ids: Collection[str]) -> dict[str, Half]:
        """Hidden state `layer` frame by frame, id -> (T, D) fp16, in memory: for the labelled part, not for a pool.

        Raises FeatureError for clips whose frames are not kept.
        """
        frames = {name: f.copy() for part in self.frames_by_table(layer, ids) for name, f in part.items()}
        if absent := sorted(set(ids) - frames.keys()):
            raise FeatureError(
                f"frames of hidden state {layer} are missing of {len(absent)} utterances, e.g. "
                f"{', '.join(absent[:NAMED])}: the same command computes them again"
            )
        return frames

    @property
    def unusable(self) -> pa.Table:
        """Utterances the encoder could make nothing of (schema.QUARANTINE, `source` holds the id)."""
        uris = [self.table_uri("quarantine", shard) for shard in self.shards]
        return storage.read_tables(uris, QUARANTINE)


def frames_table(layer: int) -> str:
    """Name of the table of frames of a hidden state."""
    return f"frames-{layer}"


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
