"""The quick start of docs/clusters.md, as it is copied and pasted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clusters.md"


@pytest.mark.slow
def test_the_block_works_as_it_stands(apart: Callable[[str], CompletedProcess[str]], tmp_path: Path) -> None:
    block = re.search(r"## A Ray cluster\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    # Its head closes the door to whoever has another token.
    refused = "RAY_AUTH_TOKEN=wrong seral jobs list || echo closed"
    done = apart(block[1].replace("seral jobs list ", f"{refused}\nseral jobs list "))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"seral-loop-\w+-1 +SUCCEEDED .*/speech/runs/mine", done.stdout)
    assert "closed\n" in done.stdout
    assert len(list((tmp_path / "speech/runs/mine/trajectories").iterdir())) == 3  # an arm each
