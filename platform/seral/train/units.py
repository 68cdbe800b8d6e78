"""What training and scoring work on: utterances as ids and pooled features, never labels and features in one record."""

# N rows · L encoder layers (L+1 hidden states) · D features
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

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each id."""
        return {name: row for row, name in enumerate(self.ids)}
