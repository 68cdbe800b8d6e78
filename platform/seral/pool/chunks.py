"""Plan of the files that become one shard, made from the files alone: a killed import plans the same again."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seral.audio.decode import BadAudio, Decoded, decode, encode_flac, pcm16
from seral.corpora.reading.utterance import Utterance
from seral.schema import SAMPLE_RATE

SMALL_POOL_CHUNKS = 8
"""A corpus smaller than one shard is still cut in this many, so that the cores share the work."""
MIN_CHUNK_FILES = 32
PROBES = 32
"""Files of each kind that are stored for a trial."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One file (or segment) to import, with its size in bytes."""

    utterance: Utterance
    size: int

    @property
    def bytes(self) -> int:
        """Bytes of the clip: of its file, or of a longer recording no more than its seconds at 16 kHz."""
        start_s, end_s = self.utterance.start_s, self.utterance.end_s
        if end_s is None:
            return self.size
        return min(self.size, int((end_s - (start_s or 0.0)) * SAMPLE_RATE * 2))

    def facts(self) -> str:
        """All that decides a row besides the file's content. The folder the corpus lies in does not; its labels do."""
        metadata = {name: value for name, value in vars(self.utterance).items() if name != "audio"}
        return json.dumps(metadata | {"size": self.size}, sort_keys=True, default=plain)


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Files that become one shard."""

    name: str
    sources: tuple[Source, ...]


def plan_chunks(
    sources: Sequence[Source], *, shard_bytes: int, max_duration_s: float = 60.0, salt: str = ""
) -> list[Chunk]:
    """Cut sources into chunks whose shards take about `shard_bytes`, in order of their names.

    The same files give the same chunks. Some of them are decoded, to tell what all will take.
    """
    keys = sorted(
        ((source.utterance.corpus, source.utterance.source, source.facts(), row) for row, source in enumerate(sources)),
    )
    ordered = [sources[row] for *_, row in keys]
    sizes = _stored_sizes(ordered, max_duration_s)
    parts = max(1, min(SMALL_POOL_CHUNKS, len(ordered) // MIN_CHUNK_FILES))
    limit = max(1, min(shard_bytes, -(-sum(sizes) // parts)))
    groups: list[list[int]] = []
    group_bytes = 0
    for row, size in enumerate(sizes):
        if not groups or group_bytes + size > limit:
            groups.append([])
            group_bytes = 0
        groups[-1].append(row)
        group_bytes += size
    return [
        Chunk(
            name=_chunk_name(corpus=keys[group[0]][0], facts=[keys[row][2] for row in group], salt=salt),
            sources=tuple(ordered[row] for row in group),
        )
        for group in groups
    ]


def _stored_sizes(ordered: Sequence[Source], max_duration_s: float) -> list[int]:
    """Bytes that each will take as 16 kHz FLAC, by some of each kind of file, evenly out of their order.

    Of a kind that nothing can be stored of, the bytes it has.
    """
    kinds: dict[str, list[Source]] = defaultdict(list)
    for source in ordered:
        kinds[_kind(source)].append(source)
    share = {}
    for kind, alike in kinds.items():
        probes = [alike[row * len(alike) // PROBES] for row in range(PROBES)] if len(alike) > PROBES else alike
        stored_bytes = sum(_stored_bytes(source.utterance, max_duration_s) for source in probes)
        share[kind] = stored_bytes / max(1, sum(source.bytes for source in probes)) or 1.0
    return [int(source.bytes * share[_kind(source)]) for source in ordered]


def _kind(source: Source) -> str:
    return source.utterance.audio.suffix.lower()


def _stored_bytes(utterance: Utterance, max_duration_s: float) -> int:
    try:
        return len(encode_flac(pcm16(decode_utterance(utterance, max_duration_s).samples)))
    except BadAudio:
        return 0


def decode_utterance(utterance: Utterance, max_duration_s: float) -> Decoded:
    """The sound of what a reader listed. Raises BadAudio with the reason it cannot be used."""
    start_s, end_s = utterance.start_s, utterance.end_s
    inside = utterance.inside
    return decode(utterance.audio, inside=inside, start_s=start_s, end_s=end_s, max_duration_s=max_duration_s)


def _chunk_name(corpus: str, facts: Sequence[str], salt: str) -> str:
    return f"{corpus}-{hashlib.sha256(json.dumps([salt, *facts]).encode()).hexdigest()[:12]}"


def plain(value: Any) -> Any:
    """A dataclass as the dict of its fields, for JSON, without the deep copy that dataclasses.asdict makes."""
    return str(value) if isinstance(value, Path) else vars(value)
