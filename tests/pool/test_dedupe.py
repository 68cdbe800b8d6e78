from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from seral.pool.dedupe import exact_duplicates

ROWS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.sampled_from("XYZ"), max_size=12)


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
    assert exact_duplicates(rows) == {"c": "a", "b": "a"}
    assert exact_duplicates(iter(rows)) == {"c": "a", "b": "a"}
    assert exact_duplicates([]) == {}


def test_an_id_that_comes_twice_is_no_duplicate_of_itself() -> None:
    assert exact_duplicates([("a", "x"), ("a", "x")]) == {}


@given(rows=ROWS, order=st.randoms(use_true_random=False))
def test_it_agrees_with_comparing_all_pairs_in_any_order(rows: dict[str, str], order: random.Random) -> None:
    listing = list(rows.items())
    expected = brute_force(listing)
    order.shuffle(listing)
    marks = exact_duplicates(listing)
    assert marks == expected
    assert not set(marks.values()) & set(marks), "what counts is never a duplicate itself"
