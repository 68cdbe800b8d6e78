import pytest

from seral.active.stopping import STOPS, RoundSummary, StopOptions, budget_spent, plateau, stop_reason
from seral.errors import OptionError


def rounds(*dev_uar: float | None) -> list[RoundSummary]:
    return [RoundSummary(round=i, labelled=10 * (i + 1), dev_uar=uar) for i, uar in enumerate(dev_uar)]


def test_no_rule_stops_before_the_first_round() -> None:
    assert [make(**({"budget": 10} if name == "budget_spent" else {}))([]) for name, make in STOPS.items()] == [
        None
    ] * len(STOPS)


def test_budget_is_spent_at_its_last_label() -> None:
    assert budget_spent(budget=31)(rounds(0.5, 0.5, 0.5)) is None
    assert budget_spent(budget=30)(rounds(0.5, 0.5, 0.5)) == "budget spent: 30 of 30 labels"


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


def test_plateau_needs_a_dev_part() -> None:
    with pytest.raises(OptionError, match="round 1 has no development UAR"):
        plateau()(rounds(0.5, None))


def test_options_choose_the_rules() -> None:
    flat = rounds(0.5, 0.5, 0.5)
    assert stop_reason(flat, [10, 20, 30, 40], StopOptions()) is None
    assert stop_reason(flat, [10, 20, 30], StopOptions()) == "budget spent: 30 of 30 labels"
    assert str(stop_reason(flat, [10, 20, 30, 40], StopOptions(patience=2))).startswith("plateau")


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 1 label, got 0"):
        budget_spent(budget=0)
    with pytest.raises(OptionError, match=r"got 0 and 0\.1"):
        plateau(patience=0, min_gain=0.1)
