from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from seral import storage
from seral.errors import OptionError, StateError
from seral.models.options import PredictOptions
from seral.models.prediction import model_folder, predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.training.options import SupervisedOptions
from seral.training.supervised import run_train


@pytest.fixture
def values(run_values: dict[str, Any]) -> dict[str, Any]:
    """Two folds with one seed. Speakers keep their means: those of the whole pool, with its junk, are others than those
    of what is trained on."""
    finetune = {"adapter": "frozen", "head": {"normalise": "none"}}
    return {name: value for name, value in run_values.items() if name != "budget"} | {
        "folds": [0, 1],
        "finetune": finetune,
    }


def cells_of(values: dict[str, Any]) -> dict[str, Any]:
    return {path.name: storage.read_json(path) for path in sorted(Path(values["run"]).glob("cells/*.json"))}


@pytest.mark.ray
def test_every_fold_gets_a_model_tested_on_speakers_it_has_not_heard(values: dict[str, Any], tmp_path: Path) -> None:
    text = run_train(parse(SupervisedOptions, values))
    cells = cells_of(values)
    assert list(cells) == ["frozen.fold-00.seed-0.json", "frozen.fold-01.seed-0.json"]
    assert f"{100 * np.mean([cell['uar'] for cell in cells.values()]):.1f}" in text
    assert pd.read_csv(Path(values["run"]) / "table.csv").loc[0, "cells"] == 2
    pool = pq.read_table(str(Path(values["pool"]) / "utterances")).to_pandas().set_index("utterance_id")
    speakers = [set(pool.loc[list(cell["predicted"]), "speaker"]) for cell in cells.values()]
    assert not speakers[0] & speakers[1]
    # The best on dev predicts, and says of a clip what it said in its test.
    best = max(cells.values(), key=lambda cell: cell["dev"])
    out = str(tmp_path / "predicted.parquet")
    summary = predict(parse(PredictOptions, {"run": values["run"], "source": [values["pool"]], "out": out}))
    assert summary["model"].endswith(best["model"])
    table = pd.read_parquet(out).set_index("utterance_id")
    tested = pd.DataFrame(best["predicted"], index=values["classes"]).T
    shown = table.loc[tested.index, [f"p_{name}" for name in values["classes"]]]
    assert np.abs(shown.to_numpy() - tested.to_numpy()).max() < 2e-3
    # The same in a folder, a file a shard; what is there already is not touched.
    folder = tmp_path / "predicted"
    options = parse(PredictOptions, {"run": values["run"], "source": [values["pool"]], "out": str(folder)})
    assert predict(options)["rows"] == len(table)
    names = [f"{shard}.parquet" for shard in open_pool(values["pool"]).shards]
    assert [path.name for path in sorted(tmp_path.rglob("*.parquet"))] == [*sorted(names), "predicted.parquet"]
    parts = pd.read_parquet(folder).set_index("utterance_id").sort_index()
    pd.testing.assert_frame_equal(parts, table)
    with pytest.raises(OptionError, match=r"something at .*predicted already"):
        predict(options)
    with pytest.raises(OptionError, match=r"ends in \.parquet"):
        predict(options.model_copy(update={"source": [__file__]}))


@pytest.mark.ray
def test_a_training_goes_on_where_it_was_and_takes_further_seeds(values: dict[str, Any]) -> None:
    run_train(parse(SupervisedOptions, values))
    before = cells_of(values)
    lost = Path(values["run"]) / "cells" / "frozen.fold-01.seed-0.json"
    lost.unlink()
    run_train(parse(SupervisedOptions, values | {"seeds": [0, 1]}))
    after = cells_of(values)
    assert len(after) == 4
    assert {name: after[name]["predicted"] for name in before} == {n: cell["predicted"] for n, cell in before.items()}
    with pytest.raises(StateError, match="other options"):
        run_train(parse(SupervisedOptions, values | {"classes": ["anger", "sadness"]}))


@pytest.mark.ray
def test_ratings_are_learnt_and_predicted_beside_classes(values: dict[str, Any], tmp_path: Path) -> None:
    text = run_train(parse(SupervisedOptions, values | {"dimensions": ["valence", "arousal"], "folds": [0]}))
    cell = next(iter(cells_of(values).values()))
    assert {"uar", "ccc", "probe_uar", "probe_ccc"} <= set(cell)
    assert "ccc" in text
    out = str(tmp_path / "predicted.parquet")
    predict(parse(PredictOptions, {"run": values["run"], "source": [values["pool"]], "out": out}))
    table, tested = pd.read_parquet(out).set_index("utterance_id"), cell["predicted"]
    columns = [*(f"p_{name}" for name in values["classes"]), "valence", "arousal"]
    shown = table.loc[list(tested), columns].to_numpy()
    assert np.abs(shown - np.array(list(tested.values()))).max() < 5e-3
    assert table["predicted"].isin(values["classes"]).all()


def test_without_a_model_prediction_says_what_to_do(values: dict[str, Any]) -> None:
    models = Path(values["run"]) / "models" / "fold-00.seed-0"
    models.mkdir(parents=True)
    with pytest.raises(StateError, match=r"no training of .* has come to its end"):
        model_folder(values["run"])
