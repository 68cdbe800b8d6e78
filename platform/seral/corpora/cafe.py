"""CaFE: Canadian French, acted, six sentences, twelve actors. Gournay et al. 2018, doi:10.1145/3204949.3208121.

A name is actor (odd = man), emotion letter, intensity, sentence: `01-C-1-1`. The release at 192 kHz is AIFF, the one
at 48 kHz WAV.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = {
    "C": "anger",
    "D": "disgust",
    "J": "happiness",
    "N": "neutral",
    "P": "fear",
    "S": "surprise",
    "T": "sadness",
}
SENTENCES = {
    "1": "Un cheval fou dans mon jardin",
    "2": "Deux ânes aigris au pelage brun",
    "3": "Trois cygnes aveugles au bord du lac",
    "4": "Quatre vieilles truies éléphantesques",
    "5": "Cinq pumas fiers et passionnés",
    "6": "Six ours aimants domestiqués",
}
CONVENTION = Convention(
    corpus="cafe",
    pattern=re.compile(r"(?P<actor>0[1-9]|1[0-2])-(?P<emotion>[CDJNPST])-[12]-(?P<sentence>[1-6])"),
    expected="AA-E-I-S (actor 01-12, emotion letter C D J N P S T, intensity 1 or 2, sentence 1-6)",
    example="Colère/Faible/01-C-1-1.wav",
    suffixes=frozenset({".wav", ".flac", ".aif", ".aiff"}),
)


def read_cafe(root: Path) -> Iterator[Utterance | Skipped]:
    """All of CaFE, from either release."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": match["actor"],
        "gender": "male" if int(match["actor"]) % 2 else "female",
        "language": "fr",
        "style": "acted",
        "text": SENTENCES[match["sentence"]],
        "emotion": EMOTIONS[match["emotion"]],
    }
