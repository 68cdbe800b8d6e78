"""Strategies that ask about what the model is least sure of."""

from __future__ import annotations

import numpy as np

from seral.active.candidates import Candidates
from seral.active.strategies import scores


def entropy(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """The k candidates of the largest entropy."""
    return _top(candidates, scores.entropy(candidates.need("probability_NC")), k)


def margin(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """The k candidates whose two likeliest classes are closest."""
    return _top(candidates, scores.margin(candidates.need("probability_NC")), k)


def least_confidence(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """The k candidates whose likeliest class is least likely."""
    return _top(candidates, scores.least_confidence(candidates.need("probability_NC")), k)


def bald(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """The k candidates on which the dropout passes disagree most."""
    return _top(candidates, scores.bald(candidates.need("dropout_SNC")), k)


def _top(candidates: Candidates, score_N: scores.Scores, k: int) -> list[str]:
    """Ids of the k largest scores, ties by id."""
    chosen: list[str] = candidates.ids[scores.top_rows(score_N, k)].tolist()
    return chosen
