"""People as annotators of the loop: asked through the ledger, heard as a consensus.

RUN/labels.sqlite          the ledger, unless `people.ledger` names another
RUN/evaluation.parquet     what the evaluation set was said to be, schema.label_schema: settled before the first round

Batches in the ledger:
    evaluation                        clips of dev and test speakers, drawn at random, before anything else
    <trajectory>/round-0003           the picks of a round
    <trajectory>/round-0003.1         further ones in the place of those that got no label
    <trajectory>/round-0003.relabel   clips that have a label, for another person to hear
"""

from __future__ import annotations

import functools
import time
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import AwaitingLabels, LabelError, OptionError
from seral.labels.consensus import consensus, of_labels, usual_method, votes_by_clip
from seral.labels.crowd import Votes, votes_of
from seral.labels.ledger import Ledger
from seral.labels.options import PeopleOptions
from seral.labels.records import Progress, Project
from seral.pool.ids import Ids
from seral.pool.splits import Fold
from seral.progress import track
from seral.schema import label_schema

EVALUATION, RELABEL = "evaluation", ".relabel"
POLL_S = 5.0
"""Between two looks into the ledger, while waiting."""


def ledger_url(run: str, options: PeopleOptions) -> str:
    """The address of the ledger of a run. Raises OptionError for a database file that cannot be where the run is."""
    if options.ledger is not None:
        return storage.absolute(options.ledger)
    if "://" in run:
        raise OptionError(f"no database file can be at {run}: name a database server in people.ledger")
    return storage.join(storage.absolute(run), "labels.sqlite")


class People:
    """The people of a run, in the place of an oracle."""

    name = "people"

    def __init__(
        self, run: str, options: PeopleOptions, classes: Sequence[str], dimensions: Sequence[str] = ()
    ) -> None:
        self._run, self._options = run, options
        self._classes, self._dimensions = tuple(classes), tuple(dimensions)
        project = Project(classes=self._classes, dimensions=self._dimensions)
        self._ledger = Ledger.create(ledger_url(run, options), project)
        self._evaluation = storage.join(run, "evaluation.parquet")

    def close(self) -> None:
        """Let go of the ledger."""
        self._ledger.close()

    # The evaluation set

    def ask_evaluation(self, fold: Fold, seed: int) -> None:
        """Ask about clips of dev and test, drawn at random."""
        ids = draw_evaluation(fold, self._options.evaluation, seed)
        self._ledger.ask(EVALUATION, ids, purpose="evaluation", **self._slots())

    def evaluated(self, fold: Fold) -> Fold:
        """The fold with what people gave a label of dev and test, settled from now on. Raises AwaitingLabels."""
        if not storage.exists(self._evaluation):
            self._await([EVALUATION])
            storage.write_table(self._evaluation, self.labels(self._ledger.asked(EVALUATION), -1))
        settled = set(self._settled())
        dev, test = (Ids(name for name in part if name in settled) for part in (fold.dev, fold.test))
        for part, ids, wanted in (("dev", dev, fold.dev), ("test", test, fold.test)):
            if wanted and not ids:
                raise LabelError(f"people gave no clip of the {part} speakers a label: raise people.evaluation")
        return replace(fold, dev=dev, test=test)

    def shares(self, ids: Sequence[str]) -> None:
        """Nothing: the evaluation set is settled by one label a clip."""

    def ratings(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Mean ratings of clips of the evaluation set, (N, K), NaN where there are none."""
        settled = self._settled() if self._dimensions and ids else {}
        rows = [settled.get(name, {}) for name in ids]
        values = [[np.nan if row.get(key) is None else row[key] for key in self._dimensions] for row in rows]
        return np.array(values, np.float32).reshape(len(ids), len(self._dimensions))

    def emotions(self, ids: Sequence[str]) -> list[str | None]:
        """The emotions of clips of the evaluation set; None where one is rated and no more. Raises LabelError for one
        without a label."""
        settled = self._settled() if ids else {}
        if missing := [name for name in ids if name not in settled]:
            raise LabelError(f"no label for {len(missing)} clips to evaluate on, e.g. {', '.join(missing[:5])}")
        return [settled[name]["emotion"] for name in ids]

    def votes(self, ids: Sequence[str]) -> Votes | None:
        """Answers that name one class, of everybody about each clip, where raters are to be learnt; else None."""
        if self._options.consensus != "crowd":
            return None
        votes = votes_by_clip(self._ledger.answers(), self._classes)
        return votes_of([votes.get(name, []) for name in ids])

    def _settled(self) -> dict[str, dict[str, Any]]:
        """Rows of the evaluation set that have an emotion or ratings, by id."""
        table = storage.read_table(self._evaluation)
        columns = ["emotion", *self._dimensions]
        table = table.filter(functools.reduce(pc.or_, (pc.is_valid(table[name]) for name in columns)))
        return {row["utterance_id"]: row for row in table.select(["utterance_id", *columns]).to_pylist()}

    # Rounds

    def asked(self, batch: str) -> list[str]:
        """The ids that were asked about under this name before; [] = none."""
        new = self._ledger.asked(batch)
        return [*new, *self._ledger.asked(batch + RELABEL)] if new else []

    def ask(self, batch: str, new: Sequence[str], again: Sequence[str], round_number: int) -> list[str]:
        """Ask about new clips, and another person about each that has a label; returns what was asked.

        Of the latter, those that everybody here has heard are left out. Raises AwaitingLabels until enough is answered.
        """
        people_of = self._people_of(again)
        everybody = {row.name for row in self._ledger.people() if row.token_hash is not None}
        again = [name for name in again if not everybody or everybody - people_of[name]]
        # Second looks first: a batch that is there says that these are too.
        if again:
            once = {**self._slots(), "overlap": 1}
            self._ledger.ask(batch + RELABEL, again, purpose="relabel", round=round_number, **once)
        asked = self._ledger.ask(batch, new, purpose="round", round=round_number, **self._slots())
        self._await([batch, batch + RELABEL])
        return [*asked, *self._ledger.asked(batch + RELABEL)]

    def labels(self, ids: Sequence[str], round_number: int) -> pa.Table:
        """The labels of clips by all answers so far, schema.label_schema; clips without an answer have no row."""
        answers = self._ledger.answers()
        method = self._options.consensus or usual_method(self._options.overlap)
        table = consensus(answers, self._classes, of_labels(method), self._dimensions)
        consensus_of = {row["utterance_id"]: row for row in table.to_pylist()}
        asked = answers.filter(pc.not_equal(answers["purpose"].fill_null(""), "check"))
        passed = set(asked["utterance_id"].to_pylist())
        rows = [
            self._label(name, consensus_of.get(name), round_number)
            for name in dict.fromkeys(ids)
            if name in consensus_of or name in passed
        ]
        return pa.Table.from_pylist(rows, label_schema(self._dimensions))

    def _label(self, name: str, agreed: dict[str, Any] | None, round_number: int) -> dict[str, Any]:
        row = {"utterance_id": name, "annotator": self.name, "round": round_number}
        if agreed is None:
            return row | {"answer": "skipped"}
        probability = agreed["probability"] if self._options.targets == "soft" else None
        ratings = {key: agreed[key] for key in self._dimensions}
        if None in ratings.values():
            ratings = {}  # a clip is rated in all dimensions or in none
        if agreed["emotion"] is None and probability is None and not ratings:
            return row | {"answer": "unusable" if agreed["unusable"] else "disputed"}
        return row | {"answer": "label", "emotion": agreed["emotion"], "probability": probability} | ratings

    def _people_of(self, ids: Sequence[str]) -> dict[str, set[str]]:
        people_of, wanted = defaultdict[str, set[str]](set), set(ids)
        answers = self._ledger.answers()
        for name, person in zip(*(answers[column].to_pylist() for column in ("utterance_id", "person")), strict=True):
            if name in wanted:
                people_of[name].add(person)
        return people_of

    def _slots(self) -> dict[str, int]:
        return {"overlap": self._options.overlap, "max_skips": self._options.max_skips}

    # Waiting

    def pending(self) -> list[Progress]:
        """Batches of the loop that lack answers, in the order in which they were asked."""
        return [batch for batch in self._ledger.progress() if is_of_loop(batch) and not self._ready(batch)]

    def check_rounds(self) -> None:
        """Raise AwaitingLabels when a round lacks answers."""
        if lacking := [batch for batch in self.pending() if batch.batch != EVALUATION]:
            raise AwaitingLabels(self._message(lacking))

    def wait(self) -> None:
        """Return when no batch of the loop lacks answers, showing how far they are."""
        batches = self.pending()
        before = sum(batch.done for batch in batches)
        with track("clips labelled", sum(batch.questions for batch in batches)) as advance:
            advance(before)
            names = {batch.batch for batch in batches}
            while self.pending():
                time.sleep(POLL_S)
                done = sum(batch.done for batch in self._ledger.progress() if batch.batch in names)
                advance(done - before)
                before = done

    def _await(self, names: Sequence[str]) -> None:
        """Raise AwaitingLabels until these batches, as far as they exist, have enough answers; then close them."""
        batches = [batch for batch in self._ledger.progress() if batch.batch in names]
        if lacking := [batch for batch in batches if not self._ready(batch)]:
            raise AwaitingLabels(self._message(lacking))
        for batch in batches:
            if not batch.closed and batch.done < batch.questions:
                self._ledger.shut(batch.batch)

    def _ready(self, batch: Progress) -> bool:
        if batch.closed or batch.done >= self._options.enough * batch.questions - 1e-9:
            return True
        hours = (time.time() - batch.asked_at) / 3600
        return batch.answers > 0 and self._options.deadline_h is not None and hours >= self._options.deadline_h

    def _message(self, lacking: Sequence[Progress]) -> str:
        batches = " and ".join(awaited(batch) for batch in lacking)
        present, most = len(self._ledger.people()), self._options.overlap
        few = f" There are {present} people, and {most} are to hear each clip." if present < most else ""
        return (
            f"awaiting labels: {batches}.{few} People answer at the page of `seral labels serve {self._run}`; "
            "run the same command again, and it goes on here"
        )


def awaited(batch: Progress) -> str:
    """The progress of a batch in words."""
    return f"{batch.done} of {batch.questions} clips of {batch.batch} are labelled"


def is_of_loop(batch: Progress) -> bool:
    """True for what the loop asked, and not somebody beside it."""
    return batch.purpose in {"evaluation", "round"} or batch.batch.endswith(RELABEL)


def draw_evaluation(fold: Fold, count: int, seed: int) -> list[str]:
    """Up to `count` clips, one half of dev and one of test, or all of test, each uniformly at random, in turns.

    In any first part of them both halves are as good a sample as in all.
    """
    rng = np.random.default_rng([seed, zlib.crc32(EVALUATION.encode())])
    of_dev = count // 2 if fold.dev else 0
    shares = ((fold.dev, of_dev), (fold.test, count - of_dev))
    drawn = [rng.permutation(np.asarray(part))[:share].tolist() for part, share in shares]
    return [name for pair in zip_longest(*drawn) for name in pair if name is not None]
