"""Ids in Arrow are a sequence like any other."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seral.pool import ids as ids_module
from seral.pool.ids import SLAB, Ids, positions


def test_ids_are_a_sequence() -> None:
    ids = Ids(["b", "a", "c"])
    assert (len(ids), ids[0], ids[-1], [*ids[1:]]) == (3, "b", "c", ["a", "c"])
    assert list(ids) == ["b", "a", "c"]
    assert [name in ids for name in ("a", "d", 1)] == [True, False, False]
    assert [ids == other for other in (("b", "a", "c"), Ids(iter("bac")), ["b", "a"], 3)] == [True, True, False, False]
    assert hash(ids) == hash(Ids(pa.chunked_array([["b"], ["a", "c"]])))
    assert not Ids()
    assert Ids() == []
    assert repr(ids + Ids(["d"])) == "Ids(['b', 'a', 'c'] and 1 more)"
    with pytest.raises(IndexError):
        ids[3]


def test_ids_go_to_arrow_and_numpy_and_elsewhere() -> None:
    ids = Ids(["b", "a", "c"])
    assert pa.array(ids).equals(pa.array(["b", "a", "c"]))
    assert pa.array(ids, pa.large_string()).type == pa.large_string()
    assert np.asarray(ids).tolist() == np.asarray(ids, dtype=object).tolist() == ["b", "a", "c"]
    assert pickle.loads(pickle.dumps(ids)) == ids


def test_chosen_ids_keep_their_order() -> None:
    ids = Ids(["b", "a", "c"])
    assert ids.without({"a", "z"}) == ["b", "c"]
    assert ids.without(Ids(["b"])) == ["a", "c"]
    assert ids.without([]) == ids
    assert ids.take(np.array([2, 0])) == ["c", "b"]
    assert ids + Ids(["x"]) == ["b", "a", "c", "x"]


def test_ids_are_read_in_slabs() -> None:
    names = [f"id-{number}" for number in range(SLAB + 3)]
    assert list(Ids(names)) == names


@given(
    among=st.lists(st.text("abé", max_size=3), unique=True, max_size=40),
    asked=st.lists(st.text("abéz", max_size=3), max_size=40),
    is_sorted=st.tuples(st.booleans(), st.booleans()),
    slab=st.integers(1, 9),
)
def test_positions_are_those_of_a_look_up_of_all(
    among: list[str], asked: list[str], is_sorted: tuple[bool, bool], slab: int
) -> None:
    among, asked = (sorted(names) if wanted else names for names, wanted in zip((among, asked), is_sorted, strict=True))
    row_of = {name: row for row, name in enumerate(among)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "SLAB", slab)
        rows = positions(pa.array(asked, pa.string()), pa.array(among, pa.string()))
    assert rows.tolist() == [row_of.get(name, -1) for name in asked]
