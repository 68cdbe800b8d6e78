"""A study of labels: a loop a setting, every corpus by the others, areas and labels needed as by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ser_models.intervals import mean_interval
from ser_models.metrics import mean_recall
from seral import storage
from seral.errors import OptionError, StateError
from seral.options import parse
from seral.studies.labels import needed, run_label_study, summary
from seral.studies.options import LabelStudyOptions, Row

CLASSES = ["anger", "happiness", "neutral", "sadness"]


def values_of(pool: str, run: Path, **changes: Any) -> dict[str, Any]:
    targets = {name: {"corpora": [name], "classes": CLASSES} for name in ("acted", "natural")}
    values = {
        "pool": pool,
        "run": str(run),
        "encoders": ["seral-tiny"],
        "targets": targets,
        "ways": ["alone", "source"],
    }
    return {**values, "fractions": [0.2, 0.4], "deals": [0], **changes}


@pytest.mark.ray
@pytest.mark.slow
def test_every_corpus_is_learnt_alone_and_by_the_labels_of_the_other(two_corpora: str, tmp_path: Path) -> None:
    options = parse(LabelStudyOptions, values_of(two_corpora, tmp_path / "run"))
    for setting in options.settings():
        loop = options.loop(setting)
        assert loop.corpora == [setting.target]
        other = {"acted": ["natural"], "natural": ["acted"]}[setting.target]
        assert loop.source_corpora == (other if setting.source == "source" else None)
    text = run_label_study(options)
    table = pd.read_csv(tmp_path / "run/summary.csv")
    assert len(table) == 2 * 2 * 2, "targets, sources, arms"
    assert table["0.2"].between(0, 1).all()
    by_source = table.set_index(["target", "source", "arm"])
    for target in ("acted", "natural"):
        assert by_source.loc[(target, "alone", "random"), "labels needed"] == pytest.approx(0.2)
        assert np.isnan(by_source.loc[(target, "alone", "random"), "area over random"])
        assert np.isfinite(by_source.loc[(target, "source", "auto"), "area over reference"])
    assert "no label" in text
    curves = pd.read_csv(tmp_path / "run/curves.csv")
    for setting in options.settings():
        if setting.source == "source":
            (line, *_) = storage.read_json(str(tmp_path / "run" / setting.name / "curves.json"))["curves"]
            matrix = np.sum([np.array(m[0]) for m in line["without_confusion"].values()], axis=0)
            own = curves[(curves.target == setting.target) & (curves.fold == line["fold"])]
            assert mean_recall(matrix) == pytest.approx(own["without"].max())
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("*/trajectories/*/rounds/*/round.json")}
    assert len(marks) == 2 * 2 * 2 * 3 * 2, "folds and budgets"
    assert run_label_study(options) == text
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    other = parse(LabelStudyOptions, values_of(two_corpora, tmp_path / "run", fractions=[0.1, 0.2]))
    with pytest.raises(StateError, match="fractions: was"):
        run_label_study(other)
    assert storage.exists(str(tmp_path / "run/summary.png"))


def test_labels_needed_are_read_off_the_curve() -> None:
    shares = [0.1, 0.2, 0.4]
    assert needed(np.array([0.3, 0.5, 0.7]), shares, 0.6) == pytest.approx(0.3)
    assert needed(np.array([0.3, 0.5, 0.7]), shares, 0.2) == 0.1
    assert np.isnan(needed(np.array([0.3, 0.5, 0.7]), shares, 0.8))
    assert needed(np.array([0.6, 0.5, 0.7]), shares, 0.6) == 0.1


def test_the_summary_of_two_arms_is_their_difference_in_area_with_speakers_left_out() -> None:
    rng = np.random.default_rng(0)
    random, auto = Row("e", "t", "alone", "none", "random"), Row("e", "t", "alone", "none", "auto")
    speakers = [f"s{number}" for number in range(8)]

    def counts(right: float) -> dict[str, np.ndarray]:
        made = {}
        for name in speakers:
            per_budget = []
            for budget in range(2):
                hit = rng.binomial(20, right + 0.1 * budget, size=2)
                per_budget.append([[hit[0], 20 - hit[0]], [20 - hit[1], hit[1]]])
            made[name] = np.array(per_budget)
        return made

    own = {random: counts(0.5), auto: counts(0.7)}
    table = summary(own, [0.2, 0.3]).set_index("arm")
    uar = {
        row.arm: np.mean([[m[b][c][c] / 20 for b in (0, 1)] for m in part.values() for c in (0, 1)], axis=0)
        for row, part in own.items()
    }
    assert table.loc["auto", "0.2"] == pytest.approx(uar["auto"][0])
    assert table.loc["auto", "area over random"] == pytest.approx(np.mean(uar["auto"] - uar["random"]))
    assert table.loc["auto", "area over random, low"] > 0
    assert table.loc["auto", "labels needed"] == 0.2


def test_half_the_labels_are_beside_all_of_them_picked_by_chance_alone() -> None:
    random, source = Row("e", "t", "alone", "none", "random"), Row("e", "t", "source", "auto", "auto")

    def counts(*right: int) -> dict[str, np.ndarray]:
        return {name: np.array([[[hit, 10 - hit], [10 - hit, hit]] for hit in right]) for name in "abc"}

    table = summary({random: counts(5, 6), source: counts(8, 9)}, [0.1, 0.2]).set_index("arm")
    assert table.loc["auto", "half the labels"] == pytest.approx(0.8 - 0.6)
    assert table.loc["auto", "as many labels"] == pytest.approx(0.9 - 0.6)
    assert table.loc["auto", "half the labels, low"] == pytest.approx(0.2), "all speakers are alike"
    assert np.isnan(table.loc["random", "half the labels"])
    assert "half the labels" not in summary({random: counts(5, 6), source: counts(8, 9)}, [0.2, 0.3])


def test_a_fall_is_the_surest_of_all_pairs_and_paid_for_having_been_picked() -> None:
    source = Row("e", "t", "source", "auto", "auto")

    def counts(*right: list[int]) -> dict[str, np.ndarray]:
        lines = zip("abcd", zip(*right, strict=True), strict=True)
        return {name: np.array([[[hit, 10 - hit], [10 - hit, hit]] for hit in hits]) for name, hits in lines}

    before, few, many = [8, 9, 8, 9], [6, 7, 5, 7], [9, 9, 9, 9]
    line = summary({source: counts(few, many)}, [0.1, 0.2], {source: counts(before)}).iloc[0]
    assert line["fall"] == pytest.approx(0.85 - 0.625)
    assert line["fall, budgets"] == "no label to 10 %"
    difference_G = (np.array(before) - few) / 10
    assert line["fall, p"] == pytest.approx(3 * mean_interval(difference_G).p), "three pairs"
    assert "fall" not in summary({source: counts(few, many)}, [0.1, 0.2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": [0.1, 0.3]}, "fractions must have 0.2"),
        ({"encoders": ["a/x", "b/x"]}, "the same last name"),
        ({"ways": ["alone", "aloft"]}, "no way 'aloft'; known: alone"),
        ({"targets": {"one": {"corpora": ["a"], "classes": CLASSES}}}, "targets"),
    ],
)
def test_a_study_without_a_reference_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(LabelStudyOptions, values_of("p", Path("r")) | change)
