"""Pool, features, runs and sweeps on an object store: a real S3 server (moto's) and a Ray of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_server import environment, s3_server

SCRIPT = """
import json, sys
from seral import ImportOptions, LoopOptions, import_corpus, run_loop, write_run_report
from seral.loop.status import loop_status
from seral.cluster import ClusterOptions, connect
from seral.erase.erase import EraseOptions, erase
from seral.models.prediction import predict
from seral.models.options import PredictOptions
from seral.options import parse
from seral.pool.derive import SelectOptions, merge_pools, select_from_pool
from seral.pool.check import check_pool
from seral.pool.shards import open_pool
from seral.pool.snapshots import diff_revisions, summarise, take_snapshot
from seral.report.pool import PoolReportOptions, write_pool_report
from seral.storage import join, list_names, read_json, read_table
from seral.storage.files import WRITERS
from seral.sweep.plan import SweepOptions
from seral.sweep.run import run_sweep

corpus, root, local = sys.argv[1:4]
connect(ClusterOptions(cpus=2))
told = {}
for name, base in (("s3", root), ("disk", local)):
    pool = join(base, "pool")
    import_corpus(ImportOptions(reader="manifest", root=corpus, out=pool))
    assert check_pool(pool) == []
    values = json.loads(sys.argv[4]) | {"pool": pool}
    run = run_loop(parse(LoopOptions, values | {"run": join(base, "run")}))
    folders = [join(run, "trajectories", name) for name in list_names(join(run, "trajectories"))]
    rounds = [join(folder, "rounds", number) for folder in folders for number in list_names(join(folder, "rounds"))]
    write_run_report(run)
    predict(parse(PredictOptions, {"run": run, "source": [pool], "out": join(base, "predictions.parquet")}))
    training = {k: v for k, v in values.items() if k != "budget"}
    space = {"finetune.head.l2": [0.1, 1.0, 10.0]}
    sweep = {"run": join(base, "sweep"), "training": training, "space": space, "search": "grid", "early_stopping": None}
    run_sweep(parse(SweepOptions, sweep))
    page = write_pool_report(parse(PoolReportOptions, {"pool": pool, "out": join(base, "pool.html")}))
    part, all_of_it = join(base, "part"), join(base, "all")
    select_from_pool(parse(SelectOptions, {"pool": pool, "out": part, "count": 9, "by": "speaker"}))
    take_snapshot(pool, "whole")
    drawn = open_pool(part).column("speaker").to_pylist().count("s1")
    lasting = {
        "metrics": [read_json(join(folder, "metrics.json"))["test"]["uar"] for folder in rounds],
        "picks": [read_table(join(folder, "picks.parquet"))["utterance_id"].to_pylist() for folder in rounds],
    }
    gone = erase(parse(EraseOptions, {"pool": pool, "speaker": "corpus/s1", "also": [run, page]}))
    merged = merge_pools([pool, part], all_of_it)
    addresses = (pool, f"{pool}@whole", part, all_of_it)
    assert [check_pool(address) for address in addresses] == [[], [], [], []]
    told[name] = lasting | {
        "drawn": drawn,
        "rows": [open_pool(address).rows for address in addresses],
        "erased": [gone["rows"], [place["rows"] for place in gone["elsewhere"].values()]],
        "models": [len(place["models"]) for place in gone["elsewhere"].values()],
        "came": summarise(diff_revisions(pool, "0", "1"))["came"],
        "duplicates": merged["duplicates"],
        "status": [row["rounds"] for row in loop_status(run)],
        "predictions": read_table(join(base, "predictions.parquet"))["predicted"].to_pylist(),
        "files": sorted({*list_names(run)} - {WRITERS}),
        "sweep": sorted({*list_names(join(base, "sweep"))} - {WRITERS}),
        "tested": read_json(join(base, "sweep", "tested.json"))["gain"]["difference"],
    }
print(json.dumps(told))
"""

FEATURES = """
import sys
import pyarrow as pa
from seral import ImportOptions, import_corpus, open_pool
from seral.cluster import ClusterOptions, connect
from seral.erase.erase import EraseOptions, erase
from seral.features.audio import extract_features
from seral.features.ingest import import_features
from seral.features.options import ImportFeaturesOptions
from seral.storage import join, list_files, read_bytes, read_json, write_table
from seral.training.options import SupervisedOptions
from seral.training.supervised import run_train

corpus, root = sys.argv[1:3]
connect(ClusterOptions(cpus=2))
pool, table, folder = (join(root, name) for name in ("pool", "table.parquet", "features"))
import_corpus(ImportOptions(reader="manifest", root=corpus, out=pool))
ids, mean, std = extract_features(open_pool(pool), "seral-tiny").pooled()
columns = {"mean": mean.astype("f4").tolist(), "std": std.astype("f4").tolist()}
write_table(table, pa.table({"utterance_id": ids} | columns))
import_features(ImportFeaturesOptions(tables=[table], pools=[pool], made_by="else", out=folder))
uars = []
for number, encoder in enumerate(("seral-tiny", folder)):
    values = {"pool": pool, "run": join(root, str(number)), "encoder": encoder, "folds": [0], "seeds": [0]}
    classes = ["anger", "happiness", "neutral", "sadness"]
    run_train(SupervisedOptions(classes=classes, split={"scheme": "k-fold", "k": 3}, **values))
    cells = [name for name in list_files(join(values["run"], "cells")) if name.endswith(".json")]
    uars.append([read_json(join(values["run"], "cells", name))["uar"] for name in cells])
assert uars[0] == uars[1] and uars[0], uars
gone = erase(EraseOptions(pool=pool, utterance=ids[0]))
assert gone["elsewhere"][folder]["rows"], gone
assert not any(ids[0].encode() in read_bytes(join(folder, name)) for name in list_files(folder))
"""


@pytest.fixture
def object_store() -> Iterator[dict[str, str]]:
    """Environment variables that lead to an S3 server with the bucket `speech`."""
    with s3_server() as door:
        yield environment(door)


@pytest.mark.slow
def test_pool_run_and_sweep_on_an_object_store_are_those_on_a_disk(
    object_store: dict[str, str], make_corpus: Callable[..., Path], run_values: dict[str, Any], tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "corpus", 60, speakers=6)
    values = {name: value for name, value in run_values.items() if name not in ("pool", "run")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(corpus), "s3://speech/deep", str(tmp_path / "disk"), json.dumps(values)],
        env={**os.environ, **object_store},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads(done.stdout.strip().splitlines()[-1])
    assert results["s3"]["status"] == results["disk"]["status"]
    assert len(results["s3"]["metrics"]) >= 7
    part = 9 - results["s3"]["drawn"]
    assert results["s3"]["rows"] == [50, 50, part, 50], "ten of sixty were one speaker's, and what was erased stays out"
    assert part < 9, "also of a pool that was made of it"
    assert results["s3"] == results["disk"]


@pytest.mark.slow
def test_features_that_were_computed_elsewhere_may_lie_in_an_object_store(
    object_store: dict[str, str], make_corpus: Callable[..., Path], tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "corpus", 60, speakers=6)
    done = subprocess.run(
        [sys.executable, "-c", FEATURES, str(corpus), "s3://speech/elsewhere"],
        env={**os.environ, **object_store},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
