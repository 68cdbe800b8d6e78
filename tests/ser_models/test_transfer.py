"""A head of other corpora: chosen without the target, zero where nobody has labels, worth what leaving out says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ser_models.fitting import FitOptions, PooledSet, fit_head, predict_pooled
from ser_models.heads import LayerPool
from ser_models.metrics import uar
from ser_models.transfer import USUAL_L2, clearly_best, fit_source_head, together

CENTRE_CD = 1.2 * torch.randn(4, 8, generator=torch.Generator().manual_seed(99))


def corpus(seed: int, classes: int = 3, rows: int = 80, own: float = 0.5) -> PooledSet:
    """Clips whose classes lie where those of all corpora do, moved a little by the corpus."""
    generator = torch.Generator().manual_seed(seed)
    label_N = torch.arange(rows) % classes
    centre_CD = CENTRE_CD + own * torch.randn(4, 8, generator=generator)
    mean_NLD = torch.randn(rows, 3, 8, generator=generator)
    mean_NLD[:, 1] += centre_CD[label_N]
    return PooledSet(mean_NLD=mean_NLD, std_NLD=torch.rand(rows, 3, 8, generator=generator), label_N=label_N)


def target_pool(rows: PooledSet) -> LayerPool:
    pool = LayerPool(3, 8)
    pool.fit(rows.mean_NLD, rows.std_NLD)
    return pool


def test_it_tells_a_corpus_it_has_not_seen_and_says_about_how_well() -> None:
    target = corpus(9)
    source = fit_source_head({name: corpus(seed) for seed, name in enumerate("abc")}, 3, pool=target_pool(target))
    predicted_N = predict_pooled(source.fitted, target.mean_NLD, target.std_NLD).argmax(1)
    actual = uar(target.label_N.numpy(), predicted_N.numpy())
    expected = sum(source.left_out_uar.values()) / 3
    assert set(source.left_out_uar) == set("abc")
    assert actual > 0.6
    assert abs(actual - expected) < 0.25


def test_what_is_expected_is_by_heads_of_the_others_with_the_penalty_taken() -> None:
    corpora, pool = {name: corpus(seed, own=1.5) for seed, name in enumerate("abc")}, target_pool(corpus(9))
    source = fit_source_head(corpora, 3, pool=pool)
    assert source.l2 == USUAL_L2
    for name, rows in corpora.items():
        others = [part for other, part in corpora.items() if other != name]
        both = PooledSet(
            mean_NLD=torch.cat([part.mean_NLD for part in others]),
            std_NLD=torch.cat([part.std_NLD for part in others]),
            label_N=torch.cat([part.label_N for part in others]),
        )
        fitted = fit_head(both, 3, pool=pool, options=FitOptions(l2=USUAL_L2, learn_layers=False))
        predicted_N = predict_pooled(fitted, rows.mean_NLD, rows.std_NLD).argmax(1)
        assert source.left_out_uar[name] == pytest.approx(uar(rows.label_N.numpy(), predicted_N.numpy()))


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ({0.03: [0.10, 0.12, 0.11], 0.1: [0.02, 0.02, 0.03], 1.0: [-0.1, 0.0, 0.0]}, 0.03),
        ({0.03: [0.30, -0.10, 0.20], 0.1: [0.02, 0.02, 0.03], 1.0: [-0.1, 0.0, 0.0]}, 0.1),
        ({0.03: [0.30, -0.10, 0.20], 0.1: [0.0, 0.0, 0.0], 1.0: [-0.1, 0.0, 0.0]}, USUAL_L2),
        ({0.03: [0.3], 0.1: [0.2], 1.0: [0.1]}, USUAL_L2),
        ({0.03: [], 0.1: [], 1.0: []}, USUAL_L2),
    ],
)
def test_another_penalty_takes_its_place_where_it_is_better_on_all_corpora_alike(
    gains: dict[float, list[float]], expected: float
) -> None:
    usual = dict(zip("abc", [0.5, 0.6, 0.4][: len(gains[0.1])], strict=False))
    scores = {l2: {n: usual[n] + gain for n, gain in zip(usual, own, strict=True)} for l2, own in gains.items()}
    assert clearly_best({USUAL_L2: usual, **scores}) == expected


def test_ties_are_learnt_and_nobody_is_judged_by_them() -> None:
    corpora, pool, tied = dict[str, PooledSet](), target_pool(corpus(9)), torch.arange(80) % 5 == 0
    for seed, name in enumerate("abc"):
        rows = corpus(seed)
        share_NC = torch.nn.functional.one_hot(rows.label_N, 3).float()
        share_NC[tied] = (share_NC[tied] + share_NC[tied].roll(1, dims=1)) / 2
        corpora[name] = replace(rows, label_N=rows.label_N.where(~tied, torch.tensor(-1)), soft_NC=share_NC)
    source = fit_source_head(corpora, 3, pool=pool)
    winners = {name: replace(rows.only(~tied), soft_NC=None) for name, rows in corpora.items()}
    decided = fit_source_head(winners, 3, pool=pool)
    assert not torch.equal(source.fitted.head.output.weight, decided.fitted.head.output.weight)
    for name in corpora:
        others = together({other: rows for other, rows in corpora.items() if other != name})
        assert len(others.label_N) == 160, "ties are learnt from"
        fitted = fit_head(others, 3, pool=pool, options=FitOptions(l2=source.l2, learn_layers=False))
        own = winners[name]
        predicted_N = predict_pooled(fitted, own.mean_NLD, own.std_NLD).argmax(1)
        assert source.left_out_uar[name] == pytest.approx(uar(own.label_N.numpy(), predicted_N.numpy()))
        whole_NC = predict_pooled(fitted, corpora[name].mean_NLD, corpora[name].std_NLD)
        assert torch.allclose(source.left_out_NC[name], (whole_NC / source.temperature).softmax(1), atol=1e-5)


def test_rows_with_and_without_votes_stand_together() -> None:
    plain, voted = corpus(0, rows=6), replace(corpus(1, rows=6), soft_NC=torch.full((6, 3), 1 / 3))
    both = together({"a": plain, "b": voted})
    assert both.soft_NC is not None
    assert bool(both.soft_NC[:6].isnan().all())
    assert torch.equal(both.soft_NC[6:], torch.full((6, 3), 1 / 3))
    assert together({"a": plain, "b": plain}).soft_NC is None


def test_a_class_that_no_corpus_has_gets_zeros_and_one_that_a_corpus_lacks_is_not_held_against_it() -> None:
    corpora = {"a": corpus(0), "b": corpus(1, classes=2)}
    source = fit_source_head(corpora, 4, pool=target_pool(corpus(9)))
    output = source.fitted.head.output
    assert not output.weight[3].any()
    assert output.bias[3].item() == 0
    assert bool(output.weight[2].any())
    assert source.left_out_uar["a"] > 0.5, "over the two classes that b has as well"


def test_one_corpus_has_no_other_to_be_left_out_for_and_none_is_refused() -> None:
    pool = target_pool(corpus(9))
    source = fit_source_head({"a": corpus(0)}, 3, pool=pool)
    assert (source.l2, source.left_out_uar) == (USUAL_L2, {})
    assert torch.equal(source.fitted.pool.layer_weight, pool.layer_weight)
    with pytest.raises(ValueError, match="at least one with a label, got none"):
        fit_source_head({}, 3, pool=pool)
