"""Commands on an object store that fails, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.chaos.stores import StoresOptions, run


@pytest.mark.slow
def test_what_comes_of_a_store_that_fails_or_dies_is_what_comes_of_one_that_does_not(tmp_path: Path) -> None:
    twin, mixed, dead = run(
        StoresOptions(kinds=["mixed", "dead"], rows=24, rounds=False, patience_s=15, work=str(tmp_path))
    )
    assert twin.injected == 0
    assert mixed.injected >= 10
    assert dead.restarts >= 3, "commands that ended in one sentence"
    assert mixed.failures == dead.failures == []
