import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jobs.bench.scale import CountedParts, ScaleBenchOptions, measure, predicted_s, predictions, run_scale_bench
from seral.errors import OptionError
from seral.options import parse
from seral.selection.candidates import Candidates
from seral.selection.parts.part import PoolPart


def options(**more: object) -> ScaleBenchOptions:
    return parse(ScaleBenchOptions, {"rows": [400, 800], "picks": 20, "parts": (2, 5), "width": 8} | more)


def test_exact_strategies_pick_the_same_in_parts_and_merged_ones_say_what_that_costs() -> None:
    whole, few, many = measure(options(), "k_center", 800)
    assert whole["parts"] == 1
    assert whole["seconds"] > 0
    assert (few["parts"], many["parts"]) == (2, 5)
    assert few["same"] == many["same"] == 1
    assert few["loss"] == many["loss"] == 0
    assert few["calls"] > 2
    assert many["sent_mb"] > few["sent_mb"] > 0
    _, _, merged = measure(options(), "k_means", 800)
    assert merged["same"] < 1
    assert merged["loss"] != 0


@pytest.mark.ray
def test_actors_are_measured_by_the_clock(ray_session: None) -> None:
    _, few, many = measure(options(actors=True), "k_center", 400)
    assert few["actors_s"] > 0
    assert many["actors_s"] > 0


def test_calls_and_what_they_send_are_counted() -> None:
    halves = [Candidates(ids=np.array(list(half)), probability_NC=np.eye(2, dtype=np.float32)) for half in ("ab", "cd")]
    parts = CountedParts([PoolPart(half) for half in halves])
    assert parts.each(PoolPart.count) == [2, 2]
    parts.each(PoolPart.ids)
    assert parts.calls == 2
    sent = [([(), ()], [2, 2]), ([(), ()], [half.ids for half in halves])]
    assert parts.sent_bytes == sum(len(pickle.dumps(crossed, protocol=5)) for crossed in sent)
    assert 0 < parts.slowest_s <= parts.all_s


def test_predictions_follow_the_unit_costs() -> None:
    def line(rows: int, parts: int, seconds: float, **more: float) -> dict[str, object]:
        return {"strategy": "made_up", "rows": rows, "parts": parts, "seconds": seconds} | more

    table = pd.DataFrame(
        [
            line(1000, 1, 1.0),
            line(1000, 2, 0.5, driver_s=0.1, calls=2, sent_mb=1.0),
            line(1000, 4, 0.25, driver_s=0.1, calls=2, sent_mb=2.0),
            line(2000, 1, 4.0),  # four times as long for twice the rows: exponent 2
            line(2000, 2, 1.0, driver_s=0.1, calls=2, sent_mb=1000.0),
            line(2000, 4, 0.25, driver_s=0.3, calls=3, sent_mb=2000.0),
        ]
    )
    bench_options = options(call_ms=100, network_gb_s=2.0, cluster={16_000: 8})
    # Parts of 2000 rows instead of 500: 4² times 0.25 s; 8 parts are as far beyond 4 as 4 beyond 2, twice.
    expected = 0.25 * 16 + (0.3 + 2 * 0.2) + (2.0 + 2 * 1.0) / 2 + 0.1 * (3 + 2 * 1)
    assert predicted_s(table, 16_000, 8, bench_options) == pytest.approx(expected)
    assert predictions(table, bench_options)["exponent"].item() == pytest.approx(2)


def test_a_slow_strategy_goes_no_further(tmp_path: Path) -> None:
    text = run_scale_bench(options(strategies=["margin"], longest_s=1e-9, out=str(tmp_path)))
    table = pd.read_csv(tmp_path / "table.csv")
    assert table["rows"].tolist() == [400, 400, 400]
    assert text.encode() == (tmp_path / "table.md").read_bytes()


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(OptionError, match="strategy 'best'"):
        run_scale_bench(options(strategies=["best"]))
