"""Versions of the packages that are running, for records of runs and for reports of errors."""

from __future__ import annotations

from collections.abc import Iterable

__version__ = "0.1.0"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Installed version of each package. Raises PackageNotFoundError naming one that is missing.

    seral's own is read from the code: in a cluster job it is shipped as source and nothing is installed.
    """
    import importlib.metadata  # a third of the time that `import seral` takes

    return {name: __version__ if name == "seral" else importlib.metadata.version(name) for name in packages}
