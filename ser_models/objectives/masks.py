"""Frames that masked pretraining hides, and frames that it offers as wrong answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# B clips · T frames · M masked frames of a clip · K distractors


@dataclass(frozen=True, kw_only=True)
class SpanMask:
    """Share of a clip's frames that is hidden, and the length of the pieces."""

    prob: float
    """Span starts per frame times `length`: the masked share if spans did not overlap."""
    length: int
    """Frames per span."""
    min_spans: int
    """Spans per clip at least."""


MASKS = {
    "after": SpanMask(prob=0.05, length=10, min_spans=2),
    "wav2vec2": SpanMask(prob=0.65, length=10, min_spans=2),
}


def span_mask(frames_B: Sequence[int], options: SpanMask, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Random spans to hide in clips of the given lengths in frames, -> (B, T) with T the longest.

    `prob · frames / length` spans, rounded at random, with different starts, which may overlap. A clip keeps at least
    one visible frame; one that is too short for a span stays whole. What is drawn for a clip depends on its length
    alone, never on the padding.
    """
    mask_BT = np.zeros((len(frames_B), max(frames_B)), dtype=bool)
    for row, frames in zip(mask_BT, frames_B, strict=True):
        wanted = int(options.prob * frames / options.length + rng.random())
        spans = min(max(wanted, options.min_spans), (frames - 1) // options.length)
        starts = rng.choice(max(frames - options.length + 1, 1), size=spans, replace=False)
        row[(starts[:, None] + np.arange(options.length)).ravel()] = True
    return mask_BT


def sample_distractors(
    masked_M: NDArray[np.int64], frames: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each masked frame of a clip, `count` other real frames of the same clip, uniformly, -> (M, K).

    Differs from the paper: from all frames instead of the masked ones, which are too few under the `after` mask.
    """
    if frames < 2:
        raise ValueError(f"distractors need a clip of at least 2 frames, got {frames}")
    drawn_MK = rng.integers(frames - 1, size=(len(masked_M), count))
    return drawn_MK + (drawn_MK >= masked_M[:, None])
