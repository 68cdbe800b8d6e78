"""A run's model, exported by the command's function, says of clips what `seral predict` says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from transformers import pipeline

from ser_models.inference import Model
from seral.errors import OptionError
from seral.models.export import export_model
from seral.models.options import ExportOptions, PredictOptions
from seral.models.prediction import model_folder, predict
from seral.options import parse
from seral.training.options import SupervisedOptions
from seral.training.supervised import run_train


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    files = [folder / f"{number}.wav" for number in range(3)]
    for file, seconds in zip(files, (0.5, 1.0, 1.7), strict=True):
        sf.write(file, 0.1 * rng.standard_normal(int(16_000 * seconds)), 16_000)
    return files


def check_other_tables(run: str, clips: list[Path], rows: list[dict[str, Any]], folder: Path) -> None:
    """The suffix says the kind of table; without one the rows come back."""
    source = [str(file) for file in clips]
    printed = predict(parse(PredictOptions, {"run": run, "source": source}))
    assert printed["predictions"] == rows
    for suffix in ("csv", "jsonl"):
        predict(parse(PredictOptions, {"run": run, "source": source, "out": str(folder / f"p.{suffix}")}))
    assert [json.loads(line) for line in (folder / "p.jsonl").read_text().splitlines()] == rows
    pd.testing.assert_frame_equal(pd.read_csv(folder / "p.csv"), pd.DataFrame(rows).astype({"error": float}))
    with pytest.raises(OptionError, match=r"ends in \.parquet, \.csv, \.jsonl"):
        predict(parse(PredictOptions, {"run": run, "source": source, "out": str(folder / "p.txt")}))


@pytest.mark.ray
def test_an_export_of_a_run_says_what_predict_says(
    run_values: dict[str, Any], tmp_path: Path, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    keys = {*run_values} & {*SupervisedOptions.model_fields}
    one = {"folds": [0], "seeds": [0], "finetune": {"adapter": "frozen", "head": {"normalise": "none"}}}
    run_train(parse(SupervisedOptions, {name: run_values[name] for name in keys} | one))
    run = run_values["run"]
    (Path(run) / "README.md").write_text("# A card\n")
    table = tmp_path / "predictions.parquet"
    predict(parse(PredictOptions, {"run": run, "source": [str(file) for file in clips], "out": str(table)}))
    rows = pq.read_table(table).to_pylist()
    check_other_tables(run, clips, rows, tmp_path)
    out = tmp_path / "export"
    export_model(parse(ExportOptions, {"run": run, "format": "hf", "out": str(out)}))
    assert (out / "README.md").read_text() == "# A card\n"
    listen = pipeline("audio-classification", model=str(out), trust_remote_code=True, top_k=None)
    for row, clip in zip(rows, clips, strict=True):
        wave_S, _ = sf.read(clip, dtype="float32")
        answer = {entry["label"]: entry["score"] for entry in listen({"raw": wave_S, "sampling_rate": 16_000})}
        assert answer == pytest.approx({name: row[f"p_{name}"] for name in answer}, abs=1e-4)
    trained = Model.load(model_folder(str(run)))
    share_NC = np.array([[row[f"p_{name}"] for name in trained.classes] for row in rows])
    np.testing.assert_allclose(trained.predict_proba(clips), share_NC, atol=1e-4)
    with pytest.raises(OptionError, match="there is something at"):
        export_model(parse(ExportOptions, {"run": run, "out": str(out)}))
    with pytest.raises(OptionError, match=r"format=peft: .*take hf, onnx or torch-export"):
        export_model(parse(ExportOptions, {"run": run, "format": "peft", "out": str(tmp_path / "peft")}))
