"""Stopping a command: a signal, or the death of what it stands on, ends it within seconds and in one sentence.

SIGTERM and SIGINT raise KeyboardInterrupt in the main thread, so that what it has begun is put away. A thread hears of
every signal, also where the main one is in the middle of foreign code or a library has taken the signal for itself, and
ends the process when GRACE_S have passed.
"""

from __future__ import annotations

import _thread
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

GRACE_S = 5.0
"""Time that a stopped command has to put away what it has begun."""
SAME_S = 0.5
"""Signals within this time of the first are one wish: a terminal sends one to a whole group, and a parent passes it on;
a later one ends the command at once."""
DEAF_S = 0.2
"""Time after which a signal that another handler has taken is sent to ours."""
GOES_ON = "the same command goes on, and what is complete is kept"
SIGNALS = (signal.SIGTERM, signal.SIGINT)
SHOW_CURSOR = b"\x1b[?25h"


class Command:
    """The command that this process is, from its first line to its end."""

    def __init__(self) -> None:
        self.instead: list[str] = []
        """Sentences to say in the place of GOES_ON, the last of them first."""
        self.close: list[Callable[[], object]] = []
        """Calls that end what was started for the command, when it has ended by itself."""
        self.stop: list[Callable[[], object]] = []
        """Calls that end it at once, when the command is stopped."""
        self.farewell: list[Callable[[], object]] = []
        """Calls that say, in an instant, that the command itself has told its end."""
        self.checks: list[Callable[[], object]] = []
        """Calls that `fail` the command where it cannot go on."""
        self._reason: tuple[int, str] | None = None
        self._since_s = 0.0
        self._raised = self._nudged = self._swallowed = False
        self._main = threading.get_ident()
        self._last_words = threading.Lock()
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)
        self._former = {number: signal.getsignal(number) for number in SIGNALS}
        self._former_hook = sys.unraisablehook
        self._former_fd = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        self._watcher = threading.Thread(target=self._watch, name="ending", daemon=True)
        self.take_signals()
        self._watcher.start()

    def take_signals(self) -> None:
        """Make our handlers those of the process; who ignores SIGINT (a job in a shell's background) goes on so."""
        for number, former in self._former.items():
            if former is not signal.SIG_IGN:
                signal.signal(number, self._handle)
        sys.unraisablehook = self._pass_over

    def release(self) -> None:
        """Give the signals back to whom they belonged to."""
        signal.set_wakeup_fd(self._former_fd)
        sys.unraisablehook = self._former_hook
        for number, former in self._former.items():
            signal.signal(number, former)
        os.write(self._woken, b"\0")
        self._watcher.join()
        os.close(self._wake)
        os.close(self._woken)

    @property
    def stopped(self) -> bool:
        """Whether the command is to end now."""
        self._read()
        for check in self.checks:
            check()
        return self._reason is not None

    def fail(self, status: int, words: str) -> None:
        """End with this status and sentence, from any thread; what was decided first stands."""
        if self._reason is None:
            self._since_s = time.monotonic()
            self._reason = (status, words)

    def fail_now(self, status: int, words: str) -> None:
        """End with this status and sentence at once, from any thread, unless it is to end for another reason."""
        self._read()
        if self._reason is None:
            self.fail(status, words)
            self._exit()

    def end(self) -> NoReturn:
        """Stop all that was started, say the sentence, and end the process."""
        self._raised = True
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        last_words = os.dup(2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Ray's core has much to say about workers that are stopped
        for stop in reversed(self.stop):
            stop()
        self._exit(last_words)

    def _exit(self, stderr: int = 2) -> NoReturn:
        """Say the sentence and end, with what works whatever the other threads hold."""
        self._last_words.acquire()  # for good: another thread that comes this far waits for the end
        status, words = self._reason or (1, "")
        for call in self.farewell:
            call()
        with suppress(OSError):
            os.write(stderr, (SHOW_CURSOR if os.isatty(stderr) else b"") + f"{words}\n".encode())
        os._exit(status)

    def _handle(self, number: int, frame: object) -> None:
        self._stop_by(number)
        if not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    def _pass_over(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Have what stops the command come once more where C code that calls Python has swallowed it."""
        if self._reason is not None and unraisable.exc_type is KeyboardInterrupt:
            self._raised, self._swallowed = False, True
        else:
            self._former_hook(unraisable)

    def _stop_by(self, number: int) -> None:
        words = self.instead[-1] if self.instead else GOES_ON
        self.fail(128 + number, f"stopped by {signal.Signals(number).name}: {words}")

    def _read(self) -> bytes:
        """Take the numbers of the signals that have come since it was last called."""
        try:
            numbers = os.read(self._wake, 64)
        except BlockingIOError:
            return b""
        for number in numbers:
            if number == signal.SIGTERM and self._nudged:
                self._nudged = False
            elif number in SIGNALS:
                if self._reason is not None and time.monotonic() - self._since_s > SAME_S:
                    self._exit()
                self._stop_by(number)
        return numbers

    def _watch(self) -> None:
        """See to it that the command ends in time once it is to end."""
        while True:
            ready, _, _ = select.select([self._wake], [], [], DEAF_S)
            if ready and b"\0" in self._read():
                return
            if self._reason is None:
                continue
            since_s = time.monotonic() - self._since_s
            if since_s > GRACE_S:
                self._exit()
            if since_s > DEAF_S and not self._raised and not self._nudged:
                self._nudged = True
                if self._swallowed:  # so the handler is ours, and may be called as the system calls it, in any sleep
                    signal.pthread_kill(self._main, signal.SIGTERM)
                else:
                    _thread.interrupt_main(signal.SIGTERM)


_command: Command | None = None


@contextmanager
def stoppable() -> Iterator[None]:
    """Make the block the command of this process: stopped, it ends the process with 128 + the signal.

    Only the outermost block counts, and only in the main thread.
    """
    global _command
    if _command is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    command = _command = Command()
    try:
        try:
            yield
        finally:
            if not command.stopped:
                for close in reversed(command.close):
                    close()
                for call in command.farewell:
                    call()
    except BaseException:
        end_if_stopped()
        raise
    finally:
        end_if_stopped()
        _command = None
        command.release()


def end_if_stopped() -> None:
    """End the command here where a signal has come, or where it was failed; else, and in a library, do nothing."""
    if _command is not None and _command.stopped:
        _command.end()


def active() -> bool:
    """Whether this process is a command, and no notebook, test or program that uses seral as a library."""
    return _command is not None


def fail(status: int, words: str) -> None:
    """Let the command end with this status and sentence where it is next asked whether it is stopped."""
    if _command is not None:
        _command.fail(status, words)


def fail_now(status: int, words: str) -> None:
    """End the command with this status and sentence at once, from any thread, unless it is stopped already."""
    if _command is not None:
        _command.fail_now(status, words)


def take_signals_back() -> None:
    """Make our handlers those of the process again, after a library has set its own."""
    if _command is not None and threading.current_thread() is threading.main_thread():
        _command.take_signals()


def end_with_the_command(
    *, close: Callable[[], Any], stop: Callable[[], Any], farewell: Callable[[], Any] = lambda: None
) -> None:
    """Have something ended with the command: by `close` after its work, by `stop` where it is stopped.

    `farewell`, which takes no time, is called whenever the command ends in words of its own.
    """
    if _command is not None:
        _command.close.append(close)
        _command.stop.append(stop)
        _command.farewell.append(farewell)


def look_before_it_fails(check: Callable[[], Any]) -> None:
    """Have a reason to end, for which the check calls `fail`, come before the errors that follow from it."""
    if _command is not None:
        _command.checks.append(check)


@contextmanager
def saying(words: str) -> Iterator[None]:
    """Say this, after the signal's name, where the command is stopped in the block."""
    if _command is None:
        yield
        return
    _command.instead.append(words)
    try:
        yield
    finally:
        _command.instead.pop()


_exit_status = 1


def ends_with(status: int) -> None:
    """Tell the exit status that this process will have, to whom may have to end it and cannot learn it."""
    global _exit_status
    _exit_status = status


def exit_status() -> int:
    """The status that the process was told to end with; 1 before that."""
    return _exit_status
