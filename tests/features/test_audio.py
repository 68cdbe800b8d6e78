from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperConfig, WhisperModel

from ser_models.encoders import SpeechEncoder, load_encoder, save_encoder, wrap
from ser_models.pooling import masked_mean_std
from seral import storage
from seral.audio.decode import decode_flac
from seral.cluster import ClusterOptions
from seral.errors import FeatureError
from seral.features.audio import extract_features
from seral.features.batches import FixedShapes, length_sorted_batches, pad_clips, rows_of
from seral.features.frames import FrameReader, keep_frames
from seral.features.options import FeatureOptions
from seral.features.store import FeatureStore
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import Pool, open_pool
from seral.selection.source import read_candidates, shards
from seral.selection.source_options import SourceOptions

TINY = "seral-tiny"
FP16 = {"rtol": 2e-3, "atol": 2e-3}
ONE_ACTOR = ClusterOptions(feature_actors=1)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, make_corpus: Callable[..., Path], ray_session: None) -> Pool:
    """Ten short clips in several shards."""
    folder = tmp_path_factory.mktemp("features")
    return import_pool(make_corpus(folder / "calls", 10), folder / "pool")


@pytest.fixture(scope="module")
def store(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Features of the pool by seral-tiny, with the frames of hidden state 2."""
    cache = str(tmp_path_factory.mktemp("cache"))
    return extract_features(pool, TINY, uri=cache, frames_layer=2, on=ONE_ACTOR)


@pytest.fixture(scope="module")
def clips(pool: Pool) -> dict[str, torch.Tensor]:
    tables = [pool.read(shard, ["utterance_id", "audio"]) for shard in pool.shards]
    rows = [row for table in tables for row in table.to_pylist()]
    return {row["utterance_id"]: torch.from_numpy(decode_flac(row["audio"])) for row in rows}


def import_pool(corpus: Path, pool: Path, shard_mb: float = 0.05) -> Pool:
    values = {"reader": "manifest", "root": str(corpus), "out": str(pool), "shard_mb": shard_mb}
    import_corpus(parse(ImportOptions, values))
    return open_pool(str(pool))


def files_of(store: FeatureStore) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file of a store."""
    folder = Path(store.uri)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def alone(clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return clip[None], torch.tensor([len(clip)])


@pytest.mark.ray
def test_pooled_features_are_those_of_each_clip_alone(store: FeatureStore, clips: dict[str, torch.Tensor]) -> None:
    ids, mean_NLD, std_NLD = store.pooled()
    assert ids == sorted(clips)
    assert mean_NLD.shape == std_NLD.shape == (10, store.num_layers + 1, store.width)
    assert mean_NLD.dtype == np.float16
    encoder = load_encoder(TINY)
    with torch.inference_mode():
        for row, name in enumerate(ids):
            out = encoder(*alone(clips[name]))
            mean_LBD, std_LBD = masked_mean_std(out.hidden_LBTD, out.mask_BT)
            np.testing.assert_allclose(mean_NLD[row], mean_LBD[:, 0].numpy(), **FP16)
            np.testing.assert_allclose(std_NLD[row], std_LBD[:, 0].numpy(), **FP16)
    assert store.unusable.num_rows == 0


@pytest.mark.ray
def test_frames_are_the_hidden_state_of_the_layer(store: FeatureStore, clips: dict[str, torch.Tensor]) -> None:
    asked_ids = set(sorted(clips)[1:4])
    frames = store.frames(2, asked_ids)
    assert set(frames) == asked_ids
    encoder = load_encoder(TINY)
    with torch.inference_mode():
        for name, frames_TD in frames.items():
            stem_BTD, mask_BT = encoder.stem(*alone(clips[name]))
            hidden_TD = encoder.upper(stem_BTD, mask_BT, start=0)[2, 0]
            np.testing.assert_allclose(frames_TD, hidden_TD.numpy(), rtol=2e-3, atol=4e-3)
    assert sum(len(part) for part in store.frames_by_table(2, asked_ids)) == 3


@pytest.mark.ray
@pytest.mark.parametrize("layer", [0, 2, 4])
def test_frames_of_some_clips_are_those_of_the_whole_pool(pool: Pool, tmp_path: Path, layer: int) -> None:
    """Byte for byte, whether they are written for whole shards, for some clips, or made as they are read."""
    ids = sorted(pool.metadata["utterance_id"].to_pylist())
    whole = extract_features(pool, TINY, uri=str(tmp_path / "whole"), frames_layer=layer, on=ONE_ACTOR)
    expected = {name: frames_TD.tobytes() for name, frames_TD in whole.frames(layer, ids).items()}
    some = extract_features(pool, TINY, uri=str(tmp_path / "some"), on=ONE_ACTOR)
    with pytest.raises(FeatureError, match=f"frames of hidden state {layer} are missing of 2 utterances"):
        some.frames(layer, ids[:2])
    keep_frames(some, layer, ids[:4], ONE_ACTOR)
    keep_frames(some, layer, ids[2:7], ONE_ACTOR)
    written = files_of(some)
    keep_frames(some, layer, ids[:7], ONE_ACTOR)
    assert files_of(some) == written, "nothing is computed twice"
    assert sum(pq.read_metadata(uri).num_rows for uri in some.frame_tables(layer)) == 7
    assert {name: f.tobytes() for name, f in some.frames(layer, ids[:7]).items()} == {n: expected[n] for n in ids[:7]}
    reader = FrameReader(some, layer, load_encoder(TINY))
    made = {name: f.tobytes() for piece in reader.pieces(ids) for name, f in piece.items()}
    assert made == expected


@pytest.mark.ray
def test_a_strategy_reads_a_state_straight_from_the_store(store: FeatureStore) -> None:
    folder = Path(store.table_uri("pooled", "x")).parent
    source = SourceOptions(features=str(folder), state=2, states=store.num_layers + 1)
    read = read_candidates(source, shards(source))
    ids, mean_NLD, _ = store.pooled()
    assert read.ids.tolist() == ids
    assert read.need("embedding_ND").tolist() == mean_NLD[:, 2].tolist()
    schema = pq.read_schema(folder / shards(source)[0])
    assert schema.metadata[b"encoder"].decode() == store.fingerprint


@pytest.mark.ray
def test_two_workers_write_the_same_bytes(pool: Pool, store: FeatureStore, tmp_path: Path) -> None:
    on = ClusterOptions(feature_actors=2)
    again = extract_features(pool, TINY, uri=str(tmp_path), frames_layer=2, on=on)
    assert len(pool.shards) > 2
    first, second = files_of(store), files_of(again)
    assert {name: data for name, (data, _) in first.items()} == {name: data for name, (data, _) in second.items()}


@pytest.mark.ray
def test_what_is_cached_is_not_computed_again(pool: Pool, store: FeatureStore) -> None:
    before = files_of(store)
    assert extract_features(pool, TINY, uri=store.uri, frames_layer=2, on=ONE_ACTOR) == store
    assert extract_features(pool, TINY, uri=store.uri, on=ONE_ACTOR) == store
    assert files_of(store) == before


@pytest.mark.ray
def test_only_a_lost_shard_is_computed_again(pool: Pool, store: FeatureStore) -> None:
    before = files_of(store)
    lost = f"{store.fingerprint}/pooled/{pool.shards[1]}.parquet"
    (Path(store.uri) / lost).unlink()
    extract_features(pool, TINY, uri=store.uri, frames_layer=2, on=ONE_ACTOR)
    after = files_of(store)
    assert {name: data for name, (data, _) in after.items()} == {name: data for name, (data, _) in before.items()}
    changed = {Path(name).name for name in after if after[name][1] != before[name][1]} - {"encoder.json"}
    assert changed == {f"{pool.shards[1]}.parquet"}


@pytest.mark.ray
def test_another_encoder_or_limit_has_another_folder(pool: Pool, store: FeatureStore, tmp_path: Path) -> None:
    changed = load_encoder(TINY)
    with torch.no_grad():
        next(changed.layers[0].parameters()).add_(1e-3)
    save_encoder(changed, tmp_path / "changed")
    other = extract_features(pool, str(tmp_path / "changed"), uri=str(tmp_path / "cache"), on=ONE_ACTOR)
    options = FeatureOptions(max_clip_s=0.2)
    short = extract_features(pool, TINY, uri=str(tmp_path / "cache"), options=options, on=ONE_ACTOR)
    assert len({store.fingerprint, other.fingerprint, short.fingerprint}) == 3
    assert storage.list_names(tmp_path / "cache") == sorted([other.fingerprint, short.fingerprint])
    assert not np.array_equal(store.pooled()[1], short.pooled()[1])


@pytest.mark.ray
def test_clips_that_overflow_are_set_aside(
    tmp_path: Path, make_corpus: Callable[..., Path], speech: Callable[[float, int], np.ndarray], ray_session: None
) -> None:
    """An encoder whose features grow with loudness, past what fp16 holds for the loud half of the clips."""
    root = make_corpus(tmp_path / "calls", 6)
    for number in range(3):
        sf.write(root / "audio" / f"clip{number:04d}.flac", 0.02 * speech(0.5, number), 16_000, subtype="PCM_24")
    pool = import_pool(root, tmp_path / "pool")
    loudness = dict(zip(*(pool.metadata[c].to_pylist() for c in ("utterance_id", "loudness_db")), strict=True))
    quiet = {name for name, level_db in loudness.items() if level_db < -45}
    assert len(quiet) == 3

    save_encoder(loudness_encoder(), tmp_path / "encoder")
    features = extract_features(pool, str(tmp_path / "encoder"), frames_layer=0, on=ONE_ACTOR)
    assert set(features.unusable["source"].to_pylist()) == set(loudness) - quiet
    assert set(features.unusable["reason"].to_pylist()) == {"features"}
    ids, mean_NLD, std_NLD = features.pooled()
    assert set(ids) == quiet == set(features.frames(0, quiet))
    with pytest.raises(FeatureError, match="frames"):
        features.frames(0, set(loudness))
    assert np.isfinite(mean_NLD).all()
    assert np.isfinite(std_NLD).all()


def loudness_encoder() -> SpeechEncoder:
    """A tiny Whisper whose first hidden state is a steep function of the level in its log-mel input."""
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"vocab_size": 4, "pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        network = WhisperModel(WhisperConfig(d_model=8, max_source_positions=50, **sizes, **tokens)).get_encoder()
    with torch.no_grad():
        for conv, gain, offset in ((network.conv1, 1 / 240, 0.0), (network.conv2, 1e6, 0.0)):
            conv.weight.fill_(gain)
            conv.bias.fill_(offset)
    return wrap(network)


@pytest.mark.ray
def test_a_damaged_row_is_set_aside_and_takes_no_neighbour_with_it(
    tmp_path: Path, make_corpus: Callable[..., Path], ray_session: None
) -> None:
    pool = import_pool(make_corpus(tmp_path / "calls", 3), tmp_path / "pool")
    table = pool.read(pool.shards[0])
    audio = [row.as_py() for row in table["audio"]]
    cut = pa.array([audio[0][:200], *audio[1:]], pa.large_binary())
    damaged = table.set_column(table.schema.get_field_index("audio"), "audio", cut)
    storage.write_table(pool.table_uri("utterances", pool.shards[0]), damaged)
    features = extract_features(pool, TINY, on=ONE_ACTOR)
    assert features.unusable["source"].to_pylist() == [table["utterance_id"][0].as_py()]
    assert "the stored audio is damaged" in features.unusable["detail"][0].as_py()
    assert len(features.pooled()[0]) == 2


@pytest.mark.ray
def test_features_are_the_same_bytes_in_shards_of_any_size(
    tmp_path: Path, make_corpus: Callable[..., Path], pool: Pool, store: FeatureStore
) -> None:
    """The pool of the fixture has several shards; in one, every clip has other neighbours."""
    whole = import_pool(make_corpus(tmp_path / "calls", 10), tmp_path / "pool", shard_mb=100)
    assert (len(whole.shards), whole.hash) == (1, pool.hash)
    other = extract_features(whole, TINY, frames_layer=2, on=ONE_ACTOR)
    for mine, others in zip(store.pooled(), other.pooled(), strict=True):
        assert np.asarray(mine).tobytes() == np.asarray(others).tobytes()
    frames = other.frames(2, set(store.pooled()[0]))
    assert {name: f.tobytes() for name, f in store.frames(2, set(frames)).items()} == {
        name: f.tobytes() for name, f in frames.items()
    }


@given(
    lengths=st.lists(st.integers(1, 3000), max_size=40),
    rows=st.integers(1, 6),
    margin=st.integers(0, 20),
    longest=st.none() | st.integers(3000, 4000),
)
def test_the_shape_of_a_batch_follows_from_the_length_of_a_clip(
    lengths: list[int], rows: int, margin: int, longest: int | None
) -> None:
    shapes = FixedShapes(size=4000, rows=rows, margin=margin, longest=longest)
    batches = list(shapes.batches(lengths))
    assert sorted(position for batch in batches for position in batch.positions) == list(range(len(lengths)))
    for batch in batches:
        for position in batch.positions:
            (alone,) = shapes.batches([lengths[position]])
            assert (batch.rows, batch.length) == (alone.rows, alone.length)
            assert lengths[position] <= batch.length <= 1.125 * (lengths[position] + margin) + 1
            assert batch.length >= lengths[position] + margin or batch.rows == 1
        wave_BS, length_B = pad_clips([np.ones(length, np.float32) for length in lengths], batch)
        assert wave_BS.shape == (batch.rows, batch.length)
        filling = batch.rows - len(batch.positions)
        assert length_B.tolist() == [*(lengths[p] for p in batch.positions), *[batch.length] * filling]
        assert wave_BS.sum() == sum(lengths[p] for p in batch.positions)


@given(lengths=st.lists(st.integers(1, 300), max_size=40), limit=st.integers(1, 1000))
def test_batches_hold_every_clip_once_within_the_limit(lengths: list[int], limit: int) -> None:
    batches = length_sorted_batches(lengths, limit)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[index] for index in batch) * len(batch) <= limit
    longest = [[lengths[index] for index in batch] for batch in batches]
    assert [length for batch in longest for length in batch] == sorted(lengths, reverse=True)


@given(ids=st.sets(st.text("abc", min_size=1, max_size=4), max_size=20))
def test_rows_are_found_by_id(ids: set[str]) -> None:
    listing = sorted(ids)
    asked_ids = sorted(ids, key=lambda name: (name[::-1], name))
    assert rows_of(listing, asked_ids).tolist() == [listing.index(name) for name in asked_ids]


@pytest.mark.parametrize("ids", [[], ["b"], ["a", "d"]])
def test_ids_without_features_are_named(ids: list[str]) -> None:
    with pytest.raises(FeatureError, match=r"2 utterances have no features, e\.g\. aa, zz"):
        rows_of(ids, [*ids, "aa", "zz"])


@pytest.fixture
def made_store(tmp_path: Path) -> FeatureStore:
    """A shard of 200 rows of made-up features, in row groups of 16."""
    entries = {"pool_hash": "", "shards": {"made": {"rows": 200}}}
    made_pool = Pool(uri=str(tmp_path), manifest=entries)
    facts = {"encoder": TINY, "fingerprint": "abc", "num_layers": 1, "width": 2}
    made = FeatureStore(uri=str(tmp_path), pool=made_pool, shards=("made",), **facts)
    write_features(made, made.schema)
    return made


def write_features(made: FeatureStore, schema: pa.Schema) -> None:
    vectors = np.random.default_rng(0).standard_normal((200, 2, 4)).astype(np.float16)
    columns = {"utterance_id": [f"clip-{row:03d}" for row in range(200)]}
    cells = {name: [row.tobytes() for row in vectors[:, k]] for k, name in enumerate(("mean", "std"))}
    table = pa.table(columns | cells, schema=schema)
    storage.write_table(made.table_uri("pooled", "made"), table, row_group_rows=16)


def test_caches_with_cells_of_any_size_are_read_as_those_of_one_size(made_store: FeatureStore) -> None:
    fixed = made_store.read_shard("made", np.arange(3, 170))
    older = [("utterance_id", pa.string()), ("mean", pa.large_binary()), ("std", pa.large_binary())]
    write_features(made_store, pa.schema(older))
    read = made_store.read_shard("made", np.arange(3, 170))
    assert read.ids == fixed.ids
    assert np.array_equal(read.mean_NLD, fixed.mean_NLD)
    assert np.array_equal(read.std_NLD, fixed.std_NLD)


@pytest.mark.parametrize("absent", [{50}, set(range(20, 120, 2)), {0, 63, 64, 199}])
def test_rows_between_those_asked_for_are_marked(made_store: FeatureStore, absent: set[int]) -> None:
    rows = np.array(sorted(set(range(200)) - absent), np.int32)
    pieces = list(made_store.read_ahead({"made": rows}, lambda _, part, asked_N: part.only(asked_N)))
    expected = made_store.read_shard("made", rows)
    assert [name for _, piece in pieces for name in piece.ids] == expected.ids
    assert np.array_equal(np.concatenate([piece.mean_NLD for _, piece in pieces]), expected.mean_NLD)
    assert np.array_equal(np.concatenate([piece.std_NLD for _, piece in pieces]), expected.std_NLD)
