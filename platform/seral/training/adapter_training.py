"""Training adapters through Ray Train: one training function, run in this process or by any number of workers.

Deterministic on one worker: every epoch's batches, masks and dropout are drawn from (seed, epoch) alone, so a training
that was interrupted and restored from its checkpoint ends where an uninterrupted one would.
"""

# B batch · T frames · C classes · K rated dimensions · O outputs (C + K) · L hidden states · D features · U embedding
from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ser_models import metrics
from ser_models.adapters.adalora import RankSchedule
from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import (
    adapter_parameters,
    adapter_tags,
    count_parameters,
    dead_adapters,
    freeze_above,
    set_trainable,
)
from ser_models.alignment import MeanVarianceAlignment
from ser_models.build import SerModel
from ser_models.losses import (
    LOSSES,
    ConcordanceQueue,
    calibrated_cross_entropy,
    class_weights,
    log_priors,
    multitask_loss,
    rmse_loss,
    weighted_classes,
)
from ser_models.training import (
    MAX_GRAD_NORM,
    balanced_draw,
    mix,
    rate_scale,
    set_rate,
    shuffled_batches,
    time_masks,
)
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.features.batches import FRAMES_IN_BATCH, frame_batches, length_sorted_batches
from seral.features.speakers import SpeakerShifts
from seral.features.store import FeatureStore
from seral.schema import SAMPLE_RATE
from seral.task.examples import Targets, Utterances
from seral.task.ray_train import STATE, OnReport, last_checkpoint, read_state, state_bytes
from seral.training.alignment import BatchAdaptation
from seral.training.data import Labelled
from seral.training.finetune_options import FinetuneOptions
from seral.training.model import FrameBatch, frame_batch, load_model, read_normalisation, save_model
from seral.training.pretrained import standardise_adapters
from seral.training.waves import AUDIO, read_waves, wave_batch

ADAPTER, BEST = "adapter", "best"


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """Everything a training worker needs; small enough to send, heavy things are read from storage."""

    store: FeatureStore
    start: str
    """Folder of the model to start from: a fitted head, or a model whose adapters go on learning."""
    freeze: tuple[str, ...]
    """Tags of adapters that stay as they are (ser_models.adapters.adapter_tags), `head` or `layer_sum`."""
    train: Labelled
    dev: Labelled
    classes: tuple[str, ...]
    layer: int
    """Training starts from the cached frames of this hidden state, or from AUDIO."""
    seed: int
    options: FinetuneOptions
    on: ClusterOptions
    adaptation: BatchAdaptation | None = None
    """Speech of another language that some of the clips are of."""
    shifts: SpeakerShifts | None = None
    """Shifts that are taken from the pooled states of the clips of both parts, where the start's are normalised."""


def train_adapters(
    spec: AdapterSpec, *, name: str, work: str, target: str, on_report: OnReport | None = None
) -> dict[str, Any]:
    """Train with Ray Train and move the best-dev model to `target`. `name` must change with whatever is trained."""
    what = "training adapters"
    with last_checkpoint(train_worker, spec, spec.on, what=what, name=name, work=work, on_report=on_report) as folder:
        storage.copy_folder(folder / BEST, target)
        history: dict[str, Any] = read_state(folder / STATE)["history"]
    return history


def starting_model(spec: AdapterSpec) -> SerModel:
    """The model as its training begins: that of the start, with fresh adapters where it carries none."""
    model = load_model(spec.start)
    if not model.encoder.adapters:
        attach_adapters(model.encoder, spec.options.adapters(), seed=spec.seed)
        standardise_adapters(model)
    return model


def frames_or_audio(spec: AdapterSpec, ids: Collection[str]) -> dict[str, NDArray[Any]]:
    """Training starts from these, by id: fp16 frames (T, D), or fp32 audio (S, 1)."""
    if spec.layer == AUDIO:
        return dict(read_waves(spec.store, ids))
    return dict(spec.store.frames(spec.layer, ids))


def train_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: all epochs, reporting a checkpoint after each."""
    AdapterTraining(config["spec"], config["on_report"]).run()


class AdapterTraining:
    """The state of one training: model, optimiser, the best so far."""

    def __init__(self, spec: AdapterSpec, on_report: OnReport | None = None) -> None:
        import ray.train.torch

        context = ray.train.get_context()
        self.on_report = on_report
        self.spec, self.rank, self.world = spec, context.get_world_rank(), context.get_world_size()
        self.device = torch.device("cuda" if spec.on.use_gpu else "cpu")
        torch.manual_seed(spec.seed)
        self.model, self.normalise = starting_model(spec), read_normalisation(spec.start)
        freeze_tags(self.model, spec.freeze)
        # Anchored heads weigh some hidden states only; what comes after the last of them would get no gradient.
        freeze_above(self.model.encoder, int(self.model.pool.layer_weight.isfinite().nonzero().max()))
        self.model.to(self.device)
        self.from_frames = FromFrames(self.model, spec.layer, spec.adaptation).to(self.device)
        self.step_model: nn.Module = self.from_frames
        if self.world > 1:
            self.step_model = ray.train.torch.prepare_model(self.from_frames, move_to_device=False)
        self.optimiser = self._optimiser()
        units, targets = spec.train
        weight_N, soft_NC = (
            None if part is None else torch.from_numpy(part) for part in (targets.weight_N, targets.soft_NC)
        )
        label_N = torch.from_numpy(targets.label_N)
        balanced = spec.options.class_weights == "balanced"
        self.target_NC = weighted_classes(label_N, len(spec.classes), weight_N, soft_NC, balanced=balanced)
        self.shift_C = spec.options.logit_adjustment * log_priors(label_N, len(spec.classes), weight_N)
        # A copy: what it remembers is this training's, and a training in this process may be restored.
        self.coral = None if spec.adaptation is None else copy.deepcopy(spec.adaptation.coral)
        if self.coral is not None:
            self.coral.queue.to(self.device)
        self.concordance = ConcordanceQueue(targets.value_NK.shape[1])
        self.units = units if self.coral is None else units.with_others(self.coral.speech)
        self.frames = frames_or_audio(spec, {*self.units.ids, *spec.dev.units.ids})
        self.epochs = spec.options.epochs_on(len(units.ids))
        self.steps = spec.options.steps or self.epochs * ceil(len(units.ids) / spec.options.batch_size)
        # Ranks that a training before this one has settled stay as they are.
        goes_on = storage.exists(storage.join(spec.start, ADAPTER))
        moves_ranks = "adalora" in self.model.encoder.adapters and not goes_on
        self.ranks = RankSchedule(self.model.encoder, steps=self.steps) if moves_ranks else None
        self.epoch, self.step = 0, 0
        trainable, parameters = count_parameters(self.model)
        self.history: dict[str, Any] = {"epochs": [], "trainable": trainable, "parameters": parameters}
        self.best = str(Path(tempfile.mkdtemp(prefix="seral-best-")) / BEST)  # in a folder that others cannot enter
        self.reported: Path | None = None

    def run(self) -> None:
        """Train until the epochs are used up or, where there is dev, its loss has not fallen for `patience` of them."""
        if not self._restore():
            self._keep_if_better(self._score_dev(), loss=None)
            self._report()
        while self.epoch < self.epochs and not self._out_of_patience():
            loss = self._train_epoch()
            self.epoch += 1
            self._keep_if_better(self._score_dev(), loss=loss)
            self._report()
        shutil.rmtree(Path(self.best).parent, ignore_errors=True)

    def _optimiser(self) -> torch.optim.Optimizer:
        adapters = list(adapter_parameters(self.model).values())
        adapter_ids = {id(parameter) for parameter in adapters}
        head = [p for p in self.model.parameters() if p.requires_grad and id(p) not in adapter_ids]
        adapters = [parameter for parameter in adapters if parameter.requires_grad]
        rates = ((adapters, self.spec.options.peak_lr), (head, self.spec.options.head_lr))
        groups: list[dict[str, Any]] = [{"params": params, "lr": rate} for params, rate in rates if params]
        for group in groups:
            group["peak"] = group["lr"]
        return torch.optim.AdamW(groups, weight_decay=0.0)

    def _train_epoch(self) -> float:
        spec, total, count = self.spec, 0.0, 0
        units = spec.train.units
        rng = np.random.default_rng([spec.seed, self.epoch])
        torch.manual_seed(int(rng.integers(2**31)))
        self.step_model.train()
        ids = units.ids
        if spec.options.balanced:
            ids = [ids[row] for row in balanced_draw(spec.train.targets.label_N, rng)]
        batches = list(shuffled_batches(ids, self.frames, spec.options.batch_size, rng))
        for number, ids in enumerate(batches[: self.steps - self.step]):
            own_ids = ids[self.rank :: self.world] or ids[:1]
            speech_ids = [] if self.coral is None else self.coral.draw(len(own_ids), rng)
            batch = self._batch([*own_ids, *speech_ids], self.units)
            mask_BT = time_masks(batch.mask_BT, spec.options.time_mask_prob, spec.options.time_mask_frames, rng)
            done = self.step / self.steps if spec.options.steps else (self.epoch + number / len(batches)) / self.epochs
            scale = rate_scale(done, spec.options.warmup, decay=spec.options.decay == "linear")
            set_rate(self.optimiser, scale)
            loss = self._step(batch, mask_BT, [units.row_of[name] for name in own_ids], rng)
            if self.epoch == 0 and number == 0 and (dead := dead_adapters(self.model)):
                raise TrainError(f"{len(dead)} adapters get no gradient and would never learn, e.g. {dead[0]}")
            if not np.isfinite(loss):
                raise TrainError(f"the loss is {loss} in epoch {self.epoch}; utterances: {', '.join(own_ids)}")
            total, count = total + loss * len(own_ids), count + len(own_ids)
        return total / count

    def _step(self, batch: FrameBatch, mask_BT: Tensor, rows: Sequence[int], rng: np.random.Generator) -> float:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.spec.on.precision == "bf16"):
            output_BO, standard_BLU = self.step_model(batch, mask_BT.to(self.device))
        loss = self._loss(output_BO[: len(rows)], list(rows), rng)
        if self.coral is not None:
            loss = loss + self.coral.loss(standard_BLU, batch.from_source_B, len(rows))
        if self.ranks is not None:
            loss = loss + self.ranks.penalty()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward unannotated
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], MAX_GRAD_NORM)
        self.optimiser.step()
        self.step += 1
        if self.ranks is not None:
            self.ranks.after_step(self.step)
        return float(loss.detach())

    def _loss(self, output_BO: Tensor, rows: list[int], rng: np.random.Generator) -> Tensor:
        targets, options = self.spec.train.targets, self.spec.options
        arrays = (targets.labelled_N[rows], targets.rated_N[rows], np.nan_to_num(targets.value_NK[rows]))
        labelled_B, rated_B, value_BK = (torch.from_numpy(array).to(self.device) for array in arrays)
        unmixed = [output_BO, self.target_NC[rows].to(self.device), value_BK, labelled_B, rated_B]
        output_BO, target_BC, value_BK, labelled_B, rated_B = mix(unmixed, options.mixup, rng)
        logits_BC, predicted_BK = self.model.split(output_BO)
        if options.logit_adjustment:
            logits_BC = logits_BC + self.shift_C.to(self.device)
        return multitask_loss(
            logits_BC,
            target_BC,
            predicted_BK,
            value_BK,
            labelled_B=labelled_B,
            rated_B=rated_B,
            class_loss=LOSSES[options.loss].soft,
            dimension_loss=self.concordance if options.dimension_loss == "ccc" else rmse_loss,
            dimension_weight=options.dimension_weight,
        )

    def _batch(self, ids: Sequence[str], units: Utterances) -> FrameBatch:
        adaptation = self.spec.adaptation
        source_B = np.zeros(len(ids), bool) if adaptation is None else adaptation.is_source(ids)
        layer = max(self.spec.layer, 0)
        batch = frame_batch(ids, units, self.frames, layer, self.device, source_B, self.spec.shifts)
        return wave_batch(batch, self.model.encoder) if self.spec.layer == AUDIO else batch

    @torch.inference_mode()
    def _score_dev(self) -> dict[str, float]:
        """Every worker scores the whole of dev: it is small, and so no rank waits for numbers of another."""
        self.step_model.eval()
        units, targets = self.spec.dev
        if not units.ids:
            return {}
        outputs: dict[str, Tensor] = {}
        for ids in self._dev_batches(units.ids):
            batch = self._batch(ids, units)
            output_BO, _ = self.from_frames(batch, batch.mask_BT)
            outputs |= dict(zip(ids, output_BO.float().cpu(), strict=True))
        logits_NC, value_NK = self.model.split(torch.stack([outputs[name] for name in units.ids]))
        return dev_scores(logits_NC, value_NK, targets, self.spec.options.dimension_weight)

    def _dev_batches(self, ids: Sequence[str]) -> list[list[str]]:
        """Ids in batches of bounded size: of frames, or of audio as long as so many frames."""
        if self.spec.layer != AUDIO:
            return frame_batches(ids, self.frames)
        limit = int(FRAMES_IN_BATCH * SAMPLE_RATE / self.model.encoder.frame_rate_hz)
        return [[ids[i] for i in b] for b in length_sorted_batches([len(self.frames[n]) for n in ids], limit)]

    def _keep_if_better(self, dev: dict[str, float], *, loss: float | None) -> None:
        """By dev loss: on a hundred clips the best UAR of several epochs is mostly luck. Without dev, the last one."""
        before = [epoch["dev_loss"] for epoch in self.history["epochs"] if "dev_loss" in epoch]
        better = not dev or not before or dev["dev_loss"] < min(before)
        self.history["epochs"].append({**dev, "loss": loss})
        if better:
            layer, store = self.spec.layer, self.spec.store
            save_model(self.best, self.model, store, layer=layer, normalise=self.normalise)

    def _out_of_patience(self) -> bool:
        losses, patience = [epoch.get("dev_loss") for epoch in self.history["epochs"]], self.spec.options.patience
        return patience is not None and None not in losses and len(losses) - 1 - int(np.argmin(losses)) >= patience

    def _report(self) -> None:
        """Report the epoch to Ray Train with a checkpoint: the best model, and what it takes to go on."""
        import ray.train

        values = {"epoch": self.epoch, **self.history["epochs"][-1]}
        if self.on_report is not None:
            self.on_report(values)
        if self.rank != 0:
            ray.train.report(values)
            return
        folder = Path(tempfile.mkdtemp(prefix="seral-checkpoint-"))
        shutil.copytree(self.best, folder / BEST)
        state = {
            "epoch": self.epoch,
            "history": self.history,
            "trained": {n: p.detach().cpu() for n, p in self.model.named_parameters() if p.requires_grad},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "ranks": None if self.ranks is None else self.ranks.state_dict(),
            "queue": None if self.coral is None else self.coral.queue.state_dict(),
            "rated": self.concordance.state_dict(),
        }
        (folder / STATE).write_bytes(state_bytes(state))
        ray.train.report(values, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
        # Ray Train's workers persist what they report; in this process the folder itself is the checkpoint.
        stale, self.reported = (folder, None) if self.spec.on.train_workers else (self.reported, folder)
        if stale is not None:
            shutil.rmtree(stale)

    def _restore(self) -> bool:
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return False
        with checkpoint.as_directory() as folder:
            shutil.copytree(Path(folder) / BEST, self.best, dirs_exist_ok=True)
            state = read_state(Path(folder) / STATE)
        self.epoch, self.step, self.history = state["epoch"], state["step"], state["history"]
        if self.ranks is not None:
            self.ranks.load_state_dict(state["ranks"])
        if self.coral is not None:
            self.coral.queue.remember(state["queue"])
        self.concordance.remember(state["rated"])
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in state["trained"].items():
                parameters[name].copy_(value)
        self.optimiser.load_state_dict(state["optimiser"])
        return True


def freeze_tags(model: SerModel, tags: Sequence[str]) -> None:
    """Stop the training of some parts: tags of the adapters, `head`, or `layer_sum`. ValueError for an unknown one."""
    parts = {"head": model.head, "layer_sum": model.pool}
    every_tag = {*parts, *adapter_tags(model.encoder)}
    if unknown := sorted(set(tags) - every_tag):
        raise ValueError(f"nothing in this model is tagged {unknown[0]!r}; there are: {', '.join(sorted(every_tag))}")
    for tag in tags:
        if tag in parts:
            parts[tag].requires_grad_(False)
        else:
            set_trainable(model.encoder, [tag], False)


class FromFrames(nn.Module):
    """The model seen from the cached frames up, as the one forward that data-parallel training needs."""

    def __init__(self, model: SerModel, layer: int, adaptation: BatchAdaptation | None = None) -> None:
        super().__init__()
        self.model, self.layer = model, max(layer, 0)
        self.align_source = None if adaptation is None else AlignSource(adaptation.alignment)

    def forward(self, batch: FrameBatch, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (B, O) and standardised statistics (B, L, U), seeing the frames in `mask_BT` only."""
        mean_BLD, std_BLD = self.model.statistics_from(
            batch.hidden_BTD,
            mask_BT,
            start=self.layer,
            below_mean_LBD=batch.below_mean_LBD,
            below_std_LBD=batch.below_std_LBD,
            length_B=batch.length_B,
        )
        if self.align_source is not None:
            mean_BLD, std_BLD = self.align_source(mean_BLD, std_BLD, batch.from_source_B)
        if batch.shift_BLD is not None:
            mean_BLD, std_BLD = mean_BLD - batch.shift_BLD[0], std_BLD - batch.shift_BLD[1]
        pool = self.model.pool
        standard_BLU = pool.standardise(mean_BLD, std_BLD)
        return self.model.head(pool.join(pool.combine(standard_BLU), batch.text_BE)), standard_BLU


class AlignSource(nn.Module):
    """Gives the clips of the source the mean and the spread that they would have in the target."""

    def __init__(self, alignment: MeanVarianceAlignment) -> None:
        super().__init__()
        for name, part_LD in alignment._asdict().items():
            self.register_buffer(name, part_LD)

    def forward(self, mean_BLD: Tensor, std_BLD: Tensor, from_source_B: Tensor) -> tuple[Tensor, Tensor]:
        alignment = MeanVarianceAlignment(*(getattr(self, name) for name in MeanVarianceAlignment._fields))
        aligned = alignment(mean_BLD, std_BLD)
        source_B11 = from_source_B[:, None, None]
        return torch.where(source_B11, aligned[0], mean_BLD), torch.where(source_B11, aligned[1], std_BLD)


def dev_scores(logits_NC: Tensor, value_NK: Tensor, target: Targets, dimension_weight: float) -> dict[str, float]:
    """The loss by which models are compared, and UAR and mean CCC where there are classes and dimensions."""
    scores = {"dev_loss": 0.0}
    if logits_NC.shape[1]:
        decided_N = target.decided_N
        logits_NC, label_N = logits_NC[torch.from_numpy(decided_N)], target.label_N[decided_N]
        weight_C = class_weights(torch.from_numpy(label_N), logits_NC.shape[1])
        scores["dev_loss"] = calibrated_cross_entropy(logits_NC, torch.from_numpy(label_N), weight_C)
        scores["dev_uar"] = metrics.uar(label_N, logits_NC.argmax(1).numpy())
    if value_NK.shape[1]:
        rated_N = target.rated_N
        pairs = zip(target.value_NK[rated_N].T, value_NK.numpy()[rated_N].T, strict=True)
        scores["dev_ccc"] = float(np.mean([metrics.ccc(truth, predicted) for truth, predicted in pairs]))
        scores["dev_loss"] += dimension_weight * (1 - scores["dev_ccc"])
    return scores
