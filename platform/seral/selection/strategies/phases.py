"""Strategies that change with the number of labels."""

from __future__ import annotations

import numpy as np

from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.strategies import scores
from seral.selection.strategies.checks import at_least
from seral.selection.strategies.typical import typiclust
from seral.selection.strategies.uncertainty import uncertainty_of


def tcm(candidates: Candidates, k: int, rng: np.random.Generator, *, labels_per_class: int = 2) -> list[str]:
    """typiclust while there are fewer than `labels_per_class` labels a class, then margin for good. Doucet et al. 2024,
    TCM, arXiv 2403.03728.

    Before there is a model, typiclust. Rejected utterances count for no label.
    Differs from the paper: it goes by labels a class of the model, not by rounds.
    """
    name = tcm_stands_for(Parts([PoolPart(candidates)]), labels_per_class=labels_per_class)
    if name == "typiclust":
        return typiclust(candidates, k, rng)
    ids: list[str] = candidates.ids[scores.top_rows(uncertainty_of(candidates, "margin"), k)].tolist()
    return ids


def tcm_stands_for(parts: Parts, *, labels_per_class: int = 2) -> str:
    """The strategy that picks now."""
    at_least(1, "tcm", labels_per_class=labels_per_class)
    labels, classes = zip(*parts.each(_labels_and_classes), strict=True)
    return "margin" if all(classes) and sum(labels) >= labels_per_class * max(classes) else "typiclust"


def _labels_and_classes(part: PoolPart) -> tuple[int, int]:
    """Labels of a part, and classes of its model; 0 = there is none."""
    p_NC, rejected_M = part.candidates.probability_NC, part.candidates.rejected_M
    rejected = 0 if rejected_M is None else int(rejected_M.sum())
    return len(part.labelled_ids()) - rejected, 0 if p_NC is None else p_NC.shape[1]
