"""A study: one call that opens the run, computes each cell once and writes the tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from seral import storage
from seral.errors import StateError
from seral.options import parse
from seral.pool.shards import open_pool
from seral.task.cells import Cell, write_study_table, write_table
from seral.task.context import RunContext
from seral.task.eligibility import of_corpora
from seral.task.options import ProtocolOptions, protocol_name
from seral.task.run import verb_of
from seral.task.study import Study, run_study


@pytest.mark.ray
def test_stages_run_in_order_and_every_cell_once(run_values: dict[str, Any], tmp_path: Path) -> None:
    log = tmp_path / "log"
    values = {name: value for name, value in run_values.items() if name in ("pool", "run", "classes", "cluster")}
    options = parse(ProtocolOptions, {**values, "seeds": [0, 1]})

    def cell(cell: Cell, folder: str, gain: float, log: str) -> dict[str, Any]:
        with Path(log).open("a") as file:
            file.write(f"{cell.name}\n")
        return {"uar": 0.5 + gain + 0.01 * cell.seed}

    def plan(context: RunContext[ProtocolOptions]) -> Study:
        assert Path(context.options.run).is_absolute()
        assert context.eligible(None).num_rows > 0
        context.write_environment(protocol_name(context.options, context.pool), {})
        stages = [
            (row, {Cell(row=row, fold=0, seed=seed): (gain, str(log)) for seed in context.options.seeds})
            for row, gain in (("first", 0.0), ("second", 0.1))
        ]
        run = context.options.run
        baseline = {"second": "first"}
        return Study(cell=cell, stages=stages, write=lambda results: write_study_table(run, results, baseline))

    text = run_study(options, "compare", {"run"}, plan)
    assert [name.split(".")[0] for name in log.read_text().split()] == ["first"] * 2 + ["second"] * 2
    assert run_study(options, "compare", {"run"}, plan) == text
    assert len(log.read_text().split()) == 4, "cells that are there are not computed again"
    table = pd.read_csv(Path(options.run) / "table.csv")
    assert table["gain"].tolist()[1] == pytest.approx(0.1)
    assert (Path(options.run) / "table.png").read_bytes().startswith(b"\x89PNG")
    assert verb_of(options.run) == "compare"
    facts = Path(options.run) / "environment.json"
    facts.write_text(json.dumps(storage.read_json(facts) | {"pool_hash": "another"}))
    with pytest.raises(StateError, match="has changed since"):
        run_study(options, "compare", {"run"}, plan)


def test_a_table_is_written_as_numbers_and_as_people_read_it(tmp_path: Path) -> None:
    table, shown = pd.DataFrame({"uar": [0.51234]}), pd.DataFrame({"row": ["a"]})
    assert write_table(str(tmp_path), table, "one") == (tmp_path / "one.md").read_text()
    assert "51.2" in (tmp_path / "one.md").read_text()
    assert pd.read_csv(tmp_path / "one.csv")["uar"].tolist() == [0.51234]
    assert "a" in write_table(str(tmp_path), table, "two", shown=shown)
    assert write_table(str(tmp_path), table, "three", shown="as said\n") == "as said\n"
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.ray
def test_no_corpus_at_all_is_no_clip_at_all(two_corpora: str) -> None:
    (table,) = of_corpora([open_pool(two_corpora)], [])
    assert table.num_rows == 0
