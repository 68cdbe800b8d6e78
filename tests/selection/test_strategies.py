import itertools
import math
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.stats import chi2
from scipy.stats import entropy as scipy_entropy

from seral.errors import OptionError, SelectionError
from seral.selection.candidates import COLUMNS, Candidates
from seral.selection.parts.distributed import select_in_parts
from seral.selection.parts.local import Parts, Picks
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, check_options, default_options, select
from seral.selection.strategies import DIVERSITIES, STRATEGIES, UNCERTAINTIES, WRAPPERS, scores
from seral.selection.strategies.automatic import agreement_of_clusters
from seral.selection.strategies.clusters import nearest_in_turn
from seral.selection.strategies.farthest_first import BoundedRows, farthest_first, traverse
from seral.selection.strategies.records import Exact, Strategy, Wrapper, by_score
from seral.selection.strategies.uniform import drawn
from seral.testing import check_picks_of, made_up_columns

# N candidates · M labelled · R passes · C classes · D features

pool = made_up_columns
INF, NAN = float("inf"), float("nan")
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in STRATEGIES),
    ("after", {"diversity": "k_center", "uncertainty": "entropy", "beta": 2}),
    *(("after", {"diversity": name}) for name in DIVERSITIES),
    ("after", {"uncertainty": "bald"}),
    ("k_means", {"clusters": 2}),
    ("k_means", {"points_per_cluster": 2, "threads": 2}),
    ("random", {"by": "predicted"}),
    ("random", {"by": "speaker"}),
    ("density", {"uncertainty": "margin", "beta": 0.5}),
    ("batch_bald", {"shortlist": 5, "answers": 20}),
    ("typiclust", {"clusters": 3, "neighbours": 2, "smallest": 3}),
    ("typiclust", {"points_per_cluster": 1, "members": 2}),
    ("prob_cover", {"radius": 0.5}),
    ("prob_cover", {"points_per_cluster": 1}),
    ("prob_cover", {"sample": 10}),
    ("cluster_margin", {"clusters": 2, "beta": 2}),
    ("cluster_margin", {"rows_per_cluster": 2, "beta": 2}),
    ("max_herding", {"width": 0.3, "sample": 10}),
    ("uncertainty_herding", {"temperature": 0.5, "sample": 10}),
    ("auto", {"source": True, "epsilon": 0.3}),
    ("auto", {"source": True, "agreement": -1.0}),
    ("tcm", {"labels_per_class": 1}),
    ("dcom", {"centre": 0.3, "steepness": 3.0, "sample": 10}),
    ("dropquery", {"passes": 1, "sample": 5}),
    ("predictive_variance", {"noise": 2.0}),
    ("max_det", {"noise": 2.0}),
]


def ask(variant: tuple[str, dict[str, Any]], columns: dict[str, Any], k: int, seed: int = 0) -> list[str]:
    return select(variant[0], Candidates(**columns), k, np.random.default_rng(seed), **variant[1])


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 4), st.integers(0, 999), st.booleans(), st.data())
def test_contract(variant: Any, count: int, labelled: int, seed: int, copies: bool, data: st.DataObject) -> None:
    columns = pool(count, labelled, seed, copies=copies)
    strategy = StrategyOptions.model_validate({"name": variant[0], **variant[1]})
    check_picks_of(strategy, columns, data.draw(st.integers(0, count)), seed)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_whole_pool_can_be_asked_for(variant: Any) -> None:
    columns = pool(12, 2, 0)
    assert sorted(ask(variant, columns, 12)) == sorted(columns["ids"].tolist())


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_identical_utterances_are_still_different_picks(variant: Any) -> None:
    columns = pool(20, 2, 0)
    columns["embedding_ND"][:], columns["probability_NC"][:], columns["value_NK"][:] = 1.0, 0.25, 2.0
    assert len(set(ask(variant, columns, 15))) == 15


@pytest.mark.parametrize("name", ["random", "k_means", "k_means_plus_plus", "badge"])
def test_the_seed_matters_where_chance_does(name: str) -> None:
    columns = pool(200, 0, 0)
    assert ask((name, {}), columns, 10, seed=0) != ask((name, {}), columns, 10, seed=1)


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence", "bald"])
def test_top_k_is_the_true_one_with_ties_by_id(name: str) -> None:
    columns = pool(40, 0, 1, copies=True)
    score_N = getattr(scores, name)(columns["dropout_RNC" if name == "bald" else "probability_NC"].astype(np.float32))
    expected = sorted(zip(-score_N, columns["ids"].tolist(), strict=True))
    assert ask((name, {}), columns, 17) == [utterance for _, utterance in expected[:17]]


def test_scores_against_scipy_and_by_hand() -> None:
    p_RNC = np.random.default_rng(0).dirichlet(np.ones(5), size=(4, 30))
    np.testing.assert_allclose(scores.entropy(p_RNC[0]), scipy_entropy(p_RNC[0], axis=1))
    mutual_N = scipy_entropy(p_RNC.mean(axis=0), axis=1) - scipy_entropy(p_RNC, axis=2).mean(axis=0)
    np.testing.assert_allclose(scores.bald(p_RNC), mutual_N, atol=1e-12)
    hand_NC = np.array([[0.5, 0.3, 0.2], [1, 0, 0], [0.4, 0.2, 0.4]])
    np.testing.assert_allclose(scores.margin(hand_NC), [-0.2, -1, 0])
    np.testing.assert_allclose(scores.least_confidence(hand_NC), [0.5, 0, 0.6])
    assert scores.entropy(hand_NC)[1] == 0


def test_bald_is_zero_where_passes_agree_and_log_2_where_they_contradict() -> None:
    p_RNC = np.array([[[0.6, 0.4], [1, 0]], [[0.6, 0.4], [0, 1]]])
    np.testing.assert_allclose(scores.bald(p_RNC), [0, np.log(2)], atol=1e-12)


def brute_force_farthest_first(x_ND: NDArray[np.float32], centre_MD: NDArray[np.float32], k: int) -> list[int]:
    """The textbook: every distance to every centre, in double precision, compared in single."""
    wide_ND = x_ND.astype(np.float64)
    picks: list[int] = []
    while len(picks) < k:
        centres = np.concatenate([centre_MD.astype(np.float64), wide_ND[picks]])
        if len(centres):
            value_N = ((wide_ND[:, None] - centres) ** 2).sum(axis=2).min(axis=1).astype(np.float32)
            value_N[picks] = -1
        else:
            value_N = -((wide_ND - wide_ND.mean(axis=0)) ** 2).sum(axis=1).astype(np.float32)
        picks.append(int(value_N.argmax()))
    return picks


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 50), st.integers(1, 4), st.integers(0, 5), st.sampled_from([0, 1000]), st.integers(0, 9999))
def test_k_center_equals_brute_force_on_a_grid_full_of_ties(
    count: int, width: int, labelled: int, offset: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x_ND = (rng.integers(-2, 3, size=(count, width)) + offset).astype(np.float32)
    centre_MD = (rng.integers(-2, 3, size=(labelled, width)) + offset).astype(np.float32)
    k = int(rng.integers(count + 1))
    assert farthest_first(x_ND, centre_MD, k).tolist() == brute_force_farthest_first(x_ND, centre_MD, k)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(0, 3), st.integers(1, 5), st.integers(1, 9), st.integers(0, 9999))
def test_k_center_of_many_parts_equals_brute_force_on_a_grid_full_of_ties(
    count: int, labelled: int, parts: int, offer: int, seed: int
) -> None:
    """Whatever part a row is in, and however few rows the parts offer at a time."""
    rng = np.random.default_rng(seed)
    x_ND = rng.integers(-2, 3, size=(count, 3)).astype(np.float32)
    centre_MD = rng.integers(-2, 3, size=(labelled, 3)).astype(np.float32)
    part_N = rng.integers(parts, size=count)
    made = [BoundedRows(np.flatnonzero(part_N == part), x_ND[part_N == part]) for part in np.unique(part_N)]
    k = int(rng.integers(count + 1))

    def each(method: Callable[..., Any], /, *arguments: Any, **options: Any) -> list[Any]:
        return [method(part, *arguments, **options) for part in made]

    assert traverse(each, centre_MD, k, first_offer=offer) == brute_force_farthest_first(x_ND, centre_MD, k)


@pytest.mark.parametrize("labelled", [0, 30])
def test_k_center_equals_brute_force_over_many_blocks(labelled: int) -> None:
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(3000, 12)).astype(np.float32) * np.linspace(3, 0.1, 12, dtype=np.float32)
    centre_MD = rng.normal(size=(labelled, 12)).astype(np.float32)
    assert farthest_first(x_ND, centre_MD, 60).tolist() == brute_force_farthest_first(x_ND, centre_MD, 60)


def evenly(counts: NDArray[np.int64], expected: NDArray[np.float64], draws: int) -> bool:
    """Whether rows were picked as often as expected in so many draws, by chi-square; picks of a draw are different."""
    share_N = expected / draws
    spread = ((counts - expected) ** 2 / (expected * (1 - share_N))).sum() * (len(counts) - 1) / len(counts)
    return bool(chi2.sf(spread, len(counts) - 1) > 1e-3)


@pytest.mark.parametrize("by", [None, "speaker"])
def test_random_picks_every_candidate_equally_often(by: str | None) -> None:
    """Of the whole pool, or of its group, whose share is rounded; the first pick is anybody's too."""
    columns, draws, k = pool(24, 3, 0), 3000, 6
    columns["speaker"] = np.array(list("aaaaaaaaaaaabbbbbbbbcccc"))
    candidates = Candidates(**columns)
    first_N, picked_N = np.zeros(24, dtype=np.int64), np.zeros(24, dtype=np.int64)
    for seed in range(draws):
        rows = candidates.rows(select("random", candidates, k, np.random.default_rng(seed), by=by))
        first_N[rows[0]] += 1
        picked_N[rows] += 1
    speaker_N = candidates.groups("speaker")
    for name, share in {"a": 3, "b": 2, "c": 1}.items():
        mine = speaker_N == name
        if by is not None:
            assert picked_N[mine].sum() == share * draws
            assert evenly(picked_N[mine], np.full(mine.sum(), draws * share / mine.sum()), draws)
    if by is None:
        assert evenly(picked_N, np.full(24, draws * k / 24), draws)
    assert evenly(first_N, np.full(24, draws / 24), draws)


@pytest.mark.parametrize(("clusters", "k"), [(None, 3), (3, 7)])
def test_alps_equals_its_definition(clusters: int | None, k: int) -> None:
    """Of all ways to divide eight rows into three clusters, the one nearest to its mean directions; then each
    mean direction in turn, that of most rows first, takes the row nearest to it that is free."""
    columns, rng = pool(8, 0, 0), np.random.default_rng(3)
    columns["surprisal_NQ"] = 3 * np.eye(6)[[0, 0, 0, 0, 1, 1, 1, 2]] + rng.uniform(size=(8, 6))
    unit_NQ = columns["surprisal_NQ"] / np.linalg.norm(columns["surprisal_NQ"], axis=1, keepdims=True)

    def totals(division: tuple[int, ...]) -> NDArray[np.float64]:
        return np.array([unit_NQ[np.array(division) == cluster].sum(axis=0) for cluster in range(3)])

    divisions = itertools.product(range(3), repeat=8)
    best = max(divisions, key=lambda division: np.linalg.norm(totals(division), axis=1).sum())
    order = sorted(range(3), key=lambda cluster: -best.count(cluster))
    assert [best.count(cluster) for cluster in order] == [4, 3, 1]
    expected, centre_KK = list[int](), totals(best)
    for cluster in itertools.islice(itertools.cycle(order), k):
        near = np.argsort(-(unit_NQ @ centre_KK[cluster])).tolist()
        expected.append(next(row for row in near if row not in expected))
    assert ask(("alps", {"clusters": clusters}), columns, k) == columns["ids"][expected].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 3), st.floats(1, 6), st.integers(0, 999), st.booleans(), st.data())
def test_after_equals_its_definition(
    count: int, labelled: int, beta: float, seed: int, copies: bool, data: st.DataObject
) -> None:
    """The ⌈β·k⌉ smallest margins, ties by id; of these, each farthest from what is labelled or picked."""
    columns = pool(count, labelled, seed, copies=copies)
    k = data.draw(st.integers(1, count))
    top_NC = np.sort(columns["probability_NC"].astype(np.float32).astype(np.float64), axis=1)
    by_margin = sorted(range(count), key=lambda row: (top_NC[row, -1] - top_NC[row, -2], columns["ids"][row]))
    short = sorted(by_margin[: math.ceil(beta * k)], key=lambda row: columns["ids"][row])
    x_ND, centre_MD = (columns[name].astype(np.float32) for name in ("embedding_ND", "labelled_embedding_MD"))
    expected = columns["ids"][short][brute_force_farthest_first(x_ND[short], centre_MD, k)].tolist()
    assert ask(("after", {"beta": beta, "diversity": "k_center"}), columns, k) == expected


def test_k_means_takes_one_of_each_group() -> None:
    columns = pool(40, 0, 0)
    group = np.repeat(np.arange(4), 10)
    columns["embedding_ND"] = np.eye(5)[group] * 10 + 0.1 * columns["embedding_ND"]
    of_group = dict(zip(columns["ids"].tolist(), group.tolist(), strict=True))
    assert {of_group[pick] for pick in ask(("k_means", {}), columns, 4)} == {0, 1, 2, 3}


def test_a_row_nearest_to_two_centroids_is_taken_once() -> None:
    x_ND = np.array([[0], [1], [5]], dtype=np.float32)
    assert nearest_in_turn(np.array([[0.1], [0.2]], dtype=np.float32), x_ND, 2) == [0, 1]


def test_a_centroid_looks_further_when_its_near_rows_are_gone() -> None:
    x_ND = np.arange(100, dtype=np.float32)[:, None]
    centroid_KD = np.zeros((60, 1), dtype=np.float32)
    assert nearest_in_turn(centroid_KD, x_ND, 100) == list(range(100))


def test_after_stays_inside_its_shortlist() -> None:
    columns = pool(100, 3, 0)
    shortlist = set(ask(("margin", {}), columns, 20))
    assert set(ask(("after", {"beta": 2.0}), columns, 10)) <= shortlist
    assert ask(("after", {"beta": 1}), columns, 10) != ask(("after", {"beta": 10}), columns, 10)


@pytest.mark.parametrize("k", [-1, 6])
def test_a_wrong_budget_names_both_numbers(k: int) -> None:
    with pytest.raises(SelectionError, match=f"for {k} picks of 5 candidates"):
        ask(("random", {}), pool(5, 0, 0), k)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_reads_what_it_says_it_needs_and_nothing_else(name: str) -> None:
    columns = pool(9, 0, 0)
    needs = StrategyOptions(name=name).needs
    needed = {"ids": columns["ids"]} | {field: columns[field] for field in needs}
    assert len(ask((name, {}), needed, 3)) == 3
    for field in needs:
        with pytest.raises(SelectionError, match=f"needs {field}"):
            ask((name, {}), {key: value for key, value in needed.items() if key != field}, 3)


SCORES = [name for name, record in STRATEGIES.items() if hasattr(record.function, "__wrapped__")]


@pytest.mark.parametrize("name", SCORES)
def test_a_score_reads_nothing_of_what_is_labelled(name: str) -> None:
    columns = pool(40, 4, 0)
    unlabelled = {field: value for field, value in columns.items() if not COLUMNS[field].labelled}
    assert ask((name, {}), columns, 9) == ask((name, {}), unlabelled, 9), (
        f"{name}: its score reads what is labelled, of which a part of a pool has a share only: make it a Strategy"
    )


@pytest.mark.parametrize(
    ("picks", "message"),
    [(["u1", "u1"], "more than once"), (["u1"], "gave 1 picks"), (["u1", "v0"], "v0, which is not")],
)
def test_a_strategy_that_breaks_the_contract_is_caught(
    picks: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STRATEGIES, "broken", Strategy(lambda candidates, k, rng: picks))
    candidates = Candidates(ids=np.array(["u1", "u2"]), labelled_ids=np.array(["v0"]))
    with pytest.raises(SelectionError, match=message):
        select("broken", candidates, 2, np.random.default_rng(0))


DOCS = (Path(__file__).resolve().parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1] for line in DOCS.splitlines() if line.startswith("|")]
RECORDS = [*((STRATEGIES, name) for name in STRATEGIES), *((WRAPPERS, name) for name in WRAPPERS)]


def lacking(name: str, record: Strategy | Wrapper) -> list[str]:
    """What a record of a strategy or wrapper lacks, in sentences."""
    lacks = []
    function = record.function
    options = [item for item in signature(function).parameters.values() if item.kind is item.KEYWORD_ONLY]
    if not (function.__doc__ or "").strip():
        lacks.append("its function has no docstring, which `seral strategies` prints")
    if without := [item.name for item in options if item.default is item.empty]:
        lacks.append(f"its options {without} have no default")
    if unknown := sorted(set(record.reads) - set(COLUMNS)):
        lacks.append(f"it reads {unknown}, which are no columns of Candidates")
    if whenceless := sorted(field for field in set(record.reads) & set(COLUMNS) if not COLUMNS[field].whence):
        lacks.append(f"it reads {whenceless}, whose Column does not say whence it comes")
    if not any(f"`{name}`" in row for row in ROWS):
        lacks.append("docs/strategies.md has no row for it")
    if isinstance(record, Wrapper):
        if record.in_parts is None:
            lacks.append("it does not say how it runs in parts")
        if record.limits_groups and not {"by", "share"} <= {item.name for item in options}:
            lacks.append("it limits groups and has no options `by` and `share`")
    elif isinstance(record.in_parts, Exact) and signature(record.in_parts.run).parameters.keys().isdisjoint({"parts"}):
        lacks.append("its exchange in parts does not take `parts`")
    return lacks


@pytest.mark.parametrize(("table", "name"), RECORDS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_record_says_all_that_is_needed(table: dict[str, Any], name: str) -> None:
    lacks = lacking(name, table[name])
    assert not lacks, f"{name}: {'; '.join(lacks)}"


def test_a_record_that_lacks_something_is_told_in_sentences() -> None:
    def longest(candidates: Candidates, k: int, rng: np.random.Generator, *, speed: float) -> list[str]:
        return []

    lacks = lacking("longest", Strategy(longest, {"length"}))
    assert [text.split(",")[0] for text in lacks] == [
        "its function has no docstring",
        "its options ['speed'] have no default",
        "it reads ['length']",
        "docs/strategies.md has no row for it",
    ]


def test_a_score_is_a_strategy_that_is_exact_in_parts_without_a_further_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def longest(candidates: Candidates, *, power: float = 1.0) -> scores.Scores:
        """The k longest candidates."""
        return candidates.need("duration_s").astype(np.float64) ** power

    monkeypatch.setitem(STRATEGIES, "longest", by_score(longest, {"duration_s"}))
    columns = pool(30, 0, 0)
    whole = Candidates(ids=columns["ids"], duration_s=np.arange(30) // 2)
    strategy = StrategyOptions.model_validate({"name": "longest", "power": 2.0})
    assert strategy.needs == {"duration_s"}
    expected = sorted(whole.ids.tolist(), key=lambda name: (-whole.need("duration_s")[whole.rows([name])[0]], name))[:9]
    assert select(strategy, whole, 9, np.random.default_rng(0)) == expected
    parts = Parts([PoolPart(whole.take(np.arange(first, 30, 3))) for first in range(3)])
    assert select_in_parts(strategy, parts, 9, np.random.default_rng(0)) == Picks(expected, exact=True)


def test_what_after_names_are_strategies_of_the_table() -> None:
    assert {name: STRATEGIES[name].function for name in DIVERSITIES} == DIVERSITIES
    assert all(uncertainty.reads in COLUMNS for uncertainty in UNCERTAINTIES.values())


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(OptionError, match="unknown strategy 'best'; known: after, alps, auto, badge, bald"):
        StrategyOptions(name="best")
    with pytest.raises(OptionError, match="'gamma'; known: beta, diversity, uncertainty"):
        check_options("after", {"gamma": 1})
    with pytest.raises(OptionError, match="margin has no options, got 'beta'"):
        check_options("margin", {"beta": 1})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("after", {"beta": "10"}, "beta of strategy after is '10'"),
        ("after", {"beta": 0.5}, "beta >= 1"),
        ("after", {"uncertainty": "doubt"}, "known: bald, entropy, least_confidence, margin"),
        ("after", {"diversity": "dpp"}, "known: badge, k_center, k_means"),
        ("random", {"by": "emotion"}, "known: corpus, language, predicted, speaker"),
        ("cluster_margin", {"clusters": 0}, "clusters >= 1"),
        ("cluster_margin", {"rows_per_cluster": 0}, "rows_per_cluster >= 1"),
        ("batch_bald", {"answers": 0}, "answers >= 1"),
        ("k_means", {"clusters": 0}, "k_means needs clusters >= 1, got 0"),
        ("k_means", {"threads": 0}, "k_means needs threads >= 1, got 0"),
        ("k_means", {"points_per_cluster": 0}, "k_means needs points_per_cluster >= 1, got 0"),
        ("alps", {"clusters": -1}, "alps needs clusters >= 1, got -1"),
        ("alps", {"points_per_cluster": 1.5}, "points_per_cluster of strategy alps is 1.5"),
        ("typiclust", {"clusters": 0}, "typiclust needs clusters >= 1"),
        ("typiclust", {"neighbours": 0}, "typiclust needs neighbours >= 1, got 0"),
        ("typiclust", {"smallest": -1}, "typiclust needs smallest >= 0, got -1"),
        ("typiclust", {"members": 0}, "typiclust needs members >= 1, got 0"),
        ("typiclust", {"threads": 0}, "typiclust needs threads >= 1"),
        *(("prob_cover", {"radius": wrong}, f"finite radius > 0, got {wrong}") for wrong in (0.0, -1.0, INF, NAN)),
        *(("prob_cover", {"purity": wrong}, rf"purity in \(0, 1\], got {wrong}") for wrong in (0.0, 1.5, NAN)),
        ("prob_cover", {"points_per_cluster": 0}, "prob_cover needs points_per_cluster >= 1"),
        ("prob_cover", {"sample": 0}, "prob_cover needs sample >= 1, got 0"),
        *(("density", {"beta": wrong}, f"density needs a finite beta >= 0, got {wrong}") for wrong in (-1.0, INF, NAN)),
        *(("after", {"beta": wrong}, f"finite beta >= 1, got {wrong}") for wrong in (INF, NAN)),
        *(("cluster_margin", {"beta": wrong}, f"finite beta >= 1, got {wrong}") for wrong in (0.0, INF, NAN)),
        ("cluster_margin", {"threads": 0}, "cluster_margin needs threads >= 1"),
    ],
)
def test_wrong_values_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((OptionError, ValidationError), match=message):
        ask((name, options), pool(10, 0, 0), 2)


def test_options_come_from_a_configuration() -> None:
    chosen = StrategyOptions.model_validate({"name": "after", "beta": 2})
    assert default_options("after") == {"beta": 5.0, "uncertainty": "margin", "diversity": "k_means"}
    assert chosen.parameters == {"beta": 2}
    assert StrategyOptions.model_validate("margin") == StrategyOptions(name="margin")
    assert chosen.needs == {"probability_NC", "embedding_ND"}
    columns = pool(60, 0, 0)
    assert select(chosen, Candidates(**columns), 6, np.random.default_rng(0)) == ask(("after", {"beta": 2}), columns, 6)


def clustered(count: int, labelled: int, *, agreeing: bool) -> dict[str, Any]:
    """Columns of a pool in four clusters, which are the predicted classes or have nothing to do with them."""
    rng, columns = np.random.default_rng(5), pool(count, labelled, 0)
    cluster_N = np.arange(count) % 4
    class_N = cluster_N if agreeing else rng.integers(4, size=count)
    columns["embedding_ND"] = np.eye(4)[cluster_N] + rng.normal(scale=0.05, size=(count, 4))
    columns["probability_NC"] = 0.1 + 0.6 * np.eye(4)[class_N]
    columns["labelled_embedding_MD"] = np.eye(4)[np.arange(labelled) % 4] + 0.1
    columns["rejected_M"] = np.arange(labelled) % 2 == 0
    columns["snr_db"] = np.where(rng.random(count) < 0.5, 9.0, -9.0)
    return columns


def test_auto_takes_the_strategy_of_ratings_where_no_class_is_predicted() -> None:
    candidates = Candidates(**pool(40, 4, 0) | {"probability_NC": None})
    parts, auto = Parts([PoolPart(candidates)]), StrategyOptions(name="auto")
    picks = select_in_parts(auto, parts, 10, np.random.default_rng(1))
    assert picks.strategy == "lcmd"
    assert picks.ids == select("lcmd", candidates, 10, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("labelled", "agreeing", "source", "name"),
    [
        (0, True, False, "k_means"),
        (4, True, False, "cluster_margin"),
        (4, False, False, "cluster_margin"),
        (0, True, True, "uncertainty_herding"),
        (4, True, True, "uncertainty_herding"),
        (0, False, True, "random"),
        (4, False, True, "cluster_margin"),
    ],
)
@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_auto_goes_by_what_can_be_seen(labelled: int, agreeing: bool, source: bool, name: str, epsilon: float) -> None:
    """Good recordings before there are labels, then what does not sound like the rejected."""
    columns = clustered(80, labelled, agreeing=agreeing)
    if not (labelled or source):
        columns |= {"probability_NC": None, "value_NK": None}
    candidates, rng = Candidates(**columns), np.random.default_rng(1)
    auto = StrategyOptions.model_validate({"name": "auto", "source": source, "epsilon": epsilon})
    picks = select_in_parts(auto, Parts([PoolPart(candidates)]), 10, rng)
    assert (picks.strategy, picks.ids) == (name, select(auto, candidates, 10, np.random.default_rng(1)))
    wrappers = ["usable" if labelled else "quality", {"name": "epsilon_greedy", "epsilon": epsilon}]
    same, rng = StrategyOptions.model_validate({"name": name, "wrappers": wrappers}), np.random.default_rng(1)
    if source:
        drawn(Parts([PoolPart(candidates)]), 10, rng)
        rng.integers(2**31)
    assert picks.ids == select(same, candidates, 10, rng)
    assert picks.ids != select(name, candidates, 10, np.random.default_rng(1)), "the wrappers do something"


def test_agreement_is_adjusted_for_chance() -> None:
    agreement = [
        agreement_of_clusters(Candidates(**clustered(400, 0, agreeing=agreeing)), 0) for agreeing in (True, False)
    ]
    assert agreement[0] > 0.6  # twice as many clusters as classes, so less than 1
    assert agreement[1] == pytest.approx(0, abs=0.03)


def test_strategies_with_an_option_for_it_are_told_of_a_source() -> None:
    assert StrategyOptions(name="auto").with_source().parameters == {"source": True}
    assert StrategyOptions(name="margin").with_source() == StrategyOptions(name="margin")
    with pytest.raises(OptionError, match="option source of strategy auto is 1; its default is False"):
        check_options("auto", {"source": 1})
