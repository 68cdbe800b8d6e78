"""Shortcuts that strategies take on large pools, beside the same strategies without them: time, and what is lost.

    python -m jobs.bench.large_pools 'rows=[100000,1000000]'

Up to `exact_up_to` rows a strategy also runs on all rows, in the same process; beyond them its shortcut is measured
alone. Distance: the mean distance of a row to what is picked or labelled. Coverage: the mean over all rows of
exp(-|x - y|²), x and y on the unit sphere and y the nearest that is picked or labelled, which max_herding enlarges.
"""

# N rows · D features
from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from jobs.bench.scale import ScaleBenchOptions, pool_of
from jobs.bench.selection import timed
from seral import storage
from seral.errors import OptionError, unknown_name
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.progress import say
from seral.selection.candidates import Candidates
from seral.selection.selection import select
from seral.selection.source_options import SourceOptions
from seral.vectors.index import nearest
from seral.vectors.view import View

MANY = 10**9
WITHOUT: dict[str, dict[str, Any]] = {
    "max_herding": {"sample": MANY},
    "uncertainty_herding": {"sample": MANY},
    "dcom": {"sample": MANY},
    "dropquery": {"sample": MANY},
    "k_means": {"points_per_cluster": MANY},
    "typiclust": {"points_per_cluster": MANY, "members": MANY},
    "prob_cover": {"sample": MANY},
}
"""Options by which a strategy takes no shortcut."""


class LargePoolsBenchOptions(Options):
    """Options of the benchmark of large pools."""

    strategies: list[str] = Field(default=list(WITHOUT))
    """Strategies by name."""
    rows: list[int] = Field(default=[20_000, 100_000, 1_000_000], min_length=1)
    """Rows of the pools."""
    picks: int = Field(default=1000, ge=2)
    exact_up_to: int = Field(default=100_000, ge=0)
    """Rows up to which a strategy also runs without its shortcut."""
    source: SourceOptions | None = None
    """Real features, repeated with noise to size; None = a mixture of normal rows."""
    width: int = Field(default=256, ge=2)
    seed: int = Field(default=0, ge=0)
    out: str = "runs/bench-large-pools"
    """Folder of the table."""


def run_large_pools_bench(options: LargePoolsBenchOptions) -> str:
    """Measure every strategy at every size and write the table; returns it as Markdown."""
    for name in options.strategies:
        if name not in WITHOUT:
            raise OptionError(unknown_name("shortcut of strategy", name, WITHOUT))
    lines: list[dict[str, Any]] = []
    for rows in options.rows:
        pool = pool_of(
            ScaleBenchOptions(source=options.source, width=options.width, seed=options.seed, picks=options.picks), rows
        )
        for name in options.strategies:
            say(f"{name}, {rows} rows")
            lines.append({"strategy": name, "rows": rows} | _measure(options, name, pool))
            table = pd.DataFrame(lines)
            storage.write_bytes(storage.join(options.out, "table.csv"), table.to_csv(index=False).encode())
    text = markdown(pd.DataFrame(lines))
    storage.write_bytes(storage.join(options.out, "table.md"), text.encode())
    return text


def _measure(options: LargePoolsBenchOptions, name: str, pool: Candidates) -> dict[str, Any]:
    """Seconds and worth of a strategy with its shortcut, and without it on a pool that can bear it."""
    select(name, pool.take(np.arange(100)), 5, np.random.default_rng(0))  # imports are not counted
    picks, seconds, cpu_s = _timed(options, name, pool, {})
    line = {"seconds": seconds, "cpu_s": cpu_s} | _worth(pool, picks)
    if len(pool) > options.exact_up_to:
        return line
    exact, exact_s, exact_cpu_s = _timed(options, name, pool, WITHOUT[name])
    line |= {"exact_seconds": exact_s, "exact_cpu_s": exact_cpu_s, "ratio": exact_s / seconds}
    line["same"] = len(set(picks) & set(exact)) / len(picks)
    return line | {f"exact_{measure}": value for measure, value in _worth(pool, exact).items()}


def _timed(
    options: LargePoolsBenchOptions, name: str, pool: Candidates, without: dict[str, Any]
) -> tuple[list[str], float, float]:
    """Picks, seconds by the clock, and seconds of the processor, which other work on the machine adds less to."""
    k, rng, cpu_s = min(options.picks, len(pool) // 2), np.random.default_rng(options.seed), time.process_time()
    picks, seconds = timed(lambda: select(name, pool, k, rng, **without))
    return picks, seconds, time.process_time() - cpu_s


def _worth(pool: Candidates, picks: list[str]) -> dict[str, float]:
    """Mean distance of the rows to what is picked or labelled, and its coverage."""
    x_ND, chosen = pool.need("embedding_ND"), pool.rows(picks)
    chosen_XD = np.concatenate([pool.labelled_centres(), x_ND[chosen]])
    distance_N = np.sqrt(nearest(View(x_ND), View(chosen_XD), 1).distance_QK)
    kernel_N = np.exp(-nearest(View(x_ND, unit=True), View(chosen_XD, unit=True), 1).distance_QK)
    return {"distance": float(distance_N.mean()), "coverage": float(kernel_N.mean())}


if __name__ == "__main__":
    run_job(LargePoolsBenchOptions, run_large_pools_bench, __doc__)
