"""The baseline every strategy has to beat."""

from __future__ import annotations

import numpy as np

from seral.active.candidates import Candidates


def uniform(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """k candidates at random, all equally likely."""
    chosen: list[str] = candidates.ids[rng.permutation(len(candidates))[:k]].tolist()
    return chosen
