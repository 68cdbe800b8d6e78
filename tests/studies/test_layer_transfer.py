"""Anchored training between two corpora of a pool: every row, nothing computed twice, no label of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ser_models.metrics import uar
from ser_models.similarity import ANCHOR_SETS
from seral import storage
from seral.errors import OptionError
from seral.features.audio import extract_features
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pool.splits import folds_of
from seral.studies.layer_options import LayerTransferOptions
from seral.studies.layer_transfer import Pair, choose, pair_cell, run_layer_transfer
from seral.task.cells import Cell
from seral.task.eligibility import eligible
from seral.task.examples import Targets
from seral.task.folds import FoldData, fold_data
from seral.task.gold import Oracle

CLASSES = ["anger", "happiness", "neutral", "sadness"]
ROWS = ["source only", "rescaled", *ANCHOR_SETS, "chosen", "target, supervised"]


@pytest.fixture
def values(two_corpora: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "pool": two_corpora,
        "run": str(tmp_path / "run"),
        "classes": CLASSES,
        "by": "corpus",
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [1],
        "seeds": [0],
        "size": 2,
        "weights": [0.0, 10.0],
        "projection": 8,
    }


@pytest.mark.ray
def test_every_pair_has_all_rows_and_is_computed_once(values: dict[str, Any]) -> None:
    shown, run = run_layer_transfer(parse(LayerTransferOptions, values)), Path(values["run"])
    table = pd.read_csv(run / "table.csv")
    pairs = ["acted to natural", "natural to acted"]
    assert list(table[["pair", "row"]].itertuples(index=False, name=None)) == [(p, row) for p in pairs for row in ROWS]
    assert (run / "table.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "table.md").read_text() == shown
    cells = {path: storage.read_json(path) for path in sorted((run / "cells").iterdir())}
    assert len(cells) == len(pairs)
    for pair, cell in zip(pairs, cells.values(), strict=True):
        rows = table[table["pair"] == pair].set_index("row")
        for name, scores in cell["rows"].items():
            assert rows.loc[name, "uar"] == pytest.approx(uar(np.array(cell["truth"]), np.array(scores["told"])))
        assert cell["anchors"]["all"]["layers"] == list(range(len(cell["similarity"])))
        assert cell["anchors"]["single"]["layers"] == [int(np.argmax(cell["similarity"]))]
        assert rows.loc["rescaled", "difference"] == pytest.approx(
            rows.loc["rescaled", "uar"] - rows.loc["source only", "uar"]
        )
    before = {path: path.stat().st_mtime_ns for path in cells}
    assert run_layer_transfer(parse(LayerTransferOptions, values)) == shown
    assert {path: path.stat().st_mtime_ns for path in cells} == before


class Liar(Oracle):
    """An oracle that tells another class than the gold one of some utterances."""

    lies: frozenset[str] = frozenset()

    def targets(self, ids: Sequence[str]) -> Targets:
        targets = super().targets(ids)
        shift_N = np.array([name in self.lies for name in ids])
        return replace(targets, label_N=np.where(shift_N, (targets.label_N + 1) % len(CLASSES), targets.label_N))


@dataclass(frozen=True, kw_only=True)
class Mislabelled(FoldData):
    """Data whose oracle lies about some utterances."""

    lies: frozenset[str]

    def oracle(self) -> Oracle:
        oracle = Liar(self.store.pool, self.classes)
        oracle.lies = self.lies
        return oracle


@pytest.mark.ray
def test_labels_of_the_target_make_the_ceiling_and_nothing_else(values: dict[str, Any]) -> None:
    options = parse(LayerTransferOptions, values)
    pool = open_pool(options.pool)
    sides = [folds_of(eligible(options, pool, [name]), options.split, [1])[1] for name in ("acted", "natural")]
    pair = Pair(source_train=sides[0].train, source_dev=sides[0].dev, target=sides[1])
    data = fold_data(options, extract_features(pool, options.encoder), sides[1], eligible(options, pool, None))
    contents = {field.name: getattr(data, field.name) for field in fields(data)}
    cell = Cell(row="acted to natural", fold=1, seed=0)
    results = []
    for lies in ((), (*sides[1].train, *sides[1].dev, *sides[1].test)):
        results.append(pair_cell(cell, "", Mislabelled(**contents, lies=frozenset(lies)), pair, options))
    predicted, other = ({name: row["told"] for name, row in one["rows"].items()} for one in results)
    assert results[0]["truth"] != results[1]["truth"]
    assert [name for name in predicted if predicted[name] != other[name]] == ["target, supervised"]
    assert results[0]["anchors"] == results[1]["anchors"]


def test_among_equals_on_the_source_the_most_informative_is_chosen() -> None:
    assert choose([(0.80, 0.1), (0.78, 0.5), (0.60, 0.9)], clips=100) == 1
    assert choose([(0.80, 0.1), (0.78, 0.5), (0.60, 0.9)], clips=10**6) == 0
    assert choose([(1.0, 0.2), (1.0, 0.3)], clips=50) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"similarity": "centroid_cka"}, "found without labels of the target, by coral or mmd; got 'centroid_cka'"),
        ({"anchors": ["first"]}, "no anchor set 'first'; known: last"),
        ({"dimensions": ["valence"]}, "learns classes"),
        ({"groups": ["acted", "spoken"]}, "no labelled corpus 'spoken'; there are acted, natural"),
        ({"groups": ["acted"]}, "one corpus only, acted: there is nothing to carry over"),
    ],
)
@pytest.mark.ray
def test_what_cannot_be_carried_over_is_refused(values: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run_layer_transfer(parse(LayerTransferOptions, values | change))
