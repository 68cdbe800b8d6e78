"""Options of corruptions of speech."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from seral import storage
from seral.options import Options

Range = tuple[float, float]
EFFECTS = ("rt60_s", "snr_db", "gain_db", "highest_hz", "codecs")
"""Options that switch a corruption on, in the order in which they are applied."""


class CorruptionOptions(Options):
    """Options of the corruptions of a recording, applied in this order; of each range a value is drawn a clip."""

    rt60_s: Range | None = None
    """Seconds in which the echo of a room falls by 60 dB: living rooms 0.3 to 0.6, halls 1 to 2. None = no room."""
    drr_db: Range = (0.0, 10.0)
    """By how much the voice is louder than its echo."""
    noise: str | None = None
    """A pool of noises; None = white noise."""
    snr_db: Range | None = None
    """Ratio at which noise is added; None = no noise."""
    gain_db: Range | None = None
    """Change of level; what leaves full scale is clipped. None = none."""
    highest_hz: float | None = Field(default=None, gt=0, le=8000)
    """Everything above is taken out; None = nothing."""
    codecs: tuple[Literal["mp3", "vorbis", "opus", "gsm", "mu-law"], ...] = ()
    """Encode and decode, by one of these codecs that is drawn for each clip."""
    seed: int = Field(default=0, ge=0)
    """Of all draws, which depend on it and the utterance alone."""

    @field_validator("noise")
    @classmethod
    def _absolute(cls, uri: str | None) -> str | None:
        """Workers may have another working directory."""
        return None if uri is None else storage.absolute(uri)

    @model_validator(mode="after")
    def _check_effects(self) -> Self:
        if not self.effects:
            raise ValueError(f"nothing is to be done: give one of {', '.join(EFFECTS)}")
        if self.noise is not None and self.snr_db is None:
            raise ValueError("noise is added at a ratio: give snr_db")
        for name in ("rt60_s", "drr_db", "snr_db", "gain_db"):
            limits = getattr(self, name)
            if limits is not None and limits[0] > limits[1]:
                raise ValueError(f"{name} is (lowest, highest), got {limits}")
        return self

    @property
    def effects(self) -> list[str]:
        """Names of the corruptions that the options switch on, in the order in which they are applied."""
        return [name for name in EFFECTS if getattr(self, name)]
