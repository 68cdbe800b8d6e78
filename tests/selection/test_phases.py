from dataclasses import replace

import numpy as np
import pytest

from seral.errors import OptionError
from seral.selection.candidates import Candidates
from seral.selection.parts.distributed import exact_in_parts, select_in_parts
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, select
from seral.selection.strategies.phases import tcm

# N candidates · M labelled · C classes · D features


def pool(labelled: int, *, rejected: int = 0, model: bool = True) -> Candidates:
    rng = np.random.default_rng(0)
    return Candidates(
        ids=np.array([f"u{row:03d}" for row in range(60)]),
        probability_NC=rng.dirichlet(np.ones(4), size=60) if model else None,
        embedding_ND=rng.normal(size=(60, 5)),
        labelled_ids=np.array([f"v{row:03d}" for row in range(labelled)], dtype=np.str_),
        labelled_embedding_MD=rng.normal(size=(labelled, 5)),
        rejected_M=np.arange(labelled) < rejected,
    )


def picks_of(name: str, candidates: Candidates) -> list[str]:
    return select(name, candidates, 9, np.random.default_rng(3))


@pytest.mark.parametrize(
    ("labels_per_class", "labelled", "rejected", "model", "expected"),
    [
        (2, 7, 0, True, "typiclust"),
        (2, 8, 0, True, "margin"),
        (2, 9, 2, True, "typiclust"),  # seven labels, for two utterances were rejected
        (2, 10, 2, True, "margin"),
        (2, 50, 0, False, "typiclust"),
        (3, 11, 0, True, "typiclust"),
        (3, 12, 0, True, "margin"),
    ],
)
def test_tcm_goes_by_labels_a_class(
    labels_per_class: int, labelled: int, rejected: int, model: bool, expected: str
) -> None:
    candidates = pool(labelled, rejected=rejected, model=model)
    assert picks_of("typiclust", candidates) != picks_of("margin", pool(labelled))
    assert tcm(candidates, 9, np.random.default_rng(3), labels_per_class=labels_per_class) == picks_of(
        expected, candidates
    )


@pytest.mark.parametrize(("labelled", "expected"), [(7, "typiclust"), (8, "margin")])
def test_in_parts_the_labels_of_all_parts_count(labelled: int, expected: str) -> None:
    whole = pool(labelled)
    halves = []
    for part in range(2):
        mine = slice(part, None, 2)
        assert whole.labelled_ids is not None
        assert whole.rejected_M is not None
        halves.append(
            replace(
                whole.take(np.arange(part, 60, 2)),
                labelled_ids=whole.labelled_ids[mine],
                labelled_embedding_MD=whole.labelled_centres()[mine],
                rejected_M=whole.rejected_M[mine],
            )
        )
    parts = Parts([PoolPart(half) for half in halves])
    picks = select_in_parts(StrategyOptions(name="tcm"), parts, 9, np.random.default_rng(3))
    assert picks == select_in_parts(StrategyOptions(name=expected), parts, 9, np.random.default_rng(3))
    assert picks.exact == (expected == "margin")
    if picks.exact:
        assert picks.ids == picks_of("tcm", whole)


def test_tcm_does_not_promise_the_picks_of_one_machine() -> None:
    assert [exact_in_parts(StrategyOptions(name=name)) for name in ("tcm", "margin", "typiclust")] == [0, 1, 0]


def test_wrong_options_are_refused() -> None:
    with pytest.raises(OptionError, match="tcm needs labels_per_class >= 1, got 0"):
        tcm(pool(3), 1, np.random.default_rng(0), labels_per_class=0)
