"""One trajectory of the loop: rounds of select, label, train, score, each an immutable folder.

    TRAJECTORY/trajectory.json           arm, fold, seed, sizes, test speakers
    TRAJECTORY/rounds/0003/
        picks.parquet                    what was asked
        labels.parquet                   what was answered, and what earlier clips are now said to be instead
        model/                           the best-dev model
        predictions.parquet              probabilities for pool, dev and test
        selection.npz                    what the next round selects by: embeddings, dropout passes; no labels
        metrics.json
        round.json                       written last: without it the round never happened

Everything random is drawn from (seed, fold, arm, round), and what a round needs of the one before it is read back from
its folder. So a trajectory that was killed and resumed is the trajectory that was not.
"""

# N rows · C classes · L encoder layers (L+1 hidden states) · D features
from __future__ import annotations

import io
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ser_models.metrics import cohen_kappa
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import StateError
from seral.features.batches import rows_of
from seral.labels.confident import doubt
from seral.labels.people import People, PeopleOptions
from seral.loop.stopping import RoundSummary, StopOptions, stop_reason
from seral.schema import LABEL, PICK, prediction_schema
from seral.selection.budget import PaceOptions
from seral.selection.candidates import Candidates, known_of
from seral.selection.minutes import select_for_minutes
from seral.selection.parts.actors import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, select
from seral.selection.source import read_vectors
from seral.selection.strategies.automatic import recommended
from seral.selection.strategies.scores import entropy
from seral.task.examples import Targets, Utterances
from seral.task.gold import Oracle
from seral.task.run import FoldData, codes
from seral.training.alignment import AnchorOptions
from seral.training.data import Labelled, Source, TrainingData
from seral.training.finetune import finetune
from seral.training.finetune_options import FinetuneOptions
from seral.training.linear_probe import linear_probe
from seral.training.model import evaluate, score

Float = NDArray[np.float32]
SELECTION, ATTEMPTS = "selection.npz", "attempts"
OnRound = Callable[[Sequence[RoundSummary]], None]
"""Told of all complete rounds after each new one."""
FURTHER = 5
"""How often a round asks again, at most, in the place of clips that got no label."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """One arm on one fold with one seed."""

    arm: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"{self.arm}.fold-{self.fold:02d}.seed-{self.seed}"

    def generator(self, round_number: int, purpose: str) -> np.random.Generator:
        """The random numbers of one purpose in one round; no two share a stream."""
        words = [zlib.crc32(text.encode()) for text in (self.arm, purpose)]
        return np.random.default_rng([self.seed, self.fold, round_number, *words])

    def batch(self, round_number: int, further: int) -> str:
        """The name of what people are asked in a round, the first time and `further` times after that."""
        return f"{self.name}/round-{round_number:04d}" + (f".{further}" if further else "")

    def training_seed(self, round_number: int) -> int:
        """The seed of a round's training, the same for every arm: arms differ in their labels only."""
        return int(np.random.SeedSequence([self.seed, self.fold, round_number]).generate_state(1)[0] >> 1)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How one arm chooses: the first set, every later set, and what has been bought round by round."""

    initial: StrategyOptions
    strategy: StrategyOptions
    schedule: tuple[float, ...]
    """Answers had after each round, or minutes spent."""
    pace: PaceOptions | None = None
    """What a clip costs; None = the schedule counts answers."""


@dataclass(frozen=True, kw_only=True)
class Ground(FoldData):
    """What all trajectories of one fold stand on. Holds no label: answers come from an annotator, a round at a time."""

    run: str
    people: PeopleOptions | None
    """None = the oracle answers."""
    finetune: FinetuneOptions
    source: tuple[str, ...]
    """Utterances of other languages whose labels are there from the start."""
    anchor: AnchorOptions | None
    proxy: bool
    surprisal: str | None
    """Folder of pretraining losses (seral.pretraining.surprisal), where a strategy reads them."""
    on: ClusterOptions
    stop: StopOptions
    dropout_passes: int
    ensemble: int
    probe: bool

    @contextmanager
    def annotator(self) -> Iterator[Oracle | People]:
        """Who answers, for the time of the block."""
        if self.people is None:
            yield self.oracle()
            return
        with closing(People(self.run, self.people, self.classes)) as people:
            yield people


@dataclass
class PhaseTimes:
    """Wall-clock seconds by phase, kept in a file if one is named, and added to over resumes."""

    seconds: dict[str, float] = field(default_factory=dict)
    uri: str | None = None

    @staticmethod
    def kept(uri: str) -> PhaseTimes:
        """Those of a file, which each further phase is written to."""
        return PhaseTimes(storage.read_json(uri) if storage.exists(uri) else {}, uri)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time the block takes to one phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        if self.uri is not None:
            storage.write_json(self.uri, {key: round(value, 3) for key, value in self.seconds.items()})


def run_trajectory(
    folder: str, trajectory: Trajectory, arm: Arm, ground: Ground, on_round: OnRound | None = None
) -> str | None:
    """Run, or resume, all rounds of a trajectory, telling `on_round` of each new one; returns why it stopped.

    Raises AwaitingLabels when people have not answered what a round asks; nothing of that round is written then.
    """
    storage.write_json(storage.join(folder, "trajectory.json"), _describe(trajectory, arm, ground))
    summaries = read_rounds(folder)
    reason = summaries[-1].stop_reason if summaries else None
    with ground.annotator() as annotator:
        while reason is None:
            number = len(summaries)
            # Built aside and put in place whole: a worker that outlives its killed driver may still be at this round.
            attempt = storage.join(folder, ATTEMPTS, f"{number:04d}-{uuid.uuid4().hex[:8]}")
            run_round(folder, attempt, number, trajectory, arm, ground, annotator, summaries)
            storage.publish(attempt, round_folder(folder, number), last="round.json")
            summaries = read_rounds(folder)
            reason = summaries[-1].stop_reason
            if on_round is not None:
                on_round(summaries)
    storage.remove(storage.join(folder, ATTEMPTS))
    return reason


def run_round(
    folder: str,
    here: str,
    number: int,
    trajectory: Trajectory,
    arm: Arm,
    ground: Ground,
    annotator: Oracle | People,
    before: Sequence[RoundSummary],
) -> None:
    """Select, label, train, score and evaluate one round of the trajectory in `folder`, and write it to `here`."""
    times = PhaseTimes()
    model = storage.join(here, "model")
    asked = read_picks(folder, number)
    known = _latest(read_labels(folder, number))
    picks = _ask(folder, number, trajectory, arm, ground, annotator, times, asked, known)
    asked += picks
    with times.phase("label"):
        answers = _news(known, annotator.labels(list(dict.fromkeys(asked)), number), picks)
    known = _latest(pa.concat_tables([known, answers]))
    labelled = known.filter(pc.is_valid(known["emotion"]))
    ids = labelled["utterance_id"].to_pylist()
    rejected = known.filter(pc.equal(known["answer"], "unusable"))["utterance_id"].to_pylist()
    parts = (ids, ground.fold.dev, ground.fold.test, ground.source)
    train, dev, test, source = (ground.utterances(part) for part in parts)
    label_N, dev_label_N, test_label_N, source_label_M = (
        codes(emotions, ground.classes)
        for emotions in (labelled["emotion"].to_pylist(), *map(annotator.emotions, (dev.ids, test.ids, source.ids)))
    )
    more, seed = number < len(arm.schedule) - 1, trajectory.training_seed(number)
    target = Targets.of_classes(np.concatenate([label_N, source_label_M]))
    target = replace(target, soft_NC=_soft(labelled, len(source.ids), len(ground.classes)))

    def fit(to: str, target: Targets, seed: int) -> dict[str, Any]:
        data = TrainingData(
            train=Labelled(train.with_others(source), target),
            dev=Labelled(dev, Targets.of_classes(dev_label_N)),
            unlabelled=ground.utterances(ground.fold.train),
            store=ground.store,
            classes=ground.classes,
            source=Source(units=source, anchor=ground.anchor) if source.ids else None,
        )
        options = ground.finetune.head_only if ground.proxy and more else ground.finetune
        return finetune(data, options, to, seed=seed, on=ground.on)

    with times.phase("train"):
        history = fit(here, target, seed)
    with times.phase("evaluate"):
        dev_NC, test_NC = (score(model, ground.store, part).probability_NC for part in (dev, test))
    result: dict[str, Any] = {
        "labelled": len(ids),
        "fraction": len(ids) / len(ground.fold.train),
        "dev": evaluate(dev_label_N, dev_NC, ground.classes),
        "test": evaluate(test_label_N, test_NC, ground.classes),
        "training": history,
    }
    with times.phase("score"):
        rest = ground.utterances(sorted(set(ground.fold.train) - set(asked)))
        heard = (train, label_N, ground.utterances(rejected))
        rest_NC, seen = _score_pool(model, rest, heard, arm if more else None, ground, seed)
    if ground.ensemble and "dropout_SNC" in seen:
        with times.phase("ensemble"):
            seen["dropout_SNC"] = np.stack(list(_members(here, rest, target, fit, ground, seed)))
    done = RoundSummary(
        round=number,
        labelled=len(ids),
        dev_uar=result["dev"]["uar"],
        uncertainty=float(entropy(rest_NC).mean() / np.log(len(ground.classes))) if rest.ids else None,
        kappa=_agreement(folder, number, rest, rest_NC, ground.classes),
    )
    reason = stop_reason([*before, done], len(arm.schedule), ground.stop)
    if ground.probe:
        with times.phase("probe"):
            labels = ((train, label_N), (dev, dev_label_N), (test, test_label_N))
            result["probe"] = linear_probe(*labels, num_classes=len(ground.classes))
    with times.phase("write"):
        if seen and reason is None:
            _write_seen(here, rest, [*ids, *rejected], seen)
        storage.write_table(storage.join(here, "picks.parquet"), _picks_table(picks, arm, number))
        storage.write_table(storage.join(here, "labels.parquet"), answers)
        scored = {"pool": (rest, rest_NC), "dev": (dev, dev_NC), "test": (test, test_NC)}
        predictions = pa.concat_tables(
            [_predictions(part, *content, ground.classes) for part, content in scored.items()]
        )
        storage.write_table(storage.join(here, "predictions.parquet"), predictions)
        storage.write_json(storage.join(here, "metrics.json"), result)
    record = {
        "round": number,
        "labelled": len(ids),
        "minutes": round(_minutes(ground, asked, arm.pace or PaceOptions()), 2),
        "dev_uar": done.dev_uar,
        "uncertainty": done.uncertainty,
        "kappa": done.kappa,
        "seconds": {name: round(value, 4) for name, value in times.seconds.items()},
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "stop_reason": reason,
    }
    storage.write_json(storage.join(here, "round.json"), record)


def _ask(
    folder: str,
    number: int,
    trajectory: Trajectory,
    arm: Arm,
    ground: Ground,
    annotator: Oracle | People,
    times: PhaseTimes,
    asked: Sequence[str],
    known: pa.Table,
) -> list[str]:
    """Ask what this round asks, and about others in the place of those that got no label: what was answered about.

    What was asked before under the name of a batch is what is asked: a round that waited for people goes on with it.
    """
    held = set(known.filter(pc.is_valid(known["emotion"]))["utterance_id"].to_pylist())
    # Every label has cost one, and so has every second look.
    count = arm.schedule[number] - len(held) - (len(asked) - len(set(asked)))
    picks = list[str]()
    for further in range(FURTHER + 1):
        batch = trajectory.batch(number, further)
        with times.phase("select"):
            chosen = annotator.asked(batch) or _pick(
                folder, number, trajectory, arm, ground, asked, picks, count=count, further=further
            )
        if not chosen:
            break
        with times.phase("label"):
            again = [name for name in chosen if name in held]
            told = annotator.ask(batch, [name for name in chosen if name not in held], again, number)
            answers = annotator.labels(told, number)
        picks += answers["utterance_id"].to_pylist()
        count -= (
            len(told) - answers["emotion"].null_count
        )  # who was not answered about before a deadline is not replaced
        if count <= 0 or arm.pace is not None:
            break
    return picks


def _news(known: pa.Table, answers: pa.Table, picks: Sequence[str]) -> pa.Table:
    """Of all answers those about the picks of a round, and those that are no longer what they were."""
    columns = ("emotion", "answer", "probability")
    before = {row["utterance_id"]: [row[name] for name in columns] for row in known.to_pylist()}
    new = set(picks)
    keep = [
        row["utterance_id"] in new or before.get(row["utterance_id"]) != [row[name] for name in columns]
        for row in answers.to_pylist()
    ]
    return answers.filter(pa.array(keep, pa.bool_()))


def _soft(labelled: pa.Table, others: int, num_classes: int) -> Float | None:
    """Shares of the classes (N, C), of what is labelled and of `others` that are certain; None where all are."""
    if labelled["probability"].null_count == labelled.num_rows:
        return None
    nothing = [np.nan] * num_classes
    rows = [nothing if row is None else row for row in labelled["probability"].to_pylist()]
    return np.array([*rows, *[nothing] * others], np.float32)


def _score_pool(
    model: str,
    rest: Utterances,
    heard: tuple[Utterances, NDArray[np.int64], Utterances],
    arm: Arm | None,
    ground: Ground,
    seed: int,
) -> tuple[Float, dict[str, NDArray[Any]]]:
    """Probabilities of the unlabelled rest, and what else the arm's next selection reads (None = there is none).

    `heard` is what has a label, (N,), its labels, and what was found unusable.
    """
    needs = frozenset[str]() if arm is None else arm.strategy.needs
    asked = "dropout_SNC" in needs
    passes = ground.dropout_passes if asked and not ground.ensemble else 0
    scores, seen = score(model, ground.store, rest, dropout_passes=passes, seed=seed), dict[str, NDArray[Any]]()
    if asked:
        seen["dropout_SNC"] = scores.dropout_SNC
    if not needs & {"embedding_ND", "labelled_doubt_M"}:
        return scores.probability_NC, seen
    train, label_N, rejected = heard
    embedding_MD, rejected_MD = (score(model, ground.store, part).embedding_NU for part in (train, rejected))
    if "embedding_ND" in needs:
        both_MD = np.concatenate([embedding_MD, rejected_MD])
        seen |= {"embedding_ND": scores.embedding_NU, "labelled_embedding_MD": both_MD}
    if "labelled_doubt_M" in needs:
        none_M = np.zeros(len(rejected.ids), np.float32)
        seen["labelled_doubt_M"] = np.concatenate([doubt(embedding_MD, label_N, seed), none_M])
    seen["rejected_M"] = np.repeat([False, True], [len(train.ids), len(rejected.ids)])
    return scores.probability_NC, seen


def _members(
    here: str,
    rest: Utterances,
    target: Targets,
    fit: Callable[[str, Targets, int], dict[str, Any]],
    ground: Ground,
    seed: int,
) -> Iterator[Float]:
    """Probabilities of the unlabelled rest, (N, C), by one further model after the other.

    Each has a seed of its own and the labels weighed by a draw of the Bayesian bootstrap (Rubin 1981), so that heads,
    which have one optimum, differ too and no class is ever without a label.
    """
    for member in range(ground.ensemble):
        rng = np.random.default_rng([seed, member])
        weight_N = rng.exponential(size=len(target.label_N)).astype(np.float32)
        folder = storage.join(here, "ensemble")
        fit(folder, replace(target, weight_N=weight_N / weight_N.mean()), int(rng.integers(2**31)))
        yield score(storage.join(folder, "model"), ground.store, rest).probability_NC
        storage.remove(folder)


def _write_seen(here: str, rest: Utterances, heard: Sequence[str], seen: dict[str, NDArray[Any]]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, ids=np.array(rest.ids), labelled_ids=np.array(heard), **seen)
    storage.write_bytes(storage.join(here, SELECTION), buffer.getvalue())


def _agreement(folder: str, number: int, rest: Utterances, rest_NC: Float, classes: Sequence[str]) -> float | None:
    """Kappa of the predictions for the unlabelled rest and those of the round before; None without either."""
    if number == 0 or not rest.ids:
        return None
    before_NC = _read_scores(round_folder(folder, number - 1), rest.ids, classes)
    return cohen_kappa(before_NC.argmax(1), rest_NC.argmax(1), len(classes))


def _latest(labelled: pa.Table) -> pa.Table:
    """The last answer about each utterance, in the order in which they were first asked about."""
    row_of = {name: row for row, name in enumerate(labelled["utterance_id"].to_pylist())}
    return labelled.take(pa.array(row_of.values(), pa.int64()))


def _minutes(ground: Ground, asked: Sequence[str], pace: PaceOptions) -> float:
    """Minutes that these questions took."""
    rows = ground.metadata.take(rows_of(ground.metadata["utterance_id"].to_pylist(), asked))
    return float(pace.seconds(np.asarray(rows["duration_s"])).sum()) / 60


def _pick(
    folder: str,
    number: int,
    trajectory: Trajectory,
    arm: Arm,
    ground: Ground,
    asked: Sequence[str],
    picked: Sequence[str],
    *,
    count: float,
    further: int,
) -> list[str]:
    """The ids to ask about in this round, after those that were `asked` about before it and `picked` in it so far."""
    rest = sorted(set(ground.fold.train) - set(asked))
    left = sorted(set(rest) - set(picked))
    count = min(count, len(left))
    if arm.pace is None and count == len(left):
        return left
    if arm.pace is None and count <= 0:
        return []
    options = arm.initial if number == 0 else arm.strategy
    if further:  # in the place of new clips
        options = options.model_copy(update={"wrappers": [w for w in options.wrappers if w.name != "relabel"]})
    seen = _first_view(ground, rest) if number == 0 else _view(folder, number - 1, rest, options, ground.classes)
    if "surprisal_NK" in options.needs:
        seen["surprisal_NK"] = read_vectors(str(ground.surprisal), rest)
    rows = ground.metadata.take(rows_of(ground.metadata["utterance_id"].to_pylist(), rest))
    candidates = Candidates(ids=np.asarray(rest), **known_of(rows), **seen).but(sorted(set(rest) & set(picked)))
    rng = trajectory.generator(number, f"select.{further}" if further else "select")
    if arm.pace is None:
        return select(options, candidates, int(count), rng)
    minutes = arm.schedule[number] - _minutes(ground, asked, arm.pace)
    if number and not (arm.pace.seconds(candidates.need("duration_s")) <= 60 * minutes).any():
        return []  # earlier rounds left too little
    return select_for_minutes(options, Parts([PoolPart(candidates)]), minutes, rng, arm.pace).ids


def _first_view(ground: Ground, rest: Sequence[str]) -> dict[str, Any]:
    """Before any model: the middle layer's means, standardised."""
    mean_NLD = ground.utterances(rest).mean_NLD
    middle_ND = mean_NLD[:, mean_NLD.shape[1] // 2]
    return {"embedding_ND": (middle_ND - middle_ND.mean(0)) / np.maximum(middle_ND.std(0), 1e-6)}


def _view(
    folder: str, number: int, rest: Sequence[str], options: StrategyOptions, classes: Sequence[str]
) -> dict[str, Any]:
    """What round `number` left behind about the candidates: probabilities, and what else the strategy reads."""
    here = round_folder(folder, number)
    seen: dict[str, Any] = {"probability_NC": _read_scores(here, rest, classes)}
    if options.needs & {"embedding_ND", "dropout_SNC", "labelled_doubt_M"}:
        with np.load(io.BytesIO(storage.read_bytes(storage.join(here, SELECTION))), allow_pickle=False) as kept:
            if kept["ids"].tolist() != list(rest):
                raise StateError(f"{here}/{SELECTION} is about other utterances than this round's candidates")
            seen |= {name: kept[name] for name in kept.files if name != "ids"}
    return seen


def round_folder(folder: str, number: int) -> str:
    """The folder of a round."""
    return storage.join(folder, "rounds", f"{number:04d}")


def read_rounds(folder: str) -> list[RoundSummary]:
    """The complete rounds of a trajectory in order. Raises StateError on a gap."""
    complete = _complete(folder)
    if complete != [f"{number:04d}" for number in range(len(complete))]:
        raise StateError(f"{folder} has complete rounds {', '.join(complete)}: one in between is missing")
    records = [storage.read_json(storage.join(folder, "rounds", n, "round.json")) for n in complete]
    names = ("round", "labelled", "dev_uar", "uncertainty", "kappa", "stop_reason")
    return [RoundSummary(**{name: record.get(name) for name in names}) for record in records]


def count_rounds(folder: str) -> int:
    """How many rounds of a trajectory are complete."""
    return len(_complete(folder))


def _complete(folder: str) -> list[str]:
    numbers = storage.list_names(storage.join(folder, "rounds"))
    return [n for n in numbers if storage.exists(storage.join(folder, "rounds", n, "round.json"))]


def read_predictions(folder: str, part: str) -> list[dict[str, list[float]]]:
    """Of every complete round, the class probabilities of the clips of one part: pool, dev or test."""
    found = []
    for number in range(count_rounds(folder)):
        table = storage.read_table(storage.join(round_folder(folder, number), "predictions.parquet"))
        table = table.filter(pc.equal(table["part"], part))
        columns = [np.asarray(table[name]) for name in table.column_names if name.startswith("p_")]
        found.append(dict(zip(table["utterance_id"].to_pylist(), np.stack(columns, 1).tolist(), strict=True)))
    return found


def read_labels(folder: str, rounds: int) -> pa.Table:
    """All answers of the first `rounds` rounds, schema.LABEL."""
    uris = [storage.join(round_folder(folder, number), "labels.parquet") for number in range(rounds)]
    return storage.read_tables(uris, LABEL)


def read_picks(folder: str, rounds: int) -> list[str]:
    """What was asked in the first `rounds` rounds, in order; clips with a label may stand there twice."""
    uris = [storage.join(round_folder(folder, number), "picks.parquet") for number in range(rounds)]
    picks: list[str] = storage.read_tables(uris, PICK)["utterance_id"].to_pylist()
    return picks


def _read_scores(here: str, ids: Sequence[str], classes: Sequence[str]) -> Float:
    """Probabilities (N, C) of the pool that a round left behind, in the order of `ids`."""
    table = storage.read_table(storage.join(here, "predictions.parquet"))
    table = table.filter(pc.equal(table["part"], "pool")).sort_by("utterance_id")
    rows = rows_of(table["utterance_id"].to_pylist(), ids)
    return np.stack([np.asarray(table[f"p_{name}"], np.float32)[rows] for name in classes], axis=1)


def _picks_table(picks: Sequence[str], arm: Arm, number: int) -> pa.Table:
    name = (arm.initial if number == 0 else arm.strategy).name
    if name == "auto":
        name = recommended(model=number > 0).name
    rows = [{"utterance_id": p, "order": i, "strategy": name, "round": number} for i, p in enumerate(picks)]
    return pa.Table.from_pylist(rows, PICK)


def _predictions(part: str, units: Utterances, probability_NC: Float, classes: Sequence[str]) -> pa.Table:
    columns: dict[str, Any] = {
        "utterance_id": units.ids,
        "part": [part] * len(units.ids),
        "predicted": [classes[index] for index in probability_NC.argmax(1)],
    }
    columns |= {f"p_{name}": probability_NC[:, index] for index, name in enumerate(classes)}
    return pa.table(columns, schema=prediction_schema(list(classes)))


def _describe(trajectory: Trajectory, arm: Arm, ground: Ground) -> dict[str, Any]:
    rows = ground.metadata.take(rows_of(ground.metadata["utterance_id"].to_pylist(), ground.fold.test))
    return {
        "arm": trajectory.arm,
        "fold": trajectory.fold,
        "seed": trajectory.seed,
        "fold_name": ground.fold.name,
        "schedule": list(arm.schedule),
        "counts": "answers" if arm.pace is None else "minutes",
        "n_train": len(ground.fold.train),
        "n_dev": len(ground.fold.dev),
        "n_test": len(ground.fold.test),
        "test_speakers": sorted(set(rows["speaker"].to_pylist())),
    }
