"""The main job: pool -> features -> (TAPT) -> rounds of {select, label, train, score} for every arm, fold and seed.

RUN/config.yaml            the resolved options; a run is resumed with the same ones or not at all
RUN/environment.json       versions, host, pool hash, protocol, classes
RUN/filtered.parquet       training utterances of each fold that are below min_quality, and which measure says so
RUN/seconds.json           seconds of what all trajectories share: features, TAPT
RUN/tapt/fold-00/          the adapted encoder, when TAPT is on
RUN/labels.sqlite, RUN/evaluation.parquet    with people, see seral.labels.people
RUN/trajectories/<arm>.fold-<FF>.seed-<S>/   see seral.loop.rounds
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

import pyarrow as pa
import ray
import torch
from pydantic import Field, model_validator

from seral import storage
from seral.cluster import run_side_by_side
from seral.errors import AwaitingLabels, SplitError, StateError
from seral.features.store import FeatureStore
from seral.labels.people import People, PeopleOptions, awaited, ledger_url
from seral.loop.rounds import (
    Arm,
    Ground,
    PhaseTimes,
    Trajectory,
    count_rounds,
    read_rounds,
    round_folder,
    run_trajectory,
)
from seral.loop.stopping import StopOptions
from seral.pool.quality_filter import below_floor, count_reasons
from seral.pool.shards import Pool
from seral.pool.splits import Fold, folds_of
from seral.pretraining.surprisal import FOLDER as SURPRISAL
from seral.pretraining.surprisal import extract_surprisal
from seral.pretraining.tapt import adapt_encoder
from seral.progress import say, track
from seral.schema import SECONDS
from seral.selection.budget import BudgetOptions
from seral.selection.selection import StrategyOptions
from seral.task.run import (
    FoldData,
    askable,
    features_of,
    fold_data,
    open_run,
    protocol_name,
    read_options,
    write_environment,
)
from seral.task.tracking import Tracker, TrackingOptions
from seral.training.augmented import check_noises
from seral.training.finetune import frames_layer
from seral.training.options import TrainingOptions, sides


class LoopOptions(TrainingOptions):
    """The main job, whole."""

    initial: StrategyOptions = StrategyOptions(name="auto")
    """How the strategy arm picks its first set, before there is a model."""
    strategy: StrategyOptions = StrategyOptions(name="auto")
    """How the strategy arm picks afterwards."""
    others: list[StrategyOptions] = Field(default=[])
    """Strategies to compare with, each an arm of its own with the same `initial` and budget."""
    min_quality: float = Field(default=0.1, ge=0, le=1)
    """Training utterances whose recording has a lower quality (seral.audio.quality.score) are not candidates of any arm
    and nothing is pretrained on them; `filtered.parquet` names them and says why. The default leaves out 97 % of noises
    without speech and 1 % of clean speech (docs/results/quality.md); 0 = everything takes part."""
    random_arm: bool = True
    """Run a random arm of the same budget beside it."""
    full_arm: bool = True
    """Train once on all labels, as the ceiling."""
    budget: BudgetOptions = BudgetOptions()
    stop: StopOptions = StopOptions()
    dropout_passes: int = Field(default=10, ge=2)
    """Stochastic passes for strategies that ask for them (bald, batch_bald)."""
    ensemble: int = Field(default=0, ge=0)
    """So many further models are trained every round for these strategies, which read their disagreement instead of
    dropout passes: the same options on the same labels, from other seeds and with the labels weighed anew."""
    proxy: bool = False
    """Select with the head on frozen features and train adapters in the last round only: a few rounds of adapter
    training saved. "Selection via proxy", Coleman et al. 2020, arXiv 1906.11829."""
    probe: bool = True
    """Fit scikit-learn's linear probe on the same labels beside every round."""
    people: PeopleOptions | None = None
    """Ask people instead of the oracle: one arm, one seed, one fold, and no gold label is opened. The run ends with
    status 75 whenever it awaits labels, and goes on when it is started again."""
    track: TrackingOptions | None = None
    """Tell MLflow of every round, a run a trajectory; None = nobody. The run folder has it all in any case."""

    @model_validator(mode="before")
    @classmethod
    def _people_serve_one_arm(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("people") is None:
            return values
        return {"random_arm": False, "full_arm": False, "seeds": [0], "folds": [0]} | values

    @model_validator(mode="after")
    def _check(self) -> LoopOptions:
        if self.people is not None:
            self._check_people()
        if self.ensemble == 1:
            raise ValueError("ensemble: one model has nobody to disagree with; give 2 or more, 5 to 10 are usual")
        if self.dimensions:
            raise ValueError("strategies choose by class probabilities: the loop learns classes, not dimensions")
        if self.proxy and self.stop.early:
            raise ValueError(f"proxy trains adapters in the budget's last round, which {self.stop.early} may not reach")
        if self.needs_surprisal and self.tapt is None:
            raise ValueError("alps reads what surprises the encoder after TAPT: give `tapt`")
        arms = ["full", "random", self.strategy.name, *(other.name for other in self.others)]
        if self.others and (twice := {name for name in arms if arms.count(name) > 1}):
            raise ValueError(f"others: there is an arm {min(twice)!r} already; name each strategy once")
        if self.initial.needs - KNOWN_AT_FIRST:
            wanted = ", ".join(sorted(self.initial.needs - KNOWN_AT_FIRST))
            raise ValueError(
                f"initial: {self.initial.name} reads {wanted}, and there is no model before the first round"
            )
        return self

    def _check_people(self) -> None:
        """Raise ValueError for what would need labels that nobody has given, or ask people more than once."""
        needless = ("random_arm", "full_arm", "others", "source_corpora")
        if given := [name for name in needless if getattr(self, name)]:
            raise ValueError(f"{given[0]} needs labels that nobody has given: leave it out with `people`")
        for name, values in (("seeds", self.seeds), ("folds", self.folds)):
            if values is None or len(values) != 1:
                raise ValueError(f"{name}: people label for one model at a time; name one with `people`, got {values}")

    @property
    def needs_surprisal(self) -> bool:
        """Whether a strategy reads pretraining losses."""
        return any("surprisal_NK" in chosen.needs for chosen in (self.initial, self.strategy, *self.others))


def run_loop(options: LoopOptions) -> str:
    """Run the loop, or resume it, to its end; returns the run folder. Raises a SeralError that names what is wrong.

    With people it raises AwaitingLabels at the end of each stretch, unless it is to wait for them.
    """
    if options.people is not None and options.people.ledger is not None:
        located = options.people.model_copy(update={"ledger": ledger_url(options.run, options.people)})
        options = options.model_copy(update={"people": located})
    while True:
        try:
            return _run(options)
        except AwaitingLabels as pause:
            if options.people is None or not options.people.wait:
                raise
            say(str(pause))
            with closing(_people(options)) as people:
                people.wait()


def _run(options: LoopOptions) -> str:
    if options.people is not None and storage.exists(storage.join(options.run, "evaluation.parquet")):
        with closing(_people(options)) as people:
            people.check_rounds()  # before anything is started
    options, pool = open_run(options, MAY_CHANGE)
    times = PhaseTimes.kept(storage.join(options.run, SECONDS))
    metadata, source = sides(options, pool) if options.people is None else (_of_known_speakers(options, pool), [])
    check_noises(options.finetune.augment, pool, metadata)
    folds = folds_of(metadata, options.split, options.folds)
    filtered = {n: below_floor(fold.train, metadata, options.min_quality) for n, fold in folds.items()}
    folds = {n: fold.without(set(filtered[n]["utterance_id"].to_pylist())) for n, fold in folds.items()}
    if options.people is None:
        stores = _stores(options, pool, folds, times)
    else:
        with closing(_people(options)) as people:
            for fold in folds.values():
                people.ask_evaluation(fold, options.seeds[0])
            stores = _stores(options, pool, folds, times)  # while they answer
            folds = {n: people.evaluated(fold) for n, fold in folds.items()}
    grounds = {n: _ground(options, n, stores[n], fold, metadata, source) for n, fold in folds.items()}
    _describe(options, pool, grounds, filtered)
    trajectories = _trajectories(options, grounds)
    _run_all(options, trajectories, grounds)
    storage.tidy(options.run)
    return options.run


def _of_known_speakers(options: LoopOptions, pool: Pool) -> pa.Table:
    """Metadata of what people can be asked about. Raises SplitError where no speaker is known."""
    table = askable(pool, options.corpora)
    if table["speaker"].null_count == table.num_rows:
        raise SplitError(
            f"no clip of {pool.uri} has a speaker, and models must be judged by others than those they learnt from: "
            "import it with speakers; where voices are not known, name the call or the recording instead"
        )
    return table


def _people(options: LoopOptions) -> People:
    return People(options.run, options.people or PeopleOptions(), options.classes)


def loop_status(run: str) -> list[dict[str, Any]]:
    """One row per trajectory: rounds done and planned, labels, UAR on dev, why it stopped."""
    if not storage.exists(storage.join(run, "config.yaml")):
        raise StateError(f"there is no run at {run}")
    options = read_options(LoopOptions, run)
    awaits = "" if options.people is None else _awaits(options)
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
    return [row | {"stopped": awaits} for row in rows or [NOTHING_YET]] if awaits else rows


def _awaits(options: LoopOptions) -> str:
    with closing(_people(options)) as people:
        lacking = people.pending()
    return "awaiting labels: " + ", ".join(map(awaited, lacking)) if lacking else ""


NOTHING_YET: dict[str, Any] = {"trajectory": None, "rounds": None, "labelled": 0, "dev_uar": None}
"""The row of a run that has no trajectory yet."""


KNOWN_AT_FIRST = {"embedding_ND", "surprisal_NK", "speaker", "corpus", "language"}
"""What a strategy may read before there is a model."""
MAY_CHANGE = {"run", "cluster", "folds", "seeds", "others", "track"}
MAY_CHANGE |= {f"people.{name}" for name in ("ledger", "overlap", "max_skips", "enough", "deadline_h", "wait")}
"""Options a resumed run may be given anew: where it runs, further folds, seeds and arms, how long it awaits people."""


def _stores(options: LoopOptions, pool: Pool, folds: dict[int, Fold], times: PhaseTimes) -> dict[int, FeatureStore]:
    """The features each fold works on: one encoder for all, or with TAPT one for each fold's training audio alone."""
    if options.tapt is None:
        return dict.fromkeys(folds, _store(options, pool, options.encoder, times))
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
        stores[number] = _store(options, pool, encoder, times)
        if options.needs_surprisal:
            with times.phase("surprisal"):
                extract_surprisal(pool, fold.train, folder, options.features, options.cluster)
    return stores


def _store(options: LoopOptions, pool: Pool, encoder: str, times: PhaseTimes) -> FeatureStore:
    with times.phase("features"):
        return features_of(options, pool, encoder, frames_layer(encoder, options.finetune))


def _ground(
    options: LoopOptions, number: int, store: FeatureStore, fold: Fold, metadata: pa.Table, source: list[str]
) -> Ground:
    data = fold_data(options, store, fold, metadata)
    folder = storage.join(options.run, "tapt", f"fold-{number:02d}", SURPRISAL)
    ground = trajectory_ground(options, data, source, surprisal=folder if options.needs_surprisal else None)
    with ground.annotator() as annotator:
        heard = set(annotator.emotions(ground.fold.dev))
    if lacking := sorted(set(ground.classes) - heard):
        more = "split.dev_speakers" if options.people is None else "people.evaluation"
        say(f"fold {fold.name}: no {', '.join(lacking)} in dev, which chooses checkpoints: raise {more}")
    return ground


def trajectory_ground(
    options: LoopOptions, data: FoldData, source: Sequence[str], surprisal: str | None = None
) -> Ground:
    """A fold as trajectories see it."""
    known = set(data.ids)
    names = ("run", "people", "finetune", "anchor", "proxy", "stop", "dropout_passes", "ensemble", "probe")
    given: dict[str, Any] = {name: getattr(options, name) for name in names}
    given["source"] = tuple(name for name in source if name in known)
    return Ground(**vars(data), on=options.cluster, surprisal=surprisal, **given)


def arm_of(options: LoopOptions, initial: StrategyOptions, strategy: StrategyOptions, total: int) -> Arm:
    """An arm with the budget of a run, of which `total` clips may be asked about."""
    if options.budget.minutes is None:
        return Arm(initial=initial, strategy=strategy, schedule=tuple(options.budget.schedule(total)))
    minutes = tuple(options.budget.minutes)
    return Arm(initial=initial, strategy=strategy, schedule=minutes, pace=options.budget.pace)


def _trajectories(options: LoopOptions, grounds: dict[int, Ground]) -> list[tuple[Trajectory, Arm]]:
    """Longest first, so that the cores finish together."""
    random = StrategyOptions(name="random")
    planned = []
    for number, ground in grounds.items():
        total = len(ground.fold.train)
        chosen = (options.strategy, *options.others)
        arms = {strategy.name: arm_of(options, options.initial, strategy, total) for strategy in chosen}
        if options.random_arm:
            arms["random"] = arm_of(options, random, random, total)
        if options.full_arm:
            arms["full"] = Arm(initial=random, strategy=random, schedule=(total,))
        planned += [(Trajectory(arm=a, fold=number, seed=s), arms[a]) for a in arms for s in options.seeds]
    return sorted(planned, key=lambda item: (-sum(item[1].schedule), item[0].name))


def _run_all(options: LoopOptions, trajectories: Sequence[tuple[Trajectory, Arm]], grounds: dict[int, Ground]) -> None:
    shared = {number: ray.put(ground) for number, ground in grounds.items()}
    task = _trajectory_task.options(
        num_cpus=0 if options.cluster.train_workers else 1, max_retries=options.cluster.max_failures
    )
    folders = {t.name: storage.join(options.run, "trajectories", t.name) for t, _ in trajectories}
    tasks = {t.name: partial(task.remote, folders[t.name], t, arm, shared[t.fold]) for t, arm in trajectories}
    done, tracker = 0, None if options.track is None else Tracker(options.track, options.run)
    parameters = options.model_dump(mode="json", exclude={"track"})
    with track(f"{len(tasks)} trajectories, rounds", sum(len(arm.schedule) for _, arm in trajectories)) as advance:

        def count(_: int) -> None:
            nonlocal done
            finished = sum(count_rounds(folder) for folder in folders.values())
            advance(finished - done)
            if tracker is not None and finished > done:
                for one, _arm in trajectories:
                    _tell(tracker, one, folders[one.name], parameters)
            done = finished

        run_side_by_side(tasks, options.cluster, count)


def _tell(tracker: Tracker, trajectory: Trajectory, folder: str, parameters: Mapping[str, Any]) -> None:
    """Tell MLflow of the complete rounds of a trajectory."""
    steps, rounds = {}, read_rounds(folder)
    for done in rounds:
        metrics = storage.read_json(storage.join(round_folder(folder, done.round), "metrics.json"))
        told = {"labelled": done.labelled, "fraction": metrics["fraction"], "uncertainty": done.uncertainty}
        told |= {f"{part}.uar": metrics[part]["uar"] for part in ("dev", "test")} | {"kappa": done.kappa}
        steps[done.round] = {name: value for name, value in told.items() if value is not None}
    tracker.report(trajectory.name, {**parameters, **vars(trajectory)}, steps)
    if rounds and rounds[-1].stop_reason:
        tracker.close(trajectory.name, "FINISHED")


def _run_alone(folder: str, trajectory: Trajectory, arm: Arm, ground: Ground) -> str | None:
    """One thread a trajectory: they run side by side, and sums do not depend on how many do."""
    torch.set_num_threads(1)
    return run_trajectory(folder, trajectory, arm, ground)


_trajectory_task = ray.remote(_run_alone)


def _describe(options: LoopOptions, pool: Pool, grounds: dict[int, Ground], filtered: dict[int, pa.Table]) -> None:
    facts = {
        "encoder_fingerprint": {str(n): ground.store.fingerprint for n, ground in grounds.items()},
        "n_train": {str(n): len(ground.fold.train) for n, ground in grounds.items()},
        "n_source": {str(n): len(ground.source) for n, ground in grounds.items()},
        "n_filtered": {str(n): count_reasons(table) for n, table in filtered.items()},
    }
    tables = [table.add_column(0, "fold", pa.array([n] * table.num_rows, pa.int32())) for n, table in filtered.items()]
    storage.write_table(storage.join(options.run, "filtered.parquet"), pa.concat_tables(tables))
    write_environment(options, pool, protocol_name(options, pool), facts)
