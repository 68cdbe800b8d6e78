"""The record of a reader in the table of readers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ser_models.registry import with_options
from seral.corpora.reading.utterance import Skipped, Utterance

Read = Callable[..., Iterable[Utterance | Skipped]]
"""(root, keyword arguments of the reader) -> its records."""


@dataclass(frozen=True)
class Reader:
    """One reader: the function that reads a corpus folder, and the size of complete copies."""

    read: Read
    totals: Mapping[str, int] = field(default_factory=dict)
    """Release -> utterances in it by the publishers' count, labelled or not; empty where unknown or for any corpus."""

    def __call__(self, root: Path, **arguments: Any) -> Iterator[Utterance | Skipped]:
        """The records of a corpus folder."""
        return iter(self.read(root, **arguments))


def as_reader(part: Any) -> Reader:
    """A reader of somebody else's: a record, or a function of the folder."""
    return part if isinstance(part, Reader) else Reader(with_options(part))
