"""One step of pretraining, by one worker or several, and what the objective says of clips it does not train on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, distributed, nn

from ser_models.objectives.objective import Objective, pool_measures
from ser_models.objectives.options import learning_rate_at

# B clips · S samples

MAX_NAMED = 10


def tapt_optimizer(objective: Objective) -> torch.optim.Adam:
    """Adam over everything that is not frozen."""
    return torch.optim.Adam(objective.trained().values(), lr=objective.options.learning_rate)


def tapt_step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    wave_BS: Tensor,
    length_B: Tensor,
    *,
    step: int,
    rng: np.random.Generator,
    names: Sequence[str] | None = None,
    bf16: bool = False,
) -> dict[str, float]:
    """One update at the rate of `step`; returns the objective's scalars and the rate.

    Where torch.distributed runs, every worker gives clips of its own and all make the same update; the scalars are
    those of the worker's clips. `bf16` runs what can be run so in bfloat16, which pays on GPUs. A loss that is not
    finite is a ValueError with the clips to blame, by `names` or by their numbers.
    """
    rate = learning_rate_at(step, objective.options)
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(wave_BS.device.type, torch.bfloat16, enabled=bf16):
        scalars = objective(wave_BS, length_B, rng, step=step)
    loss = scalars["loss"]
    if not bool(torch.isfinite(loss)):
        blamed = _suspects(wave_BS, names or [f"clip {row}" for row in range(len(wave_BS))])
        raise ValueError(
            f"expected a finite pretraining loss, got {float(loss.detach())} at step {step}; lower the learning rate "
            f"or look for bad audio in {blamed}"
        )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(list(objective.trained().values()), scalars["masked"])
    optimizer.step()
    return {name: float(value.detach()) for name, value in scalars.items()} | {"learning_rate": rate}


@torch.no_grad()
def average_gradients(parameters: Sequence[nn.Parameter], masked: Tensor) -> None:
    """Give all workers the mean of their gradients, weighted by their masked frames, as of one batch of all clips.

    Nothing happens where a single worker trains. Of objectives that are not a mean over frames, such as codebook
    diversity, it is the mean of the workers' own.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    # A parameter that one worker did not use, such as a dropped layer's, others may have used.
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([masked.reshape(1).float(), *(gradient.flatten().float() * masked for gradient in gradients)])
    distributed.all_reduce(flat)
    parts = torch.split(flat[1:] / flat[0], [parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter).to(parameter.dtype)


@torch.no_grad()
def held_out_scores(
    objective: Objective, batches: Iterable[tuple[Tensor, Tensor]], *, seed: Sequence[int]
) -> dict[str, float]:
    """The objective's scalars on clips it does not train on, in evaluation mode, with the same masks for the same seed.

    As over one batch of all masked frames: a perplexity of few frames is low, and a mean of such would be too.
    """
    training = objective.training
    objective.eval()
    rng = np.random.default_rng(list(seed))
    found = [objective.measure(wave_BS, length_B, rng) for wave_BS, length_B in batches]
    objective.train(training)
    if not found:
        raise ValueError("expected at least one held-out batch, got none")
    return {name: float(value) for name, value in pool_measures(found).scalars().items()}


def _suspects(wave_BS: Tensor, names: Sequence[str]) -> str:
    """Clips whose own samples are not finite, or all of them where none is to blame."""
    broken = [name for name, wave_S in zip(names, wave_BS, strict=True) if not bool(torch.isfinite(wave_S).all())]
    listed = broken or list(names)
    more = f", and {len(listed) - MAX_NAMED} more" if len(listed) > MAX_NAMED else ""
    return ", ".join(listed[:MAX_NAMED]) + more
