"""Make a small encoder from a large one: a student learns a teacher's hidden states on the audio of pools.

No label is read. Every step draws from (seed, step), so a run that was stopped goes on to the same weights.

RUN/config.yaml       the options; the run is resumed with the same ones or not at all
RUN/encoder/          the student, as any other encoder, with fp16 weights
RUN/distil.json       written last: sizes of both, losses by step
RUN/distil.png        the same as a picture
"""

# L hidden states of the teacher that are distilled · N frames · D features
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from ser_models.encoders import SpeechEncoder, load_encoder, save_encoder
from ser_models.objectives.distillation import NOTE, Distillation, DistillationOptions, student_of, teacher_states
from ser_models.training import MAX_GRAD_NORM
from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.errors import TrainError
from seral.features.precomputed import need_network
from seral.features.provenance import hand_down
from seral.features.speech import Speech
from seral.pool.noises import read_noises
from seral.pool.shards import Pool, open_pool
from seral.pretraining.options import DistilOptions
from seral.pretraining.plans import PlannedBatch
from seral.pretraining.teacher_targets import STEP, DistillationData
from seral.pretraining.trainer import Batch, Course, Pretraining, run_name, train_to_end
from seral.progress import say
from seral.task.eligibility import of_corpora
from seral.task.options import absolute_encoder
from seral.task.ray_train import STATE, WORK, read_state
from seral.task.run import claim

ENCODER, DONE, PICTURE = "encoder", "distil.json", "distil.png"
SCALE_S = 600.0
"""Seconds of clips whose frames set the scale of the teacher's states."""
SCALARS = ("loss", "frames", "statistics")


@dataclass(frozen=True, kw_only=True)
class DistilSpec:
    """Everything a training worker needs."""

    options: DistilOptions
    speech: tuple[tuple[Pool, frozenset[str]], ...]
    noise: Pool | None
    state: str
    """Folder in which a training inside this process keeps what it takes to go on."""

    @property
    def on(self) -> ClusterOptions:
        """Ray cluster and resources of the training."""
        return self.options.cluster

    def pretraining(self, device: torch.device) -> Pretraining:
        """The pretraining of this specification."""
        return Distilling(self, device)


def distil(options: DistilOptions) -> str:
    """Train the student, or go on training it; returns the folder of the encoder."""
    options = _with_absolute_paths(options)
    target, work = storage.join(options.run, ENCODER), storage.join(options.run, WORK)
    need_network(options.teacher, "a teacher")
    claim(options, "distil", {"run", "cluster"})
    if storage.exists(storage.join(options.run, DONE)):
        storage.remove(work)
        return target
    speech = speech_of([open_pool(uri) for uri in options.pools], options.corpora)
    connect(options.cluster)
    name = _run_name(speech, options)
    spec = DistilSpec(
        options=options,
        speech=speech,
        noise=None if options.noise is None else open_pool(options.noise),
        state=storage.join(work, name, STATE),
    )
    with train_to_end(spec, what=f"distilling {options.teacher}", name=name, work=work) as local:
        storage.copy_folder(local / ENCODER, target)
        state: dict[str, Any] = read_state(local / STATE)["record"]
        record = {name: value for name, value in state.items() if name not in ("held_out", "warnings")}
        storage.write_bytes(storage.join(options.run, PICTURE), _picture(record))
        storage.write_json(storage.join(options.run, DONE), record)  # before the state to go on from is removed
    share = record["student_parameters"] / record["teacher_parameters"]
    say(f"the student has {record['student_parameters']:,} parameters, {share:.0%} of its teacher's: {target}")
    return target


def speech_of(pools: Sequence[Pool], corpora: Sequence[str] = ()) -> tuple[tuple[Pool, frozenset[str]], ...]:
    """Every utterance of the pools that is no duplicate; of some corpora only, where any are named."""
    tables = of_corpora(pools, corpora or None)
    ids_of = (table.filter(pc.is_null(table["duplicate_of"]))["utterance_id"].to_pylist() for table in tables)
    return tuple((pool, frozenset(ids)) for pool, ids in zip(pools, ids_of, strict=True))


class Distilling(Pretraining):
    """A student that learns a teacher's hidden states."""

    def __init__(self, spec: DistilSpec, device: torch.device) -> None:
        options = spec.options
        torch.set_num_threads(options.threads)
        self.options, self.device = options, device
        teacher = load_encoder(options.teacher).requires_grad_(False).to(device)
        student = student_of(teacher, options.layers) if options.student is None else load_encoder(options.student)
        check_pair(teacher, student, options)
        self.data = DistillationData(
            speech=Speech(parts=spec.speech),
            noises=[] if spec.noise is None else read_noises(spec.noise),
            teacher=teacher,
            states=options.data.states or teacher_states(teacher.num_layers),
            options=options.data,
            seed=options.seed,
            device=device,
        )
        self.model: Distillation = Distillation(
            student,
            DistillationOptions(statistics_weight=options.statistics_weight),
            torch.Generator().manual_seed(options.seed),
            teacher_LND=self.data.sample(SCALE_S),
        )
        self.model.to(device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=options.lr, weight_decay=0.01)
        sizes = {"teacher": teacher, "student": student}
        self.facts: dict[str, Any] = {
            **{f"{who}_parameters": sum(p.numel() for p in model.parameters()) for who, model in sizes.items()},
            "states": list(self.data.states),
        }
        self.course = Course(
            name="distillation",
            steps=options.steps,
            lr_at=lambda step: learning_rate_at(step, options),
            checkpoint_every=options.checkpoint_every,
            log_every=options.checkpoint_every,
            eval_every=options.steps,
            shown=SCALARS,
            noted=SCALARS,
            averaged=True,
            weighed_by="compared",
            max_norm=MAX_GRAD_NORM,
        )

    def plan(self) -> Iterator[PlannedBatch]:
        """Endless batches of views."""
        return self.data.plan()

    def read(self, step: int, planned: PlannedBatch, rank: int) -> Batch:
        """Views of clips and the teacher's states on them."""
        seed = self.options.seed
        # Of dropout, where the student has any.
        torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0]))
        rng = np.random.default_rng([seed, STEP, step, *([rank] if rank else [])])
        tensors = self.data.batch(planned.shard, planned.ids, rng)
        return Batch(names=planned.ids, inputs=tuple(tensor.to(self.device) for tensor in tensors), rng=rng)

    def scalars(self, step: int, batch: Batch) -> Mapping[str, Tensor]:
        """Losses on frames and on the statistics of clips."""
        return self.model(*batch.inputs)  # type: ignore[no-any-return]  # torch's __call__

    def write(self, folder: Path) -> None:
        """Write the student with fp16 weights, and how large its teacher is."""
        save_encoder(self.model.student.eval().half(), folder / ENCODER)
        note = {"teacher": self.options.teacher, "teacher_parameters": self.facts["teacher_parameters"]}
        storage.write_json(folder / ENCODER / NOTE, note)
        made_of = [one for one in (self.options.teacher, self.options.student) if one is not None]
        hand_down(made_of, str(folder / ENCODER))


def check_pair(teacher: SpeechEncoder, student: SpeechEncoder, options: DistilOptions) -> None:
    """Raise TrainError unless both have the same frames a second and the teacher has the states to be learned."""
    if teacher.frame_rate_hz != student.frame_rate_hz:
        rates = f"{teacher.frame_rate_hz:g} frames a second, the student {student.frame_rate_hz:g}"
        raise TrainError(f"{options.teacher} gives {rates}: choose a teacher with the student's frame rate")
    for state in options.data.states or ():
        if not 0 <= state <= teacher.num_layers:
            raise TrainError(f"{options.teacher} has the hidden states 0..{teacher.num_layers}, not {state}")


def learning_rate_at(step: int, options: DistilOptions) -> float:
    """Rate of update `step` (from 0): the lower of the warm-up's line and the one that falls to 0 at the end."""
    return options.lr * min((step + 1) / options.warmup_steps, 1 - step / options.steps)


def _with_absolute_paths(options: DistilOptions) -> DistilOptions:
    """Workers may have another working directory."""
    paths: dict[str, Any] = {"run": storage.absolute(options.run), "pools": tuple(map(storage.absolute, options.pools))}
    if options.noise is not None:
        paths["noise"] = storage.absolute(options.noise)
    paths |= {name: absolute_encoder(e) for name in ("teacher", "student") if (e := getattr(options, name)) is not None}
    return options.model_copy(update=paths)


def _run_name(speech: tuple[tuple[Pool, frozenset[str]], ...], options: DistilOptions) -> str:
    besides = {
        "run",
        "cluster",
        "checkpoint_every",
        "pools",
        "noise",
    }  # pools by what is in them, not by where they lie
    noise = None if options.noise is None else open_pool(options.noise).hash
    values: Mapping[str, Any] = options.model_dump(mode="json", exclude=besides)
    return run_name("distil", [pool.hash for pool, _ in speech], noise, values)


def _picture(record: dict[str, Any]) -> bytes:
    # Imported here: drawing takes a second to load, in every worker too.
    from seral.figures.axes import png
    from seral.figures.studies import pretraining_curves

    return png(pretraining_curves(record["history"], [], SCALARS))
