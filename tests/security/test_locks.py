"""What `make` and the image install: the versions of constraints.txt, by hash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_HASH = {"torch"}
"""Another file for every kind of processor and accelerator."""
OF_BENCHMARKS = {"makefun", "scikit-activeml", "small-text"}
"""Peers of the benchmarks and what they need, which `make bench-selection` installs."""


def versions(file: Path) -> dict[str, str]:
    """Version of each library."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", file.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in lines}


@pytest.mark.parametrize("lock", ["requirements.txt", "jobs/cluster/requirements.txt"])
def test_every_library_has_the_version_of_the_constraints_and_hashes(lock: str) -> None:
    wanted, locked = versions(ROOT / "constraints.txt"), versions(ROOT / lock)
    assert locked == {name: wanted.get(name) for name in locked}
    for entry in re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip()):
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_nothing_but_torch_comes_without_a_hash() -> None:
    wanted, locked = versions(ROOT / "constraints.txt"), versions(ROOT / "requirements.txt")
    assert set(wanted) - set(locked) == WITHOUT_HASH | OF_BENCHMARKS
    assert set(versions(ROOT / "jobs/cluster/requirements.txt")) < set(locked)
    assert {"ray", "transformers", "hatchling"} <= set(versions(ROOT / "jobs/cluster/requirements.txt"))
