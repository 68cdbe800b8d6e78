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

OTHERS = ("3.12", "3.13")
"""Versions of Python for which the light parts of the wheel, without torch and Ray, are tried where they are there."""
LIGHT = {"fsspec", "numpy", "pyarrow", "pydantic", "pyyaml", "rich", "typer"}

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


def interpreter(version: str) -> str | None:
    """A Python of this version that runs, on the path or of pyenv."""
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for path in (shutil.which(f"python{version}"), *map(str, of_pyenv)):
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


@pytest.mark.slow
@pytest.mark.parametrize("version", OTHERS)
def test_what_lists_and_reads_works_on_newer_pythons(version: str, wheel: Path, tmp_path: Path) -> None:
    if not (python := interpreter(version)):
        pytest.skip(f"no Python {version} here")
    required = {name for line in requires(wheel) if (name := re.split(r"[^\w-]", line)[0].lower()) in LIGHT}
    assert required == LIGHT
    script = f"""
        {python} -m venv venv
        venv/bin/pip install -q --constraint {ROOT / "constraints.txt"} {" ".join(LIGHT)}
        venv/bin/pip install -q --no-deps {wheel}
        venv/bin/python -W error -m compileall -q venv/lib/python{version}/site-packages/seral
        venv/bin/python -W error -m compileall -q venv/lib/python{version}/site-packages/ser_models
        venv/bin/seral --version
        venv/bin/seral loop run --json-schema > /dev/null
        venv/bin/seral config emodb-lora > /dev/null
        venv/bin/seral init speech
    """
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "seral loop run run.yaml" in done.stdout


def requires(wheel: Path) -> list[str]:
    """What a wheel requires, extras left out."""
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        lines = files.read(name).decode().splitlines()
    return [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]


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
