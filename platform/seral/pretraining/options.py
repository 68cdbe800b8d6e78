"""How an encoder is adapted to audio without labels."""

from __future__ import annotations

from pydantic import Field, model_validator

from ser_models.objectives import TaptOptions, check_adapter
from seral.options import Options


class TaptRunOptions(Options):
    """How an encoder is adapted before the loop; objectives and defaults in ser_models.objectives."""

    steps: int = Field(default=2000, ge=1)
    """Updates; small pools need few."""
    batch_s: float = Field(default=250.0, gt=0)
    """Seconds of audio in a step, of all workers together."""
    crop_s: float = Field(default=10.0, gt=0)
    """Longer clips are cropped at random."""
    mask: str = "after"
    """Mask preset: after (light) or wav2vec2 (about half of the frames)."""
    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate of Adam; adapters bear about ten times more."""
    warmup_steps: int = Field(default=100, ge=0)
    """Linear warm-up; afterwards flat for 5 % of the steps, then linear to 0."""
    freeze_front: bool = True
    """Keep the convolutional front as it is."""
    adapter: str | None = None
    """Train adapters only, such as `lora`, and merge them at the end: cheap TAPT. None = the encoder itself."""
    clusters: int | None = Field(default=None, ge=2)
    """k-means ids to predict; None = 100 for up to 10 hours of audio, 500 for more. Not for wav2vec 2.0."""
    layer: int | None = Field(default=None, ge=0)
    """Hidden state whose frames are clustered; None = three quarters of the way up."""
    refresh_every: int | None = Field(default=None, ge=1)
    """Steps after which the clusters are made anew from the encoder as it is then, and the head with them; None =
    never."""
    held_out: float = Field(default=0.05, ge=0, lt=1)
    """Share of the training utterances that are only listened to, 1 to 64 of them; 0 = none."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two looks at the held-out utterances."""
    seed: int = 0
    """Seed of the order of clips, of masks and of clusters."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _check(self) -> TaptRunOptions:
        self.settings()
        if self.adapter is not None:
            check_adapter(self.adapter)
        return self

    def settings(self) -> TaptOptions:
        """The same, as the model library takes it."""
        return TaptOptions(
            steps=self.steps,
            seconds_per_batch=self.batch_s,
            crop_s=self.crop_s,
            mask=self.mask,
            learning_rate=self.lr,
            warmup_steps=self.warmup_steps,
            freeze_front=self.freeze_front,
            layer=self.layer,
            **({} if self.clusters is None else {"clusters": self.clusters}),
        )
