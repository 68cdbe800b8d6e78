"""The step trainer of every pretraining: updates, checkpoints, history, held-out scores and warnings, by any worker.

A pretraining draws the batch of a step from (seed, step) alone and keeps what it has learned in its model, so a run
that was interrupted and restored ends in the same weights.
"""

# B clips
from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import ray.train
import torch
from torch import Tensor, nn

from ser_models.objectives import UpdateOptions, update
from seral.cluster import ClusterOptions
from seral.pretraining.plans import PlannedBatch, planned_steps
from seral.progress import say
from seral.task.ray_train import StepState, last_checkpoint


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The clips that one worker learns from in one step."""

    names: Sequence[str]
    """Ids of the clips."""
    inputs: tuple[Tensor, ...]
    """Arguments of the objective, clips first, on its device."""
    rng: np.random.Generator
    """For whatever else is drawn in this step."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """Steps and learning rate of a pretraining, and when something is noted."""

    name: str
    """The word that lines of progress begin with."""
    steps: int
    lr_at: Callable[[int], float]
    """Learning rate of an update, by its number from 0."""
    checkpoint_every: int
    """Steps between two savings of the state to go on from."""
    log_every: int
    """Steps between two rows of the history."""
    eval_every: int
    """Steps between two looks at the held-out clips, and for what should be warned of."""
    shown: Sequence[str]
    """Scalars in lines of progress."""
    noted: Sequence[str] | None = None
    """Scalars in the history; None = all."""
    averaged: bool = False
    """A row of the history is the mean over the steps since the last one; False = the values of its step."""
    weighed_by: str = "masked"
    """The scalar that weighs the gradients of workers."""
    max_norm: float | None = None
    """Largest norm of the gradient; None = any."""

    def is_due(self, done: int, every: int) -> bool:
        """Whether something that happens every so many steps, and after the last, is due after `done` of them."""
        return done % every == 0 or done == self.steps


class Pretraining(Protocol):
    """An objective with its data: what the trainer trains."""

    course: Course
    model: nn.Module
    """The objective as a module; its state is the checkpoint."""
    optimiser: torch.optim.Optimizer
    facts: Mapping[str, Any] = {}
    """Entries of the record besides history, held-out scores and warnings."""

    @abstractmethod
    def plan(self) -> Iterator[PlannedBatch]:
        """The batches of all workers, without end."""

    @abstractmethod
    def read(self, step: int, planned: PlannedBatch, rank: int) -> Batch:
        """The batch of one worker. Seeds torch's generator where the model draws from it."""

    @abstractmethod
    def scalars(self, step: int, batch: Batch) -> Mapping[str, Tensor]:
        """The loss and what else is measured of a batch."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write the result of a finished training."""

    def begin(self) -> None:
        """Prepare what has to be there before the first step; a restored training does without."""
        return

    def refresh(self, step: int, planned: PlannedBatch) -> None:
        """Renew, before a step, what is learned from, where that is due."""
        return

    def after_update(self, step: int) -> None:
        """Follow up an update."""
        return

    def held_out_scores(self) -> dict[str, float]:
        """Scalars on clips that are not trained on; empty where there are none."""
        return {}

    def warning(self, done: int, scores: Mapping[str, float], first: Mapping[str, float]) -> str | None:
        """A sentence if the scores of an evaluation show a fault; `first` are those of the first evaluation."""
        return None


class PretrainingSpec(Protocol):
    """Everything a worker needs to make its pretraining; small enough to send."""

    @property
    def on(self) -> ClusterOptions: ...

    @property
    def state(self) -> str:
        """Folder in which a training inside this process keeps what it takes to go on."""

    def pretraining(self, device: torch.device) -> Pretraining: ...


def train_to_end(spec: PretrainingSpec, *, what: str, name: str, work: str) -> AbstractContextManager[Path]:
    """Train with Ray Train and hand out the folder of the last checkpoint. `name` must change with what is trained."""
    return last_checkpoint(pretraining_worker, spec, spec.on, what=what, name=name, work=work)


def run_name(kind: str, *parts: Any) -> str:
    """Another name for whatever would train to other weights: a run of the same name goes on from its checkpoint."""
    return f"{kind}-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def pretraining_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: all steps, with a checkpoint now and then."""
    Trainer(config["spec"]).run()


class Trainer:
    """The state of one training on one worker."""

    record_lists: ClassVar[tuple[str, ...]] = ("history", "held_out", "warnings")

    def __init__(self, spec: PretrainingSpec) -> None:
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.bf16 = spec.on.precision == "bf16"
        self.pretraining = spec.pretraining(torch.device("cuda" if spec.on.use_gpu else "cpu"))
        self.course = self.pretraining.course
        self.states = StepState(spec.state, spec.on)
        self.record: dict[str, Any] = {**self.pretraining.facts, **{name: [] for name in self.record_lists}}
        self.recent: list[dict[str, float]] = []

    def run(self) -> None:
        """Train from the last checkpoint, or from the start, to the last step."""
        start = self._restore()
        if start == 0:
            self.pretraining.begin()
            self._score_held_out(0)
        self.pretraining.model.train()
        plan = self.pretraining.plan()
        for step, planned in planned_steps(plan, start, self.course.steps, rank=self.rank, world=self.world):
            self.pretraining.refresh(step, planned)
            scalars = self._step(step, planned)
            self._look(step + 1, scalars)
            if self.course.is_due(step + 1, self.course.checkpoint_every):
                self._save(step + 1, scalars)
        if start == self.course.steps:  # the process died after the last step and before its result was fetched
            self._save(start, {})

    def _step(self, step: int, planned: PlannedBatch) -> dict[str, float]:
        course, batch = self.course, self.pretraining.read(step, planned, self.rank)
        options = UpdateOptions(
            step=step,
            lr=course.lr_at(step),
            weighed_by=course.weighed_by,
            max_norm=course.max_norm,
            bf16=self.bf16,
        )
        scalars = update(
            lambda: self.pretraining.scalars(step, batch),
            self.pretraining.optimiser,
            options,
            names=batch.names,
            input_B=batch.inputs[0],
        )
        self.pretraining.after_update(step)
        scalars["learning_rate"] = options.lr
        return {name: scalars[name] for name in course.noted or scalars}

    def _look(self, done: int, scalars: dict[str, float]) -> None:
        """Note and say how it goes, and warn of what goes wrong."""
        course = self.course
        if course.averaged:
            self.recent.append(scalars)
            scalars = {name: float(np.mean([values[name] for values in self.recent])) for name in scalars}
        if course.is_due(done, course.log_every):
            self.recent = []
            self.record["history"].append(_row(done, scalars))
            self._say(f"step {done}/{course.steps}: {self._shown(scalars)}")
        if not course.is_due(done, course.eval_every):
            return
        scores = self._score_held_out(done) or scalars
        first = (self.record["held_out"] or self.record["history"] or [scores])[0]
        if warning := self.pretraining.warning(done, scores, first):
            self.record["warnings"].append({"step": done, "warning": warning})
            self._say(f"step {done}/{course.steps}: {warning}")

    def _score_held_out(self, done: int) -> dict[str, float]:
        scores = self.pretraining.held_out_scores() if self.rank == 0 else {}
        if scores:
            self.record["held_out"].append(_row(done, scores))
            self._say(f"step {done}/{self.course.steps}, held out: {self._shown(scores)}")
        return scores

    def _save(self, done: int, scalars: Mapping[str, float]) -> None:
        """Keep what it takes to go on; at the end also the result. All workers call it."""

        def state() -> dict[str, Any]:
            parts = {"model": self.pretraining.model.state_dict(), "optimiser": self.pretraining.optimiser.state_dict()}
            return {"step": done, "record": self.record, "recent": self.recent, **parts}

        self.states.save(state, scalars, result=self.pretraining.write if done == self.course.steps else None)

    def _restore(self) -> int:
        state = self.states.load()
        if state is None:
            return 0
        self.pretraining.model.load_state_dict(state["model"])
        self.pretraining.optimiser.load_state_dict(state["optimiser"])
        self.record, self.recent = state["record"], state["recent"]
        self._say(f"goes on from step {state['step']}")
        return int(state["step"])

    def _say(self, message: str) -> None:
        if self.rank == 0:
            say(f"{self.course.name} {message}")

    def _shown(self, scalars: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {scalars[name]:.3f}" for name in self.course.shown if name in scalars)


def _row(done: int, scalars: Mapping[str, float]) -> dict[str, float]:
    return {"step": done, **{name: round(value, 5) for name, value in scalars.items()}}
