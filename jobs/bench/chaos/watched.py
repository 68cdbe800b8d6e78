"""One try: a command of its own, what befalls it, and what is left of it. Linux only: it reads /proc."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from jobs.bench.growth import MARK, carriers

POLL_S = 0.1
PATIENCE_S = 240.0
IDLE = ("IDLE", "DashboardAgent", "RuntimeEnvAgent", "_AutoscalingCoordinator", "_StatsActor", "_DatasetStatsActor")
"""Beginnings of the titles of workers that do nothing of ours."""
PROCESSES = {
    "raylet": re.compile(r"\S*/raylet/raylet "),
    "GCS": re.compile(r"\S*/gcs_server "),
    "worker": re.compile(f"ray::(?!{'|'.join(IDLE)})"),
}
"""Processes of Ray, by their command lines."""


LAUNCH = """
import os, pwd, signal, sys
umask, user, *command = sys.argv[1:]
signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored in the background of a shell, and that is inherited
if int(umask) >= 0:
    os.umask(int(umask))
if user:
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
os.execv(command[0], command)
"""
"""Program that becomes a command. Popen itself would fork to these ends, after which a Ray in its process may hang."""


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of one try."""

    status: int | None
    """Exit status; None where it went on to live for PATIENCE_S."""
    at_s: float
    """Seconds from the start to the blow."""
    ended_s: float
    """Seconds from the blow to the end of the command."""
    gone_s: float
    """Seconds from the blow until nothing was alive that it had started."""
    lives_on: list[str]
    """Titles of those that had to be killed after a minute."""
    hit: str
    """Title of the process that was hit, '' where there was none to hit."""
    output: str
    """Everything that the command wrote to a terminal."""

    @property
    def last_line(self) -> str:
        """The last line of the output."""
        return (self.output.strip().splitlines() or [""])[-1]

    def record(self) -> dict[str, Any]:
        """Plain values, the output shortened to its end."""
        return asdict(self) | {"output": self.output[-2000:]}


class Running:
    """A command that runs, with all that it has started."""

    def __init__(
        self,
        words: Sequence[str],
        log: Path,
        environment: dict[str, str] | None = None,
        *,
        umask: int = -1,
        user: str | None = None,
        python: str = sys.executable,
    ) -> None:
        self._mark, self._log = uuid.uuid4().hex, log
        self._family: set[psutil.Process] = set()
        log.parent.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAUNCH, str(umask), user or "", python, "-m", "seral", *words],
                env=os.environ | {MARK: self._mark} | (environment or {}),
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._itself = psutil.Process(self.process.pid)  # now: its number may be another process's once it has ended

    @property
    def age_s(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started

    def wait_for(self, ready: Callable[[Running], bool]) -> bool:
        """Wait until something is so; False where the command has ended before."""
        deadline = time.monotonic() + PATIENCE_S
        while not ready(self):
            if self.process.poll() is not None or time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return self.process.poll() is None

    def pids(self, kind: str) -> list[int]:
        """Processes of a kind (PROCESSES) that it has started."""
        return [process.pid for process in self._look() if PROCESSES[kind].match(title(process.pid))]

    def _look(self) -> set[psutil.Process]:
        """Processes that it has started: children and theirs, and who has our mark; those of earlier looks, too.

        A worker's environment is not all there: Ray writes the worker's title over its beginning.
        """
        with suppress(psutil.NoSuchProcess):
            self._family |= set(self._itself.children(recursive=True))
        for pid in carriers(self._mark):
            with suppress(psutil.NoSuchProcess):
                self._family.add(psutil.Process(pid))
        self._family = {process for process in self._family if _lives(process)}
        return self._family

    def strike(self, number: int, kind: str | None = None) -> End:
        """Send a signal to the command, or to one process of a kind, and see what becomes of it."""
        at_s = self.age_s
        self._look()
        targets = [self.process.pid] if kind is None else self.pids(kind)[:1]
        hit = ""
        for pid in targets:
            with suppress(ProcessLookupError):
                hit = title(pid)[:60].strip()
                os.kill(pid, number)
        return self.outcome(at_s=at_s, hit=hit)

    def outcome(self, *, at_s: float = 0.0, hit: str = "") -> End:
        """Wait for the end of the command and of all that it has started; what lives on is killed."""
        since, status = time.monotonic(), None
        with suppress(subprocess.TimeoutExpired):
            status = self.process.wait(PATIENCE_S)
        ended_s = time.monotonic() - since
        while (alive := self._look()) and time.monotonic() < since + ended_s + 60:
            time.sleep(POLL_S)
        gone_s = time.monotonic() - since
        lives_on = sorted(title(process.pid)[:60].strip() for process in alive)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        output = self._log.read_text(errors="replace")
        return End(status=status, at_s=at_s, ended_s=ended_s, gone_s=gone_s, lives_on=lives_on, hit=hit, output=output)


def title(pid: int) -> str:
    """The command line of a process, '' where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
