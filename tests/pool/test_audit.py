from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpus_layouts import crema_d, iemocap

from seral import storage
from seral.corpora import READERS
from seral.errors import OptionError
from seral.options import parse
from seral.pool.audit import AuditOptions, audit_corpus, render, total_remark
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions


def audit(reader: str, root: Path, **values: Any) -> dict[str, Any]:
    return audit_corpus(parse(AuditOptions, {"reader": reader, "root": str(root)} | values))


def touch(root: Path, files: tuple[str, ...]) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


@pytest.fixture
def iemocap_root(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    iemocap.write(root)
    touch(root, iemocap.AUDIO)
    return root


def test_what_has_no_partner_is_told_by_reason(iemocap_root: Path) -> None:
    report = audit("iemocap", iemocap_root)
    assert (report["utterances"], report["found"]) == (3, 4)
    assert {
        reason: [item["source"].split("/")[-1] for item in items] for reason, items in report["skipped"].items()
    } == {
        "no-audio": ["Ses05M_script03_2b_M042.wav"],
        "no-label": ["Ses01F_impro01_M009.wav"],
        "unreadable-name": ["take.wav"],
    }
    assert report["left_out"] == ["Session1/dialog/wav/Ses01F_impro01.wav"]
    assert report["missing"] == []
    assert report["names_twice"] == {}


def test_counts_are_of_what_would_be_imported(iemocap_root: Path) -> None:
    report = audit("iemocap", iemocap_root)
    assert report["counts"]["emotion"] == {"excited": 1, "neutral": 1, "no agreement": 1}
    assert report["counts"]["speaker"] == {"Ses01F": 1, "Ses01M": 1, "Ses05F": 1}
    assert report["counts"]["gender"] == {"female": 2, "male": 1}
    assert report["counts"]["split"] == {"unknown": 3}
    assert report["votes"] == {"utterances": 3, "votes": 6, "raters": 4}


def test_options_of_the_reader_count(tmp_path: Path) -> None:
    crema_d.write(tmp_path)
    touch(tmp_path, crema_d.AUDIO)
    assert audit("crema-d", tmp_path)["counts"]["emotion"] == {"anger": 1, "neutral": 1, "sad": 1}
    by_voice = audit("crema-d", tmp_path, reader_options={"labels": "voice"})
    assert by_voice["counts"]["emotion"] == {"anger": 1, "no agreement": 1}
    with pytest.raises(
        OptionError, match="expected 'acted', 'voice' or 'multimodal', got 'face'; did you mean 'acted'"
    ):
        audit("crema-d", tmp_path, reader_options={"labels": "face"})


def test_names_that_come_twice_and_files_that_are_gone(tmp_path: Path) -> None:
    touch(tmp_path, ("a.wav", "b.wav"))
    rows = [
        {"audio": "a.wav", "id": "u1", "emotion": "joy"},
        {"audio": "b.wav", "id": "u1", "emotion": "anger"},
        {"audio": "gone.wav", "id": "u2", "emotion": "joy"},
    ]
    (tmp_path / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    report = audit("manifest", tmp_path)
    assert report["names_twice"] == {"u1": ["a.wav (joy)", "b.wav (anger)"]}
    assert report["missing"] == ["gone.wav"]
    assert report["expected"] == {}
    assert report["remark"] is None


def test_an_audit_is_written_whole_and_shown_in_part(iemocap_root: Path, tmp_path: Path) -> None:
    report = audit("iemocap", iemocap_root, out=str(tmp_path / "audit.json"))
    assert storage.read_json(tmp_path / "audit.json") == report
    text = render(report)
    assert text.startswith(f"iemocap in {iemocap_root}: 3 utterances\n")
    for words in ("complete copy  10039 (2008); found 4", "no-label: the corpus's label files", "6 of 4 raters"):
        assert words in text
    assert "quarantine" not in text


@pytest.mark.parametrize(
    ("count", "remarked"), [(7442, False), (7441, True), (7443, True), (6700, True), (6697, False), (0, False)]
)
def test_only_copies_that_look_complete_are_remarked_upon(count: int, remarked: bool) -> None:
    remark = total_remark("crema-d", count)
    assert (remark is not None) is remarked
    assert remark is None or f"has 7442 (2014) utterances, this one has {count}" in remark


def test_nothing_is_expected_of_readers_of_anything() -> None:
    assert total_remark("folder", 12) is None
    assert total_remark("manifest", 0) is None


def test_every_corpus_of_known_size_has_a_positive_total() -> None:
    assert {name for name, reader in READERS.items() if reader.totals} >= {"emodb", "crema-d"}
    assert all(total > 0 for reader in READERS.values() for total in reader.totals.values())


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_an_import_makes_the_remark_and_an_audit_tells_its_quarantine(
    tmp_path: Path, make_corpus: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, pool = make_corpus(tmp_path / "calls", 4), str(tmp_path / "pool")
    (corpus / "audio" / "clip0003.flac").write_bytes(b"")
    monkeypatch.setitem(READERS, "manifest", replace(READERS["manifest"], totals={"first": 5, "second": 7}))
    counts = import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(corpus), "out": pool}))
    assert "remark" not in counts
    monkeypatch.setitem(READERS, "manifest", replace(READERS["manifest"], totals={"first": 3}))
    counts = import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(corpus), "out": pool}))
    assert counts["remark"] == "a complete copy of manifest has 3 (first) utterances, this one has 4"
    report = audit("manifest", corpus, pool=pool)
    assert [item["source"] for item in report["quarantine"]["empty"]] == ["audio/clip0003.flac"]
    assert "quarantine     empty: the file has 0 bytes" in render(report)
