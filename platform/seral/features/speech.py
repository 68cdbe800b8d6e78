"""Audio for trainings without labels: some utterances of one pool or several, one shard of them in memory at a time."""

# N clips · S samples
from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from seral.audio.decode import decode_flac
from seral.errors import TrainError
from seral.pool.shards import Pool

Durations = dict[str, dict[str, float]]
"""Seconds of utterances by shard and id."""


@dataclass(frozen=True, kw_only=True)
class Speech:
    """The utterances `ids` of each pool that last `shortest_s` or longer."""

    parts: tuple[tuple[Pool, frozenset[str]], ...]
    """Pools, and which of their utterances."""
    shortest_s: float = 0.0
    _loaded: dict[str, dict[str, bytes]] = field(default_factory=dict, repr=False)
    """FLAC of the one shard in memory, under its name."""

    @cached_property
    def duration_s(self) -> Durations:
        """Seconds of every utterance, shards and ids sorted; shards are named POOL/SHARD, pools by their number."""
        durations: Durations = {}
        for number, (pool, ids) in enumerate(self.parts):
            for shard in pool.shards:
                table = pool.read(shard, ["utterance_id", "duration_s"])
                pairs = sorted(zip(table["utterance_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True))
                long_enough = {name: seconds for name, seconds in pairs if name in ids and seconds >= self.shortest_s}
                if long_enough:
                    durations[f"{number}/{shard}"] = long_enough
        if not durations:
            wanted = sum(len(ids) for _, ids in self.parts)
            raise TrainError(f"none of {wanted} utterances to train on is in the pool with {self.shortest_s:.2f} s")
        return durations

    def clip(self, shard: str, name: str) -> NDArray[np.float32]:
        """One utterance, (S,) at 16 kHz. Loads its shard; fast while the shard stays the same."""
        if shard not in self._loaded:
            number, _, stem = shard.partition("/")
            pool, ids = self.parts[int(number)]
            table = pool.read(stem, ["utterance_id", "audio"])
            pairs = zip(table["utterance_id"].to_pylist(), table["audio"], strict=True)
            self._loaded.clear()
            self._loaded[shard] = {name: audio.as_py() for name, audio in pairs if name in ids}
        return decode_flac(self._loaded[shard][name])


def random_clips(length_s: Durations, seconds: float, rng: np.random.Generator) -> dict[str, set[str]]:
    """Random utterances of about so many seconds in all, by shard."""
    clips = [(shard, name, clip_s) for shard, rows in length_s.items() for name, clip_s in rows.items()]
    chosen: dict[str, set[str]] = {}
    for shard, name, clip_s in (clips[index] for index in rng.permutation(len(clips))):
        if seconds <= 0:
            break
        chosen.setdefault(shard, set()).add(name)
        seconds -= clip_s
    return chosen
