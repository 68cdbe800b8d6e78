from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seral.errors import OptionError
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.selection.selection import StrategyOptions
from seral.selection.strategies import STRATEGIES
from seral.selection.trial import made_up


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_every_strategy_can_pick_of_made_up_clips(name: str) -> None:
    picks = StrategyOptions(name=name).call(made_up(), 2, np.random.default_rng(0))
    assert len(set(picks)) == 2
    assert set(picks) <= set(made_up().ids.tolist())


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"name": "auto", "epsilon": 2}, r"epsilon_greedy needs an epsilon in \[0, 1\], got 2"),
        ({"name": "dcom", "centre": 3}, "dcom needs a centre in 0..1, got 3"),
        ({"name": "k_means", "clusters": 0}, "k_means needs clusters >= 1, got 0"),
        ({"name": "random", "wrappers": [{"name": "quota", "share": 2}]}, r"quota needs a share in \(0, 1\], got 2"),
    ],
)
def test_options_out_of_range_are_refused_when_they_are_read(values: dict[str, Any], why: str) -> None:
    run = {"pool": "pool", "run": "run", "classes": ["anger", "neutral"], "strategy": values}
    with pytest.raises(OptionError, match=why):
        parse(LoopOptions, run)


def test_defaults_are_not_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seral.selection.selection.try_out", lambda pick: pytest.fail("tried out"))
    StrategyOptions.model_validate({"name": "k_means", "wrappers": ["quality"]})
