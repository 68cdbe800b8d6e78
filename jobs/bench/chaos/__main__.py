"""Commands under bad luck, try after try, until each has come to its end and has the bytes of an undisturbed twin.

    python -m jobs.bench.chaos mode=signals commands=[loop,import] tries=50

Results are written after every try, to WORK/MODE.jsonl; the same command goes on after the last of them.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from jobs.bench.chaos import kills, signals
from jobs.bench.chaos.commands import SUBJECTS, Subject, differences, make_materials, run_seral, with_features
from jobs.bench.chaos.pairs import NAMES, make_pair_materials, run_pairs
from jobs.bench.chaos.points import run_points, subjects
from jobs.bench.chaos.surroundings import SURROUNDINGS, Surroundings, run_in
from jobs.bench.chaos.watched import Running
from seral.options import Options, run_job
from seral.progress import say

MODES = {"signals": signals, "kills": kills}
"""Modules with `strike(running, rng, whole_s)` and `complaints(end)`."""


class ChaosOptions(Options):
    """Options of the tries."""

    mode: Literal["signals", "kills", "changes", "pairs", "surroundings"]
    """signals: SIGTERM or SIGINT; kills: SIGKILL of the command, a worker, the raylet or the GCS; changes: a kill or an
    error of the disk in the place of every change that a command makes to a file; pairs: two commands at once;
    surroundings: other clocks, users, rights, locales, time zones, hash seeds and workers."""
    commands: list[str] | None = Field(default=None, min_length=1)
    """Commands to try; None = all. With `changes` import, append, merge, filter, snapshot, erase, labels,
    pretrain and round,
    with `pairs` also loop, sweep, predict, report and check; else generate, import, loop, train, sweep, pretrain and
    erase."""
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
        return _all_surroundings(work, materials, options.commands or list(SUBJECTS))
    results = work / f"{options.mode}.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    records = {(record["command"], record["seed"]): record for record in map(json.loads, lines)}
    for name in options.commands or SUBJECTS:
        whole_s = _twin(name, materials, work)
        for seed in range(options.seed, options.seed + options.tries):
            if (name, seed) not in records:
                record = _chain(options, name, seed, whole_s)
                records[name, seed] = record
                with open(results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                say(f"{name}, seed {seed}: {len(record['hits'])} hits; {'; '.join(record['wrong']) or 'survived'}")
    return "\n".join(_summary(options, list(records.values())))


def _twin(name: str, materials: Path, work: Path) -> float:
    """Run a command undisturbed, once; returns the seconds that it took."""
    folder, clock = work / "twins" / name, work / "twins" / f"{name}.json"
    if not clock.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        SUBJECTS[name].prepare(materials, folder)
        started = time.monotonic()
        run_seral(SUBJECTS[name].words(materials, folder))
        clock.write_text(json.dumps(time.monotonic() - started))
    return float(json.loads(clock.read_text()))


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
        end = mode.strike(Running(words, folder / f"{number}.log"), rng, whole_s)
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


def _all_surroundings(work: Path, materials: Path, names: Sequence[str]) -> str:
    """Every command in every surroundings; results are written after each, to WORK/surroundings.jsonl."""
    results = work / "surroundings.jsonl"
    records = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(record["command"], record["surroundings"]): record for record in records}
    for name in names:
        _twin(name, materials, work)
        for title, surroundings in SURROUNDINGS.items():
            if (name, title) not in done:
                folder = work / "surroundings" / f"{name}-{title.replace(' ', '-')}"
                wrong = _in_surroundings(SUBJECTS[name], surroundings, folder, work / "twins" / name, materials)
                done[name, title] = {"command": name, "surroundings": title, "wrong": wrong}
                with open(results, "a", encoding="utf-8") as file:
                    file.write(json.dumps(done[name, title]) + "\n")
                say(f"{name}, {title}: {'; '.join(wrong) or 'the same'}")
    failed = [record for record in done.values() if record["wrong"]]
    lines = [f"    {record['command']}, {record['surroundings']}: {'; '.join(record['wrong'])}" for record in failed]
    return "\n".join([f"{len(done)} tries, {len(done) - len(failed)} the same", *lines])


def _in_surroundings(
    subject: Subject, surroundings: Surroundings, folder: Path, twin: Path, materials: Path
) -> list[str]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subject.prepare(materials, folder)
    end = run_in(surroundings, subject, folder, materials)
    wrong = [f"status {end.status}, {end.last_line!r}"] if end.status else []
    wrong += ["a traceback"] if "Traceback" in end.output else []
    wrong += differences(subject, folder, twin)
    if not wrong:
        shutil.rmtree(folder)
    return wrong


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
