"""A loop, a sweep and a pretraining within this process, without Ray, for tries of every change that they make."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from seral import storage
from seral.options import parse

EMOTIONS = ("anger", "happiness", "neutral", "sadness")
ROUND_FILES = ("picks.parquet", "labels.parquet", "metrics.json", "model/head.safetensors")
SECONDS = "seconds"


def put(module: ModuleType, **functions: Any) -> None:
    """Put functions that do without Ray in the place of those of a module, in this process, which is a fork."""
    for name, function in functions.items():
        setattr(module, name, function)


def digest(file: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def run_loop(folder: Path) -> None:
    """Two rounds of two arms on FOLDER/pool."""
    from seral.loop import loop
    from seral.loop.options import LoopOptions
    from seral.task import context, run

    put(context, connect=lambda options=None: None)
    put(loop, cpu_count=lambda: 1, encoder_actors=lambda options: 1, _run_all=_run_all)
    put(loop, _foresee=lambda *arguments: 0)
    put(run, ray=SimpleNamespace(cluster_resources=dict))
    values = _task(folder) | {"run": str(folder / "run"), "budget": {"sizes": [8, 12]}, "full_arm": False}
    loop.run_loop(parse(LoopOptions, values))


def _task(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = {"pool": str(folder / "pool"), "encoder": "seral-tiny", "classes": list(EMOTIONS)}
    values |= {"split": {"scheme": "k-fold", "k": 3}, "folds": [0], "seeds": [0]}
    return values | {"finetune": {"adapter": "frozen"}}


def _run_all(options: Any, trajectories: Sequence[Any], folds: Mapping[int, Any], memory: int) -> None:
    from seral.loop.trajectory import run_trajectory

    for trajectory, arm in trajectories:
        folder = storage.join(options.run, "trajectories", trajectory.name)
        run_trajectory(folder, trajectory, arm, folds[trajectory.fold])


def outcome_of_loop(folder: Path) -> Mapping[str, Any]:
    """Bytes of what the rounds of FOLDER/run make."""
    rounds = sorted((folder / "run").glob("trajectories/*/rounds/*"))
    files = [path / name for path in rounds for name in ROUND_FILES]
    return {"files": {str(file.relative_to(folder)): digest(file) for file in files}, "problems": _problems(folder)}


def _problems(folder: Path) -> list[str]:
    from seral.verbs.check_run import check_run

    return check_run(str(folder / "run")).problems


def run_sweep(folder: Path) -> None:
    """Three points of a sweep on FOLDER/pool, each trial and each test one after another."""
    from seral.sweep import run
    from seral.sweep.plan import SweepOptions
    from seral.task import context
    from seral.task import run as task_run

    put(context, connect=lambda options=None: None)
    put(task_run, ray=SimpleNamespace(cluster_resources=dict))
    put(run, _tune=_tune, run_cells=_run_cells, ray=SimpleNamespace(put=lambda value: value))
    sweep = {"run": str(folder / "run"), "training": _task(folder), "space": {"finetune.head.l2": [0.03, 0.3, 3.0]}}
    run.run_sweep(parse(SweepOptions, sweep | {"search": "grid", "early_stopping": None}))


def _tune(options: Any, examples: Mapping[str, Mapping[int, Any]], cells: int) -> None:
    """Stands in for Ray Tune: one trial after another, reported to the same recorder."""
    from seral.sweep import trials
    from seral.sweep.board import read_records
    from seral.sweep.run import Recorder

    recorder = Recorder(options, cells, read_records(options.run), lambda amount=1: None)
    tried = [SimpleNamespace(trial_id=str(n), config={trials.POINT: at}) for n, at in enumerate(options.points())]
    put(trials, ray=SimpleNamespace(get=lambda value: value))
    for trial in tried:
        put(trials, tune=SimpleNamespace(report=partial(recorder.on_trial_result, 0, tried, trial)))
        recorder.on_trial_start(0, tried, trial)
        trials.run_trial(trial.config, sweep=options, examples=examples)
        recorder.on_trial_complete(0, tried, trial)
    storage.tidy(options.run)


def _run_cells(run: str, work: Any, arguments: Mapping[Any, Sequence[Any]], *_: Any) -> dict[Any, Any]:
    from seral.task import cells

    uris = {cell: storage.join(run, cells.CELLS, f"{cell.name}.json") for cell in arguments}
    open_pool: Any = SimpleNamespace(publishing=lambda names: nullcontext())
    for cell, uri in uris.items():
        if not storage.exists(uri):
            folder = storage.join(run, cells.WORK, cell.name)
            cells._run_cell(work, cell, uri, folder, open_pool, *arguments[cell])
    storage.tidy(run)
    return {cell: storage.read_json(uri) for cell, uri in uris.items()}


def outcome_of_sweep(folder: Path) -> Mapping[str, Any]:
    """The board and the bytes of the results of FOLDER/run, but for seconds."""
    from seral.sweep.board import leaderboard, read_records

    run = str(folder / "run")
    board = leaderboard(read_records(run)).drop(columns=[SECONDS], errors="ignore")
    names = ("tested.json", "best.yaml")
    sums = {name: digest(folder / "run" / name) for name in names}
    return {"board": board.to_csv(), "files": sums, "problems": _problems(folder)}


def pretrain(folder: Path, pool: Path) -> None:
    """Three steps, with a state after each."""
    from seral.pretraining import tapt
    from seral.pretraining.options import TaptJobOptions

    put(tapt, connect=lambda options=None: None)
    steps = {"steps": 3, "batch_s": 10, "warmup_steps": 1, "checkpoint_every": 1, "eval_every": 2}
    values = {"pool": str(pool), "run": str(folder / "run"), "encoder": "seral-tiny", "tapt": steps}
    tapt.pretrain(parse(TaptJobOptions, values))


def outcome_of_pretraining(folder: Path) -> object:
    """Weights of FOLDER/run, the names of its files, and the losses."""
    run = folder / "run"
    sums = {str(file.relative_to(run)): digest(file) for file in sorted(run.rglob("*.safetensors"))}
    left = sorted(str(file.relative_to(run)) for file in run.rglob("*") if file.is_file())
    return sums, left, storage.read_json(run / "tapt.json")["history"]
