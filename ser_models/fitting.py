"""A head fitted on cached pooled features, over a mixture of hidden states, in a fraction of a second.

It is the model of a frozen encoder, and the first stage of "linear probe, then fine-tune" (Kumar et al. 2022, arXiv
2202.10054) of an adapted one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ser_models.audio_text import TextInput, make_pool
from ser_models.heads import STD_GAIN, Head, LayerPool
from ser_models.losses import (
    LOSSES,
    best_temperature,
    ccc_loss,
    class_distributions,
    class_weights,
    weighted_classes,
)
from ser_models.metrics import uar

L2 = 0.03
"""Ridge penalty on the weights of a head, by default."""
LEANING = 4.0
"""Logit of the layer weight that dominates; the others' is 0."""
ROWS_AT_ONCE = 256
CLEARLY = 2.0
"""Standard errors by which one layer must be better than the mixture."""

# N rows (labelled clips) · L hidden states (encoder layers + 1) · D features · U embedding
# E features of a transcript · C classes · K rated dimensions (valence, arousal, dominance) · O outputs, either


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of fitting a head. The defaults are the best of a grid on EmoDB and RAVDESS with two encoders."""

    l2: float = L2
    """Ridge penalty on the head's weights, `l2/2 · ‖W‖²` beside the mean loss per clip. 0.01 to 0.1 are alike."""
    layer_l2: float = 0.003
    """Ridge penalty on the layer weights before the softmax: pulls them towards equal. Only keeps them finite."""
    learn_layers: bool = True
    """Fit the layer weights with the head; False keeps them, and with classes the problem convex."""
    balanced: bool = True
    """Weight classes ∝ N / n_c. Dimensions have none."""
    std_gain: float = STD_GAIN
    """Factor on the pooled standard deviations where the fit makes its own LayerPool; 0 = means only."""
    loss: str = "cross_entropy"
    """Loss of classes, a name in `losses.LOSSES`."""
    hidden: int = 0
    """Width of a hidden tanh layer, from fixed random weights; 0 = a linear head."""
    max_steps: int = 100
    """L-BFGS iterations at most."""

    def __post_init__(self) -> None:
        for name in ("l2", "layer_l2", "std_gain", "hidden"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.loss not in LOSSES:
            raise ValueError(f"no loss {self.loss!r}; known: {', '.join(LOSSES)}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")


@dataclass(frozen=True, kw_only=True)
class PooledRows:
    """Rows of a feature cache."""

    mean_NLD: Tensor
    std_NLD: Tensor
    text_NE: Tensor | None = None
    """Vectors of the transcripts, for a pool that reads them; NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class PooledSet(PooledRows):
    """Rows whose class is known."""

    label_N: Tensor
    """Class indices, int64."""
    weight_N: Tensor | None = None
    """Weight of each row, 1 on average; None = all alike."""
    soft_NC: Tensor | None = None
    """Shares of the annotators' votes, by which heads are fitted; NaN in rows that have their label alone."""


@dataclass(frozen=True, kw_only=True)
class RatedSet(PooledRows):
    """Rows whose dimensions are known."""

    target_NK: Tensor
    """Ratings on any scale."""


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A fitted head, in evaluation mode, ready to drop into a SerModel."""

    pool: LayerPool
    head: Head
    loss: float
    """Penalised training loss at the end."""
    steps: int
    """L-BFGS iterations used."""
    dev_uar: float | None
    """UAR on the dev rows; None without any, and for dimensions."""
    layer: int | None = None
    """The hidden state that `fit_best_head` lets dominate; None = the learned mixture."""


def fit_head(
    train: PooledSet,
    num_classes: int,
    *,
    pool: LayerPool | None = None,
    dev: PooledSet | None = None,
    options: FitOptions | None = None,
) -> FitResult:
    """Fit layer weights and a linear head by L-BFGS on class-weighted cross-entropy with a ridge penalty.

    Full batch and from zero, so there is nothing random in it and no learning rate, epoch count or early stopping to
    choose; the dev rows are only scored. `pool` brings a standardisation already fitted on unlabelled features (its
    layer weights are the start) and is not changed; without it the labelled rows themselves set the standardisation.
    """
    options = options or FitOptions()
    pool = pool or _fresh_pool(train, options.std_gain)
    rows = _training_rows(pool, train)
    fitted = _fit_classes(train, num_classes, pool, rows, options)
    return fitted if dev is None else replace(fitted, dev_uar=_uar(fitted, dev.label_N, _standardised(pool, dev)))


def _fit_classes(
    train: PooledSet, num_classes: int, pool: LayerPool, rows: _Standardised, options: FitOptions
) -> FitResult:
    return _fit(rows, num_classes, class_loss(train, num_classes, options), pool, options)


def class_loss(train: PooledSet, num_classes: int, options: FitOptions) -> Callable[[Tensor], Tensor]:
    """The loss of logits (N, C) of labelled rows, hard or soft, with the weights of classes and of rows."""
    loss, balanced = LOSSES[options.loss], options.balanced
    if train.weight_N is not None and not balanced:
        raise ValueError("rows of unequal weight are for balanced classes")
    if train.soft_NC is not None and not balanced:
        soft_NC = class_distributions(train.label_N, num_classes, train.soft_NC)
        return lambda logits_NC: loss.soft(logits_NC, soft_NC)
    if train.weight_N is not None or train.soft_NC is not None:
        target_NC = weighted_classes(train.label_N, num_classes, train.weight_N, train.soft_NC)
        return lambda logits_NC: loss.soft(logits_NC, target_NC)
    weight_C = class_weights(train.label_N, num_classes) if balanced else None
    return lambda logits_NC: loss.hard(logits_NC, train.label_N, weight_C)


def fit_dimensions(train: RatedSet, *, pool: LayerPool | None = None, options: FitOptions | None = None) -> FitResult:
    """Fit layer weights and a linear head for dimensions by L-BFGS on `mean_k (1 - CCC_k)` with a ridge penalty.

    As `fit_head`: full batch, from the constant predictor, nothing random. The ratings are standardised for the fit and
    the head is brought back to their scale afterwards, so that the penalty means the same on any scale.
    """
    options = options or FitOptions()
    centre_K, scale_K = _rating_scale(train)
    target_NK = (train.target_NK.float() - centre_K) / scale_K
    pool = pool or _fresh_pool(train, options.std_gain)
    rows = _training_rows(pool, train)
    fitted = _fit(rows, len(centre_K), lambda value_NK: ccc_loss(value_NK, target_NK), pool, options)
    with torch.no_grad():
        fitted.head.output.weight.mul_(scale_K[:, None])
        fitted.head.output.bias.mul_(scale_K).add_(centre_K)
    return fitted


def _rating_scale(train: RatedSet) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every dimension, (K,) each."""
    target_NK = train.target_NK.float()
    rows = len(train.mean_NLD)
    if target_NK.ndim != 2 or len(target_NK) != rows or rows < 2:
        raise ValueError(f"expected ratings (N, K) of at least 2 clips, got {tuple(target_NK.shape)} for {rows} clips")
    if not bool(torch.isfinite(target_NK).all()):
        bad = torch.nonzero(~torch.isfinite(target_NK).all(-1)).flatten().tolist()
        raise ValueError(f"ratings of training row(s) {bad[:10]} are not finite; drop these clips")
    if constant := torch.nonzero(target_NK.amax(0) == target_NK.amin(0)).flatten().tolist():
        raise ValueError(f"dimension(s) {constant} have the same rating on all {rows} clips: nothing to fit")
    return target_NK.mean(0), target_NK.std(0, correction=0)


@dataclass(frozen=True, kw_only=True)
class _Standardised:
    """Rows as a pool standardises them: made once for all heads that are fitted on them."""

    standard_NLU: Tensor
    text_NE: Tensor | None


@torch.no_grad()
def _standardised(pool: LayerPool, rows: PooledRows) -> _Standardised:
    """The rows by a pool's centres and scales, some at a time: temporaries of all of them would take twice the room.

    They lie state after state in memory, as the sum over states wants them, which else copies them every time.
    """
    parts = [torch.split(part, ROWS_AT_ONCE) for part in (rows.mean_NLD, rows.std_NLD)]
    first = pool.standardise(parts[0][0], parts[1][0])
    standard_NLU = first.new_empty(first.shape[1], len(rows.mean_NLD), first.shape[2]).permute(1, 0, 2)
    for chunk, mean_BLD, std_BLD in zip(torch.split(standard_NLU, ROWS_AT_ONCE), *parts, strict=True):
        chunk.copy_(pool.standardise(mean_BLD, std_BLD))
    return _Standardised(standard_NLU=standard_NLU, text_NE=rows.text_NE)


def _training_rows(pool: LayerPool, train: PooledRows) -> _Standardised:
    """Standardised rows to fit on. Raises ValueError that names those that are not finite."""
    rows = _standardised(pool, train)
    parts = (train.mean_NLD, train.std_NLD, rows.standard_NLU)  # as they came: what is infinite is bounded then
    finite_N = torch.stack(
        [torch.cat([_finite(rows) for rows in torch.split(part, ROWS_AT_ONCE)]) for part in parts]
    ).all(0)
    if not bool(finite_N.all()):
        bad = torch.nonzero(~finite_N).flatten().tolist()
        raise ValueError(
            f"pooled features of training row(s) {bad[:10]} are not finite; extract them again or drop them"
        )
    return rows


def _finite(part_BLD: Tensor) -> Tensor:
    """Whether each row is finite, (B,)."""
    return torch.isfinite(part_BLD).flatten(1).all(1)


def _fit(
    rows: _Standardised,
    num_outputs: int,
    loss: Callable[[Tensor], Tensor],
    pool: LayerPool,
    options: FitOptions,
) -> FitResult:
    """Minimise a loss of the outputs (N, O) with the ridge penalties, from zero."""
    pool, standard_NLU = copy.deepcopy(pool), rows.standard_NLU
    generator = torch.Generator().manual_seed(0)
    head = Head(pool.out_width, num_outputs, hidden=options.hidden, dropout=0.0, generator=generator)
    head.to(pool.layer_weight.device)
    fixed_NU = None if options.learn_layers else pool.combine(standard_NLU).detach()

    def objective() -> Tensor:
        embedding = pool.join(pool.combine(standard_NLU) if fixed_NU is None else fixed_NU, rows.text_NE)
        layers = [head.output] if head.hidden is None else [head.hidden, head.output]
        penalty = options.l2 * sum(layer.weight.square().sum() for layer in layers)
        if options.learn_layers:
            penalty = penalty + options.layer_l2 * pool.layer_weight.square().sum()
        return loss(head(embedding)) + penalty / 2

    parameters = list(head.parameters()) + (list(pool.parameters()) if options.learn_layers else [])
    least, steps = minimise(objective, parameters, options.max_steps)
    return FitResult(pool=pool.eval(), head=head.eval(), loss=least, steps=steps, dev_uar=None)


def fit_best_head(
    train: PooledSet, num_classes: int, *, pool: LayerPool, dev: PooledSet, options: FitOptions | None = None
) -> FitResult:
    """A head on a learned mixture of layers, or on mainly one layer where that is clearly better on dev.

    With few labels the learned weights may settle on a layer that explains them by chance; which one knows, the
    dev rows say. Clearly: by more than two standard errors of the clips' calibrated cross-entropy, or the choice costs
    more than it brings as soon as labels are many (as in Breiman et al. 1984, CART, section 3.4.3). The layer chosen
    gets most of the weight and not all of it, so that adapters trained from here are heard from every layer. Dev rows
    that lack a class of the training rows do not say which layer knows it: then it is the mixture.
    """
    options = options or FitOptions()
    train_rows, dev_rows = _training_rows(pool, train), _standardised(pool, dev)

    def fit(start: LayerPool, options: FitOptions, layer: int | None) -> FitResult:
        fitted = _fit_classes(train, num_classes, start, train_rows, options)
        return replace(fitted, dev_uar=_uar(fitted, dev.label_N, dev_rows), layer=layer)

    mixture = fit(pool, options, None)
    if not bool(torch.isin(torch.unique(train.label_N), dev.label_N).all()):
        return mixture
    fixed = replace(options, learn_layers=False)
    singles = [fit(_leaning(pool, layer), fixed, layer) for layer in range(len(pool.layer_weight))]
    loss_N = _calibrated_losses(mixture, dev.label_N, dev_rows)
    loss_LN = np.stack([_calibrated_losses(single, dev.label_N, dev_rows) for single in singles])
    best = int(loss_LN.mean(1).argmin())
    gain_N = loss_N - loss_LN[best]
    clearly = gain_N.mean() > CLEARLY * gain_N.std() / np.sqrt(len(gain_N))
    return singles[best] if clearly else mixture


def _leaning(pool: LayerPool, layer: int) -> LayerPool:
    """A pool in which one layer has most of the weight."""
    leaning = copy.deepcopy(pool)
    with torch.no_grad():
        leaning.layer_weight.zero_()
        leaning.layer_weight[layer] = LEANING
    return leaning


def _calibrated_losses(result: FitResult, label_N: Tensor, rows: _Standardised) -> NDArray[np.float64]:
    """Class-weighted cross-entropy of every clip at the temperature that is best for all, (N,)."""
    weight_C = class_weights(label_N, result.head.output.out_features)
    logits_NC = _logits(result, rows)
    scaled_NC = logits_NC / best_temperature(logits_NC, label_N, weight_C)
    loss_N = nn.functional.cross_entropy(scaled_NC, label_N, weight=weight_C, reduction="none")
    return loss_N.double().cpu().numpy()


@torch.no_grad()
def _logits(result: FitResult, rows: _Standardised) -> Tensor:
    """Outputs (N, O) of rows that the result's pool has standardised."""
    output: Tensor = result.head(result.pool.join(result.pool.combine(rows.standard_NLU), rows.text_NE))
    return output


@torch.no_grad()
def predict_pooled(result: FitResult, mean_NLD: Tensor, std_NLD: Tensor, text_NE: Tensor | None = None) -> Tensor:
    """Logits or dimensions of cached rows, (N, L, D) twice -> (N, O)."""
    output: Tensor = result.head(result.pool(mean_NLD, std_NLD, text_NE))
    return output


def minimise(objective: Callable[[], Tensor], parameters: Sequence[Tensor], max_steps: int) -> tuple[float, int]:
    """Bring a loss to its minimum by L-BFGS, moving the parameters; returns the loss there and the steps taken."""
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=max_steps, tolerance_grad=1e-5, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = objective()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]  # likewise
    with torch.no_grad():
        loss = float(objective())
    if not np.isfinite(loss):
        raise ValueError(f"the loss of the head ended at {loss}; look for features of extreme size")
    return loss, int(optimizer.state[parameters[0]]["n_iter"])


def _fresh_pool(train: PooledRows, std_gain: float) -> LayerPool:
    _, num_states, width = train.mean_NLD.shape
    text = None if train.text_NE is None else TextInput(width=train.text_NE.shape[1])
    pool = make_pool(num_states, width, std_gain=std_gain, text=text).to(train.mean_NLD.device)
    pool.fit(train.mean_NLD, train.std_NLD, train.text_NE)
    return pool


def _uar(result: FitResult, label_N: Tensor, rows: _Standardised) -> float:
    return uar(label_N.cpu().numpy(), _logits(result, rows).argmax(-1).cpu().numpy())
