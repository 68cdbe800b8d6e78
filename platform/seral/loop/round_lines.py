"""A line for every round that comes to its end: labels, the score on dev, what it gained, the time that is left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping

from seral.loop.folders import read_rounds
from seral.loop.rounds import Arm, Trajectory
from seral.loop.stopping import RoundSummary
from seral.schema import RANDOM


class RoundLines:
    """Lines of a run's rounds; those that are there when it begins get none."""

    def __init__(self, trajectories: Mapping[Trajectory, tuple[str, Arm]]) -> None:
        """Start the clock; `trajectories` have their folder and their arm."""
        self._of = dict(trajectories)
        self._rounds = {one: read_rounds(folder) for one, (folder, _) in self._of.items()}
        self._started_s = time.monotonic()
        self._before = self._done()

    def new(self, grown: Iterable[Trajectory]) -> Iterator[str]:
        """Lines of the rounds that came to their end since the last call, in trajectories that have grown."""
        before = dict(self._rounds)
        self._rounds |= {one: read_rounds(self._of[one][0]) for one in grown}
        left = self._left()
        for one, rounds in self._rounds.items():
            random = self._rounds.get(Trajectory(arm=RANDOM, fold=one.fold, seed=one.seed), [])
            for number in range(len(before[one]), len(rounds)):
                yield f"{one.name}: {self._words(one, rounds[: number + 1], random)}{left}"

    def _words(self, one: Trajectory, rounds: list[RoundSummary], random: list[RoundSummary]) -> str:
        last, total = rounds[-1], len(self._of[one][1].schedule)
        words = [f"round {last.round + 1} of {total}", f"{last.labelled} labels"]
        if last.dev is not None:
            words.append(f"dev {_score(last)}")
            if len(rounds) > 1 and rounds[-2].dev is not None:
                words.append(f"{_gain(last, rounds[-2])} since the last")
            if one.arm != RANDOM and last.round < len(random) and random[last.round].dev is not None:
                words.append(f"{_gain(last, random[last.round])} on random")
        if last.stop_reason is not None and len(rounds) < total:
            words.append(f"stopped: {last.stop_reason}")
        return ", ".join(words)

    def _work(self, one: Trajectory, rounds: int) -> float:
        """Work of the first rounds, in labels that are learnt from."""
        return float(sum(self._of[one][1].schedule[:rounds]))

    def _done(self) -> float:
        return sum(self._work(one, len(rounds)) for one, rounds in self._rounds.items())

    def _left(self) -> str:
        """Time to the end of all trajectories, if labels go on taking what they took so far."""
        done = self._done()
        to_do = sum(
            self._work(one, len(self._of[one][1].schedule)) - self._work(one, len(rounds))
            for one, rounds in self._rounds.items()
            if not rounds or rounds[-1].stop_reason is None
        )
        if done <= self._before or to_do <= 0:
            return ""
        left_s = (time.monotonic() - self._started_s) * to_do / (done - self._before)
        words = f"{left_s / 3600:.1f} h" if left_s >= 5400 else f"{max(1, round(left_s / 60))} min"
        return f"; about {words} left"


def _score(of_round: RoundSummary) -> str:
    return f"CCC {of_round.dev:.3f}" if of_round.dev_uar is None else f"UAR {100 * of_round.dev_uar:.1f} %"


def _gain(last: RoundSummary, other: RoundSummary) -> str:
    gain = (last.dev or 0.0) - (other.dev or 0.0)
    return f"{gain:+.3f}" if last.dev_uar is None else f"{100 * gain:+.1f}"
