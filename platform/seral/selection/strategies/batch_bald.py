"""BatchBALD: the batch whose answers, taken together, tell most about the model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from seral.selection.candidates import Candidates
from seral.selection.strategies import scores
from seral.selection.strategies.checks import at_least

# N candidates · R repeats (dropout passes) · C classes · J joint answers

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

SLAB = 2_000_000
"""Joint probabilities computed at a time."""
TINY = 1e-30
"""Stands for probability 0 inside a logarithm whose factor is 0."""


def batch_bald(
    candidates: Candidates, k: int, rng: np.random.Generator, *, shortlist: int = 5_000, answers: int = 4_096
) -> list[str]:
    """k candidates, each the one that adds most to the joint information. Kirsch et al. 2019, arXiv 1906.08158.

    Among the `shortlist` candidates of the largest BALD, or the k largest if that is more: N·C·answers logarithms are
    taken for every pick. The joint answers of the batch so far are all C^n of them while these are at most `answers`,
    and afterwards that many draws.
    """
    at_least(1, "batch_bald", shortlist=shortlist, answers=answers)
    p_RNC = candidates.need("dropout_RNC")
    rows = np.sort(scores.top_rows(scores.bald(p_RNC), max(shortlist, k)))
    ids: list[str] = candidates.ids[rows[greedy_joint(p_RNC[:, rows], k, rng, answers)]].tolist()
    return ids


def batch_bald_looks_at(k: int, *, shortlist: int, answers: int) -> tuple[str, int]:
    """The uncertainty by which `batch_bald` shortlists, and how many."""
    return "bald", max(shortlist, k)


def greedy_joint(p_RNC: Floats, k: int, rng: np.random.Generator, answers: int) -> NDArray[np.intp]:
    """Rows of the greedy batch in order, (R, N, C) -> (k,); k <= N. Equal gains fall to the lower row."""
    expected_N = np.mean([scores.entropy(p_NC) for p_NC in p_RNC], axis=0)
    joint = _Joint(len(p_RNC))
    picks: list[int] = []
    while len(picks) < k:
        # Conditional entropies of the picks so far are the same for every candidate and left out.
        gain_N = joint.entropy_with(p_RNC) - expected_N
        gain_N[picks] = -np.inf
        picks.append(int(np.round(gain_N, 6).argmax()))
        joint.add(p_RNC[:, picks[-1]].astype(np.float64), rng, answers)
    return np.array(picks, dtype=np.intp)


class _Joint:
    """Joint answers of a batch: their probabilities under every pass, and the weight of each in a sum over all."""

    def __init__(self, passes: int) -> None:
        self.p_JR = np.ones((1, passes))
        self.share_J: Doubles | None = None
        """For draws: one over the number of draws and the probability each was drawn with; None = all answers."""

    def entropy_with(self, p_RNC: Floats) -> Doubles:
        """Entropy of the joint answers of the batch and each candidate, (R, N, C) -> (N,)."""
        passes, rows, classes = p_RNC.shape
        p_JR = (self.p_JR / passes).astype(np.float32)
        share_J = np.ones(len(p_JR)) if self.share_J is None else self.share_J
        entropy_N, step = np.empty(rows), max(1, SLAB // (len(p_JR) * classes))
        for at in range(0, rows, step):
            p_JB = p_JR @ p_RNC[:, at : at + step].reshape(passes, -1)
            term_JB = np.log(np.maximum(p_JB, TINY))
            term_JB *= p_JB
            entropy_N[at : at + step] = -(share_J @ term_JB).reshape(-1, classes).sum(axis=1)
        return entropy_N

    def add(self, p_RC: Doubles, rng: np.random.Generator, answers: int) -> None:
        """Add one more utterance to the batch."""
        passes, classes = p_RC.shape
        if self.share_J is None and len(self.p_JR) * classes <= answers:
            self.p_JR = (self.p_JR[:, None, :] * p_RC.T).reshape(-1, passes)
            return
        if self.share_J is None:
            total_J = self.p_JR.mean(axis=1).cumsum()
            self.p_JR = self.p_JR[np.searchsorted(total_J, rng.random(answers) * total_J[-1], side="right")]
        # One answer for every draw, by its probability given the draw's answers so far.
        joint_JCR = self.p_JR[:, None, :] * p_RC.T
        total_JC = joint_JCR.mean(axis=2).cumsum(axis=1)
        answer_J = (total_JC[:, :-1] <= rng.random(answers)[:, None] * total_JC[:, -1:]).sum(axis=1)
        self.p_JR = joint_JCR[np.arange(answers), answer_J]
        self.share_J = 1 / (answers * self.p_JR.mean(axis=1))
