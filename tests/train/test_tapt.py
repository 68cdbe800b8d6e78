from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ser_models.encoders import fingerprint, load_encoder
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.options import parse
from seral.pool.shards import Pool, open_pool
from seral.train.tapt import TaptRunOptions, TaptSpec, _plan, adapt_encoder

SMALL = {"steps": 3, "batch_s": 10.0, "warmup_steps": 1, "checkpoint_every": 1}

pytestmark = pytest.mark.ray


def adapt(pool: Pool, ids: list[str], folder: Path, values: dict[str, Any]) -> str:
    return adapt_encoder(pool, ids, "seral-tiny", str(folder), parse(TaptRunOptions, values), ClusterOptions())


def test_adapts_once_reproducibly_and_only_from_the_ids_it_is_given(speech_pool: str, tmp_path: Path) -> None:
    pool = open_pool(speech_pool)
    ids = pool.metadata["utterance_id"].to_pylist()[:12]
    first, second = (adapt(pool, ids, tmp_path / name, SMALL) for name in ("a", "b"))
    assert fingerprint(load_encoder(first)) == fingerprint(load_encoder(second))
    assert fingerprint(load_encoder(first)) != fingerprint(load_encoder("seral-tiny"))
    before = (Path(first) / "model.safetensors").stat().st_mtime_ns
    adapt(pool, ids, tmp_path / "a", SMALL)
    assert (Path(first) / "model.safetensors").stat().st_mtime_ns == before
    spec = TaptSpec(
        pool=pool,
        ids=tuple(ids),
        encoder="seral-tiny",
        options=parse(TaptRunOptions, SMALL),
        on=ClusterOptions(),
    )
    plan = _plan(spec)
    heard = {name for _ in range(50) for name in next(plan)[1]}
    assert heard == set(ids)


def test_other_encoder_families_are_refused_by_name(speech_pool: str, tmp_path: Path, shared: Path) -> None:
    pool = open_pool(speech_pool)
    ids = pool.metadata["utterance_id"].to_pylist()[:4]
    whisper = str(shared / "encoders" / "whisper-tiny-en")
    with pytest.raises(TrainError, match=r"whisper.*wav2vec2"):
        adapt_encoder(pool, ids, whisper, str(tmp_path), parse(TaptRunOptions, SMALL), ClusterOptions())


def test_impossible_schedules_are_refused() -> None:
    with pytest.raises(ValueError, match="warm"):
        parse(TaptRunOptions, {"steps": 10, "warmup_steps": 50}).settings()
    assert torch.is_grad_enabled()
