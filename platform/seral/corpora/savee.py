"""SAVEE: British English, acted, four men. Haq and Jackson 2009, Speaker-dependent audio-visual emotion recognition.

A name is emotion letter and sentence number, in a folder by speaker (`DC/a01`); flat copies put the speaker in front
(`DC_a01`). The sentences differ by emotion and are not in the names: the text stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = {
    "a": "anger",
    "d": "disgust",
    "f": "fear",
    "h": "happiness",
    "n": "neutral",
    "sa": "sadness",
    "su": "surprise",
}
CONVENTION = Convention(
    corpus="savee",
    pattern=re.compile(r"(?:.*/)?(?P<speaker>DC|JE|JK|KL)[/_]?(?P<emotion>sa|su|[adfhn])(?P<sentence>\d\d)"),
    expected="SPEAKER/eNN or SPEAKER_eNN (DC JE JK or KL, emotion a d f h n sa or su, two digits)",
    example="AudioData/DC/a01.wav",
    folders=True,
    name_of=lambda match: f"{match['speaker']}_{match['emotion']}{match['sentence']}",
)


def read_savee(root: Path) -> Iterator[Utterance | Skipped]:
    """All of SAVEE, in its folders by speaker or flat with the speaker in the name."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": match["speaker"],
        "gender": "male",
        "language": "en",
        "style": "acted",
        "emotion": EMOTIONS[match["emotion"]],
    }
