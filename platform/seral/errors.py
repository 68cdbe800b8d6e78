"""Everything seral raises on purpose, drawn as one tree.

SeralError
├── OptionError        a configuration value is wrong: names the field, what was given and what is allowed
├── PoolError          a pool, shard or manifest is missing, damaged or unfit
│   ├── ReaderError    a corpus folder does not look like the corpus it was said to be
│   ├── StoreError     an object store does not answer, however often it is asked
│   │   └── DeniedError  one refuses: credentials, or what they may do
│   └── DamagedError   bytes of a file are not those that were written
├── DiskError         a disk, or a share of one, has no room for a file
├── SplitError         a split leaks a speaker or cannot be made
├── LabelError         a label is missing, unknown or contradicts the class map or another
├── FeatureError       features are missing, not finite, there twice, or come from another encoder
├── TrainError         training cannot start or has gone wrong (dead adapter, NaN loss)
├── SelectionError     a strategy was asked for something it cannot give
│   └── LostPart       a machine went that held a part of the pool
├── JobError           a cluster, or its job server, refuses or cannot be reached
├── AwaitingLabels     people have not answered yet; nothing is wrong
└── StateError         a run folder is inconsistent with what was asked of it
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seral.secrets.addresses import complaint, mask

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, of a quota, and of a limit for files."""


class SeralError(Exception):
    """Base of every error seral raises on purpose; the command line prints it without a traceback.

    Passwords of addresses in its words are masked.
    """

    lasting = True
    """Whether another try of the same work must end in it again."""

    def __init__(self, *words: object) -> None:
        super().__init__(*(mask(word) if isinstance(word, str) else word for word in words))


class OptionError(SeralError):
    """A configuration value is wrong."""


class PoolError(SeralError):
    """A pool, one of its shards or its manifest is missing, damaged or unfit for the request."""


class ReaderError(PoolError):
    """A corpus folder does not look like the corpus it was said to be."""


class StoreError(PoolError):
    """An object store does not answer, however often it is asked."""

    lasting = False


class DeniedError(StoreError):
    """An object store refuses: the credentials are none of its own, or may not do this."""

    lasting = True


class DamagedError(PoolError):
    """Bytes of a file, of a pool or of any other folder of seral's, are not those that were written."""


class DiskError(SeralError):
    """A disk, or a share of one, has no room for a file."""


class SplitError(SeralError):
    """A split leaks a speaker between train, dev and test, or cannot be made from this pool."""


class LabelError(SeralError):
    """A label is missing, unknown, or contradicts the class map or another."""


class FeatureError(SeralError):
    """Features are missing, not finite, there twice, or were made by another encoder."""


class TrainError(SeralError):
    """Training cannot start or has gone wrong."""


class SelectionError(SeralError):
    """A strategy was asked for something it cannot give."""


class LostPart(SelectionError):
    """A machine went, or a process, that held a part of the pool."""

    lasting = False


class JobError(SeralError):
    """A cluster, or its job server, refuses or cannot be reached."""


class AwaitingLabels(SeralError):
    """People have not answered yet. Nothing is wrong: the same command goes on once they have."""

    status = 75
    """Exit status of a command: EX_TEMPFAIL of sysexits.h, "try again later"."""


class StateError(SeralError):
    """A run folder is inconsistent with what was asked of it."""


@contextmanager
def room_for(path: str | Path) -> Iterator[None]:
    """Raise DiskError, which names the file, where the disk that it is written to in the block is full."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskError(
            f"{path} cannot be written: {error.strerror}. Make room; the same command then goes on"
        ) from error


MISTAKES = (ValueError, TypeError, LookupError, AttributeError, NameError, ImportError)
"""Errors of Python's that are a program's, or its options', and come again however often it is called."""


def is_lasting(error: BaseException) -> bool:
    """Whether another try of what failed must fail again, unlike where a machine went or a store was silent."""
    return error.lasting if isinstance(error, SeralError) else isinstance(error, MISTAKES)


def sentence(error: BaseException) -> str:
    """The words of an error, without those that Ray adds to one that comes from a worker."""
    cause = getattr(error, "cause", None)
    text = str(cause if isinstance(cause, SeralError) else error)
    return mask(text.partition("\nFailed to apply UDF")[0])


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
    """The sentence for an unknown name: what was given, what is valid, and what is near."""
    from ser_models.registry import did_you_mean

    names = sorted(valid)
    return f"unknown {kind} {name!r}; known: {', '.join(names)}{did_you_mean(name, names)}"


def refuse_secrets(arguments: Sequence[str]) -> None:
    """Raise OptionError for an address with a password among the arguments of a command.

    Everybody on a machine may read the command lines there, and a shell keeps them.
    """
    for argument in arguments:
        if reason := complaint(argument):
            raise OptionError(reason)
