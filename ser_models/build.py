"""The SER model: a speech encoder, layer pooling and a head, runnable from audio, cached frames or cached statistics.

One set of parameters behind three entrances, so that a head fitted on cached pooled features (`fitting.fit_head`,
`fitting.fit_dimensions`) drops into the full model unchanged: "linear probe, then fine-tune", Kumar et al. 2022, arXiv
2202.10054.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, Unpack

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ser_models.audio_text import AudioTextPool, TextInput, make_pool
from ser_models.defaults import DROPOUT, MEAN_STD, STD_GAIN
from ser_models.encoders import SpeechEncoder
from ser_models.heads import Head, LayerPool
from ser_models.pooling import StatePooling, masked_mean_std

# B batch · S samples · T frames · L hidden states (encoder layers + 1) · D features · U embedding
# E features of a transcript · O outputs: C class logits, then K rated dimensions (valence, arousal, dominance)

WEIGHTS = "head.safetensors"
DESCRIPTION = "model.json"


class SerModel(nn.Module):
    """Encoder + LayerPool + Head; every entrance returns the logits of `classes`, then the `dimensions`, (B, C + K).

    Either may be empty: a classifier, a model of dimensions, or both on one embedding (multi-task).
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        pool: LayerPool,
        head: Head,
        *,
        classes: Sequence[str],
        dimensions: Sequence[str] = (),
    ) -> None:
        super().__init__()
        states = (encoder.num_layers + 1, encoder.width)
        if tuple(pool.centre_mean.shape) != states:
            raise ValueError(f"this pool is for {tuple(pool.centre_mean.shape)} hidden states x features, not {states}")
        if head.output.out_features != len(classes) + len(dimensions):
            raise ValueError(
                f"the head has {head.output.out_features} outputs for {len(classes)} classes: {list(classes)} "
                f"and {len(dimensions)} dimensions: {list(dimensions)}"
            )
        self.encoder = encoder
        self.pool = pool
        self.head = head
        self.classes = tuple(classes)
        self.dimensions = tuple(dimensions)
        self.pooling: StatePooling | None = None

    def forward(self, wave_BS: Tensor, length_B: Tensor, text_BE: Tensor | None = None) -> Tensor:
        """Outputs for 16 kHz waveforms, zero padded to the longest, with lengths in samples.

        `text_BE`: the vectors of the transcripts, for a model that reads; NaN, or None for all, where there is none.
        """
        output = self.encoder(wave_BS, length_B)
        mean_LBD, std_LBD = self.pool_frames(output.hidden_LBTD, output.mask_BT, start=0)
        return self.forward_pooled(mean_LBD.transpose(0, 1), std_LBD.transpose(0, 1), text_BE)

    def pool_frames(self, hidden_LBTD: Tensor, mask_BT: Tensor, *, start: int) -> tuple[Tensor, Tensor]:
        """Statistics of the hidden states from `start` on, (L - start, B, T, D) -> two (L - start, B, D)."""
        if self.pooling is None:
            return masked_mean_std(hidden_LBTD, mask_BT)
        mean_LBD, std_LBD = self.pooling(hidden_LBTD, mask_BT, start=start)
        return mean_LBD, std_LBD

    def statistics_from(
        self,
        hidden_BTD: Tensor,
        mask_BT: Tensor,
        *,
        start: int,
        below_mean_LBD: Tensor,
        below_std_LBD: Tensor,
        length_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Statistics of every hidden state, mean and std (B, L, D), from cached frames of the hidden state `start`.

        With `length_B`, lengths in samples, audio (B, S, 1) stands in the place of the frames, and `start` is 0. The
        statistics of the states 0..start-1 are given: only layers above `start` are run, which saves the frozen
        bottom of the encoder.
        """
        if len(below_mean_LBD) != start or len(below_std_LBD) != start:
            raise ValueError(
                f"frames of hidden state {start} need the statistics of the {start} states below, "
                f"got {len(below_mean_LBD)} means and {len(below_std_LBD)} standard deviations"
            )
        if length_B is not None:
            hidden_BTD, _ = self.encoder.stem(hidden_BTD[..., 0], length_B)
        mean_LBD, std_LBD = self.pool_frames(self.encoder.upper(hidden_BTD, mask_BT, start=start), mask_BT, start=start)
        every_mean_LBD = torch.cat([below_mean_LBD.to(mean_LBD), mean_LBD])
        every_std_LBD = torch.cat([below_std_LBD.to(std_LBD), std_LBD])
        return every_mean_LBD.transpose(0, 1), every_std_LBD.transpose(0, 1)

    def forward_pooled(self, mean_BLD: Tensor, std_BLD: Tensor, text_BE: Tensor | None = None) -> Tensor:
        """Outputs from the cached pooled statistics of every hidden state."""
        output: Tensor = self.head(self.embed_pooled(mean_BLD, std_BLD, text_BE))
        return output

    def embed_pooled(self, mean_BLD: Tensor, std_BLD: Tensor, text_BE: Tensor | None = None) -> Tensor:
        """The clip embedding u that the head sees, (B, L, D) twice -> (B, U)."""
        embedding: Tensor = self.pool(mean_BLD, std_BLD, text_BE)
        return embedding

    def split(self, output_BO: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs of an entrance, as class logits (B, C) and dimensions (B, K)."""
        return output_BO[..., : len(self.classes)], output_BO[..., len(self.classes) :]


class HeadShape(TypedDict, total=False):
    """Options of a model about its pooled statistics and its head."""

    std_gain: float
    """Factor on the standardised pooled standard deviations beside the means; 0 = means only, an embedding D wide."""
    standardised: bool
    """Whether statistics are standardised before states are summed."""
    hidden: int
    """Width of a hidden layer, from fixed random weights; 0 = a linear head."""
    activation: str
    """Function of the hidden layer, a name in `heads.ACTIVATIONS`."""
    dropout: float
    """Probability of dropout before each linear layer in training."""


def build_model(
    encoder: SpeechEncoder,
    classes: Sequence[str] = (),
    *,
    dimensions: Sequence[str] = (),
    text: TextInput | None = None,
    **shape: Unpack[HeadShape],
) -> SerModel:
    """A model with a fresh head on an encoder, linear on standardised statistics unless `HeadShape` says otherwise.

    `text`: it also reads what is said, late fusion of audio and text (ser_models.audio_text).
    """
    gain, standardised = shape.get("std_gain", STD_GAIN), shape.get("standardised", True)
    pool = make_pool(encoder.num_layers + 1, encoder.width, std_gain=gain, standardised=standardised, text=text)
    head = Head(
        pool.out_width,
        len(classes) + len(dimensions),
        hidden=shape.get("hidden", 0),
        activation=shape.get("activation", "tanh"),
        dropout=shape.get("dropout", DROPOUT),
        generator=torch.Generator().manual_seed(0),
    )
    return SerModel(encoder, pool, head, classes=classes, dimensions=dimensions)


def use_pooling(model: SerModel, kind: str, *, start: int) -> None:
    """Let a model pool the frames of the hidden states from `start` on in another way, a name in `pooling.POOLINGS`.

    The states below keep their mean and standard deviation, which is all that a feature cache holds of them.
    """
    states = model.encoder.num_layers + 1
    model.pooling = None if kind == MEAN_STD else StatePooling(kind, model.encoder.width, range(start, states))


def adopt_head(model: SerModel, pool: LayerPool, head: Head) -> None:
    """Copy a fitted pool and head (a `fitting.FitResult`'s) into a model; dropout stays the model's own."""
    if pool.std_gain != model.pool.std_gain:
        raise ValueError(
            f"the fitted pool has std_gain {pool.std_gain}, the model {model.pool.std_gain}: build both alike"
        )
    model.pool.load_state_dict(pool.state_dict())
    model.head.load_state_dict(head.state_dict())


def save_model(model: SerModel, folder: str | Path) -> None:
    """Write pool and head as safetensors and what they fit as JSON, the JSON last: where it exists, all exists.

    The encoder and its adapters are saved by their own functions, they may be shared by many heads.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    tensors = {f"pool.{name}": value for name, value in model.pool.state_dict().items()}
    tensors |= {f"head.{name}": value for name, value in model.head.state_dict().items()}
    if model.pooling is not None:
        tensors |= {f"pooling.{name}": value for name, value in model.pooling.state_dict().items()}
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, target / WEIGHTS)
    partial = target / f"{DESCRIPTION}.partial"
    partial.write_text(json.dumps(describe_model(model), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, target / DESCRIPTION)


def load_model(folder: str | Path, encoder: SpeechEncoder) -> SerModel:
    """The model saved in a folder, on an encoder of the same family and size (adapters already attached)."""
    source = Path(folder)
    if not (source / DESCRIPTION).is_file():
        raise ValueError(f"no complete model in {source}: {DESCRIPTION} is missing")
    description = json.loads((source / DESCRIPTION).read_text(encoding="utf-8"))
    actual = _encoder_sizes(encoder)
    if description["encoder"] != actual:
        raise ValueError(f"the model in {source} was trained on {description['encoder']}, this encoder is {actual}")
    # Models saved before there were dimensions, or text, do not mention them.
    dimensions = description.get("dimensions", ())
    text = TextInput(**description["text"]) if description.get("text") else None
    model = build_model(encoder, description["classes"], dimensions=dimensions, text=text, **description["options"])
    if "pooling" in description:
        use_pooling(model, **description["pooling"])
    tensors = load_file(source / WEIGHTS)
    parts: dict[str, nn.Module] = {"pool": model.pool, "head": model.head}
    if model.pooling is not None:
        parts["pooling"] = model.pooling
    for name, part in parts.items():
        prefix = f"{name}."
        part.load_state_dict({key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)})
    return model


def describe_model(model: SerModel) -> dict[str, object]:
    head, pooling = model.head, model.pooling
    hidden = 0 if head.hidden is None else head.hidden.out_features
    options: HeadShape = {"std_gain": model.pool.std_gain, "hidden": hidden, "dropout": head.dropout.p}
    # Left out where they are as usual, as in models of releases that did not know them.
    if not model.pool.standardised:
        options["standardised"] = False
    if head.activation != "tanh":
        options["activation"] = head.activation
    description: dict[str, object] = {
        "classes": list(model.classes),
        "dimensions": list(model.dimensions),
        "encoder": _encoder_sizes(model.encoder),
        "text": asdict(model.pool.text) if isinstance(model.pool, AudioTextPool) else None,
        "options": options,
    }
    return description if pooling is None else description | {"pooling": pooling.describe()}


def _encoder_sizes(encoder: SpeechEncoder) -> dict[str, object]:
    return {"family": encoder.family, "num_layers": encoder.num_layers, "width": encoder.width}
