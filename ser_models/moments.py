"""Sums of pooled features and of their squares: all that standardising and aligning need of any number of clips.

They are added up part by part, so no more than a part has to be in memory, and in double precision: features come with
eleven bits, so neither their number nor their distance from zero costs a digit of what single precision shows.
"""

# N clips · L hidden states · D features · E features of a transcript
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

ROWS_AT_ONCE = 256
"""Clips whose features are in double precision at a time."""


@dataclass(frozen=True)
class Moments:
    """Number of rows, and the sums of their values and of the values' squares, (…) fp64."""

    count: int
    total: Tensor
    squares: Tensor

    @staticmethod
    def of(rows: Tensor) -> Moments:
        """The moments of rows, (N, …)."""
        parts = [rows[at : at + ROWS_AT_ONCE].float() for at in range(0, len(rows), ROWS_AT_ONCE)]
        zero = torch.zeros(rows.shape[1:], dtype=torch.float64)
        total = sum((part.sum(0, dtype=torch.float64) for part in parts), start=zero)
        squares = sum((part.square().sum(0, dtype=torch.float64) for part in parts), start=zero)
        return Moments(len(rows), total, squares)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> Tensor:
        """The mean row, (…) fp32."""
        return (self.total / self.count).float()

    def scale(self, correction: int = 0) -> Tensor:
        """The standard deviations, (…) fp32; with correction 1 those of a sample."""
        variance = (self.squares / self.count - (self.total / self.count).square()).clamp_min(0)
        return (variance * (self.count / (self.count - correction))).sqrt().float()


@dataclass(frozen=True)
class PooledMoments:
    """The moments of the pooled means (L, D), of the standard deviations (L, D) and of transcripts' vectors (E,)."""

    mean: Moments
    std: Moments
    text: Moments | None = None
    """Of the clips that have a transcript; None = nobody reads."""

    @staticmethod
    def of(mean_NLD: Tensor, std_NLD: Tensor, text_NE: Tensor | None = None) -> PooledMoments:
        """The moments of rows of a feature cache; transcripts' vectors are NaN where there is none."""
        text = None if text_NE is None else Moments.of(text_NE[torch.isfinite(text_NE).all(-1)])
        return PooledMoments(Moments.of(mean_NLD), Moments.of(std_NLD), text)

    @staticmethod
    def sum(parts: Iterable[PooledMoments]) -> PooledMoments:
        """The moments of all parts together, added up in their order."""
        return reduce(PooledMoments._plus, parts)

    def _plus(self, other: PooledMoments) -> PooledMoments:
        text = None if self.text is None or other.text is None else self.text + other.text
        return PooledMoments(self.mean + other.mean, self.std + other.std, text)
