"""Make a small encoder from a large one: a student learns a teacher's hidden states on the audio of pools.

No label is read. Every step draws from (seed, step), so a run that was stopped goes on to the same weights.

OUT/options.yaml      the options; the run is resumed with the same ones or not at all
OUT/encoder/          the student, as any other encoder, with fp16 weights
OUT/distil.json       written last: sizes of both, losses by step
OUT/distil.png        the same as a picture
"""

# L distilled teacher states · N frames · D features
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import ray.train
import torch
from pydantic import Field

from ser_models.encoders import SpeechEncoder, load_encoder, save_encoder
from ser_models.objectives import average_gradients
from ser_models.objectives.distillation import NOTE, Distillation, student_of, teacher_states
from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.errors import TrainError
from seral.features.speech import Speech
from seral.options import Options
from seral.pool.noises import read_noises
from seral.pool.shards import Pool, open_pool
from seral.pretraining.lesson import STEP, Lesson, LessonOptions
from seral.progress import say
from seral.task.ray_train import STATE, StepState, last_checkpoint
from seral.task.run import absolute_encoder, claim_folder, of_corpora

ENCODER, DONE, PICTURE = "encoder", "distil.json", "distil.png"
SCALE_S = 600.0
"""Seconds of clips whose frames set the scale of the teacher's states."""
SCALARS = ("loss", "frames", "statistics")


class DistilOptions(Options):
    """From whom, on what and how the student learns."""

    teacher: str
    """A hub id or a folder of an encoder."""
    pools: tuple[str, ...]
    """Pools of speech; of each, one shard is in memory at a time. Whoever is to test the student must not be in them:
    name the other `corpora`."""
    out: str
    """Folder of the run: the encoder is in `encoder/`, with fp16 weights."""
    layers: int = Field(default=2, ge=1)
    """Depth of the student, which starts as the bottom of its teacher."""
    student: str | None = None
    """Instead: an encoder that learns from its own weights, such as `seral-tiny-untrained`."""
    corpora: tuple[str, ...] = ()
    """Only utterances of these corpora; empty = all."""
    noise: str | None = None
    """A pool of noises to mix in, held in memory; None = no noise."""
    lesson: LessonOptions = LessonOptions()
    steps: int = Field(default=2600, ge=1)
    """Updates."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of AdamW. A student that starts as its teacher's bottom bears less than an untrained one."""
    warmup_steps: int = Field(default=150, ge=1)
    """Updates of linear warm-up; the rate is capped by a line to 0 at the last step."""
    statistics_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the mean and standard deviation of each clip."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Updates between two savings of the state to go on from."""
    threads: int = Field(default=1, ge=1)
    """Threads of torch; more than one, and a run is no longer repeated to the last bit."""
    seed: int = 0
    """Seed of the order of clips and of what is done to them."""
    cluster: ClusterOptions = ClusterOptions()
    """Without `train_workers`, progress is shown here; with one, in the worker's log."""


@dataclass(frozen=True, kw_only=True)
class DistilSpec:
    """Everything a training worker needs."""

    options: DistilOptions
    speech: tuple[tuple[Pool, frozenset[str]], ...]
    noise: Pool | None
    state: str
    """Where a training inside this process keeps what it takes to go on."""


def distil(options: DistilOptions) -> str:
    """Train the student, or go on training it; returns the folder of the encoder."""
    options = _with_absolute_paths(options)
    target = storage.join(options.out, ENCODER)
    claim_folder(options, options.out, {"out", "cluster"})
    if storage.exists(storage.join(options.out, DONE)):
        return target
    speech = speech_of([open_pool(uri) for uri in options.pools], options.corpora)
    connect(options.cluster)
    work, name = storage.join(options.out, ".train"), _run_name(speech, options)
    spec = DistilSpec(
        options=options,
        speech=speech,
        noise=None if options.noise is None else open_pool(options.noise),
        state=storage.join(work, name, STATE),
    )
    what = f"distilling {options.teacher}"
    with last_checkpoint(distil_worker, spec, options.cluster, what=what, name=name, work=work) as local:
        storage.copy_folder(local / ENCODER, target)
        record: dict[str, Any] = torch.load(local / STATE, weights_only=True)["record"]
    storage.write_bytes(storage.join(options.out, PICTURE), _picture(record))
    storage.write_json(storage.join(options.out, DONE), record)
    share = record["student_parameters"] / record["teacher_parameters"]
    say(f"the student has {record['student_parameters']:,} parameters, {share:.0%} of its teacher's: {target}")
    return target


def speech_of(pools: Sequence[Pool], corpora: Sequence[str] = ()) -> tuple[tuple[Pool, frozenset[str]], ...]:
    """Every utterance of the pools that is no duplicate; of some corpora only, where any are named."""
    tables = of_corpora(pools, corpora or None)
    heard = (table.filter(pc.is_null(table["duplicate_of"]))["utterance_id"].to_pylist() for table in tables)
    return tuple((pool, frozenset(ids)) for pool, ids in zip(pools, heard, strict=True))


def distil_worker(config: dict[str, Any]) -> None:
    """One Ray Train worker: all steps, with a checkpoint now and then."""
    Distilling(config["spec"]).run()


class Distilling:
    """The state of one distillation: student with its heads, optimiser, what was seen on the way."""

    def __init__(self, spec: DistilSpec) -> None:
        context, options = ray.train.get_context(), spec.options
        torch.set_num_threads(options.threads)
        self.options, self.rank, self.world = options, context.get_world_rank(), context.get_world_size()
        self.device = torch.device("cuda" if options.cluster.use_gpu else "cpu")
        teacher = load_encoder(options.teacher).requires_grad_(False).to(self.device)
        student = student_of(teacher, options.layers) if options.student is None else load_encoder(options.student)
        check_pair(teacher, student, options)
        self.lesson = Lesson(
            speech=Speech(parts=spec.speech),
            noises=[] if spec.noise is None else read_noises(spec.noise),
            teacher=teacher,
            states=options.lesson.states or teacher_states(teacher.num_layers),
            options=options.lesson,
            seed=options.seed,
            device=self.device,
        )
        generator = torch.Generator().manual_seed(options.seed)
        frames_LND = self.lesson.sample(SCALE_S)
        self.model = Distillation(student, frames_LND, generator, statistics_weight=options.statistics_weight)
        self.model.to(self.device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=options.lr, weight_decay=0.01)
        self.kept = StepState(spec.state, options.cluster)
        sizes = {"teacher": teacher, "student": student}
        self.record: dict[str, Any] = {
            **{f"{who}_parameters": sum(p.numel() for p in model.parameters()) for who, model in sizes.items()},
            "states": list(self.lesson.states),
            "history": [],
        }
        self.recent: list[dict[str, float]] = []

    def run(self) -> None:
        """Train from the last state, or from the start, to the last step."""
        start, options = self._restore(), self.options
        self.model.train()
        plan = islice(self.lesson.plan(), start, options.steps)
        for step, (shard, ids) in enumerate(plan, start=start):
            self.recent.append(self._step(step, shard, ids[self.rank :: self.world] or ids[:1]))
            done = step + 1
            if done % options.checkpoint_every == 0 or done == options.steps:
                self._save(done)
        if start == options.steps:  # the process died after the last step and before its result was fetched
            self._save(start)

    def _step(self, step: int, shard: str, ids: list[str]) -> dict[str, float]:
        options = self.options
        # Of dropout, where the student has any.
        torch.manual_seed(int(np.random.SeedSequence([options.seed, step, self.rank]).generate_state(1)[0]))
        rng = np.random.default_rng([options.seed, STEP, step, *([self.rank] if self.rank else [])])
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(step, options)
        batch = [tensor.to(self.device) for tensor in self.lesson.batch(shard, ids, rng)]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=options.cluster.precision == "bf16"):
            scalars = self.model(*batch)
        loss = scalars["loss"]
        if not bool(torch.isfinite(loss)):
            raise TrainError(f"the loss is {float(loss.detach())} at step {step}; utterances: {', '.join(ids)}")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = list(self.model.parameters())
        average_gradients(parameters, scalars["compared"])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        self.optimiser.step()
        return {name: float(scalars[name].detach()) for name in SCALARS}

    def _save(self, done: int) -> None:
        """Note and say how it goes, and keep what it takes to go on; at the end also the student. All workers call it.

        What was heard since the last time is all there is to note: a run that went on notes the same.
        """
        scalars = (
            {name: float(np.mean([values[name] for values in self.recent])) for name in SCALARS} if self.recent else {}
        )
        if scalars:
            self.record["history"].append({"step": done, **{name: round(v, 5) for name, v in scalars.items()}})
            shown = ", ".join(f"{name} {value:.3f}" for name, value in scalars.items())
            say(f"step {done}/{self.options.steps}: {shown}")
        self.recent = []

        def state() -> dict[str, Any]:
            parts = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
            return {"step": done, "record": self.record, **parts}

        self.kept.save(state, scalars, result=self._write if done == self.options.steps else None)

    def _write(self, folder: Path) -> None:
        save_encoder(self.model.student.eval().half(), folder / ENCODER)
        note = {"teacher": self.options.teacher, "teacher_parameters": self.record["teacher_parameters"]}
        storage.write_json(folder / ENCODER / NOTE, note)

    def _restore(self) -> int:
        state = self.kept.load()
        if state is None:
            return 0
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.record = state["record"]
        say(f"distillation goes on from step {state['step']}")
        return int(state["step"])


def check_pair(teacher: SpeechEncoder, student: SpeechEncoder, options: DistilOptions) -> None:
    """Raise TrainError unless both have the same frames a second and the teacher has the states to be learned."""
    if teacher.frame_rate_hz != student.frame_rate_hz:
        rates = f"{teacher.frame_rate_hz:g} frames a second, the student {student.frame_rate_hz:g}"
        raise TrainError(f"{options.teacher} gives {rates}: choose a teacher with the student's frame rate")
    for state in options.lesson.states or ():
        if not 0 <= state <= teacher.num_layers:
            raise TrainError(f"{options.teacher} has the hidden states 0..{teacher.num_layers}, not {state}")


def learning_rate_at(step: int, options: DistilOptions) -> float:
    """Rate of update `step` (from 0): the lower of the warm-up's line and the one that falls to 0 at the end."""
    return options.lr * min((step + 1) / options.warmup_steps, 1 - step / options.steps)


def _with_absolute_paths(options: DistilOptions) -> DistilOptions:
    """Workers may have another working directory."""
    given: dict[str, Any] = {"out": storage.absolute(options.out), "pools": tuple(map(storage.absolute, options.pools))}
    if options.noise is not None:
        given["noise"] = storage.absolute(options.noise)
    given |= {name: absolute_encoder(e) for name in ("teacher", "student") if (e := getattr(options, name)) is not None}
    return options.model_copy(update=given)


def _run_name(speech: tuple[tuple[Pool, frozenset[str]], ...], options: DistilOptions) -> str:
    """Another name for whatever would train to other weights: a run of the same name goes on from its checkpoint."""
    values: Mapping[str, Any] = options.model_dump(mode="json", exclude={"out", "cluster", "checkpoint_every"})
    parts = [[pool.hash for pool, _ in speech], values]
    return "distil-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _picture(record: dict[str, Any]) -> bytes:
    # Imported here: drawing takes a second to load, in every worker too.
    from seral.figures.axes import png
    from seral.figures.studies import pretraining_curves

    return png(pretraining_curves(record["history"], [], SCALARS))
