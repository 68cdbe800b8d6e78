"""What training and scoring work on: utterances as ids and pooled features, never labels and features in one record."""

# N rows · L encoder layers (L+1 hidden states) · D features · K dimensions (valence, arousal, dominance)
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Utterances:
    """Ids and the pooled features of every hidden state, mean and std (N, L+1, D) fp32."""

    ids: list[str]
    mean_NLD: NDArray[np.float32]
    std_NLD: NDArray[np.float32]

    def rows(self, keep_N: NDArray[np.bool_]) -> Utterances:
        """Some of them, in their order."""
        ids = [name for name, keep in zip(self.ids, keep_N, strict=True) if keep]
        return Utterances(ids=ids, mean_NLD=self.mean_NLD[keep_N], std_NLD=self.std_NLD[keep_N])

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each id."""
        return {name: row for row, name in enumerate(self.ids)}


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What N utterances are said to be: of a class, rated on K dimensions, or both."""

    label_N: NDArray[np.int64]
    """Class indices; -1 where no class is known."""
    value_NK: NDArray[np.float32]
    """Ratings on the corpus's own scale; NaN where there are none, K = 0 where nobody asks."""

    @staticmethod
    def of_classes(label_N: NDArray[np.int64]) -> Targets:
        """Classes and no ratings."""
        return Targets(label_N=label_N, value_NK=np.empty((len(label_N), 0), np.float32))

    @property
    def labelled_N(self) -> NDArray[np.bool_]:
        """Which have a class."""
        return self.label_N >= 0

    @property
    def rated_N(self) -> NDArray[np.bool_]:
        """Which are rated, on every dimension."""
        asked = self.value_NK.shape[1] > 0
        return np.asarray(np.isfinite(self.value_NK).all(1) & asked)
