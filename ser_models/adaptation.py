"""An encoder, or adapters in it, that learn from labels of several corpora, for others that they will not hear.

A batch is of one corpus, and the statistics of its clips are standardised in the batch: what tells one corpus from
another cannot be learnt, what tells emotions apart inside of each can. Classes that a corpus has no label of are left
out of its loss. Pure torch.
"""

# B clips · T frames · L hidden states (encoder layers + 1) · D features · C classes
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ser_models.encoders import SpeechEncoder
from ser_models.fitting import middle_layers
from ser_models.pooling import masked_mean_std

LEAST_DEVIATION = 1e-3
"""Deviations in a batch are taken for at least so much: a feature that is dead in it stays small."""
MIN_CLIPS = 4
"""Clips of a batch at least, for their mean and deviation to say something."""


@dataclass(frozen=True, kw_only=True)
class AdaptationOptions:
    """Options of learning from labels of several corpora."""

    lr: float = 1e-3
    """Peak learning rate of AdamW, of adapters and heads alike; it falls to zero in a line."""
    smoothing: float = 0.1
    """Share of each label that is spread over the classes of its corpus."""
    dropout: float = 0.1
    """Dropout before the classifier."""

    def __post_init__(self) -> None:
        if not self.lr > 0:
            raise ValueError(f"lr must be positive, got {self.lr}")
        for name in ("smoothing", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")


class LabelledAdaptation(nn.Module):
    """An encoder from hidden state `start` on, learned weights of all hidden states, and a linear classifier."""

    def __init__(
        self,
        encoder: SpeechEncoder,
        num_classes: int,
        *,
        start: int,
        options: AdaptationOptions,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder, self.start, self.options = encoder, start, options
        self.layer_weight = nn.Parameter(middle_layers(encoder.num_layers + 1))
        self.output = nn.Linear(2 * encoder.width, num_classes)
        nn.init.zeros_(self.output.bias)
        nn.init.normal_(self.output.weight, std=0.01, generator=generator)
        self.dropout = nn.Dropout(options.dropout)

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters that learn, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def forward(
        self,
        hidden_BTD: Tensor,
        mask_BT: Tensor,
        below_mean_LBD: Tensor,
        below_std_LBD: Tensor,
        target_BC: Tensor,
        weight_C: Tensor,
    ) -> dict[str, Tensor]:
        """Loss, accuracy and number of the clips of a corpus, from frames of hidden state `start`.

        `below_*`: statistics of the states below it. `target_BC`: one-hot, or shares of the votes. `weight_C`: weights
        of the classes, 0 for those that the corpus has no label of.
        """
        upper_LBTD = self.encoder.upper(hidden_BTD, mask_BT, start=self.start)
        mean_LBD, std_LBD = masked_mean_std(upper_LBTD, mask_BT)
        parts = (torch.cat([below_mean_LBD, mean_LBD]), torch.cat([below_std_LBD, std_LBD]))
        share_L = torch.softmax(self.layer_weight, 0)[:, None, None]
        embedding_BU = torch.cat([(share_L * standardised(part_LBD)).sum(0) for part_LBD in parts], 1)
        logits_BC = self.output(self.dropout(embedding_BU)).masked_fill(weight_C == 0, -torch.inf)
        loss = smoothed_cross_entropy(logits_BC.float(), target_BC, weight_C, self.options.smoothing)
        accuracy = (logits_BC.argmax(1) == target_BC.argmax(1)).float().mean()
        return {"loss": loss, "accuracy": accuracy, "clips": torch.tensor(float(len(target_BC)))}


def standardised(part_LBD: Tensor) -> Tensor:
    """Statistics less their mean in the batch, over their deviation in it, (L, B, D)."""
    deviation_LBD = part_LBD.std(1, keepdim=True).clamp(min=LEAST_DEVIATION)
    return (part_LBD - part_LBD.mean(1, keepdim=True)) / deviation_LBD


def smoothed_cross_entropy(logits_BC: Tensor, target_BC: Tensor, weight_C: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with distributions weighed by class, over the classes with a weight; -inf in the others' logits."""
    present_C = weight_C > 0
    log_BC = functional.log_softmax(logits_BC[:, present_C], 1)
    share_BC = (target_BC * weight_C)[:, present_C]
    spread_BC = (1 - smoothing) * share_BC + smoothing * share_BC.mean(1, keepdim=True)
    return -(spread_BC * log_BC).sum() / share_BC.sum()
