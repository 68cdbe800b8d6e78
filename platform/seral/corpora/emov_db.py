"""EmoV-DB: English, acted, four speakers reading CMU Arctic sentences. Adigwe et al. 2018, arXiv 1806.09514.

A name is emotion, range of sentences, sentence: `amused_1-15_0001`. It comes once for every speaker; who speaks stands
in the folder, `bea/Amused` (sorted release) or `bea_Amused` (OpenSLR 115). The texts stand in `cmuarctic.data`, where
it lies in the corpus folder: sentence 0001 is arctic_a0001. Without it the text stays unknown. The table in the
authors' README sums up to 7,000; copies are known to lack a file or two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, files_below, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = ("amused", "anger", "disgust", "neutral", "sleepiness")
GENDERS = {"bea": "female", "jenie": "female", "josh": "male", "sam": "male"}
CONVENTION = Convention(
    corpus="emov-db",
    pattern=re.compile(
        rf"(?:.*/)?(?P<speaker>{'|'.join(GENDERS)})[/_](?:[^/]+/)?"
        rf"(?P<name>(?P<emotion>{'|'.join(EMOTIONS)})_\d+[-_]\d+_(?P<sentence>\d{{4}}))",
        re.IGNORECASE,
    ),
    expected="SPEAKER/Emotion/emotion_FIRST-LAST_SENTENCE (bea jenie josh or sam, the emotion, numbers)",
    example="bea/Amused/amused_1-15_0001.wav",
    folders=True,
    name_of=lambda match: f"{match['speaker'].lower()}_{match['name']}",
)
TEXTS = r"(.*/)?cmuarctic\.data"
SENTENCE = re.compile(r'\(\s*arctic_a(\d{4})\s+"(.*)"\s*\)')
"""A line of the prompts: `( arctic_a0001 "Author of the danger trail, Philip Steels, etc." )`."""


def read_emov_db(root: Path) -> Iterator[Utterance | Skipped]:
    """All of EmoV-DB, from either release."""
    lines = [line for file in files_below(root, TEXTS)[:1] for line in file.read_text(encoding="utf-8").splitlines()]
    texts = {match[1]: match[2] for match in map(SENTENCE.match, lines) if match}

    def describe(name: str, match: re.Match[str]) -> dict[str, Any]:
        speaker = match["speaker"].lower()
        return {
            "speaker": speaker,
            "gender": GENDERS[speaker],
            "language": "en",
            "style": "acted",
            "text": texts.get(match["sentence"]),
            "emotion": match["emotion"].lower(),
        }

    return utterances_by_name(root, CONVENTION, describe)
