"""Why a clip was picked: scores against plain definitions, whatever the parts, and without any say in the picks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from seral.errors import OptionError
from seral.loop.reasons import MEASURES, OTHERS, Reason, explain, in_words, measures_of
from seral.selection.candidates import Candidates
from seral.selection.parts.distributed import select_in_parts
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, default_options, needs
from seral.selection.strategies import STRATEGIES
from seral.selection.strategies.records import as_strategy
from seral.testing import made_up_columns

# N candidates · M labelled · D features

WITHOUT = {"alps", "auto", "random", "tcm"}
"""Strategies that name no measure: what two of them stand for does, chance has none, nor have kinds of sound."""


def candidates(count: int = 40, labelled: int = 6, seed: int = 0) -> Candidates:
    columns = made_up_columns(count, labelled, seed)
    doubt_M = np.linspace(0, 1, labelled, dtype=np.float32)
    return Candidates(**columns, labelled_doubt_M=doubt_M, rejected_M=np.arange(labelled) % 3 == 2)


def picked(strategy: Any, *parts: Candidates, k: int = 9, seed: int = 3) -> tuple[list[str], list[Reason]]:
    options, pool = StrategyOptions.model_validate(strategy), Parts([PoolPart(part) for part in parts])
    picks = select_in_parts(options, pool, k, np.random.default_rng(seed)).ids
    reasons = explain(options, pool, picks, np.random.default_rng(seed))
    assert select_in_parts(options, pool, k, np.random.default_rng(seed)).ids == picks, "reasons have no say"
    return picks, reasons


def halves(whole: Candidates) -> list[Candidates]:
    """A pool in two parts, with all that is labelled in the first."""
    first, second = (whole.take(np.flatnonzero(np.arange(len(whole)) % 2 == part)) for part in (0, 1))
    nothing: dict[str, Any] = dict.fromkeys(
        ("labelled_embedding_MD", "labelled_value_MK", "labelled_doubt_M", "rejected_M")
    )
    return [first, replace(second, labelled_ids=None, **nothing)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_says_what_it_goes_by(name: str) -> None:
    options = default_options(name)
    names = set(measures_of(STRATEGIES[name], options))
    assert bool(names) != (name in WITHOUT), f"{name}: say goes_by, measures of seral.loop.reasons"
    whole = candidates()
    if name in WITHOUT - {"auto", "tcm"}:
        assert {reason.measure for reason in picked(name, whole)[1]} <= {"chance"}
        return
    picks, reasons = picked(name, whole)
    assert {reason.utterance_id for reason in reasons} <= set(picks)
    assert reasons
    assert all(reason.share is None or 0 <= reason.share <= 1 for reason in reasons)
    assert {reason.measure for reason in reasons} == names or name in WITHOUT
    nobody = candidates(labelled=0)
    read = {column: getattr(nobody, column) for column in (*needs(name, {}), "ids")}
    assert picked(name, Candidates(**read))[0], "measures read no further columns"


@pytest.mark.parametrize("name", [name for name in STRATEGIES if STRATEGIES[name].exact and name not in WITHOUT])
def test_parts_change_no_reason(name: str) -> None:
    whole = candidates()
    alone, in_parts = picked(name, whole), picked(name, *halves(whole))
    assert in_parts[0] == alone[0]
    for one, other in zip(alone[1], in_parts[1], strict=True):
        assert one[:2] == other[:2]
        np.testing.assert_allclose(np.array(one[2:], float), np.array(other[2:], float), rtol=1e-5)


def test_a_margin_against_its_plain_definition() -> None:
    whole = candidates()
    assert whole.probability_NC is not None
    sorted_NC = np.sort(whole.probability_NC, axis=1)
    margin_of = dict(zip(whole.ids.tolist(), (sorted_NC[:, -2] - sorted_NC[:, -1]).tolist(), strict=True))
    picks, reasons = picked("margin", whole)
    for rank, (name, reason) in enumerate(zip(picks, reasons, strict=True)):
        left = [margin_of[other] for other in whole.ids.tolist() if other not in picks[: rank + 1]]
        assert reason.utterance_id == name
        assert (reason.measure, reason.share) == ("margin", 1.0), "whoever is left is surer"
        assert reason.score == pytest.approx(margin_of[name])
        assert reason[4:] == pytest.approx(np.quantile(left, [0.05, 0.5, 0.95]))
    words = in_words(*reasons[0][1:4])
    assert words == f"margin {-margin_of[picks[0]]:.2g}, less sure than all others"


def test_a_distance_is_to_what_was_labelled_or_picked_before() -> None:
    whole = candidates()
    assert whole.embedding_ND is not None
    centres: list[NDArray[Any]] = list(whole.labelled_centres())
    for name, reason in zip(*picked("k_center", whole), strict=True):
        x_D = whole.embedding_ND[whole.rows([name])[0]]
        assert reason.score == pytest.approx(min(np.linalg.norm(x_D - centre_D) for centre_D in centres), rel=1e-5)
        assert reason.share == 1.0
        centres.append(x_D)
    first, *later = picked("k_center", candidates(labelled=0))[1]
    assert first.utterance_id != picked("k_center", candidates(labelled=0))[0][0], "nothing to be far from"
    assert len(later) == 7


def test_coverage_gains_fall_from_pick_to_pick() -> None:
    gains = [reason.score or 0.0 for reason in picked("max_herding", candidates())[1]]
    assert gains == sorted(gains, reverse=True)


@pytest.mark.parametrize("parts", [1, 2])
def test_chance_is_told_from_choice_in_any_wrapper(parts: int) -> None:
    explored = {"name": "margin", "wrappers": ["quality", {"name": "epsilon_greedy", "epsilon": 0.34}]}
    whole = candidates()
    picks, reasons = picked(explored, *([whole] if parts == 1 else halves(whole)))
    measures = [reason.measure for reason in reasons]
    assert (len(picks), measures) == (9, ["chance"] * 3 + ["margin"] * 6)
    quota = {"name": "quota", "by": "predicted", "share": 0.3}
    nested = picked(explored | {"wrappers": [quota, *explored["wrappers"]]}, whole)[1]
    assert {"chance", "margin"} == {reason.measure for reason in nested}


def test_a_second_look_is_for_doubt() -> None:
    picks, reasons = picked({"name": "margin", "wrappers": [{"name": "relabel", "share": 0.3}]}, candidates())
    again = [reason for reason in reasons if reason.measure == "doubt"]
    assert [reason.utterance_id for reason in again] == picks[-2:]
    assert [reason.score for reason in again] == [1.0, pytest.approx(0.8)]
    assert in_words(*again[1][1:4]) == "doubt 0.8, its label is doubted more than 67 %"


def test_what_auto_stands_for_is_explained() -> None:
    assert {reason.measure for reason in picked("auto", candidates())[1]} == {"margin"}
    untrained = replace(candidates(), probability_NC=None, value_NK=None)
    assert {reason.measure for reason in picked("auto", untrained)[1]} == {"typicality"}


def test_functions_of_others_go_on_without_and_may_name_a_measure() -> None:
    def first(pool: Candidates, k: int, rng: np.random.Generator) -> list[str]:
        ids: list[str] = pool.ids[:k].tolist()
        return ids

    assert measures_of(as_strategy(first), {}) == {}
    first.goes_by = ("distance",)  # type: ignore[attr-defined]
    assert list(measures_of(as_strategy(first), {})) == ["distance"]
    first.goes_by = ("luck",)  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match="unknown measure 'luck'"):
        measures_of(as_strategy(first), {})


def test_words_of_every_measure() -> None:
    own = {STRATEGIES[name].score.__name__ for name in STRATEGIES if STRATEGIES[name].score is not None}  # type: ignore[union-attr]
    assert own <= {*MEASURES, *OTHERS}, "each has words"
    assert in_words("chance", None, None) == "by chance"
    assert in_words("margin", -0.0213, 0.9956) == "margin 0.021, less sure than 99.6 %"
    assert in_words("mine", 2.0, 0.25) == "mine 2, before 25 %"
    assert in_words("coverage", 0.0123, None) == "coverage 0.012"
