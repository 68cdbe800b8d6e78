"""Named protocols: which corpora, which classes and by which words, and how speakers are kept apart.

A name says who is tested on what, and is printed with every result: `iemocap-4c-5fold-loso@v1`. Its meaning never
changes; whoever needs another makes `@v2`. `loso` leaves one speaker out, `5fold-loso` one session of two speakers.

There are none for MELD and ESD, whose official parts share their speakers, none for TESS with its two, and none for
corpora whose speakers are too few or too uneven for folds with every class in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seral.errors import unknown_name

FOUR = ("anger", "happiness", "neutral", "sadness")
SIX = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
SPEAKERS = {"scheme": "leave-one-speaker"}
SESSIONS = {"scheme": "leave-one-session"}
GIVEN = {"scheme": "column"}
USUAL: Mapping[str, str] | None = None
"""The usual words (seral.task.gold.CLASS_MAP)."""
MERGED = {**{name: name for name in FOUR}, "excited": "happiness"}
"""Happiness and excitement are one class, as IEMOCAP is mostly used."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Corpora, classes and split that a name stands for: options of these names are set by it."""

    corpora: tuple[str, ...]
    classes: tuple[str, ...] = ()
    dimensions: tuple[str, ...] = ()
    class_map: Mapping[str, str] | None = USUAL
    split: Mapping[str, Any] = field(default_factory=dict)
    utterances: int | None = None
    """Number of utterances of the complete corpora that take part, where that is known."""

    def __str__(self) -> str:
        """One line in words: `339 utterances, leave-one-speaker: anger happiness neutral sadness`."""
        how = " ".join(f"{name}={value}" for name, value in self.split.items() if name != "scheme")
        count = f"{self.utterances} utterances, " if self.utterances else ""
        note = " (happiness with excited)" if self.class_map is MERGED else ""
        return f"{count}{self.split['scheme']} {how}".rstrip() + f": {' '.join(self.classes + self.dimensions)}{note}"

    def fixed(self) -> dict[str, Any]:
        """The options that the protocol sets."""
        return {
            "corpora": list(self.corpora),
            "classes": list(self.classes),
            "dimensions": list(self.dimensions),
            "class_map": None if self.class_map is None else dict(self.class_map),
            "split": dict(self.split),
        }


PROTOCOLS: dict[str, Protocol] = {
    "iemocap-4c-5fold-loso@v1": Protocol(
        corpora=("iemocap",), classes=FOUR, class_map=MERGED, split=SESSIONS, utterances=5531
    ),
    "iemocap-4c-10fold-loso@v1": Protocol(
        corpora=("iemocap",), classes=FOUR, class_map=MERGED, split=SPEAKERS, utterances=5531
    ),
    "iemocap-vad-5fold-loso@v1": Protocol(
        corpora=("iemocap",), dimensions=("valence", "arousal", "dominance"), split=SESSIONS
    ),
    "msp-podcast-4c-official@v1": Protocol(corpora=("msp-podcast",), classes=FOUR, split=GIVEN),
    "msp-podcast-8c-official@v1": Protocol(
        corpora=("msp-podcast",), classes=tuple(sorted((*SIX, "contempt", "surprise"))), split=GIVEN
    ),
    "msp-podcast-vad-official@v1": Protocol(
        corpora=("msp-podcast",), dimensions=("valence", "arousal", "dominance"), split=GIVEN
    ),
    "msp-improv-4c-6fold-loso@v1": Protocol(corpora=("msp-improv",), classes=FOUR, split=SESSIONS),
    "crema-d-6c-5fold@v1": Protocol(
        corpora=("crema-d",), classes=SIX, split={"scheme": "k-fold", "k": 5, "dev_speakers": 9}
    ),
    "ravdess-8c-6fold@v1": Protocol(
        corpora=("ravdess",),
        classes=tuple(sorted((*SIX, "calm", "surprise"))),
        split={"scheme": "k-fold", "k": 6, "dev_speakers": 4},
    ),
    "ravdess-4c-loso@v1": Protocol(corpora=("ravdess",), classes=FOUR, split=SPEAKERS),
    "emodb-7c-loso@v1": Protocol(
        corpora=("emodb",), classes=tuple(sorted((*SIX, "boredom"))), split=SPEAKERS, utterances=535
    ),
    "emodb-4c-loso@v1": Protocol(corpora=("emodb",), classes=FOUR, split=SPEAKERS, utterances=339),
    "savee-7c-loso@v1": Protocol(
        corpora=("savee",), classes=tuple(sorted((*SIX, "surprise"))), split=SPEAKERS, utterances=480
    ),
    "nemo-6c-loso@v1": Protocol(
        corpora=("nemo",), classes=("anger", "fear", "happiness", "neutral", "sadness", "surprise"), split=SPEAKERS
    ),
    "emovo-7c-loso@v1": Protocol(
        corpora=("emovo",), classes=tuple(sorted((*SIX, "surprise"))), split=SPEAKERS, utterances=588
    ),
    "cafe-7c-loso@v1": Protocol(
        corpora=("cafe",), classes=tuple(sorted((*SIX, "surprise"))), split=SPEAKERS, utterances=936
    ),
    "subesco-7c-loso@v1": Protocol(
        corpora=("subesco",), classes=tuple(sorted((*SIX, "surprise"))), split=SPEAKERS, utterances=7000
    ),
}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name. Raises ValueError that lists the known ones."""
    if name not in tuple(PROTOCOLS):  # a list in its place has no hash
        raise ValueError(unknown_name("protocol", name, PROTOCOLS))
    return PROTOCOLS[name]
