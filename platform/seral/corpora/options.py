"""Options that say which corpus is read and how, the same for whoever reads one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from pydantic import Field

from seral.audio.address import path_of
from seral.corpora import READERS
from seral.corpora.keywords import find_reader, keywords
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.options import Options


class CorpusOptions(Options):
    """Options of reading one corpus."""

    reader: str
    """Reader of the corpus, a name in seral.corpora.READERS (`manifest` and `folder` read anything)."""
    root: str
    """The corpus folder, or the manifest file: on a disk, or in a store (`s3://`, `gs://`, whatever Arrow or fsspec
    reads)."""
    reader_options: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the reader, such as `labels: voice`; `seral pool import --help` lists them."""
    columns: dict[str, str] = Field(default_factory=dict)
    """For readers of tables: our name -> the file's column, where the usual names do not fit."""
    corpus: str | None = Field(default=None, pattern=r"^[^/\\]+$")
    """The corpus name in the pool, where the reader's own (for `manifest` and `folder` the folder's) will not do."""


def read_corpus(options: CorpusOptions) -> Iterable[Utterance | Skipped]:
    """The records of a corpus. Raises OptionError for a reader or an option that is not there, else ReaderError."""
    arguments = options.reader_options | ({"columns": options.columns} if options.columns else {})
    named = options.corpus is not None and options.reader in READERS and "corpus" in keywords(READERS[options.reader])
    read = find_reader(options.reader, arguments | ({"corpus": options.corpus} if named else {}))
    items = read(path_of(options.root))
    return items if named or options.corpus is None else _renamed(items, options.corpus)


def _renamed(items: Iterable[Utterance | Skipped], corpus: str) -> Iterator[Utterance | Skipped]:
    return (replace(item, corpus=corpus) for item in items)
