"""Runs on features that were computed elsewhere: those of an encoder's own cache have to end in its numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from seral import storage
from seral.errors import OptionError
from seral.features.audio import extract_features
from seral.features.ingest import import_features
from seral.features.options import ImportFeaturesOptions
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.models.export import export_model
from seral.models.fit import fit_final
from seral.models.options import ExportOptions, FinalOptions, PredictOptions, ServeOptions
from seral.models.prediction import predict
from seral.models.serve import open_model
from seral.options import Options, parse
from seral.pool.shards import open_pool
from seral.pretraining.distillation import distil
from seral.pretraining.options import DistilOptions, TaptJobOptions
from seral.pretraining.tapt import pretrain
from seral.report.options import ReportOptions
from seral.studies.compare import run_compare
from seral.studies.layer_options import ProbeOptions, RelevanceOptions, SimilarityOptions
from seral.studies.layer_probe import probe_layers
from seral.studies.layer_relevance import run_relevance
from seral.studies.layer_similarity import compare_layers
from seral.studies.options import CompareOptions
from seral.sweep.plan import SweepOptions
from seral.sweep.run import run_sweep
from seral.training.adaptation import run_adapt
from seral.training.options import AdaptOptions, SupervisedOptions
from seral.training.supervised import run_train
from seral.verbs import VERBS
from seral.verbs.check_run import check_run
from seral.verbs.doctor import examine

pytestmark = pytest.mark.ray
MAKER = "somewhere/else"


@pytest.fixture(scope="module")
def table(speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Means and standard deviations of every state of seral-tiny, of every clip of the pool."""
    store = extract_features(open_pool(speech_pool), "seral-tiny")
    ids, mean_NLD, std_NLD = store.pooled()
    file = tmp_path_factory.mktemp("elsewhere") / "tiny.parquet"
    columns = {"mean": mean_NLD, "std": std_NLD}
    lists = {name: pa.array(values.astype(np.float32).tolist()) for name, values in columns.items()}
    pq.write_table(pa.table({"utterance_id": ids} | lists), file)
    return str(file)


def brought_in(table: str, pool: str, out: Path, made_by: str = MAKER) -> str:
    values = {"tables": [table], "pools": [pool], "made_by": made_by, "out": str(out)}
    return str(import_features(parse(ImportFeaturesOptions, values))["encoder"])


@pytest.fixture(scope="module")
def features(table: str, speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of these features."""
    return brought_in(table, speech_pool, tmp_path_factory.mktemp("folder") / "tiny")


def test_a_loop_ends_in_the_numbers_of_the_encoder_itself(
    run_values: dict[str, Any], features: str, tmp_path: Path
) -> None:
    """Picks, reasons, labels, predictions and metrics, byte for byte."""
    strategy = {"strategy": {"name": "badge"}, "others": [{"name": "margin"}]}
    runs = {"seral-tiny": tmp_path / "own", features: tmp_path / "elsewhere"}
    for encoder, run in runs.items():
        run_loop(parse(LoopOptions, run_values | strategy | {"encoder": encoder, "run": str(run)}))
    own, elsewhere = (
        {name: Path(run, "trajectories", name) for name in storage.list_files(run / "trajectories")}
        for run in runs.values()
    )
    assert own.keys() == elsewhere.keys()
    alike = ("picks.parquet", "labels.parquet", "reasons.parquet", "metrics.json", "test.parquet", "dev.parquet")
    compared = [name for name in own if name.endswith(alike)]
    assert len(compared) > 30
    assert [name for name in compared if own[name].read_bytes() != elsewhere[name].read_bytes()] == []
    VERBS["report"].call(parse(ReportOptions, {"run": str(runs[features])}))
    assert (runs[features] / "report" / "index.html").is_file()


def test_a_training_a_final_model_and_its_predictions_are_those_of_the_encoder_itself(
    run_values: dict[str, Any], features: str, table: str, speech_pool: str, tmp_path: Path
) -> None:
    values = {name: value for name, value in run_values.items() if name != "budget"} | {"folds": [0, 1]}
    predicted = []
    for encoder, name in (("seral-tiny", "own"), (features, "elsewhere")):
        run = str(tmp_path / name)
        run_train(parse(SupervisedOptions, values | {"encoder": encoder, "run": run}))
        fit_final(parse(FinalOptions, {"of": run, "run": f"{run}-final"}))
        out = f"{run}.parquet"
        predict(parse(PredictOptions, {"run": f"{run}-final", "source": [speech_pool], "out": out}))
        predicted.append(pq.read_table(out).to_pandas())
    for cell in storage.list_names(tmp_path / "own" / "cells"):
        own, elsewhere = ((tmp_path / name / "cells" / cell).read_text() for name in ("own", "elsewhere"))
        assert own == elsewhere
    own, elsewhere = predicted
    assert (own["utterance_id"] == elsewhere["utterance_id"]).all()
    assert (own["predicted"] == elsewhere["predicted"]).mean() == 1
    numbers = [name for name in own.columns if name.startswith("p_")]
    np.testing.assert_allclose(own[numbers], elsewhere[numbers], atol=5e-3)  # the one listens, in single precision
    card = (tmp_path / "elsewhere-final" / "README.md").read_text()
    assert f"| encoder | {MAKER} |" in card
    assert "It does not listen" in card
    own_card = (tmp_path / "own-final" / "README.md").read_text()
    assert "It does not listen" not in own_card

    # Features of a pool that the model has not met come in a folder of their own.
    final = str(tmp_path / "elsewhere-final")
    other = brought_in(table, speech_pool, tmp_path / "other")
    out = str(tmp_path / "again.parquet")
    predict(parse(PredictOptions, {"run": final, "source": [speech_pool], "encoder": {"features": other}, "out": out}))
    assert pq.read_table(out).to_pandas().equals(elsewhere)
    plan = VERBS["predict"].foresee(parse(PredictOptions, {"run": final, "source": [speech_pool], "out": out}))
    assert plan["rests on"].startswith("one batch of features")
    foreign = brought_in(table, speech_pool, tmp_path / "foreign", "someone/else")
    refused: list[tuple[dict[str, Any], str]] = [
        ({"source": [str(tmp_path)]}, r"does not listen: import the files as a pool, .* --set encoder=FOLDER"),
        (
            {"source": [speech_pool], "out": out, "encoder": foreign},
            "of someone/else; the model reads 5 x 192 features",
        ),
        ({"source": [speech_pool], "out": out, "encoder": "seral-tiny"}, "seral-tiny is no folder of features"),
    ]
    for options, words in refused:
        with pytest.raises(OptionError, match=words):
            predict(parse(PredictOptions, {"run": final, **options}))
    of_own = {"run": str(tmp_path / "own-final"), "source": [speech_pool], "out": out}
    with pytest.raises(OptionError, match="the model listens by seral-tiny, and reads no others' features"):
        predict(parse(PredictOptions, of_own | {"encoder": other}))
    for form in ("hf", "onnx", "torch-export"):
        with pytest.raises(OptionError, match="holds features that were computed elsewhere, and no network"):
            export_model(parse(ExportOptions, {"run": final, "format": form, "out": str(tmp_path / form)}))
    with pytest.raises(OptionError, match="serving needs a network"):
        open_model(parse(ServeOptions, {"model": final}))


@pytest.mark.parametrize("layers", ["sum", "last"])
def test_embeddings_alone_are_enough(
    run_values: dict[str, Any], table: str, speech_pool: str, tmp_path: Path, layers: str
) -> None:
    """One state without deviations: a head learns from it, better than chance."""
    rows = pq.read_table(table).to_pylist()
    columns = {"id": [row["utterance_id"] for row in rows], "embedding": [row["mean"][-1] for row in rows]}
    pq.write_table(pa.table(columns), tmp_path / "last.parquet")
    folder = brought_in(str(tmp_path / "last.parquet"), speech_pool, tmp_path / "last")
    finetune = {"finetune": {"head": {"layers": layers}}}
    run_loop(parse(LoopOptions, run_values | finetune | {"encoder": folder}))
    rounds = sorted(Path(run_values["run"]).glob("trajectories/*/rounds/*/metrics.json"))
    uars = [storage.read_json(file)["test"]["uar"] for file in rounds]
    assert np.isfinite(uars).all()
    assert max(uars) > 0.4


TASK: dict[str, Any] = {"classes": ["anger", "happiness", "neutral", "sadness"]}
LORA = {"adapter": "lora"}
ARRANGED = {"split": {"scheme": "k-fold", "k": 3}, "folds": [0], "seeds": [0]}
REFUSED: dict[str, tuple[type[Options], Callable[[Any], object], dict[str, Any], str]] = {
    "loop": (LoopOptions, run_loop, TASK | {"finetune": LORA}, "finetune.adapter=lora"),
    "tapt": (LoopOptions, run_loop, TASK | {"tapt": {}}, "tapt"),
    "train": (SupervisedOptions, run_train, TASK | {"finetune": LORA}, "finetune.adapter=lora"),
    "augment": (
        SupervisedOptions,
        run_train,
        TASK | {"finetune": {"augment": {"gain_db": [-6, 6]}}},
        "finetune.augment",
    ),
    "variants": (SupervisedOptions, run_train, TASK | {"variants": {"noisy": "x"}}, "variants"),
    "compare": (
        CompareOptions,
        run_compare,
        TASK | {"rows": [{"name": "a"}, {"name": "b", "finetune": LORA}]},
        "finetune.adapter=lora of the row 'b'",
    ),
    "adapt": (AdaptOptions, run_adapt, TASK, "adapter=lora"),
    "pretrain": (TaptJobOptions, pretrain, {}, "a pretraining"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_a_network_is_refused_before_any_work(
    speech_pool: str, features: str, tmp_path: Path, case: str
) -> None:
    model, call, values, what = REFUSED[case]
    options = parse(model, {"pool": speech_pool, "run": str(tmp_path / "run"), "encoder": features, **values})
    with pytest.raises(OptionError, match=f"^{what} needs a network: .* holds features that were computed elsewhere"):
        call(options)
    assert not (tmp_path / "run").exists()


def test_other_commands_that_listen_are_refused_too(speech_pool: str, features: str, tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    with pytest.raises(OptionError, match="a teacher needs a network"):
        distil(parse(DistilOptions, {"teacher": features, "pools": [speech_pool], "run": run}))
    with pytest.raises(OptionError, match="a probe, which measures speed too, needs a network"):
        probe_layers(parse(ProbeOptions, {"pool": speech_pool, "encoders": [features], "run": run, **TASK}))
    training = {"pool": speech_pool, "encoder": features, **TASK, **ARRANGED}
    space = {"finetune.adapter": ["frozen", "lora"]}
    with pytest.raises(OptionError, match=r"finetune\.adapter=lora needs a network"):
        run_sweep(parse(SweepOptions, {"run": run, "training": training, "space": space, "trials": 2}))
    assert not Path(run).exists()


def test_studies_of_features_take_the_folder(speech_pool: str, features: str, tmp_path: Path) -> None:
    """A comparison of heads, the relevance of states, and how alike they are, as with the encoder itself."""
    rows = [{"name": "sum"}, {"name": "last", "finetune": {"head": {"layers": "last"}}}]
    studies: dict[str, tuple[type[Options], Callable[[Any], object], dict[str, Any]]] = {
        "compare": (CompareOptions, run_compare, TASK | ARRANGED | {"rows": rows}),
        "relevance": (RelevanceOptions, run_relevance, TASK | ARRANGED),
        "similarity": (SimilarityOptions, compare_layers, {"measures": ["coral"]}),
    }
    for name, (model, call, values) in studies.items():
        shared = {"pool": speech_pool, **values}
        tables = [
            call(parse(model, shared | {"run": str(tmp_path / f"{name}-{number}"), "encoder": encoder}))
            for number, encoder in enumerate(["seral-tiny", {"features": features}])
        ]
        if name == "compare":
            cells = [
                {file.name: json.loads(file.read_text()) for file in (tmp_path / f"{name}-{n}" / "cells").iterdir()}
                for n in (0, 1)
            ]
            assert [cell["uar"] for cell in cells[0].values()] == [cell["uar"] for cell in cells[1].values()]
        else:
            assert tables[0] == tables[1], name


def test_the_doctor_looks_at_the_folder(run_values: dict[str, Any], features: str, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(run_values | {"encoder": {"features": features}}))
    findings = {finding.subject: finding for finding in examine(config)}
    assert findings["encoder tiny"].detail == f"features of {MAKER}, 5 states x 192, no network"
    assert findings["adapter liveness"].detail.startswith("none: features were computed elsewhere")
    assert findings["room and time"].ok


def test_the_check_of_a_run_reads_its_features(
    run_values: dict[str, Any], table: str, speech_pool: str, tmp_path: Path
) -> None:
    folder = brought_in(table, speech_pool, tmp_path / "own")
    values = {name: value for name, value in run_values.items() if name != "budget"}
    run_train(parse(SupervisedOptions, values | {"encoder": folder}))
    assert check_run(values["run"]).problems == []
    file = next(Path(folder, "pooled").iterdir())
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert [str(file) in problem for problem in check_run(values["run"]).problems] == [True]


def test_a_plan_counts_no_encoding(run_values: dict[str, Any], features: str) -> None:
    plan = VERBS["loop"].foresee(parse(LoopOptions, run_values | {"encoder": features}))
    assert "features" not in plan["takes"]


@pytest.mark.slow
def test_a_sweep_over_heads_takes_the_folder(features: str, speech_pool: str, tmp_path: Path) -> None:
    training = {"pool": speech_pool, "encoder": features, **TASK, **ARRANGED}
    space = {"finetune.head.l2": [0.01, 0.1]}
    options = {"run": str(tmp_path / "s"), "training": training, "space": space, "trials": 2, "search": "grid"}
    assert "finetune.head.l2" in run_sweep(parse(SweepOptions, options))
