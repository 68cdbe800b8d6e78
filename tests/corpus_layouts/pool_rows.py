"""Rows of pools that tests write without an import."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from seral.audio.decode import encode_flac, pcm_hash


def row(name: str, *, seconds: float = 0.25, **values: Any) -> dict[str, Any]:
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    samples = (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))).astype(np.float32)
    return {
        "utterance_id": name,
        "audio": encode_flac(samples),
        "duration_s": seconds,
        "corpus": "made",
        "speaker": "s1",
        "language": "en",
        "snr_db": 10.0,
        "pcm_hash": pcm_hash(samples),
        "source": f"{name}.wav",
    } | values
