"""The main job: pool -> features -> (TAPT) -> rounds of {select, label, train, score} for every arm, fold and seed.

RUN/config.yaml            the resolved options; a run is resumed with the same ones or not at all
RUN/environment.json       versions, host, pool hash, protocol, classes
RUN/ledger.json            seconds of what all trajectories share: features, TAPT
RUN/tapt/fold-00/          the adapted encoder, when TAPT is on
RUN/trajectories/<arm>.fold-<FF>.seed-<S>/   see seral.active.rounds
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
import yaml
from pydantic import Field, model_validator

from seral import storage
from seral.active.budget import BudgetOptions
from seral.active.rounds import Arm, Ground, Ledger, Trajectory, count_rounds, read_rounds, run_trajectory
from seral.active.stopping import StopOptions
from seral.active.strategies import StrategyOptions
from seral.annotate.oracle import Oracle
from seral.cluster import ClusterOptions, connect, cpu_count
from seral.errors import OptionError, SeralError, StateError, TrainError
from seral.features import FeatureOptions, FeatureStore, extract_features
from seral.options import Options, dump, parse
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import Fold, SplitOptions, check_leak, make_folds
from seral.progress import say, track
from seral.train.finetune import FinetuneOptions, frames_layer
from seral.train.tapt import TaptRunOptions, adapt_encoder
from seral.versions import versions

POLL_S = 1.0


class LoopOptions(Options):
    """The main job, whole."""

    pool: str
    """The pool to label."""
    run: str
    """The run folder: made when missing, resumed when there."""
    encoder: str = "seral-tiny"
    """A hub id, a folder written by save_pretrained, or the embedded `seral-tiny`."""
    classes: list[str] = Field(min_length=2)
    """The emotions to tell apart; utterances whose gold label means none of them are left out."""
    class_map: dict[str, str] | None = None
    """A corpus's word -> one of the classes; None = the usual words (seral.annotate.oracle.CLASS_MAP)."""
    corpora: list[str] | None = None
    """Only these corpora of the pool; None = all."""
    split: SplitOptions = SplitOptions()
    folds: list[int] | None = None
    """Which folds to run; None = all the split gives."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    """One trajectory per seed, fold and arm."""
    initial: StrategyOptions = StrategyOptions(name="k_means")
    """How the strategy arm picks its first set, before there is a model."""
    strategy: StrategyOptions = StrategyOptions(name="after")
    """How the strategy arm picks afterwards."""
    random_arm: bool = True
    """Run a random arm of the same budget beside it."""
    full_arm: bool = True
    """Train once on all labels, as the ceiling."""
    budget: BudgetOptions = BudgetOptions()
    stop: StopOptions = StopOptions()
    dropout_passes: int = Field(default=10, ge=2)
    """Stochastic passes for strategies that ask for them (bald)."""
    tapt: TaptRunOptions | None = None
    """Adapt the encoder to the training audio of each fold first; None = use it as it is."""
    finetune: FinetuneOptions = FinetuneOptions()
    proxy: bool = False
    """Select with the head on frozen features and train adapters in the last round only: a few rounds of adapter
    training saved. "Selection via proxy", Coleman et al. 2020, arXiv 1906.11829."""
    features: FeatureOptions = FeatureOptions()
    feature_cache: str | None = None
    """Where features are kept; None = inside the pool."""
    probe: bool = True
    """Fit scikit-learn's linear probe on the same labels beside every round."""
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _check_proxy(self) -> LoopOptions:
        if self.proxy and self.stop.patience is not None:
            raise ValueError("proxy trains adapters in the budget's last round, which stop.patience may never reach")
        return self


def run_loop(options: LoopOptions) -> str:
    """Run the loop, or resume it, to its end; returns the run folder. Raises a SeralError that names what is wrong."""
    options = _with_absolute_paths(options)
    pool = open_pool(options.pool)
    _claim(options, pool)
    connect(options.cluster)
    ledger = _SharedLedger(storage.join(options.run, "ledger.json"))
    eligible = _eligible(options, pool)
    folds = _folds(options, eligible)
    stores = _stores(options, pool, folds, ledger)
    grounds = {number: _ground(options, stores[number], fold, eligible) for number, fold in folds.items()}
    _write_environment(options, pool, grounds)
    trajectories = _trajectories(options, grounds)
    _run_all(options, trajectories, grounds)
    return options.run


def _with_absolute_paths(options: LoopOptions) -> LoopOptions:
    """Workers may have another working directory."""
    given = {name: getattr(options, name) for name in ("pool", "run", "feature_cache")}
    if Path(options.encoder).expanduser().is_dir():
        given["encoder"] = options.encoder
    return options.model_copy(update={name: storage.absolute(uri) for name, uri in given.items() if uri is not None})


def loop_status(run: str) -> list[dict[str, Any]]:
    """One row per trajectory: rounds done and planned, labels, UAR on dev, why it stopped."""
    if not storage.exists(storage.join(run, "config.yaml")):
        raise StateError(f"there is no run at {run}")
    rows = []
    for name in storage.list_names(storage.join(run, "trajectories")):
        folder = storage.join(run, "trajectories", name)
        rounds = read_rounds(folder)
        plan = storage.read_json(storage.join(folder, "trajectory.json"))["schedule"]
        last = rounds[-1] if rounds else None
        rows.append(
            {
                "trajectory": name,
                "rounds": f"{len(rounds)}/{len(plan)}",
                "labelled": last.labelled if last else 0,
                "dev_uar": round(last.dev_uar, 4) if last and last.dev_uar is not None else None,
                "stopped": last.stop_reason if last else None,
            }
        )
    return rows


def read_options(run: str) -> LoopOptions:
    """The resolved options of a run."""
    path = storage.join(run, "config.yaml")
    if not storage.exists(path):
        raise StateError(f"there is no run at {run}: {path} is missing")
    return parse(LoopOptions, yaml.safe_load(storage.read_bytes(path)))


MAY_CHANGE = {"run", "cluster", "folds", "seeds"}
"""Options a resumed run may be given anew: where it runs, and further folds and seeds."""


def _claim(options: LoopOptions, pool: Pool) -> None:
    """Write the options of a new run; refuse to resume one that was made with other options or another pool."""
    path = storage.join(options.run, "config.yaml")
    if storage.exists(path):
        old, new = read_options(options.run).model_dump(mode="json"), options.model_dump(mode="json")
        changed = [name for name in new if name not in MAY_CHANGE and old[name] != new[name]]
        if changed:
            differences = "; ".join(f"{name}: was {old[name]!r}, now {new[name]!r}" for name in changed)
            raise StateError(f"{options.run} holds a run with other options ({differences}); give `run` another folder")
        facts = storage.join(options.run, "environment.json")
        if storage.exists(facts) and storage.read_json(facts)["pool_hash"] != pool.hash:
            raise StateError(f"the pool {pool.uri} has changed since {options.run} began; give `run` another folder")
    storage.write_bytes(path, dump(options).encode())


def _eligible(options: LoopOptions, pool: Pool) -> pa.Table:
    """Metadata of what may take part: chosen corpora, no duplicates, and an answer among the classes."""
    table = pool.metadata
    if options.corpora is not None:
        present = set(table["corpus"].to_pylist())
        if unknown := sorted(set(options.corpora) - present):
            raise OptionError(f"no corpus {', '.join(unknown)} in {pool.uri}; it has {', '.join(sorted(present))}")
        table = table.filter(pc.is_in(table["corpus"], pa.array(options.corpora)))
    table = table.filter(pc.is_null(table["duplicate_of"]))
    oracle = Oracle(pool, options.classes, options.class_map)
    if ignored := oracle.ignored(table["utterance_id"].to_pylist()):
        words = ", ".join(f"{word} ({count})" for word, count in sorted(ignored.items()))
        say(f"outside the classes and left out: {words}")
    return table.filter(pc.is_in(table["utterance_id"], pa.array(sorted(oracle.answerable))))


def _folds(options: LoopOptions, eligible: pa.Table) -> dict[int, Fold]:
    folds = dict(enumerate(make_folds(eligible, options.split)))
    if options.folds is not None:
        if unknown := sorted(set(options.folds) - set(folds)):
            raise OptionError(
                f"folds {unknown} do not exist: the split {options.split.scheme} gives 0..{len(folds) - 1}"
            )
        folds = {number: folds[number] for number in options.folds}
    for fold in folds.values():
        check_leak(fold, eligible)
    return folds


def _stores(options: LoopOptions, pool: Pool, folds: dict[int, Fold], ledger: _SharedLedger) -> dict[int, FeatureStore]:
    """The features each fold works on: one encoder for all, or with TAPT one for each fold's training audio alone."""
    if options.tapt is None:
        return dict.fromkeys(folds, _store(options, pool, options.encoder, ledger))
    stores = {}
    for number, fold in folds.items():
        with ledger.phase(f"tapt.fold-{number:02d}"):
            folder = storage.join(options.run, "tapt", f"fold-{number:02d}")
            encoder = adapt_encoder(pool, fold.train, options.encoder, folder, options.tapt, options.cluster)
        stores[number] = _store(options, pool, encoder, ledger)
    return stores


def _store(options: LoopOptions, pool: Pool, encoder: str, ledger: _SharedLedger) -> FeatureStore:
    with ledger.phase("features"):
        return extract_features(
            pool,
            encoder,
            uri=options.feature_cache,
            frames_layer=frames_layer(encoder, options.finetune),
            options=options.features,
            on=options.cluster,
        )


def _ground(options: LoopOptions, store: FeatureStore, fold: Fold, eligible: pa.Table) -> Ground:
    unusable = set(store.unusable["source"].to_pylist())
    if unusable:
        say(f"{len(unusable)} utterances give no usable features and are left out")
        fold = fold.without(unusable)
    ids, mean_NLD, std_NLD = store.pooled()
    return Ground(
        store=store,
        fold=fold,
        classes=tuple(options.classes),
        class_map=options.class_map,
        finetune=options.finetune,
        proxy=options.proxy,
        on=options.cluster,
        stop=options.stop,
        dropout_passes=options.dropout_passes,
        probe=options.probe,
        metadata=eligible,
        ids=ids,
        mean_NLD=mean_NLD,
        std_NLD=std_NLD,
    )


def _trajectories(options: LoopOptions, grounds: dict[int, Ground]) -> list[tuple[Trajectory, Arm]]:
    """Longest first, so that the cores finish together."""
    random = StrategyOptions(name="random")
    planned = []
    for number, ground in grounds.items():
        total = len(ground.fold.train)
        schedule = tuple(options.budget.schedule(total))
        arms = {options.strategy.name: Arm(initial=options.initial, strategy=options.strategy, schedule=schedule)}
        if options.random_arm:
            arms["random"] = Arm(initial=random, strategy=random, schedule=schedule)
        if options.full_arm:
            arms["full"] = Arm(initial=random, strategy=random, schedule=(total,))
        planned += [(Trajectory(arm=a, fold=number, seed=s), arms[a]) for a in arms for s in options.seeds]
    return sorted(planned, key=lambda item: (-sum(item[1].schedule), item[0].name))


def _run_all(options: LoopOptions, trajectories: Sequence[tuple[Trajectory, Arm]], grounds: dict[int, Ground]) -> None:
    shared = {number: ray.put(ground) for number, ground in grounds.items()}
    cpus = 0 if options.cluster.train_workers else 1
    limit = max(1, cpu_count() // max(1, options.cluster.train_workers * options.cluster.cpus_per_worker))
    folders = {t.name: storage.join(options.run, "trajectories", t.name) for t, _ in trajectories}
    total = sum(len(arm.schedule) for _, arm in trajectories)
    waiting, running = list(trajectories), dict[ray.ObjectRef, Trajectory]()
    failures: list[tuple[Trajectory, ray.exceptions.RayTaskError]] = []
    with track(f"{len(trajectories)} trajectories, rounds", total) as advance:
        done = 0
        while waiting or running:
            while waiting and len(running) < limit:
                trajectory, arm = waiting.pop(0)
                work = _trajectory_task.options(num_cpus=cpus)
                running[work.remote(folders[trajectory.name], trajectory, arm, shared[trajectory.fold])] = trajectory
            ready, _ = ray.wait(list(running), timeout=POLL_S)
            for reference in ready:
                trajectory = running.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    failures.append((trajectory, error))
            finished = sum(count_rounds(folder) for folder in folders.values())
            advance(finished - done)
            done = finished
    if failures:
        trajectory, failure = failures[0]
        cause = failure.cause if isinstance(failure.cause, SeralError) else failure
        message = f"{len(failures)} of {len(trajectories)} trajectories failed; {trajectory.name}: {cause}"
        raise (type(cause) if isinstance(cause, SeralError) else TrainError)(message) from failure


def _run_alone(folder: str, trajectory: Trajectory, arm: Arm, ground: Ground) -> str | None:
    """One thread a trajectory: they run side by side, and sums do not depend on how many do."""
    torch.set_num_threads(1)
    return run_trajectory(folder, trajectory, arm, ground)


_trajectory_task = ray.remote(max_retries=2)(_run_alone)


class _SharedLedger(Ledger):
    """A ledger kept in a file, added to over resumes."""

    def __init__(self, uri: str) -> None:
        super().__init__(storage.read_json(uri) if storage.exists(uri) else {})
        self._uri = uri

    def phase(self, name: str) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def timed() -> Any:
            with Ledger.phase(self, name):
                yield
            storage.write_json(self._uri, {key: round(value, 3) for key, value in self.seconds.items()})

        return timed()


def _write_environment(options: LoopOptions, pool: Pool, grounds: dict[int, Ground]) -> None:
    path = storage.join(options.run, "environment.json")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    packages = ("seral", "ray", "torch", "transformers", "peft", "faiss-cpu", "pyarrow", "numpy", "scikit-learn")
    corpora = options.corpora or sorted(set(pool.metadata["corpus"].to_pylist()))
    storage.write_json(
        path,
        {
            "versions": versions(packages),
            "python": platform.python_version(),
            "host": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": _gpus()},
            "pool": pool.uri,
            "pool_hash": pool.hash,
            "protocol": f"{'+'.join(corpora)}-{len(options.classes)}c-{options.split.scheme}@v1",
            "classes": options.classes,
            "encoder_fingerprint": {str(n): ground.store.fingerprint for n, ground in grounds.items()},
            "n_train": {str(n): len(ground.fold.train) for n, ground in grounds.items()},
            "created": storage.read_json(path)["created"] if storage.exists(path) else now,
        },
    )


def _gpus() -> int:
    return int(ray.cluster_resources().get("GPU", 0))
