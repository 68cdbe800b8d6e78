"""Commands on an object store that fails: a small part of what jobs.bench.chaos.stores tries."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.chaos.stores import StoresOptions, run


@pytest.mark.slow
def test_what_comes_of_a_store_that_fails_is_what_comes_of_one_that_does_not(tmp_path: Path) -> None:
    twin, mixed = run(StoresOptions(kinds=["mixed"], rows=24, rounds=False, work=str(tmp_path)))
    assert twin.injected == 0
    assert mixed.injected >= 10
    assert mixed.failures == []
