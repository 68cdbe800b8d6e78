from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_models.encoders import fingerprint, load_encoder
from seral import storage
from seral.errors import SplitError
from seral.features.screen import ScreenOptions, fit_whitening, leaders, near_duplicates, neighbourhood, screen_pool
from seral.options import parse
from seral.pool.ingest import ImportOptions, import_corpus
from seral.pool.revisions import EMPTY, commit, read_entry
from seral.pool.shards import TABLES, open_pool, shard_uri
from seral.pool.splits import Fold, check_leak
from seral.schema import POOLED, SCREEN
from seral.vectors.view import unit_rows

RNG = np.random.default_rng


def crowd(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1, half of them near others, and durations."""
    rng = RNG(seed)
    centre_ND = rng.normal(size=(max(1, count // 2), 8))
    x_ND = centre_ND[rng.integers(len(centre_ND), size=count)] + 0.2 * rng.normal(size=(count, 8))
    return unit_rows(x_ND.astype(np.float32)), rng.uniform(1, 1.3, count)


@settings(deadline=None)  # the first call loads FAISS
@given(st.integers(2, 60), st.integers(0, 10**6), st.floats(0, 0.2), st.integers(3, 20))
def test_pairs_are_those_of_a_plain_double_loop(count: int, seed: int, tolerance: float, block: int) -> None:
    x_ND, duration_N = crowd(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seral.features.screen.BLOCK", block)
        pairs = near_duplicates(x_ND, duration_N, 0.95, tolerance, exact_rows=count)
    wide_ND = x_ND.astype(np.float64)
    radius = float(np.sqrt(2 - 2 * 0.95))
    expected = [
        [one, other]
        for one in range(count)
        for other in range(one + 1, count)
        if np.linalg.norm(wide_ND[one] - wide_ND[other]) <= radius
        and max(duration_N[[one, other]]) <= min(duration_N[[one, other]]) * (1 + tolerance)
    ]
    assert pairs.pair_P2.tolist() == expected
    assert (pairs.count, pairs.complete) == (len(expected), True)


@pytest.mark.parametrize("neighbours", [1, 3, 100])
def test_distances_are_those_of_a_plain_sort(neighbours: int) -> None:
    x_ND, _ = crowd(40, 1)
    cosine_NN = x_ND.astype(np.float64) @ x_ND.T.astype(np.float64)
    np.fill_diagonal(cosine_NN, -np.inf)
    sorted_NN = -np.sort(-cosine_NN, axis=1)[:, : min(neighbours, 39)]
    near = neighbourhood(x_ND, neighbours, exact_rows=100)
    np.testing.assert_allclose(near.similarity_N, sorted_NN[:, 0], atol=1e-6)
    np.testing.assert_allclose(near.distance_N, (1 - sorted_NN).mean(1), atol=1e-6)
    assert near.row_N.tolist() == cosine_NN.argmax(1).tolist()


def test_above_the_limit_nobody_is_its_own_neighbour() -> None:
    x_ND, _ = crowd(60, 2)
    exact, drawn = neighbourhood(x_ND, 3, 60), neighbourhood(x_ND, 3, 20)
    assert (drawn.row_N != np.arange(60)).all()
    assert (drawn.distance_N >= exact.distance_N - 1e-6).all()


def test_groups_are_chains_of_pairs() -> None:
    assert leaders(np.array([[1, 4], [2, 4], [0, 5]]), 6).tolist() == [0, 1, 1, 3, 1, 0]
    assert leaders(np.empty((0, 2), np.int64), 3).tolist() == [0, 1, 2]


def test_whitening_takes_what_all_rows_share_out_of_the_cosines() -> None:
    rng = RNG(0)
    shared = rng.normal(size=(400, 1)) * rng.normal(size=32) * 10
    x_ND = (5 + shared + rng.normal(size=(400, 32))).astype(np.float16)
    x_ND[7] = x_ND[3] + rng.normal(size=32).astype(np.float16) / 30
    plain_NN = np.triu(np.abs(np.corrcoef(x_ND.astype(np.float32))), 1)
    white_NP = fit_whitening(x_ND, 16)(x_ND)
    cosine_NN = np.triu(white_NP @ white_NP.T, 1)
    assert np.quantile(plain_NN[plain_NN > 0], 0.5) > 0.9
    assert np.unravel_index(cosine_NN.argmax(), cosine_NN.shape) == (3, 7)
    assert np.sort(cosine_NN.ravel())[-2] < 0.9 < cosine_NN[3, 7]


def test_of_very_many_pairs_groups_and_the_most_similar_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND, duration_N = crowd(300, 3)
    complete = near_duplicates(x_ND, duration_N, 0.7, 0.2, exact_rows=300)
    monkeypatch.setattr("seral.features.screen.MOST_PAIRS", 400)
    monkeypatch.setattr("seral.features.screen.BLOCK", 50)
    some = near_duplicates(x_ND, duration_N, 0.7, 0.2, exact_rows=300)
    assert complete.count > 1000
    assert (complete.complete, some.complete) == (True, False)
    assert 400 < some.count <= complete.count
    assert len(some.pair_P2) <= 400
    assert leaders(some.pair_P2, 300).tolist() == leaders(complete.pair_P2, 300).tolist()


def write_features(pool: Path, x_ND: np.ndarray, order: np.ndarray, shards: int) -> ScreenOptions:
    """A pool of rows without audio, in some order, and their features as if they were by seral-tiny."""
    encoder, entries = load_encoder("seral-tiny"), {}
    state_N2LD = np.zeros((len(x_ND), 2, encoder.num_layers + 1, encoder.width), np.float16)
    state_N2LD[:, :, -1] = x_ND.reshape(-1, 2, encoder.width)
    for number, rows in enumerate(np.array_split(order, shards)):
        shard, names = f"made-{number}", [name_of(row) for row in rows]
        lengths = [{"utterance_id": name, "duration_s": 1 + row % 7 / 5} for name, row in zip(names, rows, strict=True)]
        for table, schema in TABLES.items():
            lines = lengths if table == "utterances" else []
            storage.write_table(shard_uri(str(pool), table, shard), pa.Table.from_pylist(lines, schema))
        entries[shard] = read_entry(str(pool), shard)
        mean, std = ([state.tobytes() for state in state_N2LD[rows, of]] for of in (0, 1))
        features = pa.table({"utterance_id": names, "mean": mean, "std": std}, schema=POOLED)
        storage.write_table(pool / "features" / f"{fingerprint(encoder)}-30s" / "pooled" / f"{shard}.parquet", features)
    commit(str(pool), EMPTY, entries)
    return ScreenOptions(pool=str(pool), exact_rows=200, neighbours=3, components=64)


def name_of(row: int) -> str:
    return f"made-{row:016x}"


def test_another_sharding_gives_the_same_bytes_and_the_index_the_same_copies(tmp_path: Path) -> None:
    rng = RNG(0)
    x_ND = rng.normal(size=(900, 384))
    x_ND[700:770] = x_ND[:70] + 0.03 * rng.normal(size=(70, 384))
    one = write_features(tmp_path / "one", x_ND, np.arange(900), 2)
    other = write_features(tmp_path / "other", x_ND, rng.permutation(900), 7)
    tables = {}
    for exact_rows in (200, 900):
        uris = [screen_pool(options.model_copy(update={"exact_rows": exact_rows})) for options in (one, other)]
        first, second = (Path(uri.rsplit("table: ", 1)[1]).read_bytes() for uri in uris)
        assert first == second
        tables[exact_rows] = pq.read_table(io.BytesIO(first)).to_pylist()
    for table in tables.values():
        copy_of = {row["utterance_id"]: row["near_duplicate_of"] for row in table if row["near_duplicate_of"]}
        assert copy_of == {name_of(700 + row): name_of(row) for row in range(70)}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_clip_in_another_codec_is_found_and_kept_out_of_two_parts(
    tmp_path: Path, make_corpus: Callable[..., Path]
) -> None:
    corpus = make_corpus(tmp_path / "corpus", 12, seconds=(1.0, 2.0))
    samples, rate = sf.read(corpus / "audio" / "clip0003.flac")
    sf.write(corpus / "audio" / "clip0003.mp3", 0.9 * samples, rate)
    with (corpus / "manifest.jsonl").open("a") as file:
        file.write('{"id": "again", "audio": "audio/clip0003.mp3", "speaker": "s9", "emotion": "anger"}\n')
    pool = str(tmp_path / "pool")
    import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(corpus), "out": pool}))
    summary = screen_pool(ScreenOptions(pool=pool))
    assert "near-duplicates among 13 utterances: 1 pairs" in summary
    uri = summary.rsplit("table: ", 1)[1]
    table = pq.read_table(uri)
    assert table.schema.equals(SCREEN)
    (pair,) = [row for row in table.to_pylist() if row["near_duplicate_of"]]
    opened = open_pool(pool)
    rows = [row for shard in opened.shards for row in opened.read(shard, ["utterance_id", "source"]).to_pylist()]
    sources = {row["utterance_id"]: row["source"] for row in rows}
    assert {sources[pair["utterance_id"]], sources[pair["near_duplicate_of"]]} == {
        "audio/clip0003.flac",
        "audio/clip0003.mp3",
    }
    fold = Fold(name="f", train=(pair["utterance_id"],), dev=(), test=(pair["near_duplicate_of"],))
    metadata = opened.metadata
    check_leak(fold, metadata)
    words = rf"{pair['utterance_id']} \(train\) = {pair['near_duplicate_of']} \(test\)"
    with pytest.raises(SplitError, match=words):
        check_leak(fold, metadata, near_duplicates=uri)
    check_leak(Fold(name="f", train=fold.train + fold.test, dev=(), test=()), metadata, near_duplicates=uri)
    with pytest.raises(SplitError, match="no table of near-duplicates at nowhere"):
        check_leak(fold, metadata, near_duplicates="nowhere")
