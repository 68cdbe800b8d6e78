"""The wheel in a fresh environment outside the repository: what its README says works there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from environments import build_wheel, fresh_environment

from seral.verbs.examples import shipped

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PYTHONS = [name for name in os.environ.get("SERAL_PYTHONS", "").split(":") if name] or [sys.executable]
"""Interpreters that the wheel is installed for."""

Run = Callable[[str], str]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working copy."""
    return build_wheel(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=PYTHONS, ids=lambda name: Path(name).name)
def installed(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`installed(command)`: what a command prints, in one empty folder, with the wheel and what it requires alone."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "work").mkdir()
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    outside |= {"PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "HOME": str(folder)}

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", command], cwd=folder / "work", env=outside, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    if request.param == sys.executable:
        fresh_environment(folder / "venv", wheel, frozenset({"demo", "submit"}))
    else:
        subprocess.run([request.param, "-m", "venv", str(folder / "venv")], check=True)
        run(f"pip install --quiet --constraint {ROOT / 'constraints.txt'} '{wheel}[demo,submit]'")
    yield run
    shutil.rmtree(folder)


def test_the_wheel_has_what_ships_and_nothing_of_the_checkout(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in names if name.startswith(("platform/", "jobs/", "tests/"))]
    packaged = {Path(name).name.removesuffix(".yaml") for name in names if name.startswith("seral/jobs/")}
    assert packaged == set(shipped())


def test_every_python_of_the_classifiers_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert project["requires-python"] == f">={versions[0]}"


@pytest.mark.slow
@pytest.mark.timeout(3000)  # an environment of its own, then the demonstration
def test_the_demonstration_and_the_readme_work_from_the_wheel(installed: Run) -> None:
    assert str(ROOT) not in installed("python -c 'import seral; print(seral.__file__)'")
    assert installed("python -c 'import importlib.util as u; print(u.find_spec(\"pytest\"))'") == "None\n"
    if [sys.executable] != PYTHONS:  # of this one `make demo` has it, with all that it takes
        assert "seral predict demo/run" in installed("seral demo --out demo")
    # Whatever the README starts from is there.
    assert "emodb-lora" in installed("seral config")
    assert installed("seral config slurm.sh").startswith("#!/bin/bash")
    assert "seral loop run run.yaml" in installed("seral init speech")
    # Its run, on a pool of made-up speech: one fold of it.
    installed("seral pool generate made-up --set utterances=96 --set speakers_per_language=2")
    installed("seral pool import manifest made-up --out speech/data/pool")
    run, commands = re.findall(r"```(?:yaml\n# run.yaml)?\n((?:pool: data|seral doctor).*?)```", README, re.DOTALL)
    run = run.replace("seeds: [0, 1, 2]", "seeds: [0]")
    installed(f"cat > speech/run.yaml <<'END'\n{run}folds: [0]\nEND")
    installed("mkdir speech/recordings")
    installed("find made-up -name '*.flac' -o -name '*.wav' | sort | head -4 | xargs -I{} cp {} speech/recordings/")
    installed(f"cd speech\n{commands}")
    installed("test -s speech/predictions.parquet; test -s speech/runs/mine/report/index.html")
    # A job, in any folder: its options are checked by the code that is installed.
    job = "loop --config speech/run.yaml --set pool=s3://b/pool --set run=s3://b/run --on image=me/seral:1"
    assert "python -m seral.verbs loop --config" in installed(f"seral jobs manifest {job}")
