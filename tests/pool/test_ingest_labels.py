"""Imports of corpora whose labels stand in files of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
from corpus_layouts import crema_d

from seral import storage
from seral.errors import OptionError
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_part_of_a_corpus_is_imported_with_its_votes(tmp_path: Path, speech: Callable[[float, int], Any]) -> None:
    """Two of three labels have no audio here: they are told, and are no bad files."""
    crema_d.write(tmp_path / "corpus")
    (tmp_path / "corpus" / "AudioWAV").mkdir()
    sf.write(tmp_path / "corpus" / "AudioWAV" / "1001_IEO_ANG_HI.wav", speech(1.0, 0), 16_000)
    values = {"reader": "crema-d", "root": str(tmp_path / "corpus"), "out": str(tmp_path / "pool")}
    counts = import_corpus(parse(ImportOptions, values | {"reader_options": {"labels": "voice"}}))
    assert (counts["utterances"], counts["reasons"]) == (1, {"no-audio": 2})
    pool = open_pool(str(tmp_path / "pool"))
    votes = [row for shard in pool.shards for row in storage.read_table(pool.table_uri("votes", shard)).to_pylist()]
    assert [(row["emotion"], row["count"]) for row in votes] == [("anger", 6), ("neutral", 3)]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_what_was_in_quarantine_is_tried_again_when_asked_for(
    tmp_path: Path, speech: Callable[[float, int], Any]
) -> None:
    root, pool = tmp_path / "corpus", str(tmp_path / "pool")
    crema_d.write(root)
    (root / "AudioWAV").mkdir()
    for number, name in enumerate(("1001_IEO_ANG_HI", "1091_DFA_NEU_XX")):
        sf.write(root / "AudioWAV" / f"{name}.wav", speech(1.0, number), 16_000)
    values = {"reader": "crema-d", "root": str(root), "out": pool, "reader_options": {"labels": "voice"}}
    assert import_corpus(parse(ImportOptions, values))["reasons"] == {"no-label": 1, "no-audio": 2}
    with (root / "processedResults" / "tabulatedVotes.csv").open("a") as table:
        table.write('"100004",0,0,0,0,9,0,"1091_DFA_NEU_XX",9\n')
    assert import_corpus(parse(ImportOptions, values))["utterances"] == 0, "it is known as without label"
    counts = import_corpus(parse(ImportOptions, values | {"retry": ["no-label"]}))
    assert (counts["utterances"], counts["pool_utterances"]) == (1, 2)
    assert sorted(open_pool(pool).quarantine["reason"].to_pylist()) == ["no-audio", "no-audio"]
    assert check_pool(pool) == []
    again = import_corpus(parse(ImportOptions, values | {"retry": ["no-audio"]}))
    assert (again["utterances"], again["reasons"]) == (0, {"no-audio": 2})
    assert sorted(open_pool(pool).quarantine["reason"].to_pylist()) == ["no-audio", "no-audio"]
    assert check_pool(pool) == []


def test_only_reasons_are_tried_again() -> None:
    with pytest.raises(OptionError, match=r"unknown reason 'no-labels'; known: .*no-label"):
        parse(ImportOptions, {"reader": "folder", "root": "r", "out": "p", "retry": ["no-labels"]})
