"""AESDD: Greek, acted, 20 utterances, six actors. Vryzas et al. 2018, doi:10.17743/jaes.2018.0036.

A name is emotion letter, utterance, speaker in brackets: `a03 (4)`; a second take has a letter behind, `a06 (5)b`, and
some speakers are written with two digits, `d03 (01)`. The release's readme counts three women and two men among the
first five speakers but does not say who is who: gender stays unknown, and so does the text. The corpus grows: the
paper tells of about 500 utterances, a public copy of the extended release holds 605.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = {"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "s": "sadness"}
CONVENTION = Convention(
    corpus="aesdd",
    pattern=re.compile(r"(?P<emotion>[adfhs])\d\d ?\((?P<speaker>\d{1,2})\)[a-z]?"),
    expected="eNN (S) (emotion letter a d f h s, utterance 01-20, speaker in brackets, a letter for a second take)",
    example="anger/a03 (4).wav",
)


def read_aesdd(root: Path) -> Iterator[Utterance | Skipped]:
    """All of AESDD."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": str(int(match["speaker"])),
        "language": "el",
        "style": "acted",
        "emotion": EMOTIONS[match["emotion"]],
    }
