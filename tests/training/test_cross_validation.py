"""Bought labels as their own development set: nobody is judged by a head that has heard him."""

from __future__ import annotations

import numpy as np
import pytest

from seral.task.examples import Targets, Utterances
from seral.training.cross_validation import divide
from seral.training.data import Labelled
from seral.training.normalisation import deal


def labelled(count: int) -> Labelled:
    features = np.arange(count, dtype=np.float32)[:, None, None]
    units = Utterances(ids=[f"u{row}" for row in range(count)], mean_NLD=features, std_NLD=features)
    return Labelled(units, Targets.of_classes(np.arange(count) % 3))


@pytest.mark.parametrize("speakers", [2, 5, 9])
def test_clips_are_divided_by_speakers_and_the_source_is_learnt_from(speakers: int) -> None:
    voices: list[str | None] = [f"v{row % speakers}" for row in range(40)] + [None] * 10
    learnt, chosen = divide(labelled(50), voices)
    voice_of = dict(zip([f"u{row}" for row in range(50)], voices, strict=True))
    taught, judged = ({voice_of[name] for name in part.units.ids} for part in (learnt, chosen))
    assert None in taught
    assert None not in judged
    assert not taught & judged
    assert sorted([*learnt.units.ids, *chosen.units.ids]) == sorted(voice_of)
    assert 4 <= len(chosen.units.ids) <= 20
    for part in (learnt, chosen):
        assert [int(name[1:]) % 3 for name in part.units.ids] == part.targets.label_N.tolist()


def test_one_speaker_is_divided_by_clips() -> None:
    learnt, chosen = divide(labelled(20), ["v"] * 20)
    assert (len(learnt.units.ids), len(chosen.units.ids)) == (16, 4)


def test_groups_are_dealt_whole_and_evenly() -> None:
    group_M = np.repeat(np.arange(12), [9, 1, 1, 1, 4, 4, 4, 2, 2, 2, 8, 2])
    part_M = deal(group_M, 5)
    for group in range(12):
        assert len(set(part_M[group_M == group].tolist())) == 1
    sizes = np.bincount(part_M)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 2
    assert set(deal(np.array([0, 0, 3]), 5).tolist()) == {0, 1}, "no more parts than groups"
