"""Simulated people: annotators of known quality, who claim clips and answer as real ones do.

A person is a table of how often each class is heard as which, and some habits. What they say of a clip depends on the
seed, their name, the clip and how many they have heard before, on nothing else.
"""

# C classes
from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seral.errors import LabelError, unknown_name
from seral.labels.ledger import Ledger
from seral.labels.records import Answer

Truth = str | Mapping[str, float] | None
"""The class of a clip, the shares of several (what real raters said), or None where it is unusable."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Person:
    """A simulated person of known quality."""

    name: str
    classes: tuple[str, ...]
    confusion_CC: NDArray[np.float64]
    """Probability of hearing the class of the column where the row's is true; rows sum to 1."""
    skips: float = 0.0
    """Share of clips that they pass on to others."""
    misses_noise: float = 0.1
    """Share of the unusable clips to which they give a class all the same."""
    drift: float = 0.0
    """Clips after which they guess half of the time, more and more from the first on; 0 = they stay as they are."""
    seconds: float = 6.0
    """Mean time for a clip."""

    def __post_init__(self) -> None:
        shape, count = self.confusion_CC.shape, len(self.classes)
        if shape != (count, count) or not np.allclose(self.confusion_CC.sum(1), 1) or (self.confusion_CC < 0).any():
            raise LabelError(f"{self.name}: a confusion has {count} rows of {count} probabilities that sum to 1")

    @property
    def accuracy(self) -> float:
        """Share of right answers where all classes are alike frequent, before any drift."""
        return float(np.trace(self.confusion_CC)) / len(self.classes)

    def answer(self, utterance_id: str, truth: Truth, *, seed: int = 0, answered: int = 0) -> Answer:
        """The person's answer about a clip, after answers about `answered` clips before it."""
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode()), zlib.crc32(utterance_id.encode())])
        skips, hears, guesses, which = rng.random(4)
        seconds = round(self.seconds * float(rng.lognormal(sigma=0.3)), 2)
        if skips < self.skips:
            return Answer(utterance_id=utterance_id, person=self.name, kind="skipped", seconds=seconds)
        if truth is None and hears >= self.misses_noise:
            return Answer(utterance_id=utterance_id, person=self.name, kind="unusable", seconds=seconds)
        probability_C = self._shares(truth) @ self.confusion_CC
        if self.drift and guesses < answered / (answered + self.drift):
            probability_C = np.full(len(self.classes), 1 / len(self.classes))
        row = int(np.searchsorted(probability_C.cumsum(), which, side="right"))
        emotion = self.classes[min(row, len(self.classes) - 1)]
        return Answer(utterance_id=utterance_id, person=self.name, emotions=(emotion,), seconds=seconds)

    def _shares(self, truth: Truth) -> NDArray[np.float64]:
        """The truth as shares of the classes, (C,); noise could be any."""
        if truth is None:
            return np.full(len(self.classes), 1 / len(self.classes))
        share_of = {truth: 1.0} if isinstance(truth, str) else truth
        if unknown := sorted(set(share_of) - set(self.classes)):
            raise LabelError(unknown_name("class", unknown[0], self.classes))
        share_C = np.array([share_of.get(name, 0.0) for name in self.classes], np.float64)
        share_C /= share_C.sum()
        return share_C


def even(classes: Sequence[str], accuracy: float) -> NDArray[np.float64]:
    """A confusion (C, C) that is right with this probability and errs towards all other classes alike."""
    others = (1 - accuracy) / (len(classes) - 1)
    return np.full((len(classes), len(classes)), others) + (accuracy - others) * np.eye(len(classes))


def careful(name: str, classes: Sequence[str]) -> Person:
    """Right nine times of ten, and slow."""
    return Person(name=name, classes=tuple(classes), confusion_CC=even(classes, 0.9), misses_noise=0.02, seconds=9.0)


def hasty(name: str, classes: Sequence[str]) -> Person:
    """Right three times of five, fast, and noise does not stop them."""
    return Person(name=name, classes=tuple(classes), confusion_CC=even(classes, 0.6), misses_noise=0.5, seconds=2.5)


def biased(name: str, classes: Sequence[str]) -> Person:
    """Hears `neutral`, or else the last class, in two of five clips of any other."""
    favourite = list(classes).index("neutral") if "neutral" in classes else len(classes) - 1
    confusion_CC = 0.6 * even(classes, 0.9)
    confusion_CC[:, favourite] += 0.4
    return Person(name=name, classes=tuple(classes), confusion_CC=confusion_CC)


def guessing(name: str, classes: Sequence[str]) -> Person:
    """Says anything, at once."""
    by_chance = even(classes, 1 / len(classes))
    return Person(name=name, classes=tuple(classes), confusion_CC=by_chance, misses_noise=1.0, seconds=1.0)


def skipping(name: str, classes: Sequence[str]) -> Person:
    """Good, but passes on one clip of four."""
    return Person(name=name, classes=tuple(classes), confusion_CC=even(classes, 0.85), skips=0.25)


def drifting(name: str, classes: Sequence[str]) -> Person:
    """Begins as the careful do, and guesses half of the time after a hundred clips."""
    return Person(name=name, classes=tuple(classes), confusion_CC=even(classes, 0.9), drift=100.0)


PERSONALITIES: dict[str, Callable[[str, Sequence[str]], Person]] = {
    "careful": careful,
    "hasty": hasty,
    "biased": biased,
    "guessing": guessing,
    "skipping": skipping,
    "drifting": drifting,
}
"""(name, classes) -> a person."""


def answer_all(ledger: Ledger, people: Sequence[Person], truth: Mapping[str, Truth], *, seed: int = 0) -> int:
    """Let these people answer, one clip each in turn, until nobody is given another; returns how many answers came.

    They are added to the ledger where they are not in it.
    """
    names = {row.name for row in ledger.people()}
    for person in people:
        if person.name not in names:
            ledger.add_person(person.name)
    answered = {person.name: ledger.answers(person=person.name).num_rows for person in people}
    count, busy = 0, list(people)
    while busy:
        busy = [person for person in busy if _answer_next(ledger, person, truth, seed, answered)]
        count += len(busy)
    return count


def _answer_next(
    ledger: Ledger, person: Person, truth: Mapping[str, Truth], seed: int, answered: dict[str, int]
) -> bool:
    """Answer one clip; False when there is none for this person."""
    for task in ledger.claim(person.name):
        answer = person.answer(task.utterance_id, truth[task.utterance_id], seed=seed, answered=answered[person.name])
        ledger.submit(answer, task.question)
        answered[person.name] += 1
        return True
    return False
