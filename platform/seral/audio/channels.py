"""Faults of a recording's channels."""

# T frames of the source · C channels
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ser_models.channels import MOST_LOSS_DB, mean_loss_db

CHANNEL_FAULTS: dict[str, str] = {
    "dead": "at least one channel carries nothing, 40 dB or more below the loudest; `auto` takes another one",
    "anti-phase": "two channels of opposite sign, whose mean cancels; `auto` takes one of them",
    "many": "more than two channels, of which speech may fill one; `auto` takes that, or their mean where they agree",
    "apart": "two channels whose mean is fainter than one of them, as of two microphones or two speakers; `auto` takes "
    "that one",
    "offset": "a constant offset of at least a quarter of the signal's standard deviation; it stays",
}
"""Faults of a recording's channels, and what becomes of them; the first that applies counts."""

DEAD_DB = 40.0
OFFSET_SHARE = 0.25
OPPOSITE = -0.5
"""Correlation below which two channels have opposite signs."""


def channel_fault(frames_TC: NDArray[np.float32], rate_hz: int) -> str | None:
    """The first fault of the channels of a recording, (T, C) -> a word of CHANNEL_FAULTS or None."""
    power_C = np.einsum("tc,tc->c", frames_TC, frames_TC)
    if power_C.min() < power_C.max() * 10 ** (-DEAD_DB / 10):
        return "dead"
    if len(power_C) > 2:
        return "many"
    if len(power_C) == 2 and mean_loss_db(frames_TC, rate_hz)[1] >= MOST_LOSS_DB:
        opposite = np.dot(frames_TC[:, 0], frames_TC[:, 1]) < OPPOSITE * np.sqrt(power_C.prod())
        return "anti-phase" if opposite else "apart"
    mean_C = frames_TC.mean(axis=0)
    spread_C = np.sqrt(np.maximum(power_C / len(frames_TC) - mean_C**2, 0))
    return "offset" if (np.abs(mean_C) > OFFSET_SHARE * spread_C).any() else None
