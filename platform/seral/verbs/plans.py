"""Plans of commands, for `--dry-run`: what would be read, computed and written, how large it is and how long it takes.

Nothing of a run is written. Times come from a few clips that are encoded or decoded on the spot, by one core.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import pyarrow.compute as pc

from ser_models.encoders import SpeechEncoder, load_encoder
from seral import storage
from seral.cluster import ClusterOptions, connect, cpu_count
from seral.corpora.options import read_corpus
from seral.corpora.reading.utterance import Skipped
from seral.loop.annotators import ANNOTATORS
from seral.loop.disk import RUN_BYTES
from seral.loop.estimate import BACKWARD, Estimate, Task, duration, estimate, measure, size, task_of, unit_costs
from seral.loop.growth import first_folds
from seral.loop.loop import foresee
from seral.loop.options import LoopOptions
from seral.loop.rounds import Arm
from seral.pool.ingest import import_file
from seral.pool.listing import Source
from seral.pool.options import ImportOptions
from seral.pool.quality_filter import below_quality
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import Fold, folds_of
from seral.pretraining.options import TaptJobOptions, TaptRunOptions
from seral.pretraining.tapt import training_ids
from seral.report.disk import report_bytes
from seral.report.options import ReportOptions
from seral.selection.selection import StrategyOptions
from seral.sweep.plan import SweepOptions
from seral.task.options import with_absolute_paths
from seral.training.options import SupervisedOptions, TrainingOptions
from seral.training.sources import sides

RANGE = 2.0
"""Times are right within this factor, as far as the machine has nothing else to do."""
SAMPLE = 12
"""Files that an import is measured on."""
CELL_BYTES, JUDGED_BYTES = 2000, 35
"""Record of a training, and each number that it holds of a test clip."""
TABLES_BYTES, SWEEP_BYTES = 40_000, 250_000
"""Tables and figures of a training; the same of a sweep, and its page."""
TRIAL_BYTES = 20_000
"""A trial of a sweep, whose models do not stay: its record, and what Ray Tune writes."""
FULL_COPIES = 3
"""Sizes of an encoder that a pretraining takes while it trains: its last checkpoint, the one before, and the result."""
OBJECTIVE_BYTES = 500_000
"""Heads and clusters of a pretraining's loss, its history and its curves."""
RESTS_ON_BATCH = f"one batch through the encoder, measured now; right within a factor of {RANGE:g}"

Plan = dict[str, str]


def plan_loop(options: LoopOptions) -> Plan:
    """Say what a run of the loop, or what is left of it, would read, compute and write."""
    options = with_absolute_paths(options)
    pool = open_pool(options.pool)
    connect(options.cluster)
    metadata, _ = ANNOTATORS[options.annotator].candidates(options, pool)
    folds = {
        number: fold.without(set(below_quality(fold.train, metadata, options.min_quality)["utterance_id"].to_pylist()))
        for number, fold in first_folds(options, metadata).items()
    }
    expected = foresee(options, pool, folds)
    arms = [options.strategy.name, *(other.name for other in options.others)]
    arms += ["random"] if options.random_arm else []
    arms += ["full (all labels)"] if options.full_arm else []
    steps = options.budget.minutes or options.budget.schedule(max(len(fold.train) for fold in folds.values()))
    unit = "minutes" if options.budget.minutes else "labels"
    trains = f"{len(folds)} folds, {len(options.seeds)} seeds, {len(arms)} arms ({', '.join(arms)})"
    report = report_bytes(ReportOptions(run=options.run), pool, classes=bool(options.classes))
    computes = trains + f", rounds at {', '.join(f'{step:g}' for step in steps)} {unit}: {options.finetune.summary}"
    return plan(pool, options.run, computes, expected, expected.run_bytes, f", its report {size(report)}")


def plan_train(options: SupervisedOptions) -> Plan:
    """Say what a training would read, compute and write."""
    options = with_absolute_paths(options)
    connect(options.cluster)
    pool, cells, task, expected = _trainings(options)
    written = RUN_BYTES + TABLES_BYTES + len(cells) * task.model_bytes + _cell_bytes(options, cells)
    written += 0 if options.tapt is None else task.folds * task.encoder_bytes
    computes = f"{len(cells)} trainings, a fold and seed each, on all labels: {options.finetune.summary}"
    return plan(pool, options.run, computes, expected, written)


def plan_sweep(options: SweepOptions) -> Plan:
    """Say what a sweep would read, compute and write; trials that are stopped early make it shorter."""
    base = with_absolute_paths(options.base)
    connect(base.cluster)
    points = options.points()
    trials = options.trials if points is None else len(points)
    pool, cells, _, expected = _trainings(base, times=trials)
    trains = f"{trials} trials of {len(cells)} trainings at most, by {options.search}"
    stops = "" if options.early_stopping is None else ", the worse ones stopped early"
    written = RUN_BYTES + SWEEP_BYTES + trials * TRIAL_BYTES + 2 * _cell_bytes(base, cells)  # the best, and as given
    return plan(pool, storage.absolute(options.run), trains + stops, expected, written)


def plan_pretrain(options: TaptJobOptions) -> Plan:
    """Say what a pretraining would read, compute and write."""
    pool, tapt = open_pool(options.pool), options.tapt
    ids = training_ids(options, pool)
    encoder = load_encoder(options.encoder)
    hours = pretraining_hours(tapt, encoder, options.cluster)
    weights = sum(tensor.nbytes for tensor in encoder.state_dict().values())
    return {
        "reads": f"{len(ids):,} of the {clips_of(pool)}",
        "computes": f"{tapt.steps:,} steps of {tapt.batch_s:g} s of speech with {options.encoder}",
        "writes": f"{storage.absolute(options.run)}: about {size(weights + OBJECTIVE_BYTES)} in the end, "
        f"{size(FULL_COPIES * weights)} while it trains",
        "takes": takes(hours),
        "rests on": RESTS_ON_BATCH,
    }


def pretraining_hours(tapt: TaptRunOptions, encoder: SpeechEncoder, on: ClusterOptions) -> float:
    """Hours of a pretraining's steps."""
    costs = unit_costs(encoder, tapt.crop_s, tapt.crop_s)
    workers = max(1, on.train_workers) * on.cpus_per_worker
    return tapt.steps * tapt.batch_s * costs.encode_s * BACKWARD / workers / 3600


def plan_import(options: ImportOptions) -> Plan:
    """Say what an import would read, compute and write, from some of its files, which are decoded on the spot."""
    items = list(read_corpus(options))
    sources = [Source.listed(item) for item in items if not isinstance(item, Skipped)]
    total = sum(max(0, source.size) for source in sources)
    step, started = max(1, len(sources) // SAMPLE), time.perf_counter()
    rows, read = list[dict[str, Any]](), 0
    for source in islice(sources, 0, None, step):
        read += max(0, source.size)
        with suppress(Exception):  # whatever is wrong with a file, the import puts it into quarantine
            rows.append(import_file(source.utterance, limits=options.limits, voice=options.voice))
    share = total / read if read else 0.0
    hours = (time.perf_counter() - started) * share / _cpus(options) / 3600
    skipped = len(items) - len(sources)
    return {
        "reads": f"{len(sources):,} files of {size(total)} in {options.root}, about "
        f"{duration(share * sum(row['duration_s'] for row in rows) / 3600)} of speech",
        "computes": f"decodes and measures each file; {skipped:,} are listed without audio that can be used",
        "writes": f"{storage.absolute(options.out)}: about {size(share * sum(len(row['audio']) for row in rows))}",
        "takes": takes(hours),
        "rests on": f"{len(rows)} files, decoded now; right within a factor of {RANGE:g}",
    }


def _trainings(options: TrainingOptions, times: int = 1) -> tuple[Pool, list[Fold], Task, Estimate]:
    """Pool, the fold of each training on all labels, and the costs of all of them some times over."""
    pool = open_pool(options.pool)
    metadata, _ = sides(options, pool)
    folds = folds_of(metadata, options.split, options.folds)
    cells = [fold for fold in folds.values() for _ in options.seeds]
    return pool, cells, *costs_of(options, pool, folds.values(), [len(fold.train) for fold in cells] * times)


def costs_of(
    options: TrainingOptions, pool: Pool, folds: Collection[Fold], labels: Sequence[int]
) -> tuple[Task, Estimate]:
    """Figures of some folds, and the costs of trainings that learn so many labels each."""
    shared = {name: getattr(options, name) for name in TrainingOptions.model_fields}
    loop, random = LoopOptions.model_construct(**shared, frames_gb=float("inf")), StrategyOptions(name="random")
    task, arms = task_of(loop, pool, folds), [Arm(initial=random, strategy=random, schedule=(n,)) for n in labels]
    return task, estimate(loop, task, arms, measure(loop, task))


def _cell_bytes(options: TrainingOptions, cells: Sequence[Fold]) -> float:
    """Bytes of the records of trainings, which hold what is said of each test clip."""
    outputs = len(options.classes) + len(options.dimensions)
    return sum(CELL_BYTES + JUDGED_BYTES * outputs * len(fold.test) for fold in cells)


def plan(pool: Pool, run: str, computes: str, expected: Estimate, written: float, beside: str = "") -> Plan:
    """The lines of a plan that trains on a pool, and writes so many bytes to its folder."""
    return {
        "reads": clips_of(pool),
        "computes": computes,
        "writes": f"{run}: about {size(written)}{beside}; features: {size(expected.feature_bytes)} to come",
        "memory": f"about {size(expected.trajectory_bytes)} each, {expected.at_once} at a time",
        "takes": takes(sum(expected.hours.values()), expected.hours),
        "rests on": RESTS_ON_BATCH,
    }


def clips_of(pool: Pool) -> str:
    """Clips and hours of a pool, in words."""
    hours = pc.sum(pool.column("duration_s")).as_py() / 3600
    return f"{pool.rows:,} clips, {hours:.1f} h, of {pool.uri}"


def takes(hours: float, parts: Mapping[str, float] | None = None) -> str:
    """Hours in words, as the range that they lie in, and what they are spent on."""
    spent = ", ".join(f"{name} {duration(value)}" for name, value in (parts or {}).items() if value >= 1 / 60)
    least, most = duration(hours / RANGE), duration(hours * RANGE)
    return (f"about {most}" if least == most else f"{least} to {most}") + (f" ({spent})" if spent else "")


def _cpus(options: ImportOptions) -> int:
    connect(options.cluster)
    return cpu_count()
