from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from seral.errors import OptionError, SplitError
from seral.options import parse
from seral.pool.ids import Ids
from seral.pool.split_options import SplitOptions
from seral.pool.splits import PARTS, Fold, check_leak, deal, folds_of, make_folds, with_new_clips

COLUMNS = ("utterance_id", "corpus", "speaker", "session", "split", "duplicate_of")


def table(*rows: tuple[str | None, ...]) -> pa.Table:
    """Rows of (id, corpus, speaker, session, split, duplicate_of); what is left away is null."""
    padded = [row + (None,) * (len(COLUMNS) - len(row)) for row in rows]
    return pa.Table.from_pylist(
        [dict(zip(COLUMNS, row, strict=True)) for row in padded], pa.schema([(name, pa.string()) for name in COLUMNS])
    )


def corpus(speakers: int = 5, each: int = 3, name: str = "c") -> pa.Table:
    """Speakers s0, s1, … with `each` utterances; two speakers make a session."""
    return table(
        *[(f"{name}-{s}-{i}", name, f"s{s}", f"session{s // 2}") for s in range(speakers) for i in range(each)]
    )


@st.composite
def pools(draw: st.DrawFn) -> pa.Table:
    """Two corpora that share speaker names, some utterances without a speaker, some duplicates."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=6, max_size=12))
    rows: list[tuple[str | None, ...]] = []
    for number, size in enumerate(sizes):
        corpus_name = "a" if number % 2 else "b"
        rows += [(f"{number:02d}-{i}", corpus_name, f"s{number // 2}", f"z{number % 3}") for i in range(size)]
    rows += [(f"unknown-{i}", "a", None) for i in range(draw(st.integers(0, 4)))]
    rows += [(f"again-{i}", "b", "s0", None, None, "00-0") for i in range(draw(st.integers(0, 3)))]
    return table(*draw(st.permutations(rows)))


def folds_or_reject(metadata: pa.Table, options: SplitOptions) -> list[Fold]:
    """The folds, or no example at all where one speaker is so large that nobody is left to train on."""
    try:
        return make_folds(metadata, options)
    except SplitError as error:
        if "has no utterance in train" in str(error):
            reject()
        raise


SPEAKER_SCHEMES = st.builds(
    SplitOptions,
    scheme=st.sampled_from(["leave-one-speaker", "k-fold"]),
    k=st.integers(2, 6),
    dev_speakers=st.integers(1, 2),
    seed=st.integers(0, 1000),
    unknown_speakers=st.sampled_from(["drop", "train"]),
)


@settings(max_examples=60, deadline=None)
@given(pools(), SPEAKER_SCHEMES)
def test_no_speaker_is_in_two_parts_and_everybody_is_tested_once(metadata: pa.Table, options: SplitOptions) -> None:
    folds = folds_or_reject(metadata, options)
    rows = {row["utterance_id"]: row for row in metadata.to_pylist()}
    usable = {name for name, row in rows.items() if row["speaker"] is not None and row["duplicate_of"] is None}
    tested = Counter(name for fold in folds for name in fold.test)
    assert tested == Counter(usable)
    for fold in folds:
        speakers = [{(rows[n]["corpus"], rows[n]["speaker"]) for n in getattr(fold, part)} for part in PARTS]
        named = [{who for who in group if who[1] is not None} for group in speakers]
        assert not named[0] & named[1] | named[0] & named[2] | named[1] & named[2]
        assert named[1] == speakers[1]
        assert named[2] == speakers[2]
        assert len(named[1]) == options.dev_speakers
        everything = [*fold.train, *fold.dev, *fold.test]
        assert len(everything) == len(set(everything)) == len(rows) - fold.left_out
        unknown = {name for name, row in rows.items() if row["speaker"] is None}
        assert unknown & set(fold.train) == (unknown if options.unknown_speakers == "train" else set())


@settings(max_examples=30, deadline=None)
@given(pools(), SPEAKER_SCHEMES, st.integers(0, 100))
def test_the_order_of_rows_does_not_matter(metadata: pa.Table, options: SplitOptions, seed: int) -> None:
    shuffled = metadata.take(np.random.default_rng(seed).permutation(metadata.num_rows))
    folds = folds_or_reject(metadata, options)
    assert make_folds(shuffled, options) == folds


@settings(max_examples=60, deadline=None)
@given(pools(), SPEAKER_SCHEMES, st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["s0", "s1", "s9", None]))))
def test_a_pool_that_grows_keeps_dev_and_test_and_trains_on_other_voices(
    metadata: pa.Table, options: SplitOptions, more: list[tuple[str, str | None]]
) -> None:
    new = table(*[(f"new-{number}", *voice) for number, voice in enumerate(more)])
    for fold in folds_or_reject(metadata, options):
        grown = with_new_clips(fold, pa.concat_tables([new, metadata]), options)
        assert (grown.name, grown.dev, grown.test) == (fold.name, fold.dev, fold.test)
        rows = {row["utterance_id"]: row for row in metadata.to_pylist()}
        judges = {(rows[name]["corpus"], rows[name]["speaker"]) for name in (*fold.dev, *fold.test)}
        may_train = {None} if options.unknown_speakers == "drop" else set()
        expected = {
            f"new-{number}" for number, voice in enumerate(more) if voice not in judges and voice[1] not in may_train
        }
        assert set(grown.train) == set(fold.train) | expected
        assert with_new_clips(fold, metadata, options) == fold
    left = metadata.filter(pa.array([name not in fold.test for name in metadata["utterance_id"].to_pylist()]))
    with pytest.raises(SplitError, match="clips of test are gone from the pool"):
        with_new_clips(fold, left, options)


@pytest.mark.parametrize("scheme", ["leave-one-session", "column"])
def test_a_pool_that_grows_follows_sessions_and_the_given_column(scheme: str) -> None:
    rows = [
        (f"c-{s}-{i}", "c", f"s{s}", f"z{s // 2}", ("train", "dev", "test")[s // 2]) for s in range(6) for i in "ab"
    ]
    options = SplitOptions.model_validate({"scheme": scheme})
    fold = make_folds(table(*rows), options)[0]
    voices = [("s6", "z0", "train"), ("s6", "z3", "test"), ("s6", "z3", "train"), ("s6", "z3", None)]
    new = [(f"n{number}", "c", *voice) for number, voice in enumerate(voices)]
    grown = with_new_clips(fold, table(*rows, *new), options)
    by_session = {"n1", "n2", "n3"} if "c-0-a" in (*fold.dev, *fold.test) else {"n0", "n1", "n2", "n3"}
    assert set(grown.train) - set(fold.train) == (by_session if scheme == "leave-one-session" else {"n0", "n2"})
    assert (grown.dev, grown.test) == (fold.dev, fold.test)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=2, max_size=30), st.integers(2, 8), st.integers(0, 99))
def test_deal_balances_utterances(sizes: list[int], k: int, seed: int) -> None:
    counts = {("c", f"s{number:02d}"): size for number, size in enumerate(sizes)}
    groups = deal(counts, k, seed)
    assert sorted(speaker for group in groups for speaker in group) == sorted(counts)
    totals = [sum(counts[speaker] for speaker in group) for group in groups]
    assert max(totals) - min(totals) <= max(sizes)
    if len(sizes) >= k:
        assert all(groups)


def test_deal_follows_the_seed() -> None:
    counts = {("c", f"s{number}"): 10 for number in range(20)}
    deals = [deal(counts, 4, seed) for seed in (0, 0, 1)]
    assert deals[0] == deals[1] != deals[2]


def test_speakers_of_different_sizes_are_dealt_anew_too() -> None:
    counts = {("c", f"s{number}"): 30 + number for number in range(10)}
    partitions = {frozenset(frozenset(group) for group in deal(counts, 3, seed)) for seed in range(10)}
    assert len(partitions) == 10
    sizes = [sum(counts[speaker] for speaker in group) for group in deal(counts, 3, 0)]
    assert max(sizes) - min(sizes) < 39, "the first seed's groups are even"


def test_leave_one_speaker_takes_the_next_speakers_as_dev() -> None:
    folds = make_folds(corpus(speakers=4, each=1), SplitOptions(dev_speakers=2))
    assert [(fold.name, fold.test, fold.dev, fold.train) for fold in folds] == [
        ("c/s0", ("c-0-0",), ("c-1-0", "c-2-0"), ("c-3-0",)),
        ("c/s1", ("c-1-0",), ("c-2-0", "c-3-0"), ("c-0-0",)),
        ("c/s2", ("c-2-0",), ("c-0-0", "c-3-0"), ("c-1-0",)),
        ("c/s3", ("c-3-0",), ("c-0-0", "c-1-0"), ("c-2-0",)),
    ]


def test_of_many_folds_only_those_asked_for_are_made() -> None:
    metadata, options = corpus(speakers=6), SplitOptions()
    folds = make_folds(metadata, options)
    assert folds_of(metadata, options, [4, 1]) == {4: folds[4], 1: folds[1]}
    with pytest.raises(OptionError, match=r"folds \[6, 9\] do not exist: the split leave-one-speaker gives 0..5"):
        folds_of(metadata, options, [9, 0, 6])
    many = corpus(speakers=4000, each=1)
    assert [len(fold.train) for fold in folds_of(many, options, [3999]).values()] == [3998], "not 4000 folds of as many"


def test_leave_one_session_takes_the_next_session_as_dev() -> None:
    folds = make_folds(corpus(speakers=8, each=1), SplitOptions(scheme="leave-one-session"))
    assert [(fold.name, fold.test, fold.dev) for fold in folds] == [
        ("c/session0", ("c-0-0", "c-1-0"), ("c-2-0", "c-3-0")),
        ("c/session1", ("c-2-0", "c-3-0"), ("c-4-0", "c-5-0")),
        ("c/session2", ("c-4-0", "c-5-0"), ("c-6-0", "c-7-0")),
        ("c/session3", ("c-6-0", "c-7-0"), ("c-0-0", "c-1-0")),
    ]


def test_a_speaker_in_two_sessions_is_a_leak() -> None:
    rows = [(f"u{i}", "c", f"s{i}", f"z{i}") for i in range(3)]
    with pytest.raises(SplitError, match=r"fold c/z0 leaks: speakers in more than one part: c/s0 \(train and test\)"):
        make_folds(table(*rows, ("again", "c", "s0", "z2")), SplitOptions(scheme="leave-one-session"))


def test_the_given_column_is_taken_as_it_is() -> None:
    metadata = table(
        ("a", "c", "s1", None, "train"),
        ("b", "c", "s2", None, "dev"),
        ("d", "c", "s3", None, "test"),
        ("e", "c", "s3"),
        ("f", "c", None, None, "test"),
        ("g", "c", None, None, "train"),
    )
    (fold,) = make_folds(metadata, SplitOptions(scheme="column"))
    assert fold == Fold(name="given", train=Ids(["a"]), dev=Ids(["b"]), test=Ids(["d"]), left_out=3)
    (with_unknown,) = make_folds(metadata, SplitOptions(scheme="column", unknown_speakers="train"))
    assert with_unknown == replace(fold, train=Ids(["a", "g"]), left_out=2)


def test_a_given_split_that_leaks_is_refused() -> None:
    parts = ("train", "dev", "test")
    metadata = table(*[(f"u{i}", "c", "s1" if part != "dev" else "s2", None, part) for i, part in enumerate(parts)])
    with pytest.raises(SplitError, match=r"speakers in more than one part: c/s1 \(train and test\)"):
        make_folds(metadata, SplitOptions(scheme="column"))


@pytest.mark.parametrize(
    ("metadata", "options", "message"),
    [
        (corpus(2), {}, r"needs at least 3 known speakers, there are 2"),
        (corpus(4), {"dev_speakers": 3}, r"with 3 dev speakers needs at least 5 known speakers, there are 4"),
        (corpus(4), {"scheme": "k-fold"}, r"k-fold with k=5 .* needs at least 5 known speakers, there are 4"),
        (corpus(4), {"scheme": "leave-one-session"}, r"needs at least 3 sessions .* there are 2"),
        (corpus(4), {"scheme": "column"}, r"no train and no dev and no test utterance"),
        (corpus(0), {}, r"there are no utterances to split"),
        (table(("a", "c", None)), {}, r"there are 0"),
        (corpus(4, each=2), {"scheme": "k-fold", "k": 2, "dev_speakers": 2}, r"fold group-0 .* no utterance in train"),
    ],
)
def test_splits_that_cannot_be_made_say_why(metadata: pa.Table, options: dict[str, object], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make_folds(metadata, parse(SplitOptions, options))


def test_check_leak_finds_shared_audio_and_strangers() -> None:
    metadata = table(("a", "c", "s1"), ("b", "c", "s2"), ("d", "c", "s3", None, None, "a"))
    fold = Fold(name="f", train=Ids(["a"]), dev=Ids(["b"]), test=Ids(["d"]))
    with pytest.raises(SplitError, match=r"audio \(duplicate_of\) in more than one part: a \(train and test\)"):
        check_leak(fold, metadata)
    hashed = metadata.drop_columns("duplicate_of").append_column("pcm_hash", pa.array(["x", "x", "y"]))
    with pytest.raises(SplitError, match=r"audio \(pcm_hash\) in more than one part: x \(train and dev\)"):
        check_leak(fold, hashed)
    with pytest.raises(SplitError, match=r"utterances in more than one part: a \(train and dev\)"):
        check_leak(replace(fold, dev=Ids(["a"])), metadata)
    with pytest.raises(SplitError, match=r"not in the pool: stranger"):
        check_leak(replace(fold, dev=Ids(["stranger"])), metadata)
    check_leak(replace(fold, test=Ids()), metadata)


def test_sessions_and_words_are_kept_apart_where_that_is_asked_for() -> None:
    metadata = table(("a", "c", "s1", "z1"), ("b", "c", "s2", "z1"), ("d", "c", "s3", "z2"), ("e", "other", "s1", "z2"))
    words = ["Kids are talking.", "dogs are sitting", "kids,  are TALKING", None]
    metadata = metadata.append_column("text", pa.array(words))
    fold = Fold(name="f", train=Ids(["a"]), dev=Ids(["b"]), test=Ids(["d", "e"]))
    check_leak(fold, metadata)
    with pytest.raises(SplitError, match=r"sessions in more than one part: c/z1 \(train and dev\)$"):
        check_leak(fold, metadata, apart=["session"])
    with pytest.raises(SplitError, match=r"texts in more than one part: kids are talking \(train and test\)$"):
        check_leak(fold, metadata, apart=["text"])
    check_leak(replace(fold, dev=Ids(), test=Ids(["e"])), metadata, apart=["session", "text"])
    sharing = table(*[(f"u{i}", "c", f"s{i}", "z") for i in range(3)])
    make_folds(sharing, SplitOptions())
    with pytest.raises(SplitError, match=r"sessions in more than one part: c/z"):
        make_folds(sharing, SplitOptions(apart=("session",)))


def test_many_leaking_speakers_are_listed_and_counted() -> None:
    metadata = table(*[(f"{part}{i:02d}", "c", f"s{i:02d}") for part in ("a", "b") for i in range(15)])
    train, test = (Ids(f"{part}{i:02d}" for i in range(15)) for part in ("a", "b"))
    with pytest.raises(SplitError, match=r"c/s00 \(train and test\), .* and 5 more"):
        check_leak(Fold(name="f", train=train, dev=Ids(), test=test), metadata)


def test_without_takes_utterances_out_of_every_part() -> None:
    fold = Fold(name="f", train=Ids(["a", "b"]), dev=Ids(["d"]), test=Ids(["e", "g"]), left_out=1)
    assert fold.without({"b", "e"}) == Fold(name="f", train=Ids(["a"]), dev=Ids(["d"]), test=Ids(["g"]), left_out=3)


def test_options_name_what_is_allowed() -> None:
    with pytest.raises(OptionError, match="leave-one-speaker"):
        parse(SplitOptions, {"scheme": "random"})
    with pytest.raises(OptionError, match="unknown option 'folds'; known here: scheme, k, dev_speakers"):
        parse(SplitOptions, {"folds": 3})


def test_metadata_without_speakers_is_refused() -> None:
    with pytest.raises(SplitError, match="metadata has no column 'speaker'; it has: utterance_id, corpus"):
        make_folds(pa.table({"utterance_id": ["a"], "corpus": ["c"]}), SplitOptions())
