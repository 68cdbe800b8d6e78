"""Object stores, asked with patience.

Whatever Arrow knows is a store (`s3://`, `gs://`, `abfs://`, `hdfs://`), and whatever fsspec does. One that is busy,
breaks a connection or says nothing is asked again, with rising waits that are in part by chance, so that many machines
do not come back at once. Arrow itself waits for ever for an answer: so every question is put by a thread of its own,
which is given up when it makes no progress.

SERAL_STORE_PATIENCE_S: seconds for which a store is asked again before a command ends, 120 unless it is set; a third of
them are waited for one answer.
"""

from __future__ import annotations

import atexit
import io
import os
import random
import re
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.fs as pafs

from seral.errors import DeniedError, OptionError, StoreError
from seral.process.ending import exit_status

PATIENCE = "SERAL_STORE_PATIENCE_S"
PATIENCE_S = 120.0
ANSWER = 1 / 3
"""Share of the patience that one answer, or eight megabytes, may take."""
MANY = 3
"""Times as long that may take what is many requests inside: a listing, a folder that is deleted."""
LEAST_TRIES = 3
WAITS_S = (0.25, 10.0)
"""First wait before the same question, and the longest."""
REQUEST_TRIES = 6
"""Times that Arrow itself sends one request of S3 within a question, in all over 1.6 seconds."""
CONNECT_S = 10.0
EMPTY_TRIES = 3
"""Times that a file without a byte is looked at: of one whose answer was cut before it told them Arrow says so too."""
BLOCK = 1 << 23
"""Bytes that are read or written at a time."""
LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
"""Errors that another try does not mend."""
DENIED = re.compile(
    r"ACCESS_DENIED|PERMISSION_DENIED|UNAUTHENTICATED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|EXPIRED_TOKEN"
    r"|SIGNATURE_DOES_NOT_MATCH|\b40[13]\b"
)
NO_BUCKET = re.compile(r"NO_SUCH_BUCKET|^Bucket '.*' not found|ContainerNotFound")

_GIVEN_UP: list[threading.Thread] = []
"""Threads that nobody waits for any more; some may still get an answer."""

T = TypeVar("T")
Progress = Callable[[], None]


def located(address: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a store, which is asked with patience, and a path in it. Raises OptionError where nobody knows
    such stores, and StoreError."""
    scheme, _, behind = address.partition("://")
    behind, mark, settings = behind.partition("?")
    host, _, inside = behind.partition("/")
    if scheme == "file":
        return pafs.FileSystem.from_uri(address)  # type: ignore[no-any-return]
    fs, base = store(scheme, host, mark + settings)
    return fs, "/".join([base.rstrip("/"), unquote(inside).rstrip("/")]) if inside else base


def store(scheme: str, host: str, settings: str = "") -> tuple[pafs.FileSystem, str]:
    """The file system of a store, made once in a process, and the path of its bucket in it."""
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    return _store(f"{scheme}://{host}{settings}", environment)


@lru_cache(maxsize=16)
def _store(root: str, _environment: tuple[tuple[str, str], ...]) -> tuple[pafs.FileSystem, str]:
    fs, base = patiently(lambda _: _client(root), root)
    return pafs.PyFileSystem(Patient(root, fs)), base


def _client(root: str) -> tuple[pafs.FileSystem, str]:
    try:
        fs, base = pafs.FileSystem.from_uri(root)
    except pa.ArrowInvalid as unknown:
        try:
            import fsspec  # late: no command on a local disk waits for it

            fs, base = fsspec.core.url_to_fs(root)
        except (ValueError, ImportError) as error:
            reasons = f"neither Arrow ({unknown}) nor fsspec ({error}) reads such addresses"
            raise OptionError(f"{root}: {reasons}") from None
        return pafs.PyFileSystem(pafs.FSSpecHandler(fs)), base
    if isinstance(fs, pafs.S3FileSystem):
        # Its own three tries are 2 and 4 seconds apart. A small file that need not be opened first is one request.
        _, (values,) = fs.__reduce__()
        tries = pafs.AwsDefaultS3RetryStrategy(max_attempts=REQUEST_TRIES)
        values |= {"retry_strategy": tries, "connect_timeout": CONNECT_S, "allow_delayed_open": True}
        fs = pafs.S3FileSystem(**values)
    return fs, base


def patience_s() -> float:
    """Seconds for which a store is asked. Raises OptionError where the environment says something else."""
    text = os.environ.get(PATIENCE, str(PATIENCE_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise OptionError(f"{PATIENCE} is a number of seconds above 0, got {text!r}")
    return seconds


def patiently(work: Callable[[Progress], T], what: str, *, share: float = ANSWER) -> T:
    """The outcome of asking a store for `what`, which is asked again while it is busy, breaks off or says nothing.

    `work` has a function to call whenever it makes progress; without that for `share` of the patience it is given up.
    Raises the errors of LASTING as they are, DeniedError, and StoreError when it stays so.
    """
    since, patience, number, wait_s = time.monotonic(), patience_s(), 0, WAITS_S[0]
    while True:
        number += 1
        try:
            return _watched(work, share * patience)
        except LASTING:
            raise
        except OSError as error:
            reason = str(error).partition("\n")[0]
            if isinstance(error, PermissionError) or DENIED.search(reason):
                raise DeniedError(
                    f"{what}: the store refuses this ({reason}). Look at the credentials, and at what they may read "
                    "and write there; the same command then goes on"
                ) from error
            if NO_BUCKET.search(reason):
                raise StoreError(f"{what}: there is no such bucket. Make it, or mend the address") from error
            asked_s = time.monotonic() - since
            if asked_s + wait_s > patience and number >= LEAST_TRIES:
                raise StoreError(
                    f"{what}: the store does not do this, asked {number} times in {asked_s:.0f} s: {reason}. "
                    "The same command goes on where this one ended"
                ) from error
            time.sleep(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, WAITS_S[1])


def _watched(work: Callable[[Progress], T], silence_s: float) -> T:
    """The outcome of work in a thread of its own. Raises TimeoutError when it makes no progress for so long."""
    outcome, last, given_up = Future[T](), [time.monotonic()], threading.Event()

    def progress() -> None:
        last[0] = time.monotonic()
        if given_up.is_set():  # nobody waits; a stream that is let go of would make a file of the half that it has
            threading.Event().wait()

    def run() -> None:
        try:
            outcome.set_result(work(progress))
        except BaseException as error:
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="store", daemon=True)
    thread.start()
    while not outcome.done():
        silent_s = time.monotonic() - last[0]
        if silent_s >= silence_s:
            given_up.set()
            _GIVEN_UP.append(thread)
            raise TimeoutError(f"no answer within {silence_s:.3g} s")
        try:
            return outcome.result(silence_s - silent_s)
        except TimeoutError:  # the work's own, or nothing yet
            continue
    return outcome.result()


@atexit.register  # after pyarrow's own, and so called before
def _leave() -> None:
    """End the process at once where a thread still waits for a store: Arrow would wait for it for ever, or crash."""
    if any(thread.is_alive() for thread in _GIVEN_UP):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(exit_status())


def upload(fs: pafs.FileSystem, path: str, file: BinaryIO) -> None:
    """Write a local file, whole or not at all, to a path of a file system that `located` gave."""
    fs.handler.upload(path, file)


def remote_file(fs: pafs.FileSystem, path: str) -> RemoteFile:
    """A file to read, as Python reads it, of a file system that `located` or `store` gave. Raises FileNotFoundError."""
    remote: RemoteFile = fs.handler.remote_file(path)
    return remote


class RemoteFile(io.RawIOBase):
    """A file in a store; whatever is read is asked for with patience, eight megabytes at a time."""

    def __init__(self, fs: pafs.FileSystem, path: str, what: str) -> None:
        self._what, self._at = what, 0
        self._file, self._size = patiently(lambda _: _opened(fs, path), what)

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes before the next that is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a byte of the file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, fewer only at the file's end; all that are left for -1."""
        left = max(0, self._size - self._at)
        end = self._at + (left if size is None or size < 0 else min(size, left))
        parts = []
        while self._at < end:
            parts.append(patiently(partial(self._part, self._at, min(BLOCK, end - self._at)), self._what))
            self._at += len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readall(self) -> bytes:
        """All that is left."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _part(self, at: int, count: int, _: Progress) -> bytes:
        data: bytes = self._file.read_at(count, at)
        if len(data) < count:
            raise OSError(f"of {count} bytes {len(data)} came")
        return data


def _opened(fs: pafs.FileSystem, path: str) -> tuple[pa.NativeFile, int]:
    """A file and its bytes."""
    for _ in range(EMPTY_TRIES):
        file = fs.open_input_file(path)
        if file.size():
            break
    return file, file.size()


class Patient(pafs.FileSystemHandler):  # type: ignore[misc]  # pyarrow has no types
    """A store's file system, every question to which is asked with patience."""

    def __init__(self, root: str, fs: pafs.FileSystem) -> None:
        self._root, self._fs = root, fs

    def __reduce__(self) -> tuple[Any, ...]:
        return _handler, (self._root,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patient) and self._root == other._root

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._root)

    def get_type_name(self) -> str:
        """The store's kind, such as `s3`."""
        return str(self._fs.type_name)

    def normalize_path(self, path: str) -> str:
        """A path as the store has it."""
        return str(self._fs.normalize_path(path))

    def get_file_info(self, paths: list[str]) -> list[pafs.FileInfo]:
        """Kinds, sizes and times of files."""
        return self._ask(lambda _: self._informed(paths), paths[0] if paths else "")

    def _informed(self, paths: list[str]) -> list[pafs.FileInfo]:
        infos: list[pafs.FileInfo] = []
        for _ in range(EMPTY_TRIES):
            infos = self._fs.get_file_info(paths)
            if all(info.size or info.type != pafs.FileType.File for info in infos):
                break
        return infos

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """All that is in a folder."""
        return self._ask(lambda _: self._fs.get_file_info(selector), selector.base_dir, MANY)

    def create_dir(self, path: str, recursive: bool) -> None:
        """Make a folder, where the store has any."""
        self._ask(lambda _: self._fs.create_dir(path, recursive=recursive), path)

    def delete_dir(self, path: str) -> None:
        """Delete a folder with all in it."""
        self._delete(self._fs.delete_dir, path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        """Delete all in a folder."""
        self._delete(partial(self._fs.delete_dir_contents, missing_dir_ok=missing_dir_ok), path)

    def delete_root_dir_contents(self) -> None:
        """Refused: that would be all buckets."""
        raise PermissionError(f"{self._root}: all of a store is not deleted")

    def delete_file(self, path: str) -> None:
        """Delete a file."""
        self._delete(self._fs.delete_file, path)

    def move(self, src: str, dest: str) -> None:
        """Copy a file and delete the source."""
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        """Copy a file inside the store."""
        self._ask(lambda _: self._fs.copy_file(src, dest), src, MANY)

    def open_input_stream(self, path: str) -> pa.PythonFile:
        """A file to read."""
        return self.open_input_file(path)

    def open_input_file(self, path: str) -> pa.PythonFile:
        """A file to read from anywhere."""
        return pa.PythonFile(self.remote_file(path), mode="r")

    def remote_file(self, path: str) -> RemoteFile:
        """A file as Python reads it."""
        return RemoteFile(self._fs, path, self._address(path))

    def open_output_stream(self, path: str, metadata: object) -> pa.NativeFile:
        """Refused: half a file cannot be written again. `upload` does."""
        raise NotImplementedError(f"{self._address(path)} is written by upload")

    def open_append_stream(self, path: str, metadata: object) -> pa.NativeFile:
        """Refused: no store does."""
        raise NotImplementedError(f"{self._address(path)}: nothing is appended to a file in a store")

    def upload(self, path: str, file: BinaryIO) -> None:
        """Write a local file, whole or not at all."""

        def attempt(progress: Progress) -> None:
            stream, at = self._fs.open_output_stream(path, compression=None), 0  # of x.gz as well
            while block := os.pread(file.fileno(), BLOCK, at):  # several attempts may read at once
                stream.write(block)
                at += len(block)
                progress()
            stream.close()

        file.flush()
        self._ask(attempt, path)

    def _delete(self, delete: Callable[[str], None], path: str) -> None:
        """Delete; missing is what was wanted where an answer before has got lost."""
        tries = [0]

        def attempt(_: Progress) -> None:
            tries[0] += 1
            try:
                delete(path)
            except FileNotFoundError:
                if tries[0] == 1:
                    raise

        self._ask(attempt, path, MANY)

    def _address(self, path: str) -> str:
        return f"{self._root.partition('://')[0]}://{path}"

    def _ask(self, work: Callable[[Progress], T], path: str, times: int = 1) -> T:
        return patiently(work, self._address(path), share=times * ANSWER)


def _handler(root: str) -> Patient:
    """The handler of a store, in another process."""
    return Patient(root, patiently(lambda _: _client(root), root)[0])
