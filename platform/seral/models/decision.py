"""Decisions of a final model: how sure it is, by a temperature, and below which confidence it should not answer.

Both are chosen by what the fold models said of speakers that they had not heard. What is reported of them is measured
on folds, or with one fold on speakers, that were left out when they were chosen.
"""

# N rows · C classes
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from ser_models.losses import best_temperature
from seral.models.results import FEWEST, Judged

Floats = NDArray[np.float64]
LEAST_ANSWERED = 20
"""Rows above a threshold, at least: the accuracy of fewer says nothing."""
TINY = 1e-12


def decide(judged: Judged, wanted: float) -> dict[str, Any]:
    """Temperature, and the least confidence from which on a share `wanted` of the answers is right.

    `abstain_below` is 0 where that is so of all answers, None where it is so of none. `accuracy` and `coverage`, the
    share of clips that are answered, are those of left-out folds or speakers (`over`), None where there are too
    few to leave any out. An empty dict for a model without classes.
    """
    if not judged.classes:
        return {}
    everything = np.ones(len(judged.truth), np.bool_)
    temperature, threshold = _choose(judged, everything, wanted)
    return {"wanted": wanted, "temperature": temperature, "abstain_below": threshold, **_left_out(judged, wanted)}


def tempered(share_NC: NDArray[Any], temperature: float) -> NDArray[Any]:
    """Probabilities whose logits are divided by a temperature, (N, C)."""
    if temperature == 1.0 or not share_NC.shape[1]:
        return share_NC
    return np.asarray(softmax(_logits(share_NC) / temperature, axis=1))


def least_confidence(confidence_N: Floats, right_N: NDArray[np.bool_], wanted: float) -> float | None:
    """The least confidence from which on at least a share `wanted` of the rows is right; 0 = of all, None = of none."""
    order_N = np.argsort(-confidence_N, kind="stable")
    sorted_N, number_N = confidence_N[order_N], np.arange(1, len(order_N) + 1)
    good_N = np.cumsum(right_N[order_N]) / number_N >= wanted
    last_of_ties_N = np.append(sorted_N[1:] < sorted_N[:-1], True)
    fit = np.flatnonzero(good_N & last_of_ties_N & (number_N >= LEAST_ANSWERED))
    if not len(fit):
        return None
    return 0.0 if fit[-1] == len(order_N) - 1 else float(sorted_N[fit[-1]])


def _choose(judged: Judged, rows_N: NDArray[np.bool_], wanted: float) -> tuple[float, float | None]:
    share_NC, truth_N = judged.share_NC[rows_N], judged.truth[rows_N]
    temperature = best_temperature(torch.from_numpy(_logits(share_NC)), torch.from_numpy(truth_N))
    confidence_N = tempered(share_NC, temperature).max(1)
    return temperature, least_confidence(confidence_N, share_NC.argmax(1) == truth_N, wanted)


def _left_out(judged: Judged, wanted: float) -> dict[str, Any]:
    """Accuracy and coverage of thresholds that were chosen without the fold, or the speaker, that they are tried on."""
    folds = len(np.unique(judged.fold_N))
    group_N = judged.fold_N.astype(str) if folds > 1 else judged.about["speaker"].to_numpy(str)
    groups = np.unique(group_N)
    if folds == 1 and len(groups) < FEWEST:
        return {"accuracy": None, "coverage": None, "over": None}
    right, answered = 0, 0
    for group in groups:
        own_N = group_N == group
        temperature, threshold = _choose(judged, ~own_N, wanted)
        confidence_N = tempered(judged.share_NC[own_N], temperature).max(1)
        answered_N = confidence_N >= (np.inf if threshold is None else threshold)
        answered += int(answered_N.sum())
        right += int((judged.share_NC[own_N].argmax(1) == judged.truth[own_N])[answered_N].sum())
    accuracy = right / answered if answered else None
    return {"accuracy": accuracy, "coverage": answered / len(group_N), "over": "fold" if folds > 1 else "speaker"}


def _logits(share_NC: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.log(np.maximum(share_NC, TINY)))
