"""ShEMO: Persian, from radio plays, 87 speakers. Mohamad Nezami et al. 2019, doi:10.1007/s10579-018-9427-x.

A name is speaker (sex and number), emotion letter, number: `F03S02`. The texts stand in the release's `shemo.json`,
where it lies in the corpus folder; without it the text stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.rows import read_rows
from seral.corpora.reading.tree import Convention, files_below, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = {
    "A": "anger",
    "F": "fear",
    "H": "happiness",
    "N": "neutral",
    "S": "sadness",
    "W": "surprise",
}
CONVENTION = Convention(
    corpus="shemo",
    pattern=re.compile(r"(?P<speaker>(?P<gender>[FM])\d\d)(?P<emotion>[AFHNSW])\d{2,3}"),
    expected="GNNENN (F or M and two digits for the speaker, emotion letter A F H N S W, number)",
    example="female/F03S02.wav",
)
TEXTS = r"(.*/)?shemo\.json"


def read_shemo(root: Path) -> Iterator[Utterance | Skipped]:
    """All of ShEMO."""
    rows = [row.values for file in files_below(root, TEXTS)[:1] for row in read_rows(file)]
    texts = {row["id"]: row["transcript"].strip("\ufeff ") for row in rows if row.get("transcript")}

    def describe(name: str, match: re.Match[str]) -> dict[str, Any]:
        return {
            "speaker": match["speaker"],
            "gender": "female" if match["gender"] == "F" else "male",
            "language": "fa",
            "style": "acted",
            "text": texts.get(name),
            "emotion": EMOTIONS[match["emotion"]],
        }

    return utterances_by_name(root, CONVENTION, describe)
