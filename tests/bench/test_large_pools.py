from pathlib import Path

import pandas as pd
import pytest

from jobs.bench.large_pools import WITHOUT, LargePoolsBenchOptions, run_large_pools_bench
from seral.errors import OptionError
from seral.options import parse
from seral.selection.selection import default_options
from seral.selection.strategies import clusters, typical


def options(folder: Path, **more: object) -> LargePoolsBenchOptions:
    return parse(LargePoolsBenchOptions, {"rows": [300, 400], "picks": 20, "width": 8, "out": str(folder)} | more)


def test_both_sides_are_told_where_the_pool_can_bear_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (clusters, typical):
        monkeypatch.setattr(module, "ALL", 300)
    monkeypatch.setattr(clusters, "LEAST", 1)
    monkeypatch.setattr(clusters, "ENOUGH", 2)
    text = run_large_pools_bench(options(tmp_path, strategies=["k_means", "max_herding"]))
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == text.count("\n") - 2 == 4
    assert (table["ratio"] == table["exact_seconds"] / table["seconds"]).all()
    assert ((table["coverage"] > 0) & (table["coverage"] < 1)).all()
    small, large = (table[(table["strategy"] == "k_means") & (table["rows"] == rows)].iloc[0] for rows in (300, 400))
    assert (small["same"], small["distance"], small["coverage"]) == (
        1,
        small["exact_distance"],
        small["exact_coverage"],
    )
    assert large["same"] < 1
    assert large["distance"] != large["exact_distance"]


def test_beyond_what_is_borne_the_shortcut_is_measured_alone(tmp_path: Path) -> None:
    run_large_pools_bench(options(tmp_path, strategies=["typiclust"], exact_up_to=300))
    assert pd.read_csv(tmp_path / "table.csv")["exact_seconds"].notna().tolist() == [True, False]


def test_every_shortcut_can_be_left_out_by_options() -> None:
    for name, without in WITHOUT.items():
        assert set(without) <= set(default_options(name))


def test_a_strategy_without_a_shortcut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="unknown shortcut of strategy 'margin'"):
        run_large_pools_bench(options(tmp_path, strategies=["margin"]))
