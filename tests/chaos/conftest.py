from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.chaos.commands import make_materials


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of generated speech and the pool of it, made by commands of their own."""
    return make_materials(tmp_path_factory.mktemp("materials"), clips=64)


@pytest.fixture(autouse=True)
def _reads_proc() -> None:
    if not Path("/proc/self/environ").exists():
        pytest.skip("finds leftover processes through /proc")
