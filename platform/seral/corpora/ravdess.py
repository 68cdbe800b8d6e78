"""RAVDESS: English, acted, two sentences, 24 actors. Livingstone and Russo 2018, doi:10.1371/journal.pone.0196391.

A name is seven numbers: modality (03 = audio), channel (01 = speech, 02 = song), emotion, intensity, sentence,
repetition, actor (odd = male). Song and video are other parts of the same release and are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

CONVENTION = Convention(
    corpus="ravdess",
    pattern=re.compile(r"03-01-(?P<emotion>0[1-8])-0[12]-(?P<sentence>0[12])-0[12]-(?P<actor>[01]\d|2[0-4])"),
    expected="03-01-EE-II-SS-RR-AA (emotion 01-08, intensity, sentence, repetition, actor 01-24)",
    example="Actor_01/03-01-05-01-02-01-01.wav",
)
OTHER_PART = re.compile(r"0[1-3]-0[12]-0[1-8](-\d\d){4}")
EMOTIONS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
SENTENCES = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}


def read_ravdess(root: Path) -> Iterator[Utterance | Skipped]:
    """The speech of RAVDESS, nested by actor or flat."""
    return utterances_by_name(root, CONVENTION, _describe, not_speech=_is_other_part)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": f"Actor_{match['actor']}",
        "gender": "male" if int(match["actor"]) % 2 else "female",
        "language": "en",
        "style": "acted",
        "text": SENTENCES[match["sentence"]],
        "emotion": EMOTIONS[match["emotion"]],
    }


def _is_other_part(name: str) -> bool:
    return bool(OTHER_PART.fullmatch(name)) and not name.startswith("03-01-")
