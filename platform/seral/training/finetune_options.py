"""Options of a training on labels: the adapter, the head, the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import ceil
from typing import Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from ser_models.defaults import CORAL_PROJECTION, CORAL_WEIGHT, DROPOUT, GROUP_SIZE, MEAN_STD, STD_GAIN, TEXT_GAIN
from seral.audio.options import CorruptionOptions
from seral.options import Options
from seral.training.recipes import by_recipe


class HeadOptions(Options):
    """Options of the head: layer weights and a linear classifier, see ser_models.fitting."""

    l2: float | None = Field(default=None, ge=0)
    """Penalty on the distance of weights and intercepts to their prior, beside the mean loss per clip. None: for
    classes 10 / labels, zero is worth ten labels, and the head of a source as many as it was held to zero for
    (ser_models.transfer); for dimensions 0.03. More makes a less overconfident start for adapters."""
    std_gain: float = Field(default=STD_GAIN, ge=0)
    """Weight of the pooled standard deviations beside the means; 0 = means only."""
    text_gain: float = Field(default=TEXT_GAIN, gt=0)
    """Weight of the transcripts' vectors beside the audio, where both are read."""
    normalise: Literal["none", "corpus", "speaker", "auto"] = "auto"
    """speaker: take the mean of each speaker's unlabelled clips away, which is what tells speakers apart and not
    emotions, unless speakers show one emotion each; corpus: that of each corpus. auto: where the labels are told better
    so by a head that has not heard their speakers; before there are labels, where a source says that speakers, or
    corpora, show several emotions. Adapters train on features less the means of the frozen encoder's. Not with augment,
    another pooling or the adapter wap, nor where adapters train on a source: auto is none there."""
    dropout: float = Field(default=DROPOUT, ge=0, lt=1)
    """Dropout before the classifier, while adapters train and in stochastic scoring passes."""
    hidden: int = Field(default=0, ge=0)
    """Width of a hidden layer between embedding and outputs; 0 = none. Not with classes and dimensions at once, unless
    the head starts at random."""
    activation: Literal["tanh", "none"] = "tanh"
    """Function of the hidden layer. none: a projection, which is the same before the mean over frames and after it."""
    layers: Literal["sum", "last"] = "sum"
    """sum: weights of all hidden states, around the middle of the network until labels say otherwise. last: the last
    one alone."""
    standardise: bool = True
    """Standardise the pooled statistics of each hidden state by the training audio; false: sum them as they are."""
    start: Literal["fitted", "random"] = "fitted"
    """fitted: adapters begin with a head that is fitted to the frozen features. random: with random weights and equal
    layer weights, which learn by steps from the first on, at `head_lr`."""


class AugmentOptions(CorruptionOptions):
    """Options of the corrupted copies of labelled clips that a model learns from; a copy is encoded once and kept."""

    copies: int = Field(default=1, ge=1)
    """Copies of each labelled clip, beside the clip itself."""
    chance: float = Field(default=0.5, gt=0, le=1)
    """Chance of each of the effects for a copy; one of them at least is heard."""


class FinetuneOptions(Options):
    """Options of the training of a model."""

    recipe: Literal["careful", "paper", "after"] = "careful"
    """Defaults of the other options by name (seral.training.recipes); what is set beside it wins. careful: those that
    are listed here, for few labels. paper: adapters as in Lashkarashvili et al. 2024. after: the whole encoder as in Li
    et al. 2023, AFTER."""
    adapter: str = "frozen"
    """frozen: a head on cached features. Any other name in ser_models.adapters.ADAPTERS trains inside the encoder:
    lora, or several, such as lora+bottleneck+gate."""
    settings: dict[str, dict[str, Any]] = Field(default={})
    """Options of single kinds, such as {lora: {rank: 4}}; ser_models.adapters has a class of them for every kind."""
    top_layers: int | None = Field(default=None, ge=1)
    """Adapters in the top so many layers only, so that what is below is cached; None = in all."""
    modalities: Literal["audio", "text", "both"] = "audio"
    """both: late fusion of audio and of the transcripts' vectors, for which the run needs a `text_encoder`; clips
    without transcript are judged by their audio. text: the words alone, a head without adapters."""
    head: HeadOptions = HeadOptions()
    epochs: int = Field(default=8, ge=1)
    """Epochs of adapter training at most."""
    steps: int | None = Field(default=None, ge=1)
    """Optimiser steps of adapter training at most, in the place of epochs, so that few clips are learnt from as long as
    many; None = count epochs."""
    patience: int | None = Field(default=5, ge=1)
    """Epochs without a lower dev loss after which training ends; None = it goes on to its end. Either way the model
    with the lowest dev loss counts."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of the adapters (AdamW, no weight decay); None = what suits them, of several the lowest (`lr`
    in ser_models.adapters.ADAPTERS)."""
    head_lr: float = Field(default=5e-4, gt=0)
    """Peak learning rate of layer weights and head while adapters train."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the training over which learning rates rise to their peak."""
    decay: Literal["linear", "none"] = "linear"
    """After the warm-up rates fall linearly to 0, or stay at their peak."""
    batch_size: int = Field(default=16, ge=1)
    """Utterances in a step, over all workers."""
    balanced: bool = False
    """Draw the clips of an epoch with replacement so that every class comes as often, while adapters train. With
    `class_weights` rare classes count twice over: set these to none."""
    loss: str = "cross_entropy"
    """Loss of classes, of the head and of adapters, a name in ser_models.losses.LOSSES: cross_entropy, or focal, which
    turns to clips that are still wrong."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Weights of classes in that loss: balanced, N / n_c, or none. Dev is judged by balanced classes either way."""
    logit_adjustment: float = Field(default=0.0, ge=0)
    """Factor on the logarithms of the classes' shares that are added to the logits in training and not in a test, so
    that rare classes are favoured there (Menon et al. 2021, who take 1; set class_weights to none then); 0 = off."""
    pooling: str = MEAN_STD
    """Pooling of frames to a clip, a name in ser_models.pooling.POOLINGS: mean_std, relu_mean, or attentive, which
    learns a weight of each frame. Others than mean_std need adapters: they apply to the hidden states that training
    computes from frames, and those below keep the mean and standard deviation of the feature cache."""
    dimension_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on dimensions beside that on classes."""
    dimension_loss: Literal["ccc", "rmse"] = "ccc"
    """1 - CCC, of a batch and the clips before it, 64 in all; or the root mean square error in units of the ratings."""
    mixup: float = Field(default=0.5, ge=0)
    """Alpha of manifold mixup while adapters train; 0 = off. A head that fits its labels perfectly, as on few labels it
    does, would otherwise leave the adapters nothing to learn from but noise."""
    augment: AugmentOptions | None = None
    """Learn also from corrupted copies of the labelled clips: noise, rooms, codecs, narrow bands. None = from the clips
    alone. Their features are computed when a clip is labelled, not for the whole pool."""
    time_mask_prob: float = Field(default=0.08, ge=0, lt=1)
    """Share of frames hidden from training in spans (SpecAugment's time masks)."""
    time_mask_frames: int = Field(default=15, ge=1)
    """Length of a span in frames."""

    @model_validator(mode="wrap")
    @classmethod
    def _by_recipe(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return handler(by_recipe(values) if isinstance(values, Mapping) else values)

    @field_validator("loss")
    @classmethod
    def _loss_in_table(cls, name: str) -> str:
        from ser_models.losses import LOSSES

        if name not in LOSSES:
            raise ValueError(f"no loss {name!r}; known: {', '.join(LOSSES)}")
        return name

    @field_validator("pooling")
    @classmethod
    def _pooling_in_table(cls, name: str) -> str:
        from ser_models.pooling import POOLINGS

        if name not in POOLINGS:
            raise ValueError(f"no pooling {name!r}; known: {', '.join(POOLINGS)}")
        return name

    @model_validator(mode="after")
    def _check_adapters(self) -> FinetuneOptions:
        if not self.model_fields_set:
            return self  # listing the defaults does not load torch
        if "layer_sum" in self.adapters() and self.head.layers == "last":
            raise ValueError("the adapter layer_sum and head.layers=last contradict each other")
        if self.modalities == "text" and not self.frozen:
            raise ValueError(f"text alone has no use for the audio adapter {self.adapter!r}: set adapter=frozen")
        if self.pooling != MEAN_STD and self.frozen:
            raise ValueError(
                f"pooling={self.pooling} needs frames, and a head on a frozen encoder is fitted to pooled features: "
                f"choose an adapter, such as adapter=lora, or pooling={MEAN_STD}"
            )
        if self.head.start == "random" and self.frozen:
            raise ValueError(
                "head.start=random learns by steps with an adapter, and a head on a frozen encoder is fitted: choose "
                "an adapter, such as adapter=lora, or recipe=careful"
            )
        if self.head.start == "random" and self.head.normalise not in ("none", "auto"):
            raise ValueError(
                f"head.normalise={self.head.normalise} is chosen for fitted heads: set head.normalise=none"
            )
        if self.modalities == "text" and self.augment is not None:
            raise ValueError("text alone has no sound to corrupt: leave augment out")
        return self

    @property
    def frozen(self) -> bool:
        """Whether nothing in the encoder is trained."""
        from ser_models.adapters import ADAPTERS

        return not any(ADAPTERS[kind].trains for kind in self.adapters())

    @property
    def can_normalise(self) -> bool:
        """Whether means of the frozen encoder's features may be taken away: of what the model pools, clip by clip."""
        plain = self.augment is None and self.pooling == MEAN_STD and self.head.start == "fitted"
        return plain and "wap" not in self.adapters()

    @property
    def normalise(self) -> str:
        """The normalisation to make ready for: with auto none where there can be none."""
        return "none" if self.head.normalise == "auto" and not self.can_normalise else self.head.normalise

    @property
    def views_per_clip(self) -> int:
        """Number of views of a labelled clip in an epoch: the clip and its copies."""
        return 1 if self.augment is None else 1 + self.augment.copies

    @property
    def head_only(self) -> FinetuneOptions:
        """Options of the head on frozen features alone, without adapters; the usual head in place of a random one."""
        head = self.head if self.head.start == "fitted" else HeadOptions(normalise=self.head.normalise)
        return self.model_copy(update={"adapter": "frozen", "settings": {}, "pooling": MEAN_STD, "head": head})

    @property
    def summary(self) -> str:
        """The training in words: adapters, recipe, length, batch and learning rate."""
        if self.frozen:
            return "a head on the frozen encoder"
        length = f"{self.epochs} epochs" if self.steps is None else f"{self.steps:,} steps"
        rate = f"{self.batch_size} clips a step at {self.peak_lr:g}"
        return f"{self.adapter} by the recipe {self.recipe}, {length} at most, {rate}"

    def epochs_on(self, clips: int) -> int:
        """Epochs of a training on so many clips at most; of one that counts steps the last may be cut short."""
        return self.epochs if self.steps is None else ceil(self.steps / ceil(max(clips, 1) / self.batch_size))

    @property
    def peak_lr(self) -> float:
        """The adapters' learning rate, chosen or fitting."""
        from ser_models.adapters import ADAPTERS

        return self.lr or min(ADAPTERS[kind].lr for kind in self.adapters())

    def adapters(self) -> dict[str, Any]:
        """Kinds of adapters and their options, as the model library takes them. Raises ValueError for unknown ones."""
        from ser_models.adapters.composition import parse_adapters

        made = parse_adapters(self.adapter)
        if unused := sorted(set(self.settings) - set(made)):
            raise ValueError(f"settings of {unused[0]!r}, which is not among the adapters {self.adapter!r}")
        return {kind: self._options_of(kind, type(default)) for kind, default in made.items()}

    def _options_of(self, kind: str, model: type[Any]) -> Any:
        names = [field.name for field in fields(model)]
        values = {"top_layers": self.top_layers} if "top_layers" in names else {}
        values |= self.settings.get(kind, {})
        if unknown := sorted(set(values) - set(names)):
            raise ValueError(f"unknown option {unknown[0]!r} of {kind}; known here: {', '.join(names) or 'none'}")
        return model(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def check_text(text_encoder: str | None, trainings: Sequence[FinetuneOptions]) -> None:
    """Raise ValueError unless there is a text encoder exactly when a training reads."""
    reads = [training.modalities for training in trainings if training.modalities != "audio"]
    if reads and text_encoder is None:
        raise ValueError(f"modalities={reads[0]} needs a text_encoder for the transcripts")
    if text_encoder is not None and not reads:
        raise ValueError("a text_encoder is given and nothing reads: set finetune.modalities to both or text")


def check_anchored(training: FinetuneOptions) -> None:
    """Raise ValueError for what an anchored head cannot be: it is linear, on audio, on the layers of its anchors."""
    head = training.head
    if training.modalities != "audio" or head.hidden or head.layers != "sum":
        raise ValueError(
            "anchored heads are linear and weigh the layers of their anchors: leave modalities, head.hidden and "
            f"head.layers as they are, got {training.modalities}, {head.hidden} and {head.layers}"
        )
    if not head.standardise or head.start != "fitted":
        raise ValueError("anchored heads are fitted to standardised features: leave head.standardise and head.start")


class AnchorOptions(Options):
    """Options of holding two languages together while a model learns: CORAL over some hidden states."""

    anchors: str = "all"
    """Hidden states that are held together: last, single (the most alike), group (the best window), top_k, all."""
    size: int = Field(default=GROUP_SIZE, ge=1)
    """Layers of `group` and `top_k`."""
    similarity: str = "coral"
    """The label-free measure of how alike a layer is: coral or mmd."""
    weight: float = Field(default=CORAL_WEIGHT, ge=0)
    """λ, the weight of CORAL beside the cross-entropy."""
    projection: int = Field(default=CORAL_PROJECTION, ge=1)
    """Directions whose covariances are brought together."""
    clips: int = Field(default=2000, ge=2)
    """Unlabelled clips of the target that are heard while adapters train, at most: their frames are in memory."""
    queue: int = Field(default=1024, ge=2)
    """Clips of each language that covariances are made of while adapters train: those of the batch and past ones."""

    @field_validator("anchors")
    @classmethod
    def _named_in_table(cls, name: str) -> str:
        from ser_models.similarity import ANCHOR_SETS

        if name not in ANCHOR_SETS:
            raise ValueError(f"no anchor set {name!r}; known: {', '.join(ANCHOR_SETS)}")
        return name

    @field_validator("similarity")
    @classmethod
    def _label_free(cls, name: str) -> str:
        return label_free(name)


def label_free(similarity: str) -> str:
    """A measure that needs no labels of the target. Raises ValueError for any other."""
    from ser_models.similarity import SIMILARITIES

    unlabelled = [kind for kind, entry in SIMILARITIES.items() if not entry.of_labels]
    if similarity not in unlabelled:
        choice = " or ".join(unlabelled)
        raise ValueError(f"anchors are found without labels of the target, by {choice}; got {similarity!r}")
    return similarity
