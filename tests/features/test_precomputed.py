"""Features that were computed elsewhere: their import, their way into a cache, and what is made of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from seral import storage
from seral.erase.erase import EraseOptions, erase
from seral.errors import FeatureError, OptionError
from seral.features.audio import extract_features
from seral.features.index import ShardIndex
from seral.features.ingest import import_features
from seral.features.options import ExtractOptions, ImportFeaturesOptions
from seral.features.precomputed import is_precomputed, load_frozen, read_facts
from seral.features.store import FeatureStore
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.degrade import degrade_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import DegradeOptions, ImportOptions
from seral.pool.shards import Pool, open_pool

TINY, MAKER = "seral-tiny", "somewhere/else"
Rows = dict[str, Any]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, make_corpus: Callable[..., Path]) -> Path:
    """Twelve short clips, `audio/clip0000.flac` and on."""
    return make_corpus(tmp_path_factory.mktemp("calls") / "calls", 12)


@pytest.fixture(scope="module")
def pool(corpus: Path, ray_session: None) -> Pool:
    """The clips in several shards."""
    return import_pool(corpus, corpus.parent / "pool")


def import_pool(corpus: Path, pool: Path) -> Pool:
    values = {"reader": "manifest", "root": str(corpus), "out": str(pool), "shard_mb": 0.05}
    import_corpus(parse(ImportOptions, values))
    return open_pool(str(pool))


@pytest.fixture
def copy(pool: Pool, tmp_path: Path) -> Pool:
    """The pool once more, to be changed, without features."""
    shutil.copytree(pool.uri, tmp_path / "pool", ignore=shutil.ignore_patterns("features", "derived"))
    return open_pool(str(tmp_path / "pool"))


def ids_of(pool: Pool) -> list[str]:
    return sorted(pool.metadata["utterance_id"].to_pylist())


def embeddings(count: int, width: int = 6) -> list[list[float]]:
    return np.random.default_rng(0).normal(size=(count, width)).round(3).tolist()  # type: ignore[no-any-return]


def written(file: Path, columns: Rows) -> str:
    """A Parquet table of some columns."""
    pq.write_table(pa.table(columns), file)
    return str(file)


def brought_in(pool: Pool, out: Path, *tables: str, **settings: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"tables": list(tables), "pools": [pool.uri], "made_by": MAKER, "out": str(out)}
    return import_features(parse(ImportFeaturesOptions, values | settings))


def exported(store: FeatureStore, file: Path) -> str:
    """Features of a cache as a table of means and standard deviations of every state."""
    ids, mean_NLD, std_NLD = store.pooled()
    parts = {"mean": mean_NLD, "std": std_NLD}
    return written(file, {"utterance_id": ids} | {n: pa.array(v.astype(np.float32).tolist()) for n, v in parts.items()})


def test_a_table_of_embeddings_becomes_an_encoder_of_one_state(pool: Pool, tmp_path: Path) -> None:
    ids = ids_of(pool)
    rows = embeddings(len(ids))
    counts = brought_in(
        pool, tmp_path / "out", written(tmp_path / "t.parquet", {"utterance_id": ids, "embedding": rows})
    )
    assert counts == {
        "encoder": str(tmp_path / "out"),
        "states": 1,
        "width": 6,
        "utterances": 12,
        "unusable": 0,
        "missing": 0,
    }
    encoder = load_frozen(str(tmp_path / "out"))
    assert (encoder.family, encoder.num_layers, encoder.width) == (f"features of {MAKER}", 0, 6)
    store = extract_features(pool, str(tmp_path / "out"), uri=str(tmp_path / "cache"))
    names, mean_NLD, std_NLD = store.pooled()
    assert names == ids
    np.testing.assert_array_equal(mean_NLD[:, 0], np.array(rows, np.float16))
    assert not std_NLD.any()
    assert store.unusable.num_rows == 0


@pytest.mark.ray
def test_a_caches_own_features_come_back_byte_for_byte(pool: Pool, tmp_path: Path) -> None:
    own = extract_features(pool, TINY, uri=str(tmp_path / "own"))
    brought_in(pool, tmp_path / "out", exported(own, tmp_path / "t.parquet"))
    store = extract_features(pool, str(tmp_path / "out"), uri=str(tmp_path / "cache"))
    for name in ("pooled", "quarantine"):
        for shard in pool.shards:
            tables = [storage.read_table(one.table_uri(name, shard)) for one in (own, store)]
            key = tables[0].column_names[0]  # an encoder takes the longest clips first
            assert tables[0].sort_by(key).equals(tables[1].sort_by(key))
    assert (store.num_layers, store.width) == (own.num_layers, own.width)
    assert check_pool(pool.uri) == []


@pytest.mark.parametrize("way", ["source", "file", "wav", "name"])
def test_rows_may_be_named_in_any_usual_way(pool: Pool, tmp_path: Path, way: str) -> None:
    uris = [pool.table_uri("utterances", shard) for shard in pool.shards]
    table = pa.concat_tables([storage.read_table(uri, ["utterance_id", "source"]) for uri in uris])
    ids, sources = (column.to_pylist() for column in table.columns)
    names = {
        "source": sources,
        "file": [f"/home/me/{Path(source).name}" for source in sources],
        "wav": [f"wavs/{Path(source).stem}.wav" for source in sources],
        "name": [f"{name}.wav" for name in ids],
    }[way]
    rows = embeddings(len(ids))
    brought_in(pool, tmp_path / "out", written(tmp_path / "t.parquet", {way: names, "embedding": rows}))
    store = extract_features(pool, str(tmp_path / "out"), uri=str(tmp_path / "cache"))
    mean_NLD = store.read(store.index(), ids)[0]
    np.testing.assert_array_equal(mean_NLD[:, 0], np.array(rows, np.float16))


@pytest.mark.parametrize("states", [0, 3])
def test_frames_are_pooled_over_time(pool: Pool, tmp_path: Path, states: int) -> None:
    """Of one state or several: mean and population standard deviation."""
    ids, rng = ids_of(pool), np.random.default_rng(1)
    shape = (states,) if states else ()
    frames = [rng.normal(3, 2, (*shape, 5 + number, 4)).astype(np.float32) for number in range(len(ids))]
    table = written(tmp_path / "t.parquet", {"id": ids, "frames": pa.array([frame.tolist() for frame in frames])})
    assert brought_in(pool, tmp_path / "out", table)["states"] == max(1, states)
    store = extract_features(pool, str(tmp_path / "out"), uri=str(tmp_path / "cache"))
    _, mean_NLD, std_NLD = store.pooled()
    for row, frame in enumerate(frames):
        np.testing.assert_allclose(mean_NLD[row], frame.mean(-2).reshape(-1, 4), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(std_NLD[row], frame.std(-2).reshape(-1, 4), rtol=2e-3, atol=2e-3)


def test_shards_npz_and_order_give_the_same_encoder(pool: Pool, tmp_path: Path) -> None:
    """The digest is of the content; a number that differs is another encoder."""
    ids, rows = ids_of(pool), embeddings(12)
    whole = written(tmp_path / "whole.parquet", {"id": ids, "embedding": rows})
    (tmp_path / "parts").mkdir()
    written(tmp_path / "parts" / "b.parquet", {"id": ids[:5], "embedding": rows[:5]})
    written(tmp_path / "parts" / "a.parquet", {"id": ids[:4:-1], "embedding": rows[:4:-1]})
    np.savez(tmp_path / "some.npz", utterance_id=np.array(ids), embedding=np.array(rows))
    other = written(tmp_path / "other.parquet", {"id": ids, "embedding": [[9.0] * 6, *rows[1:]]})
    digests = []
    for number, table in enumerate([whole, str(tmp_path / "parts"), str(tmp_path / "some.npz"), other]):
        brought_in(pool, tmp_path / f"out{number}", table)
        digests.append(read_facts(str(tmp_path / f"out{number}"))["digest"])
    assert len(set(digests[:3])) == 1
    assert digests[3] != digests[0]


def test_what_cannot_be_used_or_is_missing_is_named_and_left_out(
    pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids, rows = ids_of(pool), embeddings(13)
    rows[3][2], rows[4][0] = float("nan"), 1e6
    table = written(tmp_path / "t.parquet", {"id": [*ids[:10], "nobody"], "embedding": rows[:11]})
    counts = brought_in(pool, tmp_path / "out", table)
    assert (counts["utterances"], counts["unusable"], counts["missing"]) == (8, 2, 2)
    printed = capsys.readouterr().err
    assert "1 rows are about no utterance of the pool, e.g. nobody: they are left out" in printed
    assert f"2 utterances are left out, e.g. {ids[3]}: its features are NaN, infinite, or too large" in printed
    assert f"2 of 12 utterances have no features, e.g. {ids[10]}" in printed
    store = extract_features(pool, str(tmp_path / "out"), uri=str(tmp_path / "cache"))
    detail = dict(zip(*(store.unusable[name].to_pylist() for name in ("source", "detail")), strict=True))
    assert sorted(detail) == sorted([ids[3], ids[4], ids[10], ids[11]])
    assert "half precision" in detail[ids[4]]
    assert f"2 utterances of {pool.uri} have no features in" in capsys.readouterr().err


BAD: dict[str, tuple[Callable[[list[str]], Rows], str]] = {
    "doubled": (
        lambda ids: {"id": [*ids, ids[0]], "embedding": embeddings(13)},
        "1 rows are about an utterance that has",
    ),
    "nobody": (lambda ids: {"id": ["x", "y"], "embedding": embeddings(2)}, "none of 2 rows, such as x, is named after"),
    "several": (
        lambda ids: {"id": ids, "embedding": [[1.0, 2.0], *[[1.0]] * 11]},
        "has 1 x 1 numbers, and those before",
    ),
    "words": (lambda ids: {"id": ids, "embedding": [["a"]] * 12}, "holds lists of string, and features are numbers"),
    "number": (lambda ids: {"id": ids, "embedding": [1.0] * 12}, "holds double, and features are lists of numbers"),
    "null": (lambda ids: {"id": ids, "embedding": [None, *embeddings(11)]}, "row 0: embedding is empty"),
    "ragged": (lambda ids: {"id": ids, "mean": [[[1.0], [1.0, 2.0]]] * 12}, "holds lists of several lengths"),
    "deep": (lambda ids: {"id": ids, "embedding": [[[[1.0]]]] * 12}, "has embedding of float64 and the shape"),
    "std": (
        lambda ids: {"id": ids, "mean": embeddings(12), "std": embeddings(12, 5)},
        "6 numbers in mean and 5 in std",
    ),
    "no column": (
        lambda ids: {"id": ids, "feats": embeddings(12)},
        "of which one of embedding, mean, frames is needed",
    ),
    "two": (lambda ids: {"id": ids, "mean": embeddings(12), "embedding": embeddings(12)}, "of which one of embedding"),
    "no names": (
        lambda ids: {"clip": ids, "embedding": embeddings(12)},
        "has no column of names, .*--set id_column=NAME",
    ),
    "numbers": (lambda ids: {"id": list(range(12)), "embedding": embeddings(12)}, "id holds int64, and names of rows"),
    "no name": (lambda ids: {"id": [None, *ids[1:]], "embedding": embeddings(12)}, "row 0 has no id"),
    "empty": (lambda ids: {"id": pa.array([], pa.string()), "embedding": pa.array([])}, "has no rows"),
    "all NaN": (lambda ids: {"id": ids, "embedding": [[float("nan")]] * 12}, "no row can be used, e.g. of"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_meant_is_refused(pool: Pool, tmp_path: Path, case: str) -> None:
    columns, words = BAD[case]
    with pytest.raises(FeatureError, match=words):
        brought_in(pool, tmp_path / "out", written(tmp_path / "t.parquet", columns(ids_of(pool))))
    assert not is_precomputed(str(tmp_path / "out"))


def test_a_folder_is_written_once_and_after_a_kill_anew(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = written(tmp_path / "t.parquet", {"id": ids_of(pool), "embedding": embeddings(12)})
    with monkeypatch.context() as patched:
        patched.setattr("seral.features.ingest.storage.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            brought_in(pool, tmp_path / "out", table)
    assert not is_precomputed(str(tmp_path / "out"))
    brought_in(pool, tmp_path / "out", table)
    with pytest.raises(OptionError, match="there is something already; give a new folder"):
        brought_in(pool, tmp_path / "out", table)


def test_no_table_is_refused(pool: Pool, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("id\n")
    for source in (tmp_path / "x.csv", tmp_path):
        with pytest.raises(
            OptionError, match=r"no table of features is there; its name has to end in .parquet or .npz"
        ):
            brought_in(pool, tmp_path / "out", str(source))


def test_names_of_several_utterances_are_refused(corpus: Path, tmp_path: Path, ray_session: None) -> None:
    """Two corpora in a pool with the same file names."""
    pool = import_pool(corpus, tmp_path / "pool")
    values = {"reader": "manifest", "root": str(corpus), "out": pool.uri, "corpus": "again"}
    import_corpus(parse(ImportOptions, values))
    columns = {"file": ["clip0001.wav"], "embedding": embeddings(1)}
    with pytest.raises(
        FeatureError, match=r"1 names fit several utterances, e.g. clip0001: name the rows by utterance id"
    ):
        brought_in(open_pool(pool.uri), tmp_path / "out", written(tmp_path / "t.parquet", columns))


def test_one_folder_may_hold_features_of_several_pools(
    pool: Pool, make_corpus: Callable[..., Path], tmp_path: Path, ray_session: None
) -> None:
    other = import_pool(make_corpus(tmp_path / "more" / "more", 3, first=40), tmp_path / "other")
    ids = [*ids_of(pool), *ids_of(other)]
    columns = {"id": ids, "embedding": embeddings(15)}
    values = {"tables": [written(tmp_path / "t.parquet", columns)], "pools": [pool.uri, other.uri, pool.uri]}
    brought_in(pool, tmp_path / "out", **values)
    stores = [extract_features(one, str(tmp_path / "out"), uri=str(tmp_path / "cache")) for one in (pool, other)]
    assert [store.index().names() for store in stores] == [ids[:12], ids[12:]]
    assert erase(parse(EraseOptions, {"pool": other.uri, "utterance": ids[-1]}))["elsewhere"][str(tmp_path / "out")]


def test_features_of_other_audio_are_refused(pool: Pool, tmp_path: Path, ray_session: None) -> None:
    """A noisy copy of a pool has its ids, and sounds otherwise."""
    brought_in(
        pool, tmp_path / "out", written(tmp_path / "t.parquet", {"id": ids_of(pool), "embedding": embeddings(12)})
    )
    noisy = str(tmp_path / "noisy")
    degrade_pool(parse(DegradeOptions, {"pool": pool.uri, "out": noisy, "gain_db": [-6, -3], "voice": False}))
    with pytest.raises(FeatureError, match=r"has features of other audio than .*noisy holds of 12 utterances"):
        extract_features(open_pool(noisy), str(tmp_path / "out"))
    with pytest.raises(FeatureError, match=r"12 utterances sound otherwise in one of .* than in another"):
        brought_in(pool, tmp_path / "both", str(tmp_path / "t.parquet"), pools=[pool.uri, noisy])


def test_another_pool_is_refused_with_the_way_to_its_features(pool: Pool, tmp_path: Path, speech_pool: str) -> None:
    brought_in(
        pool, tmp_path / "out", written(tmp_path / "t.parquet", {"id": ids_of(pool), "embedding": embeddings(12)})
    )
    with pytest.raises(FeatureError, match=r"of none of the \d+ utterances of .*seral pool import-features TABLE"):
        extract_features(open_pool(speech_pool), str(tmp_path / "out"), uri=str(tmp_path / "cache"))


def test_utterances_that_come_later_are_left_out_and_named(
    make_corpus: Callable[..., Path], copy: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = written(tmp_path / "t.parquet", {"id": ids_of(copy), "embedding": embeddings(12)})
    brought_in(copy, tmp_path / "out", table)
    extract_features(copy, str(tmp_path / "out"))
    grown = import_pool(make_corpus(tmp_path / "more" / "more", 3, first=40), Path(copy.uri))
    store = extract_features(grown, str(tmp_path / "out"))
    assert (len(store.index()), store.unusable.num_rows) == (12, 3)
    assert f"3 utterances of {grown.uri} have no features in {tmp_path / 'out'}, e.g." in capsys.readouterr().err
    assert check_pool(grown.uri) == []


def test_an_erased_utterance_is_erased_from_the_folder_too(copy: Pool, tmp_path: Path) -> None:
    ids, out = ids_of(copy), tmp_path / "out"
    rows = embeddings(12)
    rows[1] = [float("nan")] * 6
    brought_in(copy, out, written(tmp_path / "t.parquet", {"id": ids, "embedding": rows}))
    extract_features(copy, str(out))
    for name in ids[:2]:
        done = erase(parse(EraseOptions, {"pool": copy.uri, "utterance": name}))
        assert done["elsewhere"][str(out)]["rows"]
    for file in [*out.rglob("*"), *Path(copy.uri, "features").rglob("*")]:
        assert file.is_dir() or not any(name.encode() in file.read_bytes() for name in ids[:2]), file
    store = extract_features(open_pool(copy.uri), str(out))
    assert store.index().names() == ids[2:]
    assert check_pool(copy.uri) == []
    anew = extract_features(open_pool(copy.uri), str(out), uri=str(tmp_path / "anew"))
    np.testing.assert_array_equal(anew.pooled()[1], store.pooled()[1])


def test_shards_are_filled_group_by_group(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is read at a time, from tables in whatever order, the cache is the same."""
    ids, rows = ids_of(pool), embeddings(12)
    monkeypatch.setattr("seral.features.ingest.BYTES_AT_ONCE", 3 * 24)
    brought_in(pool, tmp_path / "out", written(tmp_path / "t.parquet", {"id": ids[::-1], "embedding": rows[::-1]}))
    assert len(storage.list_names(tmp_path / "out" / "pooled")) == 3
    whole = extract_features(pool, str(tmp_path / "out"), uri=str(tmp_path / "whole"))
    monkeypatch.setattr("seral.features.precomputed.BYTES_AT_ONCE", 24)
    parts = extract_features(pool, str(tmp_path / "out"), uri=str(tmp_path / "parts"))
    for shard in pool.shards:
        files = [Path(store.table_uri("pooled", shard)).read_bytes() for store in (whole, parts)]
        assert files[0] == files[1]
    assert isinstance(parts.index(), ShardIndex)
    assert pc.all(pc.equal(parts.index().ids, pa.array(ids))).as_py()


def test_options_take_the_folder_in_both_forms(pool: Pool, tmp_path: Path) -> None:
    brought_in(
        pool, tmp_path / "out", written(tmp_path / "t.parquet", {"id": ids_of(pool), "embedding": embeddings(12)})
    )
    folder = str(tmp_path / "out")
    for value in (folder, {"features": folder}):
        assert parse(ExtractOptions, {"pool": pool.uri, "encoder": value}).encoder == folder
    with pytest.raises(OptionError, match="is no folder of features: make one by `seral pool import-features"):
        parse(ExtractOptions, {"pool": pool.uri, "encoder": {"features": str(tmp_path)}})
    with pytest.raises(OptionError, match=r"expected a name, a folder, or \{features: FOLDER\}"):
        parse(ExtractOptions, {"pool": pool.uri, "encoder": {"folder": folder}})
