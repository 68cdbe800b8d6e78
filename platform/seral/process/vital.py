"""Processes that a command cannot do without: when one of them dies, the command ends in a sentence."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from subprocess import Popen
from typing import Any

from seral.process import ending


def end_of(process: Popen[Any]) -> str | None:
    """The way a child process has ended, in words; None while it lives."""
    if (status := process.poll()) is None:
        return None
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


class Watch:
    """A look at child processes, by threads.

    There is no time to put anything away: Ray's core ends a process, without a word, that speaks to a dead raylet.
    """

    def __init__(self, processes: Mapping[str, Popen[Any]], needed: Callable[[], bool], logs: str) -> None:
        """`needed` is asked after a process was seen dead: False where they have been ended on purpose."""
        self._processes, self._needed, self._logs = processes, needed, logs
        ending.look_before_it_fails(self._fail_if_lost)
        for process in processes.values():
            threading.Thread(target=self._look_on, args=(process.pid,), name="vital", daemon=True).start()

    def lost(self) -> str | None:
        """The sentence about the first of the processes that has died, None while all live."""
        for name, process in self._processes.items():
            how = end_of(process)
            if how is None or not self._needed():
                continue
            why = ", as a machine does that runs out of memory" if process.returncode == -signal.SIGKILL else ""
            return f"error: {name} {how} in the middle of the work{why} (logs: {self._logs}): {ending.GOES_ON}"
        return None

    def _fail_if_lost(self) -> None:
        if words := self.lost():
            ending.fail(1, words)

    def _look_on(self, pid: int) -> None:
        with suppress(ChildProcessError):  # it has ended, and somebody knows already
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        if words := self.lost():
            ending.fail_now(1, words)
