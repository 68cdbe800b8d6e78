"""Voices as numbers: embeddings of windows of speech in which a speaker is near himself and far from others.

`mfcc` is there always: mean and standard deviation of cepstra, a voice's spectrum and how it moves. `ge2e` is a network
that was trained to tell speakers apart (Wan et al. 2018, Generalized end-to-end loss, arXiv 1710.10467), by the weights
that Resemblyzer's wheel brings along (Apache-2.0, 16 MB, no download at run time); it confuses half as many
(docs/results/speakers.md). Of the package nothing is imported.
"""

# N clips, the windows · S samples at 16 kHz · T frames of 10 ms · M mel bands · D features
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import nn

from ser_models.encoders.mel import HOP_SAMPLES, WINDOW_SAMPLES, mel_filters
from seral.audio.voice import FRAME_SAMPLES, Samples
from seral.errors import OptionError

Floats = NDArray[np.float32]
Embed = Callable[[Floats], Floats]
"""Windows of one length -> embeddings, (N, S) -> (N, D)."""

WINDOW_FRAMES, HOP_FRAMES = 160, 50
"""Windows of 1.6 s, which GE2E was trained on, one every half second."""
BANDS, CEPSTRA = 40, 24
LEVEL_DB = -30.0
"""Level of the windows that GE2E hears, dBFS; cepstra leave the level out."""
BATCH = 64
GE2E_PACKAGE, GE2E_WIDTH, GE2E_LAYERS = "resemblyzer", 256, 3


def windows(runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """First and last frame, exclusive, of the windows over stretches of speech; a shorter stretch is a window."""
    spans = list[tuple[int, int]]()
    for start, end in runs:
        hops = max(0, -(-(end - start - WINDOW_FRAMES) // HOP_FRAMES))
        starts = np.linspace(start, max(start, end - WINDOW_FRAMES), hops + 1).astype(int).tolist()
        spans += [(first, min(first + WINDOW_FRAMES, end)) for first in starts]
    return spans


def embed_windows(blocks: Iterator[Samples], spans: Sequence[tuple[int, int]], embed: Embed) -> Floats:
    """Embeddings of some windows of a recording that comes in blocks, (N, D); a short window is repeated to its length.

    No more than a block and a window of audio are in memory.
    """
    parts, ahead, pending = list[Floats](), 0, list[Samples]()
    buffer, begin = np.empty(0, np.float32), 0
    for block in blocks:
        buffer = np.concatenate([buffer, block])
        while ahead < len(spans) and spans[ahead][1] * FRAME_SAMPLES <= begin + len(buffer):
            start, end = (frame * FRAME_SAMPLES - begin for frame in spans[ahead])
            pending.append(np.resize(buffer[start:end], WINDOW_FRAMES * FRAME_SAMPLES))
            ahead += 1
            if len(pending) == BATCH:
                parts.append(embed(np.stack(pending)))
                pending = []
        done = min(len(buffer), (spans[ahead][0] * FRAME_SAMPLES if ahead < len(spans) else begin) - begin)
        buffer, begin = buffer[max(0, done) :], begin + max(0, done)
    if pending:
        parts.append(embed(np.stack(pending)))
    return np.concatenate(parts) if parts else np.empty((0, 0), np.float32)


def mfcc() -> Embed:
    """Mean and standard deviation over a window of cepstra 1 to 23, 46 numbers."""
    filters_FM = mel_filters(BANDS).numpy()

    def embed(wave_NS: Floats) -> Floats:
        level_NTM = np.log(_mel(wave_NS, filters_FM) + 1e-7)
        cepstra_NTD = dct(level_NTM, axis=2, norm="ortho")[:, :, 1:CEPSTRA]
        return np.concatenate([cepstra_NTD.mean(axis=1), cepstra_NTD.std(axis=1)], axis=1).astype(np.float32)

    return embed


class _Ge2e(nn.Module):
    """The network of GE2E, (N, T, M) -> (N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, GE2E_WIDTH, GE2E_LAYERS, batch_first=True)
        self.linear = nn.Linear(GE2E_WIDTH, GE2E_WIDTH)

    def forward(self, mel_NTM: torch.Tensor) -> torch.Tensor:
        _, (state_LND, _) = self.lstm(mel_NTM)
        embedding_ND: torch.Tensor = torch.relu(self.linear(state_LND[-1]))
        return nn.functional.normalize(embedding_ND, dim=1)


def ge2e() -> Embed:
    """The speaker encoder GE2E, 256 numbers of length 1. Raises OptionError where its weights are not installed."""
    spec = find_spec(GE2E_PACKAGE)
    file = None if spec is None or spec.origin is None else Path(spec.origin).parent / "pretrained.pt"
    if file is None or not file.is_file():
        raise OptionError(
            f"voices=ge2e takes the weights in the wheel of {GE2E_PACKAGE}: pip install --no-deps {GE2E_PACKAGE} "
            "(16 MB; nothing else of it is used), or take voices=mfcc"
        )
    model = _Ge2e()
    weights = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    model.eval()
    filters_FM = mel_filters(BANDS).numpy()

    def embed(wave_NS: Floats) -> Floats:
        power_N1 = np.square(wave_NS).mean(axis=1, keepdims=True)
        even_NS = wave_NS * np.sqrt(10 ** (LEVEL_DB / 10) / np.maximum(power_N1, 1e-10)).astype(np.float32)
        with torch.inference_mode():
            embedding_ND: Floats = model(torch.from_numpy(_mel(even_NS, filters_FM))).numpy()
        return embedding_ND

    return embed


VOICES: dict[str, Callable[[], Embed]] = {"mfcc": mfcc, "ge2e": ge2e}
"""Embeddings by name."""


def _mel(wave_NS: Floats, filters_FM: Floats) -> Floats:
    """Power in mel bands every 10 ms, (N, S) -> (N, T, M)."""
    half = WINDOW_SAMPLES // 2
    padded_NS = np.pad(wave_NS, ((0, 0), (half, half)))
    frame_NTS = np.lib.stride_tricks.sliding_window_view(padded_NS, WINDOW_SAMPLES, axis=1)[:, :-1:HOP_SAMPLES]
    window = np.hanning(WINDOW_SAMPLES + 1)[:-1].astype(np.float32)
    mel_NTM: Floats = (np.abs(np.fft.rfft(frame_NTS * window, axis=2)) ** 2).astype(np.float32) @ filters_FM
    return mel_NTM
