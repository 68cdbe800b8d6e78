"""Options of masked prediction, contrastive or of clusters, and the schedules that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from ser_models.objectives.masks import MASKS


@dataclass(frozen=True, kw_only=True)
class MaskedPredictionOptions:
    """Options of masked prediction.

    Seconds of a step and of a clip, the optimiser's rate and its course, and the masks are AFTER's; the constants of
    the contrastive objective are wav2vec 2.0's. Ours: `steps`, for pools of an hour or so, clusters and their layer,
    which AFTER has no use for, and `freeze_front`: AFTER trains the front too.
    """

    steps: int = 2000
    """Updates; AFTER used 20 000 on IEMOCAP."""
    batch_s: float = 250.0
    """Seconds of audio in a step."""
    crop_s: float = 10.0
    """Longer clips are cropped at a random place."""
    mask: str = "after"
    """A name in MASKS."""
    lr: float = 1e-4
    """Peak learning rate of Adam."""
    warmup_steps: int = 100
    flat_share: float = 0.05
    """Share of `steps` at the full rate after the warm-up, before the linear way down to 0."""
    logit_temperature: float = 0.1
    """Of the cosines in either objective: κ of the contrastive loss, τ of the cluster logits."""
    distractors: int = 100
    """Contrastive loss only, like the diversity and Gumbel options."""
    diversity_weight: float = 0.1
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    gumbel_decay: float = 0.999995
    """Factor on the Gumbel temperature per step."""
    clusters: int = 100
    """k-means ids to predict; masked cluster prediction only, like `layer`."""
    layer: int | None = None
    """Hidden state that is clustered; None = ⌊0.75 · layers⌋."""
    freeze_front: bool = True
    """Keep the convolutional front as it is. Adapters keep all of the encoder as it is."""

    def __post_init__(self) -> None:
        if self.mask not in MASKS:
            raise ValueError(f"unknown mask {self.mask!r}; known: {', '.join(sorted(MASKS))}")
        climb = self.warmup_steps + self.flat_share * self.steps
        if climb >= self.steps:
            raise ValueError(f"warm-up and flat part take {climb:.0f} steps of {self.steps}: lower warmup_steps")
        if self.crop_s > self.batch_s:
            raise ValueError(f"a clip of {self.crop_s} s does not fit a batch of {self.batch_s} s")
        if self.distractors < 1:
            raise ValueError(f"distractors must be at least 1, got {self.distractors}")
        if self.clusters < 2:
            raise ValueError(f"clusters must be at least 2, got {self.clusters}")


def learning_rate_at(step: int, options: MaskedPredictionOptions) -> float:
    """Rate of update `step` (from 0): linear warm-up, flat part, linear to 0 at `options.steps`."""
    flat_end = options.warmup_steps + options.flat_share * options.steps
    if step < options.warmup_steps:
        return options.lr * (step + 1) / options.warmup_steps
    left = (options.steps - step) / (options.steps - flat_end)
    return options.lr * min(1.0, max(0.0, left))


def gumbel_temperature_at(step: int, options: MaskedPredictionOptions) -> float:
    """Temperature of the quantizer at update `step`: exponential decay from start to end."""
    return max(options.gumbel_start * options.gumbel_decay**step, options.gumbel_end)
