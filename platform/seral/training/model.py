"""A trained model on storage.

MODEL/model.json head.safetensors   layer statistics, layer weights, classifier: see ser_models.build
MODEL/adapter/                      in the peft layout, where there are adapters
MODEL/encoder.json                  the encoder's name and fingerprint, and from which hidden state on it was trained
MODEL/SHA256SUMS                    the checksums of all that
"""

# N rows · B batch · T frames · C classes · K rated dimensions · L hidden states
from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.adapters.parameters import adapter_parameters
from ser_models.adapters.store import save_adapter
from ser_models.audio_text import AudioTextPool
from ser_models.build import SerModel, adopt_head, build_model
from ser_models.build import load_model as load_head
from ser_models.build import save_model as save_head
from ser_models.checksums import check_checksums, write_checksums
from ser_models.encoders import SpeechEncoder
from ser_models.fitting import FitResult
from ser_models.inference import find_encoder, load_trained
from seral import storage
from seral.errors import DamagedError
from seral.features.batches import Frames, pad_frames
from seral.features.precomputed import load_frozen
from seral.features.speakers import SpeakerShifts
from seral.features.store import FeatureStore
from seral.task.examples import Utterances
from seral.task.run import CONFIG

Float = NDArray[np.float32]


def model_of_head(
    fitted: FitResult, store: FeatureStore, classes: Sequence[str], dropout: float, dimensions: Sequence[str] = ()
) -> SerModel:
    """A head fitted on frozen features as a whole model."""
    hidden = 0 if fitted.head.hidden is None else fitted.head.hidden.out_features
    text = fitted.pool.text if isinstance(fitted.pool, AudioTextPool) else None
    model = build_model(
        frozen_encoder(store.encoder),
        classes,
        dimensions=dimensions,
        text=text,
        std_gain=fitted.pool.std_gain,
        standardised=fitted.pool.standardised,
        hidden=hidden,
        activation=fitted.head.activation,
        dropout=dropout,
    )
    adopt_head(model, fitted.pool, fitted.head)
    return model


def replace_head(folder: str, fitted: FitResult, store: FeatureStore, target: str) -> None:
    """Write the model of a folder to another one, with a head fitted on what its adapters make of the frames."""
    model, layer = load_model(folder), frozen_up_to(folder)
    adopt_head(model, fitted.pool, fitted.head)
    save_model(target, model, store, layer=layer)


def save_model(folder: str, model: SerModel, store: FeatureStore, *, layer: int, normalise: str = "none") -> None:
    """Write a model; `layer` is the hidden state up to which its encoder is the frozen one.

    `normalise`: what is taken from features before the model reads them, as in `HeadOptions`.
    """
    with tempfile.TemporaryDirectory(prefix="seral-model-") as local:
        save_head(model, local)
        if adapter_parameters(model.encoder):
            save_adapter(model.encoder, Path(local) / "adapter")
        facts = {
            "encoder": _reference(folder, store.encoder),
            "fingerprint": store.fingerprint,
            "layer": layer,
            "normalise": normalise,
        }
        if isinstance(model.pool, AudioTextPool) and store.text is not None:
            facts["text_encoder"] = store.text.encoder
        storage.write_json(Path(local) / "encoder.json", facts)
        write_checksums(local)
        storage.copy_folder(local, folder)


def _reference(folder: str, encoder: str) -> str:
    """The name of an encoder as a model holds it: one that its run made by the path from the model, so that the run
    may be moved.
    """
    runs = (parent for parent in Path(folder).parents if (parent / CONFIG).is_file())
    inside = any(Path(encoder).is_relative_to(run) for run in runs)
    return os.path.relpath(encoder, folder) if inside else encoder


def load_fitted(folder: str, encoder: str | None = None) -> SerModel:
    """Pool and head of a saved model on its frozen encoder, or on one of the same family; loaded once a process."""
    with checked_copy(folder) as local:
        return load_head(local, frozen_encoder(encoder or read_encoder(folder))).eval()


def load_model(folder: str) -> SerModel:
    """The whole model, encoder and adapters included, in evaluation mode."""
    with checked_copy(folder) as local:
        return load_trained(local, read_encoder(folder), check=False)


@contextmanager
def checked_copy(folder: str) -> Iterator[Path]:
    """A saved model as local files. Raises DamagedError where they are not those that were written."""
    with storage.local_copy(folder) as local:
        try:
            check_checksums(local)
        except ValueError as error:
            raise DamagedError(f"{error}. It cannot be used; train it again: remove {folder}") from None
        yield local


def read_outputs(folder: str) -> tuple[list[str], list[str]]:
    """The classes of a saved model, in the order of its logits, and its dimensions, which come after them."""
    description = storage.read_json(storage.join(folder, "model.json"))
    return list(description["classes"]), list(description["dimensions"])


def read_encoder(folder: str) -> str:
    """The name of the encoder of a saved model: embedded, a hub id, or the address of its folder."""
    name: str = storage.read_json(storage.join(folder, "encoder.json"))["encoder"]
    return find_encoder(folder, name)


def read_text_encoder(folder: str) -> str | None:
    """The text encoder of a saved model that reads, else None."""
    name: str | None = storage.read_json(storage.join(folder, "encoder.json")).get("text_encoder")
    return name


@lru_cache(maxsize=1)
def frozen_encoder(name: str) -> SpeechEncoder:
    """An encoder nobody trains, loaded once a process."""
    return load_frozen(name).requires_grad_(False)


def read_normalisation(folder: str) -> str:
    """The normalisation of the features that a saved model reads, as in `HeadOptions`."""
    name: str = storage.read_json(storage.join(folder, "encoder.json")).get("normalise", "none")
    return name


def frozen_up_to(folder: str) -> int:
    """The hidden state up to which a saved model's encoder is the frozen one."""
    return int(storage.read_json(storage.join(folder, "encoder.json"))["layer"])


@dataclass(frozen=True, kw_only=True)
class FrameBatch:
    """Cached frames of a batch, and the pooled statistics of the hidden states below them, (l, B, D)."""

    hidden_BTD: Tensor
    mask_BT: Tensor
    below_mean_LBD: Tensor
    below_std_LBD: Tensor
    text_BE: Tensor | None
    """Vectors of the transcripts, where they are read."""
    from_source_B: Tensor
    """Whether a clip is of another language than the one that is learned."""
    length_B: Tensor | None = None
    """Lengths in samples, where `hidden_BTD` is audio (B, S, 1)."""
    shift_BLD: tuple[Tensor, Tensor] | None = None
    """Shifts that are taken from the pooled means and standard deviations of every state; None = nothing."""


def frame_batch(
    ids: Sequence[str],
    units: Utterances,
    frames: Frames,
    layer: int,
    device: torch.device,
    source_B: NDArray[np.bool_],
    shifts: SpeakerShifts | None = None,
) -> FrameBatch:
    """Cached frames of some utterances as a batch on a device."""
    rows = [units.row_of[name] for name in ids]
    hidden_BTD, mask_BT = pad_frames([frames[name] for name in ids])
    below = [torch.from_numpy(a[rows, :layer]).transpose(0, 1).to(device) for a in (units.mean_NLD, units.std_NLD)]
    text_BE, shift_BLD = units.texts(rows), None
    if shifts is not None:
        mean_BLD, std_BLD = (torch.from_numpy(part).to(device) for part in shifts.of(ids))
        shift_BLD = mean_BLD, std_BLD
    return FrameBatch(
        hidden_BTD=hidden_BTD.to(device),
        mask_BT=mask_BT.to(device),
        below_mean_LBD=below[0],
        below_std_LBD=below[1],
        text_BE=None if text_BE is None else text_BE.to(device),
        from_source_B=torch.from_numpy(source_B).to(device),
        shift_BLD=shift_BLD,
    )
