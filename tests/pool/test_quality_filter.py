from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from seral.audio.quality import score
from seral.pool.ids import Ids
from seral.pool.quality_filter import (
    MEASURES,
    above_quality,
    below_quality,
    count_reasons,
    say_left_out,
    unequal_shares,
)
from seral.pool.splits import Fold
from seral.schema import FILTERED

GOOD = {"snr_db": 30.0, "clipping": 0.0, "bandwidth_hz": 8000.0, "voice_ratio": 0.8}
CLIPS = {
    "good": GOOD,
    "hiss": GOOD | {"snr_db": -15.0, "voice_ratio": 0.5},
    "dog": GOOD | {"voice_ratio": 0.02},
    "cut": GOOD | {"clipping": 0.2},
    "dull": GOOD | {"bandwidth_hz": 100.0},
    "unheard": GOOD | {"voice_ratio": None},
}


def metadata() -> pa.Table:
    rows = [{"utterance_id": name, "quality": score(**clip), **clip} for name, clip in CLIPS.items()]
    rows.append({"utterance_id": "unmeasured", "quality": None, **dict.fromkeys(MEASURES)})
    return pa.Table.from_pylist(rows)


def test_bad_recordings_are_named_with_the_measure_that_says_so() -> None:
    filtered = below_quality([*CLIPS, "unmeasured"], metadata(), 0.1)
    assert filtered.schema.equals(FILTERED)
    reasons = dict(zip(filtered["utterance_id"].to_pylist(), filtered["reason"].to_pylist(), strict=True))
    assert reasons == {"hiss": "snr_db", "dog": "voice_ratio", "cut": "clipping", "dull": "bandwidth_hz"}
    assert count_reasons(filtered) == {"snr_db": 1, "voice_ratio": 1, "clipping": 1, "bandwidth_hz": 1}


def test_only_training_utterances_are_left_out() -> None:
    fold = Fold(name="f", train=Ids(["cut", "good", "unmeasured"]), dev=Ids(["hiss"]), test=Ids(["dog"]))
    above = above_quality(fold, metadata(), 0.1)
    assert (above.train, above.dev, above.test, above.left_out) == (("good", "unmeasured"), ("hiss",), ("dog",), 1)
    assert above_quality(fold, metadata(), 0.0) == fold


def table_of(below: dict[str, tuple[int, int]]) -> tuple[np.ndarray, pa.Table]:
    """Clips of some genders, of each so many below the floor and so many above it, in one corpus."""
    rows = [(gender, is_low) for gender, (low, high) in below.items() for is_low in [True] * low + [False] * high]
    columns = {"gender": [gender or None for gender, _ in rows], "corpus": ["one"] * len(rows)}
    return np.array([is_low for _, is_low in rows], dtype=bool), pa.table(columns | {"language": [None] * len(rows)})


def shares(below: dict[str, tuple[int, int]]) -> list[str]:
    below_N, columns = table_of(below)
    return unequal_shares(below_N, {name: columns[name] for name in ("gender", "corpus")})


def test_a_share_that_chance_does_not_explain_is_told_with_its_test() -> None:
    (line,) = shares({"female": (11, 291), "male": (0, 233)})
    assert line.startswith("leaves out 3.6% of gender female, and 0.0% of the others (p = 0.003, Fisher's exact test")
    assert "Bonferroni over 2" in line


def test_shares_that_chance_explains_and_unknown_values_are_not_told() -> None:
    assert shares({"female": (5, 295), "male": (2, 231)}) == []
    assert shares({"": (50, 0), "male": (0, 100)}) == []
    assert shares({}) == []


def test_chance_alone_is_told_of_as_rarely_as_it_says() -> None:
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(300):
        below_N = rng.random(400) < 0.05
        alarms += bool(unequal_shares(below_N, {"gender": pa.chunked_array([rng.choice(["f", "m"], 400)])}))
    assert alarms <= 9


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    below_N, columns = table_of({"female": (40, 60), "male": (0, 100)})
    names = [f"c{number:03d}" for number in range(200)]
    columns = columns.append_column("utterance_id", pa.array(names))
    columns = columns.append_column("quality", pa.array(np.where(below_N, 0.05, 0.9)))
    folds = [
        Fold(name="one", train=Ids(names[:150]), dev=Ids(), test=Ids(names[150:])),
        Fold(name="two", train=Ids(names[50:]), dev=Ids(), test=Ids(names[:50])),
    ]
    say_left_out(folds, columns, 0.1)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "min_quality 0.1 leaves out 40 of 200 training clips (20.0%)"
    assert second.startswith("min_quality 0.1 leaves out 40.0% of gender female, and 0.0% of the others")
    say_left_out(folds, columns, 0.0)
    assert capsys.readouterr().err == ""
