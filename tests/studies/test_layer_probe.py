"""The probe on a made-up pool in which pitch is the emotion and the speaker is a level."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ser_models.encoders import load_encoder
from seral import storage
from seral.audio.decode import encode_flac
from seral.options import parse
from seral.pool.shards import FORMAT, ID_COLUMNS, MANIFEST, pool_hash
from seral.schema import GOLD, UTTERANCE
from seral.studies.layer_options import ProbeOptions
from seral.studies.layer_probe import LOG_MEL, probe_layers

PITCH_HZ = {"anger": 400.0, "sadness": 120.0}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """24 tones of 0.3 s by four speakers in two emotions, one duplicate, one of another corpus, one without speaker."""
    folder = tmp_path_factory.mktemp("pool")
    rows, gold = [], []
    for number in range(24):
        rng = np.random.default_rng(number)
        emotion, speaker = sorted(PITCH_HZ)[number % 2], number // 2 % 4
        tone = np.sin(2 * np.pi * PITCH_HZ[emotion] * rng.uniform(0.95, 1.05) * np.arange(4800) / 16_000)
        samples = 0.05 * (speaker + 1) * tone + 0.005 * rng.standard_normal(4800)
        odd = {20: {"duplicate_of": "clip-00"}, 21: {"corpus": "other"}, 22: {"speaker": None}}.get(number, {})
        name = f"clip-{number:02d}"
        row = {"utterance_id": name, "audio": encode_flac(samples.astype(np.float32)), "duration_s": 0.3}
        rows.append(row | {"corpus": "made", "speaker": f"s{speaker}"} | odd)
        gold.append({"utterance_id": name, "emotion": emotion})
    storage.write_table(folder / "utterances" / "one.parquet", pa.Table.from_pylist(rows, UTTERANCE))
    storage.write_table(folder / "gold" / "one.parquet", pa.Table.from_pylist(gold, GOLD))
    data = (folder / "utterances" / "one.parquet").read_bytes()
    entry = {"rows": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ids = storage.read_table(folder / "utterances" / "one.parquet", ID_COLUMNS)
    manifest = {"format": FORMAT, "revision": 1, "shards": {"one": entry}, "pool_hash": pool_hash(ids)}
    storage.write_json(folder / MANIFEST, manifest)
    return str(folder)


@pytest.mark.parametrize("std", [False, True])
def test_what_is_easy_to_hear_is_found_in_every_state(pool: str, std: bool, tmp_path: Path) -> None:
    values = {"pool": pool, "corpus": "made", "classes": sorted(PITCH_HZ), "folds": 4, "std": std, "run": str(tmp_path)}
    text = probe_layers(parse(ProbeOptions, values))
    assert text.startswith("21 utterances, 4 speakers, 2 classes\n")
    assert (tmp_path / "probe.md").read_text() == text
    scores = pd.read_csv(tmp_path / "probe.csv")
    count = scores.groupby("encoder", sort=False)["state"].nunique()
    assert count.to_dict() == {LOG_MEL: 1, "seral-tiny": 5, "seral-tiny, untrained": 5}
    assert set(scores["seed"]) == {0, 1, 2}
    mean = scores.groupby(["encoder", "state"])["uar"].mean()
    assert mean[LOG_MEL, 0] > 0.9
    assert mean["seral-tiny"].min() > 0.9
    _, tiny, _ = (line.strip("| \n").split(" | ") for line in text.splitlines()[-3:])
    size = sum(parameter.numel() for parameter in load_encoder("seral-tiny").parameters())
    assert tiny[:3] == ["seral-tiny", f"{size:,}", f"{2e-6 * size:.1f}"]
    assert float(tiny[3]) > 1
    assert float(tiny[5].split()[0]) == pytest.approx(100 * mean["seral-tiny"].max(), abs=0.051)
    assert len(tiny[6].split()) == 5
    assert (tmp_path / "probe.png").read_bytes().startswith(b"\x89PNG")


def test_the_baseline_can_be_left_out(pool: str) -> None:
    values = {"pool": pool, "classes": sorted(PITCH_HZ), "folds": 2, "untrained": False, "seeds": [0]}
    rows = [line for line in probe_layers(parse(ProbeOptions, values)).splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == [LOG_MEL, "seral-tiny"]
