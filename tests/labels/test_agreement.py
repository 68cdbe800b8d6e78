"""Agreement: Krippendorff's published example, the reference implementation, and reports of people."""

from __future__ import annotations

from itertools import count
from typing import Any

import krippendorff
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seral.labels.agreement import agreement, krippendorff_alpha, person_reports
from seral.schema import ANSWERS

CLASSES = ("anger", "joy", "neutral")
NUMBER = count(1)
NONE = float("nan")
# Four observers, twelve units. Krippendorff 2011, Computing Krippendorff's alpha-reliability, section D.
EXAMPLE = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
    [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
]


def answer(utterance: str, person: str, *emotions: str, **more: Any) -> dict[str, Any]:
    row = {"id": next(NUMBER), "utterance_id": utterance, "person": person, "emotions": list(emotions)}
    return {"kind": "label", "secondary": [], "final": False, "purpose": "round", **row, **more}


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), ANSWERS)


def flat(rating_PU: list[list[float]], *, one_hot: int = 0) -> tuple[list[str], np.ndarray]:
    pairs = [(f"u{unit}", value) for row in rating_PU for unit, value in enumerate(row) if not np.isnan(value)]
    value_R = np.array([value for _, value in pairs])
    return [unit for unit, _ in pairs], np.eye(one_hot)[value_R.astype(int)] if one_hot else value_R[:, None]


def test_krippendorffs_own_example() -> None:
    nominal = krippendorff_alpha(*flat(EXAMPLE, one_hot=6))
    assert nominal.alpha == pytest.approx(0.743, abs=5e-4)
    assert nominal.utterances == 11, "the last unit has one rating"
    assert nominal.low is not None
    assert nominal.high is not None
    assert nominal.low < 0.743 < nominal.high <= 1
    assert krippendorff_alpha(*flat(EXAMPLE)).alpha == pytest.approx(0.849, abs=5e-4)


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([0, 1, 2, NONE]), min_size=5, max_size=5), min_size=2, max_size=4))
def test_alpha_is_that_of_the_reference(rating_PU: list[list[float]]) -> None:
    for level, one_hot in (("nominal", 3), ("interval", 0)):
        ours = krippendorff_alpha(*flat(rating_PU, one_hot=one_hot)).alpha
        paired = [column for column in np.array(rating_PU).T if (~np.isnan(column)).sum() > 1]
        if len(np.unique([value for column in paired for value in column if not np.isnan(value)])) < 2:
            assert ours is None, "nobody differs, or nobody could"
        else:
            theirs = krippendorff.alpha(np.array(paired).T, level_of_measurement=level)
            assert ours == pytest.approx(theirs, abs=1e-9)


def test_the_interval_covers_the_alpha_of_chance_about_as_often_as_it_says() -> None:
    rng, covered = np.random.default_rng(3), 0
    for _ in range(40):
        alpha = krippendorff_alpha(*flat(rng.integers(3, size=(3, 100)).astype(float).tolist(), one_hot=3))
        assert alpha.low is not None
        assert alpha.high is not None
        covered += alpha.low < 0 < alpha.high
    assert 34 <= covered < 40


def test_the_interval_is_the_same_each_time() -> None:
    assert krippendorff_alpha(*flat(EXAMPLE)) == krippendorff_alpha(*flat(EXAMPLE))


def test_agreement_over_classes_for_each_class_and_for_dimensions() -> None:
    rows = []
    for index, word in enumerate(("joy", "joy", "neutral", "neutral", "anger", "anger")):
        other = {"anger": "neutral"}.get(word, word)
        rows += [
            answer(f"u{index}", "ada", word, arousal=1.0 + index % 5),
            answer(f"u{index}", "ben", other, arousal=5.0 - index % 5),
        ]
    rows += [answer("u0", "cem", "anger", purpose="check"), answer("u0", "lead", "anger", final=True)]
    result = agreement(table(*rows), CLASSES, ("arousal",))
    assert list(result) == ["emotion", *CLASSES, "arousal"]
    assert result["joy"].alpha == pytest.approx(1)
    assert result["anger"].alpha is not None
    assert result["anger"].alpha < result["neutral"].alpha < result["emotion"].alpha < 1  # type: ignore[operator]
    assert result["arousal"].alpha is not None
    assert result["arousal"].alpha < 0
    assert agreement(table(answer("a", "ada", "joy")), CLASSES)["emotion"].alpha is None


def test_a_report_counts_what_a_person_did() -> None:
    rows = [answer(f"u{n}", name, "joy" if n % 2 else "anger") for n in range(6) for name in ("ada", "ben", "cem")]
    rows += [answer(f"u{n}", "dee", "anger", seconds=float(n)) for n in range(6)]
    rows += [
        answer("u6", "dee", kind="skipped"),
        answer("u7", "dee", kind="other-language"),
        answer("u8", "dee", kind="unusable"),
    ]
    reports = {report.person: report for report in person_reports(table(*rows), CLASSES)}
    assert list(reports) == ["ada", "ben", "cem", "dee"]
    dee = reports["dee"]
    assert (dee.answers, dee.skipped, dee.unusable, dee.seconds) == (9, 2, 1, 2.5)
    assert (dee.agreement, dee.compared) == (0.5, 6)
    assert dee.accuracy == pytest.approx(0.5, abs=0.01)
    assert dee.confusion is not None
    assert dee.confusion[1] == pytest.approx([1, 0, 0], abs=0.01), "says anger where there is joy"
    assert reports["ada"].agreement == 1
    assert reports["ada"].accuracy == pytest.approx(1, abs=0.01)
    assert reports["ada"].seconds is None


def test_checks_tell_how_often_a_person_is_right() -> None:
    final = [answer("c1", "lead", "joy", final=True), answer("c2", "lead", kind="unusable", final=True)]
    final += [answer("c3", "lead", "anger", final=True)]
    rows = [
        answer("c1", "ada", "joy", "anger"),
        answer("c2", "ada", kind="unusable"),
        answer("c3", "ada", kind="unusable"),
    ]
    checks = [{**row, "purpose": "check"} for row in rows]
    (ada,) = person_reports(table(*checks, *final), CLASSES)
    assert (ada.checks, ada.check_accuracy) == (3, 0.5)


def test_nobody_is_compared_with_themselves() -> None:
    (ada,) = person_reports(table(answer("a", "ada", "joy"), answer("b", "ada", "anger")), CLASSES)
    assert (ada.agreement, ada.compared, ada.check_accuracy) == (None, 0, None)
