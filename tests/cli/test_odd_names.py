"""Every command in folders whose names have something in them that somebody's parser takes for its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seral import cli
from seral.labels.ledger import Ledger
from seral.labels.records import Project

pytestmark = [pytest.mark.ray, pytest.mark.slow]
ODD = {
    "all at once": "-b lank\nümläut é日 'q' \"d\" #a?s%h%20&p+l=us[x]{y}$HOME`z`;,@:~\\!",
    "as long as may be": "l" * 240,
}
CLASSES = ["anger", "happiness", "neutral", "sadness"]
TASK = {"encoder": "seral-tiny", "classes": CLASSES, "split": {"scheme": "k-fold", "k": 3}, "folds": [0], "seeds": [0]}
FROZEN = {"finetune": {"adapter": "frozen"}}


def run(*words: str) -> str:
    done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    if done.exception is not None:
        raise AssertionError(f"{words}: {done.output[-2000:]}") from done.exception
    return done.output


@pytest.fixture(scope="module")
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_corpus: Callable[..., Path]
) -> Path:
    odd = tmp_path_factory.mktemp("odd") / ODD[request.param]
    odd.mkdir()
    make_corpus(odd / "corpus", 48, speakers=6, seconds=(0.6, 1.0))
    return odd


def config(folder: Path, name: str, values: dict[str, Any]) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(values))
    return str(path)


def of_pools(folder: Path) -> Iterator[list[str]]:
    pool, other = str(folder / "pool"), str(folder / "other")
    yield ["pool", "import", "manifest", str(folder / "corpus"), "--out", pool]
    yield ["pool", "audit", "manifest", str(folder / "corpus")]
    yield ["pool", "stats", pool, "--html", str(folder / "page.html")]
    yield ["pool", "snapshot", pool, "march"]
    yield ["pool", "filter", f"{pool}@march", "--where", "speaker == s1", "--out", other]
    yield ["pool", "sample", pool, "--count", "5", "--out", str(folder / "sample")]
    yield ["pool", "merge", other, "--out", str(folder / "merged")]
    yield ["pool", "diff", pool, "march", "1"]
    yield ["pool", "repair", pool]
    yield ["features", pool]
    yield ["pool", "check", pool]


def of_runs(folder: Path) -> Iterator[list[str]]:
    pool, task = str(folder / "pool"), {**TASK, **FROZEN, "pool": str(folder / "pool")}
    loop = {**task, "run": str(folder / "loop"), "full_arm": False, "budget": {"sizes": [8, 12]}}
    yield ["loop", "run", config(folder, "loop", loop)]
    yield ["loop", "status", str(folder / "loop")]
    yield ["train", config(folder, "train", {**task, "run": str(folder / "train")})]
    space = {"finetune.head.l2": [0.03, 0.3]}
    sweep = {"run": str(folder / "sweep"), "training": task, "space": space, "search": "grid", "early_stopping": None}
    yield ["sweep", "run", config(folder, "sweep", sweep)]
    yield ["sweep", "best", str(folder / "sweep")]
    for name in ("loop", "sweep"):
        yield ["run", "check", str(folder / name)]
    yield ["report", str(folder / "loop")]
    yield ["predict", str(folder / "loop"), pool, "--out", str(folder / "predicted.parquet")]
    yield ["predict", str(folder / "loop"), str(folder / "corpus"), "--out", str(folder / "files.parquet")]
    steps = {"steps": 2, "batch_s": 10, "warmup_steps": 1, "checkpoint_every": 1, "eval_every": 2}
    settings = [part for name, value in steps.items() for part in ("--set", f"tapt.{name}={value}")]
    yield ["pretrain", pool, "--run", str(folder / "tapt"), "--set", "encoder=seral-tiny", *settings]


def of_labels(folder: Path) -> Iterator[list[str]]:
    ledger, pool = str(folder / "labels.sqlite"), str(folder / "pool")
    yield ["labels", "people", "add", ledger, "anna"]
    yield ["labels", "progress", ledger]
    yield ["labels", "export", ledger, "--out", str(folder / "answers.csv"), "--format", "csv", "--pool", pool]
    yield ["labels", "import", ledger, str(folder / "answers.csv"), "--format", "csv"]
    yield ["labels", "audit", ledger]


@pytest.mark.parametrize("folder", ODD, indirect=True)
def test_every_command(folder: Path, ray_session: None) -> None:
    for words in (*of_pools(folder), *of_runs(folder)):
        run(*words)
    Ledger.create(str(folder / "labels.sqlite"), Project(classes=tuple(CLASSES))).close()
    for words in of_labels(folder):
        run(*words)
    run("pool", "erase", str(folder / "pool"), "--speaker", "corpus/s1", "--run", str(folder / "loop"))
    beside = {path.name for path in folder.parent.iterdir()}
    assert beside == {folder.name}, "a part of the name was taken for something else"
