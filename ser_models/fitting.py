"""A head fitted on cached pooled features, over a mixture of hidden states, in a fraction of a second.

It is the model of a frozen encoder, and the first stage of "linear probe, then fine-tune" (Kumar et al. 2022, arXiv
2202.10054) of an adapted one. Weights, intercepts and the mixture start from a prior that labels have to overcome:
zero and the middle of the network, or the head of a source that has labels already.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from ser_models.audio_text import TextInput, make_pool
from ser_models.defaults import L2, STD_GAIN
from ser_models.heads import Head, LayerPool
from ser_models.losses import (
    LOSSES,
    ccc_loss,
    class_weights,
    log_priors,
    weighted_classes,
)
from ser_models.metrics import uar

PRIOR_LABELS = 10.0
"""Labels that the prior of a head of classes is worth, and that of its layer weights, by default."""
MIDDLE = 0.15
"""Standard deviation of the layer weights around the middle of the network, as a share of its depth."""
ROWS_AT_ONCE = 256

# N rows (labelled clips) · L hidden states (encoder layers + 1) · D features · U embedding
# E features of a transcript · C classes · K rated dimensions (valence, arousal, dominance) · O outputs, either


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of fitting a head. The defaults are the best of a grid on EmoDB and RAVDESS with two encoders."""

    l2: float | None = None
    """Penalty on the distance to the prior, `l2/2 · (‖W - W₀‖² + ‖b - b₀‖²)` beside the mean loss per clip. None = for
    classes 10 / N, so that the prior is worth ten labels and gives way to more; for dimensions 0.03."""
    layer_l2: float | None = None
    """The penalty on the distance of the layer weights, before the softmax, to those of the pool; None = 10 / N."""
    learn_layers: bool = True
    """Fit the layer weights with the head; False keeps those of the pool, and with classes the problem convex."""
    balanced: bool = True
    """Weight classes ∝ N / n_c. Dimensions have none."""
    logit_adjustment: float = 0.0
    """Factor on the logarithms of the classes' shares that are added to the logits of the fit, see
    `losses.log_priors`."""
    std_gain: float = STD_GAIN
    """Factor on the pooled standard deviations where the fit makes its own LayerPool; 0 = means only."""
    loss: str = "cross_entropy"
    """Loss of classes, a name in `losses.LOSSES`."""
    hidden: int = 0
    """Width of a hidden layer, from fixed random weights; 0 = a linear head."""
    activation: str = "tanh"
    """Function of the hidden layer, a name in `heads.ACTIVATIONS`."""
    max_steps: int = 100
    """L-BFGS iterations at most."""

    def __post_init__(self) -> None:
        for name in ("l2", "layer_l2", "std_gain", "hidden"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.loss not in LOSSES:
            raise ValueError(f"no loss {self.loss!r}; known: {', '.join(LOSSES)}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")

    def class_l2(self, clips: int, prior_labels: float = PRIOR_LABELS) -> float:
        """The penalty of a head of classes that is fitted on so many clips, held to a prior worth so many labels."""
        return prior_labels / max(clips, 1) if self.l2 is None else self.l2

    def layers_l2(self, clips: int) -> float:
        """The penalty of the layer weights that are fitted on so many clips."""
        return PRIOR_LABELS / max(clips, 1) if self.layer_l2 is None else self.layer_l2


@dataclass(frozen=True, kw_only=True)
class PooledRows:
    """Rows of a feature cache."""

    mean_NLD: Tensor
    std_NLD: Tensor
    text_NE: Tensor | None = None
    """Vectors of the transcripts, for a pool that reads them; NaN where there is none."""

    def only(self, keep_N: Tensor) -> Self:
        """The rows of a mask, or of indices, with all that belongs to them."""
        parts: dict[str, Any] = {name: part[keep_N] for name, part in vars(self).items() if part is not None}
        return replace(self, **parts)


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


class Prior(NamedTuple):
    """A linear head that labels have to overcome, such as one of other corpora."""

    head: Head
    labels: float = PRIOR_LABELS
    """Labels that it is worth."""


def middle_layers(num_states: int) -> Tensor:
    """Logits (L,) of layer weights that are a Gaussian around the middle of the network.

    Speech encoders know most of emotion there (docs/results/few-labels.md): a prior for heads that have few labels.
    """
    depth_L = torch.linspace(0, 1, num_states) if num_states > 1 else torch.full((1,), 0.5)
    return -((depth_L - 0.5) / MIDDLE).square() / 2


def fit_head(
    train: PooledSet,
    num_classes: int,
    *,
    pool: LayerPool | None = None,
    dev: PooledSet | None = None,
    prior: Prior | None = None,
    options: FitOptions | None = None,
) -> FitResult:
    """Fit layer weights and a head by L-BFGS on class-weighted cross-entropy, held to a prior by a ridge penalty.

    Full batch from the prior on, so there is nothing random in it and no learning rate, epoch count or early stopping
    to choose; the dev rows are only scored. `pool` brings a standardisation already fitted on unlabelled features and
    the prior of the layer weights, and is not changed; without it the labelled rows themselves set the standardisation,
    and all layers weigh the same. `prior` is a linear head on the embedding of that pool, such as one of other
    corpora (a class they lack has zeros in it); None = zero.

    Intercepts are held as well: were they free, the first labels would drive out each class that has none yet.
    """
    options = options or FitOptions()
    pool = pool or _fresh_pool(train, options.std_gain)
    rows = _training_rows(pool, train)
    l2 = options.class_l2(len(train.label_N), PRIOR_LABELS if prior is None else prior.labels)
    start = _start(pool, num_classes, options, None if prior is None else prior.head)
    fitted = _fit(rows, start, class_loss(train, num_classes, options), pool, replace(options, l2=l2))
    return fitted if dev is None else replace(fitted, dev_uar=_uar(fitted, dev.label_N, _standardised(pool, dev)))


def _start(pool: LayerPool, num_outputs: int, options: FitOptions, prior: Head | None) -> Head:
    """The head that a fit starts from and is held to: the prior, or zero."""
    hidden, generator = options.hidden, torch.Generator().manual_seed(0)
    activation = options.activation
    head = Head(pool.out_width, num_outputs, hidden=hidden, activation=activation, dropout=0.0, generator=generator)
    if prior is not None:
        shapes = [tuple(one.output.weight.shape) for one in (prior, head)]
        if hidden or prior.hidden is not None or shapes[0] != shapes[1]:
            raise ValueError(f"a prior is a linear head with weights {shapes[1]}, got {shapes[0]}; hidden={hidden}")
        head.load_state_dict(prior.state_dict())
    return head.to(pool.layer_weight.device)


def class_loss(train: PooledSet, num_classes: int, options: FitOptions) -> Callable[[Tensor], Tensor]:
    """The loss of logits (N, C) of labelled rows, hard or soft, with the weights of classes and of rows."""
    if options.logit_adjustment:
        shift_C = options.logit_adjustment * log_priors(train.label_N, num_classes, train.weight_N)
        plain = class_loss(train, num_classes, replace(options, logit_adjustment=0.0))
        return lambda logits_NC: plain(logits_NC + shift_C)
    loss, balanced = LOSSES[options.loss], options.balanced
    if train.weight_N is not None or train.soft_NC is not None:
        target_NC = weighted_classes(train.label_N, num_classes, train.weight_N, train.soft_NC, balanced=balanced)
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
    start = _start(pool, len(centre_K), options, None)
    options = replace(options, l2=L2 if options.l2 is None else options.l2)
    fitted = _fit(rows, start, lambda value_NK: ccc_loss(value_NK, target_NK), pool, options)
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
    rows: _Standardised, start: Head, loss: Callable[[Tensor], Tensor], pool: LayerPool, options: FitOptions
) -> FitResult:
    """Minimise a loss of the outputs (N, O) with the ridge penalties; `start` and `pool` are where they pull to.

    A layer that weighs next to nothing has next to no gradient: layer weights that learn start once from those of the
    pool and once from equal ones, and the lower end counts.
    """
    starts = [pool.layer_weight.detach()]
    if options.learn_layers and bool((starts[0] != starts[0][0]).any()):
        starts.append(torch.zeros_like(starts[0]))
    return min((_descend(rows, start, loss, pool, layer_L, options) for layer_L in starts), key=lambda end: end.loss)


def _descend(
    rows: _Standardised,
    start: Head,
    loss: Callable[[Tensor], Tensor],
    pool: LayerPool,
    start_L: Tensor,
    options: FitOptions,
) -> FitResult:
    """The minimum that is reached from the head and the layer weights of a start."""
    layer_anchor_L = pool.layer_weight.detach().clone()
    pool, head, standard_NLU = copy.deepcopy(pool), copy.deepcopy(start), rows.standard_NLU
    pool.lean_to(start_L)
    fixed_NU = None if options.learn_layers else pool.combine(standard_NLU).detach()
    layer_l2 = options.layers_l2(len(standard_NLU))
    # A hidden layer has random weights to start from, and no prior but zero.
    anchors = [part.detach().clone() * (head.hidden is None) for part in head.parameters()]

    def objective() -> Tensor:
        embedding = pool.join(pool.combine(standard_NLU) if fixed_NU is None else fixed_NU, rows.text_NE)
        penalty = (options.l2 or 0.0) * _distance(head.parameters(), anchors)
        if options.learn_layers:
            penalty = penalty + layer_l2 * (pool.layer_weight - layer_anchor_L).square().sum()
        return loss(head(embedding)) + penalty / 2

    parameters = list(head.parameters()) + (list(pool.parameters()) if options.learn_layers else [])
    least, steps = minimise(objective, parameters, options.max_steps)
    return FitResult(pool=pool.eval(), head=head.eval(), loss=least, steps=steps, dev_uar=None)


def _distance(parameters: Iterable[Tensor], anchors: Iterable[Tensor]) -> Tensor:
    """Squared distance of some parameters to others, a scalar."""
    return torch.stack([(one - other).square().sum() for one, other in zip(parameters, anchors, strict=True)]).sum()


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
