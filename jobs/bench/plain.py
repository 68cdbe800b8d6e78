"""The plain loops seral's throughput is measured against: what anybody would write first, without Ray.

Each runs in a fresh process with one thread, at the priority Ray gives its workers, and is timed inside: the start of
the process, its imports and the loading of the encoder are not counted.
"""

# S samples · B batch · L hidden states (encoder layers + 1) · D features
from __future__ import annotations

import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import soundfile as sf
import soxr
import torch

from ser_models.encoders import load_encoder
from ser_models.pooling import masked_mean_std
from seral.audio.decode import BadAudio
from seral.corpora.reading.utterance import Utterance
from seral.features.batches import length_sorted_batches, pad_clips
from seral.features.options import FeatureOptions
from seral.pool.ingest import import_file
from seral.pool.shards import open_pool
from seral.schema import SAMPLE_RATE

PLAIN_BATCH_S = 80
"""Seconds of audio in a batch of the plain loop, padding included."""


@dataclass(kw_only=True)
class Timing:
    """One run of a plain loop: seconds by the clock, and seconds its process had a CPU."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


def run_alone(loop: Callable[..., Timing], *arguments: Any, niceness: int = 0, processes: int = 1) -> list[Timing]:
    """Run a loop in fresh processes, all at the same time, and return what each of them took."""
    spawn = multiprocessing.get_context("spawn")
    # Read by the processes when they start; Ray's workers are started with the same.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with spawn.Pool(processes, initializer=_settle, initargs=(niceness,)) as pool:
            return pool.starmap(loop, [arguments] * processes, chunksize=1)
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _settle(niceness: int) -> None:
    os.nice(max(0, niceness - os.nice(0)))
    torch.set_num_threads(1)


@contextmanager
def _clock() -> Iterator[Timing]:
    timing = Timing()
    wall, cpu = time.perf_counter(), time.process_time()
    yield timing
    timing.wall_s, timing.cpu_s = time.perf_counter() - wall, time.process_time() - cpu


def plain_import(clips: Sequence[Utterance], encode: bool) -> Timing:
    """Decode, mix down and resample every file; encode it to FLAC in memory when `encode`."""
    with _clock() as timing:
        for clip in clips:
            try:
                with sf.SoundFile(clip.audio) as sound:
                    rate = sound.samplerate
                    sound.seek(round((clip.start_s or 0.0) * rate))
                    frames = -1 if clip.end_s is None else round(clip.end_s * rate) - sound.tell()
                    samples = sound.read(frames, dtype="float32", always_2d=True).mean(axis=1)
            except (OSError, sf.LibsndfileError):
                continue  # the importer quarantines it
            if rate != SAMPLE_RATE:
                samples = soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")
            if encode:
                sf.write(io.BytesIO(), samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return timing


def measured_import(clips: Sequence[Utterance], voice: bool) -> Timing:
    """Do to every file what an import does (decoding, measures, hash, FLAC) in a loop without Ray, writing nothing."""
    with _clock() as timing:
        for clip in clips:
            try:
                import_file(clip, voice=voice)
            except BadAudio:
                continue
    return timing


def plain_scoring(pool: str, encoder: str, options: FeatureOptions) -> Timing:
    """Decode, encode and pool every clip in length-sorted batches; keep the features in memory."""
    opened, model = open_pool(pool), load_encoder(encoder)
    audio = [opened.read(shard, ["audio"])["audio"].to_pylist() for shard in opened.shards]
    limit = int(options.max_clip_s * SAMPLE_RATE)
    with _clock() as timing, torch.inference_mode():
        features = []
        for shard in audio:
            clips = [sf.read(io.BytesIO(data), dtype="float32")[0][:limit] for data in shard]
            for batch in length_sorted_batches([len(clip) for clip in clips], PLAIN_BATCH_S * SAMPLE_RATE):
                out = model(*pad_clips([clips[index] for index in batch]))
                mean_LBD, std_LBD = masked_mean_std(out.hidden_LBTD, out.mask_BT)
                features.append((mean_LBD.half().numpy(), std_LBD.half().numpy()))
    return timing
