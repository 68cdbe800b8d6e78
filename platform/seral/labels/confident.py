"""Confident learning: labels that a model which has not seen them does not believe, and those it would give."""

# M labelled utterances · D features · C classes
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PARTS = 5
L2 = 0.03
"""Ridge penalty beside the mean loss per clip, as of heads (ser_models.fitting.FitOptions)."""


def label_error_scores(x_MD: NDArray[np.float32], label_M: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """1 - the probability of each label by logistic regression on the others' parts, (M, D), (M,) -> (M,).

    Labels of classes too rare for two parts score 0. Northcutt et al. 2021, Confident Learning, arXiv 1911.00068.
    """
    class_M = np.unique(label_M, return_inverse=True)[1]
    p_M = out_of_sample(x_MD, label_M, seed)[np.arange(len(label_M)), class_M]
    return np.nan_to_num(1 - p_M, nan=0.0).astype(np.float32)


def out_of_sample(x_MD: NDArray[np.float32], label_M: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """Probabilities of the C labels that occur, in their order, by logistic regression on the others' parts: (M, C).

    Rows whose class is too rare for two parts are NaN. Northcutt et al. 2021, Confident Learning, arXiv 1911.00068.
    """
    class_M, count_M = np.unique(label_M, return_inverse=True, return_counts=True)[1:]
    p_MC = np.full((len(label_M), len(count_M)), np.nan)
    rows, some = np.flatnonzero(count_M[class_M] > 1), np.flatnonzero(count_M > 1)
    if len(some) < 2:
        return p_MC
    parts = StratifiedKFold(int(min(PARTS, count_M[some].min())), shuffle=True, random_state=seed % 2**32)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (L2 * len(rows)), max_iter=1000))
    frequent_MC = cross_val_predict(model, x_MD[rows], class_M[rows], cv=parts, method="predict_proba")
    p_MC[rows] = 0.0
    p_MC[np.ix_(rows, some)] = frequent_MC
    return p_MC


def confident_class(p_MC: NDArray[np.float64], label_M: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class that each utterance seems to be in truth, by out-of-sample probabilities: (M, C), (M,) -> (M,).

    Where it is not the label, that may be an error. A class counts where its probability reaches the mean that it has
    on its own labels, `t_j = mean p_j over {label = j}`, and of several the likeliest: the confident joint of Northcutt
    et al. 2021, arXiv 1911.00068, section 3.1. Rows of NaN keep their label.
    Differs from the paper, which leaves out utterances where no class counts: theirs is the likeliest class. On a few
    hundred clips that is where a quarter of the errors are (docs/people.md).
    """
    judged_M = ~np.isnan(p_MC).any(1)
    threshold_C = np.full(p_MC.shape[1], np.inf)
    for index in np.unique(label_M[judged_M]):
        threshold_C[index] = p_MC[judged_M & (label_M == index), index].mean()
    # The mean of equal numbers may be off by the last digit.
    above_MC = p_MC >= threshold_C - 1e-9
    class_M = np.where(above_MC | ~above_MC.any(1, keepdims=True), p_MC, -1.0).argmax(1)
    return np.where(judged_M, class_M, label_M).astype(np.int64)
