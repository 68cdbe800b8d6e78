"""The commands of docs/tutorial.md, run one after the other in an empty folder, and what each is said to leave."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
FILE = re.compile(r'^```yaml title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
AWAITING = 75


def commands() -> list[list[str]]:
    """The words of each command; what serves until it is stopped is left to the tests of the page."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    lines = [line for kind, block in blocks if not kind for line in block.splitlines()]
    assert len(lines) >= 8
    assert all(line.startswith("seral ") for line in lines)
    return [shlex.split(line)[1:] for line in lines if "labels serve" not in line]


@pytest.mark.slow
@pytest.mark.release
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    for name, text in FILE.findall(PAGE.read_text(encoding="utf-8")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    outputs = {}
    for words in commands():
        command = [sys.executable, "-m", "seral", *words]
        done = subprocess.run(command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=600)
        wanted = AWAITING if words == ["loop", "run", "people.yaml"] else 0
        assert done.returncode == wanted, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        outputs[" ".join(words)] = done.stdout + done.stderr
    assert re.search(r"files +72\n", outputs["pool import manifest made-up --out pool"])
    status = outputs["loop status run"]
    assert re.search(r"auto\.fold-00\.seed-0 .*3/3 .*24 .*budget", status)
    assert re.search(r"full\.fold-00\.seed-0 .*1/1", status)
    assert (tmp_path / "pool.html").stat().st_size
    assert (tmp_path / "run" / "report" / "index.html").stat().st_size
    assert len(pd.read_csv(tmp_path / "predictions.csv")) == 72
    assert "http" in outputs["labels people add people/labels.sqlite ada"]
    assert "8" in outputs["loop run people.yaml"]


def test_citation_and_issue_templates_are_whole() -> None:
    from seral import __version__

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(form.read_text())
        if form.stem != "config":
            assert {"name", "description", "body"} <= content.keys(), form.name
            fields = [field["id"] for field in content["body"] if field["type"] != "markdown"]
            assert len(fields) == len(set(fields)) > 0
