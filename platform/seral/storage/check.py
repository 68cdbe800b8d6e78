"""Every file of a folder read and compared with its checksum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ser_models.checksums import SUMS
from seral.errors import PoolError
from seral.storage.addresses import join
from seral.storage.files import checksum, exists, read_bytes
from seral.storage.records import damaged, has_checksum, read_json, read_sealed, read_yaml
from seral.storage.tables import check_table

READERS = {".json": read_json, ".yaml": read_yaml, ".pt": read_sealed}
"""End of the name of a file with its own checksum -> reads it, and raises an error where it is damaged."""


@dataclass
class FileCheck:
    """The outcome for some files."""

    files: int = 0
    """Files that were compared with a checksum."""
    without: list[str] = field(default_factory=list)
    """Files of kinds that have a checksum today, and that have none: of older releases, or of others."""
    problems: list[str] = field(default_factory=list)
    """Sentences that name a file each."""


def check_files(folder: str, names: Iterable[str]) -> Iterator[FileCheck]:
    """Read files of a folder, names relative to it, and yield the outcome of each."""
    wanted = sorted(names)
    lists = [name for name in wanted if name.rpartition("/")[2] == SUMS]
    covered = {join(name.rpartition("/")[0], file) for name in lists for _, file in _lines(join(folder, name))}
    for name in wanted:
        if name in lists:
            yield _listed(join(folder, name))
        else:
            yield FileCheck() if name in covered else _own(join(folder, name))


def _own(uri: str) -> FileCheck:
    """A file with a checksum of its own."""
    outcome, suffix = FileCheck(), f".{uri.rpartition('.')[2]}"
    try:
        if suffix == ".parquet":
            verified = check_table(uri)
        elif (read := READERS.get(suffix)) is not None:
            read(uri)
            verified = has_checksum(read_bytes(uri))
        else:
            return outcome
    except PoolError as error:
        outcome.problems.append(str(error))
        verified = True
    except FileNotFoundError:  # it was replaced while this went on
        return outcome
    outcome.files += int(verified)
    outcome.without += [] if verified else [uri]
    return outcome


def _listed(uri: str) -> FileCheck:
    """The files whose checksums a list of them has."""
    folder, outcome = uri.rpartition("/")[0], FileCheck()
    for digest, name in _lines(uri):
        file = join(folder, name)
        if not exists(file):
            outcome.problems.append(f"{file} is missing, which {uri} lists")
        elif checksum(file).sha256 != digest:
            outcome.problems.append(str(damaged(file)))
        outcome.files += 1
    return outcome


def _lines(uri: str) -> list[tuple[str, str]]:
    lines = [line.partition("  ") for line in read_bytes(uri).decode(errors="replace").splitlines()]
    return [(digest, name) for digest, _, name in lines]
