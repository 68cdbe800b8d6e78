"""The bench of people: everybody answers, by the page too, and each way of making labels gets a model."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from jobs.bench.people import WAYS, PeopleBenchOptions, run_people_bench
from seral.errors import OptionError
from seral.labels.ledger import Ledger
from seral.options import parse

EMOTIONS = ["anger", "happiness", "neutral", "sadness"]


@pytest.mark.ray
@pytest.mark.slow
def test_people_label_through_the_page_and_models_learn_it(speech_pool: str, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None and os.environ.get("SERAL_TEST_ALL"):
        pytest.fail("Chromium is not installed")
    settings = {"pool": speech_pool, "classes": EMOTIONS, "people": ["careful", "hasty"], "labels": 20, "evaluation": 8}
    settings |= {"seeds": [0], "work": str(tmp_path), "sizes": [6] if chromium else None, "chromium": chromium or ""}
    text = run_people_bench(parse(PeopleBenchOptions, settings))
    table = pd.read_csv(tmp_path / "ways.csv").set_index("labels are")
    assert list(table.index) == list(WAYS)
    assert table[["learnt from", "right", "gold_uar"]].to_numpy().min() > 0
    assert table[["learnt from", "right", "gold_uar"]].to_numpy().max() <= 1
    assert table["learnt from"]["crowd"] > table["learnt from"]["majority"], "a tie is a label where shares are learnt"
    if chromium:
        assert "careful" in text
        with closing(Ledger(str(tmp_path / "browser" / "labels.sqlite"))) as ledger:
            rows = ledger.answers().to_pylist()
        assert {row["tool"] for row in rows} == {"page"}
        assert all(row["seconds"] > 0.3 for row in rows), "nobody answers what they have not heard"
        assert (tmp_path / "browser" / "report" / "index.html").is_file()


def test_a_personality_that_nobody_has_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown personality 'sleepy'"):
        parse(PeopleBenchOptions, {"pool": str(tmp_path), "classes": EMOTIONS, "people": ["sleepy"]})
