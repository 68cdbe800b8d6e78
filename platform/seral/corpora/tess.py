"""TESS: Canadian English, acted, two actresses. Pichora-Fuller and Dupuis 2020, doi:10.5683/SP2/E8H2MF.

A name is speaker, word, emotion: `OAF_back_angry` (`ps` is pleasant surprise). One file of the release lacks a letter
of its speaker: `OA_bite_neutral`. Folders are named by hand and say nothing more. With two speakers there is no test
on new voices that means anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprise",
    "sad": "sad",
}
CONVENTION = Convention(
    corpus="tess",
    pattern=re.compile(rf"(?P<speaker>OAF?|YAF)_(?P<word>[a-z]+)_(?P<emotion>{'|'.join(EMOTIONS)})", re.IGNORECASE),
    expected="SPEAKER_word_emotion (OAF or YAF, a word, angry disgust fear happy neutral ps or sad)",
    example="OAF_angry/OAF_back_angry.wav",
)


def read_tess(root: Path) -> Iterator[Utterance | Skipped]:
    """All of TESS; a copy that holds it twice is read once."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": "YAF" if match["speaker"].upper() == "YAF" else "OAF",
        "gender": "female",
        "language": "en",
        "style": "acted",
        "text": f"Say the word {match['word'].lower()}",
        "emotion": EMOTIONS[match["emotion"].lower()],
    }
