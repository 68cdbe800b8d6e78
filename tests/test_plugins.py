"""Packages of others. That of docs/plugins.md, installed and used: by name in a loop, a sweep and a survey, and by its
module. And one with parts of every other kind (tests/plugged), in the commands that take them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seral import storage

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
CLASSES = ["anger", "happiness", "neutral", "sadness"]
Seral = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the package, as the page writes it."""
    folder = tmp_path_factory.mktemp("package")
    for path, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return folder / "seral-mine"


def seral(*words: str, cwd: Path, path: Path | None = None, ok: bool = True) -> str:
    paths = [str(path), *sys.path] if path else sys.path
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(item for item in paths if item)}
    command = [sys.executable, "-P", "-c", "from seral.cli import main; main()", *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def loop(pool: str, run: Path, strategy: str) -> dict[str, Any]:
    task: dict[str, Any] = {"pool": pool, "run": str(run), "encoder": "seral-tiny", "classes": CLASSES, "seeds": [0]}
    task |= {"split": {"scheme": "k-fold", "k": 3}, "folds": [0], "full_arm": False, "random_arm": False}
    task |= {"finetune": {"adapter": "frozen"}, "budget": {"sizes": [8, 12]}, "cluster": {"cpus": 2}}
    return task | {"strategy": {"name": strategy, "power": 2.0}}


@pytest.mark.slow
def test_an_installed_package_is_used_in_a_loop_a_sweep_and_a_survey(
    speech_pool: str, package: Path, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *words, str(package)], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(package)]
    tested = subprocess.run(tests, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "2 passed" in tested.stdout, tested.stdout
    listed = seral("strategies", cwd=tmp_path, path=site)
    assert "outskirts(power=1.0)" in listed
    (tmp_path / "loop.json").write_text(json.dumps(loop(speech_pool, tmp_path / "run", "outskirts")))
    seral("loop", "run", "loop.json", cwd=tmp_path, path=site)
    metrics = storage.read_json(tmp_path / "run/trajectories/outskirts.fold-00.seed-0/rounds/0001/metrics.json")
    assert 0 <= metrics["test"]["worst_recall"] <= metrics["test"]["uar"]
    trial = loop(speech_pool, tmp_path / "unused", "random") | {"strategy": "random"}
    del trial["run"]
    sweep = {"run": str(tmp_path / "sweep"), "loop": trial, "space": {"strategy.name": ["outskirts", "random"]}}
    (tmp_path / "sweep.json").write_text(json.dumps(sweep | {"search": "grid", "early_stopping": None}))
    board = seral("sweep", "run", "sweep.json", cwd=tmp_path, path=site)
    assert re.search(r"done .*outskirts", board)
    study = {"pool": speech_pool, "seeds": [0], "budgets": [0.1, 0.3], "rows": [{"name": "outskirts", "power": 2.0}]}
    survey = {"run": str(tmp_path / "survey"), "encoders": ["seral-tiny"], "study": study | {"cluster": {"cpus": 2}}}
    (tmp_path / "survey.json").write_text(
        json.dumps(survey | {"pools": {"a": {"corpora": ["demo"], "classes": CLASSES}}})
    )
    assert re.search(
        r"outskirts .*0/1|outskirts .*1/1", seral("strategy-survey", "survey.json", cwd=tmp_path, path=site)
    )
    assert "unknown strategy 'outskirts'" in seral("loop", "run", "loop.json", cwd=tmp_path, ok=False)


@pytest.mark.slow
def test_a_function_is_named_by_its_module_and_by_nobody_else(speech_pool: str, package: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(loop(speech_pool, tmp_path / "run", "random") | {"strategy": "random"}))
    strategy, metrics, *_ = re.findall(
        r"^seral loop run config.yaml (--set .+)$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    words = [str(config), *strategy.split(), *metrics.split()]  # as the page writes them
    printed = seral("loop", "run", *words, cwd=package)
    assert re.search(r"seral_mine:WORST_RECALL +seral_mine:WORST_RECALL 95 %", printed)
    for name in ("headline", "costs", "groups", "rounds"):
        table = (tmp_path / "run" / "report" / f"{name}.csv").read_text()
        assert "seral_mine:WORST_RECALL" in table.partition("\n")[0], name
    page = (tmp_path / "run" / "report" / "index.html").read_text(encoding="utf-8")
    assert ">seral_mine:WORST_RECALL<" in page
    (listed,) = json.loads(seral("runs", "ls", str(tmp_path / "run"), "--json", cwd=package))
    assert 0 <= listed["seral_mine:WORST_RECALL"] <= 1
    (first,) = tmp_path.glob("run/trajectories/*/rounds/0000/metrics.json")
    scores = json.loads(first.read_text())["test"]
    assert 0 <= scores["seral_mine:WORST_RECALL"] <= scores["uar"]
    assert (tmp_path / "run/trajectories/seral_mine:outskirts.fold-00.seed-0/rounds/0001/metrics.json").exists()
    assert "seral_mine:outskirts" in seral("loop", "status", str(tmp_path / "run"), cwd=package)  # runs no code of it
    refused = seral("predict", str(tmp_path / "run"), speech_pool, "--out", "p.parquet", cwd=package, ok=False)
    assert "set SERAL_PLUGINS=seral_mine if it may run" in refused
    wrong = seral(
        "loop",
        "run",
        str(config),
        *strategy.split(),
        *metrics.split(),
        "--set",
        "strategy.power=x",
        cwd=package,
        ok=False,
    )
    assert "option power of strategy seral_mine:outskirts is 'x'; its default is 1.0" in wrong


PLUGGED = Path(__file__).parent / "plugged"
ENTRIES = """[seral.adapters]
tilt = seral_parts:TILT
stable = seral_parts:STABLE
[seral.encoders]
parts-audio = seral_parts:PartsEncoder
[seral.objectives]
squared = seral_parts:SQUARED
[seral.readers]
read-parts = seral_parts:read_parts
"""
CHECKPOINT = """
import sys
import seral_parts
from ser_models.encoders import load_encoder, save_encoder
network = load_encoder("seral-tiny").model
sizes = {name: value for name, value in network.config.to_dict().items() if name != "model_type"}
own = seral_parts.PartsModel(seral_parts.PartsConfig(**sizes))
own.load_state_dict(network.state_dict())
save_encoder(seral_parts.PartsEncoder(own, normalise=False), sys.argv[1])
from seral.testing import check_adapter, check_encoder, check_objective, check_reader
check_encoder(sys.argv[1])
for kind in ("tilt", "stable"):
    check_adapter(kind)
check_objective("squared")
check_reader("read-parts", sys.argv[2], labels="last")
"""


@pytest.fixture(scope="module")
def named_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of six speakers, whose names say all that is known of them."""
    from seral.synthesis.corpus import SynthesisOptions, synthesise

    root = tmp_path_factory.mktemp("named")
    synthesise(root / "made", SynthesisOptions(utterances=72, speakers_per_language=2, junk=0.0, seed=3))
    (corpus := root / "corpus").mkdir()
    for line in (root / "made" / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        shutil.copy(root / "made" / row["audio"], corpus / f"{row['speaker']}_{row['emotion']}_{row['id'][-2:]}.flac")
    return corpus


def python(*words: str, cwd: Path, path: Path | None = None) -> str:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(item) for item in (path, *sys.path) if item)}
    done = subprocess.run(
        [sys.executable, "-P", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_parts_of_every_kind_go_all_the_way_by_their_entry_points(named_corpus: Path, tmp_path: Path) -> None:
    facts = tmp_path / "site" / "seral_parts-1.0.dist-info"
    facts.mkdir(parents=True)
    shutil.copy(PLUGGED / "seral_parts.py", tmp_path / "site")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: seral-parts\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRIES)
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    python("-c", CHECKPOINT, str(work / "encoder"), str(named_corpus), cwd=work, path=site)
    lines = python(str(PLUGGED / "use_parts.py"), str(work), str(named_corpus), "", cwd=work, path=site)
    assert "reader_options.labels of 'read-parts': expected 'first' or 'last', got 'middle'" in lines
    assert "peft has no layers of tilt" in lines
    assert storage.read_table(work / "loop.parquet").num_rows == 72
    assert storage.read_table(work / "final.parquet").num_rows == 72
    code = (work / "hf" / "modeling_seral.py").read_text()
    assert "import seral_parts" not in code
    assert "from seral_parts" not in code
    exported = "import sys; from transformers import AutoModelForAudioClassification as A; print(A.from_pretrained("
    names = python("-c", f"{exported}sys.argv[1], trust_remote_code=True).config.id2label)", str(work / "hf"), cwd=work)
    assert all(name in names for name in CLASSES)


@pytest.mark.slow
@pytest.mark.release
def test_parts_of_every_kind_go_all_the_way_by_their_module(named_corpus: Path, tmp_path: Path) -> None:
    shutil.copy(PLUGGED / "seral_parts.py", tmp_path)
    lines = python(str(PLUGGED / "use_parts.py"), ".", str(named_corpus), "seral_parts:", cwd=tmp_path)
    assert "peft has no layers of seral_parts:TILT" in lines
    assert storage.read_table(tmp_path / "final.parquet").num_rows == 72
    refused = seral("predict", "trained", "pool", "--out", "p.parquet", cwd=tmp_path, ok=False)
    assert "set SERAL_PLUGINS=seral_parts if it may run" in refused
