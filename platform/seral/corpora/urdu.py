"""URDU: Urdu, natural speech from television talk shows, 400 clips. Latif et al. 2018, arXiv 1812.10411.

A name is speaker (sex and number), file of that speaker, emotion letter and number: `SM1_F10_A010`. Most speakers have
a single emotion, so that a model that knows the speaker scores well: poor as a test of accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

CONVENTION = Convention(
    corpus="urdu",
    pattern=re.compile(r"(?P<speaker>S[MF]\d+)_F\d+_(?P<emotion>[AHNS])\d+"),
    expected="SPEAKER_FILE_EMOTION (SM or SF and a number, F and a number, A H N or S and a number)",
    example="Angry/SM1_F10_A010.wav",
)
EMOTIONS = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad"}


def read_urdu(root: Path) -> Iterator[Utterance | Skipped]:
    """All of URDU, in its folders by emotion or flat: the label is read from the name either way."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    emotion = EMOTIONS[match["emotion"]]
    return {"speaker": match["speaker"], "language": "ur", "style": "natural", "emotion": emotion}
