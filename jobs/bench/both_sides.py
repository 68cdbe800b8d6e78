"""The measurements: seral and the plain loops in turns, and the loop's own bookkeeping of where its time went."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import ray

from jobs.bench.plain import Timing, plain_import, plain_scoring, run_alone
from seral import storage
from seral.cluster import ClusterOptions, cpu_count
from seral.corpora import READERS
from seral.corpora.reading.utterance import Utterance
from seral.features.audio import extract_features
from seral.features.options import FeatureOptions
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import Pool, open_pool
from seral.progress import say

COMPUTE_PHASES = ("select", "train", "evaluate", "score", "predict", "probe")
"""The phases of a round that are selection or model compute."""
LONG_ROUND_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One claim, both sides: the same units of work by seral on `cores` cores and by one plain process."""

    name: str
    units: int
    cores: int
    seral_s: list[float]
    plain: list[Timing]
    together: list[Timing] = field(default_factory=list)
    """Timings of as many plain processes as cores at once, each doing all the units."""
    target: float | None = None

    @property
    def seral_rate(self) -> float:
        """Units per second, all cores together; NaN where the start-up taken off was longer than the work."""
        seconds = median(self.seral_s)
        return self.units / seconds if seconds > 0 else float("nan")

    @property
    def plain_rate(self) -> float:
        """Units per second of one process."""
        return self.units / median(timing.wall_s for timing in self.plain)

    @property
    def per_core(self) -> float:
        """seral's rate over cores x the rate of one plain process that has the machine to itself."""
        return self.seral_rate / (self.cores * self.plain_rate)

    @property
    def together_per_core(self) -> float | None:
        """Rate of a plain process among others, one a core, over its rate alone: what the machine leaves to anybody."""
        slowest_s = max((timing.wall_s for timing in self.together), default=None)
        return None if slowest_s is None else self.units / slowest_s / self.plain_rate


def compare_import(manifest: Path, pool: str, repeats: int, on: ClusterOptions) -> list[Comparison]:
    """Import a manifest into `pool` again and again, against plain loops with and without FLAC encoding."""
    clips = [item for item in READERS["manifest"](manifest) if isinstance(item, Utterance)]
    # The plain loop does not listen for speech either; docs/results/quality.md has what that costs.
    options = ImportOptions(reader="manifest", root=str(manifest), out=pool, voice=False, cluster=on)
    niceness = _worker_niceness()
    seral_s: list[float] = []
    full: list[Timing] = []
    without_flac: list[Timing] = []
    for number in range(repeats):
        say(f"import, repeat {number + 1} of {repeats}")
        full += run_alone(plain_import, clips, True, niceness=niceness)
        without_flac += run_alone(plain_import, clips, False, niceness=niceness)
        storage.remove(pool)
        seral_s.append(seconds_of(lambda: import_corpus(options)))
    cores = min(cpu_count(), len(open_pool(pool).shards))
    together = run_alone(plain_import, clips, True, niceness=niceness, processes=cores)
    same: dict[str, Any] = {"units": len(clips), "cores": cores, "seral_s": seral_s}
    return [
        Comparison(name="import / decode+resample+FLAC", **same, plain=full, together=together, target=0.8),
        Comparison(name="import / decode+resample", **same, plain=without_flac),
    ]


def compare_scoring(
    pool: Pool, small: Pool, features: str, encoder: str, options: FeatureOptions, repeats: int, on: ClusterOptions
) -> tuple[list[Comparison], float]:
    """Extract the features of `pool` again and again, against a plain loop; also the seconds until the encoders run.

    That start is what the same call takes on `small`, a pool of one clip for each encoder. The last features stay.
    """
    loop = (plain_scoring, pool.uri, encoder, options)
    niceness = _worker_niceness()
    start_s: list[float] = []
    full_s: list[float] = []
    plain: list[Timing] = []
    for number in range(repeats):
        say(f"scoring, repeat {number + 1} of {repeats}")
        plain += run_alone(*loop, niceness=niceness)
        for on_pool, seconds in ((small, start_s), (pool, full_s)):
            storage.remove(features)
            seconds.append(
                seconds_of(partial(extract_features, on_pool, encoder, uri=features, options=options, on=on))
            )
    cores = min(cpu_count(), len(pool.shards))
    together = run_alone(*loop, niceness=niceness, processes=cores)
    start = median(start_s)
    same: dict[str, Any] = {"units": pool.rows, "cores": cores, "plain": plain}
    steady_s = [seconds - start for seconds in full_s]
    return [
        Comparison(name="scoring / PyTorch loop", **same, seral_s=steady_s, together=together, target=0.9),
        Comparison(name="scoring, start included", **same, seral_s=full_s),
    ], start


def measure_rounds(options: LoopOptions) -> dict[str, Any]:
    """Run a loop of one trajectory on features that are there; what of its wall-clock is not compute, in seconds."""
    wall_s = seconds_of(lambda: run_loop(options))
    (trajectory,) = storage.list_names(storage.join(options.run, "trajectories"))
    folder = storage.join(options.run, "trajectories", trajectory, "rounds")
    rounds = [storage.read_json(f"{folder}/{name}/round.json")["seconds"] for name in storage.list_names(folder)]
    compute_s = sum(seconds.get(phase, 0.0) for seconds in rounds for phase in COMPUTE_PHASES)
    rest_per_round_s = (wall_s - compute_s) / len(rounds)
    return {
        "rounds": rounds,
        "wall_s": wall_s,
        "compute_s": compute_s,
        "rest_per_round_s": rest_per_round_s,
        "share_inside_rounds": 1 - compute_s / sum(sum(seconds.values()) for seconds in rounds),
        "share_of_run": 1 - compute_s / wall_s,
        "share_of_long_rounds": rest_per_round_s / LONG_ROUND_S,
    }


def seconds_of(call: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _worker_niceness() -> int:
    """Ray's workers give way to ordinary processes; the plain side must too, or a busy machine decides the ratio."""
    return int(ray.get(ray.remote(lambda: os.nice(0)).options(num_cpus=0).remote()))
