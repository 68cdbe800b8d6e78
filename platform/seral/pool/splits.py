"""Folds of a pool: which utterances train, which steer (dev), which judge (test), with no speaker in two of them.

Schemes:
    leave-one-speaker  test on each speaker in turn, dev = the next `dev_speakers` in sorted order, train on the rest
    leave-one-session  test on each session in turn, dev = the next session, train on the rest
    k-fold             speakers dealt into k groups of about as many utterances; test on each group in turn
    column             one fold, as the pool's `split` column says

A speaker is a name within a corpus: `emodb/03` and `ravdess/03` are two people. An utterance whose speaker is unknown
could be anybody, also somebody of the test set, so it never enters dev or test and enters train only when asked to
(`unknown_speakers: train`). Rows marked as duplicates of another never take part. `Fold.left_out` counts them all.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from seral import storage
from seral.errors import OptionError, SplitError
from seral.options import Options

Group = tuple[str, str]
"""(corpus, speaker) or (corpus, session)."""
PARTS = ("train", "dev", "test")
MAX_LISTED = 10
WORD = re.compile(r"\w+")


class SplitOptions(Options):
    """Options of the folds of a pool."""

    scheme: Literal["leave-one-speaker", "leave-one-session", "k-fold", "column"] = "leave-one-speaker"
    """leave-one-speaker, leave-one-session, k-fold (by speaker), or column (the pool's own `split`)."""
    k: int = Field(default=5, ge=2)
    """Number of folds of k-fold."""
    dev_speakers: int = Field(default=1, ge=1)
    """Speakers in dev, for leave-one-speaker and k-fold."""
    seed: int = Field(default=0, ge=0)
    """Deals the speakers of k-fold; the other schemes have no chance in them."""
    near_duplicates: str | None = None
    """The table that `seral pool screen` wrote: folds with near-duplicates in two parts are refused."""
    apart: tuple[Literal["session", "text"], ...] = ()
    """Further keys no two parts may share: sessions, in which speakers talk to each other, or words, which corpora of
    read sentences always share. Folds that do are refused, with the list."""
    unknown_speakers: Literal["drop", "train"] = "drop"
    """Treatment of utterances without a speaker: left out, or used for training only."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One division of the utterances; ids are sorted within each part."""

    name: str
    """The speakers or group it tests on, such as `emodb/03`."""
    train: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]
    left_out: int = 0
    """Utterances of the pool in no part: unknown speaker, session or split, or a duplicate."""

    def without(self, utterance_ids: Collection[str]) -> Fold:
        """The fold without some utterances."""
        train, dev, test = (
            tuple(n for n in part if n not in utterance_ids) for part in (self.train, self.dev, self.test)
        )
        smaller = replace(self, train=train, dev=dev, test=test)
        return replace(smaller, left_out=self.left_out + _size(self) - _size(smaller))


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Columns of one utterance that a split reads."""

    utterance_id: str
    speaker: Group | None
    session: Group | None
    split: str | None


def make_folds(metadata: pa.Table, options: SplitOptions) -> list[Fold]:
    """The folds of a pool from its metadata, the same for any order of rows. Raises SplitError when one leaks."""
    rows = sorted(_rows(metadata), key=lambda row: row.utterance_id)
    if not rows:
        raise SplitError("there are no utterances to split")
    folds = [replace(fold, left_out=metadata.num_rows - _size(fold)) for fold in SCHEMES[options.scheme](rows, options)]
    for fold in folds:
        for part in PARTS:
            if not getattr(fold, part):
                raise SplitError(
                    f"fold {fold.name} of {options.scheme} has no utterance in {part}; "
                    f"use another scheme, fewer dev speakers or a larger k"
                )
        check_leak(fold, metadata, near_duplicates=options.near_duplicates, apart=options.apart)
    return folds


def check_leak(
    fold: Fold, metadata: pa.Table, *, near_duplicates: str | None = None, apart: Collection[str] = ()
) -> None:
    """Raise SplitError when two parts share an utterance, a speaker, or the same audio under two ids.

    With a table of near-duplicates (schema.SCREEN), also when one part has what nearly is another's audio. `apart`
    names what else they may not share: `session`, within a corpus, or `text`, words whatever their case and commas.
    """
    ids = set(metadata["utterance_id"].to_pylist())
    absent = [name for part in PARTS for name in getattr(fold, part) if name not in ids]
    if absent:
        raise SplitError(f"fold {fold.name} holds utterances that are not in the pool: {_listing(absent)}")
    keys: dict[str, Mapping[str, object]] = {
        "utterances": {name: name for name in ids},
        "speakers": _within_corpus(metadata, "speaker"),
    }
    for column in ("duplicate_of", "pcm_hash"):
        if column in metadata.column_names:
            keys[f"audio ({column})"] = _audio(metadata, column)
    if "session" in apart:
        keys["sessions"] = _within_corpus(metadata, "session")
    if "text" in apart:
        texts = zip(_values(metadata, "utterance_id"), _values(metadata, "text"), strict=True)
        keys["texts"] = {str(name): _words(text) for name, text in texts}
    for kind, key_of in keys.items():
        if leaks := _leaks(fold, key_of):
            raise SplitError(f"fold {fold.name} leaks: {kind} in more than one part: {_listing(leaks)}")
    if near_duplicates is not None and (groups := _split_duplicates(fold, near_duplicates)):
        raise SplitError(
            f"fold {fold.name} leaks: near-duplicates in more than one part: {_listing(groups)}. Leave all but one of "
            f"each out of the pool, or screen it with a larger similarity if they are not the same recording"
        )


def _split_duplicates(fold: Fold, table: str) -> list[str]:
    """Groups of near-duplicates that are not all in one part, member by member."""
    if not storage.exists(table):
        raise SplitError(f"there is no table of near-duplicates at {table}; make it: seral pool screen POOL")
    rows = storage.read_table(table, ["utterance_id", "near_duplicate_of"]).to_pylist()
    group_of = {row["utterance_id"]: row["near_duplicate_of"] or row["utterance_id"] for row in rows}
    members: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for part in PARTS:
        for name in getattr(fold, part):
            members[group_of.get(name, name)].append((name, part))
    split_groups = [group for group in members.values() if len({part for _, part in group}) > 1]
    return sorted(" = ".join(f"{name} ({part})" for name, part in group) for group in split_groups)


def _leaks(fold: Fold, key_of: Mapping[str, object]) -> list[str]:
    """Keys found in more than one part, with the parts."""
    parts_of: dict[object, list[str]] = defaultdict(list)
    for part in PARTS:
        for key in {key_of[name] for name in getattr(fold, part) if key_of.get(name) is not None}:
            parts_of[key].append(part)
    return sorted(f"{_label(key)} ({' and '.join(parts)})" for key, parts in parts_of.items() if len(parts) > 1)


def _leave_one_speaker(rows: Sequence[_Row], options: SplitOptions) -> list[Fold]:
    usable = [row for row in rows if row.speaker is not None]
    speakers = sorted({row.speaker for row in usable if row.speaker is not None})
    least = 2 + options.dev_speakers
    if len(speakers) < least:
        raise SplitError(
            f"leave-one-speaker with {options.dev_speakers} dev speakers needs at least {least} known speakers, "
            f"there are {len(speakers)}; add speakers, or use the scheme `column`"
        )
    return _folds_by_speaker(rows, [[speaker] for speaker in speakers], [_label(s) for s in speakers], options)


def _k_fold(rows: Sequence[_Row], options: SplitOptions) -> list[Fold]:
    counts: dict[Group, int] = defaultdict(int)
    for row in rows:
        if row.speaker is not None:
            counts[row.speaker] += 1
    if len(counts) < max(options.k, 2 + options.dev_speakers):
        raise SplitError(
            f"k-fold with k={options.k} and {options.dev_speakers} dev speakers needs at least "
            f"{max(options.k, 2 + options.dev_speakers)} known speakers, there are {len(counts)}"
        )
    groups = deal(counts, options.k, np.random.default_rng(options.seed))
    return _folds_by_speaker(rows, groups, [f"group-{number}" for number in range(options.k)], options)


def deal(counts: Mapping[Group, int], k: int, rng: np.random.Generator) -> list[list[Group]]:
    """Deal speakers into k groups of about as many utterances: the largest first, each to the lightest group so far.

    Speakers of one size are dealt in random order. Groups differ by no more than the largest speaker's utterances.
    """
    speakers = sorted(counts)
    order = [speakers[index] for index in rng.permutation(len(speakers))]
    groups: list[list[Group]] = [[] for _ in range(k)]
    sizes = [0] * k
    for speaker in sorted(order, key=lambda speaker: -counts[speaker]):
        lightest = min(range(k), key=lambda number: (sizes[number], len(groups[number])))
        groups[lightest].append(speaker)
        sizes[lightest] += counts[speaker]
    return [sorted(group) for group in groups]


def _folds_by_speaker(
    rows: Sequence[_Row], groups: Sequence[Sequence[Group]], names: Sequence[str], options: SplitOptions
) -> list[Fold]:
    """Test on each group in turn; dev = the first speakers of the groups that follow."""
    folds = []
    for number, (name, group) in enumerate(zip(names, groups, strict=True)):
        following = [speaker for later in (*groups[number + 1 :], *groups[:number]) for speaker in later]
        part_of: dict[Group | None, str] = dict.fromkeys(following, "train")
        part_of |= dict.fromkeys(following[: options.dev_speakers], "dev")
        part_of |= dict.fromkeys(group, "test")
        folds.append(_fold(name, rows, [part_of.get(row.speaker) for row in rows], options))
    return folds


def _leave_one_session(rows: Sequence[_Row], options: SplitOptions) -> list[Fold]:
    sessions = sorted({row.session for row in rows if row.session is not None and row.speaker is not None})
    if len(sessions) < 3:
        raise SplitError(f"leave-one-session needs at least 3 sessions with known speakers, there are {len(sessions)}")
    folds = []
    for number, session in enumerate(sessions):
        part_of: dict[Group | None, str] = dict.fromkeys(sessions, "train")
        part_of |= {sessions[(number + 1) % len(sessions)]: "dev", session: "test"}
        folds.append(_fold(_label(session), rows, [part_of.get(row.session) for row in rows], options))
    return folds


def _column(rows: Sequence[_Row], options: SplitOptions) -> list[Fold]:
    splits = {row.split for row in rows if row.speaker is not None}
    if missing := [part for part in PARTS if part not in splits]:
        raise SplitError(
            f"the pool's `split` column has no {' and no '.join(missing)} utterance with a known speaker; "
            f"import the corpus with its split, or use another scheme"
        )
    return [_fold("given", rows, [row.split for row in rows], options)]


def _fold(name: str, rows: Sequence[_Row], part_of_row: Sequence[str | None], options: SplitOptions) -> Fold:
    parts: dict[str, list[str]] = {part: [] for part in PARTS}
    for row, scheme_part in zip(rows, part_of_row, strict=True):
        part = scheme_part
        if row.speaker is None:
            # The given split still counts: what it keeps for dev and test is never trained on.
            allowed = options.unknown_speakers == "train" and row.split in {None, "train"}
            part = "train" if allowed else None
        if part is not None:
            parts[part].append(row.utterance_id)
    return Fold(name=name, train=tuple(parts["train"]), dev=tuple(parts["dev"]), test=tuple(parts["test"]))


SCHEMES: dict[str, Callable[[Sequence[_Row], SplitOptions], list[Fold]]] = {
    "leave-one-speaker": _leave_one_speaker,
    "leave-one-session": _leave_one_session,
    "k-fold": _k_fold,
    "column": _column,
}


def _rows(metadata: pa.Table) -> Iterable[_Row]:
    """Rows that may take part: all but the marked duplicates."""
    names = ("utterance_id", "corpus", "speaker", "session", "split", "duplicate_of")
    columns = [_values(metadata, name) for name in names]
    for utterance_id, corpus, speaker, session, split, duplicate_of in zip(*columns, strict=True):
        if utterance_id is not None and duplicate_of is None:
            yield _Row(
                utterance_id=utterance_id,
                speaker=None if speaker is None else (corpus or "", speaker),
                session=None if session is None else (corpus or "", session),
                split=split,
            )


def _values(metadata: pa.Table, name: str) -> list[str | None]:
    if name in metadata.column_names:
        values: list[str | None] = metadata[name].to_pylist()
        return values
    if name in {"utterance_id", "corpus", "speaker"}:
        raise SplitError(f"metadata has no column {name!r}; it has: {', '.join(metadata.column_names)}")
    return [None] * metadata.num_rows


def _words(text: str | None) -> str | None:
    return None if text is None else " ".join(WORD.findall(text.casefold())) or None


def _within_corpus(metadata: pa.Table, column: str) -> dict[str, object]:
    """A speaker or a session is a name within a corpus."""
    columns = (_values(metadata, name) for name in ("utterance_id", "corpus", column))
    return {str(name): None if who is None else (corpus or "", who) for name, corpus, who in zip(*columns, strict=True)}


def _audio(metadata: pa.Table, column: str) -> dict[str, object]:
    """Utterance -> key of its audio: the id that counts (`duplicate_of`, or the row's own), or the hash."""
    pairs = zip(_values(metadata, "utterance_id"), _values(metadata, column), strict=True)
    return {str(name): value or (name if column == "duplicate_of" else None) for name, value in pairs}


def _size(fold: Fold) -> int:
    return sum(len(getattr(fold, part)) for part in PARTS)


def _label(key: object) -> str:
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _listing(items: Sequence[str]) -> str:
    more = len(items) - MAX_LISTED
    return ", ".join(items[:MAX_LISTED]) + (f", and {more} more" if more > 0 else "")


def voices(metadata: pa.Table) -> dict[str, str]:
    """Utterance -> corpus/speaker: a speaker's name means somebody within a corpus only."""
    columns = (metadata[name].to_pylist() for name in ("utterance_id", "corpus", "speaker"))
    return {name: f"{corpus}/{speaker}" for name, corpus, speaker in zip(*columns, strict=True)}


def check_apart(sides: Mapping[str, pa.Table]) -> None:
    """Raise SplitError where a speaker is on two sides of a transfer, each the metadata of its utterances."""
    speakers_of = {
        side: set(voices(table.filter(pc.is_valid(table["speaker"]))).values()) for side, table in sides.items()
    }
    for first, second in combinations(speakers_of, 2):
        if both := sorted(speakers_of[first] & speakers_of[second]):
            raise SplitError(f"in {first} and in {second}: {', '.join(both[:5])}; their speakers must differ")


def folds_of(metadata: pa.Table, split: SplitOptions, numbers: Sequence[int] | None) -> dict[int, Fold]:
    """Folds of the utterances that may take part, by number, all or those of `numbers`; none leaks."""
    folds = dict(enumerate(make_folds(metadata, split)))
    if numbers is not None:
        if unknown := sorted(set(numbers) - set(folds)):
            raise OptionError(f"folds {unknown} do not exist: the split {split.scheme} gives 0..{len(folds) - 1}")
        folds = {number: folds[number] for number in numbers}
    for fold in folds.values():
        check_leak(fold, metadata, near_duplicates=split.near_duplicates, apart=split.apart)
    return folds
