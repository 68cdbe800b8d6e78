"""MSP-IMPROV: English, twelve actors in six sessions of two. Busso et al. 2017, doi:10.1109/TAFFC.2016.2515617.

A name is sentence and target emotion, speaker with session, kind of scene, turn: `MSP-IMPROV-S01A-F01-P-FM01`. Labels
and votes stand in one file, `Evalution.txt` as the release spells it, and name the videos: `UTD-IMPROV-...avi`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from seral.corpora.reading.labels import Label, one_of, read_text, utterances_by_label
from seral.corpora.reading.raters import blocks
from seral.corpora.reading.tree import Convention, corpus_files, files_below
from seral.corpora.reading.utterance import NO_AGREEMENT, Skipped, Utterance
from seral.errors import ReaderError

CONVENTION = Convention(
    corpus="msp-improv",
    pattern=re.compile(
        r"MSP-IMPROV-S\d\d[AHNS]-(?P<speaker>(?P<sex>[FM])(?P<session>0[1-6]))-(?P<scene>[PRST])-[FM]{1,2}\d+"
    ),
    expected="MSP-IMPROV-SNNE-XNN-K-XXNN (sentence and emotion, speaker F or M with session, P R S or T, turn)",
    example="Audio/session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav",
)
EMOTIONS = {"A": "angry", "S": "sad", "H": "happy", "N": "neutral", "O": "other", "X": NO_AGREEMENT}
"""Codes of the labels -> the words of the raters, in lower case."""
STYLES = {"P": "natural", "R": "acted", "S": "elicited", "T": "elicited"}
"""Talk between the scenes; read sentences; the sentence improvised in a scene; the scene's other turns."""


def read_msp_improv(root: Path) -> Iterator[Utterance | Skipped]:
    """All of MSP-IMPROV, with what each rater said."""
    files = corpus_files(root, CONVENTION)
    label_files = files_below(root, r"(.*/)?Evalua?tion\.txt")
    table = one_of(root, label_files, "Evalution.txt or Evaluation.txt", "Evalution.txt")
    texts = {file.stem: file for file in files_below(root, r"(.*/)?MSP-IMPROV-[^/]+\.txt")}
    yield from utterances_by_label(files, _labels(table, texts), CONVENTION)


def _labels(table: Path, texts: dict[str, Path]) -> Iterator[Label]:
    lines = enumerate(read_text(table).splitlines(), start=1)
    for location, line, votes in blocks((f"{table.name}, line {count}", text) for count, text in lines):
        name = Path(line.who).stem.replace("UTD-IMPROV", "MSP-IMPROV")
        match = CONVENTION.pattern.fullmatch(name)
        code = line.words[0] if line.words else ""
        if match is None or code not in EMOTIONS:
            raise ReaderError(
                f"{table}: {location}: expected a video such as UTD-IMPROV-S01A-F01-P-FM01.avi and one of "
                f"{', '.join(EMOTIONS)}, got {line.who!r} and {code!r}"
            )
        metadata = {
            "speaker": match["speaker"],
            "gender": {"F": "female", "M": "male"}[match["sex"]],
            "session": match["session"],
            "language": "en",
            "style": STYLES[match["scene"]],
            "text": read_text(texts[name]).strip() or None if name in texts else None,
            "emotion": EMOTIONS[code],
            **line.ratings,
            "votes": votes,
        }
        yield Label(name=name, location=location, metadata=metadata)
