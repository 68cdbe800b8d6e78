"""The bar: a linear probe on one frozen layer, fitted by scikit-learn on the same labels and splits as the model."""

# N rows · L encoder layers (L+1 hidden states) · D features
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from seral.train.units import Utterances

Labelled = tuple[Utterances, NDArray[np.int64]]


def linear_probe(train: Labelled, dev: Labelled, test: Labelled) -> dict[str, Any]:
    """Standardise, then logistic regression on the mean of each hidden state; the layer is chosen by UAR on dev."""
    layers = range(train[0].mean_NLD.shape[1])
    fitted = [_fit(train, layer) for layer in layers]
    dev_uar = [_uar(fitted[layer], dev, layer) for layer in layers]
    best = int(np.argmax(dev_uar))
    return {"layer": best, "dev_uar": dev_uar[best], "test_uar": _uar(fitted[best], test, best)}


def _fit(train: Labelled, layer: int) -> Pipeline:
    one_class = len(np.unique(train[1])) == 1
    last = DummyClassifier() if one_class else LogisticRegression(max_iter=2000, class_weight="balanced")
    return make_pipeline(StandardScaler(), last).fit(train[0].mean_NLD[:, layer], train[1])


def _uar(model: Pipeline, part: Labelled, layer: int) -> float:
    predicted = model.predict(part[0].mean_NLD[:, layer])
    return float(recall_score(part[1], predicted, labels=np.unique(part[1]), average="macro"))
