"""A transfer of labels to a pool without any: no label of it is read, what was done stays, a loop starts from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from seral import storage
from seral.errors import OptionError
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.models.options import PredictOptions
from seral.models.prediction import predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.report.report import write_run_report
from seral.task.gold import Oracle
from seral.training.options import TransferOptions
from seral.training.transfer import run_transfer

CLASSES = ["anger", "happiness", "neutral", "sadness"]


def values_of(pool: str, run: Path, **changes: Any) -> dict[str, Any]:
    sources = [{"pool": pool, "corpora": ["acted"]}]
    return {"pool": pool, "run": str(run), "corpora": ["natural"], "sources": sources, "classes": CLASSES} | changes


def predictions(run: Path) -> dict[str, dict[str, Any]]:
    files = sorted((run / "predictions").glob("*.parquet"))
    return {row["utterance_id"]: row for file in files for row in pq.read_table(file).to_pylist()}


@pytest.mark.ray
def test_it_predicts_the_target_and_reads_labels_of_the_source_alone(
    two_corpora: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = set[str]()
    targets = Oracle.targets
    monkeypatch.setattr(Oracle, "targets", lambda self, ids: read.update(ids) or targets(self, ids))
    text = run_transfer(parse(TransferOptions, values_of(two_corpora, tmp_path / "run")))
    metadata = open_pool(two_corpora).metadata
    corpus = dict(zip(*(metadata[name].to_pylist() for name in ("utterance_id", "corpus")), strict=True))
    assert {corpus[name] for name in read} == {"acted"}
    rows = predictions(tmp_path / "run")
    assert {corpus[name] for name in rows} == {"natural"}
    shares = {name: np.mean([row["predicted"] == name for row in rows.values()]) for name in CLASSES}
    facts = storage.read_json(tmp_path / "run/transfer.json")
    assert facts["class_shares"] == pytest.approx(shares, abs=1e-3)
    assert facts["expected_uar"]["mean"] is None, "one corpus has no other"
    for row in rows.values():
        shares_C = [row[f"p_{name}"] for name in CLASSES]
        assert sum(shares_C) == pytest.approx(1, abs=1e-4)
        assert row["confidence"] == pytest.approx(max(shares_C))
        assert row["predicted"] == CLASSES[int(np.argmax(shares_C))]
    assert f"{len(rows)} clips by" in text
    assert (tmp_path / "run/table.png").stat().st_size > 1000


@pytest.mark.ray
def test_a_run_goes_on_where_it_stopped_and_predict_takes_its_model(two_corpora: str, tmp_path: Path) -> None:
    values = values_of(two_corpora, tmp_path / "run", head={"normalise": "none"})
    run_transfer(parse(TransferOptions, values))
    before = predictions(tmp_path / "run")
    model = tmp_path / "run/models/none/model/head.safetensors"
    made = model.stat().st_mtime_ns
    next((tmp_path / "run/predictions").glob("*.parquet")).unlink()
    run_transfer(parse(TransferOptions, values))
    assert predictions(tmp_path / "run") == before
    assert model.stat().st_mtime_ns == made
    out = str(tmp_path / "out.parquet")
    predict(parse(PredictOptions, {"run": values["run"], "source": [two_corpora], "out": out}))
    by_predict = {row["utterance_id"]: row for row in pq.read_table(out).to_pylist()}
    for name, row in before.items():  # one source corpus: temperature 1
        assert by_predict[name]["p_anger"] == pytest.approx(row["p_anger"], abs=0.02)
    facts = storage.read_json(tmp_path / "run/models/source.json")
    facts["models"]["none"]["temperature"] = 2.0
    storage.write_json(tmp_path / "run/models/source.json", facts)
    predict(parse(PredictOptions, {"run": values["run"], "source": [two_corpora], "out": out}))
    for row in pq.read_table(out).to_pylist():
        root_C = np.sqrt([by_predict[row["utterance_id"]][f"p_{name}"] for name in CLASSES])
        assert [row[f"p_{name}"] for name in CLASSES] == pytest.approx(root_C / root_C.sum(), abs=1e-5)


@pytest.mark.ray
def test_a_source_may_lie_in_another_pool(two_corpora: str, tmp_path: Path) -> None:
    shutil.copytree(two_corpora, tmp_path / "other")
    there = [{"pool": str(tmp_path / "other"), "corpora": ["acted"]}]
    run_transfer(parse(TransferOptions, values_of(two_corpora, tmp_path / "there", sources=there)))
    run_transfer(parse(TransferOptions, values_of(two_corpora, tmp_path / "here")))
    assert predictions(tmp_path / "there") == predictions(tmp_path / "here")


@pytest.mark.ray
@pytest.mark.slow
def test_a_loop_starts_from_it(two_corpora: str, tmp_path: Path) -> None:
    run_transfer(parse(TransferOptions, values_of(two_corpora, tmp_path / "source")))
    values = {
        "pool": two_corpora,
        "run": str(tmp_path / "run"),
        "classes": CLASSES,
        "corpora": ["natural"],
        "prior": str(tmp_path / "source"),
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "budget": {"sizes": [2, 12]},
        "full_arm": False,
    }
    run = Path(run_loop(parse(LoopOptions, values)))
    without = storage.read_json(run / "folds/fold-00/source/metrics.json")
    uars = [
        storage.read_json(run / f"trajectories/random.fold-00.seed-0/rounds/{n:04d}/metrics.json")["test"]["uar"]
        for n in range(2)
    ]
    assert abs(uars[0] - without["uar"]) < 0.25, "two labels change little"
    assert "other corpora, no label" in Path(write_run_report(str(run))).read_text()
    with pytest.raises(
        OptionError, match="tells anger, happiness, neutral, sadness apart, and this run anger, sadness"
    ):
        run_loop(parse(LoopOptions, values | {"run": str(tmp_path / "wrong"), "classes": ["anger", "sadness"]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["anger"]}, "at least two classes"),
        ({"dimensions": ["valence"]}, "learns classes: name at least two, and no dimensions"),
        ({"head": {"hidden": 4}}, "fits linear heads, got head.hidden=4"),
        ({"sources": []}, "sources"),
    ],
)
def test_what_cannot_be_transferred_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(TransferOptions, values_of("p", Path("r")) | change)


@pytest.mark.ray
def test_a_corpus_on_both_sides_and_a_pool_without_target_are_refused(two_corpora: str, tmp_path: Path) -> None:
    both = values_of(two_corpora, tmp_path / "both", corpora=["acted", "natural"])
    with pytest.raises(OptionError, match=r"acted of .* is target and source; choose one"):
        run_transfer(parse(TransferOptions, both))
    everything = values_of(two_corpora, tmp_path / "all", corpora=None, sources=[{"pool": two_corpora}])
    with pytest.raises(OptionError, match="name those that are the target with corpora"):
        run_transfer(parse(TransferOptions, everything))
