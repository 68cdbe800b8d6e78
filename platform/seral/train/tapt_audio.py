"""What pretraining hears: the training clips in batches by seconds, and a few of them that are only listened to.

One shard of the pool is in memory at a time. Everything is drawn from the seed alone, so a restored run goes on with
the very batches it would have had.
"""

# N clips · S samples
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ser_models.tapt import TaptOptions, batches_by_seconds, random_crop
from seral.errors import TrainError
from seral.pool.decode import decode_flac
from seral.pool.shards import Pool

Clip = tuple[str, NDArray[np.float32]]
"""Id and 16 kHz samples, cropped."""

MAX_HELD_OUT = 64
EPOCH, HELD_OUT, CROPPED, MASKED, CLUSTERED = 1, 2, 3, 4, 5
"""What a generator is for: (seed, number, one of these), apart from the (seed, step, 0, rank) of the steps."""


@dataclass(frozen=True, kw_only=True)
class TaptAudio:
    """The clips of some utterances of a pool, and nothing else of it."""

    pool: Pool
    ids: tuple[str, ...]
    shortest_s: float
    """Clips below this are left out: no span of frames fits into them."""
    held_out_share: float
    settings: TaptOptions
    seed: int
    _shard: dict[str, dict[str, bytes]] = field(default_factory=dict, repr=False)
    """FLAC of the one shard in memory, under its name."""

    @cached_property
    def duration_s(self) -> dict[str, dict[str, float]]:
        """Seconds of every utterance that is long enough, by shard, sorted by id."""
        wanted, found = set(self.ids), {}
        for shard in self.pool.shards:
            table = self.pool.read(shard, ["utterance_id", "duration_s"])
            pairs = zip(table["utterance_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True)
            found[shard] = {n: s for n, s in sorted(pairs) if n in wanted and s >= self.shortest_s}
        if not any(found.values()):
            raise TrainError(f"none of {len(wanted)} utterances for TAPT is in the pool with {self.shortest_s:.2f} s")
        return {shard: rows for shard, rows in found.items() if rows}

    @cached_property
    def held_out(self) -> tuple[str, ...]:
        """Utterances that are never trained on: a share of all, at least one, at most MAX_HELD_OUT."""
        names = sorted(name for rows in self.duration_s.values() for name in rows)
        if not self.held_out_share:
            return ()
        if len(names) < 2:
            raise TrainError(f"TAPT needs at least 2 utterances to hold one out, got {len(names)}; or set held_out=0")
        count = min(max(1, round(self.held_out_share * len(names))), MAX_HELD_OUT, len(names) - 1)
        order = np.random.default_rng([self.seed, 0, HELD_OUT]).permutation(len(names))
        return tuple(sorted(names[index] for index in order[:count]))

    @cached_property
    def trained_s(self) -> dict[str, dict[str, float]]:
        """Seconds of what is trained on, by shard."""
        left_out = set(self.held_out)
        found = {s: {n: d for n, d in rows.items() if n not in left_out} for s, rows in self.duration_s.items()}
        return {shard: rows for shard, rows in found.items() if rows}

    @property
    def hours(self) -> float:
        """Hours of what is trained on."""
        return sum(seconds for rows in self.trained_s.values() for seconds in rows.values()) / 3600

    def plan(self) -> Iterator[tuple[str, list[str]]]:
        """Endless (shard, ids) batches: shards in random order, their rows in random order, by seconds of audio."""
        epoch = 0
        while True:
            rng = np.random.default_rng([self.seed, epoch, EPOCH])
            for shard in rng.permutation(sorted(self.trained_s)).tolist():
                names, durations_s = zip(*self.trained_s[shard].items(), strict=True)
                for batch in batches_by_seconds(durations_s, self.settings, rng):
                    yield shard, [names[row] for row in batch]
            epoch += 1

    def steps(
        self, start: int, *, rank: int = 0, world: int = 1
    ) -> Iterator[tuple[int, list[Clip], np.random.Generator]]:
        """Number, cropped clips and generator of each step from `start` on, for worker `rank` of `world`.

        Workers share out a batch; where it has fewer clips than there are workers, some hear the first one too.
        """
        for step, (shard, ids) in zip(range(self.settings.steps), self.plan(), strict=False):
            if step >= start:
                rng = np.random.default_rng([self.seed, step, 0, rank])
                yield step, self._read(shard, ids[rank::world] or ids[:1], rng), rng

    def held_out_batches(self) -> list[list[Clip]]:
        """The held-out clips, always the same pieces of them, in batches like those of training."""
        return list(self._batches({shard: set(self.held_out) & set(rows) for shard, rows in self.duration_s.items()}))

    def sample(self, seconds: float, *, number: int) -> Iterator[list[Clip]]:
        """Random training clips of about so many seconds in all, another set for every `number`, in batches."""
        pairs = [(s, n, min(d, self.settings.crop_s)) for s, rows in self.trained_s.items() for n, d in rows.items()]
        order = np.random.default_rng([self.seed, number, CLUSTERED]).permutation(len(pairs))
        chosen: dict[str, set[str]] = {}
        for shard, name, length_s in (pairs[index] for index in order):
            if seconds <= 0:
                break
            chosen.setdefault(shard, set()).add(name)
            seconds -= length_s
        return self._batches(chosen)

    def _batches(self, chosen: dict[str, set[str]]) -> Iterator[list[Clip]]:
        rng = np.random.default_rng([self.seed, 0, CROPPED])
        for shard, names in sorted(chosen.items()):
            ordered = sorted(names)
            durations_s = [self.duration_s[shard][name] for name in ordered]
            for batch in batches_by_seconds(durations_s, self.settings, rng) if ordered else ():
                yield self._read(shard, [ordered[row] for row in batch], rng)

    def _read(self, shard: str, ids: Sequence[str], rng: np.random.Generator) -> list[Clip]:
        if shard not in self._shard:
            table, wanted = self.pool.read(shard, ["utterance_id", "audio"]), self.duration_s[shard]
            pairs = zip(table["utterance_id"].to_pylist(), table["audio"], strict=True)
            self._shard.clear()
            self._shard[shard] = {name: audio.as_py() for name, audio in pairs if name in wanted}
        return [(name, random_crop(decode_flac(self._shard[shard][name]), self.settings.crop_s, rng)) for name in ids]
