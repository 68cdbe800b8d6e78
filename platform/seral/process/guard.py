"""A small process that outlives a command: it ends what the command's local Ray has left, and says what it could not.

The command alone has the other end of the guard's input. When that closes, however the command has ended (SIGKILL, an
abort), every process with the command's mark in its environment is killed: the raylet, the GCS, workers, and all that
they have started. Nobody else has the mark. Run as a script, by `Guard`; Linux only.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import ClassVar

START_S = 2.0
"""Time that a process takes at most to show its environment after it was started: a worker that the raylet has just
begun would otherwise be missed. There are programs without any environment, so this is not waited for longer."""
UNTIED_S = 8.0
"""Time for a process that has a title of Ray's to open its log, which takes long on a busy machine."""
MARK = "SERAL_RAY"
"""Variable in the environment of a local Ray's processes: the guard's mark."""
POLL_S = 0.05
LIMIT_S = 60.0
"""A process that hangs in the kernel, on a dead disk, cannot be killed; the guard does not wait for it for ever."""
SPILLED = "ray_spilled_objects"
"""Beginning of the name of the folder in which Ray puts objects that memory has no room for."""
SESSION = re.compile(r"(/.*/session_[^/]+)/logs/")
"""Address of a log of Ray: its session folder."""
TITLE = b"ray::"
"""Beginning of the titles that Ray's workers and agents give themselves."""
FAREWELL = "farewell"
"""Line by which a command says that it ends in words of its own."""
LAST_WORDS = (
    "error: the command was killed, or ended by Ray's core, in the middle of the work: the same command goes on, and "
    "what is complete is kept"
)


class Guard:
    """The guard of this process's local Ray, as the process sees it. `speaks`: where a command ends without a word."""

    _newest: ClassVar[Guard | None] = None

    def __init__(self, *, speaks: bool) -> None:
        from uuid import uuid4

        self._mark = uuid4().hex
        read, self._write = os.pipe()  # neither end is inherited
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        actions = [(os.POSIX_SPAWN_DUP2, read, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        if not speaks:
            actions.append((os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0))
        words = [sys.executable, "-I", "-S", __file__, self._mark, str(os.getpid())]
        # A session of its own: Ctrl-C goes to the command's whole group.
        self._pid = os.posix_spawn(sys.executable, words, environment, file_actions=actions, setsid=True)
        os.close(read)
        if Guard._newest is not None:  # of a Ray that was shut down
            Guard._newest.finish()
        Guard._newest = self

    @contextmanager
    def marking(self) -> Iterator[None]:
        """Processes that are started in the block, and all that they start, are the guard's."""
        os.environ[MARK] = self._mark
        try:
            yield
        finally:
            os.environ.pop(MARK, None)

    def clear(self, folder: str) -> None:
        """Delete, at the end, what Ray has spilled to this session folder."""
        self._write_line(folder)

    def farewell(self) -> None:
        """The command ends in words of its own, so the guard needs none."""
        self._write_line(FAREWELL)

    def finish(self, timeout_s: float = 3.0) -> None:
        """End all that is marked, now; returns when it is gone, or when the time is over."""
        if self._write >= 0:
            self.farewell()
            os.close(self._write)
            self._write = -1
        deadline = time.monotonic() + timeout_s
        with suppress(ChildProcessError):  # it has ended, and that was seen
            while os.waitpid(self._pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
                time.sleep(POLL_S / 5)

    def _write_line(self, line: str) -> None:
        with suppress(OSError):  # the guard has ended
            os.write(self._write, f"{line}\n".encode())


class Marked:
    """The living processes of one command's local Ray.

    They have the mark in their environment. A worker's is cut off at its beginning, where Ray writes the worker's title
    over it: such a process is Ray's if it has a file open in a session folder with the command's number at the end of
    its name, as every one has, and began after the guard. An older one is of a command that had the number before.
    """

    def __init__(self, mark: str, command: int) -> None:
        self._entry, self._suffix, self._since = f"{MARK}={mark}".encode(), f"_{command}", _started("self")
        self.starting = self.untied = False
        """Whether, at the last look, some process had just begun and showed no environment yet, or had a title of Ray's
        and no file of any session."""

    def look(self) -> list[int]:
        """File descriptors of the processes: a number may soon be another process's."""
        processes, self.starting, self.untied = [], False, False
        for name in os.listdir("/proc"):
            try:
                process = os.pidfd_open(int(name))
            except (ValueError, OSError):  # no process, or it has ended
                continue
            if self._is_marked(name) or self._is_ours_by_its_files(name):
                processes.append(process)
            else:
                os.close(process)
        return processes

    def _is_marked(self, name: str) -> bool:
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                environment = file.read()
            if not environment:  # a thread of the kernel and who has ended have none either, but no program too
                self.starting = bool(os.readlink(f"/proc/{name}/exe")) or self.starting
        except OSError:  # not ours, or it has ended meanwhile
            return False
        return self._entry in environment.split(b"\0")

    def _is_ours_by_its_files(self, name: str) -> bool:
        with suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
            if file.read(len(TITLE)) == TITLE:
                os.listdir(f"/proc/{name}/fd")  # somebody else's is not ours, and may not be looked into
                sessions = [match.group(1) for link in _links(name) if (match := SESSION.match(link))]
                self.untied = self.untied or not sessions
                return _started(name) >= self._since and any(path.endswith(self._suffix) for path in sessions)
        return False


def _links(name: str) -> Iterator[str]:
    """Addresses of the files that a process has open."""
    with suppress(OSError):
        for number in os.listdir(f"/proc/{name}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{name}/fd/{number}")


def _started(name: str) -> int:
    """Ticks of the clock from the machine's start to the process's."""
    with open(f"/proc/{name}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def kill_marked(marked: Marked) -> None:
    """Kill the processes until two looks in a row find none."""
    began, clean = time.monotonic(), 0
    while clean < 2 and time.monotonic() - began < LIMIT_S:
        processes = marked.look()
        age_s = time.monotonic() - began
        waits = (marked.starting and age_s < START_S) or (marked.untied and age_s < UNTIED_S)
        clean = 0 if processes or waits else clean + 1
        for process in processes:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            os.close(process)
        time.sleep(POLL_S)


def wait_for_the_end(parent: int) -> list[str]:
    """Wait until the command closes its end of the pipe, or has ended; returns the lines that it wrote."""
    received = b""
    while True:
        if select.select([0], [], [], 1.0)[0]:
            data = os.read(0, 4096)
            if not data:
                break
            received += data
        elif os.getppid() != parent:
            break
    return received.decode(errors="replace").splitlines()


def main(mark: str, parent: int) -> None:
    """Wait for the end of a command, then kill what has its mark and delete what its Ray has spilled."""
    os.chdir("/")  # no disk of the command stays in use
    lines = wait_for_the_end(parent)
    kill_marked(Marked(mark, parent))
    if FAREWELL not in lines:
        with suppress(OSError):
            os.write(2, f"{LAST_WORDS}\n".encode())
    for folder in lines:
        with suppress(OSError):
            for name in os.listdir(folder):
                if name.startswith(SPILLED):
                    shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
