"""Options of pretraining without labels."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import Field, model_validator

from ser_models.adapters.composition import parse_adapters
from ser_models.objectives import OBJECTIVES, check_adapter
from seral.options import Options


class TaptRunOptions(Options):
    """Options of adapting an encoder, or an adapter on it, to speech before the loop."""

    objective: str | None = Field(
        default=None,
        description=f"One of {', '.join(name for name, kind in OBJECTIVES.own.items() if kind.reads != 'teacher')}; "
        "None = the first that fits the encoder: contrastive for wav2vec 2.0, masked_clusters for all others. "
        "local_attributes trains the adapter `wap` and leaves the encoder as it is: fine-tuning then starts from that "
        "adapter.",
    )
    settings: dict[str, dict[str, Any]] = Field(default={})
    """Further options of the objective, and of the adapter `wap`, by name, such as {local_attributes: {alpha: 0}, wap:
    {layers: 2}}; ser_models has a class of them for each."""
    steps: int = Field(default=2000, ge=1)
    """Updates; small pools need few."""
    batch_s: float = Field(default=250.0, gt=0)
    """Seconds of audio in a step, of all workers together."""
    crop_s: float = Field(default=10.0, gt=0)
    """Longer clips are cropped at random."""
    mask: str = "after"
    """Mask preset: after (light) or wav2vec2 (about half of the frames). Not for local_attributes, whose settings have
    mask_prob and mask_frames."""
    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate of Adam; adapters bear about ten times more."""
    warmup_steps: int = Field(default=100, ge=0)
    """Linear warm-up; afterwards flat for 5 % of the steps, then linear to 0. local_attributes: a tenth of the steps,
    then linear to 0."""
    freeze_front: bool = True
    """Keep the convolutional front as it is."""
    adapter: str | None = None
    """Train adapters only, such as `lora`, and merge them at the end: cheap TAPT. None = the encoder itself, or `wap`
    where the objective is local_attributes."""
    clusters: int | None = Field(default=None, ge=2)
    """k-means ids to predict; None = 100 for up to 10 hours of audio, 500 for more, 256 local attributes. Not for
    contrastive."""
    layer: int | None = Field(default=None, ge=0)
    """Hidden state whose frames are clustered; None = three quarters of the way up. Only for masked_clusters."""
    refresh_every: int | None = Field(default=None, ge=1)
    """Steps after which the clusters are made anew from the encoder as it is then, and the head with them; None =
    never, local attributes once an epoch."""
    held_out: float = Field(default=0.05, ge=0, lt=1)
    """Share of the training utterances that are only listened to, 1 to 64 of them; 0 = none. Not for
    local_attributes."""
    eval_every: int = Field(default=100, ge=1)
    """Steps between two looks at the held-out utterances, and for signs of a collapse."""
    seed: int = 0
    """Seed of the order of clips, of masks and of clusters."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints."""

    @model_validator(mode="after")
    def _check(self) -> TaptRunOptions:
        choices = [kind for kind, objective in OBJECTIVES.items() if objective.reads != "teacher"]
        if self.objective is not None and self.objective not in choices:
            teaches = " (seral distil makes small encoders)" if self.objective in OBJECTIVES else ""
            raise ValueError(f"no objective {self.objective!r} for pretraining{teaches}; known: {', '.join(choices)}")
        # Without a choice it is an objective of masked prediction, whose options are the same.
        kind = self.objective or choices[0]
        self.objective_options(kind)
        fixed = OBJECTIVES[kind].adapter
        unknown = set(self.settings) - ({kind, fixed} if self.objective else set(choices[:2]))
        if unknown:
            raise ValueError(f"settings of {min(unknown)!r}, which is neither the objective nor its adapter")
        if fixed is not None:
            if self.adapter not in (None, fixed):
                raise ValueError(f"{kind} trains the adapter {fixed}, got {self.adapter!r}")
            self.adapter_options(fixed)
        elif self.adapter is not None:
            check_adapter(self.adapter)
        return self

    @property
    def trained_adapter(self) -> str | None:
        """The adapter that the objective trains on an encoder which stays as it is; None = the encoder changes."""
        return None if self.objective is None else OBJECTIVES[self.objective].adapter

    def objective_options(self, kind: str) -> Any:
        """Options of an objective as the model library takes them: what is chosen here, and its settings."""
        model = OBJECTIVES[kind].options
        own = {field.name for field in fields(model)}
        chosen = {name: value for name in own if (value := getattr(self, name, None)) is not None}
        settings = self.settings.get(kind, {})
        if beside := sorted(set(settings) & set(type(self).model_fields)):
            raise ValueError(f"{beside[0]} is an option of its own: set {beside[0]}, not settings.{kind}.{beside[0]}")
        return _made(kind, model, chosen | settings)

    def adapter_options(self, kind: str) -> Any:
        """Options of the adapter that the objective trains."""
        return _made(kind, type(parse_adapters(kind)[kind]), self.settings.get(kind, {}))


def _made(kind: str, model: type[Any], values: dict[str, Any]) -> Any:
    own = [field.name for field in fields(model)]
    if unknown := sorted(set(values) - set(own)):
        raise ValueError(f"unknown option {unknown[0]!r} of {kind}; known here: {', '.join(own)}")
    return model(**values)
