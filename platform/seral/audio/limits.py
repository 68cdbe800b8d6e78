"""Limits of a recording that is decoded: how long it may be, how many channels, and how much memory it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SoundLimits:
    """Limits of one clip; others are BadAudio, before memory is taken for them."""

    seconds: float = 60.0
    channels: int = 32
    decoded_mb: float = 256.0
    """Of all channels at the rate of the source, four bytes a sample."""


USUAL = SoundLimits()
