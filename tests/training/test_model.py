"""Evaluations of a model: every metric of the table, and the annotators' votes where there are some."""

from __future__ import annotations

import numpy as np
import pytest

from ser_models.metrics import METRICS, calibration_error, soft_label_agreement
from seral.task.examples import Targets
from seral.training.scoring import Scores, evaluate, evaluate_scores

CLASSES = ("anger", "joy", "neutral")


def test_an_evaluation_holds_every_metric_of_classes_and_probabilities() -> None:
    rng = np.random.default_rng(0)
    truth_N, probability_NC = np.arange(30) % 3, rng.dirichlet(np.ones(3), 30).astype(np.float32)
    result = evaluate(truth_N, probability_NC, CLASSES)
    missing = {name for name, entry in METRICS.items() if entry.of != "ratings"} - set(result)
    assert not missing, f"evaluate() leaves out {sorted(missing)}, which METRICS lists"
    assert result["calibration_error"] == calibration_error(truth_N, probability_NC)
    assert list(result["per_class_recall"]) == list(CLASSES)


def test_votes_are_compared_with_the_probabilities_of_the_clips_that_have_some() -> None:
    rng = np.random.default_rng(1)
    probability_NC = rng.dirichlet(np.ones(3), 6).astype(np.float32)
    vote_NC = rng.dirichlet(np.ones(3), 6).astype(np.float32)
    vote_NC[4:] = np.nan
    scores = Scores(
        probability_NC=probability_NC,
        value_NK=np.empty((6, 0), np.float32),
        embedding_NU=np.empty((6, 0), np.float32),
        dropout_RNC=np.empty((0, 6, 3), np.float32),
    )
    plain = Targets.of_classes(np.arange(6) % 3)
    voted = Targets(label_N=plain.label_N, value_NK=plain.value_NK, soft_NC=vote_NC)
    without, result = (evaluate_scores(scores, targets, CLASSES, ()) for targets in (plain, voted))
    expected = soft_label_agreement(vote_NC[:4], probability_NC[:4])
    assert {name: result[f"votes_{name}"] for name in expected} == pytest.approx(expected)
    assert {name: value for name, value in result.items() if not name.startswith("votes_")} == without
