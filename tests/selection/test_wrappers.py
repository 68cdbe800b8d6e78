import itertools
import math
import weakref
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from seral.errors import OptionError, SelectionError
from seral.selection.candidates import COLUMNS, Candidates
from seral.selection.minutes import select_for_minutes
from seral.selection.options import PaceOptions
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, select
from seral.selection.strategies import STRATEGIES, WRAPPERS
from seral.selection.strategies.uniform import shares, uniform
from seral.selection.strategies.wrappers import rejection

# N candidates · M labelled · D features

LABELLED = tuple(name for name, facts in COLUMNS.items() if facts.labelled)
INNER = ["random", "margin", "k_center", "badge", "k_means"]
WRAPPED: list[dict[str, Any]] = [
    *({"name": name} for name in WRAPPERS),
    {"name": "quota", "by": "predicted", "share": 0.05},
    {"name": "distinct", "distance": 0.5},
    {"name": "quality", "snr_db": 10.0},
]
BY_SPEAKER = {"name": "quota", "share": 0.3}
BY_CORPUS = {"name": "quota", "by": "corpus", "share": 0.4}
BY_CLASS = {"name": "quota", "by": "predicted", "share": 0.4}
NEAR = {"name": "distinct", "distance": 0.02}
NESTED: list[list[dict[str, Any]]] = [
    [BY_CORPUS, BY_SPEAKER],
    [NEAR, BY_SPEAKER],
    [BY_SPEAKER, NEAR],
    [BY_SPEAKER, {"name": "usable"}],
    [{"name": "quality"}, BY_SPEAKER],
    [{"name": "usable"}, BY_CORPUS, BY_SPEAKER],
    [BY_CLASS, NEAR, BY_SPEAKER],
    [{"name": "relabel"}, BY_CORPUS, BY_CLASS],
    [NEAR, {"name": "usable"}, BY_SPEAKER],
    [BY_SPEAKER, {"name": "quality"}, {"name": "shortlist", "beta": 2}],
]


def pool(count: int, labelled: int, seed: int) -> Candidates:
    rng, rated = np.random.default_rng(seed), np.random.default_rng(seed)
    return Candidates(
        ids=np.array([f"u{number:03d}" for number in rng.permutation(900)[:count]], dtype=np.str_),
        probability_NC=rng.dirichlet(np.ones(4), size=count).astype(np.float32),
        dropout_RNC=rng.dirichlet(np.ones(4), size=(3, count)).astype(np.float32),
        embedding_ND=rng.normal(size=(count, 3)).astype(np.float32),
        value_NK=rated.normal(size=(count, 2)).astype(np.float32),
        member_RNK=rated.normal(size=(3, count, 2)).astype(np.float32),
        surprisal_NQ=rng.uniform(size=(count, 6)).astype(np.float32),
        speaker=rng.choice(["", "a", "b", "c"], size=count, p=[0.1, 0.6, 0.2, 0.1]),
        corpus=rng.choice(["x", "y", "z"], size=count, p=[0.6, 0.2, 0.2]),
        duration_s=rng.uniform(1, 9, size=count).astype(np.float32),
        snr_db=rng.choice([np.nan, -5, 5, 15], size=count).astype(np.float32),
        labelled_ids=np.array([f"v{number:02d}" for number in range(labelled)], dtype=np.str_),
        labelled_embedding_MD=rng.normal(size=(labelled, 3)).astype(np.float32),
        labelled_value_MK=rated.normal(size=(labelled, 2)).astype(np.float32),
        labelled_doubt_M=rng.uniform(size=labelled).astype(np.float32),
        rejected_M=np.arange(labelled) % 2 == 1,
    )


def shuffled(candidates: Candidates, seed: int) -> Candidates:
    """The same in another order."""
    rng = np.random.default_rng(seed)
    rows, labelled = rng.permutation(len(candidates)), rng.permutation(len(candidates.labelled_centres()))
    labelled_columns = {name: value[labelled] for name, value in vars(candidates).items() if name in LABELLED}
    return replace(candidates.take(rows), **labelled_columns)


def wrapped(inner: str, *wrappers: dict[str, Any]) -> StrategyOptions:
    return StrategyOptions.model_validate({"name": inner, "wrappers": list(wrappers)})


def ask(strategy: StrategyOptions, candidates: Candidates, k: int) -> list[str]:
    return select(strategy, candidates, k, np.random.default_rng(0))


def counts_by(candidates: Candidates, picks: list[str], by: str) -> Counter[str]:
    """How many of the picks are of each group; labels asked for again are of none."""
    rows = np.flatnonzero(np.isin(candidates.ids, picks))
    return Counter(candidates.groups(by)[rows].tolist())


def lowest_limit(candidates: Candidates, count: int, share: float, by: str) -> int:
    """The smallest limit of a quota that `count` picks can keep."""
    sizes = Counter(candidates.groups(by).tolist()).values()
    return next(n for n in itertools.count(math.ceil(share * count)) if sum(min(size, n) for size in sizes) >= count)


@pytest.mark.parametrize("wrappers", [*([wrapper] for wrapper in WRAPPED), *NESTED], ids=str)
@pytest.mark.parametrize("inner", STRATEGIES)
def test_contract(inner: str, wrappers: list[dict[str, Any]]) -> None:
    """k different candidates, whatever the order of rows; the outermost quota as low as it can be held."""
    strategy, again = wrapped(inner, *wrappers), wrappers[0]["name"] == "relabel"
    for seed, (count, labelled, k) in enumerate([(1, 0, 1), (9, 3, 9), (40, 6, 14)]):
        candidates = pool(count, labelled, seed)
        picks = ask(strategy, candidates, k)
        assert len(set(picks)) == len(picks) == k
        assert candidates.labelled_ids is not None
        ids = set(candidates.ids.tolist())
        assert set(picks) <= ids | (set(candidates.labelled_ids.tolist()) if again else set())
        assert ask(strategy, shuffled(candidates, seed), k) == picks
        outer, new = wrappers[1 if again else 0 :][:1], len(ids & set(picks))
        for by, share in ((q.get("by", "speaker"), q.get("share", 0.2)) for q in outer if q["name"] == "quota"):
            assert max(counts_by(candidates, picks, by).values()) <= lowest_limit(candidates, new, share, by)


AMPLE = [wrappers for wrappers in NESTED if any(wrapper["name"] == "quota" for wrapper in wrappers)]
AMPLE += [[BY_SPEAKER, BY_CORPUS], [{"name": "quality"}, NEAR, BY_CORPUS, BY_SPEAKER, BY_CLASS]]


@pytest.mark.parametrize("wrappers", AMPLE, ids=str)
@pytest.mark.parametrize("inner", ["random", "margin", "density", "k_center", "typiclust", "badge", "cluster_margin"])
def test_every_quota_holds_at_any_depth_where_there_is_enough_of_every_group(
    inner: str, wrappers: list[dict[str, Any]]
) -> None:
    """Eight speakers in each of three corpora, all of them enough; the model doubts one speaker of one corpus most."""
    rng, count = np.random.default_rng(0), 360
    rows = np.arange(count)
    candidates = replace(
        pool(count, 6, 0),
        speaker=rng.permuted(np.array(list("abcde"))[rows % 5]),
        corpus=rng.permuted(np.array(list("xyz"))[rows % 3]),
    )
    assert candidates.speaker is not None
    assert candidates.corpus is not None
    doubted_N = (candidates.speaker == "a") | (candidates.corpus == "x")
    p_NC = candidates.need("probability_NC")
    p_NC[doubted_N] = 0.95 / 4 + 0.05 * p_NC[doubted_N]
    picks = ask(wrapped(inner, *wrappers), candidates, 20)
    new = len(set(candidates.ids.tolist()) & set(picks))
    for quota in (wrapper for wrapper in wrappers if wrapper["name"] == "quota"):
        most = max(counts_by(candidates, picks, quota.get("by", "speaker")).values())
        assert most <= math.ceil(quota["share"] * new)


@pytest.mark.parametrize("inner", INNER)
def test_no_group_gets_more_than_its_quota(inner: str) -> None:
    candidates = pool(300, 5, 0)
    speaker = dict(zip(candidates.ids.tolist(), candidates.groups("speaker").tolist(), strict=True))
    free = Counter(speaker[pick] for pick in ask(wrapped(inner), candidates, 50))
    counts = Counter(speaker[pick] for pick in ask(wrapped(inner, {"name": "quota", "share": 0.3}), candidates, 50))
    assert free["a"] > 15 >= max(counts.values())


@pytest.mark.parametrize("k", [200, 201])
def test_a_quota_that_cannot_be_kept_is_raised_as_little_as_possible(k: int) -> None:
    candidates = pool(300, 0, 0)
    sizes = Counter(candidates.groups("speaker").tolist())
    picks = ask(wrapped("random", {"name": "quota", "share": 0.001}), candidates, k)
    counts = Counter(candidates.groups("speaker")[candidates.rows(picks)].tolist())
    limit = max(counts.values())
    assert sum(min(size, limit - 1) for size in sizes.values()) < k
    assert all(counts[name] == min(size, limit) for name, size in sizes.items() if name != "a")


def test_quota_keeps_the_order_of_the_strategy() -> None:
    candidates = pool(100, 0, 0)
    order, room, expected = ask(wrapped("margin"), candidates, 100), Counter[str](), list[str]()
    for pick in order:
        group = str(candidates.groups("speaker")[candidates.rows([pick])[0]])
        if room[group] < 5 and len(expected) < 20:
            room[group] += 1
            expected.append(pick)
    assert ask(wrapped("margin", {"name": "quota", "share": 0.25}), candidates, 20) == expected


@pytest.mark.parametrize("inner", INNER)
def test_distinct_picks_are_far_from_each_other_and_from_what_is_labelled(inner: str) -> None:
    candidates = pool(300, 3, 1)
    picks = ask(wrapped(inner, {"name": "distinct", "distance": 0.05}), candidates, 20)
    all_XD = np.concatenate([candidates.need("embedding_ND")[candidates.rows(picks)], candidates.labelled_centres()])
    unit_XD = all_XD / np.linalg.norm(all_XD, axis=1, keepdims=True)
    cosine_XX = unit_XD @ unit_XD.T - 2 * np.eye(len(unit_XD))
    cosine_XX[20:, 20:] = -1
    assert cosine_XX.max() < 1 - 0.05


def test_copies_are_picked_when_nothing_else_is_left() -> None:
    candidates = replace(pool(30, 0, 0), embedding_ND=np.repeat(np.eye(3, dtype=np.float32), 10, axis=0))
    block_of = {name: row // 10 for row, name in enumerate(candidates.ids.tolist())}
    picks = ask(wrapped("random", {"name": "distinct"}), candidates, 12)
    assert {block_of[pick] for pick in picks[:3]} == {0, 1, 2}


def test_distinct_never_holds_two_copies_of_who_is_left() -> None:
    candidates = pool(50, 3, 1)
    references: list[weakref.ref[Candidates]] = []

    def spy(left: Candidates, k: int, rng: np.random.Generator) -> list[str]:
        assert not [ref for ref in references if ref() is not None]
        references.extend([weakref.ref(left)] if left is not candidates else [])
        return uniform(left, k, rng)

    assert len(WRAPPERS["distinct"].function(spy, candidates, 20, np.random.default_rng(0), distance=0.1)) == 20
    assert len(references) > 1
    references.clear()
    fresh = replace(candidates, **dict.fromkeys(LABELLED))
    assert len(WRAPPERS["distinct"].function(spy, fresh, 1, np.random.default_rng(0))) == 1
    assert references == [] or references[0]() is not candidates


def test_bad_recordings_come_last() -> None:
    candidates = pool(100, 0, 0)
    assert candidates.snr_db is not None
    good = int((~(candidates.snr_db < 0)).sum())
    picks = ask(wrapped("margin", {"name": "quality"}), candidates, good + 5)
    snr = candidates.snr_db[candidates.rows(picks)]
    assert not (snr[:good] < 0).any()
    assert (snr[good:] < 0).all()
    assert np.isnan(snr[:good]).any()  # not measured is not bad


def test_what_sounds_like_the_rejected_comes_last() -> None:
    """Half of the pool lies around what was rejected, half around what was labelled."""
    rng = np.random.default_rng(0)
    junk_N = np.arange(80) % 2 == 0
    candidates = Candidates(
        ids=np.array([f"u{number:02d}" for number in range(80)]),
        embedding_ND=rng.normal(size=(80, 4)) + 1e3 + 6 * junk_N[:, None],  # far from zero, as real features are
        labelled_ids=np.array(["c", "a", "b"]),
        labelled_embedding_MD=np.array([[6.0] * 4, [0.0] * 4, [0.5, -0.5, 0.5, 0]]) + 1e3,
        rejected_M=np.array([True, False, False]),
    )
    picks = ask(wrapped("random", {"name": "usable"}), candidates, 45)
    rows = candidates.rows(picks)
    assert not junk_N[rows[:40]].any()
    assert junk_N[rows[40:]].all()
    nobody = replace(candidates, rejected_M=np.zeros(3, dtype=bool))
    assert ask(wrapped("random", {"name": "usable"}), nobody, 45) == ask(wrapped("random"), nobody, 45)
    strict = ask(wrapped("random", {"name": "usable", "limit": 1e-12}), candidates, 45)
    assert strict == ask(wrapped("random"), candidates, 45), "everybody is left out, so nobody is preferred"


def test_a_share_of_the_budget_goes_to_doubtful_labels() -> None:
    candidates = pool(50, 5, 0)
    doubt = {"v00": 0.9, "v01": 0.2, "v02": 0.95, "v03": 0.6, "v04": 0.1}
    candidates = replace(candidates, labelled_doubt_M=np.array(list(doubt.values()), dtype=np.float32))
    picks = ask(wrapped("margin", {"name": "relabel", "share": 0.5}), candidates, 8)
    assert picks[5:] == ["v02", "v00", "v03"]
    assert picks[:5] == ask(wrapped("margin"), candidates, 5)
    assert ask(wrapped("margin", {"name": "relabel", "share": 0.25}), candidates, 8)[6:] == ["v02", "v00"]


@pytest.mark.parametrize("name", ["quota", "distinct", "quality", "usable"])
def test_a_strategy_that_is_asked_again_hears_of_the_picks_so_far(name: str) -> None:
    asked: list[Candidates] = []

    def spy(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
        asked.append(candidates)
        return uniform(candidates, k, rng)

    candidates = pool(60, 2, 0)
    options = {"quota": {"share": 0.4}, "distinct": {"distance": 0.1}, "quality": {"snr_db": 10.0}, "usable": {}}[name]
    picks = WRAPPERS[name].function(spy, candidates, 40, np.random.default_rng(0), **options)
    first, again = asked[0], asked[1]
    assert first.picked is None
    assert again.picked is not None
    assert set(again.picked.ids.tolist()) <= set(picks)
    rows = candidates.rows(again.picked.ids.tolist())
    assert again.picked.groups("speaker").tolist() == candidates.groups("speaker")[rows].tolist()
    assert again.labelled_centres()[:2].tolist() == candidates.labelled_centres().tolist()
    assert again.labelled_centres()[2:].tolist() == candidates.need("embedding_ND")[rows].tolist()


def test_what_is_picked_but_not_answered_does_not_say_what_is_usable() -> None:
    candidates = pool(60, 8, 0)
    before, after = rejection(candidates), rejection(candidates.but(candidates.ids[:20].tolist()))
    assert before is not None
    assert after is not None
    assert (after.weight_D.tolist(), after.bias) == (before.weight_D.tolist(), before.bias)


def test_shares_are_counted_in_decimal() -> None:
    """0.07 of 100 is 7 and 0.29 of 100 is 29, though the binary products lie on the wrong side."""
    candidates = replace(pool(400, 100, 0), speaker=np.array([f"s{row % 40}" for row in range(400)]))
    picks = ask(wrapped("random", {"name": "quota", "share": 0.07}), candidates, 100)
    assert max(counts_by(candidates, picks, "speaker").values()) <= 7
    picks = ask(wrapped("random", {"name": "relabel", "share": 0.29, "doubt": 0.0}), candidates, 100)
    assert sum(pick.startswith("v") for pick in picks) == 29


def test_wrappers_work_from_the_outermost_in() -> None:
    candidates = pool(200, 0, 0)
    strategy = wrapped(
        "random", {"name": "quota", "share": 0.25}, {"name": "quality"}, {"name": "shortlist", "beta": 2}
    )
    picks = candidates.rows(ask(strategy, candidates, 20))
    assert candidates.snr_db is not None
    assert not (candidates.snr_db[picks] < 0).any()
    assert max(Counter(candidates.groups("speaker")[picks].tolist()).values()) <= 5
    assert strategy.needs == {"speaker", "probability_NC"}


@pytest.mark.parametrize(
    ("wrappers", "message"),
    [
        ([{"name": "quotas"}], "unknown wrapper 'quotas'; known: distinct, epsilon_greedy, quality"),
        ([{"name": "quota", "of": 1}], "unknown option of wrapper quota 'of'"),
        ([{"name": "quota", "by": "emotion"}], "known: corpus, language, predicted, speaker"),
        ([{"name": "quality"}, {"name": "relabel"}], "put it first"),
    ],
)
def test_wrong_wrappers_are_refused(wrappers: list[dict[str, Any]], message: str) -> None:
    with pytest.raises((ValidationError, OptionError), match=message):
        wrapped("random", *wrappers)


@pytest.mark.parametrize(
    "wrapper",
    [
        {"name": "quota", "share": 0},
        {"name": "distinct", "distance": 3},
        {"name": "distinct", "threads": 0},
        {"name": "relabel", "share": 2},
        {"name": "relabel", "doubt": float("nan")},
        {"name": "quality", "snr_db": float("nan")},
        {"name": "shortlist", "beta": float("inf")},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(wrapper: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="needs"):
        ask(wrapped("random", wrapper), pool(10, 2, 0), 3)


def test_what_is_not_known_is_asked_for() -> None:
    bare = Candidates(ids=np.array(["a", "b"]))
    with pytest.raises(SelectionError, match="needs language"):
        ask(wrapped("random", {"name": "quota", "by": "language"}), bare, 1)


def in_minutes(
    strategy: StrategyOptions, candidates: Candidates, minutes: float, pace: PaceOptions | None = None
) -> list[str]:
    parts, rng = Parts([PoolPart(candidates)]), np.random.default_rng(0)
    return select_for_minutes(strategy, parts, minutes, rng, pace or PaceOptions()).ids


@pytest.mark.parametrize(
    "wrappers", [[], *([w] for w in WRAPPED), *NESTED[:6], [BY_CORPUS, BY_CLASS, BY_SPEAKER]], ids=str
)
@pytest.mark.parametrize("inner", STRATEGIES)
def test_minutes_are_spent_but_for_full_groups_and_never_overspent(inner: str, wrappers: list[dict[str, Any]]) -> None:
    """One speaker's clips are short. The outermost quota is as low as a number of picks could hold it."""
    if {"name": "relabel"} in wrappers:
        return
    quotas = [(q.get("by", "speaker"), q.get("share", 0.2)) for q in wrappers if q["name"] == "quota"]
    for minutes in (0.3, 2.5):
        candidates = pool(40, 4, 1)
        duration_s = candidates.need("duration_s")
        duration_s[candidates.groups("speaker") == "a"] /= 4
        picks = in_minutes(wrapped(inner, *wrappers), candidates, minutes)
        assert len(set(picks)) == len(picks)
        assert set(picks) <= set(candidates.ids.tolist())
        cost_N = PaceOptions().seconds(duration_s)
        free_N = ~np.isin(candidates.ids, picks)
        left_s = 60 * minutes - cost_N[~free_N].sum()
        assert left_s > -1e-9
        if quotas and wrappers[0]["name"] == "quota":
            by, share = quotas[0]
            assert max(counts_by(candidates, picks, by).values()) <= lowest_limit(candidates, len(picks), share, by)
        paid_N = free_N & (cost_N <= left_s - 1e-9)
        full = list[bool]()
        for by, share in quotas:
            count_of, limit = counts_by(candidates, picks, by), lowest_limit(candidates, len(picks) + 1, share, by)
            full.append(all(count_of[group] >= limit for group in candidates.groups(by)[paid_N].tolist()))
        assert not paid_N.any() or any(full)


def test_minutes_that_pay_for_nothing_name_the_cheapest_clip() -> None:
    candidates = replace(pool(3, 0, 0), duration_s=np.array([4, 2, 6], dtype=np.float32))
    message = f"0.1 minutes do not pay for a single clip: the cheapest, {candidates.ids[1]}, takes 8.0 s"
    with pytest.raises(SelectionError, match=message):
        in_minutes(wrapped("random"), candidates, 0.1)


def test_when_everything_is_labelled_it_is_said() -> None:
    nobody = pool(3, 2, 0).take(np.empty(0, dtype=np.intp))
    message = "asked k_center for {} picks of 0 candidates: every utterance with features is labelled already"
    with pytest.raises(SelectionError, match=message.format(5)):
        ask(wrapped("k_center"), nobody, 5)
    with pytest.raises(SelectionError, match=message.format(1)):
        in_minutes(wrapped("k_center"), nobody, 5)


def test_minutes_are_not_divided_with_old_labels() -> None:
    strategy = wrapped("margin", {"name": "relabel"})
    with pytest.raises(SelectionError, match="give the budget as sizes or fractions"):
        in_minutes(strategy, pool(10, 2, 0), 5)


def test_minutes_buy_the_first_of_a_ranking() -> None:
    candidates, pace = pool(100, 0, 0), PaceOptions(listening=2, deciding_s=10)
    order = ask(wrapped("margin"), candidates, 100)
    cost_N = pace.seconds(candidates.need("duration_s"))[candidates.rows(order)]
    picks = in_minutes(wrapped("margin"), candidates, 5, pace)
    fits = int((cost_N.cumsum() <= 300).sum())
    assert picks[:fits] == order[:fits]


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.data())
def test_shares_of_groups_are_exact(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    limits = shares(np.array(sizes), total)
    assert limits.sum() == total
    assert np.abs(limits - np.array(sizes) * total / sum(sizes)).max() < 1


def test_random_by_group_gives_every_group_its_share() -> None:
    candidates = pool(200, 0, 0)
    picks = uniform(candidates, 40, np.random.default_rng(0), by="speaker")
    counts = Counter(candidates.groups("speaker")[candidates.rows(picks)].tolist())
    names, sizes = np.unique(candidates.groups("speaker"), return_counts=True)
    assert [counts[name] for name in names.tolist()] == shares(sizes, 40).tolist()


@pytest.mark.parametrize(("epsilon", "chance"), [(0.0, 0), (0.04, 0), (0.05, 1), (0.25, 3), (0.349, 3), (1.0, 10)])
def test_a_share_by_chance_comes_first_and_the_strategy_picks_among_the_others(epsilon: float, chance: int) -> None:
    candidates = pool(60, 0, 0)
    picks = ask(wrapped("margin", {"name": "epsilon_greedy", "epsilon": epsilon}), candidates, 10)
    first = ask(wrapped("random"), candidates, chance) if chance else []
    assert (
        picks == first + [name for name in ask(wrapped("margin"), candidates, 20) if name not in first][: 10 - chance]
    )


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, float("nan")])
def test_a_share_by_chance_is_a_share(epsilon: float) -> None:
    with pytest.raises(OptionError, match=r"epsilon_greedy needs an epsilon in \[0, 1\]"):
        ask(wrapped("margin", {"name": "epsilon_greedy", "epsilon": epsilon}), pool(9, 0, 0), 3)
