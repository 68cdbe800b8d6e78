from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from seral.errors import SplitError
from seral.features.options import ScreenOptions
from seral.features.screen import fit_whitening, leaders, near_duplicates, neighbourhood, screen_pool
from seral.options import parse
from seral.pool.ids import Ids
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.pool.split_options import SplitOptions
from seral.pool.splits import Fold, check_leak, make_folds
from seral.schema import SCREEN
from seral.task.context import open_run
from seral.training.options import SupervisedOptions
from seral.vectors.view import unit_rows

RNG = np.random.default_rng


def crowd(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of length 1, half of them near others, and durations."""
    rng = RNG(seed)
    centre_ND = rng.normal(size=(max(1, count // 2), 8))
    x_ND = centre_ND[rng.integers(len(centre_ND), size=count)] + 0.2 * rng.normal(size=(count, 8))
    return unit_rows(x_ND.astype(np.float32)), rng.uniform(1, 1.3, count)


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
    fold = Fold(name="f", train=Ids([pair["utterance_id"]]), dev=Ids(), test=Ids([pair["near_duplicate_of"]]))
    metadata = opened.metadata
    check_leak(fold, metadata)
    words = rf"{pair['utterance_id']} \(train\) = {pair['near_duplicate_of']} \(test\)"
    with pytest.raises(SplitError, match=words):
        check_leak(fold, metadata, near_duplicates=[uri])
    check_leak(Fold(name="f", train=fold.train + fold.test, dev=Ids(), test=Ids()), metadata, near_duplicates=[uri])
    with pytest.raises(SplitError, match="no table of near-duplicates at nowhere"):
        check_leak(fold, metadata, near_duplicates=["nowhere"])

    copies = {pair["utterance_id"], pair["near_duplicate_of"]}
    plain, screened = (
        make_folds(metadata, parse(SplitOptions, {"dev_speakers": 2, "near_duplicates": tables}))
        for tables in ([], uri)
    )
    assert any(copies & {*fold.train} and copies & {*fold.test} for fold in plain)
    for before, after in zip(plain, screened, strict=True):
        check_leak(after, metadata, near_duplicates=[uri])
        assert after.test == before.test, "what is judged stays"
        parts = [{*part} & copies for part in (before.train, before.dev, before.test)]
        divided = sum(map(bool, parts)) > 1
        assert after.left_out - before.left_out == (1 if divided else 0)

    values = {"pool": pool, "run": str(tmp_path / "run"), "classes": ["anger", "neutral"]}
    begun = open_run(parse(SupervisedOptions, values), "train", ())
    assert begun.options.split.near_duplicates == (uri,), "by itself"
    shutil.copy(uri, Path(uri).with_name("later.parquet"))
    again = open_run(parse(SupervisedOptions, values), "train", ())
    assert again.options.split.near_duplicates == (uri,), "as when it began"
    ignored = values | {"run": str(tmp_path / "other"), "split": {"near_duplicates": []}}
    assert open_run(parse(SupervisedOptions, ignored), "train", ()).options.split.near_duplicates == ()
