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

# N rows · G groups (speakers or sessions) · M clips of the parts of a fold
from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import OptionError, SplitError
from seral.pool.ids import Ids, one_array, positions
from seral.pool.split_options import SplitOptions

Group = tuple[str, str]
"""(corpus, speaker) or (corpus, session)."""
PARTS = ("train", "dev", "test")
COLUMNS = ("utterance_id", "corpus", "speaker", "session", "split", "duplicate_of", "text")
"""Columns of the metadata that splits read, the last where words are kept apart."""
MAX_LISTED = 10
WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One division of the utterances; ids are sorted within each part."""

    name: str
    """The speakers or group it tests on, such as `emodb/03`."""
    train: Ids
    dev: Ids
    test: Ids
    left_out: int = 0
    """Utterances of the pool in no part: unknown speaker, session or split, or a duplicate."""

    def without(self, utterance_ids: Collection[str]) -> Fold:
        """The fold without some utterances."""
        train, dev, test = (part.without(utterance_ids) for part in (self.train, self.dev, self.test))
        smaller = replace(self, train=train, dev=dev, test=test)
        return replace(smaller, left_out=self.left_out + _size(self) - _size(smaller))

    def without_dev(self) -> Fold:
        """The fold whose dev speakers are trained on like all others."""
        return replace(self, train=Ids(sorted({*self.train, *self.dev})), dev=Ids())


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Columns that a split reads of the utterances that may take part, all but the marked duplicates, sorted by id."""

    ids: pa.Array
    speaker_N: NDArray[np.int32]
    """Number of the speaker in `speakers`, -1 = unknown."""
    session_N: NDArray[np.int32]
    """Number of the session in `sessions`, -1 = unknown."""
    split_N: NDArray[np.int8]
    """Number of the given part in PARTS, -1 = none, -2 = another word."""
    speakers: list[Group]
    sessions: list[Group]
    """Of utterances with a known speaker."""


@dataclass(frozen=True, kw_only=True)
class _Scheme:
    """The folds of a scheme, made one by one: there may be as many as speakers."""

    names: list[str]
    parts: Callable[[int], NDArray[np.int8]]
    """Number of a fold -> number of every row's part in PARTS, -1 = none, (N,)."""


def make_folds(metadata: pa.Table, options: SplitOptions) -> list[Fold]:
    """The folds of a pool from its metadata, the same for any order of rows. Raises SplitError when one leaks."""
    return [*folds_of(metadata, options, None).values()]


def folds_of(metadata: pa.Table, split: SplitOptions, numbers: Sequence[int] | None) -> dict[int, Fold]:
    """Folds of the utterances that may take part, by number, all or those of `numbers`; none leaks.

    Of many only those of `numbers` are made. Raises SplitError for one that leaks or has an empty part.
    """
    rows = _rows(metadata)
    if not len(rows.ids):
        raise SplitError("there are no utterances to split")
    scheme = SCHEMES[split.scheme](rows, split)
    if unknown := sorted(set(numbers or ()) - set(range(len(scheme.names)))):
        raise OptionError(f"folds {unknown} do not exist: the split {split.scheme} gives 0..{len(scheme.names) - 1}")
    storage.release_memory()
    keys = _Keys(metadata, near_duplicates=split.near_duplicates or (), apart=split.apart)
    storage.release_memory()
    folds = {}
    for number in range(len(scheme.names)) if numbers is None else numbers:
        fold = keys.without_near_duplicates(_fold(scheme.names[number], rows, scheme.parts(number), split))
        folds[number] = fold = replace(fold, left_out=metadata.num_rows - _size(fold))
        for part in PARTS:
            if not getattr(fold, part):
                raise SplitError(
                    f"fold {fold.name} of {split.scheme} has no utterance in {part}; "
                    f"use another scheme, fewer dev speakers or a larger k"
                )
        keys.check(fold)
    return folds


def with_new_clips(fold: Fold, metadata: pa.Table, split: SplitOptions) -> Fold:
    """A fold of a pool that has grown: dev and test stay, and all that shares no speaker with them is trained on.

    Nor a session, where sessions are left out. Raises SplitError where clips of dev or test are gone, or it leaks.
    """
    rows = _rows(metadata)
    part_N = np.zeros(len(rows.ids), np.int8)
    if split.scheme == "column":
        part_N[rows.split_N != 0] = -1
    groups = {"leave-one-session": (rows.speaker_N, rows.session_N)}.get(split.scheme, (rows.speaker_N,))
    judged_N = np.asarray(pc.is_in(rows.ids, pa.array(fold.dev + fold.test)))
    for group_N in groups:
        part_N[np.isin(group_N, np.setdiff1d(group_N[judged_N], [-1]))] = -1
    for number, names in ((1, fold.dev), (2, fold.test)):
        part_N[np.asarray(pc.is_in(rows.ids, pa.array(names)))] = number
    keys = _Keys(metadata, near_duplicates=split.near_duplicates or (), apart=split.apart)
    grown = keys.without_near_duplicates(_fold(fold.name, rows, part_N, split))
    for part, before, after in (("dev", fold.dev, grown.dev), ("test", fold.test, grown.test)):
        if gone := sorted(set(before) - set(after)):
            raise SplitError(f"fold {fold.name}: {len(gone)} clips of {part} are gone from the pool: {_listing(gone)}")
    grown = replace(grown, left_out=metadata.num_rows - _size(grown))
    keys.check(grown)
    return grown


def check_leak(
    fold: Fold, metadata: pa.Table, *, near_duplicates: Sequence[str] = (), apart: Collection[str] = ()
) -> None:
    """Raise SplitError when two parts share an utterance, a speaker, or the same audio under two ids.

    With tables of near-duplicates (schema.SCREEN), also when one part has what nearly is another's audio. `apart`
    names what else they may not share: `session`, within a corpus, or `text`, words whatever their case and commas.
    """
    _Keys(metadata, near_duplicates=near_duplicates, apart=apart).check(fold)


class _Keys:
    """Keys that no two parts of a fold may share: for every utterance a number of each kind."""

    def __init__(self, metadata: pa.Table, *, near_duplicates: Sequence[str], apart: Collection[str]) -> None:
        self._ids = one_array(_column(metadata, "utterance_id"))
        keys = {"speakers": _within_corpus(metadata, "speaker")}
        if "duplicate_of" in metadata.column_names and metadata["duplicate_of"].null_count < metadata.num_rows:
            keys["audio (duplicate_of)"] = pc.coalesce(metadata["duplicate_of"], self._ids)
        if "pcm_hash" in metadata.column_names:
            keys["audio (pcm_hash)"] = metadata["pcm_hash"]
        if "session" in apart:
            keys["sessions"] = _within_corpus(metadata, "session")
        if "text" in apart:
            keys["texts"] = _words(_column(metadata, "text"))
        utterances = (np.arange(len(self._ids), dtype=np.int32), self._ids)
        self._keys = {"utterances": utterances, **{kind: _numbered(column) for kind, column in keys.items()}}
        self._groups = [_numbered(_leaders(self._ids, table))[0] for table in near_duplicates]

    def without_near_duplicates(self, fold: Fold) -> Fold:
        """The fold less what nearly is the audio of another part: train gives way to dev and test, dev to test."""
        rows = [positions(pa.array(part), self._ids) for part in (fold.train, fold.dev, fold.test)]
        dropped = set[str]()
        for group_N in self._groups:
            train_M, dev_M, test_M = (group_N[row_M] for row_M in rows)
            judged_M = np.concatenate([dev_M, test_M])
            dropped.update(fold.train.take(np.flatnonzero(np.isin(train_M, judged_M))))
            dropped.update(fold.dev.take(np.flatnonzero(np.isin(dev_M, test_M))))
        return fold.without(dropped) if dropped else fold

    def check(self, fold: Fold) -> None:
        """Raise SplitError when two parts of a fold share anything."""
        rows = [positions(pa.array(part), self._ids).astype(np.int32) for part in (fold.train, fold.dev, fold.test)]
        if any((row_M < 0).any() for row_M in rows):
            absent = (fold.train + fold.dev + fold.test).take(np.flatnonzero(np.concatenate(rows) < 0))
            raise SplitError(f"fold {fold.name} holds utterances that are not in the pool: {_listing(absent)}")
        for kind, (key_N, texts) in self._keys.items():
            if shared := _shared([key_N[row_M] for row_M in rows]):
                leaks = {texts[key].as_py().replace("\0", "/"): " and ".join(parts) for key, parts in shared.items()}
                listing = _listing(sorted(f"{label} ({parts})" for label, parts in leaks.items()))
                raise SplitError(f"fold {fold.name} leaks: {kind} in more than one part: {listing}")
        for group_N in self._groups:
            self._check_near_duplicates(fold, rows, [group_N[row_M] for row_M in rows])

    def _check_near_duplicates(self, fold: Fold, rows: Sequence[Any], group_of: Sequence[Any]) -> None:
        if shared := _shared(group_of):
            groups = (
                " = ".join(
                    f"{self._ids[row]} ({part})"
                    for part, row_M, group_M in zip(PARTS, rows, group_of, strict=True)
                    for row in row_M[group_M == group].tolist()
                )
                for group in shared
            )
            raise SplitError(
                f"fold {fold.name} leaks: near-duplicates in more than one part: {_listing(sorted(groups))}. Leave all "
                f"but one of each out of the pool, or screen it with a larger similarity if they are not the same "
                f"recording"
            )


def _shared(keys: Sequence[NDArray[np.signedinteger[Any]]]) -> dict[int, list[str]]:
    """Keys, given by part, that are in more than one part -> the parts; -1 is no key."""
    is_in = np.zeros((max(key_M.max(initial=-1) for key_M in keys) + 2, len(PARTS)), dtype=bool)
    for number, key_M in enumerate(keys):
        is_in[key_M, number] = True
    is_in[-1] = False  # -1 is no key
    shared = np.flatnonzero(is_in.sum(axis=1, dtype=np.int8) > 1).tolist()
    return {key: [part for part, inside in zip(PARTS, is_in[key], strict=True) if inside] for key in shared}


def _leaders(ids: pa.Array, table: str) -> pa.Array:
    """The utterance that stands for every utterance's near-duplicates: itself where it has none."""
    if not storage.exists(table):
        raise SplitError(f"there is no table of near-duplicates at {table}; make it: seral pool screen POOL")
    screened = storage.read_table(table, ["utterance_id", "near_duplicate_of"]).combine_chunks()
    rows = pc.index_in(ids, value_set=screened["utterance_id"].combine_chunks())
    return pc.coalesce(screened["near_duplicate_of"].combine_chunks().take(rows), ids)


def _leave_one_speaker(rows: _Rows, options: SplitOptions) -> _Scheme:
    least = 2 + options.dev_speakers
    if len(rows.speakers) < least:
        raise SplitError(
            f"leave-one-speaker with {options.dev_speakers} dev speakers needs at least {least} known speakers, "
            f"there are {len(rows.speakers)}; add speakers, or use the scheme `column`"
        )
    groups = [[number] for number in range(len(rows.speakers))]
    return _by_speaker(rows, groups, ["/".join(speaker) for speaker in rows.speakers], options)


def _k_fold(rows: _Rows, options: SplitOptions) -> _Scheme:
    least = max(options.k, 2 + options.dev_speakers)
    if len(rows.speakers) < least:
        raise SplitError(
            f"k-fold with k={options.k} and {options.dev_speakers} dev speakers needs at least "
            f"{least} known speakers, there are {len(rows.speakers)}"
        )
    sizes = np.bincount(rows.speaker_N[rows.speaker_N >= 0], minlength=len(rows.speakers)).tolist()
    counts = dict(zip(rows.speakers, sizes, strict=True))
    number_of = {speaker: number for number, speaker in enumerate(rows.speakers)}
    groups = deal(counts, options.k, options.seed)
    numbers = [[number_of[speaker] for speaker in group] for group in groups]
    return _by_speaker(rows, numbers, [f"group-{number}" for number in range(options.k)], options)


def deal(counts: Mapping[Group, int], k: int, seed: int) -> list[list[Group]]:
    """Deal speakers into k groups of about as many utterances, one after another, each to the lightest group so far.

    Seed 0 deals the largest first, and those of one size in random order. Speakers of which no two have as many clips
    would then be dealt alike by every seed, so others deal all in random order. Either way groups differ by no more
    than the largest speaker's utterances.
    """
    speakers = sorted(counts)
    order = [speakers[index] for index in np.random.default_rng(seed).permutation(len(speakers))]
    if seed == 0:
        order.sort(key=lambda speaker: -counts[speaker])
    groups: list[list[Group]] = [[] for _ in range(k)]
    sizes = [0] * k
    for speaker in order:
        lightest = min(range(k), key=lambda number: (sizes[number], len(groups[number])))
        groups[lightest].append(speaker)
        sizes[lightest] += counts[speaker]
    return [sorted(group) for group in groups]


def _by_speaker(rows: _Rows, groups: Sequence[Sequence[int]], names: list[str], options: SplitOptions) -> _Scheme:
    """Test on each group in turn; dev = the first speakers of the groups that follow."""

    def parts(number: int) -> NDArray[np.int8]:
        part_G = np.zeros(len(rows.speakers) + 1, np.int8)
        following = (speaker for later in (*groups[number + 1 :], *groups[:number]) for speaker in later)
        part_G[[*islice(following, options.dev_speakers)]] = PARTS.index("dev")
        part_G[groups[number]] = PARTS.index("test")
        return part_G[rows.speaker_N]

    return _Scheme(names=names, parts=parts)


def _leave_one_session(rows: _Rows, options: SplitOptions) -> _Scheme:
    count = len(rows.sessions)
    if count < 3:
        raise SplitError(f"leave-one-session needs at least 3 sessions with known speakers, there are {count}")

    def parts(number: int) -> NDArray[np.int8]:
        part_G = np.array([0] * count + [-1], np.int8)
        part_G[(number + 1) % count], part_G[number] = PARTS.index("dev"), PARTS.index("test")
        return part_G[rows.session_N]

    return _Scheme(names=["/".join(session) for session in rows.sessions], parts=parts)


def _by_column(rows: _Rows, options: SplitOptions) -> _Scheme:
    splits = rows.split_N[rows.speaker_N >= 0]
    if missing := [part for number, part in enumerate(PARTS) if number not in splits]:
        raise SplitError(
            f"the pool's `split` column has no {' and no '.join(missing)} utterance with a known speaker; "
            f"import the corpus with its split, or use another scheme"
        )
    return _Scheme(names=["given"], parts=lambda _: rows.split_N)


def _fold(name: str, rows: _Rows, part_N: NDArray[np.int8], options: SplitOptions) -> Fold:
    # The given split still counts: what it keeps for dev and test is never trained on.
    allowed_N = np.isin(rows.split_N, (-1, 0)) if options.unknown_speakers == "train" else np.zeros(len(part_N), bool)
    part_N = np.where(rows.speaker_N < 0, np.where(allowed_N, np.int8(0), np.int8(-1)), part_N)
    train, dev, test = (Ids(rows.ids.filter(pa.array(part_N == number))) for number in range(len(PARTS)))
    return Fold(name=name, train=train, dev=dev, test=test)


SCHEMES: dict[str, Callable[[_Rows, SplitOptions], _Scheme]] = {
    "leave-one-speaker": _leave_one_speaker,
    "leave-one-session": _leave_one_session,
    "k-fold": _k_fold,
    "column": _by_column,
}


def _rows(metadata: pa.Table) -> _Rows:
    columns = {name: _column(metadata, name) for name in ("utterance_id", "corpus", "speaker", "session", "split")}
    takes_part = pc.and_(pc.is_valid(columns["utterance_id"]), pc.is_null(_column(metadata, "duplicate_of")))
    rows = pa.table(columns)
    if not pc.all(takes_part, min_count=0).as_py():
        rows = rows.filter(takes_part)
    ids = one_array(rows["utterance_id"])
    if not pc.all(pc.less_equal(ids[:-1], ids[1:]), min_count=0).as_py():  # a pool's metadata is sorted already
        rows = rows.sort_by("utterance_id")
    speakers, speaker_N = _groups(_within_corpus(rows, "speaker"))
    sessions, session_N = _groups(_within_corpus(rows, "session"))
    usable = np.unique(session_N[speaker_N >= 0])
    usable = usable[usable >= 0]
    renumbered = np.full(len(sessions) + 1, -1, np.int32)
    renumbered[usable] = np.arange(len(usable))
    split_N = np.asarray(pc.index_in(rows["split"], value_set=pa.array(PARTS)).fill_null(-2)).astype(np.int8)
    split_N[np.asarray(rows["split"].is_null())] = -1
    return _Rows(
        ids=one_array(rows["utterance_id"]),
        speaker_N=speaker_N,
        session_N=renumbered[session_N],
        split_N=split_N,
        speakers=speakers,
        sessions=[sessions[number] for number in usable],
    )


def _groups(column: pa.ChunkedArray) -> tuple[list[Group], NDArray[np.int32]]:
    """The groups that `_within_corpus` has named, sorted, and the number of every row's, -1 = unknown, (N,)."""
    number_N, texts = _numbered(column)
    names = [tuple(text.split("\0", 1)) for text in texts.to_pylist()]
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.full(len(names) + 1, -1, np.int32)
    rank[order] = np.arange(len(names))
    return [names[number] for number in order], rank[number_N]


def _numbered(column: pa.Array | pa.ChunkedArray) -> tuple[NDArray[np.signedinteger[Any]], pa.Array]:
    """A number for every different text, -1 where there is none, (N,), and the texts by number."""
    whole = one_array(column) if isinstance(column, pa.ChunkedArray) else column
    encoded = whole.dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1)), encoded.dictionary


def _column(metadata: pa.Table, name: str) -> pa.ChunkedArray:
    if name in metadata.column_names:
        return metadata[name].cast(pa.string())
    if name in {"utterance_id", "corpus", "speaker"}:
        raise SplitError(f"metadata has no column {name!r}; it has: {', '.join(metadata.column_names)}")
    return pa.chunked_array([pa.nulls(metadata.num_rows, pa.string())])


def _within_corpus(metadata: pa.Table, column: str) -> pa.ChunkedArray:
    """A speaker or a session with its corpus, within which it is a name."""
    corpus = pc.fill_null(_column(metadata, "corpus"), "")
    return pc.binary_join_element_wise(corpus, _column(metadata, column), "\0")


def _words(texts: pa.ChunkedArray) -> pa.Array:
    """The words of every text, whatever their case and commas; null where it has none."""
    number_N, unique = _numbered(texts)
    words = [" ".join(WORD.findall(text.casefold())) or None for text in unique.to_pylist()]
    return pa.array(words, pa.string()).take(pa.array(number_N, mask=number_N < 0))


def _size(fold: Fold) -> int:
    return sum(len(getattr(fold, part)) for part in PARTS)


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
        side: set(pc.binary_join_element_wise(table["corpus"], table["speaker"], "/").drop_null().unique().to_pylist())
        for side, table in sides.items()
    }
    for first, second in combinations(speakers_of, 2):
        if both := sorted(speakers_of[first] & speakers_of[second]):
            raise SplitError(f"in {first} and in {second}: {', '.join(both[:5])}; their speakers must differ")
