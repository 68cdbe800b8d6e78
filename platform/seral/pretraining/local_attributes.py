"""Adapter training on the unlabelled training speech of a fold, through Ray Train (ser_models.objectives).

It is handed ids and reads their cached frames and nothing else: no dev, no test, no label. Batches, crops, masks and
dropout are drawn from (seed, epoch, batch) alone, so a training that was interrupted and restored from its checkpoint
ends, on one worker, in the same weights.
"""

# B batch · T frames · D features · N frames of a sample · K prototypes
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
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from ser_models.adapters.wap import WapOptions, WapTransformer, save_wap
from ser_models.objectives.local_attributes import LocalAttributes, LocalAttributesOptions, collapse_signs
from ser_models.objectives.masks import SpanMask, span_mask
from ser_models.objectives.teacher import rate_at
from ser_models.training import MAX_GRAD_NORM, set_rate
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.features.batches import frame_batches, length_sorted_batches, pad_frames
from seral.features.frames import FrameSource, Survey, survey
from seral.options import Options
from seral.progress import say
from seral.task.ray_train import STATE, last_checkpoint
from seral.vectors.index import kmeans

WAP = "wap"
LENGTH_NOISE = 0.15
"""Clips are batched by their length with so much log-normal noise: little padding, other neighbours every epoch."""


class AdapterTrainingOptions(Options):
    """How adapters are trained; the objective's own options are in ser_models.objectives.local_attributes."""

    epochs: int = Field(default=10, ge=1)
    """Times that all training speech is heard."""
    batch_frames: int = Field(default=2000, ge=1)
    """Frames in a step, padding included, over all workers."""
    crop_frames: int = Field(default=500, ge=2)
    """Longer clips give a random piece of this length."""
    mask_prob: float = Field(default=0.65, gt=0, lt=1)
    """Share of frames that would be hidden if spans did not overlap; 0.65 hides about half, as in wav2vec 2.0."""
    mask_frames: int = Field(default=10, ge=1)
    """Length of a span. Clips no longer than one are left out."""
    lr: float = Field(default=5e-4, gt=0)
    """Peak learning rate of AdamW: short warm-up, then linear to 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay of AdamW."""
    ema_start: float = Field(default=0.99, ge=0, le=1)
    """The teacher's share m of its own weights in an update, at the start."""
    ema_end: float = Field(default=0.999, ge=0, le=1)
    """The same at the end."""
    prototypes: int = Field(default=256, ge=2)
    """Local attributes K."""
    cluster_frames: int = Field(default=16_384, ge=2)
    """Frames, of clips drawn at random, that are clustered to prototypes."""
    cluster_iterations: int = Field(default=10, ge=1)
    """Iterations of k-means."""
    refresh_every: int = Field(default=1, ge=1)
    """Epochs between two clusterings. A later one starts from the prototypes there are, so that they keep their
    numbers."""


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """Everything a training worker needs; small enough to send, frames are read from storage."""

    source: FrameSource
    ids: tuple[str, ...]
    """Unlabelled training utterances."""
    wap: WapOptions
    alpha: float
    beta: float
    seed: int
    options: AdapterTrainingOptions
    on: ClusterOptions

    def objective(self) -> LocalAttributesOptions:
        """The objective's options."""
        return LocalAttributesOptions(alpha=self.alpha, beta=self.beta, prototypes=self.options.prototypes)


def train_adapter(spec: AdapterSpec, *, name: str, work: str, target: str) -> dict[str, Any]:
    """Train with Ray Train and write the teacher to `target`. `name` must change with whatever is trained."""
    with last_checkpoint(adapter_worker, spec, spec.on, what="adapter training", name=name, work=work) as folder:
        storage.copy_folder(folder / WAP, target)
        history: dict[str, Any] = torch.load(folder / STATE, weights_only=True)["history"]
    return history


def adapter_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: all epochs, with a checkpoint after each."""
    AdapterTraining(config["spec"]).run()


def fresh_wap(found: Survey, options: WapOptions, seed: int) -> tuple[WapTransformer, torch.Generator]:
    """An adapter before its first step, and the generator that made it."""
    generator = torch.Generator().manual_seed(seed)
    wap = WapTransformer(len(found.mean_D), options, generator)
    wap.fit(torch.from_numpy(found.mean_D).float(), torch.from_numpy(found.std_D).float())
    return wap, generator


class AdapterTraining:
    """The state of one training: student, teacher, optimiser, prototypes."""

    def __init__(self, spec: AdapterSpec) -> None:
        context = ray.train.get_context()
        self.spec, self.rank, self.world = spec, context.get_world_rank(), context.get_world_size()
        self.device = torch.device("cuda" if spec.on.use_gpu else "cpu")
        self.survey = survey(spec.source, spec.ids, minimal_frames=spec.options.mask_frames + 1)
        wap, generator = fresh_wap(self.survey, spec.wap, spec.seed)
        self.objective = LocalAttributes(wap, spec.objective(), generator).to(self.device)
        self.step_model: nn.Module = self.objective
        if self.world > 1:
            self.step_model = ray.train.torch.prepare_model(self.objective, move_to_device=False)
        self.trained = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        options = spec.options
        self.optimiser = torch.optim.AdamW(self.trained, lr=options.lr, weight_decay=options.weight_decay)
        for group in self.optimiser.param_groups:
            group["peak"] = options.lr
        self.mask = SpanMask(prob=options.mask_prob, length=options.mask_frames, min_spans=1)
        self.epoch = 0
        self.history: dict[str, Any] = {"frames": self.survey.total, "epochs": [], "collapse": []}
        self.reported: Path | None = None

    def run(self) -> None:
        """Train until the epochs are used up."""
        self._restore()
        while self.epoch < self.spec.options.epochs:
            if self.spec.beta and self.epoch % self.spec.options.refresh_every == 0:
                self._cluster()
            scalars = self._train_epoch()
            self.epoch += 1
            self._tell(scalars)
            self._report(scalars)

    def _cluster(self) -> None:
        """New prototypes: k-means of the teacher's frames, from where the old ones are."""
        options = self.spec.options
        start_KD = None if self.epoch == 0 else self.objective.prototype_KD.cpu().numpy()
        sample_ND = self._teacher_frames()
        iterations = options.cluster_iterations
        found = kmeans(sample_ND, options.prototypes, self.spec.seed, iterations=iterations, start_KD=start_KD)
        self.objective.set_prototypes(torch.from_numpy(found.centroid_KD).to(self.device))

    @torch.inference_mode()
    def _teacher_frames(self) -> NDArray[np.float32]:
        """Targets of clips drawn at random, about `cluster_frames` of them, (N, D)."""
        clips = [(shard, name) for shard, lengths in self.survey.length.items() for name in lengths]
        rng = np.random.default_rng([self.spec.seed, self.epoch, 2])
        chosen, frames = dict[str, list[str]](), 0
        for shard, name in (clips[index] for index in rng.permutation(len(clips))):
            if frames < self.spec.options.cluster_frames:
                chosen.setdefault(shard, []).append(name)
                frames += self.survey.length[shard][name]
        pieces = []
        for shard in sorted(chosen):
            found = self.spec.source.shard(shard, chosen[shard])
            for ids in frame_batches(sorted(found), found):
                hidden_BTD, mask_BT = (tensor.to(self.device) for tensor in pad_frames([found[name] for name in ids]))
                pieces.append(self.objective.targets(hidden_BTD, mask_BT)[mask_BT].cpu().numpy())
        return np.concatenate(pieces)

    def _train_epoch(self) -> dict[str, float]:
        self.step_model.train()
        batches = list(self._plan())
        loaded, frames = "", dict[str, NDArray[np.float16]]()
        found: list[dict[str, float]] = []
        for number, (shard, ids) in enumerate(batches):
            if shard != loaded:
                loaded, frames = shard, self.spec.source.shard(shard, self.survey.length[shard])
            mine = ids[self.rank :: self.world] or ids[:1]
            rng = np.random.default_rng([self.spec.seed, self.epoch, number, self.rank])
            set_rate(self.optimiser, self.epoch + number / len(batches), self.spec.options.epochs)
            found.append(self._step([_crop(frames[n], self.spec.options.crop_frames, rng) for n in mine], rng))
            share = (self.epoch + number / len(batches)) / self.spec.options.epochs
            self.objective.follow(rate_at(share, self.spec.options.ema_start, self.spec.options.ema_end))
            if not np.isfinite(found[-1]["loss"]):
                raise TrainError(
                    f"the loss is {found[-1]['loss']} in epoch {self.epoch}; utterances: {', '.join(mine)}"
                )
        return {name: float(np.mean([scalars[name] for scalars in found])) for name in found[0]}

    def _step(self, clips: Sequence[NDArray[np.float16]], rng: np.random.Generator) -> dict[str, float]:
        torch.manual_seed(int(rng.integers(2**31)))  # of dropout
        hidden_BTD, mask_BT = pad_frames(clips)
        hide_BT = torch.zeros_like(mask_BT)
        spans = torch.from_numpy(span_mask([len(clip) for clip in clips], self.mask, rng))
        hide_BT[:, : spans.shape[1]] = spans
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.on.precision == "bf16"):
            scalars = self.step_model(*(tensor.to(self.device) for tensor in (hidden_BTD, mask_BT, hide_BT)))
        self.optimiser.zero_grad()
        scalars["loss"].backward()
        nn.utils.clip_grad_norm_(self.trained, MAX_GRAD_NORM)
        self.optimiser.step()
        return {name: float(value.detach()) for name, value in scalars.items()}

    def _plan(self) -> Iterator[tuple[str, list[str]]]:
        """(shard, ids) of every batch of this epoch: shards in random order, batches of similar length inside them."""
        rng, options = np.random.default_rng([self.spec.seed, self.epoch, 1]), self.spec.options
        for shard in rng.permutation(sorted(self.survey.length)).tolist():
            names = sorted(self.survey.length[shard])
            length_N = np.minimum([self.survey.length[shard][name] for name in names], options.crop_frames)
            jitter_N = np.exp(LENGTH_NOISE * rng.standard_normal(len(names)))
            batches = length_sorted_batches(np.ceil(length_N * jitter_N).astype(int).tolist(), options.batch_frames)
            yield from ((shard, [names[row] for row in batches[index]]) for index in rng.permutation(len(batches)))

    def _tell(self, scalars: dict[str, float]) -> None:
        """Guards and losses into the history and the log, loudly where they say that the teacher collapses."""
        self.history["epochs"].append(scalars)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in scalars.items())
        say(f"adapter epoch {self.epoch}/{self.spec.options.epochs}: {shown}")
        for sign in collapse_signs(scalars, self.objective.options):
            self.history["collapse"].append(f"epoch {self.epoch}: {sign}")
            say(f"warning: the adapter's teacher collapses, {sign}")

    def _report(self, scalars: dict[str, float]) -> None:
        """Report the epoch to Ray Train with a checkpoint: the teacher, and what it takes to go on."""
        if self.rank != 0:
            ray.train.report(scalars)
            return
        folder = Path(tempfile.mkdtemp(prefix="seral-adapter-"))
        save_wap(self.objective.teacher, folder / WAP)
        state = {"epoch": self.epoch, "history": self.history, "optimiser": self.optimiser.state_dict()}
        torch.save(state | {"objective": self.objective.state_dict()}, folder / STATE)
        ray.train.report(scalars, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
        # Ray Train's workers persist what they report; in this process the folder itself is the checkpoint.
        stale, self.reported = (folder, None) if self.spec.on.train_workers else (self.reported, folder)
        if stale is not None:
            shutil.rmtree(stale)

    def _restore(self) -> None:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return
        with checkpoint.as_directory() as folder:
            state = torch.load(Path(folder) / STATE, weights_only=True)
        self.epoch, self.history = state["epoch"], state["history"]
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])


def _crop(frames_TD: NDArray[np.float16], size: int, rng: np.random.Generator) -> NDArray[np.float16]:
    if len(frames_TD) <= size:
        return frames_TD
    begin = int(rng.integers(len(frames_TD) - size + 1))
    return frames_TD[begin : begin + size]
