"""How a model is trained on labels: the adapter, the head, the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Literal

from pydantic import Field, model_validator

from ser_models.adapters import ADAPTERS, parse_adapters
from seral.options import Options
from seral.training.augmented import AugmentOptions


class HeadOptions(Options):
    """The head on frozen features: layer weights and a linear classifier, see ser_models.fitting."""

    l2: float = Field(default=0.03, ge=0)
    """Ridge penalty on the classifier's weights. More makes a less overconfident start for adapters."""
    std_gain: float = Field(default=0.4, ge=0)
    """Weight of the pooled standard deviations beside the means; 0 = means only."""
    text_gain: float = Field(default=0.3, gt=0)
    """Weight of the transcripts' vectors beside the audio, where both are read."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout before the classifier, while adapters train and in stochastic scoring passes."""
    hidden: int = Field(default=0, ge=0)
    """Width of a hidden tanh layer between embedding and outputs; 0 = none. Not with classes and dimensions at once."""
    layers: Literal["sum", "last"] = "sum"
    """sum: learned weights of all hidden states, or mainly one where dev clearly says so. last: the last one alone."""


class FinetuneOptions(Options):
    """How a round's model is trained."""

    adapter: str = "frozen"
    """frozen: a head on cached features. Anything else trains inside the encoder: lora, dora, adalora, ia3, prefix,
    bottleneck, gate, bitfit, last_block, full, or several: lora+bottleneck+gate (ser_models.adapters.ADAPTERS)."""
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
    patience: int = Field(default=5, ge=1)
    """Epochs without a lower dev loss after which training ends."""
    lr: float | None = Field(default=None, gt=0)
    """Peak learning rate of the adapters (AdamW, no weight decay, short warm-up, then linear to 0); None = what suits
    them, of several the lowest (`lr` in ser_models.adapters.ADAPTERS)."""
    head_lr: float = Field(default=5e-4, gt=0)
    """Peak learning rate of layer weights and head while adapters train."""
    batch_size: int = Field(default=16, ge=1)
    """Utterances in a step, over all workers."""
    dimension_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on dimensions beside that on classes."""
    dimension_loss: Literal["ccc", "rmse"] = "ccc"
    """1 - CCC, or the root mean square error in units of the ratings."""
    mixup: float = Field(default=0.5, ge=0)
    """Alpha of manifold mixup while adapters train; 0 = off. A head that fits its labels perfectly, as on few labels it
    does, would otherwise leave the adapters nothing to learn from but noise."""
    augment: AugmentOptions | None = None
    """Learn also from worsened copies of the labelled clips: noise, rooms, codecs, narrow bands. None = from the clips
    alone. Their features are computed when a clip is labelled, not for the whole pool."""
    time_mask_prob: float = Field(default=0.08, ge=0, lt=1)
    """Share of frames hidden from training in spans (SpecAugment's time masks)."""
    time_mask_frames: int = Field(default=15, ge=1)
    """Length of a span in frames."""

    @model_validator(mode="after")
    def _check_adapters(self) -> FinetuneOptions:
        if "layer_sum" in self.adapters() and self.head.layers == "last":
            raise ValueError("the adapter layer_sum and head.layers=last contradict each other")
        if self.modalities == "text" and not self.frozen:
            raise ValueError(f"text alone has no use for the audio adapter {self.adapter!r}: set adapter=frozen")
        if self.modalities == "text" and self.augment is not None:
            raise ValueError("text alone has no sound to worsen: leave augment out")
        return self

    @property
    def frozen(self) -> bool:
        """Whether nothing in the encoder is trained."""
        return set(self.adapters()) <= {"frozen", "layer_sum"}

    @property
    def times_heard(self) -> int:
        """How often a labelled clip is heard in an epoch: itself and its copies."""
        return 1 if self.augment is None else 1 + self.augment.copies

    @property
    def head_only(self) -> FinetuneOptions:
        """The same without adapters: the head on frozen features."""
        return self.model_copy(update={"adapter": "frozen", "settings": {}})

    @property
    def peak_lr(self) -> float:
        """The adapters' learning rate, chosen or fitting."""
        return self.lr or min(ADAPTERS[kind].lr for kind in self.adapters())

    def adapters(self) -> dict[str, Any]:
        """Kinds of adapters and their options, as the model library takes them. Raises ValueError for unknown ones."""
        made = parse_adapters(self.adapter)
        if unused := sorted(set(self.settings) - set(made)):
            raise ValueError(f"settings of {unused[0]!r}, which is not among the adapters {self.adapter!r}")
        return {kind: self._options_of(kind, type(default)) for kind, default in made.items()}

    def _options_of(self, kind: str, model: type[Any]) -> Any:
        known = [field.name for field in fields(model)]
        given = {"top_layers": self.top_layers} if "top_layers" in known else {}
        given |= self.settings.get(kind, {})
        if unknown := sorted(set(given) - set(known)):
            raise ValueError(f"unknown option {unknown[0]!r} of {kind}; known here: {', '.join(known) or 'none'}")
        return model(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


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
            "anchored heads are linear and hear layers by their anchors: leave modalities, head.hidden and head.layers "
            f"as they are, got {training.modalities}, {head.hidden} and {head.layers}"
        )
