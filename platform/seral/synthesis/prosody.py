"""The voices of the demonstration corpus: who speaks, and what an emotion does to a voice.

A clip's prosody is the speaker's habit + strength · the emotion's direction as this speaker shows it + chance. The
directions follow Scherer 2003, Vocal communication of emotion, table 2 (anger and joy: higher, wider, louder; sadness:
lower, flatter, slower, duller). The sizes are chosen so that classes overlap about as much as in acted corpora.
"""

# S samples at espeak-ng's rate
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import soxr
from numpy.typing import NDArray

from seral.synthesis.espeak import RATE_HZ, Delivery, Espeak

Samples = NDArray[np.float32]

VARIANTS = ("m1", "f1", "m3", "f2", "m7", "f4", "m2", "f3", "m4", "f5", "m5", "m6")
"""espeak-ng's voice variants, in the order in which speakers of a language get them."""
LEVEL_DB = -24.0
"""RMS of an ordinary clip, dBFS."""
HIGHEST_PEAK = 0.95
NORMAL_WPM = 165.0
NORMAL_PITCH = 45.0
NORMAL_RANGE = 45.0


@dataclass(frozen=True, kw_only=True)
class Prosody:
    """Difference of a voice from espeak-ng's ordinary one; also used for spreads and factors of the same parts."""

    pitch: float
    """espeak-ng units."""
    pitch_range: float
    """espeak-ng units."""
    rate: float
    """Natural logarithm of the ratio of speaking rates."""
    level_db: float
    pauses: float
    """Between words, in 10 ms."""
    brightness: float
    """Coefficient of a first difference, -1..1: above 0 stresses high frequencies (a pressed voice), below 0 dulls."""

    def plus(self, other: Prosody) -> Prosody:
        """Part by part sum."""
        return Prosody(**{part: value + getattr(other, part) for part, value in vars(self).items()})

    def times(self, other: Prosody) -> Prosody:
        """Part by part product."""
        return Prosody(**{part: value * getattr(other, part) for part, value in vars(self).items()})


PARTS = tuple(Prosody.__dataclass_fields__)


@dataclass(frozen=True, kw_only=True)
class Emotion:
    """A class: where it moves the voice at strength 1, and where it lies on scales from 1 to 7."""

    prosody: Prosody
    valence: float
    arousal: float
    dominance: float


EMOTIONS: dict[str, Emotion] = {
    "anger": Emotion(
        prosody=Prosody(pitch=8, pitch_range=12, rate=0.18, level_db=6.0, pauses=-1.0, brightness=0.30),
        valence=2.0,
        arousal=5.8,
        dominance=5.5,
    ),
    "happiness": Emotion(
        prosody=Prosody(pitch=24, pitch_range=32, rate=0.05, level_db=2.5, pauses=0.0, brightness=0.06),
        valence=6.0,
        arousal=5.2,
        dominance=4.8,
    ),
    "sadness": Emotion(
        prosody=Prosody(pitch=-10, pitch_range=-25, rate=-0.22, level_db=-4.5, pauses=3.0, brightness=-0.24),
        valence=2.2,
        arousal=2.4,
        dominance=2.8,
    ),
    "neutral": Emotion(
        prosody=Prosody(pitch=0, pitch_range=0, rate=0.0, level_db=0.0, pauses=0.0, brightness=0.0),
        valence=4.0,
        arousal=3.8,
        dominance=4.2,
    ),
}
SPREAD_OF_SPEAKERS = Prosody(pitch=8, pitch_range=8, rate=0.08, level_db=1.2, pauses=0.5, brightness=0.06)
SPREAD_OF_CLIPS = Prosody(pitch=5, pitch_range=8, rate=0.06, level_db=1.6, pauses=0.7, brightness=0.05)
SPREAD_OF_EXPRESSION = 0.3
"""Speakers show an emotion by different means: relative spread of each part of its prosody."""
SPREAD_OF_TRACTS = 0.04


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """One voice."""

    name: str
    language: str
    variant: str
    habit: Prosody
    """The speaker's ordinary voice."""
    expression: Mapping[str, Prosody]
    """Emotion -> how strongly this speaker shows each part of it, 1 = as in EMOTIONS."""
    tract: float
    """Length of the vocal tract relative to the variant's: above 1 lowers the formants."""


def draw_speakers(languages: Sequence[str], per_language: int, rng: np.random.Generator) -> list[Speaker]:
    """Speakers that differ in voice variant, vocal tract, habits and ways of showing an emotion."""
    return [
        Speaker(
            name=f"{language}{number + 1}",
            language=language,
            variant=VARIANTS[number],
            habit=_draw(rng).times(SPREAD_OF_SPEAKERS),
            expression={name: _draw(rng, mean=1.0, spread=SPREAD_OF_EXPRESSION) for name in EMOTIONS},
            tract=float(np.exp(SPREAD_OF_TRACTS * rng.standard_normal())),
        )
        for language in languages
        for number in range(per_language)
    ]


def draw_prosody(speaker: Speaker, emotion: str, strength: float, rng: np.random.Generator) -> Prosody:
    """The prosody of one clip of a speaker."""
    expression = EMOTIONS[emotion].prosody.times(speaker.expression[emotion]).times(_constant(strength))
    return speaker.habit.plus(expression).plus(_draw(rng).times(SPREAD_OF_CLIPS))


def speak(espeak: Espeak, speaker: Speaker, text: str, prosody: Prosody, *, seed: int) -> Samples:
    """A text in a speaker's voice with a prosody, (S,) at RATE_HZ."""
    delivery = Delivery(
        voice=f"{speaker.language}+{speaker.variant}",
        # The vocal tract is set by playing the voice slower or faster, which the rate makes up for.
        rate_wpm=_within(NORMAL_WPM * np.exp(prosody.rate) * speaker.tract, 80, 400),
        pitch=_within(NORMAL_PITCH + prosody.pitch, 0, 99),
        pitch_range=_within(NORMAL_RANGE + prosody.pitch_range, 0, 99),
        word_gap_10ms=_within(prosody.pauses, 0, 30),
    )
    samples = espeak.say(text, delivery, seed=seed)
    voice = soxr.resample(samples, RATE_HZ, RATE_HZ * speaker.tract, quality="HQ")
    voice[1:] -= float(np.clip(prosody.brightness, -0.9, 0.9)) * voice[:-1]
    gain = 10 ** ((LEVEL_DB + prosody.level_db) / 20) / np.sqrt(np.mean(np.square(voice)))
    return np.asarray(voice * min(gain, HIGHEST_PEAK / np.max(np.abs(voice))), dtype=np.float32)


def _draw(rng: np.random.Generator, *, mean: float = 0.0, spread: float = 1.0) -> Prosody:
    return Prosody(**{part: float(mean + spread * rng.standard_normal()) for part in PARTS})


def _constant(value: float) -> Prosody:
    return Prosody(**dict.fromkeys(PARTS, value))


def _within(value: float, low: int, high: int) -> int:
    return int(np.clip(round(float(value)), low, high))
