"""Consensus: one label for each utterance of all people's answers.

A vote is one person's share of 1 among the classes (`shares`). Of each person about each utterance one answer counts,
the newest with which they did not pass; answers to checks never do. An adjudication replaces all votes for the emotion,
and the ratings of each dimension that it rates; where it says nothing, people's answers count. The ways to put votes
together:

    majority     the class with most votes, and nothing else; a tie has no winner
    soft         the mean of the votes
    dawid-skene  the posterior of the class, given how each person confuses classes: Dawid and Skene 1979

C, classes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import pyarrow as pa

from seral.errors import LabelError, unknown_name
from seral.labels.options import SECONDARY, Method, TargetMethod
from seral.schema import CLASSES_KEY, CONSENSUS

if TYPE_CHECKING:
    import pandas as pd

Answers = Mapping[str, Sequence[dict[str, Any]]]
"""Utterance -> rows of schema.ANSWERS, one a person, by person."""
RATINGS = ("valence", "arousal", "dominance")


def usual_method(raters: float) -> Method:
    """The way to put the votes of so many people a clip together, where nobody has chosen one: docs/people.md.

    Of one person the answer as it is, of two what both say; of more the shares of their votes, which are learnt where
    they are tied, too.
    """
    return "majority" if raters < 3 else "soft"


def of_labels(method: TargetMethod) -> Method:
    """The way to make labels of votes before anything is trained."""
    return "soft" if method == "crowd" else method


@dataclass(frozen=True, kw_only=True)
class DawidSkeneFit:
    """The model of Dawid and Skene, fitted to all votes."""

    posterior: dict[str, np.ndarray]
    """Utterance -> (C,) probability of its class."""
    prior_C: np.ndarray
    """(C,) share of each class."""
    confusion: dict[str, np.ndarray]
    """Person -> (C, C) probabilities: a row for what it is, a column for what they say."""

    def accuracy(self, person: str) -> float | None:
        """The chance that a person names the right class; None for somebody who named none."""
        return float(self.prior_C @ np.diagonal(self.confusion[person])) if person in self.confusion else None


def consensus(
    answers: pa.Table, classes: Sequence[str], method: Method = "majority", dimensions: Sequence[str] = ()
) -> pa.Table:
    """One row of schema.CONSENSUS for each utterance somebody answered about, by id.

    `answers` are schema.ANSWERS, without superseded ones. `unusable` is what more than half of the people said who did
    not pass. The same answers give the same table, in whatever order. Raises LabelError for an unknown class.
    """
    if method not in get_args(Method):
        raise LabelError(unknown_name("consensus", method, get_args(Method)))
    rows = answers.to_pylist()
    asked = [row for row in rows if row["purpose"] != "check"]
    votes, final = current(asked), adjudicated(rows)
    posterior = dawid_skene(votes, final, classes).posterior if method == "dawid-skene" else {}
    table = []
    for name in sorted({row["utterance_id"] for row in asked if row["kind"] in {"label", "unusable"}}):
        answered, decided = votes.get(name, []), final.get(name)
        if decided is not None and settles_emotion(decided):
            row = _label([decided], classes, method, None)
        else:
            row = _label(answered, classes, method, posterior.get(name))
        row["agreement"] = _agreement(answered, classes, row["emotion"])
        ratings = {key: _rating(answered, decided, key) if not row["unusable"] else None for key in dimensions}
        about = {"utterance_id": name, "final": decided is not None, "n_answers": len(answered)}
        table.append(row | ratings | about)
    return pa.Table.from_pylist(table, CONSENSUS.with_metadata({CLASSES_KEY: json.dumps(list(classes))}))


def current(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Utterance -> the newest answer of each person with which they did not pass; no adjudications."""
    newest = {}
    for row in sorted(rows, key=lambda row: int(row["id"])):
        if not row["final"] and row["kind"] in {"label", "unusable"}:
            newest[row["utterance_id"], row["person"]] = row
    rows_of = defaultdict(list)
    for (name, _), row in sorted(newest.items()):
        rows_of[name].append(row)
    return rows_of


def adjudicated(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Utterance -> the newest adjudication that decides something."""
    newest_last = sorted(rows, key=lambda row: int(row["id"]))
    return {row["utterance_id"]: row for row in newest_last if row["final"] and row["kind"] in {"label", "unusable"}}


def settles_emotion(adjudication: Mapping[str, Any]) -> bool:
    """True where a lead said which emotion it is, or that it is none, and not only how to rate it."""
    return bool(adjudication["kind"] == "unusable" or adjudication["emotions"] or adjudication["secondary"])


def votes_by_clip(answers: pa.Table, classes: Sequence[str]) -> dict[str, list[tuple[str, int]]]:
    """Utterance -> people who name one class of it and that class, by person; none where a lead has decided.

    `answers` as for `consensus`.
    """
    rows = [row for row in answers.to_pylist() if row["purpose"] != "check"]
    decided = {name for name, row in adjudicated(rows).items() if settles_emotion(row)}
    return {
        name: [(row["person"], class_index(row["emotions"][0], classes)) for row in one if len(row["emotions"]) == 1]
        for name, one in current(rows).items()
        if name not in decided
    }


def shares(answer: Mapping[str, Any], classes: Sequence[str]) -> np.ndarray:
    """(C,) A person's vote: 1 in all, alike for all primary emotions and half as much for each secondary one.

    All zero where the answer names no class.
    """
    share_C = np.zeros(len(classes))
    for emotions, weight in ((answer["emotions"], 1.0), (answer["secondary"], SECONDARY)):
        for emotion in emotions:
            share_C[class_index(emotion, classes)] += weight
    return share_C / (share_C.sum() or 1.0)


def class_index(emotion: str, classes: Sequence[str]) -> int:
    """The place of a class. Raises LabelError that lists them."""
    try:
        return classes.index(emotion)
    except ValueError:
        raise LabelError(unknown_name("class", emotion, classes)) from None


def winner(share_C: np.ndarray) -> int | None:
    """The class with the largest share; None where it has none, or not alone."""
    if not share_C.any():
        return None
    best = np.flatnonzero(np.isclose(share_C, share_C.max(), rtol=0, atol=1e-9))
    return int(best[0]) if len(best) == 1 else None


def dawid_skene(votes: Answers, final: Mapping[str, dict[str, Any]], classes: Sequence[str]) -> DawidSkeneFit:
    """The class of each utterance and the confusions of each person, estimated from each other.

    Expectation maximisation from the majority on (crowd-kit). What was adjudicated to one class is known to be it.
    Primary emotions are counted, an answer with two of them as two recordings by one observer, which the paper has
    too; secondary ones are not. A class that nobody named has a row of zeros. Dawid and Skene 1979, Applied Statistics
    28(1), doi:10.2307/2346806.
    """
    import pandas as pd

    recordings = [
        (name, row["person"], class_index(emotion, classes))
        for name in sorted(votes)
        for row in votes[name]
        for emotion in sorted(row["emotions"])
    ]
    data = pd.DataFrame(recordings, columns=["task", "worker", "label"])
    decided = {name: row["emotions"] for name, row in final.items() if row["kind"] == "label" and name in votes}
    # The model has no class that nobody ever named.
    true_labels = {name: class_index(emotions[0], classes) for name, emotions in decided.items() if len(emotions) == 1}
    return fit_dawid_skene(data, true_labels, len(classes))


def fit_dawid_skene(data: pd.DataFrame, true_labels: Mapping[str, int], num_classes: int) -> DawidSkeneFit:
    """The model of Dawid and Skene, fitted to a row for each vote: `task`, `worker` and `label`, a class index.

    `true_labels`: classes that are certain, by task; those that nobody named are left out.
    """
    # Imported here: they take a second, and most commands do without.
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    if data.empty:
        return DawidSkeneFit(posterior={}, prior_C=np.zeros(num_classes), confusion={})
    named = set(data["label"])
    true_labels = {name: label for name, label in true_labels.items() if label in named}
    model, labels = DawidSkene(n_iter=100, tol=1e-6), range(num_classes)
    posterior = model.fit_predict_proba(data, true_labels=pd.Series(true_labels, dtype=data["label"].dtype))
    posterior = posterior.reindex(columns=labels, fill_value=0.0)
    errors = cast("pd.DataFrame", model.errors_)
    confusion = {
        person: errors.loc[person].reindex(index=labels, columns=labels, fill_value=0.0).to_numpy().T
        for person in sorted(set(data["worker"]))
    }
    return DawidSkeneFit(
        posterior={str(name): row.to_numpy() / row.sum() for name, row in posterior.iterrows()},
        prior_C=posterior.mean().to_numpy(),
        confusion=confusion,
    )


def _label(
    answered: Sequence[dict[str, Any]], classes: Sequence[str], method: Method, posterior_C: np.ndarray | None
) -> dict[str, Any]:
    unusable = 2 * sum(row["kind"] == "unusable" for row in answered) > len(answered)
    share_C = _shares(answered, classes)
    if unusable or not share_C.any():
        return {"unusable": unusable, "emotion": None, "probability": None}
    probability_C = share_C if posterior_C is None else posterior_C
    first = winner(probability_C)
    emotion = None if first is None else classes[first]
    if method == "majority":
        return {"unusable": False, "emotion": emotion, "probability": emotion and np.eye(len(classes))[first]}
    return {"unusable": False, "emotion": emotion, "probability": probability_C}


def _shares(answered: Sequence[dict[str, Any]], classes: Sequence[str]) -> np.ndarray:
    """(C,) The mean of the votes of those who name a class; zero where nobody does."""
    share_C = np.sum([shares(row, classes) for row in answered], axis=0) if answered else np.zeros(len(classes))
    return share_C / (share_C.sum() or 1.0)


def _agreement(answered: Sequence[dict[str, Any]], classes: Sequence[str], emotion: str | None) -> float | None:
    share_C = _shares(answered, classes)
    if not share_C.any():
        return None
    return float(share_C.max() if emotion is None else share_C[classes.index(emotion)])


def _rating(answered: Sequence[dict[str, Any]], decided: Mapping[str, Any] | None, dimension: str) -> float | None:
    """The rating of a lead, else the mean of all people's."""
    if decided is not None and decided[dimension] is not None:
        return float(decided[dimension])
    rated = [row[dimension] for row in answered if row[dimension] is not None]
    return float(np.mean(rated)) if rated else None
