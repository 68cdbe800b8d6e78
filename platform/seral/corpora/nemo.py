"""nEMO: Polish, acted, 90 sentences, nine actors, six emotions. Christop 2024, arXiv 2404.06292.

A name is speaker, emotion, sentence number: `MK0_sadness_23`. The sentences stand in the release's data.tsv (or in a
manifest.jsonl beside the audio); without either the text stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.rows import read_rows
from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

CONVENTION = Convention(
    corpus="nemo",
    pattern=re.compile(r"(?P<speaker>[A-Z]{2}\d)_(?P<emotion>anger|fear|happiness|neutral|sadness|surprised)_\d{1,2}"),
    expected="SPEAKER_emotion_SENTENCE (two capitals and a digit, the emotion in full, 1-90)",
    example="samples/MK0_sadness_23.wav",
)
TEXT_TABLES = {"data.tsv": ("file_id", "raw_text"), "manifest.jsonl": ("id", "text")}
"""File -> its columns for the name and for the text; the first one there is used."""


def read_nemo(root: Path) -> Iterator[Utterance | Skipped]:
    """All of nEMO."""
    texts = _texts(root)

    def describe(name: str, match: re.Match[str]) -> dict[str, Any]:
        metadata = {"speaker": match["speaker"], "language": "pl", "style": "acted", "emotion": match["emotion"]}
        return metadata | {"text": texts.get(name)}

    return utterances_by_name(root, CONVENTION, describe)


def _texts(root: Path) -> dict[str, str]:
    for table, (name, text) in TEXT_TABLES.items():
        if (root / table).is_file():
            rows = (row.values for row in read_rows(root / table))
            return {Path(row[name]).stem: row[text] for row in rows if row.get(name) and row.get(text)}
    return {}
