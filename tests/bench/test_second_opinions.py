"""The bench of second opinions: whose votes stand in, and what is compared at which number of answers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from jobs.bench.second_opinions import SecondOpinionOptions, gains, stand_in_rows
from seral.errors import StateError

VOTES = {"ANG": (5, 0, 0, 0, 2, 0), "SAD": (0, 0, 0, 0, 1, 3)}
"""What a clip of CREMA-D was meant to be -> votes for anger, disgust, fear, happiness, neutral, sadness."""


@pytest.fixture
def options(tmp_path: Path) -> SecondOpinionOptions:
    for actor in ("01", "02"):
        for emotion in ("04", "05", "08"):  # sad, angry, surprised
            (tmp_path / f"03-01-{emotion}-01-01-01-{actor}.wav").touch()
    rows = [
        f'"10000{at}",{",".join(map(str, counts))},"1001_IEO_{name}_XX"'
        for at, (name, counts) in enumerate(VOTES.items())
    ]
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes/tabulatedVotes.csv").write_text("\n".join(['"","A","D","F","H","N","S","fileName"', *rows]))
    return SecondOpinionOptions(
        root=str(tmp_path),
        votes=str(tmp_path / "votes"),
        classes=["anger", "sadness"],
        sizes=[10, 20, 30],
        seeds=[0, 1],
    )


def test_each_clip_has_all_votes_of_one_that_was_meant_to_be_the_same(options: SecondOpinionOptions) -> None:
    rows, columns = stand_in_rows(options)
    assert len(rows) == 4, "surprise is none of the classes"
    assert columns == [f"vote_{number:02d}" for number in range(7)]
    expected = {"anger": ["anger"] * 5 + ["neutral"] * 2, "sadness": ["neutral"] + ["sad"] * 3}
    for row in rows:
        assert sorted(row[name] for name in columns if name in row) == expected[row["emotion"]]
    assert stand_in_rows(options) == (rows, columns)
    other = stand_in_rows(options.model_copy(update={"draw": 1}))[0]
    assert [[*row.values()] for row in other] != [[*row.values()] for row in rows], "another draw, another order"
    with pytest.raises(StateError, match="meant to sound like fear: leave the class out"):
        stand_in_rows(options.model_copy(update={"classes": ["anger", "fear"]}))


def test_arms_are_compared_at_equal_numbers_of_paid_answers(options: SecondOpinionOptions) -> None:
    rows = [
        {"seed": seed, "fold": 0, "share": share, "round": number, "paid": paid, "clips": paid, "labelled": paid}
        | {"uar_majority": paid / 100 + 0.1 * bool(share) + 0.02 * seed * bool(share)}
        | {"uar_intended": 0.5, "cross_entropy": 1.0}
        for seed in (0, 1)
        for share, steps in ((0.0, (10, 20, 30)), (0.25, (10, 24, 36)))
        for number, paid in enumerate(steps)
    ]
    curves = pd.DataFrame([{"method": "majority", "strategy": "random"} | row for row in rows])
    first, second = gains(curves, options).to_dict("records")
    assert first["uar_majority"] == "0.250", "at 20 and 30 answers"
    assert second["uar_majority, gain"].startswith("+0.110 "), "what more answers brought is no gain"
    assert second["uar_intended, gain"].startswith("+0.000 ")
