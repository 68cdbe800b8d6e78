"""Disk, memory and hours that a run of the loop will take, told before it starts, from unit costs measured here.

Disk is right within a tenth or two. Hours and memory are there to tell an hour from a week, and a run that fits from
one that cannot. The hours of TAPT are not in it: its steps are chosen, not needed.
"""

# L hidden states · D features · B batch
from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from pathlib import Path

import numpy as np
import ray
import torch

from ser_models.encoders import PrecomputedEncoder, SpeechEncoder
from ser_models.heads import LayerPool
from seral.cluster import cpu_count, encoder_actors
from seral.errors import StateError
from seral.features.audio import missing_shards, open_features
from seral.features.batches import clip_shapes, pad_clips
from seral.features.precomputed import load_frozen
from seral.loop.disk import RUN_BYTES, selection_bytes, trajectory_bytes
from seral.loop.options import LoopOptions
from seral.loop.rounds import Arm, scores_pool
from seral.pool.shards import Pool
from seral.pool.splits import Fold
from seral.schema import SAMPLE_RATE
from seral.training.finetune import model_bytes, start_layer
from seral.training.waves import AUDIO

PROCESS_BYTES = 0.8e9
"""A process with torch, transformers and Ray, before it has any data."""
ROW_COPIES = 3.5
"""Times the features of what is labelled, dev and test are in memory while a head is fitted, in single precision."""
CLIP_BYTES = 400
"""Memory for a clip of the pool beside its embedding: ids, rows, probabilities."""
HEAD_PASSES = 15
"""A head is fitted in the time of so many looks at the features of its clips."""
BACKWARD = 3
"""A step of training takes as long as so many forward passes."""
READING = 2.5
"""Features of a clip are read, weighed and written in the time of so many weighings."""
ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Task:
    """Figures of a run: its pool, its folds, its encoder."""

    clips: int
    """Of the pool."""
    seconds: float
    """Mean length of a clip, as far as it is encoded."""
    train: int
    """Clips of the largest training part."""
    judged: int
    """Clips of dev and test, at most in a fold."""
    ever_judged: int
    """Clips that are in dev or test of any fold."""
    missing: float
    """Share of the pool that has no features yet."""
    row_bytes: int
    """Pooled features of a clip."""
    frame_bytes: float
    """Frames of one hidden state of a clip."""
    encoder_bytes: int
    above: float | None
    """Share of the encoder above the hidden state that adapters are trained from; None = nothing is."""
    embedding: int
    """Numbers of a clip that strategies read."""
    keeps_frames: bool
    """Whether the frames of the whole pool are kept."""
    folds: int
    shards: int
    """Of the pool, as far as they are read."""
    width: int
    """Numbers of a clip in one hidden state."""
    head_bytes: int
    model_bytes: int
    """A model on storage: its head alone, and with the adapters."""


@dataclass(frozen=True, kw_only=True)
class UnitCosts:
    """Seconds of one core."""

    encode_s: float
    """The whole encoder, for a second of audio."""
    weigh_s: float
    """The pooled features of a clip, from the cache to an embedding."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Disk, memory and hours of a run."""

    feature_bytes: float
    """Disk for features and frames that are missing."""
    run_bytes: float
    """Disk for the run folder."""
    driver_bytes: float
    """Memory of the process that runs the command."""
    trajectory_bytes: float
    """Memory of a trajectory's process."""
    at_once: int
    """Trajectories side by side."""
    hours: Mapping[str, float]
    """By what they are spent on."""

    def sentences(self) -> list[str]:
        """Lines for people."""
        spent = ", ".join(f"{name} {duration(value)}" for name, value in self.hours.items() if value >= 1 / 60)
        return [
            f"disk: {size(self.feature_bytes)} of features to come, {size(self.run_bytes)} in the run folder",
            f"memory: about {size(self.driver_bytes)} here, {size(self.trajectory_bytes)} a trajectory, "
            f"{self.at_once} at a time",
            f"time: about {duration(sum(self.hours.values()))}" + (f": {spent}" if spent else ""),
        ]


def task_of(options: LoopOptions, pool: Pool, folds: Collection[Fold]) -> Task:
    """The figures of a run: those of its pool, its folds and its encoder."""
    encoder, layer = load_frozen(options.encoder), start_layer(options.encoder, options.finetune)
    store = open_features(
        pool,
        options.encoder,
        encoder,
        uri=options.feature_cache,
        options=options.features,
        on=options.cluster,
        corpora=options.corpora_read,
    )
    clip_s = np.asarray(pool.column("duration_s", store.shards), np.float64)
    duration_s = np.minimum(clip_s, options.features.max_clip_s)
    seconds = float(duration_s.mean()) if len(duration_s) else 0.0
    frame_bytes = 2 * encoder.width * encoder.frame_rate_hz * seconds
    keeps_frames = layer not in (None, AUDIO) and len(duration_s) * frame_bytes <= 1e9 * options.frames_gb
    absent = missing_shards(store, layer if keeps_frames else None)
    rows = sum(pool.manifest["shards"][shard]["rows"] for shard in absent)
    outputs = len(options.classes) + len(options.dimensions)
    return Task(
        clips=len(duration_s),
        seconds=seconds,
        train=max(len(fold.train) for fold in folds),
        judged=max(len(fold.dev) + len(fold.test) for fold in folds),
        ever_judged=len({name for fold in folds for name in (*fold.dev, *fold.test)}),
        missing=rows / max(1, len(duration_s)),
        row_bytes=4 * (encoder.num_layers + 1) * encoder.width,
        frame_bytes=frame_bytes,
        encoder_bytes=sum(tensor.nbytes for tensor in encoder.state_dict().values()),
        above=None if layer is None else 1 - max(layer, 0) / encoder.num_layers,
        embedding=options.embedding_width(max(len(fold.train) for fold in folds), store.embedding_width),
        keeps_frames=keeps_frames,
        folds=len(folds),
        shards=len(store.shards),
        width=encoder.width,
        head_bytes=model_bytes(encoder, options.finetune.head_only, outputs),
        model_bytes=model_bytes(encoder, options.finetune, outputs),  # the last of all: it adapts the encoder
    )


def estimate(options: LoopOptions, task: Task, arms: Sequence[Arm], costs: UnitCosts | None) -> Estimate:
    """Disk, memory and hours that trajectories of these arms take on the cluster that this process is connected to.

    Without unit costs no hours are told.
    """
    labels = [_labels(arm, task) for arm in arms]
    most, on = max(steps[-1] for steps in labels), options.cluster
    frames = 0.0
    if task.above is not None:
        frames = task.missing * task.clips if task.keeps_frames else task.ever_judged + sum(s[-1] for s in labels)
    scored = [_scored(arm, options, task) for arm in arms]
    models = [1 + options.ensemble_for(arm.strategy) for arm in arms]
    looks = sum(map(mul, scored, models)) / on.parts
    memory = PROCESS_BYTES + 3 * task.encoder_bytes + ROW_COPIES * 2 * task.row_bytes * (most + task.judged)
    memory += 0 if task.above is None else task.frame_bytes * (most + task.judged)
    memory += task.train * (CLIP_BYTES + 2 * task.embedding) / on.parts
    at_once = max(1, min(len(arms), cpu_count() // on.parts, int(largest_memory() // memory)))
    return Estimate(
        feature_bytes=task.missing * task.clips * task.row_bytes + frames * task.frame_bytes,
        run_bytes=_run_bytes(options, task, labels, scored, at_once),
        driver_bytes=PROCESS_BYTES + task.encoder_bytes + CLIP_BYTES * task.clips,
        trajectory_bytes=memory,
        at_once=at_once,
        hours={} if costs is None else _hours(options, task, labels, models, looks / at_once, at_once, costs),
    )


def _run_bytes(
    options: LoopOptions, task: Task, labels: Sequence[Sequence[float]], scored: Sequence[int], at_once: int
) -> float:
    """Bytes of a run folder when it is largest: what strategies read goes again, a round after it was written."""
    outputs = len(options.classes) + len(options.dimensions)
    rounds = sum(
        trajectory_bytes(
            steps,
            weights=[task.head_bytes if options.proxy else task.model_bytes] * (len(steps) - 1) + [task.model_bytes],
            judged=task.judged,
            scored=clips,
            shards=task.shards,
            outputs=outputs,
        )
        for steps, clips in zip(labels, scored, strict=True)
    )
    shared = task.folds * selection_bytes(task.train, min(task.width, task.embedding))
    shared += 0 if options.tapt is None else task.folds * task.encoder_bytes
    return RUN_BYTES + shared + at_once * selection_bytes(task.train, task.embedding) + rounds


def _hours(
    options: LoopOptions,
    task: Task,
    labels: Sequence[Sequence[float]],
    models: Sequence[int],
    looks: float,
    at_once: int,
    costs: UnitCosts,
) -> dict[str, float]:
    """Hours by what they are spent on: `models` are trained in each round of an arm, and `looks` are at clips of the
    pool, one after the other."""
    look_s, trained = costs.weigh_s, sum(count * sum(steps) for steps, count in zip(labels, models, strict=True))
    training_s = trained * costs.weigh_s * HEAD_PASSES
    if task.above is not None:
        if not options.proxy:
            look_s += task.seconds * costs.encode_s * (task.above if task.keeps_frames else 1)
        sizes = [size for steps in labels for size in (steps[-1:] if options.proxy else steps)]
        passes = sum(size * options.finetune.epochs_on(round(size)) for size in sizes)
        training_s += passes * BACKWARD * task.above * task.seconds * costs.encode_s
    encoding_s = task.missing * task.clips * task.seconds * costs.encode_s / encoder_actors(options.cluster)
    return {
        "features": encoding_s / 3600,
        "scoring": looks * look_s / 3600,
        "training": training_s / at_once / 3600,
    }


def measure(options: LoopOptions, task: Task) -> UnitCosts:
    """Measure the unit costs of a run."""
    device = "cuda" if options.cluster.use_gpu and torch.cuda.is_available() else "cpu"
    return unit_costs(load_frozen(options.encoder).to(device), task.seconds, options.features.max_clip_s)


def unit_costs(encoder: SpeechEncoder, seconds: float, max_clip_s: float) -> UnitCosts:
    """Measure the unit costs of an encoder: one batch of clips of that length, one of features to embeddings.

    Features that were computed elsewhere cost no encoding.
    """
    pool, threads = LayerPool(encoder.num_layers + 1, encoder.width), torch.get_num_threads()
    part_BLD = torch.zeros(ROWS, encoder.num_layers + 1, encoder.width, dtype=torch.float16)
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            listens = not isinstance(encoder, PrecomputedEncoder)
            encode_s = _encode_s(encoder, seconds, max_clip_s) if listens else 0.0
            weigh_s = _second_time(lambda: pool.weigh(part_BLD, part_BLD))
    finally:
        torch.set_num_threads(threads)
    return UnitCosts(encode_s=encode_s, weigh_s=READING * weigh_s / ROWS)


def _encode_s(encoder: SpeechEncoder, seconds: float, max_clip_s: float) -> float:
    """Seconds of the whole encoder for a second of audio, in a batch of clips of some length."""
    device = next(encoder.parameters()).device
    samples = max(encoder.minimal_samples, int(max(seconds, 0.5) * SAMPLE_RATE))
    batch = next(clip_shapes(encoder, max_clip_s).batches([samples] * ROWS))
    noise = np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.05
    wave_BS, length_B = (tensor.to(device) for tensor in pad_clips([noise] * ROWS, batch))
    audio_s = len(batch.positions) * samples / SAMPLE_RATE
    return _second_time(lambda: encoder(wave_BS, length_B).mask_BT.cpu()) / audio_s


def check_room(options: LoopOptions, expected: Estimate) -> None:
    """Raise StateError where a run cannot fit: on the disks of features and run folder, or in the memory of a node."""
    needed: dict[str, float] = {}
    for folder, count in (
        (options.feature_cache or options.pool, expected.feature_bytes),
        (options.run, expected.run_bytes),
    ):
        if "://" not in folder:
            disk = _disk_of(Path(folder))
            needed[disk] = needed.get(disk, 0) + count
    for disk, count in needed.items():
        if count > (free := shutil.disk_usage(disk).free):
            raise StateError(
                f"this run needs {size(count)} of disk at {disk}, where {size(free)} are free: give `feature_cache` "
                "and `run` folders with more room, lower `frames_gb`, or take fewer clips by `corpora`"
            )
    if expected.trajectory_bytes > (largest := largest_memory()):
        raise StateError(
            f"a trajectory of this run needs about {size(expected.trajectory_bytes)} of memory, and the largest node "
            f"offers {size(largest)}: lower `embedding`, the budget or dev and test, raise `cluster.parts`, or give "
            "the cluster a larger node"
        )


def largest_memory() -> float:
    """Memory in bytes that the largest node of the cluster offers to tasks."""
    return max((node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _disk_of(folder: Path) -> str:
    """The folder that is there, of a folder and those above it."""
    return str(next(path for path in (folder, *folder.parents) if path.exists()))


def _labels(arm: Arm, task: Task) -> list[float]:
    """Labels after each round."""
    if arm.pace is None:
        return [min(count, task.train) for count in arm.schedule]
    clip_s = float(arm.pace.seconds(np.array([task.seconds], np.float32))[0])
    return [min(60 * minutes / clip_s, task.train) for minutes in arm.schedule]


def _scored(arm: Arm, options: LoopOptions, task: Task) -> int:
    """Clips that the models of an arm score, in all rounds."""
    if not scores_pool(arm.strategy, options.stop):
        return 0
    return len(arm.schedule) * min(task.train, options.candidates_per_round or task.train)


def _second_time(work: Callable[[], object]) -> float:
    """Seconds that something takes when it is done again."""
    work()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def size(count: float) -> str:
    """Bytes in words: 1.5 GB, 12 MB, 40 kB."""
    if count >= 1e8:
        return f"{count / 1e9:.1f} GB"
    return f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def duration(hours: float) -> str:
    """Hours in words: 3 days, 1.5 h, 20 min."""
    if hours >= 48:
        return f"{hours / 24:.0f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
