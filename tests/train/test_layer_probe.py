"""The probe on a made-up pool in which pitch is the emotion and the speaker is a level."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from seral import storage
from seral.options import parse
from seral.pool.decode import encode_flac
from seral.pool.shards import FORMAT, ID_COLUMNS, MANIFEST, pool_hash
from seral.schema import GOLD, UTTERANCE
from seral.train.layer_probe import ProbeOptions, probe_layers

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
def test_what_is_easy_to_hear_is_found_in_every_state(pool: str, std: bool) -> None:
    values = {"pool": pool, "corpus": "made", "classes": sorted(PITCH_HZ), "folds": 4, "std": std}
    head, log_mel, tiny, twin = probe_layers(parse(ProbeOptions, values)).splitlines()
    assert head == "21 utterances, 4 speakers, 2 classes"
    assert float(log_mel.split()[-1]) > 0.9
    states = [float(score) for score in tiny.split(" of ")[1].split()]
    assert len(states) == 5
    assert min(states) > 0.9
    assert tiny.startswith(f"seral-tiny: best {max(states):.3f} of ")
    assert twin.startswith("seral-tiny, untrained: best ")


def test_the_baseline_can_be_left_out(pool: str) -> None:
    values = {"pool": pool, "classes": sorted(PITCH_HZ), "folds": 2, "untrained": False}
    assert len(probe_layers(parse(ProbeOptions, values)).splitlines()) == 3
