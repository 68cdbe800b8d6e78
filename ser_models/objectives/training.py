"""One update of a pretraining, by one worker or several, and scores on clips that are not trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, distributed, nn

from ser_models.objectives.objective import Objective, pool_measures

# B clips · S samples

MAX_NAMED = 10


@dataclass(frozen=True, kw_only=True)
class UpdateOptions:
    """Options of one update."""

    step: int
    """Number of the update, from 0."""
    lr: float
    """Learning rate of this update."""
    weighed_by: str = "masked"
    """The scalar that says of how many frames the loss is a mean: the weight of a worker's gradient."""
    max_norm: float | None = None
    """The gradient is scaled down to this norm; None = left as it is."""
    bf16: bool = False
    """Run what can be run so in bfloat16, which pays on GPUs."""


def update(
    loss: Callable[[], Mapping[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    options: UpdateOptions,
    *,
    names: Sequence[str],
    input_B: Tensor,
) -> dict[str, float]:
    """One update of everything the optimizer holds; returns the scalars of `loss`, one of which is the loss.

    Where torch.distributed runs, every worker gives clips of its own and all make the same update; the scalars are
    those of the worker's clips. A loss that is not finite is a ValueError that names the clips to blame: of `names`,
    those whose rows of the input (B, ...) are not finite, or all.
    """
    for group in optimizer.param_groups:
        group["lr"] = options.lr
    with torch.autocast(input_B.device.type, torch.bfloat16, enabled=options.bf16):
        scalars = loss()
    value = scalars["loss"]
    if not bool(torch.isfinite(value)):
        raise ValueError(
            f"expected a finite pretraining loss, got {float(value.detach())} at step {options.step}; lower the "
            f"learning rate or look for bad audio in {_suspects(input_B, names)}"
        )
    optimizer.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    average_gradients(parameters, scalars[options.weighed_by])
    if options.max_norm is not None:
        nn.utils.clip_grad_norm_(parameters, options.max_norm)
    optimizer.step()
    return {name: float(scalar.detach()) for name, scalar in scalars.items()}


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter], weight: Tensor) -> None:
    """Give all workers the mean of their gradients, weighted by the frames of each, as of one batch of all clips.

    Nothing happens where a single worker trains. Of objectives that are not a mean over frames, such as codebook
    diversity, it is the mean of the workers' own.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    # A parameter that one worker did not use, such as a dropped layer's, others may have used.
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([weight.reshape(1).float(), *(gradient.flatten().float() * weight for gradient in gradients)])
    distributed.all_reduce(flat)
    parts = torch.split(flat[1:] / flat[0], [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)


@torch.no_grad()
def held_out_scores(
    objective: Objective, batches: Iterable[tuple[Tensor, Tensor]], *, seed: Sequence[int]
) -> dict[str, float]:
    """Scalars of the objective on clips it does not train on, in evaluation mode, with the same masks for a seed.

    As over one batch of all masked frames: a perplexity of few frames is low, and a mean of such would be too.
    """
    training = objective.training
    objective.eval()
    rng = np.random.default_rng(list(seed))
    measures = [objective.measure(wave_BS, length_B, rng) for wave_BS, length_B in batches]
    objective.train(training)
    if not measures:
        raise ValueError("expected at least one held-out batch, got none")
    return {name: float(value) for name, value in pool_measures(measures).scalars().items()}


def _suspects(input_B: Tensor, names: Sequence[str]) -> str:
    """Clips whose own samples are not finite, or all of them where none is to blame."""
    broken = [name for name, row in zip(names, input_B, strict=True) if not bool(torch.isfinite(row).all())]
    listed = broken or list(names)
    more = f", and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more
