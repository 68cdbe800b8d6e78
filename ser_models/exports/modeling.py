"""The SER model as a class of transformers: a configuration that builds it, a forward pass that `pipeline` calls.

Input of every family is the waveform, also for Whisper, whose spectrogram is made inside: padded clips then give what
each gives alone, which the networks' own classes do not do.
"""

# B batch · S samples · E features of a transcript · C classes · K rated dimensions · O outputs
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from ser_models.audio_text import TextInput
from ser_models.build import build_model, use_pooling
from ser_models.encoders.encoder import SpeechEncoder


class SerConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]  # transformers' classes are partly unannotated
    """Everything that a model is built from; the code for its encoder and adapters lies beside it."""

    model_type = "seral"

    def __init__(
        self,
        encoder: Mapping[str, Any] | None = None,
        head: Mapping[str, Any] | None = None,
        adapters: Mapping[str, Any] | None = None,
        dimensions: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self.encoder = dict(encoder or {})
        """Configuration of the network, as its own class reads it."""
        self.head = dict(head or {})
        """`options` of `build_model`, `text` and `pooling` where there are any, whether clips are standardised
        (`normalise`), the `temperature` that class logits are divided by, and the probability below which a class is
        better not named (`abstain_below`, None = not known)."""
        self.adapters = dict(adapters or {})
        """Kind -> options of the adapters that cannot be folded into the weights."""
        self.dimensions = list(dimensions)
        super().__init__(**settings)


class SerForAudioClassification(PreTrainedModel):  # type: ignore[no-untyped-call]
    """A speech encoder, statistics of its hidden states over time, and a head.

    `logits` (B, C) are those of the classes, or the dimensions (B, K) of a model without classes; with both, the
    dimensions are `hidden_states[0]`.
    """

    config_class = SerConfig
    main_input_name = "input_values"
    network_class: ClassVar[Any]
    """transformers' class of the encoder network."""
    encoder_class: ClassVar[Any]
    """The SpeechEncoder around it."""
    adapter_classes: ClassVar[dict[str, tuple[type[Any], Callable[..., SpeechEncoder]]]] = {}
    """Kind -> its options and the function that attaches it, in the order in which they go onto the encoder."""

    def __init__(self, config: SerConfig) -> None:
        super().__init__(config)
        # transformers builds without memory (meta), which random starts cannot; every weight is read afterwards.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            network = self.network_class(self.network_class.config_class(**config.encoder))
            encoder = self.encoder_class(network, normalise=config.head["normalise"])
            for kind, (options, attach) in self.adapter_classes.items():
                attach(encoder, options(**config.adapters[kind]), seed=0)
            classes = [] if config.problem_type == "regression" else list((config.id2label or {}).values())
            text = TextInput(**config.head["text"]) if config.head.get("text") else None
            self.model = build_model(
                encoder, classes, dimensions=config.dimensions, text=text, **config.head["options"]
            )
            if config.head.get("pooling"):
                use_pooling(self.model, **config.head["pooling"])
        keep_buffers(self)
        self.post_init()  # type: ignore[no-untyped-call]
        self.train(False)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        text: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits for waveforms at 16 kHz, (B, S), zero padded where `attention_mask` (B, S) is 0.

        `text`: vectors of the transcripts (B, E), of a model that reads; NaN, or None for all, where there is none.
        """
        length_B = torch.full((len(input_values),), input_values.shape[1], device=input_values.device)
        if attention_mask is not None:
            length_B = attention_mask.sum(1)
            input_values = input_values * attention_mask
        logits_BC, value_BK = self.model.split(self.model(input_values, length_B, text))
        if not self.model.classes:
            loss = None if labels is None else nn.functional.mse_loss(value_BK, labels)
            return SequenceClassifierOutput(loss=loss, logits=value_BK)
        logits_BC = logits_BC / self.config.head["temperature"]
        loss = None if labels is None else nn.functional.cross_entropy(logits_BC, labels)
        values = (value_BK,) if self.model.dimensions else None
        return SequenceClassifierOutput(loss=loss, logits=logits_BC, hidden_states=values)


def keep_buffers(model: nn.Module) -> None:
    """Let every buffer be saved and loaded: transformers leaves those that are not persistent without their values."""
    for module in model.modules():
        module._non_persistent_buffers_set.clear()
