"""Every change of a file as a point to be stopped at: killed before it, or told that the disk is full or broken.

A command runs in a fork of this process and is stopped before its k-th change of a file, for every k; then the same
command runs again, undisturbed, and what it leaves is compared with a twin that nobody stopped. Changes are files that
are opened for writing, brought to the disk, renamed, linked and deleted, and folders that are made or deleted; a folder
that is deleted or copied counts by its files. Of a database every statement and every commit is a change.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import sqlalchemy as sa

from seral import storage
from seral.errors import SeralError
from seral.storage import files, tables

EVENTS = {"os.rename": 0, "os.remove": 0, "os.link": 1, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0}
"""Python's own events of changes -> which of their arguments is the path."""
WRITING = os.O_CREAT | os.O_TRUNC | os.O_APPEND
HOWS = {"kill": 0, "ENOSPC": errno.ENOSPC, "EIO": errno.EIO}
"""Ways to stop a command, by SIGKILL or by an error of the system -> the number of the error."""
DONE, SENTENCE, OTHER = 0, 3, 4
"""Exit statuses of a fork: it came to its end, it ended in a sentence, it ended in anything else."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A command that works in a folder, in this process."""

    prepare: Callable[[Path], object]
    """Makes in an empty folder what the command needs."""
    call: Callable[[Path], object]
    """The command."""
    outcome: Callable[[Path], object]
    """Makes, of its folder afterwards, a value that is the same for every twin."""


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A try: a command that was stopped, and what became of it."""

    change: int
    """Number of the change that it was stopped before, from 1."""
    how: str
    path: str
    """The file of the change."""
    complaint: str | None
    """Reason why it did not survive."""


def stops(subject: Subject, folder: Path, how: str = "kill", *, first: int = 1, every: int = 1) -> Iterator[Stop]:
    """Stop a command at every change, or every so manyth from the first on, that it makes below a folder.

    The folder is emptied before.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "whole").mkdir(parents=True)
    subject.prepare(folder / "whole")
    shutil.copytree(folder / "whole", folder / "pristine")
    if (status := _forked(lambda: subject.call(folder / "whole"))) != DONE:
        raise AssertionError(f"undisturbed it ends with {status}")
    # Addresses stand in what is left, so that each try works where the twin did.
    expected = subject.outcome(folder / "whole")
    change = first
    while True:
        shutil.rmtree(folder / "whole")
        shutil.copytree(folder / "pristine", folder / "whole")
        status = _forked(lambda change=change: subject.call(folder / "whole"), folder, how, change)  # type: ignore[misc]
        note = folder / "stopped-at"
        if not note.exists():
            return
        path = note.read_text()
        note.unlink()
        yield Stop(change=change, how=how, path=path, complaint=_complaint(subject, folder, how, status, expected))
        change += every


def _complaint(subject: Subject, folder: Path, how: str, status: int, expected: object) -> str | None:
    if how == "kill" and status != -signal.SIGKILL:
        return f"it ended with {status} before it was killed"
    if how != "kill" and status not in (DONE, SENTENCE):  # an error that does no harm may be passed over
        return "it ended in no sentence"
    if (again := _forked(lambda: subject.call(folder / "whole"))) != DONE:
        return f"the same command again ends with {again}"
    if subject.outcome(folder / "whole") != expected:
        return "the same command again leaves something else"
    return None


def _forked(call: Callable[[], object], folder: Path | None = None, how: str = "", change: int = 0) -> int:
    """Run in a fork, stopped at a change where one is named; its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        _run(call, folder, how, change)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _run(call: Callable[[], object], folder: Path | None, how: str, change: int) -> NoReturn:
    status = OTHER
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        if folder is not None:
            _stop_at(folder, how, change)
        else:
            os.dup2(silence, 2)
        call()
        status = DONE
    except (SeralError, OSError):
        status = SENTENCE
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@dataclass
class _Counter:
    """The changes of this process below a folder, which is stopped before one of them."""

    folder: Path
    how: str
    change: int
    number: int = 0

    def count(self, path: Any) -> None:
        """Count a change of a file, and stop before it if it is the one."""
        if not isinstance(path, str | os.PathLike) or not os.path.abspath(os.fspath(path)).startswith(
            str(self.folder / "whole")
        ):
            return
        self.number += 1
        if self.number != self.change:
            return
        (self.folder / "stopped-at").write_text(os.fspath(path))
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(HOWS[self.how], os.strerror(HOWS[self.how]), os.fspath(path))

    def heed(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python's hook: called before whatever it does with files."""
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
            self.count(arguments[0])
        elif event in EVENTS:
            self.count(arguments[EVENTS[event]])


def _stop_at(folder: Path, how: str, change: int) -> None:
    counter, finish = _Counter(folder, how, change), files.finish

    def finish_counted(file: BinaryIO) -> None:
        counter.count(file.name)
        finish(file)

    for name, act in (("finish", finish_counted), ("remove", _remove), ("move", _move), ("copy_folder", _copy_folder)):
        for module in (storage, files, tables):
            if hasattr(module, name):
                setattr(module, name, act)
    sys.addaudithook(counter.heed)
    sa.event.listen(sa.Engine, "before_cursor_execute", lambda connection, *_: counter.count(_database(connection)))
    sa.event.listen(sa.Engine, "commit", lambda connection: counter.count(_database(connection)))


def _database(connection: sa.Connection) -> str | None:
    return connection.engine.url.database


# pyarrow's ways to delete, rename and copy do not tell Python of single files; these do.


def _remove(uri: str | Path) -> None:
    path = Path(storage.absolute(uri))
    with suppress(FileNotFoundError):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _move(source: str | Path, target: str | Path) -> None:
    os.rename(source, target)


def _copy_folder(source: str | Path, target: str | Path) -> None:
    _remove(target)
    for name in ("", *storage.list_files(source)):
        if name:
            storage.copy_file(storage.join(source, name), storage.join(target, name))
        else:
            storage.make_folder(target)
