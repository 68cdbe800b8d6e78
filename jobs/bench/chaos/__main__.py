"""Commands under bad luck, try after try, until each has come to its end and has the bytes of an undisturbed twin.

    python -m jobs.bench.chaos mode=signals commands=[loop,import] tries=50

Results are written after every try, to WORK/MODE.jsonl; the same command goes on after the last of them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from jobs.bench.chaos import kills, signals
from jobs.bench.chaos.commands import SUBJECTS, differences, make_materials, run_twin, with_features
from jobs.bench.chaos.pairs import NAMES, make_pair_materials, run_pairs
from jobs.bench.chaos.points import run_points, subjects
from jobs.bench.chaos.results import Results
from jobs.bench.chaos.surroundings import run_surroundings
from jobs.bench.chaos.watched import Running
from seral.options import Options, run_job
from seral.progress import say

MODES = {"signals": signals, "kills": kills}
"""Modules with `strike(running, rng, whole_s, with_ray=...)` and `complaints(end)`."""


class ChaosOptions(Options):
    """Options of the tries."""

    mode: Literal["signals", "kills", "changes", "pairs", "surroundings"]
    """signals: SIGTERM or SIGINT; kills: SIGKILL of the command, a worker, the raylet or the GCS; changes: a kill or an
    error of the disk in the place of every change that a command makes to a file; pairs: two commands at once;
    surroundings: other clocks, users, rights, locales, time zones, hash seeds and workers."""
    commands: list[str] | None = Field(default=None, min_length=1)
    """Commands to try; None = all. With `changes` import, append, merge, filter, snapshot, erase, labels, pretrain,
    round and trial, with `pairs` also loop, sweep, predict, report and check; else generate, import, loop, train,
    sweep, pretrain and erase."""
    every: int = Field(default=1, ge=1)
    """With `changes`: one of so many is tried."""
    tries: int = Field(default=20, ge=1)
    """Chains of each command. A chain is hit again and again until it is through."""
    hits: int = Field(default=3, ge=1)
    """Blows of a chain; the run after the last is left alone."""
    seed: int = Field(default=0, ge=0)
    """Seed of the first chain; that of the others is the next."""
    work: str = "runs/chaos"
    """Folder of materials, runs and results."""


def run_chaos(options: ChaosOptions) -> str:
    """All chains; returns a table of tries, survived chains and the seeds of those that were not."""
    work = Path(options.work).resolve()
    materials = make_materials(work / "materials")
    if options.mode == "pairs":
        names = options.commands or NAMES
        return run_pairs(work, make_pair_materials(with_features(materials)), names, options.tries, options.seed)
    if options.mode == "changes":
        return run_points(work, with_features(materials), options.commands or list(subjects(materials)), options.every)
    if options.mode == "surroundings":
        return run_surroundings(work, materials, options.commands or list(SUBJECTS))
    results = Results(work / f"{options.mode}.jsonl", ("command", "seed"))
    for name in options.commands or SUBJECTS:
        whole_s = run_twin(name, materials, work)
        for seed in range(options.seed, options.seed + options.tries):
            if (name, seed) not in results:
                record = _chain(options, name, seed, whole_s)
                results.add(record)
                say(f"{name}, seed {seed}: {len(record['hits'])} hits; {'; '.join(record['wrong']) or 'survived'}")
    return "\n".join(_summary(options, results.records))


def _chain(options: ChaosOptions, name: str, seed: int, whole_s: float) -> dict[str, Any]:
    """One folder, hit up to `hits` times, then run to its end and compared."""
    work, mode, subject = Path(options.work).resolve(), MODES[options.mode], SUBJECTS[name]
    folder, rng = work / "chains" / f"{options.mode}-{name}-{seed}", np.random.default_rng([seed, *name.encode()])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subject.prepare(work / "materials", folder)
    words = subject.words(work / "materials", folder)
    hits, wrong = [], []
    for number in range(options.hits):
        end = mode.strike(Running(words, folder / f"{number}.log"), rng, whole_s, with_ray=subject.with_ray)
        if end.hit:  # else it had come to its end before
            hits.append(end.record())
            wrong += mode.complaints(end)
        if end.status == 0:
            break
    last = Running(words, folder / "last.log").outcome()
    wrong += [f"the last run: status {last.status}, {last.last_line!r}"] if last.status else []
    wrong += differences(subject, folder, work / "twins" / name)
    if not wrong:
        shutil.rmtree(folder)
    return {"command": name, "seed": seed, "hits": hits, "wrong": wrong}


def _summary(options: ChaosOptions, records: list[dict[str, Any]]) -> Iterator[str]:
    for name in options.commands or SUBJECTS:
        own = [record for record in records if record["command"] == name]
        ends = [end for record in own for end in record["hits"]]
        failed = [record["seed"] for record in own if record["wrong"]]
        slowest = max((end["gone_s"] for end in ends if end["status"] != 0), default=0.0)
        line = f"{name}: {len(own)} chains, {len(ends)} hits, {len(own) - len(failed)} survived"
        yield line + f", nothing alive after {slowest:.1f} s at most" + (f"; failed seeds: {failed}" if failed else "")


if __name__ == "__main__":
    run_job(ChaosOptions, run_chaos, __doc__)
