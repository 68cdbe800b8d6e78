"""Options of pretraining without labels."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from pydantic import Field, model_validator

from seral.cluster import ClusterOptions
from seral.options import Options
from seral.pool.split_options import SplitOptions


class TaptRunOptions(Options):
    """Options of adapting an encoder, or an adapter on it, to speech before the loop."""

    objective: str | None = None
    """A name in ser_models.objectives.OBJECTIVES: contrastive, masked_clusters or local_attributes; None = the first
    that fits the encoder: contrastive for wav2vec 2.0, masked_clusters for all others. local_attributes trains the
    adapter `wap` and leaves the encoder as it is: fine-tuning then starts from that adapter."""
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
        if not self.model_fields_set:
            return self  # listing the defaults does not load torch
        from ser_models.objectives import OBJECTIVES, check_adapter

        choices = [kind for kind, objective in OBJECTIVES.items() if objective.reads != "teacher"]
        if self.objective is not None and (
            self.objective not in OBJECTIVES or OBJECTIVES[self.objective].reads == "teacher"
        ):
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
        from ser_models.objectives import OBJECTIVES

        return None if self.objective is None else OBJECTIVES[self.objective].adapter

    def objective_options(self, kind: str) -> Any:
        """Options of an objective as the model library takes them: what is chosen here, and its settings."""
        from ser_models.objectives import OBJECTIVES

        model = OBJECTIVES[kind].options
        own = {field.name for field in fields(model)}
        chosen = {name: value for name in own if (value := getattr(self, name, None)) is not None}
        settings = self.settings.get(kind, {})
        if beside := sorted(set(settings) & set(type(self).model_fields)):
            raise ValueError(f"{beside[0]} is an option of its own: set {beside[0]}, not settings.{kind}.{beside[0]}")
        return _made(kind, model, chosen | settings)

    def adapter_options(self, kind: str) -> Any:
        """Options of the adapter that the objective trains."""
        from ser_models.adapters.composition import parse_adapters

        return _made(kind, type(parse_adapters(kind)[kind]), self.settings.get(kind, {}))


def _made(kind: str, model: type[Any], values: dict[str, Any]) -> Any:
    own = [field.name for field in fields(model)]
    if unknown := sorted(set(values) - set(own)):
        raise ValueError(f"unknown option {unknown[0]!r} of {kind}; known here: {', '.join(own)}")
    return model(**values)


class TaptJobOptions(Options):
    """Options of `seral pretrain`: the encoder, and the audio it is adapted to."""

    pool: str
    """The pool; only its audio is read."""
    run: str
    """Folder of the result: the encoder is in `encoder/`."""
    encoder: str = "seral-tiny"
    """A hub id, a folder, or an embedded encoder."""
    corpora: list[str] | None = None
    """Only these corpora of the pool; None = all."""
    split: SplitOptions = SplitOptions()
    """Folds of the chosen corpora, where a fold is named."""
    fold: int | None = None
    """Adapt to the training part of this fold only; None = everything, dev and test of any later split included. A loop
    that leaves out classes may deal the speakers of k-fold otherwise: give it `tapt` instead."""
    tapt: TaptRunOptions = TaptRunOptions()
    cluster: ClusterOptions = ClusterOptions()
    """Without `train_workers`, progress is shown here; with one, in the worker's log."""


class DistillationDataOptions(Options):
    """Options of the views that a student learns on, and of the teacher's states that it predicts."""

    states: tuple[int, ...] | None = None
    """Hidden states of the teacher that the student predicts; None = at thirds of its depth, 4, 8 and 12 of 12."""
    batch_s: float = Field(default=24.0, gt=0)
    """Seconds of audio in a step of all workers together, padding included."""
    crop_s: float = Field(default=4.0, gt=0)
    """Longer clips give a random piece of this length to each view."""
    views: int | None = Field(default=3, ge=1)
    """Augmented views of each clip. The teacher's states on them are kept in memory: 140 MB an hour, view and state of
    384 features. None = always a new view and nothing kept, for large pools."""
    speed: float = Field(default=0.12, ge=0, lt=1)
    """Speed and pitch change together by up to this share."""
    gain_db: tuple[float, float] = (-12.0, 6.0)
    """Lowest and highest change of level, dB."""
    noisy: float = Field(default=0.5, ge=0, le=1)
    """Share of the clips in a batch that get noise, where there is a pool of noises."""
    snr_db: tuple[float, float] = (5.0, 30.0)
    """Lowest and highest signal-to-noise ratio of those, dB."""
    reverberant: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips in a batch that are heard in a room."""
    rt60_s: tuple[float, float] = (0.2, 0.8)
    """Shortest and longest time in which its echo falls by 60 dB."""
    drr_db: tuple[float, float] = (0.0, 10.0)
    """By how much the voice is louder than its echo, lowest and highest."""
    coded: float = Field(default=0.0, ge=0, le=1)
    """Share of the clips in a batch that come through a codec, any of seral.audio.effects.CODECS."""


class DistilOptions(Options):
    """Options of a distillation: teacher, student, speech and schedule."""

    teacher: str
    """A hub id or a folder of an encoder."""
    pools: tuple[str, ...]
    """Pools of speech; of each, one shard is in memory at a time. Whoever is to test the student must not be in them:
    name the other `corpora`."""
    run: str
    """Folder of the run: the encoder is in `encoder/`, with fp16 weights."""
    layers: int = Field(default=2, ge=1)
    """Depth of the student, which starts as the bottom of its teacher."""
    student: str | None = None
    """Instead: an encoder that learns from its own weights, such as `seral-tiny-untrained`."""
    corpora: tuple[str, ...] = ()
    """Only utterances of these corpora; empty = all."""
    noise: str | None = None
    """A pool of noises to mix in, held in memory; None = no noise."""
    data: DistillationDataOptions = DistillationDataOptions()
    steps: int = Field(default=2600, ge=1)
    """Updates."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW. A student that starts as its teacher's bottom bears less than an untrained one."""
    warmup_steps: int = Field(default=150, ge=1)
    """Updates of linear warm-up; the rate is capped by a line to 0 at the last step."""
    statistics_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the mean and standard deviation of each clip."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Updates between two savings of the state to go on from."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch; more than one, and a run is no longer repeated to the last bit."""
    seed: int = 0
    """Seed of the order of clips and of what is done to them."""
    cluster: ClusterOptions = ClusterOptions()
    """Without `train_workers`, progress is shown here; with one, in the worker's log."""
