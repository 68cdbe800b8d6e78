"""`seral-models`, built and installed where there is neither Ray nor the rest of seral, predicts as here."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from environments import build_wheel, fresh_environment

from ser_models.build import build_model, save_model
from ser_models.encoders import fingerprint, load_encoder
from ser_models.exports import write_export
from ser_models.inference import Model

ROOT = Path(__file__).resolve().parents[2]
ABSENT = ("ray", "pyarrow", "pandas", "faiss", "seral", "sklearn", "fastapi")
SCRIPT = """
import importlib.util, json, sys
present = [name for name in {absent!r} if importlib.util.find_spec(name)]
from ser_models import Model
answers = [Model.load(folder).predict_proba(sys.argv[1]).tolist() for folder in sys.argv[2:]]
print(json.dumps([present, answers, sys.modules["ser_models"].__file__]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A fresh environment with the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("fresh")
    return str(fresh_environment(folder / "venv", build_wheel(ROOT / "ser_models", folder)))


@pytest.mark.slow
def test_the_wheel_alone_predicts_from_a_run_and_from_an_export(python: str, tmp_path: Path) -> None:
    encoder = load_encoder("seral-tiny")
    model = build_model(encoder, ["anger", "joy", "sadness"]).eval()
    with torch.no_grad():
        model.head.output.weight.normal_(generator=torch.Generator().manual_seed(0), std=0.2)
    save_model(model, tmp_path / "model")
    facts = {"encoder": "seral-tiny", "fingerprint": fingerprint(encoder), "layer": 4}
    (tmp_path / "model" / "encoder.json").write_text(json.dumps(facts), encoding="utf-8")
    write_export(model, tmp_path / "export", "hf", temperature=2.0)
    clip, folders = tmp_path / "clip.wav", [str(tmp_path / name) for name in ("model", "export")]
    sf.write(clip, 0.1 * np.random.default_rng(0).standard_normal((9000, 2)), 22_050)
    expected = [Model.load(folder).predict_proba(clip).tolist() for folder in folders]
    assert expected[0] != pytest.approx(expected[1], abs=1e-3)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", SCRIPT.format(absent=ABSENT), str(clip), *folders]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    present, answers, file = json.loads(done.stdout)
    assert present == []
    assert "site-packages" in file
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer == pytest.approx(wanted, abs=1e-5)
