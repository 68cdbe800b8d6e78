"""Plans of commands that make something of a run, for `--dry-run`: the final model, predictions, exports."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from ser_models.encoders import load_encoder
from ser_models.exports import FORMATS, check_export
from seral import storage
from seral.cluster import connect, encoder_actors
from seral.errors import OptionError
from seral.features.precomputed import load_frozen
from seral.loop.annotators import ANNOTATORS
from seral.loop.disk import ANSWER_BYTES, RUN_BYTES, predictions_bytes
from seral.loop.estimate import duration, size, unit_costs
from seral.models.ensemble import read_joined
from seral.models.export import base_of, check_new, open_trained
from seral.models.fit import resolved
from seral.models.fold_models import asked_ids, read_fold_models, settled
from seral.models.options import ExportOptions, FinalOptions, PredictOptions
from seral.models.prediction import audio_files, features_folder, model_folder, pool_table, predict_files
from seral.pool.ids import Ids
from seral.pool.shards import open_pool
from seral.pool.splits import Fold
from seral.task.run import verb_of
from seral.training.model import load_model, read_outputs
from seral.verbs.plans import RANGE, SAMPLE, Plan, clips_of, costs_of, plan, pretraining_hours, takes

CARD_BYTES = 15_000
"""The card of a final model, its figures and its labels' table."""
GRAPH_BYTES = 700_000
"""A graph beside its weights."""
LOADS = {"hf": 2, "peft": 2, "onnx": 10, "torch-export": 5}
"""Format -> the time of an export, in times that the model is loaded."""


def plan_fit(options: FinalOptions) -> Plan:
    """Say what fitting a final model would read, compute and write."""
    options, task = resolved(options)
    models = read_fold_models(options.of, task)
    task = task.model_copy(update={"finetune": settled(task.finetune, models)})
    connect(task.cluster)
    pool = open_pool(options.pool or task.pool)
    metadata, _ = ANNOTATORS[task.annotator].candidates(task, pool)
    present, asked = set(metadata["utterance_id"].to_pylist()), asked_ids(options.of, task)
    with closing(ANNOTATORS[task.annotator].open(task, pool)) as annotator:
        labels = annotator.labels([name for name in sorted(present if asked is None else asked) if name in present], 0)
    ids = sorted(set(labels["utterance_id"].to_pylist()))
    fold = Fold(name="all speakers", train=Ids(ids), dev=Ids(), test=Ids())
    figures, expected = costs_of(task, pool, [fold], [len(ids)])
    trains = "a head on the frozen encoder" if task.finetune.frozen else f"{task.finetune.adapter} and a head"
    computes = f"{trains}, on {len(ids):,} labels that {len(models)} fold models were trained on"
    written = RUN_BYTES + CARD_BYTES + figures.model_bytes + ANSWER_BYTES * len(ids)
    if task.tapt is None:
        return plan(pool, options.run, computes, expected, written)
    encoder = load_encoder(task.encoder)
    hours = dict(expected.hours) | {"TAPT": pretraining_hours(task.tapt, encoder, task.cluster)}
    words = plan(pool, options.run, f"TAPT, then {computes}", expected, written + figures.encoder_bytes)
    return words | {"takes": takes(sum(hours.values()), hours)}


def plan_predict(options: PredictOptions) -> Plan:
    """Say what a prediction would read, compute and write. Raises OptionError for an ensemble, whose members have plans
    of their own."""
    if verb_of(storage.absolute(options.run)) == "ensemble":
        members, _, _ = read_joined(storage.absolute(options.run))
        raise OptionError(f"{options.run} asks {len(members)} models: see what one takes, such as {members[0]}")
    folder = model_folder(storage.absolute(options.run), options.trajectory)
    outputs = sum(map(len, read_outputs(folder)))
    features = features_folder(options, folder)
    if (out := pool_table(options)) is None:
        return _plan_files(options, folder, outputs)
    pool = open_pool(options.source[0])
    connect(options.cluster)
    heard_s = np.minimum(np.asarray(pool.column("duration_s"), np.float64), options.features.max_clip_s)
    encoder = load_model(folder).encoder if features is None else load_frozen(features)
    costs = unit_costs(encoder, float(heard_s.mean()), options.features.max_clip_s)
    hours = (heard_s.sum() * costs.encode_s / encoder_actors(options.cluster) + pool.rows * costs.weigh_s) / 3600
    return {
        "reads": f"{clips_of(pool)}, and {folder}",
        "computes": f"what the model says of each clip, by {encoder_actors(options.cluster)} processes",
        "writes": f"{out}: about {size(predictions_bytes(pool.rows, outputs))}",
        "takes": takes(hours),
        "rests on": f"one batch {'through the encoder' if features is None else 'of features'}, measured now; right "
        f"within a factor of {RANGE:g}",
    }


def _plan_files(options: PredictOptions, folder: str, outputs: int) -> Plan:
    """The plan of a prediction of files, some of which are decoded and judged on the spot."""
    files = audio_files(options.source)
    sample = files[:: max(1, len(files) // SAMPLE)][:SAMPLE]
    total, read = (sum(path.stat().st_size for path in paths) for paths in (files, sample))
    with tempfile.TemporaryDirectory(prefix="seral-plan-") as scratch:
        started = time.perf_counter()
        predict_files(sample, folder, str(Path(scratch) / "rows.parquet"), options)
        hours = (time.perf_counter() - started) * total / max(1, read) / 3600
    written = size(predictions_bytes(len(files), outputs) + sum(len(str(path)) for path in files))
    out = options.out and storage.absolute(options.out)
    return {
        "reads": f"{len(files):,} files of {size(total)}, and {folder}",
        "computes": "what the model says of each clip, by this process",
        "writes": "nothing: predictions are printed" if out is None else f"{out}: about {written}",
        "takes": takes(hours),
        "rests on": f"{len(sample)} files, decoded and judged now; right within a factor of {RANGE:g}",
    }


def plan_export(options: ExportOptions) -> Plan:
    """Say what an export would read and write. Raises OptionError as the export would."""
    check_new(options)
    folder = model_folder(storage.absolute(options.run), options.trajectory)
    started = time.perf_counter()
    with open_trained(options, folder) as model:
        seconds = time.perf_counter() - started
        try:
            check_export(model, options.format)
        except (ValueError, ImportError) as error:
            raise OptionError(f"format={options.format}: {error}") from error
        weights = sum(tensor.nbytes for tensor in model.state_dict().values())
        network = sum(tensor.nbytes for tensor in model.encoder.model.state_dict().values())
    named = options.format == "peft" and base_of(options, folder) is not None
    graph = GRAPH_BYTES if options.format in ("onnx", "torch-export") else 0
    merged = " with its adapters merged as far as they can be" if FORMATS[options.format].merged else ""
    return {
        "reads": folder,
        "computes": f"the model in the format {options.format}{merged}",
        "writes": f"{storage.absolute(options.out)}: about {size(weights - (network if named else 0) + graph)}",
        "takes": takes(LOADS[options.format] * seconds / 3600),
        "rests on": f"the model, loaded now in {duration(seconds / 3600)}; its weights are as many in every format",
    }
