"""The choice of a normalisation by labels of speakers left out, and the guard that needs no label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ser_models.fitting import FitOptions, PooledSet
from ser_models.heads import LayerPool
from seral.training.normalisation import are_mixed, choose_normalisation, class_mixing, deal, lean_by_corpora

OPTIONS = FitOptions(learn_layers=False)
SPEAKERS, CLASSES, WIDTH = 12, 3, 8


def labelled(rows: int, *, mixed: bool, seed: int = 0) -> tuple[dict[str, PooledSet], np.ndarray, dict[str, LayerPool]]:
    """Clips as they are and less their speakers' means; speakers show all classes, or one each."""
    rng = np.random.default_rng(seed)
    speaker_N = np.arange(240) % SPEAKERS
    label_N = rng.integers(CLASSES, size=240) if mixed else speaker_N % CLASSES
    centre_CD, voice_GD = rng.normal(size=(CLASSES, WIDTH)), rng.normal(size=(SPEAKERS, WIDTH)) * (3 if mixed else 0.3)
    x_ND = centre_CD[label_N] + voice_GD[speaker_N] + rng.normal(size=(240, WIDTH))
    mean_GD = np.stack([x_ND[speaker_N == one].mean(0) for one in range(SPEAKERS)])
    views, pools = {"none": x_ND, "speaker": x_ND - mean_GD[speaker_N]}, {}
    for name, view_ND in views.items():
        mean_NLD = torch.from_numpy(view_ND[:, None]).float()
        pools[name] = LayerPool(1, WIDTH, std_gain=0.0)
        pools[name].fit(mean_NLD, torch.zeros_like(mean_NLD))
    sets = {
        name: PooledSet(
            mean_NLD=torch.from_numpy(view_ND[:rows, None]).float(),
            std_NLD=torch.zeros(rows, 1, WIDTH),
            label_N=torch.from_numpy(label_N[:rows]),
        )
        for name, view_ND in views.items()
    }
    return sets, speaker_N[:rows], pools


@pytest.mark.parametrize("leaning", ["none", "speaker"])
@pytest.mark.parametrize(("mixed", "better"), [(True, "speaker"), (False, "none")])
def test_labels_say_whether_the_speakers_show_one_emotion_each(leaning: str, mixed: bool, better: str) -> None:
    sets, speaker_N, pools = labelled(120, mixed=mixed)
    name, losses = choose_normalisation(sets, CLASSES, speaker_N, pools, dict.fromkeys(sets), (leaning, 1.0), OPTIONS)
    assert name == better
    assert min(losses, key=lambda one: losses[one]) == better


def test_what_was_chosen_without_labels_stays_until_labels_speak_clearly_against_it() -> None:
    sets, speaker_N, pools = labelled(120, mixed=True)
    priors = dict.fromkeys(sets)
    for clearly, expected in ((1.0, "speaker"), (1e6, "none")):
        assert choose_normalisation(sets, CLASSES, speaker_N, pools, priors, ("none", clearly), OPTIONS)[0] == expected


def test_without_two_speakers_it_is_what_was_chosen_without_labels() -> None:
    sets, speaker_N, pools = labelled(60, mixed=True)
    for leaning in sets:
        chosen = choose_normalisation(sets, CLASSES, 0 * speaker_N, pools, dict.fromkeys(sets), (leaning, 1.0), OPTIONS)
        assert chosen == (leaning, {})


def test_the_order_of_the_labels_changes_nothing() -> None:
    sets, speaker_N, pools = labelled(60, mixed=True)
    order = np.random.default_rng(1).permutation(60)
    shuffled = {name: rows.only(torch.from_numpy(order)) for name, rows in sets.items()}
    name, losses = choose_normalisation(sets, CLASSES, speaker_N, pools, dict.fromkeys(sets), ("none", 1.0), OPTIONS)
    again, others = choose_normalisation(
        shuffled, CLASSES, speaker_N[order], pools, dict.fromkeys(sets), ("none", 1.0), OPTIONS
    )
    assert name == again
    assert losses == pytest.approx(others, rel=1e-3)


def test_mixing_tells_speakers_of_one_emotion_from_speakers_of_all() -> None:
    speaker_N = np.repeat(np.arange(20), 10)
    one, every = speaker_N % 4, np.random.default_rng(0).integers(4, size=200)
    within, dealt = class_mixing(one, speaker_N, 4, np.random.default_rng(1))
    assert within == 0
    assert dealt > 1
    assert not are_mixed(within, dealt)
    within, dealt = class_mixing(every, speaker_N, 4, np.random.default_rng(1))
    assert abs(within - dealt) < 0.06
    assert are_mixed(within, dealt)


def test_without_a_source_labels_say_whether_corpora_mix_them() -> None:
    rng = np.random.default_rng(0)
    corpus_M = np.repeat(np.arange(3), 8)
    assert lean_by_corpora(rng.integers(4, size=24), corpus_M, 4) == "corpus"
    assert lean_by_corpora(corpus_M, corpus_M, 4) == "none", "one emotion each"
    assert lean_by_corpora(corpus_M + rng.integers(2, size=24), corpus_M, 4) == "none", "two of four each"
    assert lean_by_corpora(corpus_M, None, 4) == "none"


def test_groups_are_dealt_whole_and_evenly() -> None:
    group_M = np.repeat(np.arange(12), [9, 1, 1, 1, 4, 4, 4, 2, 2, 2, 8, 2])
    part_M = deal(group_M, 5)
    for group in range(12):
        assert len(set(part_M[group_M == group].tolist())) == 1
    sizes = np.bincount(part_M)
    assert len(sizes) == 5
    assert sizes.max() - sizes.min() <= 2
    assert set(deal(np.array([0, 0, 3]), 5).tolist()) == {0, 1}, "no more parts than groups"
