"""Quirks of corpora whose file names say everything; what all readers must do stands in test_readers.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from seral.corpora import READERS
from seral.corpora.esd import EMOTIONS, SENTENCES
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions


def clips(root: Path, *names: str, seconds: float = 0.1) -> None:
    """Noise under these names, a different one in every file."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(number).normal(0, 0.1, int(16_000 * seconds))
        sf.write(path, samples, 16_000, format=path.suffix[1:].upper())


def utterances(reader: str, root: Path) -> dict[str, Utterance]:
    return {item.source: item for item in READERS[reader](root) if isinstance(item, Utterance)}


def skipped(reader: str, root: Path) -> dict[str, Skipped]:
    return {item.source: item for item in READERS[reader](root) if isinstance(item, Skipped)}


@pytest.mark.parametrize("number", [1, SENTENCES, SENTENCES + 1, len(EMOTIONS) * SENTENCES])
def test_esd_numbers_tell_the_emotion(tmp_path: Path, number: int) -> None:
    clips(tmp_path, f"0013/0013_{number:06d}.wav")
    (utterance,) = utterances("esd", tmp_path).values()
    assert utterance.emotion == EMOTIONS[(number - 1) // SENTENCES]
    assert set(READERS["esd"].totals.values()) == {20 * len(EMOTIONS) * SENTENCES}


@pytest.mark.parametrize(
    ("speaker", "encoding", "text"),
    [
        ("0001", "gb2312", "他对谁都那么友好。"),
        ("0003", "utf-16", "他对谁都那么友好。"),
        ("0011", "utf-8", "The nine, the eggs, I keep."),
        ("0012", "utf-16", "The nine, the eggs, I keep."),
        ("0015", "utf-8-sig", "Tom’s café."),
        ("0016", "cp1252", "Tom’s café."),
    ],
)
def test_esd_texts_in_the_encodings_of_the_release(tmp_path: Path, speaker: str, encoding: str, text: str) -> None:
    clips(tmp_path, f"{speaker}/Neutral/{speaker}_000001.wav", f"{speaker}/Neutral/{speaker}_000002.wav")
    lines = f"{speaker}_000001\t{text}\tNeutral\r\n\r\n{speaker}_000002 one field only\r\n"
    (tmp_path / speaker / f"{speaker}.txt").write_bytes(lines.encode(encoding))
    first, second = utterances("esd", tmp_path).values()
    assert (first.text, second.text) == (text, None)


def test_esd_split_is_the_folder_of_the_release(tmp_path: Path) -> None:
    folders = ("train", "evaluation", "test", "Angry")
    clips(tmp_path, *(f"0011/Angry/{folder}/0011_00040{n}.wav" for n, folder in enumerate(folders)))
    assert [u.split for u in utterances("esd", tmp_path).values()] == [None, "dev", "test", "train"]


def test_savee_is_the_same_corpus_in_every_tree(tmp_path: Path) -> None:
    clips(tmp_path / "nested", "AudioData/DC/a01.wav", "AudioData/KL/su02.wav")
    clips(tmp_path / "flat", "DC_a01.wav", "KL_su02.wav")
    clips(tmp_path / "joined", "DCa01.wav", "KLsu02.wav")
    trees = [utterances("savee", tmp_path / tree).values() for tree in ("nested", "flat", "joined")]
    names = [[(u.name, u.speaker, u.emotion) for u in tree] for tree in trees]
    assert names == [[("DC_a01", "DC", "anger"), ("KL_su02", "KL", "surprise")]] * 3


def test_emov_db_is_the_same_corpus_in_both_releases(tmp_path: Path) -> None:
    clips(tmp_path / "sorted", "jenie/Sleepy/sleepiness_1-28_0006.wav", "sam/Sleepy/sleepiness_1-28_0006.wav")
    clips(tmp_path / "openslr", "jenie_Sleepy/sleepiness_1-28_0006.wav", "sam_Sleepy/sleepiness_1-28_0006.wav")
    trees = [utterances("emov-db", tmp_path / tree).values() for tree in ("sorted", "openslr")]
    names = [[(u.name, u.speaker, u.gender) for u in tree] for tree in trees]
    assert names[0] == names[1]
    assert len(set(names[0])) == 2


@pytest.mark.parametrize(
    ("reader", "clip", "table", "line"),
    [
        ("esd", "0011/0011_000001.wav", "0011/0011.txt", "0011_000001\tHello.\tNeutral\n"),
        ("shemo", "female/F03S02.wav", "docs/shemo.json", '[{"id": "F03S02", "transcript": "Hello."}]'),
        ("emov-db", "bea/Amused/amused_1-15_0001.wav", "docs/cmuarctic.data", '( arctic_a0001 "Hello." )\n'),
        ("jl", "JL(wav+txt)/male1_sad_1a_1.wav", "JL(wav+txt)/male1_sad_1a_1.txt", "Hello."),
    ],
)
def test_texts_are_found_below_linked_folders(tmp_path: Path, reader: str, clip: str, table: str, line: str) -> None:
    clips(tmp_path / "real", clip)
    (tmp_path / "real" / table).parent.mkdir(exist_ok=True)
    (tmp_path / "real" / table).write_text(line)
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "real")
    (utterance,) = utterances(reader, tmp_path / "corpus").values()
    assert utterance.text == "Hello."


def test_a_second_copy_is_repeated_and_a_namesake_is_not(tmp_path: Path) -> None:
    clips(tmp_path, "OAF_back_sad.wav", "copy/OAF_back_sad.wav")
    clips(tmp_path, "other/OAF_back_sad.wav", seconds=0.2)
    assert set(utterances("tess", tmp_path)) == {"OAF_back_sad.wav", "other/OAF_back_sad.wav"}
    (repeated,) = skipped("tess", tmp_path).values()
    assert (repeated.source, repeated.reason) == ("copy/OAF_back_sad.wav", "repeated")
    assert repeated.detail == "the same name and size as OAF_back_sad.wav"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_corpus_that_lies_in_its_own_copy_is_imported_once(tmp_path: Path) -> None:
    """More than half of the files are of no use, and still nothing is wrong: second copies are not bad files."""
    names = ("OAF_sad/OAF_back_sad.wav", "OAF_neutral/OA_bite_neutral.wav")
    clips(tmp_path / "tess", *(f"{folder}{name}" for folder in ("", "TESS/", "TESS/TESS/") for name in names))
    options = ImportOptions(reader="tess", root=str(tmp_path / "tess"), out=str(tmp_path / "pool"))
    counts = import_corpus(options)
    assert (counts["files"], counts["utterances"], counts["reasons"]) == (6, 2, {"repeated": 4})
