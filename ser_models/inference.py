"""Trained models in any program: `Model.load(folder).predict("clip.wav")`, with torch and transformers alone.

A folder is a model of a run (RUN/.../model), or an export of `seral export --format hf`.
"""

# B batch · N clips · S samples · U embedding · C classes · K rated dimensions · O outputs
from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.adapters.store import load_adapter
from ser_models.build import SerModel, load_model
from ser_models.channels import mix_down
from ser_models.checksums import check_checksums
from ser_models.encoders import fingerprint, load_encoder
from ser_models.encoders.encoder import SAMPLE_RATE_HZ

ENCODER = "encoder.json"
MAX_CLIP_S = 30.0
"""Seconds of a clip that are listened to by default, as in trainings."""
CLIPS_AT_ONCE = 8

Floats = NDArray[np.float32]
Clip = str | Path | NDArray[Any] | Tensor
"""An audio file, or a waveform: (S,) in [-1, 1]."""


class Model:
    """A trained model that listens to clips, one or many, each whatever the others are.

    Every method takes an audio file, a waveform (S,), or a list of them, and `sample_rate` in Hz, which is that of
    waveforms; one clip gives one answer, a list gives one for each.
    """

    def __init__(
        self,
        network: SerModel,
        *,
        temperature: float = 1.0,
        abstain_below: float | None = None,
        max_clip_s: float = MAX_CLIP_S,
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.temperature, self.abstain_below = temperature, abstain_below
        self.max_clip_s = max_clip_s

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        encoder: str | Path | None = None,
        device: str = "cpu",
        max_clip_s: float = MAX_CLIP_S,
    ) -> Model:
        """The model of a folder, in evaluation mode.

        `encoder`: name, folder or hub id of its encoder, where that is no longer where it was. `max_clip_s`: only the
        first so many seconds of a clip count. Raises FileNotFoundError where there is no model or no encoder, and
        ValueError where one is damaged, or the encoder is another one.
        """
        if (Path(folder) / ENCODER).is_file():
            return cls(load_trained(folder, encoder).to(device), max_clip_s=max_clip_s)
        if (Path(folder) / "config.json").is_file():
            from ser_models.exports.hf import read_hf

            network, decision = read_hf(folder)
            return cls(network.to(device), max_clip_s=max_clip_s, **decision)
        raise FileNotFoundError(f"no model in {folder}: it holds neither {ENCODER} nor config.json")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the emotions, in the order of the probabilities."""
        return self.network.classes

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the rated dimensions, in the order of `rate`."""
        return self.network.dimensions

    def predict(
        self, clips: Clip | Sequence[Clip], *, sample_rate: int = SAMPLE_RATE_HZ, unsure: str | None = None
    ) -> str | list[str]:
        """The most probable emotion of each clip; with `unsure` that word where it is less probable than
        `abstain_below`, the confidence that the model's card gives an accuracy for.

        Raises ValueError for a model of dimensions alone, and for `unsure` of a model without such a threshold.
        """
        if unsure is not None and self.abstain_below is None:
            raise ValueError("this model has no abstain_below: leave `unsure` out, or set one that you have measured")
        share_NC = np.atleast_2d(self.predict_proba(clips, sample_rate=sample_rate))
        names = [self.classes[label] for label in share_NC.argmax(1)]
        if unsure is not None:
            names = [
                unsure if share < self.abstain_below else name
                for name, share in zip(names, share_NC.max(1), strict=True)
            ]
        return names[0] if _is_one(clips) else names

    def predict_proba(self, clips: Clip | Sequence[Clip], *, sample_rate: int = SAMPLE_RATE_HZ) -> Floats:
        """Probabilities of `classes`, (C,) of one clip or (N, C). Raises ValueError for a model of dimensions alone."""
        if not self.classes:
            raise ValueError(f"this model has no classes, only {', '.join(self.dimensions)}: use rate")
        return self.judge(clips, sample_rate=sample_rate)[0]

    def rate(self, clips: Clip | Sequence[Clip], *, sample_rate: int = SAMPLE_RATE_HZ) -> Floats:
        """Values of `dimensions`, (K,) of one clip or (N, K). Raises ValueError for a model of classes alone."""
        if not self.dimensions:
            raise ValueError(f"this model has no dimensions, only {', '.join(self.classes)}: use predict_proba")
        return self.judge(clips, sample_rate=sample_rate)[1]

    def judge(self, clips: Clip | Sequence[Clip], *, sample_rate: int = SAMPLE_RATE_HZ) -> tuple[Floats, Floats]:
        """Probabilities of `classes`, (C,) or (N, C), and values of `dimensions`, (K,) or (N, K), in one pass."""
        logits_NC, value_NK = self.network.split(self._outputs(clips, sample_rate))
        return _numpy(torch.softmax(logits_NC / self.temperature, -1)), _numpy(value_NK)

    def embed(self, clips: Clip | Sequence[Clip], *, sample_rate: int = SAMPLE_RATE_HZ) -> Floats:
        """Vectors that the head sees, (U,) of one clip or (N, U)."""
        embedding_NU = torch.cat(list(self._embeddings(_list(clips), sample_rate)))
        return _numpy(embedding_NU[0] if _is_one(clips) else embedding_NU)

    def _outputs(self, clips: Clip | Sequence[Clip], sample_rate: int) -> Tensor:
        with torch.inference_mode():
            output_NO = torch.cat([self.network.head(u_BU) for u_BU in self._embeddings(_list(clips), sample_rate)])
        return output_NO[0] if _is_one(clips) else output_NO

    @torch.inference_mode()
    def _embeddings(self, clips: Sequence[Clip], sample_rate: int) -> Iterator[Tensor]:
        if not clips:
            raise ValueError("no clips: expected an audio file, a waveform, or a list of them")
        device = next(self.network.parameters()).device
        for first in range(0, len(clips), CLIPS_AT_ONCE):
            waves = [self._wave(clip, sample_rate) for clip in clips[first : first + CLIPS_AT_ONCE]]
            length_B = torch.tensor([len(wave_S) for wave_S in waves], device=device)
            wave_BS = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)
            encoded = self.network.encoder(wave_BS, length_B)
            mean_LBD, std_LBD = self.network.pool_frames(encoded.hidden_LBTD, encoded.mask_BT, start=0)
            yield self.network.embed_pooled(mean_LBD.transpose(0, 1), std_LBD.transpose(0, 1))

    def _wave(self, clip: Clip, sample_rate: int) -> Tensor:
        wave_S, rate_hz = read_audio(clip) if isinstance(clip, str | Path) else (np.asarray(clip), sample_rate)
        if wave_S.ndim != 1 or not len(wave_S) or not np.issubdtype(wave_S.dtype, np.floating):
            raise ValueError(f"expected a waveform (S,) of floats in [-1, 1], got {wave_S.dtype} {wave_S.shape}")
        wave_S = resample(wave_S.astype(np.float32), rate_hz)[: int(self.max_clip_s * SAMPLE_RATE_HZ)]
        short = self.network.encoder.minimal_samples - len(wave_S)
        return torch.from_numpy(np.pad(wave_S, (0, max(0, short))))


def load_trained(folder: str | Path, encoder: str | Path | None = None, *, check: bool = True) -> SerModel:
    """The model of a run's folder with its encoder and adapters, in evaluation mode.

    `encoder` stands in for the one that the folder names; `check`: it has to be that one, and the files undamaged.
    Raises FileNotFoundError and ValueError as `Model.load`.
    """
    source = Path(folder)
    if check:
        check_checksums(source)
    facts = json.loads((source / ENCODER).read_text(encoding="utf-8"))
    network = load_encoder(encoder or find_encoder(str(folder), facts["encoder"]))
    trained_on = facts["fingerprint"].partition("-")[0]  # of the features; behind it is how they were made
    if check and encoder is not None and (actual := fingerprint(network)) != trained_on:
        raise ValueError(f"{encoder} is another encoder ({actual}) than {folder} was trained on ({trained_on})")
    if (source / "adapter").is_dir():
        load_adapter(network, source / "adapter")
    else:
        network.requires_grad_(False)
    return load_model(source, network).eval()


def find_encoder(folder: str, name: str) -> str:
    """The encoder that a model folder names, which may be by its path from the folder."""
    beside = os.path.normpath(os.path.join(folder, name))
    return beside if name.startswith("../") and os.path.isdir(beside) else name


def read_audio(file: str | Path) -> tuple[Floats, int]:
    """Samples (S,) of an audio file, of several channels that with the voice or their mean, and their rate in Hz."""
    try:
        import soundfile
    except ImportError as error:
        raise ImportError("audio files are read by soundfile: pip install soundfile, or give waveforms") from error
    frames_SC, rate_hz = soundfile.read(file, dtype="float32", always_2d=True)
    return mix_down(frames_SC, rate_hz), rate_hz


def resample(wave_S: Floats, rate_hz: int) -> Floats:
    """A waveform at 16 kHz, by soxr; at 16 kHz it comes back untouched."""
    if rate_hz == SAMPLE_RATE_HZ:
        return wave_S
    try:
        import soxr
    except ImportError as error:
        raise ImportError(
            f"audio at {rate_hz} Hz is brought to {SAMPLE_RATE_HZ} Hz by soxr: pip install soxr, or give waveforms at "
            f"{SAMPLE_RATE_HZ} Hz"
        ) from error
    return np.asarray(soxr.resample(wave_S, rate_hz, SAMPLE_RATE_HZ, quality="HQ"), dtype=np.float32)


def _is_one(clips: Clip | Sequence[Clip]) -> bool:
    return isinstance(clips, str | Path | np.ndarray | Tensor)


def _list(clips: Clip | Sequence[Clip]) -> list[Clip]:
    return [clips] if isinstance(clips, str | Path | np.ndarray | Tensor) else list(clips)


def _numpy(values: Tensor) -> Floats:
    array: Floats = values.float().cpu().numpy()
    return array
