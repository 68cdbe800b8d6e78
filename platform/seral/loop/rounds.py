"""One round of the loop: what it is about, and the folder of each complete one.

    TRAJECTORY/trajectory.json           arm, fold, seed, sizes, test speakers
    TRAJECTORY/rounds/0003/
        picks.parquet                    what was asked
        reasons.parquet                  why: scores of the picks, where the strategy has any; schema.REASON
        labels.parquet                   what was answered, and what earlier clips are now said to be instead
        model/                           the best-dev model
        predictions/                     outputs of the model: dev.parquet, test.parquet, pool/<shard>.parquet
        ratings.parquet                  with dimensions: true and predicted ratings of the test clips, for the report
        selection/                       what the next round selects by, see seral.loop.pool_scores; gone after it
        metrics.json
        round.json                       written last: without it the round never happened

Everything random is drawn from (seed, fold, arm, round), and what a round needs of the one before it is read back from
its folder. So a trajectory that was killed and resumed is the trajectory that was not.
"""

# N rows · C classes
from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.labels.annotator import Annotator
from seral.loop.annotators import ANNOTATORS
from seral.loop.folders import latest, read_labels, read_picks
from seral.loop.options import LoopOptions
from seral.loop.stopping import StopOptions
from seral.pool.ids import Ids, one_array, positions
from seral.selection.candidates import COLUMNS, WITHOUT_A_MODEL
from seral.selection.options import PaceOptions
from seral.selection.selection import StrategyOptions
from seral.task.examples import Utterances
from seral.task.folds import FoldData
from seral.training.data import SourceModels

OF_A_MODEL = frozenset({"embedding_ND", "labelled_embedding_MD"}) | (frozenset(COLUMNS) - WITHOUT_A_MODEL)
"""Columns of Candidates that a round's model makes."""


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
    """One arm's strategies for the first set and for every later one, and its budget round by round."""

    initial: StrategyOptions
    strategy: StrategyOptions
    schedule: tuple[float, ...]
    """Answers had after each round, or minutes spent."""
    pace: PaceOptions | None = None
    """The cost of a clip; None = the schedule counts answers."""


@dataclass(frozen=True, kw_only=True)
class LoopFold:
    """One fold of a run, as all of its trajectories share it. Holds no label: answers come from an annotator."""

    data: FoldData
    options: LoopOptions
    source: tuple[str, ...]
    """Utterances of other languages whose labels are there from the start."""
    folder: str
    """Folder of what all trajectories of the fold read."""
    models: SourceModels | None = None
    """Models of the source alone, which the first round picks by and labels have to overcome."""
    surprisal: str | None = None
    """Folder of pretraining losses (seral.pretraining.surprisal), where a strategy reads them."""
    processes: int = 1
    """In how many processes the pool is scored and selected from; 1 = in the trajectory's own."""

    @property
    def embedding_width(self) -> int:
        """Numbers of a clip's embedding that are written for strategies."""
        return self.options.embedding_width(len(self.data.fold.train), self.data.store.embedding_width)

    def open_annotator(self) -> Annotator:
        """Whoever answers; who opens it closes it."""
        return ANNOTATORS[self.options.annotator].open(self.options, self.data.store.pool)

    def rows(self, ids: Sequence[str]) -> pa.Table:
        """Metadata of utterances, in the order of the ids."""
        metadata = self.data.metadata
        return metadata.take(positions(pa.array(Ids(ids)), one_array(metadata["utterance_id"])))

    def minutes(self, ids: Sequence[str], pace: PaceOptions) -> float:
        """Minutes that questions about these clips take."""
        return float(pace.seconds(np.asarray(self.rows(ids)["duration_s"])).sum()) / 60


@dataclass
class PhaseTimes:
    """Wall-clock seconds by phase, kept in a file if one is named, and added to over resumes."""

    seconds: dict[str, float] = field(default_factory=dict)
    uri: str | None = None

    @staticmethod
    def resumed(uri: str) -> PhaseTimes:
        """The seconds in a file, which each further phase is written to."""
        return PhaseTimes(storage.read_json(uri) if storage.exists(uri) else {}, uri)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time the block takes to one phase. What the phase freed is given back at its end."""
        started = time.perf_counter()
        try:
            yield
        finally:
            storage.release_memory()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
        if self.uri is not None:
            storage.write_json(self.uri, {key: round(value, 3) for key, value in self.seconds.items()})


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round while it is made: what it is about, who answers, and where it is written."""

    number: int
    folder: str
    """The trajectory's folder, with the rounds before."""
    path: str
    """The folder that the round is written to, which is put in place whole."""
    trajectory: Trajectory
    arm: Arm
    fold: LoopFold
    annotator: Annotator
    times: PhaseTimes = field(default_factory=PhaseTimes)

    @property
    def data(self) -> FoldData:
        """The features of the fold."""
        return self.fold.data

    @property
    def options(self) -> LoopOptions:
        """The options of the run."""
        return self.fold.options

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the run."""
        return self.fold.data.classes

    @property
    def strategy(self) -> StrategyOptions:
        """The strategy that picks in this round."""
        return self.arm.initial if self.number == 0 else self.arm.strategy

    @property
    def needs(self) -> frozenset[str]:
        """Columns of Candidates that the next round's strategy reads."""
        return frozenset() if self.is_last else self.arm.strategy.needs

    @property
    def reads_pool(self) -> bool:
        """Whether anybody reads what the round's model makes of the pool: a strategy of the arm, or a rule to stop."""
        return scores_pool(self.arm.strategy, self.options.stop)

    @property
    def selects_by_model(self) -> bool:
        """Whether the arm's strategy reads what a model makes of the pool."""
        return bool(self.arm.strategy.needs & OF_A_MODEL)

    @property
    def is_last(self) -> bool:
        """True where the budget pays for no further round."""
        return self.number >= len(self.arm.schedule) - 1

    @property
    def seed(self) -> int:
        """The seed of the round's training."""
        return self.trajectory.training_seed(self.number)

    @property
    def model(self) -> str:
        """The folder of the round's model."""
        return storage.join(self.path, "model")

    @cached_property
    def asked_ids(self) -> list[str]:
        """The ids that were asked about in the rounds before; clips with a label may stand there twice."""
        return read_picks(self.folder, self.number)

    @cached_property
    def latest_labels(self) -> pa.Table:
        """The last answer about each utterance in the rounds before, schema.label_schema."""
        return latest(read_labels(self.folder, self.number, self.data.dimensions))

    def unasked(self, asked_ids: Collection[str]) -> Ids:
        """The training utterances that are not among those, sorted."""
        return self.data.fold.train.without(asked_ids)

    def candidates(self, unasked: Ids, number: int) -> Ids:
        """Of the training utterances that nobody was asked about, sorted, those that round `number` chooses from."""
        limit, schedule = self.options.candidates_per_round, self.arm.schedule
        if limit is None:
            return unasked
        if self.arm.pace is None and number < len(schedule):
            limit = max(limit, int(schedule[number] - (schedule[number - 1] if number else 0)))
        rng = self.trajectory.generator(number, "candidates")
        drawn = draw_in_proportion(self.fold.rows(unasked), min(limit, len(unasked)), rng)
        return unasked.take(drawn)

    def utterances(self, ids: Sequence[str]) -> Utterances:
        """Pooled features of utterances."""
        return self.data.utterances(ids)


def scores_pool(strategy: StrategyOptions, stop: StopOptions) -> bool:
    """Whether the models of an arm score the pool: for its strategy, or for a rule to stop."""
    return bool(strategy.needs & OF_A_MODEL) or stop.uncertainty is not None or stop.kappa is not None


def voices(fold: LoopFold, ids: Sequence[str]) -> list[str]:
    """The speaker of each clip, or the clip itself where nobody knows."""
    rows = fold.rows(ids)
    names = pc.binary_join_element_wise(rows["corpus"], rows["speaker"], "/").to_pylist()
    return [name if voice is None else voice for name, voice in zip(ids, names, strict=True)]


def draw_in_proportion(rows: pa.Table, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A systematic sample of `count` of the rows, ascending: of each corpus and speaker its share, within one clip.

    Cochran 1977, Sampling Techniques, chapter 8.
    """
    groups = (pc.rank(pc.fill_null(rows[name], ""), tiebreaker="dense").to_numpy() for name in ("speaker", "corpus"))
    order = np.lexsort((rng.random(rows.num_rows), *groups))
    at = ((rng.random() + np.arange(count)) * (rows.num_rows / max(count, 1))).astype(np.int64)
    return np.sort(order[np.minimum(at, rows.num_rows - 1)])
