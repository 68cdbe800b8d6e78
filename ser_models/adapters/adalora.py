"""AdaLoRA: low-rank updates `B Λ A` whose ranks move to where they matter, through the peft library.

Zhang et al. 2023 (arXiv 2303.10512). Training has two more duties than with other adapters: add `penalty()` to the loss
and call `after_step` after every optimiser step, both of a `RankSchedule`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ser_models.adapters.injection import PeftOptions, default_targets, inject, target_pattern
from ser_models.adapters.parameters import adapter_modules, adapter_tags
from ser_models.encoders import SpeechEncoder

if TYPE_CHECKING:
    from peft import AdaLoraConfig

START_STD = 0.02
WARM_UP, SETTLED = 0.1, 0.3
"""Shares of the training before ranks are first cut, and at its end, when they stay. The paper gives steps by task."""
AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""State of peft's allocator for every weight: its last sensitivity, and two running averages."""


@dataclass(frozen=True, kw_only=True)
class AdaloraOptions(PeftOptions):
    """Options of AdaLoRA: ranks at first and at last."""

    start_rank: int = 12
    """Rank of every update at first."""
    rank: int = 8
    """Mean rank of the updates at the end: some keep more, some none."""
    alpha: float = 8.0
    """Updates are scaled by alpha / start_rank, as peft does, also when ranks have gone."""
    penalty: float = 0.5
    """Weight of the orthogonality of A's rows and B's columns in the loss."""
    targets: tuple[str, ...] | None = None
    """Last names of the linear layers to adapt; None = attention and feed-forward."""
    top_layers: int | None = None
    """Only the top n transformer layers are adapted, so the frozen ones below can be cached; None = all."""

    def __post_init__(self) -> None:
        if not 1 <= self.rank <= self.start_rank:
            raise ValueError(f"rank must lie in 1..start_rank, got {self.rank} and {self.start_rank}")
        if not self.alpha > 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}")
        if self.penalty < 0:
            raise ValueError(f"penalty must be at least 0, got {self.penalty}")


def attach_adalora(encoder: SpeechEncoder, options: AdaloraOptions, *, seed: int) -> SpeechEncoder:
    """Put low-rank updates on an encoder in place and freeze the rest; at first the output is unchanged."""
    from peft import AdaLoraConfig

    targets = options.targets or default_targets(encoder)
    config = AdaLoraConfig(
        init_r=options.start_rank,
        target_r=options.rank,
        lora_alpha=options.alpha,
        orth_reg_weight=options.penalty,
        # peft insists on a length; RankSchedule brings the real one.
        total_step=100,
        tinit=10,
        tfinal=30,
        target_modules=target_pattern(encoder, options.top_layers, targets),
    )
    inject(encoder, "adalora", options, config)
    _draw(encoder, seed)
    return encoder


class RankSchedule:
    """Moves ranks to the updates that matter while an encoder with AdaLoRA is trained for `steps` optimiser steps."""

    def __init__(self, encoder: SpeechEncoder, *, steps: int) -> None:
        from peft.tuners.adalora import RankAllocator

        if "adalora" not in encoder.adapters:
            raise ValueError("this encoder carries no adalora: attach it first")
        config: AdaLoraConfig = encoder.model.peft_config["default"]
        config.total_step = steps
        config.tinit, config.tfinal = round(WARM_UP * steps), round(SETTLED * steps)
        if config.tfinal < 1 or config.tinit + config.tfinal >= steps:
            raise ValueError(f"adalora needs more than {steps} steps to move ranks in")
        # Cut after every step: at peft's every tenth a short training would see one or two cuts.
        config.deltaT = 1
        self.encoder, self.config = encoder, config
        self._allocator = RankAllocator(encoder.model, config, "default")
        self._rank_pattern: dict[str, list[bool]] | None = None

    def penalty(self) -> Tensor:
        """`γ · mean ‖P Pᵀ - I‖_F` over A's rows and B's columns, a scalar to add to the loss. Equation 4."""
        tags = adapter_tags(self.encoder)
        grams = [p @ p.T for p in tags["lora_A"].values()] + [p.T @ p for p in tags["lora_B"].values()]
        distance = [torch.linalg.norm(gram - torch.eye(len(gram), device=gram.device)) for gram in grams]
        return float(self.config.orth_reg_weight) * torch.stack(distance).mean()

    def after_step(self, step: int) -> None:
        """Weigh every rank by its gradient of this step, number 1, 2, ..., and cut what is over the budget."""
        last_cut = self.config.total_step - self.config.tfinal
        if step <= last_cut:
            _, pattern = self._allocator.update_and_allocate(self.encoder.model, step, force_mask=step == last_cut)
            self._rank_pattern = pattern or self._rank_pattern
        elif self._rank_pattern is not None:
            self._allocator.mask_using_rank_pattern(self.encoder.model, self._rank_pattern)

    def state_dict(self) -> dict[str, Any]:
        """State of the ranks so far, to go on from."""
        averages = {name: getattr(self._allocator, name) for name in AVERAGES}
        return averages | {"kept": self._rank_pattern}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self._rank_pattern = state["kept"]
        for name in AVERAGES:
            setattr(self._allocator, name, state[name])

    @property
    def ranks(self) -> dict[str, int]:
        """Ranks in use of each adapted linear."""
        tagged = adapter_tags(self.encoder)["lora_E"]
        return {name.partition(".lora_E")[0]: int(p.count_nonzero()) for name, p in tagged.items()}


@torch.no_grad()
def _draw(encoder: SpeechEncoder, seed: int) -> None:
    """A and B normal, Λ zero; the same numbers on every device."""
    generator = torch.Generator().manual_seed(seed)
    for own in adapter_modules(encoder).values():
        for name, parameter in sorted(own.items()):
            if ".lora_E." in name:
                parameter.zero_()
            elif ".lora_A." in name or ".lora_B." in name:
                fresh = torch.zeros(parameter.shape)
                nn.init.normal_(fresh, std=START_STD, generator=generator)
                parameter.copy_(fresh)
