"""The main job: pool -> features -> (TAPT) -> rounds of {select, label, train, score} for every arm, fold and seed.

RUN/config.yaml            the resolved options; a run is resumed with the same ones or not at all
RUN/environment.json       versions, host, pool hash, protocol, classes
RUN/filtered.parquet       training utterances of each fold that are below min_quality, and which measure says so
RUN/seconds.json           seconds of what all trajectories share: features, TAPT
RUN/tapt/fold-00/          the adapted encoder, when TAPT is on
RUN/labels.sqlite, RUN/evaluation.parquet    with people, see seral.labels.people
RUN/folds/fold-00/source/  models of labels of other corpora, and what they are worth without one of the target
RUN/trajectories/<arm>.fold-<FF>.seed-<S>/   see seral.loop.rounds
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import torch

from ser_models.moments import PooledMoments
from seral import storage
from seral.cluster import cpu_count, encoder_actors, run_side_by_side
from seral.errors import AwaitingLabels
from seral.features.frames import frame_bytes, keep_frames
from seral.features.moments import pooled_moments
from seral.features.store import FeatureStore
from seral.labels.consensus import usual_method
from seral.labels.people import ledger_url
from seral.loop.annotators import ANNOTATORS
from seral.loop.estimate import Estimate, check_room, estimate, measure, task_of
from seral.loop.folders import count_rounds, read_rounds, round_folder
from seral.loop.growth import check_budget, folds_of_run
from seral.loop.learning import judge_source, say_left_out_classes
from seral.loop.options import MAY_CHANGE, LoopOptions
from seral.loop.round_lines import RoundLines
from seral.loop.rounds import Arm, LoopFold, PhaseTimes, Trajectory
from seral.loop.trajectory import run_trajectory
from seral.pool.quality_filter import DIVIDED_BY, MEASURES, below_quality, count_reasons, say_left_out
from seral.pool.shards import Pool
from seral.pool.splits import COLUMNS as SPLIT_COLUMNS
from seral.pool.splits import Fold
from seral.pretraining.surprisal import FOLDER as SURPRISAL
from seral.pretraining.surprisal import extract_surprisal
from seral.pretraining.tapt import adapt_encoder
from seral.progress import say, track
from seral.schema import SECONDS
from seral.selection.candidates import METADATA_COLUMNS
from seral.selection.selection import StrategyOptions
from seral.task.context import RunContext, open_run
from seral.task.folds import FoldData, features_of, fold_data, with_centring
from seral.task.options import protocol_name
from seral.task.run import earlier_option, write_environment
from seral.task.tracking import Tracker
from seral.training.augmented import check_noises
from seral.training.finetune import cached_layer
from seral.training.source import source_models, with_features

LARGE = 10_000
"""Clips of a pool from which on a run says beforehand what it will take."""


def run_loop(options: LoopOptions) -> str:
    """Run the loop, or resume it, to its end; returns the run folder. Raises a SeralError that names what is wrong.

    With people it raises AwaitingLabels at the end of each stretch, unless it is to wait for them.
    """
    options, kind = _with_consensus(_with_absolute_ledger(options)), ANNOTATORS[options.annotator]
    while True:
        try:
            return _run(options)
        except AwaitingLabels as pause:
            if not kind.wait(options, pause):
                raise


def _run(options: LoopOptions) -> str:
    kind = ANNOTATORS[options.annotator]
    kind.check(options)  # before anything is started
    may_change = MAY_CHANGE | ({"budget"} if options.grown else set())
    context = open_run(options, "loop", may_change, grown=options.grown)
    with storage.writing_to(options.run):
        return _run_opened(context)


def _run_opened(context: RunContext[LoopOptions]) -> str:
    options, pool, kind = context.options, context.pool, ANNOTATORS[context.options.annotator]
    times = PhaseTimes.resumed(storage.join(options.run, SECONDS))
    # Through another Pool, so that what is read does not stay.
    metadata, source = kind.candidates(options, replace(pool, columns=_columns(options)))
    storage.release_memory()
    check_noises(options.finetune.augment, pool, metadata)
    folds = folds_of_run(options, pool, metadata)
    storage.release_memory()
    filtered = {n: below_quality(fold.train, metadata, options.min_quality) for n, fold in folds.items()}
    say_left_out(folds.values(), metadata, options.min_quality)
    folds = {n: fold.without(set(filtered[n]["utterance_id"].to_pylist())) for n, fold in folds.items()}
    metadata = metadata.select(["utterance_id", *METADATA_COLUMNS])
    storage.release_memory()  # sorting and splitting a large pool takes several times its size
    memory = _foresee(options, pool, folds)
    storage.release_memory()
    with closing(kind.open(options, pool)) as annotator:
        for fold in folds.values():
            annotator.ask_evaluation(fold, options.seeds[0])
        stores = stores_of(options, pool, folds, times)  # while people answer
        folds = {n: annotator.evaluated(fold) for n, fold in folds.items()}
        lacking = {n: set(options.classes) - set(annotator.emotions(fold.dev)) for n, fold in folds.items()}
    del annotator  # answers of a large pool make room for what follows
    storage.release_memory()
    loop_folds = folds_with_features(options, stores, folds, metadata, source)
    for n, loop_fold in loop_folds.items():
        _warn_of_missing_classes(loop_fold, lacking[n], kind.more_evaluation)
        say_left_out_classes(loop_fold, filtered[n]["utterance_id"].to_pylist())
    if any(fold.models is not None for fold in loop_folds.values()):
        with closing(kind.open(options, pool)) as annotator:
            for loop_fold in loop_folds.values():
                judge_source(loop_fold, annotator)
    storage.release_memory()
    _describe(options, pool, loop_folds, filtered)
    trajectories = _trajectories(options, {n: len(fold.data.fold.train) for n, fold in loop_folds.items()})
    for trajectory, arm in trajectories:
        _check_budget(options, trajectory, arm)
    _run_all(options, trajectories, loop_folds, memory)
    storage.tidy(options.run)
    return options.run


def _columns(options: LoopOptions) -> tuple[str, ...]:
    """Columns of the metadata that a run reads; what clips say only where words are kept apart."""
    read = {*SPLIT_COLUMNS, *MEASURES, "quality", *DIVIDED_BY, *METADATA_COLUMNS} - (
        {"text"} - set(options.split.apart)
    )
    return tuple(sorted(read))


def foresee(options: LoopOptions, pool: Pool, folds: Mapping[int, Fold], *, hours: bool = True) -> Estimate:
    """Disk and memory that a run will take, and hours if they are asked for. Raises StateError where it cannot fit."""
    arms = [arm for _, arm in _trajectories(options, {number: len(fold.train) for number, fold in folds.items()})]
    task = task_of(options, pool, folds.values())
    expected = estimate(options, task, arms, measure(options, task) if hours else None)
    check_room(options, expected)
    return expected


def _foresee(options: LoopOptions, pool: Pool, folds: Mapping[int, Fold]) -> int:
    """Say what a run on a large pool will take; returns the memory of a trajectory in bytes."""
    expected = foresee(options, pool, folds, hours=pool.rows >= LARGE)
    for line in expected.sentences() if pool.rows >= LARGE else ():
        say(line)
    return int(expected.trajectory_bytes)


def _with_absolute_ledger(options: LoopOptions) -> LoopOptions:
    """Workers may have another working directory."""
    if options.people is None or options.people.ledger is None:
        return options
    people = options.people.model_copy(update={"ledger": ledger_url(options.run, options.people)})
    return options.model_copy(update={"people": people})


def _with_consensus(options: LoopOptions) -> LoopOptions:
    """Options that name the consensus: that of the run so far, or the usual one for the overlap, and say it."""
    if options.people is None or options.people.consensus is not None or not options.classes:
        return options
    consensus = earlier_option(options.run, "people.consensus")
    if consensus is None:
        consensus = usual_method(options.people.overlap)
        say(f"people.consensus={consensus}: people.overlap is {options.people.overlap}")
    people = options.people.model_copy(update={"consensus": consensus})
    return options.model_copy(update={"people": people})


def stores_of(
    options: LoopOptions, pool: Pool, folds: Mapping[int, Fold], times: PhaseTimes
) -> dict[int, FeatureStore]:
    """The features each fold works on: one encoder for all, or with TAPT one for each fold's training audio alone."""
    if options.tapt is None:
        return dict.fromkeys(folds, _store(options, pool, options.encoder, folds.values(), times))
    stores = {}
    for number, fold in folds.items():
        with times.phase(f"tapt.fold-{number:02d}"):
            folder = storage.join(options.run, "tapt", f"fold-{number:02d}")
            encoder = adapt_encoder(
                pool,
                fold.train,
                options.encoder,
                folder,
                options.tapt,
                options.cluster,
                partial(features_of, options, pool),
            )
        stores[number] = _store(options, pool, encoder, [fold], times)
        if options.needs_surprisal:
            with times.phase("surprisal"):
                extract_surprisal(pool, fold.train, folder, options.features, options.cluster)
    return stores


def _store(options: LoopOptions, pool: Pool, encoder: str, folds: Collection[Fold], times: PhaseTimes) -> FeatureStore:
    """Features of the pool, and frames of all of it or of the dev and test parts of the folds."""
    layer = cached_layer(encoder, options.finetune)
    with times.phase("features"):
        if (
            layer is None
            or frame_bytes(pool, encoder, options.features, options.corpora_read) <= 1e9 * options.frames_gb
        ):
            return features_of(options, pool, encoder, layer)
        store = features_of(options, pool, encoder, None)
        judged = {name for fold in folds for name in (*fold.dev, *fold.test)} - set(
            store.unusable["source"].to_pylist()
        )
        keep_frames(store, layer, judged, options.cluster, encoder_actors(options.cluster))
        return store


def folds_with_features(
    options: LoopOptions,
    stores: Mapping[int, FeatureStore],
    folds: Mapping[int, Fold],
    metadata: pa.Table,
    source: pa.Table,
) -> dict[int, LoopFold]:
    """The folds of a run as their trajectories see them, by number."""
    data_of = _with_moments({n: fold_data(options, stores[n], fold, metadata) for n, fold in folds.items()})
    training = options.finetune.head_only if options.proxy else options.finetune
    data_of = with_centring(data_of, source, training.normalise)
    return {n: _loop_fold(options, n, data, source) for n, data in data_of.items()}


def _with_moments(data_of: dict[int, FoldData]) -> dict[int, FoldData]:
    """The folds with the moments of their training parts: one pass over the features for all that share them."""
    store_of = {data.store.fingerprint: data for data in data_of.values()}
    moments = dict[int, PooledMoments]()
    for fingerprint, shared in store_of.items():
        train_of = {n: data.fold.train for n, data in data_of.items() if data.store.fingerprint == fingerprint}
        moments |= pooled_moments(shared.store, shared.index, train_of, cpu_count())
    return {n: replace(data, moments=moments[n]) for n, data in data_of.items()}


def _loop_fold(options: LoopOptions, number: int, data: FoldData, source: pa.Table) -> LoopFold:
    folder = storage.join(options.run, "tapt", f"fold-{number:02d}", SURPRISAL)
    surprisal = folder if options.needs_surprisal else None
    return loop_fold(options, data, source, storage.join(options.run, "folds", f"fold-{number:02d}"), surprisal)


def _warn_of_missing_classes(fold: LoopFold, lacking: Collection[str], more_evaluation: str) -> None:
    """Say which classes no clip of dev has, since dev chooses checkpoints."""
    parts = fold.data.fold
    if parts.dev and lacking:
        names = ", ".join(sorted(lacking))
        say(f"fold {parts.name}: no {names} in dev, which chooses checkpoints: raise {more_evaluation}")


def loop_fold(
    options: LoopOptions, data: FoldData, source: pa.Table, folder: str, surprisal: str | None = None
) -> LoopFold:
    """A fold as its trajectories see it, with those utterances of the source that have features, and its models.

    `folder` is for what all of them read, such as what the first round selects by.
    """
    if data.moments is None:
        data = replace(data, moments=data.unlabelled.moments)
    present = with_features(source, data)
    return LoopFold(
        data=data,
        options=options,
        source=tuple(present["utterance_id"].to_pylist()),
        folder=folder,
        models=source_models(options, data, present, storage.join(folder, "source")),
        surprisal=surprisal,
        processes=options.cluster.parts,
    )


def arm_of(options: LoopOptions, initial: StrategyOptions, strategy: StrategyOptions, total: int) -> Arm:
    """An arm with the budget of a run, of which `total` clips may be asked about."""
    if options.budget.minutes is None:
        return Arm(initial=initial, strategy=strategy, schedule=tuple(options.budget.schedule(total)))
    minutes = tuple(options.budget.minutes)
    return Arm(initial=initial, strategy=strategy, schedule=minutes, pace=options.budget.pace)


def _trajectories(options: LoopOptions, train: Mapping[int, int]) -> list[tuple[Trajectory, Arm]]:
    """The trajectories of folds, whose training parts have so many clips; longest first: the cores finish together."""
    random = StrategyOptions(name="random")
    planned = []
    for number, total in train.items():
        chosen = (options.strategy, *options.others)
        arms = {strategy.name: arm_of(options, options.initial, strategy, total) for strategy in chosen}
        if options.random_arm:
            arms["random"] = arm_of(options, random, random, total)
        if options.full_arm:
            arms["full"] = Arm(initial=random, strategy=random, schedule=(total,))
        # All labels and one optimum: nothing in the full arm of a frozen encoder depends on the seed.
        seeds = {a: options.seeds[:1] if a == "full" and options.finetune.frozen else options.seeds for a in arms}
        planned += [(Trajectory(arm=a, fold=number, seed=s), arms[a]) for a in arms for s in seeds[a]]
    return sorted(planned, key=lambda item: (-sum(item[1].schedule), item[0].name))


def _check_budget(options: LoopOptions, trajectory: Trajectory, arm: Arm) -> None:
    folder = storage.join(options.run, "trajectories", trajectory.name)
    if options.grown and trajectory.arm != "full" and (done := count_rounds(folder)):
        before = storage.read_json(storage.join(folder, "trajectory.json"))["schedule"]
        check_budget(before, arm.schedule, done, trajectory.name)


def _run_all(
    options: LoopOptions, trajectories: Sequence[tuple[Trajectory, Arm]], folds: dict[int, LoopFold], memory: int
) -> None:
    """Run all trajectories, as many at a time as the nodes have CPUs and memory for."""
    shared = {number: ray.put(fold) for number, fold in folds.items()}
    elsewhere = options.cluster.train_workers or options.cluster.parts > 1  # is the work, and so are the CPUs
    failures = options.cluster.max_failures
    task = _trajectory_task.options(num_cpus=0 if elsewhere else 1, memory=memory, max_retries=failures)
    folders = {t.name: storage.join(options.run, "trajectories", t.name) for t, _ in trajectories}
    tasks = {t.name: partial(task.remote, folders[t.name], t, arm, shared[t.fold]) for t, arm in trajectories}
    tracker = None if options.track is None else Tracker(options.track, options.run)
    parameters = options.model_dump(mode="json", exclude={"track"})
    lines = RoundLines({t: (folders[t.name], arm) for t, arm in trajectories})
    done = dict.fromkeys((t for t, _ in trajectories), 0)
    with track(f"{len(tasks)} trajectories, rounds", sum(len(arm.schedule) for _, arm in trajectories)) as advance:

        def count(_: int) -> None:
            nonlocal done
            finished = {t: count_rounds(folders[t.name]) for t in done}
            grown = [t for t in done if finished[t] > done[t]]
            advance(sum(finished[t] - done[t] for t in grown))
            for line in lines.new(grown):
                say(line)
            if tracker is not None:
                for one in grown:
                    _report(tracker, one, folders[one.name], parameters)
            done = finished

        run_side_by_side(tasks, options.cluster, count)


def _report(tracker: Tracker, trajectory: Trajectory, folder: str, parameters: Mapping[str, Any]) -> None:
    """Tell MLflow of the complete rounds of a trajectory."""
    steps, rounds = {}, read_rounds(folder)
    for done in rounds:
        metrics = storage.read_json(storage.join(round_folder(folder, done.round), "metrics.json"))
        values = {"labelled": done.labelled, "fraction": metrics["fraction"], "uncertainty": done.uncertainty}
        scored = {part: metrics[part] or {} for part in ("dev", "test")}
        values |= {f"{part}.{name}": scored[part].get(name) for part in scored for name in ("uar", "ccc")}
        values["kappa"] = done.kappa
        steps[done.round] = {name: value for name, value in values.items() if value is not None}
    tracker.report(trajectory.name, {**parameters, **vars(trajectory)}, steps)
    if rounds and rounds[-1].stop_reason:
        tracker.close(trajectory.name, "FINISHED")


def _run_alone(folder: str, trajectory: Trajectory, arm: Arm, fold: LoopFold) -> str | None:
    """One thread a trajectory: they run side by side, and sums do not depend on how many do."""
    torch.set_num_threads(1)
    return run_trajectory(folder, trajectory, arm, fold)


_trajectory_task = ray.remote(_run_alone)


def _describe(options: LoopOptions, pool: Pool, folds: dict[int, LoopFold], filtered: dict[int, pa.Table]) -> None:
    facts = {
        "encoder_fingerprint": {str(n): fold.data.store.fingerprint for n, fold in folds.items()},
        "n_train": {str(n): len(fold.data.fold.train) for n, fold in folds.items()},
        "n_source": {str(n): len(fold.source) for n, fold in folds.items()},
        "n_filtered": {str(n): count_reasons(table) for n, table in filtered.items()},
    }
    tables = [table.add_column(0, "fold", pa.array([n] * table.num_rows, pa.int32())) for n, table in filtered.items()]
    left_out = storage.join(options.run, "filtered.parquet")
    with pool.publishing(lambda: [left_out]):
        storage.write_table(left_out, pa.concat_tables(tables))
    write_environment(options, pool, protocol_name(options, pool), facts)
