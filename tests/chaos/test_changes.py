"""Commands that are stopped before a change of a file, then given again: a part of what jobs.bench.chaos tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.chaos.changes import HOWS, stops
from jobs.bench.chaos.points import subjects

pytestmark = pytest.mark.slow
EVERY = {"import": 17, "append": 11, "merge": 41, "filter": 9, "snapshot": 1, "erase": 25, "labels": 29}
"""Of how many changes of a command one is tried, each way."""


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", EVERY)
def test_the_same_command_again_ends_as_if_nothing_had_been(tmp_path: Path, name: str, how: str) -> None:
    first = 1 + list(HOWS).index(how) * EVERY[name] // len(HOWS)
    tried = list(stops(subjects(tmp_path)[name], tmp_path / "try", how, first=first, every=EVERY[name]))
    assert len(tried) > 4
    assert [stop for stop in tried if stop.complaint] == []
