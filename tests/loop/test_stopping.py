from pathlib import Path
from typing import Any

import pytest

from seral.errors import OptionError
from seral.loop import STOPS
from seral.loop.stopping import (
    RoundSummary,
    Stop,
    StopOptions,
    budget_spent,
    certain,
    flat_trend,
    plateau,
    stable,
    target_reached,
)
from seral.loop.trajectory import stop_reason


def rounds(*dev_uar: float | None) -> list[RoundSummary]:
    return [RoundSummary(round=i, labelled=10 * (i + 1), dev_uar=uar) for i, uar in enumerate(dev_uar)]


@pytest.mark.parametrize(
    "rule",
    [
        budget_spent(rounds=1),
        plateau(),
        flat_trend(),
        certain(uncertainty=0.5),
        stable(),
        target_reached(target=0.5),
    ],
)
def test_no_rule_stops_before_the_first_round(rule: Stop) -> None:
    assert rule([]) is None


def test_budget_is_spent_after_its_last_round() -> None:
    assert budget_spent(rounds=4)(rounds(0.5, 0.5, 0.5)) is None
    assert budget_spent(rounds=3)(rounds(0.5, 0.5, 0.5)) == "budget spent: 30 labels in 3 rounds"


@pytest.mark.parametrize(
    ("scores", "stops"),
    [
        ((0.5, 0.5), False),
        ((0.5, 0.5, 0.5), True),
        ((0.5, 0.4, 0.52), False),
        ((0.5, 0.6, 0.6, 0.59), True),
        ((0.5, 0.505, 0.505), True),
    ],
)
def test_plateau_compares_with_the_best_before(scores: tuple[float, ...], stops: bool) -> None:
    reason = plateau(patience=2, min_gain=0.01)(rounds(*scores))
    assert (reason is not None) == stops


def test_plateau_says_what_it_saw() -> None:
    assert plateau(patience=1, min_gain=0.01)(rounds(0.5, 0.49)) == (
        "plateau: development UAR gained -0.0100 in 1 rounds, less than 0.01"
    )


def test_rounds_whose_labels_say_nothing_yet_are_waited_for() -> None:
    assert plateau(patience=1)(rounds(None, None, None)) is None
    assert plateau(patience=1)(rounds(None, 0.5)) is None
    assert plateau(patience=1)(rounds(None, 0.5, 0.5)) is not None
    assert target_reached(target=0.1)(rounds(None)) is None


@pytest.mark.parametrize(
    ("scores", "stops"),
    [
        ((0.5, 0.6, 0.7, 0.8), False),
        ((0.5, 0.6, 0.59, 0.58, 0.56), True),
        ((0.3, 0.6, 0.6, 0.6, 0.6), True),  # the rise before the last four rounds is past
        ((0.6, 0.6), False),
        ((0.60, 0.55, 0.66, 0.61), False),  # flat on average, but too noisy to tell
    ],
)
def test_a_flat_trend_is_told_from_noise(scores: tuple[float, ...], stops: bool) -> None:
    reason = flat_trend(patience=3, min_gain=0.01, confidence=0.8)(rounds(*scores))
    assert (reason is not None) == stops


def test_a_trend_is_judged_by_the_limit_of_its_slope() -> None:
    scores = (0.60, 0.62, 0.61, 0.63)
    # slope .008, standard error .00424, one-sided t of 80 % with 2 degrees of freedom 1.0607
    limit = 3 * (0.008 + 1.0607 * 0.0042426)
    assert flat_trend(patience=3, min_gain=limit - 1e-5, confidence=0.8)(rounds(*scores)) is None
    reason = flat_trend(patience=3, min_gain=limit + 1e-5, confidence=0.8)(rounds(*scores))
    assert reason is not None
    assert reason.startswith(f"flat trend: development UAR gains at most {limit:+.4f} in 3 rounds")


def test_a_model_that_is_sure_of_the_rest_ends_the_run() -> None:
    done = [RoundSummary(round=i, labelled=10, uncertainty=value) for i, value in enumerate((0.5, 0.2, None))]
    rule = certain(uncertainty=0.2)
    assert [rule(done[: i + 1]) is not None for i in range(3)] == [False, True, False]


def test_predictions_must_agree_several_times_in_a_row() -> None:
    kappas = (None, 0.995, 0.9, 0.99, 0.999, 1.0)
    done = [RoundSummary(round=i, labelled=10, kappa=value) for i, value in enumerate(kappas)]
    rule = stable(kappa=0.99, rounds=3)
    assert [rule(done[: i + 1]) is not None for i in range(6)] == [False] * 5 + [True]
    assert stable(kappa=0.99, rounds=1)(done[:1]) is None


def test_a_target_is_reached_when_the_last_round_is_there() -> None:
    rule = target_reached(target=0.7)
    assert rule(rounds(0.71, 0.69)) is None
    assert rule(rounds(0.5, 0.7)) == "target reached: development UAR 0.7000, wanted 0.7"


def test_options_choose_the_rules() -> None:
    flat = rounds(0.5, 0.5, 0.5, 0.5)
    assert stop_reason(flat, 5, StopOptions()) is None
    assert stop_reason(flat, 4, StopOptions(patience=2)) == "budget spent: 40 labels in 4 rounds"
    assert str(stop_reason(flat, 5, StopOptions(patience=2))).startswith("plateau")
    assert str(stop_reason(flat, 5, StopOptions(confidence=0.9))).startswith("flat trend")
    assert str(stop_reason(flat, 5, StopOptions(target_uar=0.5))).startswith("target reached")
    sure = [RoundSummary(round=0, labelled=10, uncertainty=0.1, kappa=1.0)]
    assert str(stop_reason(sure, 5, StopOptions(uncertainty=0.1))).startswith("certain")
    assert str(stop_reason(sure, 5, StopOptions(kappa=0.9, stable_rounds=1))).startswith("stable")


def test_an_option_that_may_end_a_run_early_is_named() -> None:
    assert StopOptions(min_gain=0.1).early is None
    assert StopOptions(kappa=0.9).early == "stop.kappa"


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 1 round, got 0"):
        budget_spent(rounds=0)
    with pytest.raises(OptionError, match=r"got 0 and 0\.1"):
        plateau(patience=0, min_gain=0.1)
    with pytest.raises(OptionError, match="patience >= 2"):
        flat_trend(patience=1)


HISTORIES: dict[str, tuple[dict[str, Any], list[RoundSummary], list[RoundSummary]]] = {
    "target": ({"target_uar": 0.7}, rounds(0.5, 0.7), rounds(0.7, 0.5)),
    "target-ccc": (
        {"target_ccc": 0.7},
        [RoundSummary(round=0, labelled=10, dev_ccc=0.7)],
        [RoundSummary(round=0, labelled=10, dev_ccc=0.6)],
    ),
    "plateau": ({"patience": 2}, rounds(0.5, 0.5, 0.5), rounds(0.5, 0.5, 0.6)),
    "flat-trend": ({"confidence": 0.8}, rounds(0.5, 0.5, 0.5, 0.5), rounds(0.5, 0.6, 0.7, 0.8)),
    "certain": (
        {"uncertainty": 0.2},
        [RoundSummary(round=0, labelled=10, uncertainty=0.1)],
        [RoundSummary(round=0, labelled=10, uncertainty=0.3)],
    ),
    "stable": (
        {"kappa": 0.99, "stable_rounds": 1},
        [RoundSummary(round=0, labelled=10, kappa=1.0)],
        [RoundSummary(round=0, labelled=10, kappa=0.5)],
    ),
}
"""Options that switch a rule on, rounds after which it stops a run, and rounds after which it does not."""


@pytest.mark.parametrize("name", STOPS)
def test_a_rule_fires_on_one_history_and_is_silent_on_another(name: str) -> None:
    assert name in HISTORIES, f"HISTORIES has no rounds that the rule {name!r} stops, and none that it lets go on"
    rule, (options, flat, rising) = STOPS[name], HISTORIES[name]
    assert rule.option in options, f"{name}: the options have to give {rule.option}"
    assert rule.make(StopOptions()) is None, f"{name} is on although {rule.option} is not given"
    stop = rule.make(StopOptions(**options))
    assert stop is not None, f"{name} is off although {rule.option} is given"
    assert stop([]) is None
    assert stop(flat), f"{name} has to stop after {flat}"
    assert stop(rising) is None, f"{name} has to go on after {rising}"
    assert stop_reason(flat, 99, StopOptions(**options)) == stop(flat)
    assert StopOptions(**options).early is not None


@pytest.mark.parametrize("name", STOPS)
def test_a_rule_is_documented(name: str) -> None:
    rule = STOPS[name]
    field = StopOptions.model_fields.get(rule.option)
    assert field is not None, f"{name}: StopOptions has no field {rule.option}"
    assert field.description, f"{name}: stop.{rule.option} has no docstring"
    assert rule.summary.endswith("."), f"{name}: the summary is one sentence"
    page = Path(__file__).resolve().parents[2] / "docs" / "strategies.md"
    assert f"`{rule.option}`" in page.read_text(), f"{name}: docs/strategies.md does not name {rule.option}"


def test_every_option_that_is_off_by_default_has_a_rule() -> None:
    off = {name for name, field in StopOptions.model_fields.items() if field.default is None}
    assert {rule.option for rule in STOPS.values()} == off
