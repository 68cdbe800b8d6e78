"""Cost of strategies as a pool grows, on one machine and in parts, and predictions for larger pools.

    python -m jobs.bench.scale 'rows=[100000,1000000]'

Each measurement has a process of its own, so that its memory is its own. In parts, the parts are called one after the
other in that process: a call takes as long as its slowest part, and what would cross the network is counted. Larger
pools are not measured but worked out from these unit costs, see `predicted_s`. With `actors`, the parts are also put
into actors of the local Ray, and the clock tells.
"""

# N candidates · P parts
from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Concatenate, TypeVar

import numpy as np
import pandas as pd
import ray
from pydantic import Field

from jobs.bench.selection import SelectionBenchOptions, make_problem, timed, worth
from ser_models.adapters.cost import forget_peak_mb, peak_mb
from seral import storage
from seral.cluster import connect
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.progress import say
from seral.selection.candidates import Candidates
from seral.selection.parts.actors import RemoteParts
from seral.selection.parts.distributed import select_in_parts
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, check_options, select
from seral.selection.source_options import SourceOptions
from seral.selection.strategies import STRATEGIES

SURPRISALS = 64
"""Pretraining losses a row, for `alps`."""

T = TypeVar("T")


class ScaleBenchOptions(Options):
    """Options of the scale benchmark."""

    strategies: list[str] = Field(default=list(STRATEGIES))
    """Strategies by name."""
    rows: list[int] = Field(default=[30_000, 100_000, 300_000, 1_000_000], min_length=1)
    """Rows of the pools, smallest first; a strategy that needs longer than `longest_s` goes no further."""
    picks: int = Field(default=1000, ge=2)
    parts: tuple[int, int] = (4, 16)
    """Parts the same pool is divided into, few and many: what grows with them is read off both."""
    actors: bool = False
    """Measure the parts in actors of the local Ray too, `actors_s`."""
    longest_s: float = Field(default=60.0, gt=0)
    source: SourceOptions | None = None
    """Real features, repeated with noise to size; None = a mixture of normal rows."""
    width: int = Field(default=256, ge=2)
    seed: int = Field(default=0, ge=0)
    cluster: dict[int, int] = Field(default={10_000_000: 16, 100_000_000: 128})
    """Rows to predict for, and in how many parts, a core each."""
    call_ms: float = Field(default=3.0, ge=0)
    """Milliseconds of a call of a part without its work: an actor call of Ray."""
    network_gb_s: float = Field(default=1.0, gt=0)
    """Gigabytes that a machine sends or receives in a second."""
    out: str = "runs/bench-scale"
    """Folder of the table."""


class CountedParts(Parts):
    """Parts in this process that count their calls, what is sent, and the time of the slowest part of every call."""

    def __init__(self, parts: Sequence[PoolPart]) -> None:
        super().__init__(parts)
        self.calls, self.sent_bytes, self.slowest_s, self.all_s = 0, 0, 0.0, 0.0

    def respective(
        self, function: Callable[Concatenate[PoolPart, ...], T], arguments: Sequence[tuple[Any, ...]], **options: Any
    ) -> list[T]:
        calls = [
            partial(part.call, function, *own, **options) for part, own in zip(self._parts, arguments, strict=True)
        ]
        replies, seconds = ([*values] for values in zip(*map(timed, calls), strict=True))
        self.sent_bytes += len(pickle.dumps((arguments, replies), protocol=5))
        self.calls += 1
        self.slowest_s += max(seconds)
        self.all_s += sum(seconds)
        return replies


def run_scale_bench(options: ScaleBenchOptions) -> str:
    """Measure every strategy at every size and write the table; returns it as Markdown."""
    for name in options.strategies:
        check_options(name, {})
    lines: list[dict[str, Any]] = []
    for name in options.strategies:
        for rows in options.rows:
            say(f"{name}, {rows} rows")
            with multiprocessing.get_context("spawn").Pool(1) as process:
                measured_lines = process.apply(_measure_and_leave, (options, name, rows))
            lines += measured_lines
            table = pd.DataFrame(lines)
            storage.write_bytes(storage.join(options.out, "table.csv"), table.to_csv(index=False).encode())
            if max(line["seconds"] for line in measured_lines) > options.longest_s:
                break
    text = markdown(table) + "\n\n" + markdown(predictions(table, options))
    storage.write_bytes(storage.join(options.out, "table.md"), text.encode())
    return text


def measure(options: ScaleBenchOptions, name: str, rows: int) -> list[dict[str, Any]]:
    """One strategy on one size, whole and in parts, a line each.

    Of parts, `seconds` are those of the slowest in every call, and `loss` is how much larger the mean distance to what
    is picked or labelled gets by picking in parts.
    """
    candidates, strategy = pool_of(options, rows), StrategyOptions(name=name)
    k = min(options.picks, rows // 2)
    before_mb = forget_peak_mb("cpu")
    picks, seconds = timed(lambda: select(strategy, candidates, k, np.random.default_rng(options.seed)))
    line: dict[str, Any] = {"strategy": name, "rows": rows}
    lines = [line | {"parts": 1, "seconds": seconds, "memory_mb": peak_mb("cpu") - before_mb}]
    distance = _distance(candidates, picks)
    for count in options.parts:
        shares = _deal(candidates, count, options.seed)
        parts = CountedParts([PoolPart(part) for part in shares])
        selection, total_s = timed(partial(select_in_parts, strategy, parts, k, np.random.default_rng(options.seed)))
        lines.append(
            line
            | {
                "parts": count,
                "seconds": parts.slowest_s,
                "driver_s": total_s - parts.all_s,
                "calls": parts.calls,
                "sent_mb": parts.sent_bytes / 1e6,
                "same": len(set(picks) & set(selection.ids)) / k,
                "loss": _distance(candidates, selection.ids) / distance - 1,
            }
            | ({"actors_s": _in_actors(strategy, shares, k, options.seed)} if options.actors else {})
        )
    return lines


def _measure_and_leave(options: ScaleBenchOptions, name: str, rows: int) -> list[dict[str, Any]]:
    """Measure, and end the Ray that was started for it with the process."""
    try:
        return measure(options, name, rows)
    finally:
        ray.shutdown()


def predictions(table: pd.DataFrame, options: ScaleBenchOptions) -> pd.DataFrame:
    """Seconds on larger pools, from the largest that was measured."""
    lines = []
    for name, of_strategy in table.groupby("strategy", sort=False):
        line = {"strategy": name, "measured_on": int(of_strategy["rows"].max()), "exponent": _exponent(of_strategy)}
        for rows, parts in options.cluster.items():
            line[f"{rows:.0e} rows, {parts} parts"] = predicted_s(of_strategy, rows, parts, options)
        lines.append(line)
    return pd.DataFrame(lines)


def predicted_s(table: pd.DataFrame, rows: int, parts: int, options: ScaleBenchOptions) -> float:
    """Seconds a strategy would need for a pool in parts.

    A part's work grows with its rows as time was seen to, at least in proportion; the driver's work and what is sent,
    as seen between few and many parts; calls cost `call_ms`.
    """
    few, many = (table[table["rows"] == table["rows"].max()].iloc[index] for index in (-2, -1))
    work_s = many["seconds"] * (rows / parts / (many["rows"] / many["parts"])) ** max(1.0, _exponent(table))
    share = (parts - many["parts"]) / (many["parts"] - few["parts"])
    driver_s, sent_mb, calls = (
        many[name] + share * max(0.0, many[name] - few[name]) for name in ("driver_s", "sent_mb", "calls")
    )
    return float(work_s + driver_s + sent_mb / 1e3 / options.network_gb_s + calls * options.call_ms / 1e3)


def _exponent(table: pd.DataFrame) -> float:
    """Exponent of the growth of time with rows, between the two largest sizes; 1 when there is one."""
    whole = table[table["parts"] == 1]
    if len(whole) < 2:
        return 1.0
    one, two = whole.iloc[-2], whole.iloc[-1]
    return float(np.log(two["seconds"] / one["seconds"]) / np.log(two["rows"] / one["rows"]))


def _deal(candidates: Candidates, count: int, seed: int) -> list[Candidates]:
    """The candidates in parts; what is labelled is in the first."""
    deal = np.array_split(np.random.default_rng(seed).permutation(len(candidates)), count)
    first, *others = [candidates.take(np.sort(rows)) for rows in deal]
    return [first, *(replace(part, labelled_ids=None, labelled_embedding_MD=None) for part in others)]


def _in_actors(strategy: StrategyOptions, shares: Sequence[Candidates], k: int, seed: int) -> float:
    """Seconds by the clock when every part is in an actor of the local Ray, without what it takes to get there."""
    connect()
    with RemoteParts([(part,) for part in shares]) as parts:
        parts.count()
        return timed(partial(select_in_parts, strategy, parts, k, np.random.default_rng(seed)))[1]


def pool_of(options: ScaleBenchOptions, rows: int) -> Candidates:
    """A pool of so many rows, features in half precision."""
    problem_options = SelectionBenchOptions(source=options.source, width=options.width, seed=options.seed)
    candidates = make_problem(problem_options, rows, options.picks).candidates
    x_ND = candidates.need("embedding_ND")
    labelled_MD = candidates.labelled_centres().astype(np.float16)
    return replace(
        candidates,
        embedding_ND=x_ND.astype(np.float16),
        labelled_embedding_MD=labelled_MD,
        surprisal_NQ=np.square(x_ND[:, :SURPRISALS]).astype(np.float16),
    )


def _distance(candidates: Candidates, ids: Sequence[str]) -> float:
    """Mean distance of the candidates to what is picked or labelled."""
    x_ND = candidates.need("embedding_ND").astype(np.float32)
    return worth(x_ND, np.concatenate([candidates.labelled_centres().astype(np.float32), x_ND[candidates.rows(ids)]]))[
        1
    ]


if __name__ == "__main__":
    run_job(ScaleBenchOptions, run_scale_bench, __doc__)
