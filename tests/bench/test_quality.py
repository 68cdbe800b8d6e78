from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from jobs.bench.quality import QualityBenchOptions, run_quality_bench
from seral.errors import ReaderError


@pytest.fixture
def noises(tmp_path: Path, write_manifest: Callable[..., Path]) -> Path:
    """Four clips of noise."""
    for number in range(4):
        samples = np.random.default_rng(number).normal(0, 0.05, 16_000)
        sf.write(tmp_path / f"noise{number}.flac", samples, 16_000)
    write_manifest(tmp_path, [{"id": f"n{n}", "audio": f"noise{n}.flac"} for n in range(4)])
    return tmp_path


def test_halves_are_apart_and_scores_fall_with_noise(
    noises: Path, make_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    speech = make_corpus(tmp_path / "speech", 8, seconds=(1.0, 1.5))
    frames = {}
    for half in ("first", "second"):
        out = tmp_path / f"{half}.csv"
        summary = run_quality_bench(
            QualityBenchOptions(speech=[str(speech)], noise=str(noises), half=half, snr_db=[20, 0], out=str(out))
        )
        assert "clean speech against" in summary
        assert "clean speech below 0.1, by corpus, emotion, gender" in summary
        every = pd.read_csv(out)
        assert (every["kind"] == "clean").sum() == 8, "the floor is held against all clips"
        frames[half] = every[every["drawn"]]
    for frame in frames.values():
        assert frame["kind"].value_counts().to_dict() == {"clean": 4, "20 dB": 4, "0 dB": 4, "noise": 2}
        assert frame.groupby("kind")["quality"].mean()[["clean", "20 dB", "0 dB", "noise"]].is_monotonic_decreasing
    loudness = [set(frame.loc[frame["kind"] == "clean", "loudness_db"]) for frame in frames.values()]
    assert not loudness[0] & loudness[1]


def test_one_noise_cannot_be_halved(tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    one, speech = make_corpus(tmp_path / "one", 1), make_corpus(tmp_path / "speech", 4)
    with pytest.raises(ReaderError, match="one has 1 speakers or files, needs 2"):
        run_quality_bench(QualityBenchOptions(speech=[str(speech)], noise=str(one)))
