"""ESD: Mandarin and English, acted, 350 parallel sentences, ten speakers each. Zhou et al. 2021, arXiv 2010.14794.

A name is speaker and number: `0011_000351`. Speakers 0001-0010 speak Mandarin, 0011-0020 English. The number tells
the emotion, 350 to each in the order of `EMOTIONS`. The folders train, evaluation and test, where the copy has them,
are the release's split: it divides sentences, and every speaker is in all three parts. The texts stand in a file by
speaker, `0011/0011.txt`, of lines `name TAB text TAB emotion`. Those of English speakers are UTF-8, UTF-16 or the
Western code page; those of Mandarin speakers GB 2312 or UTF-16. Lines that are not three fields are left out: their
text stays unknown.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, files_below, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = ("Neutral", "Angry", "Happy", "Sad", "Surprise")
SENTENCES = 350
WOMEN = {"0001", "0002", "0003", "0007", "0009", "0015", "0016", "0017", "0018", "0019"}
LAST_IN_MANDARIN = "0010"
SPLITS = {"train": "train", "evaluation": "dev", "test": "test"}
CONVENTION = Convention(
    corpus="esd",
    pattern=re.compile(
        r"(?:.*?/)?(?:(?P<split>train|evaluation|test)/)?"
        r"(?P<speaker>00(?:0[1-9]|1\d|20))_(?P<number>00(?!0000)(?:0\d{3}|1[0-6]\d\d|17[0-4]\d|1750))"
    ),
    expected="SPEAKER_NUMBER (speaker 0001-0020, number 000001-001750)",
    example="0011/Angry/train/0011_000351.wav",
    folders=True,
)


def read_esd(root: Path) -> Iterator[Utterance | Skipped]:
    """All of ESD, with its split where the folders tell it."""
    texts = {name: text for file in files_below(root, r"(.*/)?00\d\d\.txt") for name, text in _texts(file)}

    def describe(name: str, match: re.Match[str]) -> dict[str, Any]:
        speaker = match["speaker"]
        return {
            "speaker": speaker,
            "gender": "female" if speaker in WOMEN else "male",
            "language": "zh" if speaker <= LAST_IN_MANDARIN else "en",
            "style": "acted",
            "text": texts.get(name),
            "split": SPLITS.get(match["split"]),
            "emotion": EMOTIONS[(int(match["number"]) - 1) // SENTENCES],
        }

    return utterances_by_name(root, CONVENTION, describe)


def _texts(file: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every whole line of a speaker's file."""
    for line in _decode(file.read_bytes(), mandarin=file.stem <= LAST_IN_MANDARIN).splitlines():
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) == 3:
            yield fields[0], fields[1]


def _decode(data: bytes, *, mandarin: bool) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        # A stray byte becomes the replacement character: it can be seen in the text and costs nothing else.
        return data.decode("gb18030" if mandarin else "cp1252", errors="replace")
