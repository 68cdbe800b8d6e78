"""A round's questions and their answers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from seral.loop.folders import latest
from seral.loop.picking import pick, picks_of
from seral.loop.reasons import Reason
from seral.loop.rounds import Round
from seral.selection.parts.local import Picks

FURTHER = 5
"""Times that a round asks again, at most, in the place of clips that got no label."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers that a round has, its own and those of the rounds before."""

    picks: list[str]
    """The ids that the round asked about, as far as they were answered about."""
    asked_ids: list[str]
    """The ids that were asked about so far, `picks` last."""
    changed: pa.Table
    """Answers about the picks, and earlier ones that are no longer what they were, schema.label_schema."""
    labelled: pa.Table
    """The last answer about each utterance, where it names an emotion, how votes on several are shared, or ratings."""
    rejected_ids: list[str]
    """The ids of clips that are unusable."""
    strategy: str | None = None
    """The strategy that picked, where the arm's stands for others and this process has chosen."""
    reasons: tuple[Reason, ...] = ()
    """Reasons of the picks."""

    @property
    def labelled_ids(self) -> list[str]:
        """The ids of the clips that have a label."""
        ids: list[str] = self.labelled["utterance_id"].to_pylist()
        return ids


def collect_answers(this: Round) -> Answers:
    """Ask what the round asks, and read all answers anew: further people may have changed earlier ones."""
    asked = ask(this)
    picks = asked.ids
    asked_ids = [*this.asked_ids, *picks]
    with this.times.phase("label"):
        answers = this.annotator.labels(asked_ids, this.number)
        changed = changed_answers(this.latest_labels, answers, picks, this.data.dimensions)
    labels = latest(pa.concat_tables([this.latest_labels, changed]))
    return Answers(
        picks=picks,
        asked_ids=asked_ids,
        changed=changed,
        labelled=_named(labels, this.data.dimensions),
        rejected_ids=_rejected(labels),
        strategy=asked.strategy,
        reasons=asked.reasons,
    )


def answers_before(this: Round) -> Answers:
    """The answers that the rounds before this one have."""
    return answers_in(this.latest_labels, this.asked_ids, this.data.dimensions)


def answers_in(labels: pa.Table, asked_ids: list[str], dimensions: Sequence[str] = ()) -> Answers:
    """The answers of a table of labels, schema.label_schema, a row a clip, none of them new."""
    return Answers(
        picks=[],
        asked_ids=asked_ids,
        changed=labels.slice(0, 0),
        labelled=_named(labels, dimensions),
        rejected_ids=_rejected(labels),
    )


def _rejected(labels: pa.Table) -> list[str]:
    ids: list[str] = labels.filter(pc.equal(labels["answer"], "unusable"))["utterance_id"].to_pylist()
    return ids


def ask(this: Round) -> Picks:
    """Ask what a round asks, and about others in the place of clips without a label; the ids that were answered about.

    What was asked before under the name of a batch is what is asked: a round that waited for people goes on with it.
    """
    dimensions = this.data.dimensions
    labelled_ids = set(_named(this.latest_labels, dimensions)["utterance_id"].to_pylist())
    # Every label has cost one, and so has every second look.
    second_looks = len(this.asked_ids) - len(set(this.asked_ids))
    count = this.arm.schedule[this.number] - len(labelled_ids) - second_looks
    picks = Picks([], exact=True)
    for further in range(FURTHER + 1):
        batch = this.trajectory.batch(this.number, further)
        with this.times.phase("select"):
            asked_before = this.annotator.asked(batch)
            if asked_before:
                chosen = picks_of(this, picks.ids, asked_before, further=further)
            else:
                chosen = pick(this, picks.ids, count=count, further=further)
        if not chosen.ids:
            break
        with this.times.phase("label"):
            new = [name for name in chosen.ids if name not in labelled_ids]
            again = [name for name in chosen.ids if name in labelled_ids]
            asked_ids = this.annotator.ask(batch, new, again, this.number)
            looked_at = set(again)
            before = [name for name in this.asked_ids if name in looked_at]
            answers = this.annotator.labels([*asked_ids, *before], this.number)
        picks = picks.then(chosen._replace(ids=answers["utterance_id"].to_pylist()))
        # Clips that nobody answered about before a deadline are not replaced.
        count -= len(asked_ids) - (answers.num_rows - _named(answers, dimensions).num_rows)
        if count <= 0 or this.arm.pace is not None:
            break
    return picks


def changed_answers(
    before: pa.Table, answers: pa.Table, picks: Sequence[str], dimensions: Sequence[str] = ()
) -> pa.Table:
    """The answers about the picks of a round, and earlier ones that are no longer what they were."""
    columns = ("emotion", "answer", "probability", *dimensions)
    values_of = {row["utterance_id"]: [row[name] for name in columns] for row in before.to_pylist()}
    new = set(picks)
    keep = [
        row["utterance_id"] in new or values_of.get(row["utterance_id"]) != [row[name] for name in columns]
        for row in answers.to_pylist()
    ]
    return answers.filter(pa.array(keep, pa.bool_()))


def _named(labels: pa.Table, dimensions: Sequence[str]) -> pa.Table:
    """The answers that name an emotion, or the shares of several, or rate the dimensions."""
    columns = ("emotion", "probability", *dimensions)
    return labels.filter(functools.reduce(pc.or_, (pc.is_valid(labels[name]) for name in columns)))
