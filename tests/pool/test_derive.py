"""Pools out of pools: what is in them, that they are sound, and that what was erased stays out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from corpus_layouts.pool_rows import row, set_shards
from hypothesis import given
from hypothesis import strategies as st

from seral import storage
from seral.erase.erase import EraseOptions, erase
from seral.errors import OptionError, PoolError, StateError
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.dedupe import codes
from seral.pool.derive import SelectOptions, _plan, merge_pools, proportional_order, select_from_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.revisions import read_entry
from seral.pool.shards import TABLES, Pool, open_pool, shard_uri
from seral.pool.snapshots import diff_revisions, summarise, take_snapshot


def write(pool: Path, shards: dict[str, list[dict[str, Any]]]) -> str:
    for shard, rows in shards.items():
        about = [{"utterance_id": r["utterance_id"], "emotion": "anger"} for r in rows]
        content = {"utterances": rows, "gold": about, "votes": about * 2, "quarantine": []}
        for table, lines in content.items():
            storage.write_table(shard_uri(str(pool), table, shard), pa.Table.from_pylist(lines, TABLES[table]))
    set_shards(str(pool), {shard: read_entry(str(pool), shard) for shard in shards})
    return str(pool)


def read(pool: str, table: str) -> list[dict[str, Any]]:
    opened = open_pool(pool)
    return [line for shard in opened.shards for line in storage.read_table(opened.table_uri(table, shard)).to_pylist()]


def ids_of(pool: str) -> list[str]:
    return sorted(line["utterance_id"] for line in read(pool, "utterances"))


def state(folder: str) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def select(pool: str, out: Path, **values: Any) -> dict[str, Any]:
    return select_from_pool(parse(SelectOptions, {"pool": pool, "out": str(out), **values}))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """40 utterances in four shards, three quarters German; every tenth is a copy of the one before it."""
    rows = []
    for number in range(40):
        fields = row(f"made-{number:016x}", language="pl" if number % 4 == 3 else "de", snr_db=float(number))
        if number % 10 == 9:
            fields |= {name: rows[-1][name] for name in ("audio", "pcm_hash")}
            fields["duplicate_of"] = rows[-1]["utterance_id"]
        rows.append(fields)
    shards = {f"made-{n}": rows[10 * n : 10 * n + 10] for n in range(4)}
    return write(tmp_path_factory.mktemp("derive") / "pool", shards)


def test_what_fits_is_a_pool_of_its_own(pool: str, tmp_path: Path) -> None:
    counts = select(pool, tmp_path / "new", where=["language == pl and snr_db > 10", "snr_db < 30"])
    new = str(tmp_path / "new")
    fitting = [line for line in read(pool, "utterances") if line["language"] == "pl" and 10 < line["snr_db"] < 30]
    row_of = {line["utterance_id"]: line for line in read(new, "utterances")}
    assert (counts["utterances"], counts["of"], len(fitting)) == (len(fitting), 40, 5)
    assert sorted(row_of) == sorted(line["utterance_id"] for line in fitting)
    assert check_pool(new) == []
    for line in fitting:
        assert row_of[line["utterance_id"]] == line | {"duplicate_of": None}, "what they were copies of is not here"
    assert sorted(line["utterance_id"] for line in read(new, "gold")) == sorted(row_of)
    assert Counter(line["utterance_id"] for line in read(new, "votes")) == dict.fromkeys(row_of, 2)
    assert read(new, "quarantine") == []


def test_the_same_selection_is_the_same_pool(pool: str, tmp_path: Path) -> None:
    select(pool, tmp_path / "new", where=["snr_db > 5"], shard_mb=0.03)
    assert len(open_pool(str(tmp_path / "new")).shards) > 1
    before = state(str(tmp_path / "new"))
    select(pool, tmp_path / "new", where=["snr_db > 5"], shard_mb=0.03)
    assert state(str(tmp_path / "new")) == before
    with pytest.raises(StateError, match="another pool at"):
        select(pool, tmp_path / "new", where=["snr_db > 30"], shard_mb=0.03)
    assert state(str(tmp_path / "new")) == before


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6), shard_mb=st.floats(0.5, 9))
def test_shards_are_filled_as_by_adding_clip_after_clip(sizes: list[int], shard_mb: float) -> None:
    entries = {f"s{number}": {"rows": size, "bytes": size * 0.7e6} for number, size in enumerate(sizes)}
    ids = [(number, f"u{number}-{row}") for number, size in enumerate(sizes) for row in range(size)]
    rows = pa.table(
        {"shard": [n for n, _ in ids], "utterance_id": [name for _, name in ids], "corpus": ["c"] * len(ids)}
    )
    expected: list[list[str]] = [[]]
    for _, name in ids:
        if expected[-1] and 0.7 * (len(expected[-1]) + 1) > shard_mb + 1e-9:
            expected.append([])
        expected[-1].append(name)
    parts = _plan(Pool(uri="made", manifest={"shards": entries}), rows, shard_mb)
    assert [
        [name for part_ids in part.values() for name in part_ids.to_pylist()] for part in parts.values()
    ] == expected


def test_what_fits_nothing_is_an_error(pool: str, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"nothing in .* fits: snr_db > 99"):
        select(pool, tmp_path / "new", where=["snr_db > 99"])
    assert not (tmp_path / "new").exists()
    with pytest.raises(OptionError, match="by is one of"):
        select(pool, tmp_path / "new", count=1, by="emotion")
    with pytest.raises(OptionError, match="a count or hours"):
        select(pool, tmp_path / "new", count=1, hours=1)


def test_a_draw_leaves_duplicates_aside_and_keeps_shares(pool: str, tmp_path: Path) -> None:
    select(pool, tmp_path / "new", count=18, by="language")
    drawn = read(str(tmp_path / "new"), "utterances")
    assert Counter(line["language"] for line in drawn) == {"de": 14, "pl": 4}, "28 of 36 and 8 of 36 count"
    assert check_pool(str(tmp_path / "new")) == []
    select(pool, tmp_path / "less", count=5, by="language")
    assert set(ids_of(str(tmp_path / "less"))) < set(ids_of(str(tmp_path / "new")))
    select(pool, tmp_path / "other", count=18, by="language", seed=1)
    assert ids_of(str(tmp_path / "other")) != ids_of(str(tmp_path / "new"))
    with pytest.raises(PoolError, match="36 utterances fit and are no duplicates, 37 are asked for"):
        select(pool, tmp_path / "more", count=37)


def test_hours_are_drawn_up_to_the_clip_that_completes_them(pool: str, tmp_path: Path) -> None:
    counts = select(pool, tmp_path / "new", hours=2.1 / 3600)
    assert (counts["utterances"], len(ids_of(str(tmp_path / "new")))) == (9, 9), "of 0.25 s each"
    with pytest.raises(PoolError, match=r"0\.003 hours fit"):
        select(pool, tmp_path / "more", hours=1)


@given(groups=st.lists(st.sampled_from("abc"), min_size=1, max_size=60), seed=st.integers(0, 5))
def test_every_beginning_of_a_draw_holds_the_shares(groups: list[str], seed: int) -> None:
    key_N = np.random.default_rng(seed).permutation(len(groups)).astype(np.float64)
    order = proportional_order(key_N, codes(pa.chunked_array([groups])))
    assert sorted(order.tolist()) == list(range(len(groups)))
    drawn = np.array(groups)[order]
    for end in range(1, len(groups) + 1):
        for group in set(groups):
            expected = end * groups.count(group) / len(groups)
            assert abs(int((drawn[:end] == group).sum()) - expected) <= len(set(groups)) / 2 + 1e-9


def test_pools_become_one(pool: str, tmp_path: Path) -> None:
    rows = {line["utterance_id"]: line for line in read(pool, "utterances")}
    same = rows[f"made-{4:016x}"]
    again = row("radio-1", audio=same["audio"], pcm_hash=same["pcm_hash"], corpus="radio")
    other = write(tmp_path / "other", {"made-0": [row("radio-0", corpus="radio"), again, same]})
    counts = merge_pools([pool, other], str(tmp_path / "all"))
    merged = str(tmp_path / "all")
    assert (counts["given"], counts["utterances"], counts["duplicates"]) == (43, 42, 5)
    assert ids_of(merged) == sorted([*rows, "radio-0", "radio-1"])
    assert check_pool(merged) == []
    marks = {line["utterance_id"]: line["duplicate_of"] for line in read(merged, "utterances")}
    assert marks["radio-1"] == same["utterance_id"]
    assert len(read(merged, "gold")) == 42
    before = state(merged)
    merge_pools([pool, other], merged)
    assert state(merged) == before
    with pytest.raises(OptionError, match="merged into itself"):
        merge_pools([merged], merged)


def test_quarantined_files_come_once_but_a_shard_keeps_its_own(tmp_path: Path) -> None:
    bad = [{"source": name, "corpus": "made", "reason": "empty"} for name in ("x", "x", "y")]
    pools = []
    for number, lines in enumerate((bad, bad[1:], [])):
        pools.append(write(tmp_path / str(number), {f"made-{number}": [row(f"made-{number}")]}))
        uri = shard_uri(pools[-1], "quarantine", f"made-{number}")
        storage.write_table(uri, pa.Table.from_pylist(lines, TABLES["quarantine"]))
        set_shards(pools[-1], {f"made-{number}": read_entry(pools[-1], f"made-{number}")})
    merge_pools(pools, str(tmp_path / "all"))
    assert [line["source"] for line in read(str(tmp_path / "all"), "quarantine")] == ["x", "x", "y"]
    assert [shard.partition(".")[0] for shard in open_pool(str(tmp_path / "all")).shards] == [
        "made-0",
        "made-1",
        "made-2",
    ]
    assert check_pool(str(tmp_path / "all")) == []


def test_a_pool_is_merged_into_one_that_is_there(pool: str, tmp_path: Path) -> None:
    other = write(tmp_path / "other", {"radio-0": [row("radio-0", corpus="radio")]})
    merge_pools([pool], other)
    assert len(ids_of(other)) == 41
    assert open_pool(other).manifest["revision"] == 2
    assert summarise(diff_revisions(other, "1"))["came"] == 40
    assert check_pool(other) == []


def test_what_was_erased_from_one_pool_stays_out_of_all(tmp_path: Path) -> None:
    martha = row("made-00000000000000aa", speaker="Martha")
    copy = row("radio-00000000000000bb", corpus="radio", audio=martha["audio"], pcm_hash=martha["pcm_hash"])
    one = write(tmp_path / "one", {"made-0": [martha, row("made-1")]})
    other = write(tmp_path / "other", {"made-0": [martha, row("made-2")], "radio-0": [copy, row("radio-1")]})
    take_snapshot(other, "kept")
    erase(parse(EraseOptions, {"pool": one, "speaker": "made/Martha"}))
    merge_pools([one, f"{other}@kept"], str(tmp_path / "all"))
    assert ids_of(str(tmp_path / "all")) == ["made-1", "made-2", "radio-1"]
    assert len(read(str(tmp_path / "all"), "gold")) == 3
    assert check_pool(str(tmp_path / "all")) == []
    merge_pools([one], other)
    assert ids_of(other) == ["made-1", "made-2", "radio-1"]
    select(one, tmp_path / "part", where=["corpus == made"])
    assert storage.list_names(tmp_path / "part" / "erased") == storage.list_names(f"{one}/erased")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_stream_of_nights(tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    """Each night's new files are one revision; a night without any is none."""
    root, pool = tmp_path / "calls", str(tmp_path / "pool")
    settings = parse(ImportOptions, {"reader": "manifest", "root": str(root), "out": pool})
    revisions = []
    for files in (4, 7, 7, 9):
        make_corpus(root, files)
        import_corpus(settings)
        revisions.append(open_pool(pool).manifest["revision"])
        assert check_pool(pool) == []
    assert revisions == [1, 2, 2, 3]
    assert [summarise(diff_revisions(pool, str(n), str(n + 1)))["came"] for n in range(3)] == [4, 3, 2]
    assert open_pool(pool).rows == 9
