from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from seral.errors import OptionError
from seral.pool.where import Condition, parse_conditions
from seral.schema import UTTERANCE

ROWS = pa.Table.from_pylist(
    [
        {"utterance_id": "a", "language": "de", "snr_db": 12.0, "speaker": "Anna and Bert", "source_rate_hz": 8000},
        {"utterance_id": "b", "language": "de", "snr_db": 3.0, "speaker": "o'neil", "source_rate_hz": 16000},
        {"utterance_id": "c", "language": "pl", "snr_db": None, "speaker": None, "source_rate_hz": 16000},
        {"utterance_id": "d", "language": None, "snr_db": 10.0, "speaker": "null", "source_rate_hz": 44100},
    ],
    UTTERANCE,
)


def chosen(*texts: str) -> str:
    mask = np.ones(ROWS.num_rows, bool)
    for condition in parse_conditions(texts):
        mask &= condition.holds(ROWS)
    return "".join(ROWS.filter(pa.array(mask))["utterance_id"].to_pylist())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("snr_db > 10", "a"),
        ("snr_db >= 10", "ad"),
        ("snr_db<1e1", "b"),
        ("snr_db <= -5", ""),
        ("language == 'de' and snr_db > 10", "a"),
        ("language == de", "ab"),
        ("language != de", "c"),
        ("language == null", "d"),
        ("language != null", "abc"),
        ("language in (pl, 'de')", "abc"),
        ("source_rate_hz in (8000,44100) and snr_db > 11", "a"),
        ("speaker == 'Anna and Bert'", "a"),
        ('speaker == "o\'neil"', "b"),
        ("speaker == 'null'", "d"),
        ("  source_rate_hz == 16000  ", "bc"),
    ],
)
def test_conditions_choose_rows(text: str, expected: str) -> None:
    assert chosen(text) == expected


def test_several_texts_have_to_hold_together() -> None:
    assert chosen("language == de", "snr_db < 10") == "b"
    assert chosen() == "abcd"
    assert parse_conditions(["snr_db > 1 and language == de"]) == [
        Condition(column="snr_db", operator=">", values=("1",)),
        Condition(column="language", operator="==", values=("de",)),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("snr > 10", "unknown column 'snr'; known: .*snr_db"),
        ("audio == null", "unknown column 'audio'"),
        ("snr_db = 10", "cannot read '= 10'"),
        ("snr_db like 10", "unknown operator 'like'; known: !=, <,"),
        ("snr_db > loud", "snr_db is float, got 'loud'"),
        ("snr_db > null", "null is compared by == or != only"),
        ("language == de or language == pl", "joined by `and`; for one of several values write `in`"),
        ("language in de", r"write the values as in \(a, b\)"),
        ("language in (de pl)", r"write the values as in \(a, b\)"),
        ("language in ()", r"write the values as in \(a, b\)"),
        ("snr_db >", "COLUMN OPERATOR VALUE"),
        ("", "COLUMN OPERATOR VALUE"),
        ("language == de and", "COLUMN OPERATOR VALUE"),
        ("language == 'de", 'cannot read "\'de"'),
        ("__import__('os').system('true')", "unknown column '__import__'"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        chosen(text)
