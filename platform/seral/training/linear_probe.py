"""The linear probe: scikit-learn on one hidden state of the frozen encoder, with the labels and splits of the model.

A fine-tune that falls below it on its split has a bug.
"""

# N rows · L hidden states · D features · K rated dimensions
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import recall_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_models.metrics import ccc, confusion_matrix
from seral.task.examples import Targets, Utterances

Labelled = tuple[Utterances, NDArray[np.int64]]
Rated = tuple[Utterances, NDArray[np.float32]]


class Probed(NamedTuple):
    """The hidden state of a probe, its UAR on dev (None without dev) and its predictions of the test clips, (N,)."""

    layer: int
    dev_uar: float | None
    predicted_N: NDArray[np.int64]


def probe_classes(train: Labelled, dev: Labelled, test: Labelled) -> Probed:
    """Standardise, then logistic regression on the mean of a hidden state: the best by UAR on dev, or the middle one
    where dev is empty."""
    states = train[0].mean_NLD.shape[1]
    layers = range(states) if dev[0].ids else [states // 2]
    fitted = {layer: _fit(train, layer) for layer in layers}
    dev_uar = {layer: _uar(fitted[layer], dev, layer) for layer in layers if dev[0].ids}
    best = max(fitted, key=lambda layer: dev_uar.get(layer, 0.0))
    return Probed(best, dev_uar.get(best), fitted[best].predict(test[0].means(best)))


def linear_probe(train: Labelled, dev: Labelled, test: Labelled, num_classes: int) -> dict[str, Any]:
    """The scores of `probe_classes` on the test clips."""
    probed = probe_classes(train, dev, test)
    return {
        "layer": probed.layer,
        "dev_uar": probed.dev_uar,
        "test_uar": recall_score(test[1], probed.predicted_N, labels=np.unique(test[1]), average="macro"),
        "confusion": confusion_matrix(test[1], probed.predicted_N, num_classes).tolist(),
    }


def probe_metrics(
    train: tuple[Utterances, Targets],
    dev: tuple[Utterances, Targets],
    test: tuple[Utterances, Targets],
    num_classes: int,
) -> dict[str, Any]:
    """Scores of the linear probes: `probe_uar` and its confusion for classes, `probe_ccc` for dimensions."""
    scores: dict[str, Any] = {}
    parts = (train, dev, test)
    if train[1].decided_N.any():
        decided = [(units.rows(t.decided_N), t.label_N[t.decided_N]) for units, t in parts]
        result = linear_probe(decided[0], decided[1], decided[2], num_classes)
        scores |= {"probe_uar": result["test_uar"], "probe_confusion": result["confusion"]}
    if train[1].rated_N.any():
        scores["probe_ccc"] = ridge_probe(*((units.rows(t.rated_N), t.value_NK[t.rated_N]) for units, t in parts))
    return scores


def ridge_probe(train: Rated, dev: Rated, test: Rated) -> float:
    """Standardise, then ridge regression on the mean of a hidden state: the best by mean CCC on dev, or the middle one
    where dev is empty."""
    states = train[0].mean_NLD.shape[1]
    layers, penalties = range(states) if dev[0].ids else [states // 2], np.logspace(-1, 4, 11)
    fitted = {
        layer: make_pipeline(StandardScaler(), RidgeCV(penalties)).fit(train[0].means(layer), train[1])
        for layer in layers
    }
    best = max(fitted, key=lambda layer: _ccc(fitted[layer], dev, layer) if dev[0].ids else 0.0)
    return _ccc(fitted[best], test, best)


def _ccc(model: Pipeline, part: Rated, layer: int) -> float:
    predicted_NK = model.predict(part[0].means(layer)).reshape(part[1].shape)
    return float(np.mean([ccc(truth, predicted) for truth, predicted in zip(part[1].T, predicted_NK.T, strict=True)]))


def _fit(train: Labelled, layer: int) -> Pipeline:
    one_class = len(np.unique(train[1])) == 1
    last = DummyClassifier() if one_class else LogisticRegression(max_iter=2000, class_weight="balanced")
    return make_pipeline(StandardScaler(), last).fit(train[0].means(layer), train[1])


def _uar(model: Pipeline, part: Labelled, layer: int) -> float:
    predicted = model.predict(part[0].means(layer))
    return float(recall_score(part[1], predicted, labels=np.unique(part[1]), average="macro"))
