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
from seral.security.paths import Folder, check_name
from seral.security.text import TextLimits, limited


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
    allow_outside: bool = False
    """Take audio that lies outside of the corpus folder (or `audio_root`): absolute paths and `..` in tables, links."""
    max_text_mb: float = Field(default=16.0, gt=0)
    """Longer lines of tables, and members with text in tars, are refused, in MB."""
    max_nesting: int = Field(default=64, ge=1)
    """JSON that is nested more deeply is refused."""


def read_corpus(options: CorpusOptions) -> Iterable[Utterance | Skipped]:
    """The records of a corpus. Raises OptionError for a reader or an option that is not there, else ReaderError."""
    arguments = options.reader_options | ({"columns": options.columns} if options.columns else {})
    named = options.corpus is not None and options.reader in READERS and "corpus" in keywords(READERS[options.reader])
    read = find_reader(options.reader, arguments | ({"corpus": options.corpus} if named else {}))
    root = path_of(options.root)
    limits = TextLimits(characters=int(options.max_text_mb * 1e6), nesting=options.max_nesting)
    items = limited(iter(read(root)), limits)
    if not named and options.corpus is not None:
        items = (replace(item, corpus=options.corpus) for item in items)
    folders = [root if root.is_dir() else root.parent]
    if audio_root := options.reader_options.get("audio_root"):
        folders.append(path_of(audio_root))
    return _checked(items, [] if options.allow_outside else [Folder(folder.resolve()) for folder in folders])


def _checked(items: Iterable[Utterance | Skipped], folders: list[Folder]) -> Iterator[Utterance | Skipped]:
    """The records, but for those whose audio lies in none of the folders, if there are any: they are left out."""
    corpora = set[str]()
    for item in items:
        if item.corpus not in corpora:
            corpora.add(check_name(item.corpus, "the corpus"))
        if isinstance(item, Skipped):
            yield item
        elif "\0" in str(item.audio):
            yield _left_out(item, "unreadable-name", "no path may have a NUL")
        elif folders and not any(folder.has(item.audio) for folder in folders):
            detail = f"{item.audio} is not below {folders[-1].root}; where that is meant to be so: --allow-outside"
            yield _left_out(item, "outside", detail)
        else:
            yield item


def _left_out(item: Utterance, reason: str, detail: str) -> Skipped:
    source = item.source.replace("\0", "\\0")
    return Skipped(source=source, corpus=item.corpus, reason=reason, detail=detail, size=-1)
