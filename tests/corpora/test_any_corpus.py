"""Corpora that no reader knows: patterns of paths, words, raters' columns, joined tables, a root of the audio."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corpus_layouts.written import table, touch
from typer.testing import CliRunner

from seral import cli, storage
from seral.corpora import READERS, emodb, ravdess
from seral.corpora.keywords import find_reader
from seral.corpora.reading.rater_columns import RaterColumns
from seral.corpora.reading.utterance import Skipped, Utterance, Vote
from seral.errors import OptionError, ReaderError
from seral.pool.check import check_pool
from seral.pool.shards import open_pool

Speech = Callable[[float, int], Any]


def records(reader: str, root: Path, **options: Any) -> tuple[dict[str, Utterance], list[Skipped]]:
    """Utterances by source, and what was skipped."""
    items = list(find_reader(reader, options)(root))
    utterances = {item.source: item for item in items if isinstance(item, Utterance)}
    return utterances, [item for item in items if isinstance(item, Skipped)]


class TestAudioRoot:
    def test_relative_paths_start_there(self, tmp_path: Path) -> None:
        touch(tmp_path / "clips", "day1/a.wav")
        absolute = touch(tmp_path / "elsewhere", "b.wav") / "b.wav"
        file = table(tmp_path / "lists" / "mine.csv", "path,label", "day1/a.wav,joy", f"{absolute},anger")
        utterances, _ = records("manifest", file, audio_root=str(tmp_path / "clips"))
        assert utterances["day1/a.wav"].audio == tmp_path / "clips" / "day1" / "a.wav"
        assert utterances[str(absolute)].audio == absolute
        assert {utterance.corpus for utterance in utterances.values()} == {"lists"}

    def test_a_root_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        file = table(tmp_path / "m.csv", "path", "a.wav")
        with pytest.raises(ReaderError, match=r"audio_root .*nowhere is not a folder"):
            records("manifest", file, audio_root=str(tmp_path / "nowhere"))


class TestPattern:
    PATTERN = r"(?P<split>train|test)/(?P<speaker>s\d)_(?P<emotion>[a-z]{3})(?:_(?P<text>.+))?"

    def test_groups_are_fields_whatever_folders_come_before(self, tmp_path: Path) -> None:
        touch(tmp_path, "v1/train/s1_ang.wav", "v1/test/s2_hap_Hm hm.flac", "train/s1_sad.mp3")
        maps = {"emotion": {"ang": "anger", "hap": "joy"}, "language": {"*": "german"}}
        utterances, skipped = records("folder", tmp_path, pattern=self.PATTERN, maps=maps, corpus="calls")
        facts = {s: (u.split, u.speaker, u.emotion, u.text, u.language, u.corpus) for s, u in utterances.items()}
        assert facts == {
            "v1/train/s1_ang.wav": ("train", "s1", "anger", None, "de", "calls"),
            "v1/test/s2_hap_Hm hm.flac": ("test", "s2", "joy", "Hm hm", "de", "calls"),
            "train/s1_sad.mp3": ("train", "s1", "sad", None, "de", "calls"),  # a word that the map leaves
        }
        assert skipped == []

    def test_a_file_that_does_not_fit_is_skipped_by_name(self, tmp_path: Path) -> None:
        touch(tmp_path, "train/s1_ang.wav", "train/notes.wav", "s1_ang.wav")
        utterances, skipped = records("folder", tmp_path, pattern=self.PATTERN)
        assert list(utterances) == ["train/s1_ang.wav"]
        assert [(item.source, item.reason) for item in skipped] == [
            ("s1_ang.wav", "unreadable-name"),
            ("train/notes.wav", "unreadable-name"),
        ]
        assert "does not fit the pattern (?P<split>train|test)" in skipped[0].detail

    def test_one_part_may_tell_two_things(self, tmp_path: Path) -> None:
        touch(tmp_path, "08_x.wav", "03_x.wav")
        pattern, maps = r"(?P<name>(?P<speaker>(?P<gender>\d\d))_.*)", {"gender": {"03": "male", "*": "female"}}
        utterances, _ = records("folder", tmp_path, pattern=pattern, maps=maps)
        assert {u.name: (u.speaker, u.gender) for u in utterances.values()} == {
            "08_x": ("08", "female"),
            "03_x": ("03", "male"),
        }

    @pytest.mark.parametrize("ending", ["", r"\.wav"])
    def test_a_suffix_may_stand_in_it(self, tmp_path: Path, ending: str) -> None:
        touch(tmp_path, "a/joy.1.wav")
        utterances, _ = records("folder", tmp_path, pattern=rf"(?P<emotion>[a-z]+)\.\d{ending}")
        assert utterances["a/joy.1.wav"].emotion == "joy"

    def test_a_table_says_more_than_the_path_and_the_path_more_than_a_folder(self, tmp_path: Path) -> None:
        touch(tmp_path, "angry/s1_a.wav", "angry/s2_b.wav")
        pattern = r"(?P<speaker>s\d)_.*"
        utterances, _ = records("audiofolder", tmp_path, pattern=pattern, maps={"emotion": {"angry": "anger"}})
        assert {(u.speaker, u.emotion) for u in utterances.values()} == {("s1", "anger"), ("s2", "anger")}
        table(tmp_path / "metadata.csv", "file_name,speaker,label", "angry/s1_a.wav,Ann,joy", "angry/s2_b.wav,,fear")
        utterances, _ = records("audiofolder", tmp_path, pattern=pattern + "|(?P<emotion>.+)")
        assert {(u.speaker, u.emotion) for u in utterances.values()} == {("Ann", "joy"), ("s2", "fear")}
        utterances, skipped = records("manifest", tmp_path, pattern=r"(?P<speaker>s1)_(?P<session>.)")
        assert utterances["angry/s1_a.wav"].session == "a"
        assert [item.source for item in skipped] == ["angry/s2_b.wav"]

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"pattern": "(x"}, OptionError, r"'\(x' is no regular expression: .*unterminated"),
            ({"pattern": "a.b"}, OptionError, r"'a.b' names no group, of .*emotion.* for example \(\?P<speaker>"),
            ({"pattern": "(?P<emtion>.*)"}, OptionError, r"unknown group 'emtion'; known: .*emotion.* needs no name"),
            ({"pattern": "(?P<emotion>x)"}, ReaderError, r"fits no path, such as a/1.wav, a/2.wav, a/3.wav: it has"),
            ({"maps": {"mood": {}}}, OptionError, "unknown field to map words of 'mood'; known: .*emotion"),
            ({"pattern": r"(?P<gender>\d)"}, ReaderError, r"a/1.wav, column '\(\?P<gender>': unknown word '1'.* --map"),
            (
                {"columns": {"emotion": "x"}},
                ReaderError,
                "no table has the columns x; there is: no table; name one",
            ),
        ],
    )
    def test_mistakes_are_named(
        self, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        touch(tmp_path, *(f"a/{number}.wav" for number in range(1, 6)))
        with pytest.raises(error, match=words):
            records("folder", tmp_path, **options)


class TestVotes:
    ROWS = (
        "file,spk,a1_cat,a2_cat,a3_cat,a1_val,a2_val,a3_val",
        "a.wav,s1,anger,anger,joy,1,2,",
        "b.wav,s1,anger,joy,,,,",
        "c.wav,s2,,,,,,",
    )

    def test_a_column_a_rater(self, tmp_path: Path) -> None:
        file = table(tmp_path / "m.csv", *self.ROWS)
        options: dict[str, Any] = {"votes": ["a1_cat", "a2_cat", "a3_cat"]}
        options |= {"ratings": {"valence": ["a1_val", "a2_val", "a3_val"]}, "maps": {"emotion": {"joy": "happiness"}}}
        utterances, _ = records("manifest", file, **options)
        first, tie, silent = utterances.values()
        assert first.votes == (
            Vote(rater="a1", emotion="anger", valence=1.0),
            Vote(rater="a2", emotion="anger", valence=2.0),
            Vote(rater="a3", emotion="happiness"),
        )
        assert (first.emotion, first.valence, first.arousal) == ("anger", 1.5, None)
        assert ([vote.rater for vote in tie.votes], tie.emotion) == (["a1", "a2"], None)
        assert (silent.votes, silent.emotion) == ((), None)

    def test_an_emotion_of_its_own_counts_more(self, tmp_path: Path) -> None:
        file = table(tmp_path / "m.csv", "file,emotion,r1,r2", "a.wav,fear,joy,joy")
        (utterance,) = records("manifest", file, votes=["r1", "r2"])[0].values()
        assert (utterance.emotion, [vote.emotion for vote in utterance.votes]) == ("fear", ["joy", "joy"])

    def test_a_row_a_rater(self, tmp_path: Path) -> None:
        rows = ("file,annotator,label,val", "a.wav,Ann,joy,3", "b.wav,Ann,fear,", "a.wav,Bob,joy,4", "a.wav,Ann,fear,1")
        file = table(tmp_path / "m.csv", *rows)
        votes = {"rater": "annotator", "emotion": "label", "valence": "val"}
        utterances, _ = records("manifest", file, votes=votes)
        assert list(utterances) == ["a.wav", "b.wav"]
        joy = [Vote(rater=name, emotion="joy", valence=value) for name, value in (("Ann", 3.0), ("Bob", 4.0))]
        assert utterances["a.wav"].votes == tuple(joy), "of a rater who answered twice the first answer counts"
        assert (utterances["a.wav"].emotion, utterances["a.wav"].valence) == ("joy", 3.5)
        touch(tmp_path / "clips", "a.wav", "b.wav")
        joined, _ = records("folder", tmp_path / "clips", join={str(file): ""}, votes=votes)
        assert {s: (u.emotion, u.votes) for s, u in joined.items()} == {
            s: (u.emotion, u.votes) for s, u in utterances.items()
        }

    @pytest.mark.parametrize(
        ("columns", "names"),
        [
            (["a1_cat", "a2_cat"], ["a1", "a2"]),
            (["emo_r1", "emo_r2"], ["r1", "r2"]),
            (["label.ann.x", "label.bob.x"], ["ann", "bob"]),
            (["Ann", "Bob"], ["Ann", "Bob"]),
            (["ann_emotion"], ["ann_emotion"]),
            (["a_b", "a"], ["a_b", "a"]),
        ],
    )
    def test_raters_have_the_names_of_their_columns(self, columns: list[str], names: list[str]) -> None:
        raters = RaterColumns.of(columns, {})
        assert raters is not None
        assert list(raters.raters) == names

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            (
                {"votes": ["a1_cat", "a9_cat"]},
                ReaderError,
                r"the raters' columns a1_cat, a9_cat; there is: .*a1_cat",
            ),
            (
                {"votes": ["a1_cat"], "ratings": {"valence": ["a1_val", "a2_val"]}},
                OptionError,
                "1 of emotion, 2 of val",
            ),
            ({"ratings": {"mood": ["a1_val"]}}, OptionError, "unknown rating of raters 'mood'; known: arousal, "),
            ({"votes": {"emotion": "a1_cat"}}, OptionError, "needs votes rater=COLUMN,emotion=COLUMN"),
            ({"votes": {"rater": "spk", "mood": "x"}}, OptionError, "unknown part of a vote 'mood'; known: .*emotion"),
            ({"ratings": {"valence": ["spk"]}}, ReaderError, "line 2, column 'spk': expected a number, got 's1'"),
        ],
    )
    def test_mistakes_are_named(
        self, tmp_path: Path, options: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        file = table(tmp_path / "m.csv", *self.ROWS)
        with pytest.raises(error, match=words):
            records("manifest", file, **options)


class TestJoin:
    def test_raters_of_two_tables_are_refused_and_of_the_second_are_taken(self, tmp_path: Path) -> None:
        file = table(tmp_path / "m.csv", "path,a1_cat", "a.wav,joy")
        more = table(tmp_path / "more.csv", "path,a2_cat,a3_cat", "a.wav,joy,fear")
        with pytest.raises(ReaderError, match="all the raters' columns a1_cat, a2_cat; there is: a1_cat, a2"):
            records("manifest", file, join={str(more): ""}, votes=["a1_cat", "a2_cat"])
        utterances, _ = records("manifest", file, join={str(more): ""}, votes=["a2_cat", "a3_cat"])
        assert [vote.rater for vote in utterances["a.wav"].votes] == ["a2", "a3"]

    def test_rows_meet_files_by_name_and_what_is_left_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = touch(tmp_path / "clips", "day1/a.wav", "day2/b.1.flac", "day2/c.wav")
        labels = table(tmp_path / "labels.csv", "filename,mood", "old/a.WAV,joy", "b.1,fear", "gone.wav,fear")
        people = table(tmp_path / "people.csv", "clip,speaker,gender", "a,s1,F", "b.1,s2,m", "c,s2,m")
        options = {"join": {str(labels): "", str(people): "clip"}, "columns": {"emotion": "mood"}}
        utterances, skipped = records("folder", root, **options)
        assert {s: (u.emotion, u.speaker, u.gender) for s, u in utterances.items()} == {
            "day1/a.wav": ("joy", "s1", "female"),
            "day2/b.1.flac": ("fear", "s2", "male"),
            "day2/c.wav": (None, "s2", "male"),
        }
        assert [(item.source, item.reason, item.detail) for item in skipped] == [
            ("gone", "no-audio", "named in labels.csv, line 4")
        ]
        assert f"{labels}: no row for 1 of 3 clips, such as day2/c.wav" in capsys.readouterr().err

    def test_a_manifest_is_joined_by_its_ids_and_says_more_than_the_other_table(self, tmp_path: Path) -> None:
        file = table(tmp_path / "m.csv", "id,path,start,end,emotion", "u1,tape.wav,0,1,joy", "u2,tape.wav,1,2,")
        labels = table(tmp_path / "labels.csv", "utterance_id,emotion,text", "u1,fear,Hm.", "u2,anger,Oh.")
        utterances, _ = records("manifest", file, join={str(labels): ""})
        assert [(u.name, u.emotion, u.text) for u in utterances.values()] == [
            ("u1", "joy", "Hm."),
            ("u2", "anger", "Oh."),
        ]
        chosen, _ = records("manifest", file, join={str(labels): ""}, columns={"emotion": "", "text": "text"})
        assert [(u.emotion, u.text) for u in chosen.values()] == [(None, "Hm."), (None, "Oh.")]

    def test_a_chosen_column_of_the_other_table_stands_for_the_usual_one_here(self, tmp_path: Path) -> None:
        file = table(tmp_path / "m.csv", "path,label", "a.wav,0")
        labels = table(tmp_path / "labels.csv", "path,heard", "a.wav,joy")
        utterances, _ = records("manifest", file, join={str(labels): ""}, columns={"emotion": "heard"})
        assert utterances["a.wav"].emotion == "joy"

    def test_rows_that_contradict_each_other_are_quoted(self, tmp_path: Path) -> None:
        root = touch(tmp_path / "clips", "a.wav", "b.wav")
        labels = table(tmp_path / "l.csv", "file,emotion,age", "a,joy,3", "b,fear,1", "a,fear,3", "b,fear,2")
        utterances, (conflict,) = records("folder", root, join={str(labels): ""})
        assert utterances["b.wav"].emotion == "fear"
        assert (conflict.source, conflict.reason) == ("a.wav", "conflict")
        assert conflict.detail == "l.csv, line 2: emotion joy but l.csv, line 4: emotion fear"

    @pytest.mark.parametrize(
        ("lines", "key", "words"),
        [
            (
                ("clip,emotion", "a,joy"),
                "",
                r"no column of audio, path, .* --join .*l.csv=COLUMN",
            ),
            (
                ("clip,emotion", "a,joy"),
                "name",
                r"no column name, by which to join it; it has: clip, emotion",
            ),
            (
                ("file,emotion", "x,joy"),
                "",
                r"no row for any clip: its column file holds x, the clips are a/1",
            ),
            (("file,emotion", "1,joy"), "", r"has one row for a/1.wav and for b/1.wav"),
        ],
    )
    def test_mistakes_are_named(self, tmp_path: Path, lines: tuple[str, ...], key: str, words: str) -> None:
        root = touch(tmp_path / "clips", "a/1.wav", "b/1.wav")
        labels = table(tmp_path / "l.csv", *lines)
        with pytest.raises(ReaderError, match=words):
            records("folder", root, join={str(labels): key})


EMODB: dict[str, Any] = {
    "pattern": r"(?P<name>(?P<speaker>(?P<gender>\d\d))(?P<text>[ab]\d\d)(?P<emotion>[WLEAFTN])[a-z])",
    "maps": {
        "emotion": emodb.EMOTIONS,
        "gender": dict.fromkeys(emodb.MEN, "male") | {"*": "female"},
        "text": emodb.SENTENCES,
        "language": {"*": "de"},
        "style": {"*": "acted"},
    },
    "corpus": "emodb",
}
NUMBERS = [f"{number:02d}" for number in range(1, 25)]
RAVDESS: dict[str, Any] = {
    "pattern": r"(?P<name>03-01-(?P<emotion>\d\d)-\d\d-(?P<text>\d\d)-\d\d-(?P<speaker>(?P<gender>\d\d)))",
    "maps": {
        "emotion": ravdess.EMOTIONS,
        "speaker": {number: f"Actor_{number}" for number in NUMBERS},
        "gender": {number: "male" if int(number) % 2 else "female" for number in NUMBERS},
        "text": ravdess.SENTENCES,
        "language": {"*": "en"},
        "style": {"*": "acted"},
    },
    "corpus": "ravdess",
}
OPTIONS = {"emodb": EMODB, "ravdess": RAVDESS}


@pytest.mark.corpora
@pytest.mark.parametrize(("name", "count"), [("emodb", 535), ("ravdess", 960)])
def test_a_pattern_and_words_say_all_that_the_corpus_own_reader_says(shared: Path, name: str, count: int) -> None:
    own = list(READERS[name](shared / "corpora" / name))
    assert len(own) == count
    assert list(find_reader("folder", OPTIONS[name])(shared / "corpora" / name)) == own


def command(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, list(arguments))
    if done.exception is not None:
        raise done.exception
    return done.output


def rows_of(pool: str, name: str) -> list[dict[str, Any]]:
    """The rows of a table of a pool, by id."""
    opened = open_pool(pool)
    tables = (storage.read_table(opened.table_uri(name, shard)) for shard in opened.shards)
    return sorted((row for part in tables for row in part.to_pylist()), key=lambda row: str(row["utterance_id"]))


@pytest.mark.ray
@pytest.mark.corpora
@pytest.mark.usefixtures("ray_session")
def test_a_pool_by_a_pattern_is_the_pool_of_the_corpus_own_reader(shared: Path, tmp_path: Path) -> None:
    """Given on the command line; the id is made of the corpus, its name for the clip, and the audio."""
    root = tmp_path / "copy"
    root.mkdir()
    for file in sorted((shared / "corpora" / "emodb" / "audio").iterdir())[::30]:
        shutil.copy(file, root)
    words = [
        f"--map={name}=" + ",".join(f'"{word}:{ours}"' for word, ours in words.items())
        for name, words in EMODB["maps"].items()
    ]
    choices = ["--pattern", EMODB["pattern"], *words, "--set", "corpus=emodb", "--set", "voice=false"]
    command("pool", "import", "folder", str(root), "--out", str(tmp_path / "a"), *choices)
    command("pool", "import", "emodb", str(root), "--out", str(tmp_path / "b"), "--set", "voice=false")
    rows = {name: rows_of(str(tmp_path / "a"), name) for name in ("utterances", "gold")}
    assert len(rows["gold"]) == 18
    assert rows == {name: rows_of(str(tmp_path / "b"), name) for name in rows}
    assert check_pool(str(tmp_path / "a")) == []


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_answers_of_three_raters_become_votes_of_the_pool(tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    root = make_corpus(tmp_path / "calls", 4)
    rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
    answers = ["anger,anger,joy,1,2,3", "joy,anger,fear,,,", ",,,,,", "joy,joy,joy,3,3,3"]
    lines = [f"{row['audio']},{row['speaker']},{answer}" for row, answer in zip(rows, answers, strict=True)]
    file = table(tmp_path / "raters.csv", "path,speaker,a1_cat,a2_cat,a3_cat,a1_val,a2_val,a3_val", *lines)
    options = [
        *("--audio-root", str(root), "--votes", "a1_cat,a2_cat,a3_cat", "--ratings", "valence=a1_val,a2_val,a3_val"),
        *("--map", "emotion=joy:happiness"),
    ]
    audit = command("pool", "audit", "manifest", str(file), *options)
    assert "votes          9 of 3 raters on 3 utterances" in audit
    assert "happiness 1" in audit
    command("pool", "import", "manifest", str(file), "--out", str(tmp_path / "pool"), *options, "--set", "voice=false")
    pool = str(tmp_path / "pool")
    source_of = {row["utterance_id"]: row["source"] for row in rows_of(pool, "utterances")}
    gold, votes = rows_of(pool, "gold"), rows_of(pool, "votes")
    assert {source_of[row["utterance_id"]][-6]: (row["emotion"], row["valence"]) for row in gold} == {
        "0": ("anger", 2.0),
        "1": (None, None),
        "2": (None, None),
        "3": ("happiness", 3.0),
    }
    by_rater = {(source_of[row["utterance_id"]][-6], row["rater"]): (row["emotion"], row["valence"]) for row in votes}
    assert len(by_rater) == 9
    assert by_rater["0", "a3"] == ("happiness", 3.0)
    assert by_rater["1", "a3"] == ("fear", None)
    assert check_pool(pool) == []
