"""The probe against scikit-learn on a convex problem, on generated layers, and on real speech."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_models.build import adopt_head, build_model
from ser_models.encoders import load_encoder
from ser_models.fitting import (
    FitOptions,
    FitResult,
    PooledSet,
    Prior,
    RatedSet,
    class_loss,
    fit_dimensions,
    fit_head,
    middle_layers,
    predict_pooled,
)
from ser_models.heads import Head, LayerPool, stack_heads
from ser_models.losses import class_weights, log_priors
from ser_models.metrics import ccc_by_dimension, uar
from ser_models.pooling import masked_mean_std

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def clusters(rows: int, seed: int, informative: int = 2, width: int = 12, gap: float = 2.0) -> PooledSet:
    """Three classes that only layer `informative` of four tells apart; layers differ in scale."""
    generator = torch.Generator().manual_seed(seed)
    label_N = torch.randint(3, (rows,), generator=generator)
    centre_CD = gap * torch.randn(3, width, generator=torch.Generator().manual_seed(99))
    mean_NLD = torch.randn(rows, 4, width, generator=generator)
    mean_NLD[:, informative] += centre_CD[label_N]
    std_NLD = torch.rand(rows, 4, width, generator=generator)
    scale_L1 = torch.tensor([1.0, 5.0, 25.0, 125.0])[:, None]
    return PooledSet(mean_NLD=mean_NLD * scale_L1, std_NLD=std_NLD * scale_L1, label_N=label_N)


def test_equals_logistic_regression_where_the_problem_is_convex() -> None:
    train, test = clusters(90, 0), clusters(50, 1)
    options = FitOptions(learn_layers=False, std_gain=0.0, l2=0.05, max_steps=500)
    result = fit_head(train, 3, options=options)
    x, new = (result.pool(rows.mean_NLD, rows.std_NLD).detach().numpy() for rows in (train, test))
    weight_N = class_weights(train.label_N, 3)[train.label_N].numpy()
    # scikit-learn sums over clips and scales that sum by C: C = 1 / (l2 · N) is the same problem. It leaves intercepts
    # free, and a column of ones has a weight like any other.
    x, new = (np.column_stack([rows, np.ones(len(rows))]) for rows in (x, new))
    oracle = LogisticRegression(C=1 / (0.05 * 90), tol=1e-8, max_iter=1000, fit_intercept=False)
    oracle.fit(x, train.label_N, weight_N)
    actual = torch.softmax(predict_pooled(result, test.mean_NLD, test.std_NLD), -1).numpy()
    np.testing.assert_allclose(actual, oracle.predict_proba(new), atol=1e-3)


def voted(train: PooledSet, seed: int) -> torch.Tensor:
    """Shares of five votes on each clip, of which some are for another class, (N, 3)."""
    generator = torch.Generator().manual_seed(seed)
    wrong_NV = torch.rand(len(train.label_N), 5, generator=generator) < 0.3
    other_NV = torch.randint(3, wrong_NV.shape, generator=generator)
    vote_NV = torch.where(wrong_NV, other_NV, train.label_N[:, None])
    return torch.nn.functional.one_hot(vote_NV, 3).float().mean(1)


@pytest.mark.parametrize("balanced", [True, False])
def test_soft_labels_are_a_logistic_regression_on_every_vote(balanced: bool) -> None:
    train, test = clusters(90, 0), clusters(50, 1)
    soft_NC = voted(train, 2)
    options = FitOptions(learn_layers=False, std_gain=0.0, l2=0.05, max_steps=500, balanced=balanced)
    result = fit_head(replace(train, soft_NC=soft_NC), 3, options=options)
    x, new = (result.pool(rows.mean_NLD, rows.std_NLD).detach().numpy() for rows in (train, test))
    weight_NC = soft_NC * (90 / (3 * soft_NC.sum(0)) if balanced else 1)
    label_M = np.tile(np.arange(3), 90)  # every clip once for each class, as heavy as the votes for it
    x, new = (np.column_stack([rows, np.ones(len(rows))]) for rows in (x, new))
    oracle = LogisticRegression(C=1 / (0.05 * 90), tol=1e-8, max_iter=1000, fit_intercept=False)
    oracle.fit(np.repeat(x, 3, 0), label_M, weight_NC.flatten().numpy())
    actual = torch.softmax(predict_pooled(result, test.mean_NLD, test.std_NLD), -1).numpy()
    np.testing.assert_allclose(actual, oracle.predict_proba(new), atol=1e-3)
    hard = fit_head(train, 3, options=options)
    assert not torch.allclose(hard.head.output.weight, result.head.output.weight, atol=1e-2)


@pytest.mark.parametrize("weighted", [False, True])
def test_sure_soft_labels_fit_the_head_of_hard_ones(weighted: bool) -> None:
    train = clusters(90, 0)
    weight_N = torch.linspace(0.5, 1.5, 90) if weighted else None
    hard = replace(train, weight_N=weight_N)
    soft = replace(hard, soft_NC=torch.nn.functional.one_hot(train.label_N, 3).float())
    pool = LayerPool(4, 12)
    pool.fit(train.mean_NLD, train.std_NLD)
    a, b = (fit_head(rows, 3, pool=pool) for rows in (hard, soft))
    torch.testing.assert_close(a.head.output.weight, b.head.output.weight, atol=1e-3, rtol=1e-3)


def test_hard_labels_have_the_loss_of_torch_to_the_last_bit() -> None:
    train = clusters(90, 0)
    logits_NC = torch.randn(90, 3, generator=torch.Generator().manual_seed(3))
    weight_C = class_weights(train.label_N, 3)
    oracle = torch.nn.functional.cross_entropy(logits_NC, train.label_N, weight=weight_C, reduction="sum") / 90
    assert torch.equal(class_loss(train, 3, FitOptions())(logits_NC), oracle)


def test_few_labels_leave_the_layers_at_their_prior_and_many_overcome_it() -> None:
    train, test = clusters(600, 0, informative=3, gap=0.6), clusters(400, 2, informative=3, gap=0.6)
    pool = LayerPool(4, 12)
    pool.fit(test.mean_NLD, test.std_NLD)
    pool.lean_to(middle_layers(4))
    few = PooledSet(mean_NLD=train.mean_NLD[:6], std_NLD=train.std_NLD[:6], label_N=train.label_N[:6])
    weight = {
        rows: float(torch.softmax(fit_head(part, 3, pool=pool).pool.layer_weight, 0)[3].detach())
        for rows, part in (("few", few), ("many", train))
    }
    assert float(torch.softmax(middle_layers(4), 0)[3]) < 0.01
    assert weight["few"] < 0.02
    assert weight["many"] > 0.5
    assert torch.equal(pool.layer_weight, middle_layers(4)), "the pool that was given is left alone"


def test_middle_layers_are_even_around_the_middle_of_any_network() -> None:
    for states in (1, 2, 5, 9, 25):
        weight_L = torch.softmax(middle_layers(states), 0)
        torch.testing.assert_close(weight_L, weight_L.flip(0))
        assert int(weight_L.argmax()) in ((states - 1) // 2, states // 2)


def prior_head() -> Head:
    """A head on means of 12 numbers that tells classes 0 and 1 apart and knows nothing of class 2."""
    head = Head(12, 3, dropout=0.0)
    with torch.no_grad():
        head.output.weight[:2] = torch.randn(2, 12, generator=torch.Generator().manual_seed(7))
        head.output.bias[:2] = torch.tensor([0.3, -0.2])
    return head


def test_a_prior_is_the_head_until_there_are_labels_and_gives_way_to_them() -> None:
    train, prior = clusters(300, 0), prior_head()
    pool = LayerPool(4, 12, std_gain=0.0)
    pool.fit(train.mean_NLD, train.std_NLD)
    options = FitOptions(learn_layers=False)

    def fit(rows: int) -> Head:
        part = PooledSet(mean_NLD=train.mean_NLD[:rows], std_NLD=train.std_NLD[:rows], label_N=train.label_N[:rows])
        return fit_head(part, 3, pool=pool, prior=Prior(prior), options=options).head

    free = fit_head(train, 3, pool=pool, options=options).head.output.weight
    away = [float((fit(rows).output.weight - prior.output.weight).detach().norm()) for rows in (1, 10, 300)]
    assert away == sorted(away)
    left, far = (float((head.output.weight - free).detach().norm()) for head in (fit(300), prior))
    assert left < far


def test_a_prior_is_a_shift_of_ridge_regression() -> None:
    """The minimum with a prior has the gradient of the loss in balance with the distance to the prior."""
    train, prior = clusters(90, 0), prior_head()
    pool = LayerPool(4, 12, std_gain=0.0)
    pool.fit(train.mean_NLD, train.std_NLD)
    options = FitOptions(learn_layers=False, l2=0.05, max_steps=500)
    head = fit_head(train, 3, pool=pool, prior=Prior(prior), options=options).head
    class_loss(train, 3, options)(head(pool(train.mean_NLD, train.std_NLD).detach())).backward()
    for name in ("weight", "bias"):
        value, start = getattr(head.output, name), getattr(prior.output, name)
        torch.testing.assert_close(value.grad, -0.05 * (value - start).detach(), atol=2e-4, rtol=0)


def test_the_first_labels_do_not_drive_out_a_class_that_has_none() -> None:
    train, test = clusters(6, 3), clusters(300, 1)
    pool = LayerPool(4, 12)
    pool.fit(test.mean_NLD, test.std_NLD)
    prior = fit_head(clusters(300, 5), 3, pool=pool).head
    rows = train.label_N != 2
    few = PooledSet(mean_NLD=train.mean_NLD[rows], std_NLD=train.std_NLD[rows], label_N=train.label_N[rows])
    predicted_N = predict_pooled(fit_head(few, 3, pool=pool, prior=Prior(prior)), test.mean_NLD, test.std_NLD).argmax(1)
    assert float((predicted_N[test.label_N == 2] == 2).float().mean()) > 0.8


def test_a_prior_worth_more_labels_is_left_less() -> None:
    train, prior = clusters(60, 0), prior_head()
    pool = LayerPool(4, 12, std_gain=0.0)
    pool.fit(train.mean_NLD, train.std_NLD)
    heads = [fit_head(train, 3, pool=pool, prior=Prior(prior, labels)).head for labels in (1.0, 10.0, 100.0)]
    away = [float((head.output.weight - prior.output.weight).detach().norm()) for head in heads]
    assert away == sorted(away, reverse=True)
    same = fit_head(train, 3, pool=pool, prior=Prior(prior), options=FitOptions(l2=10 / 60)).head
    assert torch.equal(same.output.weight, heads[1].output.weight)


def test_a_prior_of_another_shape_is_refused() -> None:
    train = clusters(30, 0)
    with pytest.raises(ValueError, match=r"a prior is a linear head with weights \(3, 24\), got \(3, 12\)"):
        fit_head(train, 3, prior=Prior(prior_head()))


def test_learns_which_layer_matters() -> None:
    train, dev = clusters(90, 0), clusters(200, 1)
    learnt = fit_head(train, 3, dev=dev)
    uniform = fit_head(train, 3, dev=dev, options=FitOptions(learn_layers=False))
    weight_L = torch.softmax(learnt.pool.layer_weight, 0)
    assert int(weight_L.argmax()) == 2
    assert float(weight_L[2].detach()) > 0.5
    assert learnt.dev_uar is not None
    assert uniform.dev_uar is not None
    assert learnt.dev_uar > uniform.dev_uar
    assert learnt.dev_uar > 0.95


def test_same_rows_same_bits_and_no_global_randomness() -> None:
    train, dev = clusters(60, 0), clusters(20, 1)
    before = torch.random.get_rng_state()
    first, again = (fit_head(train, 3, dev=dev) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.head.output.weight, again.head.output.weight)
    assert torch.equal(first.pool.layer_weight, again.pool.layer_weight)
    assert (first.loss, first.steps, first.dev_uar) == (again.loss, again.steps, again.dev_uar)


def test_a_given_pool_keeps_its_standardisation_and_is_not_changed() -> None:
    unlabelled, train = clusters(300, 5), clusters(30, 0)
    pool = LayerPool(4, 12)
    pool.fit(unlabelled.mean_NLD, unlabelled.std_NLD)
    before = {name: value.clone() for name, value in pool.state_dict().items()}
    result = fit_head(train, 3, pool=pool)
    assert all(torch.equal(value, before[name]) for name, value in pool.state_dict().items())
    torch.testing.assert_close(result.pool.centre_mean, pool.centre_mean)
    assert not torch.equal(result.pool.layer_weight, pool.layer_weight)


def test_a_class_without_labels_is_allowed_and_never_predicted() -> None:
    train = clusters(60, 0)
    result = fit_head(train, 5)
    predicted = predict_pooled(result, train.mean_NLD, train.std_NLD).argmax(-1)
    assert set(predicted.tolist()) <= {0, 1, 2}


def test_drops_into_the_full_model_unchanged() -> None:
    encoder = load_encoder("seral-tiny")
    generator = torch.Generator().manual_seed(0)
    shape = (40, encoder.num_layers + 1, encoder.width)
    train = PooledSet(
        mean_NLD=torch.randn(shape, generator=generator),
        std_NLD=torch.rand(shape, generator=generator),
        label_N=torch.arange(40) % 3,
    )
    result = fit_head(train, 3)
    model = build_model(encoder, ("a", "b", "c")).eval()
    adopt_head(model, result.pool, result.head)
    with torch.no_grad():
        logits = model.forward_pooled(train.mean_NLD, train.std_NLD)
    torch.testing.assert_close(logits, predict_pooled(result, train.mean_NLD, train.std_NLD), atol=0, rtol=0)


def rated(rows: int, seed: int, noise: float = 0.5, width: int = 12) -> RatedSet:
    """Valence on 1..7 and arousal on 0..100 that only layer 2 of four knows of."""
    generator = torch.Generator().manual_seed(seed)
    mean_NLD = torch.randn(rows, 4, width, generator=generator)
    std_NLD = torch.rand(rows, 4, width, generator=generator)
    direction_KD = torch.randn(2, width, generator=torch.Generator().manual_seed(99)) / width**0.5
    value_NK = mean_NLD[:, 2] @ direction_KD.T + noise * torch.randn(rows, 2, generator=generator)
    target_NK = value_NK * torch.tensor([0.8, 12.0]) + torch.tensor([4.0, 50.0])
    return RatedSet(mean_NLD=mean_NLD, std_NLD=std_NLD, target_NK=target_NK)


def test_dimensions_without_penalty_are_least_squares_stretched_to_the_spread_of_the_ratings() -> None:
    """Of all linear predictions, the CCC is largest, and equal to R, where OLS is scaled by 1 / R about the mean."""
    train, new = rated(90, 0), rated(40, 1)
    result = fit_dimensions(train, options=FitOptions(learn_layers=False, std_gain=0.0, l2=0.0, max_steps=500))
    x, other = (result.pool(rows.mean_NLD, rows.std_NLD).detach().numpy() for rows in (train, new))
    target_NK = train.target_NK.numpy()
    oracle = LinearRegression().fit(x, target_NK)
    fit_NK = oracle.predict(x)
    correlation_K = np.array([np.corrcoef(fit_NK[:, k], target_NK[:, k])[0, 1] for k in range(2)])
    expected = (oracle.predict(other) - target_NK.mean(0)) / correlation_K + target_NK.mean(0)
    np.testing.assert_allclose(predict_pooled(result, new.mean_NLD, new.std_NLD).numpy(), expected, rtol=2e-3)
    assert result.loss == pytest.approx(float((1 - correlation_K).mean()), abs=1e-5)


def test_dimensions_learn_which_layer_matters() -> None:
    train, test = rated(120, 0), rated(300, 1)
    names = ("valence", "arousal")

    def test_ccc(result: FitResult) -> dict[str, float]:
        return ccc_by_dimension(
            test.target_NK.numpy(), predict_pooled(result, test.mean_NLD, test.std_NLD).numpy(), names
        )

    learnt = fit_dimensions(train)
    uniform = fit_dimensions(train, options=FitOptions(learn_layers=False))
    assert int(learnt.pool.layer_weight.argmax()) == 2
    assert all(test_ccc(learnt)[name] > max(0.7, test_ccc(uniform)[name]) for name in names)


def test_dimensions_do_not_depend_on_the_scale_of_the_ratings_and_are_the_same_bits_again() -> None:
    train, unlabelled = rated(60, 0), rated(300, 1)
    # Standardised about another centre, so that the head needs a bias.
    pool = LayerPool(4, 12)
    pool.fit(unlabelled.mean_NLD + 0.5, unlabelled.std_NLD)
    first, again = fit_dimensions(train, pool=pool), fit_dimensions(train, pool=pool)
    assert torch.equal(first.head.output.weight, again.head.output.weight)
    assert (first.loss, first.steps) == (again.loss, again.steps)
    scaled = fit_dimensions(replace(train, target_NK=0.01 * train.target_NK - 3), pool=pool)
    expected = 0.01 * predict_pooled(first, train.mean_NLD, train.std_NLD) - 3
    torch.testing.assert_close(predict_pooled(scaled, train.mean_NLD, train.std_NLD), expected, atol=1e-3, rtol=1e-3)


def test_under_a_huge_penalty_dimensions_stay_the_mean_rating() -> None:
    train = rated(60, 0)
    result = fit_dimensions(train, options=FitOptions(l2=1e6))
    predicted = predict_pooled(result, train.mean_NLD, train.std_NLD)
    torch.testing.assert_close(predicted, train.target_NK.mean(0).expand(60, 2), atol=0, rtol=1e-3)


def test_classes_and_dimensions_fitted_on_one_pool_drop_into_a_multi_task_model() -> None:
    encoder = load_encoder("seral-tiny")
    generator = torch.Generator().manual_seed(0)
    shape = (40, encoder.num_layers + 1, encoder.width)
    mean_NLD, std_NLD = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
    classes = fit_head(PooledSet(mean_NLD=mean_NLD, std_NLD=std_NLD, label_N=torch.arange(40) % 3), 3)
    train = RatedSet(mean_NLD=mean_NLD, std_NLD=std_NLD, target_NK=torch.rand(40, 2, generator=generator))
    dimensions = fit_dimensions(train, pool=classes.pool, options=FitOptions(learn_layers=False))
    model = build_model(encoder, ("a", "b", "c"), dimensions=("valence", "arousal")).eval()
    adopt_head(model, classes.pool, stack_heads(classes.head, dimensions.head))
    with torch.no_grad():
        logits_NC, value_NK = model.split(model.forward_pooled(mean_NLD, std_NLD))
    torch.testing.assert_close(logits_NC, predict_pooled(classes, mean_NLD, std_NLD))
    torch.testing.assert_close(value_NK, predict_pooled(dimensions, mean_NLD, std_NLD))


def test_ratings_that_cannot_be_fitted_are_named() -> None:
    train = rated(30, 0)
    target_NK = train.target_NK.clone()
    target_NK[7, 1] = float("nan")
    with pytest.raises(ValueError, match=r"row\(s\) \[7\] are not finite"):
        fit_dimensions(replace(train, target_NK=target_NK))
    target_NK[:, 1] = 0.1
    with pytest.raises(ValueError, match=r"dimension\(s\) \[1\] have the same rating on all 30 clips"):
        fit_dimensions(replace(train, target_NK=target_NK))
    with pytest.raises(ValueError, match=r"got \(29, 2\) for 30 clips"):
        fit_dimensions(replace(train, target_NK=target_NK[1:]))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_rows_that_are_not_finite_are_named(wrong: float) -> None:
    train = clusters(30, 0)
    train.mean_NLD[7, 1, 3] = wrong
    pool = LayerPool(4, 12)
    with pytest.raises(ValueError, match=r"row\(s\) \[7\] are not finite"):
        fit_head(train, 3, pool=pool)


@pytest.mark.parametrize("wrong", ["l2", "layer_l2", "std_gain"])
def test_options_refuse_negative_penalties(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"{wrong} must be at least 0, got -1"):
        FitOptions(**{wrong: -1})  # type: ignore[arg-type]  # mypy cannot see that `wrong` names a float


@pytest.mark.slow
@pytest.mark.corpora
def test_beats_logistic_regression_on_the_layer_that_dev_picks_on_real_speech() -> None:
    mean_NLD, std_NLD, label_N, speaker_N = _emodb_statistics()
    ours, oracle = np.empty_like(label_N), np.empty_like(label_N)
    speakers = np.unique(speaker_N)
    for index, speaker in enumerate(speakers):
        test_N, dev_N = speaker_N == speaker, speaker_N == speakers[(index + 1) % len(speakers)]
        train_N = ~test_N & ~dev_N
        rows = PooledSet(
            mean_NLD=torch.from_numpy(mean_NLD[train_N]),
            std_NLD=torch.from_numpy(std_NLD[train_N]),
            label_N=torch.from_numpy(label_N[train_N]),
        )
        result = fit_head(rows, 7)
        logits = predict_pooled(result, torch.from_numpy(mean_NLD[test_N]), torch.from_numpy(std_NLD[test_N]))
        ours[test_N] = logits.argmax(-1).numpy()
        fits = [
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(
                mean_NLD[train_N, layer], label_N[train_N]
            )
            for layer in range(mean_NLD.shape[1])
        ]
        scores = [uar(label_N[dev_N], fit.predict(mean_NLD[dev_N, layer])) for layer, fit in enumerate(fits)]
        best = int(np.argmax(scores))
        oracle[test_N] = fits[best].predict(mean_NLD[test_N, best])
    assert uar(label_N, ours) >= uar(label_N, oracle)
    assert uar(label_N, ours) > 0.87


def _emodb_statistics() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    corpus = SHARED / "corpora" / "emodb"
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    encoder = load_encoder(SHARED / "encoders" / "whisper-tiny-en")
    means, stds = [], []
    for row in rows:
        wave = torch.from_numpy(soundfile.read(corpus / row["audio"], dtype="float32")[0])
        with torch.inference_mode():
            output = encoder(wave[None], torch.tensor([len(wave)]))
            mean_LBD, std_LBD = masked_mean_std(output.hidden_LBTD, output.mask_BT)
        means.append(mean_LBD[:, 0].numpy())
        stds.append(std_LBD[:, 0].numpy())
    label_N = np.unique([row["emotion"] for row in rows], return_inverse=True)[1].astype(np.int64)
    return np.stack(means), np.stack(stds), label_N, np.array([row["speaker"] for row in rows])


def test_a_row_of_weight_two_is_fitted_as_two_rows() -> None:
    train = clusters(60, 0)
    twice_N = torch.arange(60) % 3 == 0
    weight_N = torch.where(twice_N, 2.0, 1.0)
    order_N = torch.cat([torch.arange(60), torch.nonzero(twice_N).flatten()])
    parts = {name: getattr(train, name)[order_N] for name in ("mean_NLD", "std_NLD", "label_N")}
    pool = LayerPool(4, 12)
    pool.fit(train.mean_NLD, train.std_NLD)
    options = FitOptions(l2=0.1, layer_l2=0.1)
    weighed = fit_head(replace(train, weight_N=weight_N / weight_N.mean()), 3, pool=pool, options=options)
    copied = fit_head(PooledSet(**parts), 3, pool=pool, options=options)
    assert weighed.loss == pytest.approx(copied.loss, rel=1e-4)
    probabilities = [predict_pooled(fit, train.mean_NLD, train.std_NLD).softmax(-1) for fit in (weighed, copied)]
    torch.testing.assert_close(probabilities[0], probabilities[1], atol=5e-3, rtol=0)
    unbalanced = FitOptions(balanced=False, l2=0.1, layer_l2=0.1)
    weighed = fit_head(replace(train, weight_N=weight_N / weight_N.mean()), 3, pool=pool, options=unbalanced)
    copied = fit_head(PooledSet(**parts), 3, pool=pool, options=unbalanced)
    assert weighed.loss == pytest.approx(copied.loss, rel=1e-4)


def test_logit_adjustment_favours_the_rare_class_as_its_prior_says() -> None:
    train = clusters(60, 0)
    common_N = (train.label_N != 2) | (torch.arange(60) % 5 == 0)
    rare = train.only(common_N)
    prior_C = log_priors(rare.label_N, 3)
    torch.testing.assert_close(prior_C.exp().sum(), torch.tensor(1.0))
    assert log_priors(torch.tensor([0, 0, -1]), 2).exp().tolist() == pytest.approx([3 / 4, 1 / 4])
    options = FitOptions(balanced=False, l2=1.0)
    plain, adjusted = (fit_head(rare, 3, options=replace(options, logit_adjustment=tau)) for tau in (0.0, 1.0))
    share = [predict_pooled(fit, train.mean_NLD, train.std_NLD).softmax(-1)[:, 2].mean() for fit in (plain, adjusted)]
    assert share[1] > share[0]
