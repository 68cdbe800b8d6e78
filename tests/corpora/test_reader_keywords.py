from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seral.corpora import READERS
from seral.corpora.keywords import find_reader, keywords, listing
from seral.errors import OptionError


def test_a_reader_without_keywords_is_the_function_itself() -> None:
    assert find_reader("folder") is READERS["folder"]


def test_keywords_reach_the_reader(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "mood": "joy"}\n')
    read = find_reader("manifest", {"columns": {"emotion": "mood"}, "corpus": "calls"})
    (utterance,) = read(tmp_path / "m.jsonl")
    assert (utterance.corpus, utterance.emotion) == ("calls", "joy")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("folders", {}, f"unknown reader 'folders'; known: {', '.join(sorted(READERS))}"),
        ("emodb", {"labels": "x"}, "the reader 'emodb' has no option 'labels'; it takes: none"),
        ("manifest", {"column": {}}, "the reader 'manifest' has no option 'column'; it takes: columns, corpus"),
        ("manifest", {"columns": 3}, "reader_options.columns of 'manifest': expected `key: value` pairs, got 3"),
    ],
)
def test_what_a_reader_does_not_know_is_named(name: str, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        find_reader(name, arguments)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_every_keyword_has_a_type_that_can_be_checked(name: str) -> None:
    for keyword in keywords(READERS[name]):
        with pytest.raises(OptionError, match=f"reader_options.{keyword} of '{name}': "):
            find_reader(name, {keyword: object()})


def test_the_listing_shows_what_each_reader_takes() -> None:
    assert listing().startswith("ravdess, emodb, ")
    assert "manifest (columns; corpus; pattern; maps; votes; ratings; join; audio_root)" in listing()
