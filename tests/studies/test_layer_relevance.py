"""Layer relevance of a pool: every target, measure and hidden state, on speakers the probes did not hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seral.errors import OptionError
from seral.options import parse
from seral.studies.layer_options import MAPS, RelevanceOptions
from seral.studies.layer_relevance import run_relevance

pytestmark = pytest.mark.ray
CLASSES = ["anger", "happiness", "neutral", "sadness"]
STATES = 5
"""Hidden states of seral-tiny."""


@pytest.fixture
def values(speech_pool: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "pool": speech_pool,
        "run": str(tmp_path),
        "classes": CLASSES,
        "dimensions": ["valence"],
        "mapped": ["arousal"],
        "split": {"scheme": "k-fold", "k": 3},
        "seeds": [0, 1],
    }


def test_every_target_has_all_measures_and_is_computed_once(values: dict[str, Any], tmp_path: Path) -> None:
    shown = run_relevance(parse(RelevanceOptions, values))
    table, centres = (pd.read_csv(tmp_path / name) for name in ("relevance.csv", "centres.csv"))
    targets, measures = ["emotion", "valence", "arousal (mapped)"], ["weight", "single", "truncated"]
    wanted = [(target, measure, layer) for target in targets for measure in measures for layer in range(STATES)]
    assert list(table[["target", "measure", "layer"]].itertuples(index=False, name=None)) == wanted
    assert ((table["low"] <= table["score"] + 1e-9) & (table["score"] <= table["high"] + 1e-9)).mean() > 0.9
    weights = table[table["measure"] == "weight"].groupby("target")["score"].sum()
    np.testing.assert_allclose(weights, 1, atol=1e-4)
    # The generated speech says its emotion loudly: what is learnt on other speakers must be far above chance.
    single = table[table["measure"] == "single"].groupby("target")["score"].max()
    assert single["emotion"] > 0.5
    assert single["arousal (mapped)"] > 0.2
    assert list(centres[["target", "measure"]].itertuples(index=False, name=None)) == [
        (target, measure) for target in targets for measure in measures
    ]
    assert centres["centre"].between(0, 1).all()
    assert (tmp_path / "relevance.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "centres.md").read_text() == shown
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(before) == 3 * 3 * 2
    assert run_relevance(parse(RelevanceOptions, values)) == shown
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()} == before


def test_what_no_map_knows_is_refused(values: dict[str, Any]) -> None:
    assert all(set(CLASSES) <= set(words) for words in MAPS.values())
    with pytest.raises(OptionError, match="no arousal is known of the emotion 'contempt'; known: anger, fear"):
        parse(RelevanceOptions, values | {"classes": [*CLASSES, "contempt"]})
    with pytest.raises(OptionError, match="mapped valence is the same for all of the classes anger, sadness"):
        parse(RelevanceOptions, values | {"classes": ["anger", "sadness"], "mapped": ["valence"]})
