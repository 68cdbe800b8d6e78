"""Task-adaptive pretraining of an encoder on the unlabelled training audio of a fold, through Ray Train.

It is handed ids and reads their audio and nothing else: no dev, no test, no label. A few of the ids are not trained on
but listened to while it runs.

FOLDER/encoder/     the adapted encoder, as any other
FOLDER/objective.safetensors   heads and clusters of the pretraining loss (see seral.pretraining.surprisal)
FOLDER/tapt.json    written last: options, training and held-out scores by step, warnings
FOLDER/tapt.png     the same as a picture
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc
import torch

from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.errors import OptionError
from seral.options import Options
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import SplitOptions, make_folds
from seral.pretraining.options import TaptRunOptions
from seral.pretraining.tapt_run import ENCODER, OBJECTIVE, TaptSpec, tapt_worker
from seral.progress import say
from seral.task.eligibility import of_corpora
from seral.task.options import absolute_encoder
from seral.task.ray_train import STATE, last_checkpoint
from seral.task.run import claim

DONE, PICTURE = "tapt.json", "tapt.png"


def adapt_encoder(
    pool: Pool, ids: Sequence[str], encoder: str, folder: str, options: TaptRunOptions, on: ClusterOptions
) -> str:
    """Adapt an encoder to the audio of `ids`; returns the folder of the new one. Done before, it is only returned."""
    target = storage.join(folder, ENCODER)
    if storage.exists(storage.join(folder, DONE)):
        return target
    work, wanted = storage.join(folder, ".train"), tuple(sorted(ids))
    name = run_name(pool, wanted, encoder, options)
    spec = TaptSpec(
        pool=pool, ids=wanted, encoder=encoder, options=options, on=on, state=storage.join(work, name, STATE)
    )
    with last_checkpoint(tapt_worker, spec, on, what=f"TAPT of {encoder}", name=name, work=work) as local:
        storage.copy_folder(local / ENCODER, target)
        storage.write_bytes(storage.join(folder, OBJECTIVE), (local / OBJECTIVE).read_bytes())
        record: dict[str, Any] = torch.load(local / STATE, weights_only=True)["record"]
    storage.write_bytes(storage.join(folder, PICTURE), _picture(record))
    facts = {"utterances": len(ids), "encoder": encoder, "options": options.model_dump(mode="json")}
    storage.write_json(storage.join(folder, DONE), facts | record)
    return target


def run_name(pool: Pool, ids: Sequence[str], encoder: str, options: TaptRunOptions) -> str:
    """Another name for whatever would train to other weights: a run of the same name goes on from its checkpoint."""
    parts = [pool.hash, list(ids), encoder, options.model_dump(mode="json")]
    return "tapt-" + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _picture(record: dict[str, Any]) -> bytes:
    # Imported here: the loop imports this module, and drawing takes a second to load.
    from seral.figures.axes import png
    from seral.figures.studies import pretraining_curves

    return png(pretraining_curves(record["history"], record["held_out"]))


class TaptJobOptions(Options):
    """Which encoder is adapted to which audio."""

    pool: str
    """The pool; only its audio is read."""
    run: str
    """Folder of the result: the encoder is in `encoder/`."""
    encoder: str = "seral-tiny"
    """A hub id, a folder, or an embedded encoder."""
    corpora: list[str] | None = None
    """Only these corpora of the pool; None = all."""
    split: SplitOptions = SplitOptions()
    """Folds of the chosen corpora, where a fold is named."""
    fold: int | None = None
    """Hear the training part of this fold only; None = everything, dev and test of any later split included. A loop
    that leaves out classes may deal the speakers of k-fold otherwise: give it `tapt` instead."""
    tapt: TaptRunOptions = TaptRunOptions()
    cluster: ClusterOptions = ClusterOptions()
    """Without `train_workers`, progress is shown here; with one, in the worker's log."""


def pretrain(options: TaptJobOptions) -> str:
    """Adapt an encoder to a pool, or go on doing so; returns the folder of the encoder."""
    options = options.model_copy(update={"run": storage.absolute(options.run)})
    pool = open_pool(options.pool)
    encoder = absolute_encoder(options.encoder)
    ids = _ids(options, pool)
    claim(options, "pretrain", {"run", "cluster"})
    connect(options.cluster)
    say(f"TAPT of {encoder} on {len(ids)} utterances of {pool.uri}")
    return adapt_encoder(pool, ids, encoder, options.run, options.tapt, options.cluster)


def _ids(options: TaptJobOptions, pool: Pool) -> list[str]:
    table = of_corpora([pool], options.corpora)[0]
    if options.fold is None:
        names: list[str] = table.filter(pc.is_null(table["duplicate_of"]))["utterance_id"].to_pylist()
        return names
    folds = make_folds(table, options.split)
    if not 0 <= options.fold < len(folds):
        raise OptionError(f"fold {options.fold} does not exist: the split gives 0..{len(folds) - 1}")
    return list(folds[options.fold].train)
