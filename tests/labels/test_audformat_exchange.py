"""audformat: a database that the package itself, and our own reader of corpora, understand."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import audformat
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from seral.corpora.formats.audformat import read_audformat
from seral.errors import LabelError, ReaderError
from seral.labels.exchange import ExportOptions, export_labels, import_labels
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project

PROJECT = Project(classes=("anger", "joy"), dimensions=("arousal",))
BATCHES = (None, ("evaluation", "evaluation"), ("warm/round-0001", "round"))
KEPT = ("utterance_id", "person", "kind", "emotions", "secondary", "arousal", "confidence", "comment", "seconds")
KEPT += ("round", "tool", "final", "answered_at", "key", "batch", "purpose")


def label(utterance: str, person: str, *emotions: str, **more: object) -> Answer:
    return Answer(utterance_id=utterance, person=person, emotions=emotions, **more)  # type: ignore[arg-type]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), PROJECT)
    ledger.ask("evaluation", ["u1", "u2", "u3"], purpose="evaluation", overlap=2)
    ledger.record([label("u1", "ada", "joy", arousal=4.5), label("u1", "ben", "anger", "joy", comment="both")])
    ledger.record([Answer(utterance_id="u2", person="ada", kind="unusable"), label("u1", "lead", "joy", final=True)])
    return ledger


def test_the_package_reads_the_database_and_finds_nothing_wrong(ledger: Ledger, tmp_path: Path) -> None:
    assert export_labels(ledger, tmp_path / "db", "audformat", ExportOptions(audio="audio/{utterance_id}.wav")) == 4
    database = audformat.Database.load(str(tmp_path / "db"))
    assert list(database.raters) == ["ada", "ben", "lead"]
    assert database.schemes["emotion"].labels == ["anger", "joy"]
    gold, votes = (database[name].df for name in sorted(database.tables))
    assert list(votes.index) == [f"audio/u{n}.wav" for n in (1, 2, 3)], "in the order of the questions"
    assert votes.loc["audio/u1.wav", "emotion.ada"] == "joy"
    assert votes.loc["audio/u1.wav", "arousal.ada"] == 4.5
    assert votes["emotion.ben"].isna().all(), "two primary emotions are not one"
    assert gold["emotion.lead"].tolist() == ["joy"]


def test_our_reader_of_corpora_takes_the_answers_as_votes_and_the_adjudication_as_gold(
    ledger: Ledger, tmp_path: Path
) -> None:
    export_labels(ledger, tmp_path / "db", "audformat")
    first = next(utterance for utterance in read_audformat(tmp_path / "db") if utterance.source == "clips/u1.flac")
    assert first.emotion == "joy"  # type: ignore[union-attr]
    assert [(vote.rater, vote.emotion, vote.arousal) for vote in first.votes] == [("ada", "joy", 4.5)]  # type: ignore[union-attr]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
answers = st.builds(
    label,
    st.sampled_from(["u1", "u2", "=u3"]),
    st.sampled_from(["ada", "ben", "=c, d"]),
    st.sampled_from(PROJECT.classes),
    arousal=st.none() | st.floats(1, 5),
    comment=st.none() | texts,
    confidence=st.none() | st.floats(0, 1),
    final=st.booleans(),
    tool=st.sampled_from(["page", "other"]),
    answered_at=st.floats(1e9, 2e9),
)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.tuples(answers, st.sampled_from(BATCHES)), max_size=8))
def test_nothing_of_the_answers_that_stand_is_lost(answered: list[tuple[Answer, object]]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        ledger, other = (Ledger.create(str(folder / f"{side}.sqlite"), PROJECT) for side in ("here", "there"))
        ledger.record([answer for answer, _ in answered], [batch for _, batch in answered])  # type: ignore[misc]
        export_labels(ledger, folder / "db", "audformat")
        import_labels(other, folder / "db", "audformat")
        assert import_labels(other, folder / "db", "audformat") == 0
        assert other.answers().select(KEPT).equals(ledger.answers().select(KEPT))
        ledger.close()
        other.close()


def test_a_database_of_somebody_else_is_read(ledger: Ledger, tmp_path: Path) -> None:
    database = audformat.Database("calls", source="a call centre", usage="research")
    database.schemes["emotion"] = audformat.Scheme(labels=["anger", "joy"])
    database.raters["eva"], database.raters["model"] = audformat.Rater("human"), audformat.Rater("machine")
    database["labels"] = audformat.Table(audformat.filewise_index(["wav/u2.wav", "wav/u3.wav"]))
    for rater, words in {"eva": ["joy", None], "model": ["anger", "anger"]}.items():
        database["labels"][rater] = audformat.Column(scheme_id="emotion", rater_id=rater)
        database["labels"][rater].set(words)
    database.save(str(tmp_path / "theirs"), storage_format="csv")
    assert import_labels(ledger, tmp_path / "theirs", "audformat") == 1
    eva = ledger.answers(person="eva").to_pylist()[0]
    assert (eva["utterance_id"], eva["emotions"], eva["batch"], eva["tool"]) == (
        "u2",
        ["joy"],
        "evaluation",
        "audformat",
    )


def test_a_bad_database_is_refused_whole(ledger: Ledger, tmp_path: Path) -> None:
    before = ledger.answers().num_rows
    folder = tmp_path / "db"
    with pytest.raises(LabelError, match=r"cannot be read: .*db\.yaml"):
        import_labels(ledger, folder, "audformat")
    folder.mkdir()
    header = {"raters": {"eva": {"type": "human"}}, "tables": {"t": {"columns": {"emotion": {"rater_id": "eva"}}}}}
    for text, message in (("a: [", "not valid YAML"), ("name: x", "expected a header with raters and tables")):
        (folder / "db.yaml").write_text(text)
        with pytest.raises(LabelError, match=message):
            import_labels(ledger, folder, "audformat")
    (folder / "db.yaml").write_text(yaml.safe_dump(header))
    with pytest.raises(ReaderError, match="no file at"):
        import_labels(ledger, folder, "audformat")
    (folder / "db.t.csv").write_text("file,emotion\nu1.wav,joy\nu2.wav,rage\n")
    with pytest.raises(LabelError, match=r"db\.t\.csv, line 3, rater eva: .*unknown class 'rage'"):
        import_labels(ledger, folder, "audformat")
    assert ledger.answers().num_rows == before


def test_history_has_no_place_in_it(ledger: Ledger, tmp_path: Path) -> None:
    ledger.record([label("u1", "ada", "anger")])
    with pytest.raises(LabelError, match="no place for superseded answers"):
        export_labels(ledger, tmp_path / "db", "audformat", ExportOptions(history=True))
    assert not (tmp_path / "db").exists()
