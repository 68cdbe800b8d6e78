"""Guesses at how a folder or a table is read: reader, pattern and columns, with what they would give.

Nothing is decoded. A guess is tried before it is made: its counts are those of the audit that its import would have.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from seral.audio.address import arrow_source, path_of
from seral.corpora import READERS
from seral.corpora.formats.audformat import HEADER
from seral.corpora.formats.audiofolder import TABLES
from seral.corpora.formats.kaldi import AUDIO_LIST
from seral.corpora.formats.label_studio import is_label_studio
from seral.corpora.formats.lhotse import MANIFEST as LHOTSE
from seral.corpora.formats.lhotse import kind_of
from seral.corpora.formats.webdataset import SUFFIXES, TAR
from seral.corpora.keywords import keywords
from seral.corpora.reading.join import OF_THE_CLIP
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, audio_files, files_below, walking_once
from seral.corpora.reading.utterance import Utterance
from seral.corpora.scheme import COVERED, Scheme, find_scheme
from seral.corpora.tables import Table, look_at_tables
from seral.errors import PoolError, ReaderError, StoreError
from seral.options import Options
from seral.pool.audit import AuditOptions, audit_corpus, render
from seral.progress import track
from seral.security.tables import open_parquet

ARCHIVES = SUFFIXES | {".arrow", ".parquet"}
"""Suffixes of files that hold many clips."""
SAMPLE = 5_000
"""Paths that a naming scheme is looked for in."""


LISTS = 12
"""Tables of toolkits that are looked at."""


class GuessOptions(Options):
    """Options of a guess."""

    root: str
    """The folder, or the table."""
    audio_root: str | None = None
    """The folder in which a table's paths of audio start, where it is not near the table."""


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One way to read a corpus."""

    reader: str
    root: str
    why: str
    """A clause for a person."""
    columns: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)
    """The reader's options besides the columns."""
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Our name -> the column or group that tells it."""
    allow_outside: bool = False
    """Whether audio lies outside of the folder."""

    def options(self) -> AuditOptions:
        """Options of an audit of the corpus, read so."""
        return AuditOptions(
            reader=self.reader,
            root=self.root,
            columns=dict(self.columns),
            reader_options=dict(self.choices),
            allow_outside=self.allow_outside,
        )

    def command(self) -> str:
        """The command that imports the corpus so."""
        words = ["seral", "pool", "import", self.reader, self.root, "--out", "POOL"]
        for name, column in self.columns.items():
            words += ["--column", f"{name}={column}"]
        for option in ("audio_root", "pattern"):
            if option in self.choices:
                words += [f"--{option.replace('_', '-')}", self.choices[option]]
        for name, codes in self.choices.get("maps", {}).items():
            words += ["--map", f"{name}=" + ",".join(f"{word}:{ours}" for word, ours in codes.items())]
        if votes := self.choices.get("votes"):
            words += ["--votes", _votes_text(votes)]
        for name, raters in self.choices.get("ratings", {}).items():
            words += ["--ratings", f"{name}={','.join(raters)}"]
        for table, key in self.choices.get("join", {}).items():
            words += ["--join", f"{table}={key}" if key else table]
        words += ["--allow-outside"] * self.allow_outside
        return shlex.join(words)


def _votes_text(votes: list[str] | dict[str, str]) -> str:
    return ",".join(votes if isinstance(votes, list) else (f"{name}={column}" for name, column in votes.items()))


def guess_corpus(options: GuessOptions) -> dict[str, Any]:
    """The first way to read a folder or a table that works, with its audit. Raises ReaderError where none does."""
    root, refusals = path_of(options.root), list[str]()
    if not root.exists():
        raise ReaderError(f"there is no folder and no table at {root}")
    audio = None if options.audio_root is None else path_of(options.audio_root)
    if audio is not None and not (root.is_file() and audio.is_dir()):
        raise ReaderError(f"audio_root is the folder of a table's audio: {root} is no table, or {audio} no folder")
    for proposal in _proposals(root, audio):
        try:
            audit = audit_corpus(proposal.options())
            if "outside" in audit["skipped"]:
                proposal = replace(proposal, allow_outside=True)
                audit = audit_corpus(proposal.options())
        except PoolError as error:
            refusals.append(f"{proposal.reader}: {error}")
            continue
        return {
            "reader": proposal.reader,
            "why": proposal.why,
            "mapping": dict(proposal.mapping),
            "command": proposal.command(),
            "refused": refusals,
            "audit": audit,
        }
    elsewhere = "; name the folder of its audio by --audio-root" if root.is_file() and audio is None else ""
    tried = "; ".join(refusals) or f"no audio, no table and no archive of audio below {root}{elsewhere}"
    raise ReaderError(f"{root} cannot be read as anything: {tried}")


def render_guess(guess: Mapping[str, Any]) -> str:
    """The guess as text: what it is, what it would give, and the command."""
    lines = [f"reader {guess['reader']}: {guess['why']}"]
    lines += [f"  {name:<14} {source}" for name, source in guess["mapping"].items()]
    lines += [f"  refused        {refusal}" for refusal in guess["refused"]]
    return "\n".join([*lines, render(guess["audit"]), "Import it, with another name for POOL:", guess["command"]])


def _proposals(root: Path, audio: Path | None) -> Iterator[Proposal]:
    """Ways to read it, the most telling first; `audio`: the folder of a table's audio."""
    if root.is_file():
        yield from _containers(root, [root])
        yield from _toolkits(root, [root])
        if root.suffix.lower() not in (".tar", ".arrow"):
            yield from _of_tables(audio or root.parent, [root])
        return
    files = audio_files(root, DECODABLE | TO_CONVERT)
    if (root / HEADER).is_file():
        yield Proposal(reader="audformat", root=str(root), why=f"there is an audformat header, {HEADER}")
    yield from _toolkits(root, files_below(root, rf"{LHOTSE}|(.*/)?{AUDIO_LIST}|[^/]+\.json(\.gz)?"))
    if files:
        yield from _corpora(root)
    else:
        yield from _containers(root, [file.path for file in audio_files(root, ARCHIVES)])
    if any(file.path.name in TABLES for file in audio_files(root, frozenset(Path(name).suffix for name in TABLES))):
        yield Proposal(reader="audiofolder", root=str(root), why=f"there is a table of file names, such as {TABLES[0]}")
    scheme = find_scheme([file.source for file in files[:: max(1, len(files) // SAMPLE)]]) if files else None
    yield from _of_tables(root, None, scheme)
    if files:
        yield _by_names(root, scheme)


def _containers(root: Path, files: list[Path]) -> Iterator[Proposal]:
    kinds = {file.suffix.lower() for file in files}
    if ".arrow" in kinds:
        yield Proposal(reader="hf-arrow", root=str(root), why="there are Arrow streams, as save_to_disk writes them")
    if any(file.suffix.lower() == ".parquet" and _holds_audio(file) for file in files[:1]):
        yield Proposal(reader="hf-parquet", root=str(root), why="there is Parquet with a column of audio")
    if any(TAR.fullmatch(file.name) for file in files):
        yield Proposal(reader="webdataset", root=str(root), why="there are tars")


def _toolkits(root: Path, files: list[Path]) -> Iterator[Proposal]:
    """Readers of toolkits whose tables some of the files are, looked at by their first row."""
    if root.is_dir() and any(file.name == AUDIO_LIST for file in files):
        yield Proposal(reader="kaldi", root=str(root), why=f"there is Kaldi's {AUDIO_LIST}")
    lists, documents = ([f for f in files if kind in f.name.lower()] for kind in (".jsonl", ".json"))
    if kinds := sorted({kind for file in lists[:LISTS] if (kind := kind_of(file))}):
        yield Proposal(reader="lhotse", root=str(root), why=f"there are Lhotse's {'s, '.join(kinds)}s")
    if any(is_label_studio(file) for file in documents[:LISTS] if file not in lists):
        yield Proposal(reader="label-studio", root=str(root), why="there is JSON of tasks, as Label Studio exports it")


def _holds_audio(file: Path) -> bool:
    try:
        schema = open_parquet(arrow_source(file), file).schema_arrow
    except StoreError:
        raise
    except (pa.ArrowException, OSError, PoolError):
        return False
    return any(pa.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0 for column in schema)


def _corpora(root: Path) -> Iterator[Proposal]:
    """Readers whose naming convention nearly all files follow, those of most utterances first."""
    counts: dict[str, tuple[int, int]] = {}
    corpora = [name for name, reader in READERS.items() if not {"columns", "corpus"} & keywords(reader).keys()]
    with walking_once(), track("trying readers", len(corpora)) as advance:
        for name in corpora:
            try:
                items = [*READERS[name](root)]
            except PoolError:
                items = []
            usable = sum(isinstance(item, Utterance) for item in items)
            counts[name] = usable, usable + sum(getattr(item, "reason", "") == "unreadable-name" for item in items)
            advance()
    for name, (usable, named) in sorted(counts.items(), key=lambda item: -item[1][0]):
        if usable and usable >= COVERED * named:
            why = f"{usable} of {named} files have the names of that corpus"
            yield Proposal(reader=name, root=str(root), why=why)


def _of_tables(root: Path, files: list[Path] | None, scheme: Scheme | None = None) -> Iterator[Proposal]:
    """The table that names audio, with those that tell more; else the tables and paths that tell of a folder's."""
    tables = look_at_tables(root, files)
    listing = [table for table in tables if table.start is not None][:1]
    more = [table for table in tables if table not in listing and table.key is not None and table.tells]
    used = [*listing, *more]
    if not used:
        return
    names = ", ".join(table.file.name for table in more)
    choices, columns, mapping = _choices(listing, more)
    if not listing:
        why, reader, start = f"audio can be joined to {names} by file name", "folder", root
        by_path = {name: f"(?P<{name}>" for name in (scheme.fields if scheme else ()) if name not in mapping}
        choices, mapping = choices | (scheme.choices if scheme and by_path else {}), mapping | by_path
    else:
        why = f"{listing[0].file.name} names audio files" + (f", and {names} can be joined" if more else "")
        reader, start = "manifest", listing[0].file
    yield Proposal(reader=reader, root=str(start), why=why, columns=columns, choices=choices, mapping=mapping)


def _choices(listing: list[Table], more: list[Table]) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Options of the reader, columns to name, and all that tell something: our name -> the column, for a person."""
    choices: dict[str, Any] = {"join": {str(table.file): table.key for table in more}} if more else {}
    columns, mapping = dict[str, str](), dict[str, str]()
    for table in [*listing, *more]:
        for name, column in table.named.items():
            if name not in mapping and (table in listing or name not in OF_THE_CLIP):
                mapping[name] = f"{column} of {table.file.name}"
                columns |= {name: column} if name in table.columns else {}
        if table.votes and "votes" not in choices:
            choices |= {"votes": table.votes} | ({"ratings": table.ratings} if table.ratings else {})
            mapping |= {"votes": _votes_text(table.votes)}
            mapping |= {name: ", ".join(raters) for name, raters in table.ratings.items()}
    for table in listing:
        choices |= {} if table.start == table.file.resolve().parent else {"audio_root": str(table.start)}
    return choices, columns, mapping


def _by_names(root: Path, scheme: Scheme | None) -> Proposal:
    """A way by all that folders and names say, else the files alone."""
    if scheme is None:
        return Proposal(reader="folder", root=str(root), why="names and folders tell nothing that is known here")
    names = ", ".join(scheme.fields)
    if scheme.by_folder:
        mapping = dict.fromkeys(scheme.fields, "the folder")
        return Proposal(reader="audiofolder", root=str(root), why=f"the folders tell {names}", mapping=mapping)
    mapping = {name: f"(?P<{name}>" for name in scheme.fields}
    why = f"the paths tell {names}"
    return Proposal(reader="folder", root=str(root), why=why, choices=scheme.choices, mapping=mapping)
