"""Ask and tell: the loop's own rounds for programs that get the labels themselves, such as notebooks.

FOLDER/config.yaml       the options, as of a run of the loop
FOLDER/answers.json      what was asked in every round, and the answers
FOLDER/pool/             the pool, where the session was begun on loose audio
FOLDER/trajectories/     the rounds, see seral.loop.rounds
"""

# N clips · S samples
from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ser_models.registry import allow
from seral import storage
from seral.audio.decode import decode_flac
from seral.errors import LabelError, OptionError, StateError, unknown_name
from seral.labels.crowd import Votes
from seral.loop.folders import read_rounds, round_folder
from seral.loop.growth import first_folds
from seral.loop.learning import restore_selection
from seral.loop.loop import folds_with_features, stores_of
from seral.loop.options import LoopOptions
from seral.loop.picking import pick
from seral.loop.pool_scores import prediction_table
from seral.loop.rounds import Arm, LoopFold, PhaseTimes, Round, Trajectory
from seral.loop.stopping import RoundSummary
from seral.loop.trajectory import complete_round
from seral.loop.writing import describe_trajectory
from seral.options import parse
from seral.pool.ids import Ids
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.quality_filter import below_quality
from seral.pool.shards import MANIFEST, Pool, split_address
from seral.pool.splits import Fold
from seral.schema import SECONDS, label_schema
from seral.task.context import open_run
from seral.task.eligibility import askable, eligible
from seral.training.scoring import Scorer

if TYPE_CHECKING:
    import pandas as pd

Answer = str | Mapping[str, float] | None
"""A class; or numbers: shares of classes, ratings of dimensions, or both; None = the clip is unusable."""

FIXED: dict[str, Any] = {"random_arm": False, "full_arm": False, "probe": False}
"""Options of the loop that compare arms, which a session has one of."""
REFUSED = {*FIXED, "pool", "run", "seeds", "people", "budget", "stop", "others", "votes", "grown"}
REFUSED |= {"dev", "track"}
"""Options of the loop that a session decides by what it is asked and told, or cannot have."""
MAY_CHANGE = {"run", "cluster"}
ANSWERS = "answers.json"


class Session:
    """Active learning step by step: ask which clips to label, tell what they are, predict.

        session = Session("data/pool", "sessions/mine", classes=["anger", "neutral", "sadness"])
        ids = session.ask(10)
        session.tell({name: listen_to(session.audio(name)) for name in ids})
        session.predict()

    `pool` is a pool, a folder of audio, or a table with a column of paths (`audio`) and what else a manifest may say,
    such as `speaker`; gold labels are read of `source_corpora` alone, which teach. All else may be asked about, or with
    `split` the training part of a fold, the first of `folds`, whose test part may be predicted. `strategy` is a name,
    options, or a function `(candidates, k, rng, *, options) -> ids`. Further options are those of `seral loop run`,
    whose picks are the same for the same answers.

    Everything is written to `folder`: a session that is made again with the same options goes on.
    """

    def __init__(
        self,
        pool: str | Path | pd.DataFrame,
        folder: str | Path,
        *,
        strategy: str | Mapping[str, Any] | Callable[..., Any] = "auto",
        seed: int = 0,
        **options: Any,
    ) -> None:
        if wrong := sorted(REFUSED & options.keys()):
            raise OptionError(f"a session has no option {wrong[0]}: run the loop, `seral loop run`, to have it")
        self.folder = storage.absolute(folder)
        chosen = f"{strategy.__module__}:{strategy.__name__}" if callable(strategy) else strategy
        values = options | FIXED | {"strategy": chosen, "seeds": [seed], "run": self.folder}
        allow(values)
        values["pool"] = _pool_of(pool, self.folder)
        opened = open_run(parse(LoopOptions, values), "session", MAY_CHANGE)
        self.pool = opened.pool
        number, self._fold = _open_fold(opened.options, self.pool, whole="split" not in values)
        self._trajectory = Trajectory(arm=opened.options.strategy.name, fold=number, seed=seed)
        self._path = storage.join(self.folder, "trajectories", self._trajectory.name)
        self._answers = SessionAnswers(storage.join(self.folder, ANSWERS), self._fold)

    def ask(self, k: int) -> list[str]:
        """Ids of k clips to label next, those first that the strategy prefers; fewer where no more are left, and where
        `candidates_per_round` is less.

        What was told since the last question is learnt from first. Clips of that question without an answer come back
        among the others; asked again without any, it gives them anew.
        """
        if k < 1:
            raise OptionError(f"ask for one clip at least, got {k}")
        with self._working():
            self._learn()
            this = self._round(read_rounds(self._path))
            batch = this.trajectory.batch(this.number, 0)
            unusable_ids = self._answers.asked(batch)  # a label would have made a round of them
            restore_selection(this)
            picks = pick(this, unusable_ids, count=k, further=1 if unusable_ids else 0)
            self._answers.note_question(batch, [*unusable_ids, *picks.ids])
            return picks.ids

    def tell(self, answers: Mapping[str, Answer]) -> None:
        """Say what clips are, those that were asked about or any others of the session.

        A class; or numbers, {class: share} where it is not certain, {dimension: rating}; None for one without usable
        speech. The last word counts, a correction from the next label on. Raises LabelError for a clip or a class that
        is none of the session's, and then takes none of them.
        """
        batch = self._trajectory.batch(len(read_rounds(self._path)), 0)
        self._answers.take(answers, batch)

    def predict(self, ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Outputs of the model of all answers so far, for all clips of the session or some: a row a clip, with
        `predicted` and a column a class (`p_<class>`) and dimension. Before anything was told it is the model of
        `source_corpora`, and without them StateError is raised."""
        with self._working():
            self._learn()
            data = self._fold.data
            names = self._present(data.fold.train if ids is None else ids)
            if rounds := read_rounds(self._path):
                model = storage.join(round_folder(self._path, rounds[-1].round), "model")
            elif self._fold.models is not None:
                model = self._fold.models.folder
            else:
                raise StateError("there is no model yet: ask for clips, and tell what they are")
            outputs = Scorer(model, data.store, self._fold.options.cluster, data.shifts)(data.utterances(names))
            table = prediction_table("pool", names, outputs, data.classes, data.dimensions)
            return _frame(table.drop_columns("part"))

    def rounds(self) -> pd.DataFrame:
        """A row a round: how many labels it learnt from, and the score of its model on them, speakers left out in turn
        (UAR, or without classes CCC; none while there are too few)."""
        import pandas as pd

        rows = [
            {"round": done.round, "labelled": done.labelled, "uar" if self._fold.data.classes else "ccc": done.dev}
            for done in read_rounds(self._path)
        ]
        return pd.DataFrame(rows)

    @property
    def labels(self) -> dict[str, Answer]:
        """All answers so far, by clip."""
        return dict(self._answers.answers)

    @property
    def test(self) -> list[str]:
        """Ids of the test part of the fold, which may be predicted and not told; none where all may be asked about."""
        return list(self._fold.data.fold.test)

    def audio(self, clip: str) -> NDArray[np.float32]:
        """Samples of a clip at 16 kHz, (S,): in a notebook `IPython.display.Audio(session.audio(id), rate=16_000)`."""
        return next(decode_flac(flac) for _, flac in self.pool.clips(self._present([clip])))

    def metadata(self, ids: Sequence[str]) -> pd.DataFrame:
        """Speaker, language, seconds, quality and what else the pool says of clips, a row each."""
        return _frame(self._fold.rows(self._present(ids)))

    def _present(self, ids: Iterable[str]) -> list[str]:
        """The ids, or LabelError for one that is no clip of the session's, its test part included."""
        parts = self._fold.data.fold
        return _checked(ids, {*parts.train, *parts.test})

    @contextmanager
    def _working(self) -> Iterator[None]:
        """One thread, as in a run of the loop, since sums depend on how many there are; the folder is in use."""
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with storage.writing_to(self.folder):
                yield
        finally:
            torch.set_num_threads(threads)

    def _learn(self) -> None:
        """Complete the round whose question has a label by now."""
        before = read_rounds(self._path)
        batch = self._trajectory.batch(len(before), 0)
        if not any(self._answers.answers[name] is not None for name in self._answers.asked(batch)):
            return
        arm = self._round(before).arm
        facts = describe_trajectory(self._trajectory, arm, self._fold)
        storage.write_json(storage.join(self._path, "trajectory.json"), facts)
        complete_round(self._path, self._trajectory, arm, self._fold, self._answers, before)

    def _round(self, before: Sequence[RoundSummary]) -> Round:
        """The round after those before; its budget is what was told, and another clip follows while there is one."""
        options, answers = self._fold.options, self._answers.answers
        labelled = sum(answer is not None for answer in answers.values())
        more = (labelled + 1,) if len(answers) < len(self._fold.data.fold.train) else ()
        schedule = (*(done.labelled for done in before), labelled, *more)
        return Round(
            number=len(before),
            folder=self._path,
            path=self._path,
            trajectory=self._trajectory,
            arm=Arm(initial=options.initial, strategy=options.strategy, schedule=schedule),
            fold=self._fold,
            annotator=self._answers,
        )


class SessionAnswers:
    """Answers of a session in a file, as an annotator of the loop's rounds (seral.labels.annotator)."""

    name = "session"

    def __init__(self, uri: str, fold: LoopFold) -> None:
        self._uri = uri
        self._clips = set(fold.data.fold.train)
        self._classes, self._dimensions = fold.data.classes, fold.data.dimensions
        content = storage.read_json(uri) if storage.exists(uri) else {"questions": {}, "answers": {}}
        self._questions: dict[str, list[str]] = content["questions"]
        self.answers: dict[str, Answer] = content["answers"]

    def note_question(self, batch: str, ids: Sequence[str]) -> None:
        """Write down what a round asks, in the place of what it asked before."""
        self._questions[batch] = list(ids)
        self._write()

    def take(self, answers: Mapping[str, Answer], batch: str) -> None:
        """Write down answers; a first one joins the batch, whichever round asked, if any did. Raises LabelError."""
        _checked(answers, self._clips)
        for answer in answers.values():
            self._check(answer)
        asked = self._questions.setdefault(batch, [])
        asked += [name for name in answers if name not in asked and name not in self.answers]
        self.answers |= {name: dict(a) if isinstance(a, Mapping) else a for name, a in answers.items()}
        self._write()

    def _check(self, answer: Answer) -> None:
        if isinstance(answer, Mapping):
            names = (*self._classes, *self._dimensions)
            if wrong := [name for name in answer if name not in names]:
                raise LabelError(unknown_name("class or dimension", str(wrong[0]), names))
            shares = [answer[name] for name in self._classes if name in answer]
            rated = [name for name in self._dimensions if name in answer]
            if shares and not (min(shares) >= 0 and abs(sum(shares) - 1) < 1e-3):
                raise LabelError(f"shares of classes sum to 1, got {answer}")
            if not answer or (rated and len(rated) < len(self._dimensions)):
                raise LabelError(f"rate {', '.join(self._dimensions) or 'nothing'}, all of them, got {answer}")
        elif answer is not None and answer not in self._classes:
            raise LabelError(unknown_name("class", str(answer), self._classes))

    def _write(self) -> None:
        storage.write_json(self._uri, {"questions": self._questions, "answers": self.answers})

    def labels(self, ids: Sequence[str], round_number: int) -> pa.Table:
        """The labels of clips that were answered about, schema.label_schema."""
        rows = [self._row(name) | {"round": round_number} for name in dict.fromkeys(ids) if name in self.answers]
        return pa.Table.from_pylist(rows, label_schema(self._dimensions))

    def _row(self, name: str) -> dict[str, Any]:
        answer = self.answers[name]
        row: dict[str, Any] = {"utterance_id": name, "annotator": self.name, "answer": "label"}
        if answer is None:
            return row | {"answer": "unusable"}
        if isinstance(answer, str):
            return row | {"emotion": answer}
        share_C = [float(answer.get(name, 0.0)) for name in self._classes]
        if any(share_C):
            best = [name for name, share in zip(self._classes, share_C, strict=True) if share == max(share_C)]
            row |= {"emotion": best[0] if len(best) == 1 else None, "probability": share_C}
        return row | {name: float(answer[name]) for name in self._dimensions if name in answer}

    def asked(self, batch: str) -> list[str]:
        """The ids of a batch that were answered about."""
        return [name for name in self._questions.get(batch, []) if name in self.answers]

    def ask(self, batch: str, new: Sequence[str], again: Sequence[str], round_number: int) -> list[str]:
        """All of the ids: a round is made when its answers are there."""
        return [*new, *again]

    def close(self) -> None:
        """Nothing is held open."""

    def ask_evaluation(self, fold: Fold, seed: int) -> None:
        """Nothing to ask: a session judges by the labels it has."""

    def evaluated(self, fold: Fold) -> Fold:
        """The fold without dev and test."""
        return replace(fold, dev=Ids(), test=Ids())

    def emotions(self, ids: Sequence[str]) -> list[str | None]:
        """None for each clip."""
        return [None] * len(ids)

    def ratings(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Nothing but NaN, (N, K)."""
        return np.full((len(ids), len(self._dimensions)), np.nan, np.float32)

    def shares(self, ids: Sequence[str]) -> NDArray[np.float32] | None:
        """None: nobody votes."""
        return None

    def votes(self, ids: Sequence[str]) -> Votes | None:
        """None: nobody votes."""
        return None


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _checked(ids: Iterable[str], clips: Collection[str]) -> list[str]:
    names = list(ids)
    if strange := [name for name in names if name not in clips]:
        raise LabelError(f"no clip {strange[0]!r} in this session: take ids that it asked about")
    return names


def _pool_of(speech: str | Path | pd.DataFrame, folder: str) -> str:
    """The address of a pool; audio without one becomes one in the folder of the session."""
    if not isinstance(speech, str | Path):
        root = storage.join(folder, "manifest.jsonl")
        storage.make_folder(folder, private=True)
        storage.write_bytes(root, speech.to_json(orient="records", lines=True).encode())
        values = {"reader": "manifest", "root": root, "corpus": "session", "allow_outside": True}
    elif storage.exists(storage.join(split_address(str(speech))[0], MANIFEST)):
        return str(speech)
    else:
        values = {"reader": "folder", "root": str(speech)}
    import_corpus(parse(ImportOptions, values | {"out": storage.join(folder, "pool")}))
    return storage.join(folder, "pool")


def _open_fold(options: LoopOptions, pool: Pool, *, whole: bool) -> tuple[int, LoopFold]:
    """The clips that a session is about, with their features: all of the pool, or the training part of a fold."""
    metadata = askable(pool, options.corpora)
    folds = {0: Fold(name="all", train=Ids(sorted(metadata["utterance_id"].to_pylist())), dev=Ids(), test=Ids())}
    if not whole:
        folds = first_folds(options, metadata)
    number = min(folds)
    fold = folds[number]
    fold = fold.without(below_quality(fold.train, metadata, options.min_quality)["utterance_id"].to_pylist())
    times = PhaseTimes.resumed(storage.join(options.run, SECONDS))
    stores = stores_of(options, pool, {number: fold}, times)
    taught = eligible(options, pool, options.source_corpora) if options.source_corpora else metadata.slice(0, 0)
    loop_folds = folds_with_features(options, stores, {number: fold}, metadata, taught)
    return number, loop_folds[number]
