"""Guesses at corpora, each checked by the command that it prints."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_layouts import containers
from corpus_layouts.written import table, touch
from typer.testing import CliRunner

from seral import cli
from seral.corpora.scheme import find_scheme
from seral.errors import ReaderError
from seral.pool.guess import GuessOptions, guess_corpus, render_guess

EMODB = ("03a01Fa", "03a02Wb", "08a01Na", "16b10Td", "14a07La")
RAVDESS = ("03-01-05-01-02-01-01", "03-01-01-01-01-02-02", "03-01-08-01-01-01-24")


def run(*words: str) -> str:
    done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "300"})
    if done.exception is not None:
        raise done.exception
    return done.output


def guess(root: Path) -> dict[str, Any]:
    """The guess; its command, as an audit, has to give the counts that the guess told."""
    guess = guess_corpus(GuessOptions(root=str(root)))
    words = shlex.split(guess["command"])
    assert words[:3] == ["seral", "pool", "import"]
    assert words[5:7] == ["--out", "POOL"]
    out = root.parent / "audit.json"
    run("pool", "audit", *words[3:5], *words[7:], "--out", str(out))
    assert json.loads(out.read_text())["counts"] == guess["audit"]["counts"]
    return guess


@pytest.mark.parametrize(("reader", "names"), [("emodb", EMODB), ("ravdess", RAVDESS)])
@pytest.mark.parametrize("folder", ["", "ours/renamed/"])
def test_a_corpus_is_known_by_its_names_whatever_its_folder(
    tmp_path: Path, reader: str, names: tuple[str, ...], folder: str
) -> None:
    root = touch(tmp_path / "whatever", *(f"{folder}{name}.wav" for name in names), f"{folder}notes.txt")
    guessed = guess(root)
    assert (guessed["reader"], guessed["audit"]["utterances"]) == (reader, len(names))
    assert guessed["command"] == f"seral pool import {reader} {root} --out POOL"


def test_a_table_of_audio_elsewhere_takes_its_folder(tmp_path: Path) -> None:
    far = touch(tmp_path / "far/away/recordings", "a/one.wav", "a/two.wav")
    listed = table(tmp_path / "lists/two.csv", "file,emotion", "a/one.wav,angry", "a/two.wav,sad")
    with pytest.raises(ReaderError, match=r"no audio.*; name the folder of its audio by --audio-root"):
        guess_corpus(GuessOptions(root=str(listed)))
    guessed = guess_corpus(GuessOptions(root=str(listed), audio_root=str(far)))
    assert guessed["command"] == f"seral pool import manifest {listed} --out POOL --audio-root {far}"
    assert guessed["audit"]["utterances"] == 2
    assert f"--audio-root {far}" in run("pool", "guess", str(listed), "--audio-root", str(far))
    with pytest.raises(ReaderError, match="audio_root is the folder of a table's audio"):
        guess_corpus(GuessOptions(root=str(far), audio_root=str(far)))


@pytest.mark.corpora
@pytest.mark.parametrize(("reader", "count"), [("emodb", 535), ("ravdess", 960), ("nemo", 506), ("urdu", 400)])
def test_real_corpora_are_known(shared: Path, tmp_path: Path, reader: str, count: int) -> None:
    """Beside a manifest of everything, and renamed without one."""
    (tmp_path / "copy").symlink_to(shared / "corpora" / reader / "audio")
    for root in (shared / "corpora" / reader, tmp_path):
        guessed = guess_corpus(GuessOptions(root=str(root)))
        assert (guessed["reader"], guessed["audit"]["utterances"]) == (reader, count)


def test_folders_of_classes_are_labels(tmp_path: Path) -> None:
    guessed = guess(touch(tmp_path / "c", "train/angry/a.wav", "train/sad/b.wav", "test/sad/c.wav", "test/odd/d.wav"))
    assert (guessed["reader"], guessed["mapping"]) == ("audiofolder", {"split": "the folder", "emotion": "the folder"})
    assert guessed["audit"]["counts"]["emotion"] == {"sad": 2, "angry": 1, "odd": 1}
    assert guessed["audit"]["counts"]["split"] == {"test": 2, "train": 2}


def test_parts_of_names_become_a_pattern_and_codes_words(tmp_path: Path) -> None:
    names = [f"de/spk{n % 3:02d}/x-{code}_{n}.wav" for n, code in enumerate(("ANG", "HAP", "SAD", "NEU") * 3)]
    guessed = guess(touch(tmp_path / "c", *names, "fr/spk00/x-ANG_99.wav"))
    assert guessed["reader"] == "folder"
    counts = guessed["audit"]["counts"]
    assert counts["speaker"] == {"spk00": 5, "spk01": 4, "spk02": 4}
    assert counts["emotion"] == {"anger": 4, "happiness": 3, "neutral": 3, "sadness": 3}
    assert counts["language"] == {"de": 12, "fr": 1}
    text = render_guess(guessed)
    assert "speaker        (?P<speaker>" in text
    assert text.endswith(guessed["command"])


@pytest.mark.parametrize(
    ("sources", "fields"),
    [
        (["a.wav", "b.wav"], None),
        (["day1/x.wav", "day2/x.wav"], ("session",)),
        (["female/1.wav", "male/2.wav"], ("gender",)),
        (["OAF_angry/1.wav", "YAF_sad/2.wav"], ("emotion",)),
        (["1001_x_ANG.wav", "1001_y_SAD.wav", "1002_x_HAP.wav", "1002_y_FEA.wav"], ("speaker", "emotion")),
        (["s1_1.wav", "s2_2.wav"], None),  # a speaker of one clip is a number
        (["angry/1.wav", "angry/2.wav"], None),  # one class is a word
    ],
)
def test_only_what_words_tell_is_guessed(sources: list[str], fields: tuple[str, ...] | None) -> None:
    scheme = find_scheme(sources)
    assert (scheme and scheme.fields) == fields


def test_a_folder_that_tells_nothing_is_a_folder(tmp_path: Path) -> None:
    guessed = guess(touch(tmp_path / "c", "a.wav", "b/c.mp3"))
    assert (guessed["reader"], guessed["audit"]["utterances"], guessed["mapping"]) == ("folder", 2, {})


def test_a_table_is_a_manifest_with_the_columns_that_it_has(tmp_path: Path) -> None:
    touch(tmp_path / "c" / "wavs", "day/a.wav", "day/b.wav")
    lines = ("path,spk,Mood,gender", "day/a.wav,s1,joy,", "day/b.wav,s2,anger,")
    file = table(tmp_path / "c" / "lists" / "mine.csv", *lines)
    for root in (file, tmp_path / "c"):
        guessed = guess(root)
        assert guessed["reader"] == "manifest"
        columns = {"audio": "path", "speaker": "spk", "emotion": "Mood"}
        assert guessed["mapping"] == {name: f"{column} of mine.csv" for name, column in columns.items()}
        options = f"--column emotion=Mood --audio-root {tmp_path / 'c' / 'wavs'}"
        assert guessed["command"].endswith(f"manifest {file} --out POOL {options}")
        assert guessed["audit"]["counts"]["emotion"] == {"anger": 1, "joy": 1}
        assert guessed["audit"]["missing"] == []


def test_tables_are_joined_and_raters_are_known(tmp_path: Path) -> None:
    root = touch(tmp_path / "c", "day1/a.wav", "day2/b.wav")
    table(root / "votes.csv", "clip,a1_cat,a2_cat,a1_val,a2_val", "a,joy,joy,1,2", "b,anger,fear,3,4")
    table(root / "people.csv", "file_name,speaker", "a.wav,s1", "b.wav,s2")
    table(root / "other.csv", "x,y", "1,2")
    guessed = guess(root)
    assert guessed["reader"] == "folder"
    assert "--votes a1_cat,a2_cat --ratings valence=a1_val,a2_val" in guessed["command"]
    assert f"--join {root / 'people.csv'} --join {root / 'votes.csv'}=clip" in guessed["command"]
    assert guessed["audit"]["counts"]["emotion"] == {"joy": 1, "unknown": 1}
    assert guessed["audit"]["counts"]["speaker"] == {"s1": 1, "s2": 1}
    assert guessed["audit"]["votes"] == {"utterances": 2, "votes": 4, "raters": 2}


def test_a_table_with_a_row_a_rater_is_known(tmp_path: Path) -> None:
    root = touch(tmp_path / "c", "a.wav", "b.wav")
    lines = ("file,WorkerID,label,val", "a.wav,w1,joy,1", "a.wav,w2,joy,2", "b.wav,w1,joy,1", "b.wav,w2,fear,4")
    guessed = guess(table(root / "answers.csv", *lines))
    assert guessed["command"].endswith("--votes rater=WorkerID,emotion=label,valence=val")
    assert guessed["audit"]["votes"] == {"utterances": 2, "votes": 4, "raters": 2}
    assert guessed["audit"]["counts"]["emotion"] == {"joy": 1, "unknown": 1}


def test_paths_say_what_joined_tables_do_not(tmp_path: Path) -> None:
    root = touch(tmp_path / "c", "angry/a.wav", "sad/b.wav")
    table(root / "people.csv", "file_name,speaker", "a,s1", "b,s2")
    guessed = guess(root)
    assert guessed["mapping"] == {"speaker": "speaker of people.csv", "emotion": "(?P<emotion>"}
    assert guessed["audit"]["counts"]["emotion"] == {"angry": 1, "sad": 1}
    assert guessed["audit"]["counts"]["speaker"] == {"s1": 1, "s2": 1}


CONTAINERS: dict[str, Callable[[Path], None]] = {
    "audformat": containers.write_audformat,
    "audiofolder": containers.write_audiofolder,
    "hf-arrow": containers.write_hf_arrow,
    "hf-parquet": containers.write_hf_parquet,
    "webdataset": containers.write_webdataset,
}


FILES = {"audformat": containers.CLIPS, "audiofolder": ("train/x/a.wav", "test/c.wav")}


@pytest.mark.parametrize("reader", CONTAINERS)
def test_containers_are_known(tmp_path: Path, reader: str) -> None:
    root = touch(tmp_path / "c", "readme.txt", *FILES.get(reader, ()))
    CONTAINERS[reader](root)
    assert guess(root)["reader"] == reader


def test_a_way_that_fails_is_told_with_the_one_that_works(tmp_path: Path) -> None:
    root = touch(tmp_path / "c", "a.wav", "b.wav")
    table(root / "manifest.csv", "path,gender", "a.wav,x", "b.wav,y")
    guessed = guess(root)
    assert guessed["reader"] == "folder"
    assert "unknown word 'x'" in guessed["refused"][0]
    assert "refused        manifest: " in render_guess(guessed)


def test_nothing_to_import_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match=r"no folder and no table at .*nowhere"):
        guess_corpus(GuessOptions(root=str(tmp_path / "nowhere")))
    with pytest.raises(ReaderError, match="cannot be read as anything: no audio, no table and no archive"):
        guess_corpus(GuessOptions(root=str(touch(tmp_path / "c", "notes.txt"))))


def test_the_command_prints_it_as_text_or_json(tmp_path: Path) -> None:
    root = touch(tmp_path / "c", *(f"{name}.wav" for name in EMODB))
    text = run("pool", "guess", str(root))
    assert text.splitlines()[-1] == f"seral pool import emodb {root} --out POOL"
    assert "speaker        4: 03 2, 08 1, 14 1, 16 1" in text
    done = CliRunner().invoke(cli.app, ["pool", "guess", str(root), "--json"])
    assert json.loads(done.stdout)["reader"] == "emodb"
