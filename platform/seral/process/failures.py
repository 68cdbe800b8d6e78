"""Errors of the machine as sentences: disks, rights, limits, databases, damaged files, Ray.

Errors of modules that no one has loaded cannot have come, so none is loaded to know them.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Mapping

from seral.errors import NO_ROOM, SeralError, sentence
from seral.progress import verbose
from seral.secrets.addresses import mask

SHOWS_TRACEBACK = "SERAL_TRACEBACK"
"""Variable of the environment: where it is not empty, a sentence comes after the traceback."""
GOES_ON = "the same command then goes on"
ADVICE = {
    **dict.fromkeys(NO_ROOM, "Make room"),
    errno.EACCES: "Give this user the right to it",
    errno.EPERM: "Give this user the right to it",
    errno.EROFS: "Mount its disk so that it can be written to",
    errno.EMFILE: "Allow a process more open files (ulimit -n)",
    errno.ENFILE: "Allow the machine more open files (sysctl fs.file-max)",
    errno.EIO: "Its disk, or the way to it, is failing: look into the machine's log (dmesg)",
    errno.ESTALE: "Mount its disk again",
    errno.ENOENT: "Bring it back, or name where it is now",
    errno.ENOMEM: "Free memory",
    errno.EAGAIN: "Allow more processes (ulimit -u)",
}
"""Advice about an error of the system, by its number."""
DAMAGED: Mapping[str, tuple[str, ...]] = {
    "pyarrow": ("ArrowInvalid", "ArrowSerializationError", "ArrowNotImplementedError"),
    "safetensors": ("SafetensorError",),
}
"""Errors of a file that is not what its name says, by the module that raises them."""
TRACES = (
    "Parquet",
    "parquet",
    "Thrift",
    "thrift",
    "footer",
    "ompress",
    "orrupt",
    "snappy",
    "eserializ",
    "IPC",
    "header",
)
"""Words of which an error of a damaged file has one, where no note names the file."""
DATABASE = ("sqlite3", "sqlalchemy.exc")
LOST_BY_RAY = (
    *("LocalRayletDiedError", "NodeDiedError", "WorkerCrashedError", "ActorDiedError", "ActorUnavailableError"),
    *("RayActorError", "OutOfMemoryError", "OutOfDiskError", "ObjectStoreFullError", "ObjectLostError"),
    *("ObjectFetchTimedOutError", "OwnerDiedError", "ObjectReconstructionFailedError", "RpcError", "RaySystemError"),
)
"""Errors of Ray that say that a machine, a process or what it had in memory is gone."""


def explanation(error: BaseException) -> str | None:
    """The sentence about an error of ours or of the machine's, with what to do; None for an error of the code.

    An error that Ray brings from a worker is looked at as what it was there. With SERAL_TRACEBACK in the environment,
    or `--verbose`, its traceback is printed.
    """
    cause = error
    while isinstance(inner := getattr(cause, "cause", None), BaseException):
        cause = inner
    words = sentence(error) if isinstance(cause, SeralError) else _of_the_machine(cause)
    if words is not None and (os.environ.get(SHOWS_TRACEBACK) or verbose()):
        print(mask("".join(traceback.format_exception(error))), file=sys.stderr)
    return None if words is None else mask(words)


def _of_the_machine(error: BaseException) -> str | None:
    kinds = [(kind.__module__, kind.__name__) for kind in type(error).__mro__]
    if isinstance(error, MemoryError):
        return f"the machine has no memory left ({_line(error)}). Free some, and {GOES_ON}"
    if _is_of_a_damaged_file(error):
        named = next(iter(getattr(error, "__notes__", ())), "a file")
        return f"{named} is damaged: {_line(error)}. Put a copy of it back, or have it made anew; {GOES_ON}"
    if isinstance(error, OSError):
        return _of_the_system(error)
    if any(module.startswith(DATABASE) and name.endswith("Error") for module, name in kinds):
        return f"the database does not do what it should: {_line(getattr(error, 'orig', error))}. See to it; {GOES_ON}"
    if any(module == "ray.exceptions" and name in LOST_BY_RAY for module, name in kinds):
        if getattr(error, "actor_init_failed", False):
            return None
        return f"Ray has lost what the work needs: {_line(error)}. Give the same command again: it goes on"
    return None


def _is_of_a_damaged_file(error: BaseException) -> bool:
    """Whether a file was being read, and is not what its name says."""
    raisers = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    of_a_reader = any((module, name) in raisers for module, names in DAMAGED.items() for name in names)
    if not of_a_reader and not (isinstance(error, OSError) and error.errno is None):
        return False
    return bool(getattr(error, "__notes__", ())) or any(trace in str(error) for trace in TRACES)


def _of_the_system(error: OSError) -> str:
    words = f"{error.filename}: {error.strerror}" if error.filename and error.strerror else _line(error)
    return f"{words}. {ADVICE.get(error.errno or 0, 'Set that right')}; {GOES_ON}"


def _line(error: BaseException) -> str:
    """The first line of what an error says, without a full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip().rstrip(".")
