from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpus_layouts.pool_rows import row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seral import storage
from seral.errors import PoolError
from seral.pool.check import check_pool
from seral.pool.revisions import read_entry
from seral.pool.shards import FORMAT, ID_COLUMNS, MANIFEST, TABLES, open_pool, pool_hash
from seral.pool.stats import pool_stats
from seral.schema import GOLD, METADATA_COLUMNS, QUARANTINE, UTTERANCE, VOTES


def write_pool(pool: Path, shards: dict[str, list[dict[str, Any]]], bad: list[dict[str, Any]] | None = None) -> str:
    """A pool without the import: whatever rows a test wants, and a manifest that fits them."""
    for shard, rows in shards.items():
        storage.write_table(pool / "utterances" / f"{shard}.parquet", pa.Table.from_pylist(rows, UTTERANCE))
        storage.write_table(pool / "gold" / f"{shard}.parquet", GOLD.empty_table())
        storage.write_table(pool / "votes" / f"{shard}.parquet", VOTES.empty_table())
        storage.write_table(pool / "quarantine" / f"{shard}.parquet", pa.Table.from_pylist(bad or [], QUARANTINE))
    write_pool_manifest(pool, list(shards))
    return str(pool)


def write_pool_manifest(pool: Path, shards: list[str], **wrong: Any) -> None:
    entries, tables = {}, []
    for shard in shards:
        tables.append(storage.read_table(pool / "utterances" / f"{shard}.parquet", ID_COLUMNS))
        entries[shard] = read_entry(str(pool), shard) | wrong
    manifest = {"format": FORMAT, "revision": 1, "shards": entries, "pool_hash": pool_hash(pa.concat_tables(tables))}
    storage.write_json(pool / MANIFEST, manifest)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two shards of two utterances."""
    write_pool(tmp_path / "pool", {"made-1": [row("d"), row("a")], "made-2": [row("c"), row("b")]})
    return tmp_path / "pool"


def test_a_sound_pool_has_no_problems(pool: Path) -> None:
    assert check_pool(str(pool)) == []


def test_what_is_in_a_pool(pool: Path) -> None:
    opened = open_pool(f"{pool}/")
    assert (opened.uri, opened.shards, opened.rows) == (str(pool), ["made-1", "made-2"], 4)
    assert opened.metadata["utterance_id"].to_pylist() == list("abcd")
    assert opened.metadata.schema.names == METADATA_COLUMNS
    assert opened.read("made-1", ["utterance_id"]).to_pydict() == {"utterance_id": ["d", "a"]}
    assert opened.quarantine.num_rows == 0


@pytest.mark.parametrize("table", ["utterances", "gold", "votes", "quarantine"])
def test_a_missing_table_is_found(pool: Path, table: str) -> None:
    (pool / table / "made-2.parquet").unlink()
    assert check_pool(str(pool)) == [f"shard made-2: its table `{table}` is missing"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.sampled_from(sorted(TABLES)), share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_found_wherever_it_stands(pool: Path, table: str, share: float, flip: int) -> None:
    file = pool / table / "made-1.parquet"
    whole = file.read_bytes()
    data = bytearray(whole)
    data[int(share * len(data))] ^= flip
    file.write_bytes(data)
    try:
        (problem,) = check_pool(str(pool))
    finally:
        file.write_bytes(whole)
    assert problem.startswith(f"shard made-1: the bytes of its table `{table}` are not those of the manifest")


def test_a_shard_cut_short_is_found(pool: Path) -> None:
    file = pool / "utterances" / "made-1.parquet"
    file.write_bytes(file.read_bytes()[:-100])
    (problem,) = check_pool(str(pool))
    assert "made-1" in problem
    with pytest.raises(PoolError, match=r"made-1.*missing or damaged"):
        open_pool(str(pool)).read("made-1")


def test_a_wrong_row_count_is_found(pool: Path) -> None:
    write_pool_manifest(pool, ["made-1", "made-2"], rows=3)
    assert check_pool(str(pool)) == [f"shard made-{n}: 2 rows, the manifest says 3" for n in (1, 2)]


def test_an_id_in_two_shards_is_found(tmp_path: Path) -> None:
    uri = write_pool(tmp_path, {"made-1": [row("a"), row("b")], "made-2": [row("b")]})
    assert check_pool(uri) == ["b stands in shard made-2 and again in made-1"]


def test_an_id_twice_in_a_shard_is_found(tmp_path: Path) -> None:
    uri = write_pool(tmp_path, {"made-1": [row("a"), row("a")]})
    assert check_pool(uri) == ["a stands in shard made-1 and again in made-1"]


def test_audio_that_does_not_decode_is_found(tmp_path: Path) -> None:
    damaged = row("b")["audio"][:300]
    uri = write_pool(tmp_path, {"made-1": [row("a"), row("b", audio=damaged), row("c", audio=b"")]})
    problems = check_pool(uri)
    assert len(problems) == 2
    assert problems[0].startswith("b in shard made-1 does not decode: ")
    assert problems[1].startswith("c in shard made-1 does not decode: ")


def test_a_duration_that_does_not_fit_the_audio_is_found(tmp_path: Path) -> None:
    uri = write_pool(tmp_path, {"made-1": [row("a", duration_s=1.0)]})
    assert check_pool(uri) == ["a: 0.250 s of audio, the row says 1.000 s"]


def test_foreign_columns_are_found(pool: Path) -> None:
    storage.write_table(
        pool / "utterances" / "made-1.parquet", pa.table({"x": [1], **{name: ["a"] for name in ID_COLUMNS}})
    )
    write_pool_manifest(pool, ["made-1", "made-2"])
    (problem,) = check_pool(str(pool))
    assert problem.startswith("shard made-1: columns ['x', 'utterance_id', 'duplicate_of'] of `utterances`, expected")


def test_answers_about_others_are_found(pool: Path) -> None:
    gold = [{"utterance_id": name, "emotion": "anger"} for name in ("a", "a", "b")]
    storage.write_table(pool / "gold" / "made-1.parquet", pa.Table.from_pylist(gold, GOLD))
    storage.write_table(pool / "votes" / "made-2.parquet", pa.Table.from_pylist([{"utterance_id": "x"}], VOTES))
    write_pool_manifest(pool, ["made-1", "made-2"])
    assert check_pool(str(pool)) == [
        "shard made-1: `gold` is about b, which it does not hold",
        "shard made-1: `gold` has two rows about one utterance",
        "shard made-2: `votes` is about x, which it does not hold",
    ]


def test_a_manifest_of_other_ids_is_found(pool: Path) -> None:
    manifest = storage.read_json(pool / MANIFEST)
    storage.write_json(pool / MANIFEST, manifest | {"pool_hash": "0" * 16})
    assert check_pool(str(pool)) == ["the ids do not match the manifest's pool hash"]


def test_the_pool_hash_knows_ids_and_marks_and_not_the_sharding() -> None:
    def hash_of(*rows: tuple[str, str | None]) -> str:
        table = [dict(zip(ID_COLUMNS, values, strict=True)) for values in rows]
        return pool_hash(pa.Table.from_pylist(table, pa.schema([UTTERANCE.field(name) for name in ID_COLUMNS])))

    assert hash_of(("a", None), ("b", "a")) == hash_of(("b", "a"), ("a", None))
    assert (
        len({hash_of(), hash_of(("a", None)), hash_of(("a", None), ("b", None)), hash_of(("a", None), ("b", "a"))}) == 4
    )


@given(st.dictionaries(st.text("ab-ü", min_size=1), st.sampled_from([None, "a", "b"])), st.randoms())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_the_pool_hash_is_that_of_lines_in_order(
    monkeypatch: pytest.MonkeyPatch, mark_of: dict[str, str | None], order: random.Random
) -> None:
    monkeypatch.setattr("seral.pool.shards.HASHED", 2)
    lines = "".join(f"{name}\t{mark_of[name] or ''}\n" for name in sorted(mark_of))
    names = list(mark_of)
    order.shuffle(names)
    ids = pa.table({"utterance_id": pa.array(names, pa.string()), "duplicate_of": [mark_of[name] for name in names]})
    ids = ids.cast(pa.schema([UTTERANCE.field(name) for name in ID_COLUMNS]))
    assert pool_hash(ids) == hashlib.sha256(lines.encode()).hexdigest()[:16]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_large_pool_is_checked_by_ray_with_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = {f"made-{n}": [row(f"{n}-a"), row(f"{n}-b", audio=b"" if n % 2 else row("x")["audio"])] for n in range(5)}
    uri = write_pool(tmp_path, {**shards, "made-5": [row("0-a")]})
    (tmp_path / "votes" / "made-4.parquet").unlink()
    alone = check_pool(uri)
    assert len(alone) == 4
    monkeypatch.setattr("seral.pool.check.ALONE_BYTES", 0)
    assert check_pool(uri) == alone


def test_another_sharding_has_the_same_statistics(tmp_path: Path) -> None:
    rows = [
        row(f"{n:02d}", corpus="ab"[n % 2], speaker=f"s{n % 5}", snr_db=n * 0.7, quality=1 / (n + 1)) for n in range(12)
    ]
    one = pool_stats(write_pool(tmp_path / "one", {"made-1": rows}))
    other = pool_stats(write_pool(tmp_path / "other", {f"made-{n}": rows[n::5] for n in range(5)}))
    sizes = {"pool", "shards", "bytes"}
    assert {name: one[name] for name in one.keys() - sizes} == {name: other[name] for name in other.keys() - sizes}


def test_no_pool_and_half_a_pool_are_told_apart(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"no pool at .*nowhere \(make one: seral pool import\)"):
        open_pool(str(tmp_path / "nowhere"))
    (pool / MANIFEST).unlink()
    with pytest.raises(PoolError, match="run the same import again"):
        open_pool(str(pool))


def test_a_pool_of_another_version_is_refused(pool: Path) -> None:
    storage.write_json(pool / MANIFEST, {"format": 99, "shards": {}})
    with pytest.raises(PoolError, match="format 99, this version of seral reads format 2: import it again"):
        open_pool(str(pool))


def test_the_statistics_of_a_pool(tmp_path: Path) -> None:
    bad = [{"source": "x.wav", "corpus": "made", "reason": "empty", "detail": "0 bytes", "source_bytes": 0}]
    rows = [
        row("a", seconds=0.5, snr_db=5.0),
        row("b", seconds=0.25, snr_db=7.0, speaker="s2", language="pl", duplicate_of="a"),
        row("c", seconds=0.25, snr_db=30.0, speaker=None, language=None),
        row("d", seconds=0.5, corpus="other", snr_db=None),
    ]
    stats = pool_stats(write_pool(tmp_path, {"made-1": rows}, bad))
    assert stats["utterances"] == 4
    assert stats["speakers"] == 3, "s1 and s2 of one corpus and s1 of the other; the unknown one is nobody"
    assert stats["languages"] == ["en", "pl"]
    assert stats["duplicates"] == 1
    assert stats["quarantined"] == {"empty": 1}
    assert stats["corpora"]["made"]["median"]["snr_db"] == 7.0
    assert stats["corpora"]["other"]["median"]["snr_db"] is None
    assert stats["bytes"] == (tmp_path / "utterances" / "made-1.parquet").stat().st_size


def test_the_statistics_of_an_empty_pool(tmp_path: Path) -> None:
    stats = pool_stats(write_pool(tmp_path, {"made-1": []}))
    assert (stats["utterances"], stats["hours"], stats["corpora"], stats["quarantined"]) == (0, 0.0, {}, {})
