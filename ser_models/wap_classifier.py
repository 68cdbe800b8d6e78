"""The classifier on a WAP-Transformer: attentive statistics over frames, standardised, and one linear layer.

Song et al. 2025, arXiv 2509.23795.
"""

# B batch · T frames · D features · U embedding · C classes
from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ser_models.adapters.wap import WapTransformer
from ser_models.heads import Head, LayerPool
from ser_models.pooling import AttentiveStatistics, masked_mean_std

Pooling = Literal["attentive", "mean"]


class WapClassifier(nn.Module):
    """Logits of clips, (B, T, D), (B, T) -> (B, C): `Z -> [μ; σ] under learned frame weights -> linear layer`.

    All frames count alike at the start, so that the linear layer can be fitted on plain means and deviations first
    (`adopt`): linear probe, then fine-tune (Kumar et al. 2022, arXiv 2202.10054). Pooling `mean` leaves out the frame
    weights and the deviations.

    Differs from the paper: pooled statistics are standardised before the linear layer.
    """

    def __init__(
        self,
        wap: WapTransformer,
        num_classes: int,
        *,
        pooling: Pooling = "attentive",
        std_gain: float = 0.4,
        dropout: float = 0.2,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        if pooling not in ("attentive", "mean"):
            raise ValueError(f"pooling must be attentive or mean, got {pooling!r}")
        self.wap = wap
        self.attention = AttentiveStatistics(wap.width, generator=generator) if pooling == "attentive" else None
        self.pool = LayerPool(1, wap.width, std_gain=std_gain if self.attention is not None else 0.0)
        # The weight of the only layer there is: never trained.
        self.pool.requires_grad_(False)
        self.head = Head(self.pool.out_width, num_classes, dropout=dropout)

    def adopt(self, pool: LayerPool, head: Head) -> None:
        """Copy a fitted standardisation and linear layer (a `probe.FitResult`'s on `statistics`)."""
        if pool.std_gain != self.pool.std_gain:
            raise ValueError(f"the fitted pool has std_gain {pool.std_gain}, this classifier {self.pool.std_gain}")
        self.pool.load_state_dict(pool.state_dict())
        self.head.load_state_dict(head.state_dict())

    def statistics(self, hidden_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of Z over the frames of each clip, under the frame weights: (B, D) twice."""
        z_BTD = self.wap(hidden_BTD, mask_BT)
        if self.attention is None:
            mean_1BD, std_1BD = masked_mean_std(z_BTD[None], mask_BT)
            return mean_1BD[0], std_1BD[0]
        mean_BD, std_BD = self.attention(z_BTD, mask_BT).chunk(2, -1)
        return mean_BD, std_BD

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        mean_BD, std_BD = self.statistics(hidden_BTD, mask_BT)
        logits: Tensor = self.head(self.pool(mean_BD[:, None], std_BD[:, None]))
        return logits


def trained_parameters(model: WapClassifier) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What fine-tuning trains: of the adapter, and of what stands on it."""
    adapter = list(model.wap.parameters())
    known = {id(parameter) for parameter in adapter}
    above = [p for p in model.parameters() if p.requires_grad and id(p) not in known]
    return adapter, above


@torch.no_grad()
def count_trained(model: WapClassifier) -> int:
    """Numbers that fine-tuning trains."""
    return sum(parameter.numel() for part in trained_parameters(model) for parameter in part)
