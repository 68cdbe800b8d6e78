"""The recipe of the image that serves: what it copies is there, what it starts is understood, and not as root."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

from typer.testing import CliRunner

from seral.cli import app

ROOT = Path(__file__).resolve().parents[2]
RECIPE = re.sub(r"\\\n", " ", (ROOT / "jobs" / "cluster" / "serve.Dockerfile").read_text(encoding="utf-8"))
LINES = [line for line in RECIPE.splitlines() if line and not line.startswith("#")]


def after(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in LINES if line.startswith(f"{word} ")]


def test_its_base_is_given_by_digest_and_it_does_not_run_as_root() -> None:
    assert (after("ARG")[0], after("FROM")) == ("BASE", ["${BASE}"])
    assert after("USER") == ["1000:100"]
    assert "useradd --uid 1000" in RECIPE


def test_it_copies_what_is_there_and_installs_extras_that_there_are() -> None:
    sources = [source for line in after("COPY") for source in line.split()[:-1]]
    assert [source for source in sources if not source.startswith("dist/")] == ["constraints.txt"]
    assert (ROOT / "constraints.txt").is_file()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (wanted,) = re.findall(r"\.whl\)\[(.*?)\]", RECIPE)
    assert set(wanted.split(",")) <= set(extras)


def test_what_it_starts_is_a_command_that_takes_these_arguments(tmp_path: Path) -> None:
    program, *words = [*json.loads(after("ENTRYPOINT")[0]), str(tmp_path)]
    assert program == "seral"
    text = CliRunner().invoke(app, [*words, "--options"]).output
    assert "max_upload_mb" in text
    assert after("EXPOSE") == [words[words.index("--port") + 1]]
    assert f"127.0.0.1:{after('EXPOSE')[0]}/health" in after("HEALTHCHECK")[0]
