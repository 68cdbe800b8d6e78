"""A teacher that is the moving average of its student: `θ_t <- m θ_t + (1 - m) θ_s`, never by gradient.

Tarvainen and Valpola 2017, arXiv 1703.01780; with a rising m as in Grill et al. 2020, arXiv 2006.07733.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def teacher_of(student: ModuleT) -> ModuleT:
    """A copy of the student that takes no gradient and drops nothing out."""
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, rate: float) -> None:
    """Move every parameter of the teacher towards the student's; rate (m) 1 leaves them as they are.

    Buffers, which no gradient moves and the student keeps itself, are the student's.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"the rate must lie in [0, 1], got {rate}")
    for mine, theirs in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.mul_(rate).add_(theirs, alpha=1 - rate)
    for buffer, newest in zip(teacher.buffers(), student.buffers(), strict=True):
        buffer.copy_(newest)


def rate_at(share: float, start: float = 0.99, end: float = 0.999) -> float:
    """m when this share (0 to 1) of the training is done: on a line from `start` to `end`."""
    return start + (end - start) * share
