"""Crops of training clips in batches by seconds of audio, and a few clips that are held out.

Everything is drawn from the seed alone, so a restored run goes on with the very batches it would have had.
"""

# N clips · S samples
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count

import numpy as np
from numpy.typing import NDArray

from ser_models.objectives import MaskedPredictionOptions, batches_by_seconds, random_crop
from seral.errors import TrainError
from seral.features.speech import Speech, random_clips
from seral.pretraining.plans import PlannedBatch

Clip = tuple[str, NDArray[np.float32]]
"""Id and 16 kHz samples, cropped."""

MAX_HELD_OUT = 64
EPOCH, HELD_OUT, CROPPED, MASKED, CLUSTERED = 1, 2, 3, 4, 5
"""Uses of a random generator: (seed, number, one of these), apart from the (seed, step, 0, rank) of the steps."""


@dataclass(frozen=True, kw_only=True)
class CropPlan:
    """The clips of some utterances, and nothing else of their pool."""

    speech: Speech
    """Without the clips that are so short that no span of frames fits into them."""
    held_out_share: float
    settings: MaskedPredictionOptions
    seed: int

    @cached_property
    def held_out(self) -> tuple[str, ...]:
        """Utterances that are never trained on: a share of all, at least one, at most MAX_HELD_OUT."""
        names = sorted(name for rows in self.speech.duration_s.values() for name in rows)
        if not self.held_out_share:
            return ()
        if len(names) < 2:
            raise TrainError(f"TAPT needs at least 2 utterances to hold one out, got {len(names)}; or set held_out=0")
        size = min(max(1, round(self.held_out_share * len(names))), MAX_HELD_OUT, len(names) - 1)
        order = np.random.default_rng([self.seed, 0, HELD_OUT]).permutation(len(names))
        return tuple(sorted(names[index] for index in order[:size]))

    @cached_property
    def trained_s(self) -> dict[str, dict[str, float]]:
        """Seconds of what is trained on, by shard."""
        left_out = set(self.held_out)
        trained = {
            s: {n: d for n, d in rows.items() if n not in left_out} for s, rows in self.speech.duration_s.items()
        }
        return {shard: rows for shard, rows in trained.items() if rows}

    @property
    def hours(self) -> float:
        """Hours of what is trained on."""
        return sum(seconds for rows in self.trained_s.values() for seconds in rows.values()) / 3600

    def plan(self) -> Iterator[PlannedBatch]:
        """Endless batches: shards in random order, their rows in random order, by seconds of audio."""
        for epoch in count():
            rng, number = np.random.default_rng([self.seed, epoch, EPOCH]), count()
            for shard in rng.permutation(sorted(self.trained_s)).tolist():
                names, durations_s = zip(*self.trained_s[shard].items(), strict=True)
                for batch in batches_by_seconds(durations_s, self.settings, rng):
                    ids = [names[row] for row in batch]
                    yield PlannedBatch(shard=shard, ids=ids, epoch=epoch, number=next(number))

    def held_out_batches(self) -> list[list[Clip]]:
        """The held-out clips, always the same pieces of them, in batches like those of training."""
        left_out = set(self.held_out)
        return list(self._batches({s: left_out & set(rows) for s, rows in self.speech.duration_s.items()}))

    def sample(self, seconds: float, *, number: int) -> Iterator[list[Clip]]:
        """Random training clips of about so many seconds in all, another set for every `number`, in batches."""
        crop_s = self.settings.crop_s
        cropped_s = {s: {n: min(d, crop_s) for n, d in rows.items()} for s, rows in self.trained_s.items()}
        chosen = random_clips(cropped_s, seconds, np.random.default_rng([self.seed, number, CLUSTERED]))
        return self._batches(chosen)

    def _batches(self, chosen: dict[str, set[str]]) -> Iterator[list[Clip]]:
        rng = np.random.default_rng([self.seed, 0, CROPPED])
        for shard, names in sorted(chosen.items()):
            ordered = sorted(names)
            durations_s = [self.speech.duration_s[shard][name] for name in ordered]
            for batch in batches_by_seconds(durations_s, self.settings, rng) if ordered else ():
                yield self.read(shard, [ordered[row] for row in batch], rng)

    def read(self, shard: str, ids: Sequence[str], rng: np.random.Generator) -> list[Clip]:
        """Random crops of clips of one shard."""
        return [(name, random_crop(self.speech.clip(shard, name), self.settings.crop_s, rng)) for name in ids]
