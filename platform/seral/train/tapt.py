"""Task-adaptive pretraining of an encoder on the unlabelled training audio of a fold, through Ray Train.

It is handed ids and reads their audio and nothing else: no dev, no test, no label. Every step draws its batch, crops
and masks from (seed, step) alone, so an interrupted run that is restored from its checkpoint ends in the same weights.
"""

# B batch · S samples
from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.train.torch
import torch
from pydantic import Field

from ser_models.encoders import EMBEDDED, load_encoder, save_encoder
from ser_models.tapt import (
    SUPPORTED,
    TaptOptions,
    Wav2Vec2Objective,
    batches_by_seconds,
    pretraining_heads,
    random_crop,
    tapt_optimizer,
    tapt_step,
)
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.features import pad_clips
from seral.options import Options
from seral.pool.decode import decode_flac
from seral.pool.shards import Pool
from seral.progress import say

STATE, ENCODER, DONE = "state.pt", "encoder", "tapt.json"


class TaptRunOptions(Options):
    """How an encoder is adapted before the loop; objective and defaults in ser_models.tapt."""

    steps: int = Field(default=2000, ge=1)
    """Updates; small pools need few."""
    batch_s: float = Field(default=250.0, gt=0)
    """Seconds of audio in a step."""
    crop_s: float = Field(default=10.0, gt=0)
    """Longer clips are cropped at random."""
    mask: str = "after"
    """Mask preset: after (light) or wav2vec2 (about half of the frames)."""
    lr: float = Field(default=1e-4, gt=0)
    """Peak learning rate of Adam."""
    warmup_steps: int = Field(default=100, ge=0)
    """Linear warm-up; afterwards flat for 5 % of the steps, then linear to 0."""
    freeze_front: bool = True
    """Keep the convolutional front as it is."""
    seed: int = 0
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints."""

    def settings(self) -> TaptOptions:
        """The same, as the model library takes it. Raises ValueError for values that do not fit together."""
        return TaptOptions(
            steps=self.steps,
            seconds_per_batch=self.batch_s,
            crop_s=self.crop_s,
            mask=self.mask,
            learning_rate=self.lr,
            warmup_steps=self.warmup_steps,
            freeze_front=self.freeze_front,
        )


@dataclass(frozen=True, kw_only=True)
class TaptSpec:
    """Everything the training worker needs."""

    pool: Pool
    ids: tuple[str, ...]
    encoder: str
    options: TaptRunOptions
    on: ClusterOptions


def adapt_encoder(
    pool: Pool, ids: Sequence[str], encoder: str, folder: str, options: TaptRunOptions, on: ClusterOptions
) -> str:
    """Adapt an encoder to the audio of `ids`; returns the folder of the new one. Done before, it is only returned."""
    target = storage.join(folder, ENCODER)
    if storage.exists(storage.join(folder, DONE)):
        return target
    spec = TaptSpec(pool=pool, ids=tuple(sorted(ids)), encoder=encoder, options=options, on=on)
    work = storage.join(folder, ".train")
    trainer = ray.train.torch.TorchTrainer(
        tapt_worker,
        train_loop_config={"spec": spec},
        # One worker: the contrastive loss draws its negatives inside a clip, so more would only add throughput.
        scaling_config=ray.train.ScalingConfig(num_workers=min(1, on.train_workers), use_gpu=on.use_gpu),
        run_config=ray.train.RunConfig(
            name=f"tapt-{pool.hash}-{len(ids)}",
            storage_path=work,
            failure_config=ray.train.FailureConfig(max_failures=on.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    except ValueError as error:
        raise TrainError(f"TAPT of {encoder}: {error}") from error
    if result.checkpoint is None:
        raise TrainError(f"TAPT of {encoder} ended without a checkpoint; its files are in {work}")
    with result.checkpoint.as_directory() as local:
        storage.copy_folder(Path(local) / ENCODER, target)
        history = torch.load(Path(local) / STATE, weights_only=True)["history"]
    if on.train_workers == 0:
        shutil.rmtree(result.checkpoint.path)
    storage.remove(work)
    storage.write_json(storage.join(folder, DONE), {"utterances": len(ids), "history": history})
    return target


def tapt_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: all steps, with a checkpoint now and then."""
    spec: TaptSpec = config["spec"]
    settings, seed = spec.options.settings(), spec.options.seed
    device = torch.device("cuda" if spec.on.use_gpu else "cpu")
    encoder = load_encoder(spec.encoder)
    has_heads = spec.encoder not in EMBEDDED and encoder.family in SUPPORTED
    heads = pretraining_heads(spec.encoder) if has_heads else None
    objective = Wav2Vec2Objective(encoder, settings, torch.Generator().manual_seed(seed), heads).to(device)
    optimiser = tapt_optimizer(objective)
    start, history = _restore(objective, optimiser)
    objective.train()
    previous: Path | None = None
    for step, clips in enumerate(_clips(spec, skip=start), start=start):
        rng = np.random.default_rng([seed, step])
        crops = [random_crop(clip, settings.crop_s, rng) for clip in clips]
        wave_BS, length_B = pad_clips(crops)
        scalars = tapt_step(objective, optimiser, wave_BS.to(device), length_B.to(device), step=step, rng=rng)
        last = step + 1 == settings.steps
        if (step + 1) % 50 == 0 or last:
            history.append({"step": step + 1, **{name: round(value, 5) for name, value in scalars.items()}})
            say(f"TAPT step {step + 1}/{settings.steps}: loss {scalars['loss']:.3f}")
        if (step + 1) % spec.options.checkpoint_every == 0 or last:
            folder = Path(tempfile.mkdtemp(prefix="seral-tapt-"))
            save_encoder(encoder, folder / ENCODER)
            state = {"step": step + 1, "history": history, "optimiser": optimiser.state_dict()}
            torch.save(state | {"objective": objective.state_dict()}, folder / STATE)
            ray.train.report(scalars, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
            stale, previous = (folder, None) if spec.on.train_workers else (previous, folder)
            if stale is not None:
                shutil.rmtree(stale)


def _restore(objective: Wav2Vec2Objective, optimiser: torch.optim.Optimizer) -> tuple[int, list[dict[str, float]]]:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return 0, []
    with checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE, weights_only=True)
    objective.load_state_dict(state["objective"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"], state["history"]


def _clips(spec: TaptSpec, *, skip: int) -> Iterator[list[np.ndarray[Any, np.dtype[np.float32]]]]:
    """The audio of each step from step `skip` on: one shard in memory at a time, decoded batch by batch."""
    loaded, audio = "", {}
    plan = _plan(spec)
    for step in range(spec.options.steps):
        shard, ids = next(plan)
        if step < skip:
            continue
        if shard != loaded:
            table = spec.pool.read(shard, ["utterance_id", "audio"])
            audio = dict(zip(table["utterance_id"].to_pylist(), table["audio"], strict=True))
            loaded = shard
        yield [decode_flac(audio[name].as_py()) for name in ids]


def _plan(spec: TaptSpec) -> Iterator[tuple[str, list[str]]]:
    """Endless (shard, ids) batches: shards in random order, their rows in random order, by seconds of audio."""
    wanted, settings, rows = set(spec.ids), spec.options.settings(), {}
    for shard in spec.pool.shards:
        table = spec.pool.read(shard, ["utterance_id", "duration_s"])
        pairs = zip(table["utterance_id"].to_pylist(), table["duration_s"].to_pylist(), strict=True)
        if kept := sorted((name, duration_s) for name, duration_s in pairs if name in wanted):
            rows[shard] = kept
    if not rows:
        raise TrainError("TAPT was given no utterance of this pool")
    epoch = 0
    while True:
        rng = np.random.default_rng([spec.options.seed, epoch, 1])
        for shard in rng.permutation(sorted(rows)).tolist():
            names, durations_s = zip(*rows[shard], strict=True)
            for batch in batches_by_seconds(durations_s, settings, rng):
                yield shard, [names[row] for row in batch]
        epoch += 1
