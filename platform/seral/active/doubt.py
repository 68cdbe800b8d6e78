"""Doubt about labels: how little a model that has not seen a label believes it."""

# M labelled utterances · D features · C classes
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

PARTS = 5


def doubt(x_MD: NDArray[np.float32], label_M: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """1 - the probability of each label by logistic regression on the others' parts, (M, D), (M,) -> (M,).

    Out-of-sample probabilities are those of confident learning, Northcutt et al. 2021, arXiv 1911.00068. Labels of
    classes too rare for two parts are not doubted.
    """
    doubt_M = np.zeros(len(label_M), dtype=np.float32)
    class_M, count_M = np.unique(label_M, return_inverse=True, return_counts=True)[1:]
    count_M = count_M[class_M]
    known = np.flatnonzero(count_M > 1)
    if len(np.unique(label_M[known])) < 2:
        return doubt_M
    code = np.unique(label_M[known], return_inverse=True)[1]
    parts = StratifiedKFold(int(min(PARTS, count_M[known].min())), shuffle=True, random_state=seed % 2**32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    p_MC = cross_val_predict(model, x_MD[known], code, cv=parts, method="predict_proba")
    doubt_M[known] = 1 - p_MC[np.arange(len(known)), code]
    return doubt_M
