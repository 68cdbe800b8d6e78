"""Exchange of answers with other tools: nothing is lost on the way, and a bad file changes nothing."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seral import storage
from seral.errors import LabelError, PoolError
from seral.labels.exchange import FORMATS, ExportOptions, export_labels, import_labels
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project
from seral.pool.shards import FORMAT
from seral.schema import UTTERANCE

PROJECT = Project(classes=("=joy", "Ärger, groß", "it's 喜"), dimensions=("arousal", "valence"), scale=(-1.0, 1.0))
COMPLETE = ("csv", "jsonl", "parquet", "label-studio", "argilla")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
risky = st.builds(
    str.__add__, st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", "'", "'=", "''", '"', ",", ""]), texts
)
names = st.from_regex(r"[=+@'\w][\w '\",;+-]{0,8}", fullmatch=True).filter(lambda name: name == name.strip())
emotions = st.lists(st.sampled_from(PROJECT.classes), unique=True, min_size=1, max_size=3)
rating = st.none() | st.floats(-1, 1)


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    kind = draw(st.sampled_from(["label", "label", "label", "unusable", "skipped", "other-language"]))
    chosen = draw(emotions) if kind == "label" else []
    first = draw(st.integers(1, len(chosen))) if chosen else 0
    rated = {name: draw(rating) for name in PROJECT.dimensions if kind == "label"}
    return Answer(
        utterance_id=draw(st.sampled_from(["calls-1", "calls-2", "=calls-3"])),
        person=draw(names),
        kind=kind,
        emotions=tuple(chosen[:first]),
        secondary=tuple(chosen[first:]),
        **rated,
        confidence=draw(st.none() | st.floats(0, 1)),
        comment=draw(st.none() | risky),
        seconds=draw(st.none() | st.floats(0, 1e6)),
        round=draw(st.none() | st.integers(0, 9)),
        tool=draw(st.sampled_from(["page", "-tool"])),
        final=draw(st.sampled_from([False, False, True])),
        answered_at=draw(st.floats(1e9, 2e9)),
    )


BATCHES = (None, ("evaluation", "evaluation"), ("warm/round-0001", "round"), ("@checks", "check"))
asked = st.sampled_from(BATCHES)


def ledger_with(folder: Path, answered: list[tuple[Answer, Any]]) -> Ledger:
    ledger = Ledger.create(str(folder / "labels.sqlite"), PROJECT)
    ledger.record([answer for answer, _ in answered], [batch for _, batch in answered])
    return ledger


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(answers(), asked), max_size=8), st.sampled_from(COMPLETE))
def test_nothing_is_lost_history_included(answered: list[tuple[Answer, Any]], format: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        ledger = ledger_with(folder, answered)
        file = folder / f"labels.{format}"
        assert export_labels(ledger, file, format, ExportOptions(history=True)) == len(answered)
        other = Ledger.create(str(folder / "other.sqlite"), PROJECT)
        assert import_labels(other, file, format) == len(answered)
        assert other.answers(history=True).equals(ledger.answers(history=True))
        assert import_labels(other, file, format) == 0, "twice is the same as once"
        assert other.answers(history=True).equals(ledger.answers(history=True))
        assert import_labels(ledger, file, format) == 0, "it is at home there"
        ledger.close()
        other.close()


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(answers(), asked), max_size=8), st.lists(st.integers(0, 7), max_size=3))
def test_many_at_once_are_as_one_after_the_other(answered: list[tuple[Answer, Any]], again: list[int]) -> None:
    answered = answered + [answered[number] for number in again if number < len(answered)]
    with TemporaryDirectory() as name:
        ledgers = []
        for number in range(2):
            ledger = Ledger.create(str(Path(name) / f"{number}.sqlite"), PROJECT)
            ledger.ask("evaluation", ["calls-1", "calls-2"], purpose="evaluation", round=7, overlap=2, max_skips=1)
            for person in ("ada", "ben"):
                ledger.add_person(person)
            ledger.claim("ada", lease_s=1e9)
            ledgers.append(ledger)
        together, single = ledgers
        new = together.record([answer for answer, _ in answered], [batch for _, batch in answered])
        assert new == sum(single.record([answer], [batch]) for answer, batch in answered)
        assert together.answers(history=True).equals(single.answers(history=True))
        shown = [[replace(batch, asked_at=0.0) for batch in ledger.progress()] for ledger in ledgers]
        assert shown[0] == shown[1]
        left = [[task.utterance_id for task in ledger.claim("ben", count=9)] for ledger in ledgers]
        assert left[0] == left[1]
        together.close()
        single.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.create(str(tmp_path / "labels.sqlite"), Project(classes=("anger", "joy"), dimensions=("arousal",)))


def test_every_format_has_both_directions() -> None:
    assert all(callable(format.write) and callable(format.read) for format in FORMATS.values())


def test_no_cell_of_a_csv_is_a_formula(ledger: Ledger, tmp_path: Path) -> None:
    marks = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1"]
    ledger.record(
        Answer(utterance_id="u", person=f"p{n}", emotions=("joy",), arousal=1.0, comment=mark, key=f"={n}")
        for n, mark in enumerate(marks)
    )
    export_labels(ledger, tmp_path / "labels.csv", "csv")
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r")]
    assert [cell for cell in cells if "SUM" in cell] == ["'@SUM(A1)"]


def test_the_usual_short_csv_is_read(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes("\ufeffutt_id,rater,label,act\r\nu1,ada,joy,4.5\r\nu1,ben,joy;anger,\r\n".encode())
    assert import_labels(ledger, file, "csv") == 2
    assert import_labels(ledger, file, "csv") == 0
    table = ledger.answers()
    assert table["emotions"].to_pylist() == [["joy"], ["joy", "anger"]]
    assert table["arousal"].to_pylist() == [4.5, None]
    assert table["tool"].to_pylist() == ["csv", "csv"]


def test_a_sorted_file_still_tells_which_answer_came_last(ledger: Ledger, tmp_path: Path) -> None:
    for word in ("anger", "joy"):
        ledger.record([Answer(utterance_id="u", person="ada", emotions=(word,))])
    export_labels(ledger, tmp_path / "labels.csv", "csv", ExportOptions(history=True))
    head, *rows = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join([head, *reversed(rows)]))
    other = Ledger.create(str(tmp_path / "other.sqlite"), ledger.project)
    import_labels(other, tmp_path / "labels.csv", "csv")
    assert other.answers()["emotions"].to_pylist() == [["joy"]]


GOOD = '{"utterance_id": "u1", "person": "ada", "emotions": ["joy"]}\n'


@pytest.mark.parametrize(
    ("format", "text", "message"),
    [
        ("csv", "utterance_id,person,emotions\nu1,ada,joy\nu2,ada,rage\n", "line 3: .*unknown class 'rage'"),
        ("csv", 'utterance_id,person,comment,emotions\nu1,ada,"two\nlines",joy\nu2,,x,joy\n', "line 4: no person"),
        ("csv", "utterance_id,person,emotions\nu1,ada,joy\nu2,ada\n", "line 3: 2 cells under 3 columns"),
        ("csv", "utterance_id,person,feeling\nu1,ada,joy\n", "line 2: unknown column 'feeling'; known: id, key"),
        ("csv", "utterance_id,person,arousal\nu1,ada,high\n", "line 2: arousal is 'high'"),
        ("csv", "person,person\n", "line 1: a column stands twice"),
        ("csv", 'utterance_id,person,emotions\nu1,ada,"joy', "line 2: unexpected end"),
        ("jsonl", GOOD + "{nonsense\n", "line 2: not JSON"),
        ("jsonl", GOOD + "[1]\n", "line 2: expected an object, got list"),
        ("jsonl", GOOD + '{"utterance_id": "u2", "person": "a/b", "emotions": ["joy"]}', "line 2: 'a/b' is no name"),
        ("jsonl", GOOD + '{"utterance_id": "u2", "person": "ada", "batch": "x"}', "line 2: batch and purpose"),
        ("jsonl", GOOD + '{"utterance_id": "u2", "person": "ada", "arousal": NaN}', "line 2: arousal is nan"),
        (
            "jsonl",
            GOOD + '{"utterance_id": "u2", "person": "ada", "emotions": ["joy"], "round": 4e9}',
            "line 2: .*32 bits",
        ),
        ("parquet", "no parquet", "is not Parquet"),
    ],
)
def test_a_bad_file_is_refused_whole(ledger: Ledger, tmp_path: Path, format: str, text: str, message: str) -> None:
    file = tmp_path / "labels"
    file.write_text(text)
    with pytest.raises(LabelError, match=message):
        import_labels(ledger, file, format)
    assert ledger.answers().num_rows == 0
    assert ledger.people() == []


def test_what_cannot_be_read_is_told(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("utterance_id,person,comment\nu,ada,Ärger".encode("latin-1"))
    with pytest.raises(LabelError, match=r"cannot be read: .*utf-8"):
        import_labels(ledger, tmp_path / "latin", "csv")
    with pytest.raises(LabelError, match=r"cannot be read: .*No such file"):
        import_labels(ledger, tmp_path / "none", "csv")
    with pytest.raises(LabelError, match=r"unknown format 'xml'; known: .*csv"):
        import_labels(ledger, tmp_path / "latin", "xml")


def test_a_changed_answer_under_its_old_key_is_refused_and_without_it_is_a_correction(
    ledger: Ledger, tmp_path: Path
) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text('{"key": "k1", ' + GOOD[1:])
    import_labels(ledger, file, "jsonl")
    file.write_text(file.read_text().replace("joy", "anger"))
    with pytest.raises(LabelError, match=r"line 1: the answer with the key k1 is there already .* another emotions;"):
        import_labels(ledger, file, "jsonl")
    file.write_text(file.read_text().replace('"key": "k1", ', ""))
    assert import_labels(ledger, file, "jsonl") == 1
    assert ledger.answers()["emotions"].to_pylist() == [["anger"]]


def test_a_batch_of_another_purpose_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.ask("first", ["u1"], purpose="evaluation")
    file = tmp_path / "labels.jsonl"
    file.write_text('{"batch": "first", "purpose": "round", ' + GOOD[1:])
    with pytest.raises(LabelError, match="line 1: the batch 'first' has the purpose 'evaluation', not 'round'"):
        import_labels(ledger, file, "jsonl")


def test_a_class_that_csv_would_take_apart_is_refused(tmp_path: Path) -> None:
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), Project(classes=("joy; delight", "anger")))
    with pytest.raises(LabelError, match="write jsonl or parquet"):
        export_labels(ledger, tmp_path / "labels.csv", "csv")


def test_clips_of_a_pool_come_along(ledger: Ledger, tmp_path: Path) -> None:
    shards = {"first": ["u1", "u2"], "second": ["u3"]}
    for shard, ids in shards.items():
        audio = [f"sound of {name}".encode() for name in ids]
        rows = {"utterance_id": ids, "audio": audio}
        columns = [pa.array(rows.get(field.name, [None] * len(ids)), field.type) for field in UTTERANCE]
        storage.write_table(tmp_path / f"pool/utterances/{shard}.parquet", pa.table(columns, UTTERANCE))
    manifest = {"format": FORMAT, "pool_hash": "0", "shards": {key: {} for key in shards}}
    storage.write_json(tmp_path / "pool/manifest.json", manifest)
    pool = str(tmp_path / "pool")
    ledger.ask("evaluation", ["u3", "u1"], purpose="evaluation")
    export_labels(ledger, tmp_path / "out" / "labels.jsonl", "jsonl", ExportOptions(pool=pool))
    export_labels(ledger, tmp_path / "database", "audformat", ExportOptions(pool=pool))
    for folder in ("out", "database"):
        clips = {file.name: file.read_bytes() for file in (tmp_path / folder / "clips").glob("*.flac")}
        assert clips == {"u1.flac": b"sound of u1", "u3.flac": b"sound of u3"}
    ledger.ask("round-0", ["u4"], purpose="round")
    with pytest.raises(PoolError, match=r"does not hold 1 of the utterances, e\.g\. u4"):
        export_labels(ledger, tmp_path / "more.jsonl", "jsonl", ExportOptions(pool=pool))
    assert not (tmp_path / "more.jsonl").exists()
