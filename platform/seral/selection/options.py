"""Options of picks from Parquet files, and of the time that a clip costs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, model_validator

from seral.cluster import ClusterOptions
from seral.options import Options
from seral.selection.selection import StrategyOptions
from seral.selection.source_options import SourceOptions


class PaceOptions(Options):
    """Options of how long an annotator takes."""

    listening: FiniteFloat = Field(default=1.5, gt=0)
    """Seconds of listening for every second of a clip."""
    deciding_s: FiniteFloat = Field(default=5.0, ge=0)
    """Seconds for everything else about a clip."""

    def seconds(self, duration_s: NDArray[np.float32]) -> NDArray[np.float64]:
        """Seconds that clips of these durations cost."""
        return duration_s.astype(np.float64) * self.listening + self.deciding_s


class BatchOptions(Options):
    """Options of one batch of picks: its source, its strategy and its size."""

    source: SourceOptions
    strategy: StrategyOptions = StrategyOptions(name="auto")
    """A strategy by name with its options and wrappers; see `seral strategies`."""
    count: int | None = Field(default=None, ge=1)
    """Number of utterances to pick."""
    minutes: float | None = Field(default=None, gt=0)
    """Or how many minutes of an annotator to spend."""
    pace: PaceOptions = PaceOptions()
    """The cost of a clip, where minutes are counted; durations come from `source.metadata`."""
    seed: int = Field(default=0, ge=0)
    """Seed of the picks."""
    parts: int = Field(default=1, ge=1)
    """In how many processes the features are kept, on as many machines as Ray has, at most one a file; 1 = all in this
    one, without Ray. The picks are the same, but for strategies that cluster the whole pool (`seral strategies` lists
    which), whose picks in parts are merged."""
    out: str
    """Parquet file of the picks, in order (schema.PICK)."""
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _check(self) -> BatchOptions:
        if (self.count is None) == (self.minutes is None):
            raise ValueError("say how many to pick by `count`, or how many `minutes` to spend: one of them")
        return self
