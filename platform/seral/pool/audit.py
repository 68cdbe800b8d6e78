"""Audits of corpus folders: content against expectation, missing partners, surprises, counts.

Nothing is decoded: this is about names and labels. What is wrong with the audio itself stands in the quarantine of a
pool once the corpus was imported, and is reported along when the pool is named.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from seral import storage
from seral.audio.address import path_of
from seral.audio.quality import REASONS
from seral.corpora import READERS
from seral.corpora.options import CorpusOptions, read_corpus
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.pool.shards import open_pool

BELONGS = ("known-bad", "no-label", "conflict")
"""Reasons of audio that is part of the corpus although it is left out."""
LOOKS_COMPLETE = 0.9
"""A copy with at least this share of a release is taken for a whole one; a smaller one is somebody's choice."""
FACTS = ("emotion", "speaker", "gender", "session", "language", "style", "split")
SHOWN = 5
"""Examples, and counts, that the text shows of a longer list."""


class AuditOptions(CorpusOptions):
    """Options of an audit of one corpus: those of its import, and these."""

    pool: str | None = None
    """A pool that the corpus was imported into, to report its quarantine too."""
    out: str | None = None
    """Write everything found to this JSON file."""


def audit_corpus(options: AuditOptions) -> dict[str, Any]:
    """Everything worth knowing of a corpus folder before it is imported, as plain values. Raises ReaderError."""
    root = path_of(options.root)
    items = list(read_corpus(options))
    utterances = [item for item in items if isinstance(item, Utterance)]
    skipped = [item for item in items if isinstance(item, Skipped)]
    count = belonging(len(utterances), (item.reason for item in skipped))
    audit = {
        "reader": options.reader,
        "root": options.root,
        "reader_options": options.reader_options,
        "columns": options.columns,
        "utterances": len(utterances),
        "found": count,
        "expected": dict(READERS[options.reader].totals),
        "remark": total_remark(options.reader, count),
        "skipped": _by_reason(skipped),
        "missing": [item.source for item in utterances if not item.audio.is_file()],
        "left_out": _left_out(root, items),
        "names_twice": _names_twice(utterances),
        "counts": {fact: _counts(getattr(item, fact) for item in utterances) for fact in FACTS},
        "votes": _votes(utterances),
        "quarantine": {} if options.pool is None else _quarantine(options.pool, {item.corpus for item in items}),
    }
    if options.out is not None:
        storage.write_json(options.out, audit)
    return audit


def belonging(utterances: int, reasons: Iterable[str]) -> int:
    """Number of audio clips of the corpus that are there, whether or not they can be used."""
    return utterances + sum(reason in BELONGS for reason in reasons)


def total_remark(reader: str, count: int) -> str | None:
    """A sentence when a copy that looks complete is not; None when it is, is a part, or nothing is known."""
    releases = READERS[reader].totals
    if not releases or count in releases.values() or count < LOOKS_COMPLETE * min(releases.values()):
        return None
    totals = ", ".join(f"{total} ({release})" for release, total in releases.items())
    return f"a complete copy of {reader} has {totals} utterances, this one has {count}"


def _by_reason(skipped: Iterable[Skipped]) -> dict[str, list[dict[str, Any]]]:
    by_reason = defaultdict(list)
    for item in skipped:
        by_reason[item.reason].append({"source": item.source, "detail": item.detail, "size": item.size})
    return dict(sorted(by_reason.items()))


def _left_out(root: Path, items: Iterable[Utterance | Skipped]) -> list[str]:
    """Audio and video in the folder that no record is about: other parts of the corpus, or something else."""
    if not root.is_dir():
        return []
    sources = {item.source.partition("#")[0] for item in items}
    return [file.source for file in audio_files(root, DECODABLE | TO_CONVERT) if file.source not in sources]


def _names_twice(utterances: Iterable[Utterance]) -> dict[str, list[str]]:
    """Names that several files bear -> the files, each with its emotion."""
    by_name = defaultdict(list)
    for item in utterances:
        by_name[item.name].append(f"{item.source} ({item.emotion})")
    return {name: files for name, files in sorted(by_name.items()) if len(files) > 1}


def _counts(values: Iterable[str | None]) -> dict[str, int]:
    """The most frequent first; unknown values as `unknown`."""
    counts = Counter("unknown" if value is None else value for value in values)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _votes(utterances: Iterable[Utterance]) -> dict[str, int]:
    voted = [item.votes for item in utterances if item.votes]
    return {
        "utterances": len(voted),
        "votes": sum(vote.count for votes in voted for vote in votes),
        "raters": len({vote.rater for votes in voted for vote in votes if vote.rater is not None}),
    }


def _quarantine(pool: str, corpora: set[str]) -> dict[str, list[dict[str, Any]]]:
    rows = [row for row in open_pool(pool).quarantine.to_pylist() if row["corpus"] in corpora]
    return _by_reason(
        Skipped(source=row["source"], corpus=row["corpus"], reason=row["reason"], detail=row["detail"], size=size)
        for row in rows
        for size in [row["source_bytes"]]
    )


def render(audit: dict[str, Any]) -> str:
    """The audit as text, with a few examples of each thing."""
    lines = [f"{audit['reader']} in {audit['root']}: {audit['utterances']} utterances"]
    expected = ", ".join(f"{total} ({release})" for release, total in audit["expected"].items())
    if expected:
        lines.append(f"  {'complete copy':<14} {expected}; found {audit['found']}")
    if audit["remark"]:
        lines.append(f"  {'REMARK':<14} {audit['remark']}")
    for title in ("skipped", "quarantine"):
        for reason, items in audit[title].items():
            examples = _listing([item["source"] for item in items])
            lines.append(f"  {title:<14} {reason}: {REASONS.get(reason, reason)}\n  {'':<14} {examples}")
    for title in ("missing", "left_out", "names_twice"):
        if audit[title]:
            lines.append(f"  {title.replace('_', ' '):<14} {_listing(list(audit[title]))}")
    for fact, counts in audit["counts"].items():
        if set(counts) != {"unknown"}:
            lines.append(f"  {fact:<14} {_listing([f'{value} {count}' for value, count in counts.items()])}")
    if audit["votes"]["utterances"]:
        votes = audit["votes"]
        raters = f" of {votes['raters']} raters" if votes["raters"] else ""
        lines.append(f"  {'votes':<14} {votes['votes']}{raters} on {votes['utterances']} utterances")
    return "\n".join(lines)


def _listing(items: list[str]) -> str:
    shown = items if len(items) <= 2 * SHOWN else items[:SHOWN]
    more = f", and {len(items) - len(shown)} more" if len(shown) < len(items) else ""
    return f"{len(items)}: {', '.join(shown)}{more}"
