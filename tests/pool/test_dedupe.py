from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from seral.pool.dedupe import codes, exact_duplicates, first_rows

ROWS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from("XYZ"), max_size=12)


def marks_of(rows: list[tuple[str, str]]) -> dict[str, str]:
    """The marks by id, with the rows in chunks of two, as they come from shards."""
    chunks = [rows[start : start + 2] for start in range(0, len(rows), 2)]
    ids, hashes = (pa.chunked_array([[row[at] for row in chunk] for chunk in chunks], pa.string()) for at in (0, 1))
    marks = zip(ids.to_pylist(), exact_duplicates(ids, hashes).to_pylist(), strict=True)
    return {name: mark for name, mark in marks if mark is not None}


def brute_force(rows: list[tuple[str, str]]) -> dict[str, str]:
    """Compare every row with every other."""
    marks = {}
    for name, sound in rows:
        smaller = sorted(other for other, other_sound in rows if other_sound == sound and other < name)
        if smaller:
            marks[name] = smaller[0]
    return marks


def test_the_smallest_id_counts_and_the_others_point_to_it() -> None:
    rows = [("c", "same"), ("a", "same"), ("d", "other"), ("b", "same")]
    assert marks_of(rows) == {"c": "a", "b": "a"}
    assert marks_of([]) == {}


def test_an_id_that_comes_twice_is_no_duplicate_of_itself() -> None:
    assert marks_of([("a", "x"), ("a", "x")]) == {}


@given(rows=ROWS, order=st.randoms(use_true_random=False))
def test_it_agrees_with_comparing_all_pairs_in_any_order(rows: dict[str, str], order: random.Random) -> None:
    listing = list(rows.items())
    expected = brute_force(listing)
    order.shuffle(listing)
    marks = marks_of(listing)
    assert marks == expected
    assert not set(marks.values()) & set(marks), "what counts is never a duplicate itself"


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=4), max_size=5))
def test_equal_values_have_one_number_in_the_order_of_their_first(chunks: list[list[str | None]]) -> None:
    code_N = codes(pa.chunked_array(chunks, pa.string()))
    values = [value for chunk in chunks for value in chunk]
    order = list(dict.fromkeys(values))
    assert code_N.tolist() == [order.index(value) for value in values]
    assert first_rows(code_N).tolist() == [values.index(value) for value in order]
    assert np.unique(code_N).tolist() == list(range(len(order)))
