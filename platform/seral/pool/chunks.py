"""Plan of the files that become one shard, made from the files alone: a killed import plans the same again."""

# N clips
from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ser_models.channels import Channel
from seral.audio.decode import BadAudio, Decoded, decode, encode_flac, pcm16
from seral.audio.limits import USUAL, SoundLimits
from seral.corpora.reading.utterance import Utterance
from seral.pool.listing import Listing

SMALL_POOL_CHUNKS = 8
"""A corpus smaller than one shard is still cut in this many, so that the cores share the work."""
MIN_CHUNK_FILES = 32
PROBES = 32
"""Files of each kind that are stored for a trial."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Files that become one shard."""

    name: str
    rows: NDArray[np.int64]
    """Their rows in the listing."""


def plan_chunks(
    listing: Listing,
    rows: NDArray[np.int64],
    *,
    shard_bytes: int,
    limits: SoundLimits = USUAL,
    salt: str = "",
) -> list[Chunk]:
    """Cut some rows of a listing into chunks whose shards take about `shard_bytes`, in order of their names.

    The same files give the same chunks. Some of them are decoded, to tell what all will take.
    """
    keys = [(name, "ascending") for name in ("corpus", "source", "facts")]
    ordered_N = np.asarray(pc.sort_indices(listing.sources, sort_keys=keys)).astype(np.int64)
    ordered_N = ordered_N[np.isin(ordered_N, rows)]
    end_N = np.cumsum(_stored_sizes(listing, ordered_N, limits))
    parts = max(1, min(SMALL_POOL_CHUNKS, len(ordered_N) // MIN_CHUNK_FILES))
    limit = max(1, min(shard_bytes, -(-int(end_N[-1] if len(end_N) else 0) // parts)))
    chunks, start, before = list[Chunk](), 0, 0
    while start < len(ordered_N):
        end = max(start + 1, int(np.searchsorted(end_N, before + limit, side="right")))
        chunks.append(_chunk(listing, ordered_N[start:end], salt))
        start, before = end, int(end_N[end - 1])
    return chunks


def _stored_sizes(listing: Listing, ordered_N: NDArray[np.int64], limits: SoundLimits) -> NDArray[np.int64]:
    """Bytes that each will take as 16 kHz FLAC, (N,), by some of each kind of file, evenly out of their order.

    Of a kind that nothing can be stored of, the bytes it has; of a file that is not there, none.
    """
    kinds = listing.sources["suffix"].combine_chunks().dictionary_encode()
    kind_N = np.asarray(kinds.indices)[ordered_N]
    bytes_N = np.asarray(listing.sources["clip_bytes"])[ordered_N]
    share_K = np.ones(len(kinds.dictionary))
    for kind in np.unique(kind_N).tolist():
        alike = ordered_N[kind_N == kind]
        probes = alike[np.arange(PROBES) * len(alike) // PROBES] if len(alike) > PROBES else alike
        sources = [listing.source(row) for row in probes.tolist()]
        stored_bytes = sum(_stored_bytes(source.utterance, limits) for source in sources)
        share_K[kind] = stored_bytes / max(1, sum(source.clip_bytes for source in sources)) or 1.0
    stored_N: NDArray[np.int64] = np.maximum(bytes_N * share_K[kind_N], 0).astype(np.int64)
    return stored_N


def _stored_bytes(utterance: Utterance, limits: SoundLimits) -> int:
    try:
        return len(encode_flac(pcm16(decode_utterance(utterance, limits).samples)))
    except BadAudio:
        return 0


def decode_utterance(utterance: Utterance, limits: SoundLimits, channel: Channel = "auto") -> Decoded:
    """The sound of what a reader listed, of its own channel if it names one. Raises BadAudio with the reason."""
    return decode(
        utterance.audio,
        inside=utterance.inside,
        start_s=utterance.start_s,
        end_s=utterance.end_s,
        channel=utterance.channel or channel,
        limits=limits,
    )


def _chunk(listing: Listing, rows: NDArray[np.int64], salt: str) -> Chunk:
    digest = hashlib.sha256(f"[{json.dumps(salt)}".encode())
    for row in rows.tolist():
        digest.update(f", {json.dumps(listing.text('facts', row))}".encode())
    digest.update(b"]")
    return Chunk(name=f"{listing.text('corpus', int(rows[0]))}-{digest.hexdigest()[:12]}", rows=rows)


def task_block(listing: Listing, chunks: Sequence[Chunk]) -> pa.Table:
    """A block for the workers: of each chunk the name, and the facts and the path of every file."""
    columns = {
        "chunk": [chunk.name for chunk in chunks],
        "facts": pa.array(
            [[listing.text("facts", row) for row in c.rows.tolist()] for c in chunks], pa.list_(pa.string())
        ),
        "audio": pa.array(
            [[listing.text("audio", row) for row in c.rows.tolist()] for c in chunks], pa.list_(pa.binary())
        ),
    }
    return pa.table(columns)
