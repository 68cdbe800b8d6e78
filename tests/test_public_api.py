"""The public names of both packages: every one resolves, is documented, and costs nothing before it is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import pytest

import ser_models
import seral

PUBLIC = [(package, name) for package in (seral, ser_models) for name in package.__all__]


@pytest.mark.parametrize(("package", "name"), PUBLIC, ids=lambda value: getattr(value, "__name__", value))
def test_every_public_name_resolves_and_is_documented(package: ModuleType, name: str) -> None:
    value = getattr(package, name)
    if isinstance(value, type | Callable):  # type: ignore[arg-type]  # a typing form that isinstance takes
        assert value.__doc__, f"{package.__name__}.{name} has no docstring: help() would be empty"
    home = vars(package)["_HOME"]
    assert name in home or name == "__version__", f"{package.__name__}.{name} is in __all__ and not in _HOME"


@pytest.mark.parametrize("package", [seral, ser_models], ids=lambda package: package.__name__)
def test_no_public_name_is_forgotten_in_the_list(package: ModuleType) -> None:
    assert sorted(set(vars(package)["_HOME"]) - set(package.__all__)) == []
    assert len(set(package.__all__)) == len(package.__all__)
    assert dir(package) == sorted(package.__all__)
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize(
    ("module", "slow"),
    [
        ("seral", {"torch", "ray", "transformers"}),
        ("ser_models", {"torch", "ray", "transformers"}),
        ("seral.loop.trajectory", {"peft", "transformers", "ray.train", "ray.data"}),
        ("seral.sweep.trials", {"peft", "transformers"}),
    ],
)
def test_whoever_does_without_a_library_does_not_wait_for_it(module: str, slow: set[str]) -> None:
    """A worker of Ray's imports a module before its first task: three seconds each for peft and transformers."""
    script = f"import sys, {module}; sys.exit(', '.join({slow} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, f"`import {module}` loads {done.stderr.strip()}"
