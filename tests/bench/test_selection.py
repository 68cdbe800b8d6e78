from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.bench import selection
from jobs.bench.selection import LINES, SelectionBenchOptions, make_problem, run_selection_bench
from seral.errors import OptionError
from seral.options import parse

PLAIN = [line for line in LINES if line.side.__name__.startswith("plain")]


def small(folder: Path, **more: object) -> SelectionBenchOptions:
    values = {"rows": 1000, "picks": 12, "peer_rows": 300, "peer_picks": 12, "width": 8, "out": str(folder)}
    return parse(SelectionBenchOptions, values | more)


def test_every_line_gives_both_sides_and_what_the_picks_are_worth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "LINES", PLAIN)
    text = run_selection_bench(small(tmp_path))
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == len(PLAIN) == text.count("\n") - 2
    assert (table["ratio"] == table["other_seconds"] / table["seconds"]).all()
    greedy = ["k_center", "batch_bald", "max_herding", "uncertainty_herding", "dcom"]
    exact = table[table["strategy"].isin([*greedy, "density", "bald", "tcm"])]
    assert (exact["same"] == 1).all()
    assert (exact["radius"] == exact["other_radius"]).all()
    assert (table["distance"] <= table["radius"]).all()
    assert ((table["groups"] > 0) & (table["groups"] <= 1)).all()


def test_a_library_that_is_missing_is_said_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(problem: object) -> None:
        raise ModuleNotFoundError("No module named 'peer'", name="peer")

    monkeypatch.setattr(selection, "LINES", [selection.Line(strategy="margin", other="peer", side=absent), PLAIN[0]])
    run_selection_bench(small(tmp_path))
    assert len(pd.read_csv(tmp_path / "table.csv")) == 1
    assert "peer is not installed" in capsys.readouterr().err


def test_what_is_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nothing to measure of \['best'\] .*there are after against"):
        run_selection_bench(small(tmp_path, only=["best"]))
    with pytest.raises(OptionError, match=r"against \['nobody'\]; there are .*k_center against small-text"):
        run_selection_bench(small(tmp_path, only=["k_center"], against=["nobody"]))


def test_one_other_side_alone(tmp_path: Path) -> None:
    text = run_selection_bench(small(tmp_path, only=["k_center", "badge"], against=["plain BLAS"]))
    assert [line.split(" | ")[:2] for line in text.splitlines()[2:]] == [["| k_center", "plain BLAS"]]


def test_the_same_seed_makes_the_same_problem(tmp_path: Path) -> None:
    one, other = (make_problem(small(tmp_path), 300, 5) for _ in range(2))
    assert one.x_ND.tobytes() == other.x_ND.tobytes()
    np.testing.assert_allclose(one.p_RNC.sum(axis=2), 1, atol=1e-5)
