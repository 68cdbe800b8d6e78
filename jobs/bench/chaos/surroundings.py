"""Commands in other surroundings: clocks that jump, other users, rights, locales, time zones, hash seeds and sizes.

What comes of a command has the bytes of a twin in plain surroundings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.bench.chaos.commands import SUBJECTS, Subject, differences, run_twin
from jobs.bench.chaos.results import Results
from jobs.bench.chaos.watched import LAUNCH, End, Running
from seral.progress import say

CLOCK = """
import os, time
_true, _at, _by = time.time, *map(float, os.environ["SERAL_CHAOS_JUMP"].split())
def jumping():
    return _true() + (_by if time.monotonic() > _at else 0.0)
time.time = jumping
"""
"""A module that Python loads before a program: `SERAL_CHAOS_JUMP` is a moment of the monotonic clock and seconds."""
DAY_S = 86_400.0
JUMP_AFTER_S = 6.0
"""Seconds after a command's start at which its clock jumps."""
NOBODY = "nobody"


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Surroundings of a command."""

    environment: Mapping[str, str] = field(default_factory=dict)
    umask: int = -1
    """-1 = that of this process."""
    user: str | None = None
    """Whose process it is; only root can give it to another one."""
    read_only: bool = False
    """Whether nobody may write to what the command reads, nor to its home."""
    jump_s: float = 0.0
    """Seconds by which its clock jumps."""
    one_worker: bool = False
    """Whether it works in one process, where it can."""


SURROUNDINGS = {
    "no locale": Surroundings(environment={"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "a locale of commas": Surroundings(environment={"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}),
    "a time zone": Surroundings(environment={"TZ": "Pacific/Kiritimati"}),
    "a hash seed": Surroundings(environment={"PYTHONHASHSEED": "1"}),
    "another hash seed": Surroundings(environment={"PYTHONHASHSEED": "4294967295"}),
    "a strict umask": Surroundings(umask=0o077),
    "no umask": Surroundings(umask=0o000),
    "a clock that goes forward": Surroundings(jump_s=30 * DAY_S),
    "a clock that goes back": Surroundings(jump_s=-30 * DAY_S),
    "another user": Surroundings(user=NOBODY, read_only=True),
    "one worker": Surroundings(one_worker=True),
}
"""Surroundings by name."""


def run_in(surroundings: Surroundings, subject: Subject, folder: Path, materials: Path) -> End:
    """Run a command in a folder of its own, in such surroundings, and wait for its end."""
    words = subject.words(materials, folder)
    words += ["--set", subject.one_worker] if surroundings.one_worker and subject.one_worker else []
    environment = dict(surroundings.environment)
    if surroundings.jump_s:
        (folder / "clock").mkdir()
        (folder / "clock" / "sitecustomize.py").write_text(CLOCK)
        paths = [str(folder / "clock"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment["SERAL_CHAOS_JUMP"] = f"{time.monotonic() + JUMP_AFTER_S} {surroundings.jump_s}"
    if surroundings.read_only:
        environment |= {"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "home" / "cache")}
        (folder / "home").mkdir(mode=0o555)
    if surroundings.user:
        _give(folder, surroundings.user)
    more: dict[str, Any] = {"umask": surroundings.umask, "user": surroundings.user}
    if surroundings.user:
        more["python"] = python_for(surroundings.user) or sys.executable
        environment["PYTHONPATH"] = _search_path()
    rights = _take_rights(materials) if surroundings.read_only else {}
    try:
        return Running(words, folder / "log", environment, **more).outcome()
    finally:
        for path, mode in rights.items():
            path.chmod(mode)


def python_for(user: str) -> str | None:
    """A Python of this version that another user may run, with what is installed here; None where there is none."""
    environment = os.environ | {"PYTHONPATH": _search_path()}
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        words = [sys.executable, "-c", LAUNCH, "-1", user, python, "-c", "import seral, torch"]
        if not subprocess.run(words, env=environment, cwd="/", capture_output=True, check=False).returncode:
            return python
    return None


def _search_path() -> str:
    return os.pathsep.join(path for path in sys.path if path)


def _give(folder: Path, user: str) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.name != "home":
            shutil.chown(path, user)


def _take_rights(folder: Path) -> dict[Path, int]:
    """Nobody may write below a folder, and everybody read; returns the rights there were."""
    rights = {path: path.stat().st_mode & 0o7777 for path in (folder, *folder.rglob("*"))}
    for path, mode in rights.items():
        path.chmod((mode | (0o555 if path.is_dir() else 0o444)) & ~0o222)
    return rights


def run_surroundings(work: Path, materials: Path, names: Sequence[str]) -> str:
    """Every command in every surroundings; results are written after each, to WORK/surroundings.jsonl."""
    results = Results(work / "surroundings.jsonl", ("command", "surroundings"))
    for name in names:
        run_twin(name, materials, work)
        for title, surroundings in SURROUNDINGS.items():
            if (name, title) not in results:
                folder = work / "surroundings" / f"{name}-{title.replace(' ', '-')}"
                wrong = _in_surroundings(SUBJECTS[name], surroundings, folder, work / "twins" / name, materials)
                results.add({"command": name, "surroundings": title, "wrong": wrong})
                say(f"{name}, {title}: {'; '.join(wrong) or 'the same'}")
    failed = results.failed()
    return "\n".join([f"{len(results.records)} tries, {len(results.records) - len(failed)} the same", *failed])


def _in_surroundings(
    subject: Subject, surroundings: Surroundings, folder: Path, twin: Path, materials: Path
) -> list[str]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subject.prepare(materials, folder)
    end = run_in(surroundings, subject, folder, materials)
    wrong = [f"status {end.status}, {end.last_line!r}"] if end.status else []
    wrong += ["a traceback"] if "Traceback" in end.output else []
    wrong += differences(subject, folder, twin)
    if not wrong:
        shutil.rmtree(folder)
    return wrong
