"""Commands that are stopped before a change of a file, then given again: a part of what jobs.bench.chaos tries."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from jobs.bench.chaos.changes import HOWS, Stop, stops
from jobs.bench.chaos.points import subjects

pytestmark = pytest.mark.slow
EVERY = {"import": 17, "append": 11, "merge": 41, "filter": 9, "snapshot": 1, "erase": 25, "labels": 29}
"""Of how many changes of a command one is tried, each way."""


@pytest.fixture(scope="module")
def alone() -> Iterator[ProcessPoolExecutor]:
    """A process that may fork: the one of the tests may have a Ray, whose gRPC can hang for ever after a fork."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


def every(name: str, how: str, folder: Path, first: int) -> list[Stop]:
    return list(stops(subjects(folder)[name], folder / "try", how, first=first, every=EVERY[name]))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", EVERY)
def test_the_same_command_again_ends_as_if_nothing_had_been(
    alone: ProcessPoolExecutor, tmp_path: Path, name: str, how: str
) -> None:
    first = 1 + list(HOWS).index(how) * EVERY[name] // len(HOWS)
    tried = alone.submit(every, name, how, tmp_path, first).result()
    assert len(tried) > 3
    assert [stop for stop in tried if stop.complaint] == []
