"""Fresh environments with a wheel and what it says it needs, and nothing else, in seconds."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def build_wheel(source: Path, folder: Path) -> Path:
    """The wheel of a source tree, built into an empty folder without another download."""
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *words], check=True)
    (path,) = folder.glob("*.whl")
    return path


def fresh_environment(folder: Path, wheel: Path, extras: frozenset[str] = frozenset()) -> Path:
    """The Python of a new environment in `folder` with the wheel and all that it, and its extras, require.

    The wheel is installed by pip. What it requires is looked up in its metadata and linked from the running
    environment, file by file: what it does not declare is not there.
    """
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    (installed,) = site.glob("*.dist-info")
    for needed in _required(Distribution.at(installed), extras):
        _link(needed, site)
    return python


def _required(wheel: Distribution, extras: frozenset[str]) -> Iterator[Distribution]:
    """Every distribution that the wheel needs with its extras, each once."""
    open_ends, met = [(wheel, extras)], set[tuple[str, str]]()
    while open_ends:
        needing, extras = open_ends.pop()
        for line in needing.requires or ():
            needed = Requirement(line)
            if needed.marker and not any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                continue
            name = canonicalize_name(needed.name)
            fresh = {extra for extra in {"", *needed.extras} if (name, extra) not in met}
            if fresh:
                one = distribution(name)
                if not any(former == name for former, _ in met):
                    yield one
                met |= {(name, extra) for extra in fresh}
                open_ends.append((one, frozenset(fresh)))


def _link(one: Distribution, site: Path) -> None:
    """Links to the files of a distribution in another folder of packages; its programs run by that one's Python."""
    for file in one.files or ():
        target = Path(str(file.locate())).resolve()
        link = (site / str(file)).parent.resolve() / target.name
        if link.exists() or not target.exists():
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.parent.name == "bin" and target.read_bytes()[:2] == b"#!":
            _, _, code = target.read_text().partition("\n")
            link.write_text(f"#!{link.parent / 'python'}\n{code}")
            link.chmod(0o755)
        else:
            link.symlink_to(target)
