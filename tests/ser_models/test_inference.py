"""A model's folder in any program: files, waveforms, rates; without Ray and the rest of seral."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_models.build import build_model, save_model
from ser_models.encoders import fingerprint, load_encoder
from ser_models.inference import Model

RATE_HZ = 16_000
BLOCKED = ("ray", "pyarrow", "seral", "faiss", "fsspec", "pandas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model on seral-tiny, as a run writes it."""
    encoder = load_encoder("seral-tiny")
    model = build_model(encoder, ["anger", "joy"], dimensions=["valence"])
    with torch.no_grad():
        model.head.output.weight.normal_(generator=torch.Generator().manual_seed(0), std=0.2)
    path = tmp_path_factory.mktemp("model")
    save_model(model, path)
    facts = {"encoder": "seral-tiny", "fingerprint": fingerprint(encoder), "layer": 4}
    (path / "encoder.json").write_text(json.dumps(facts), encoding="utf-8")
    return path


def wave(seconds: float = 0.7, rate_hz: int = RATE_HZ) -> np.ndarray:
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * 220 * time_s)).astype(np.float32)


def test_a_file_a_wave_and_a_list_give_one_answer(folder: Path, tmp_path: Path) -> None:
    model = Model.load(folder)
    soundfile.write(tmp_path / "clip.wav", wave(), RATE_HZ, subtype="FLOAT")
    share_C = model.predict_proba(wave())
    assert share_C.sum() == pytest.approx(1)
    assert model.predict_proba(tmp_path / "clip.wav") == pytest.approx(share_C)
    assert model.predict_proba([wave(0.3), wave()])[1] == pytest.approx(share_C, abs=1e-5)
    assert model.predict(wave()) == model.classes[int(share_C.argmax())]
    assert model.predict([wave()]) == [model.predict(wave())]
    assert model.embed(wave()).shape == (model.network.head.output.in_features,)
    assert model.rate([wave(), wave()]).shape == (2, 1)


def test_it_may_say_that_it_is_unsure(folder: Path) -> None:
    model = Model.load(folder)
    with pytest.raises(ValueError, match="this model has no abstain_below"):
        model.predict(wave(), unsure="unsure")
    confidence = float(model.predict_proba(wave()).max())
    for threshold, answer in ((confidence - 1e-3, model.predict(wave())), (confidence + 1e-3, "unsure")):
        model.abstain_below = threshold
        assert model.predict(wave(), unsure="unsure") == answer
        assert model.predict(wave()) != "unsure"


def test_of_two_channels_the_voice_is_listened_to(folder: Path, tmp_path: Path) -> None:
    """As `seral predict` does: the mean of a voice and its negative would be silence."""
    soundfile.write(tmp_path / "two.wav", np.stack([wave(), -wave()], 1), RATE_HZ, subtype="FLOAT")
    model = Model.load(folder)
    assert model.predict_proba(tmp_path / "two.wav") == pytest.approx(model.predict_proba(wave()))


def test_waves_at_other_rates_are_resampled(folder: Path) -> None:
    model = Model.load(folder)
    slow = model.predict_proba(wave(1.0, 48_000), sample_rate=48_000)
    assert slow == pytest.approx(model.predict_proba(wave(1.0)), abs=0.02)


def test_what_is_no_clip_or_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds neither"):
        Model.load(tmp_path)
    with pytest.raises(ValueError, match="expected a waveform"):
        Model.load(folder).predict(np.zeros((2, 100), dtype=np.float32))
    with pytest.raises(ValueError, match="another encoder"):
        Model.load(folder, encoder="seral-tiny-untrained")


def test_prediction_needs_neither_ray_nor_seral(folder: Path) -> None:
    script = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None
import numpy
from ser_models import Model
print(Model.load({str(folder)!r}).predict(numpy.ones(16_000, dtype=numpy.float32) * 0.1))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("anger", "joy")
