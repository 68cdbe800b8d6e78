"""MELD: English, scenes of the series Friends. Poria et al. 2019, arXiv 1810.02508.

Labels stand in `train_sent_emo.csv`, `dev_sent_emo.csv` and `test_sent_emo.csv`; a clip is named by dialogue and
utterance (`dia0_utt0`), and the three parts reuse the names, so the part is read from the folder. The clips are mp4:
wav or flac copies beside them, or in a tree of their own, are taken first. StartTime and EndTime are places in the
episode, which is not part of the release. The parts share their speakers, who are the series' characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from seral.corpora.reading.labels import Label, read_text, utterances_by_label
from seral.corpora.reading.rows import parse_csv
from seral.corpora.reading.tree import AudioFile, Convention, corpus_files, files_below
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

PARTS = ("train", "dev", "test")
CONVENTION = Convention(
    corpus="meld",
    pattern=re.compile(r"(?:.*/)?(?P<folder>[^/]*(?:train|dev|test)[^/]*)/(?:[^/]+/)*dia\d+_utt\d+"),
    expected="PART/diaD_uttU, the part being a folder with train, dev or test in its name",
    example="train/train_splits/dia0_utt0.mp4",
    folders=True,
    suffixes=frozenset({".mp4", ".wav", ".flac"}),
)
EMOTIONS = ("neutral", "joy", "sadness", "anger", "surprise", "fear", "disgust")
KNOWN_BAD = {
    "train_dia125_utt3": "broken or missing in every copy of the release",
    "dev_dia110_utt7": "broken or missing in every copy of the release",
}
SEVERAL = re.compile(r"all|both|every(one|body)|.*(/|,|&| and ).*", re.IGNORECASE)
"""Speakers that are several at once."""
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "Season", "Episode")


def read_meld(root: Path) -> Iterator[Utterance | Skipped]:
    """All of MELD, with its official split."""
    files = corpus_files(root, CONVENTION)
    tables = files_below(root, rf"(.*/)?({'|'.join(PARTS)})_sent_emo\.csv")
    if not tables:
        expected = "train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv, for example train/train_sent_emo.csv"
        raise ReaderError(f"{root} has no label file: expected {expected}")
    labels = (label for table in tables for label in _labels(table))
    listed = _one_format(files)
    yield from utterances_by_label(listed, labels, CONVENTION, name_of=_name, known_bad=KNOWN_BAD, not_speech=_is_extra)


def _name(file: AudioFile) -> str:
    """Part and stem; the part is the last folder that names one (`output_repeated_splits_test` is test)."""
    folders = "/".join(file.source.split("/")[:-1])
    return f"{re.findall('|'.join(PARTS), folders)[-1]}_{file.name}"


def _is_extra(name: str) -> bool:
    """Videos of the test part that no table names."""
    return name.startswith("final_videos_test")


def _one_format(files: Iterable[AudioFile]) -> list[AudioFile]:
    """Without the videos of which there is a wav or flac copy."""
    files = list(files)
    with_copy = {_name(file) for file in files if CONVENTION.match(file) and file.path.suffix.lower() != ".mp4"}
    return [
        file
        for file in files
        if file.path.suffix.lower() != ".mp4" or not CONVENTION.match(file) or _name(file) not in with_copy
    ]


def _labels(table: Path) -> Iterator[Label]:
    part = table.name.split("_")[0].lower()
    for row in parse_csv(table, read_text(table), needs=COLUMNS):
        values = row.values
        location = f"{table.name}, {row.location}"
        if values["Emotion"] not in EMOTIONS:
            raise ReaderError(
                f"{table}, {row.location}: expected one of {', '.join(EMOTIONS)}, got {values['Emotion']!r}"
            )
        speaker = values["Speaker"].strip()
        metadata = {
            "speaker": None if SEVERAL.fullmatch(speaker) else speaker,
            "session": f"s{int(values['Season']):02d}e{int(values['Episode']):02d}",
            "language": "en",
            "style": "acted",
            "split": part,
            "text": " ".join(values["Utterance"].split()),
            "emotion": values["Emotion"],
        }
        yield Label(
            name=f"{part}_dia{values['Dialogue_ID']}_utt{values['Utterance_ID']}", location=location, metadata=metadata
        )
