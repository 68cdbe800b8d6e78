"""Task-adaptive pretraining of an encoder on the unlabelled training audio of a fold, through Ray Train.

It is handed ids and reads their audio and nothing else: no dev, no test, no label. A few of the ids are not trained on
but held out while it runs.

FOLDER/encoder/ objective.safetensors   see seral.pretraining.layout
FOLDER/tapt.json    written last: options, training and held-out scores by step, warnings
FOLDER/tapt.png     the same as a picture
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.compute as pc

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import lowest_trainable_layer
from ser_models.encoders import load_encoder
from ser_models.objectives import OBJECTIVES, find_objective
from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.errors import OptionError
from seral.features.audio import extract_features
from seral.features.precomputed import need_network
from seral.features.provenance import hand_down
from seral.features.store import FeatureStore
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import make_folds
from seral.pretraining.layout import ENCODER, OBJECTIVE, OBJECTIVE_SUM
from seral.pretraining.local_attributes import LocalAttributesSpec
from seral.pretraining.masked_prediction import TaptSpec
from seral.pretraining.options import TaptJobOptions, TaptRunOptions
from seral.pretraining.trainer import PretrainingSpec, run_name, train_to_end
from seral.progress import say
from seral.task.eligibility import of_corpora
from seral.task.options import absolute_encoder
from seral.task.ray_train import STATE, WORK, read_state
from seral.task.run import claim

DONE, PICTURE = "tapt.json", "tapt.png"
CURVES = ("loss", "accuracy", "z_std", "perplexity")
"""Panels of the picture, of what the objective measures."""


Features = Callable[[str, int | None], FeatureStore]
"""(encoder, hidden state) -> the features of a pool, with the frames of that hidden state."""


def adapt_encoder(
    pool: Pool,
    ids: Sequence[str],
    encoder: str,
    folder: str,
    options: TaptRunOptions,
    on: ClusterOptions,
    features: Features | None = None,
) -> str:
    """Adapt an encoder to the audio of `ids`; returns the folder of the new one. Done before, it is only returned.

    An objective that reads cached frames takes them from `features`; None = those of the pool, with the usual options.
    """
    target, work, wanted = storage.join(folder, ENCODER), storage.join(folder, WORK), tuple(sorted(ids))
    if storage.exists(storage.join(folder, DONE)):
        storage.remove(work)
        return target
    name = run_name("tapt", pool.hash, list(wanted), encoder, options.model_dump(mode="json"))
    state = storage.join(work, name, STATE)
    spec: PretrainingSpec
    if reads_frames(encoder, options):
        store = (features or _features(pool, on))(encoder, _frames_layer(encoder, options))
        spec = LocalAttributesSpec(store=store, ids=wanted, options=options, on=on, state=state)
    else:
        spec = TaptSpec(pool=pool, ids=wanted, encoder=encoder, options=options, on=on, state=state)
    with train_to_end(spec, what=f"TAPT of {encoder}", name=name, work=work) as local:
        storage.copy_folder(local / ENCODER, target)
        hand_down([encoder], target)
        storage.copy_file(local / OBJECTIVE, storage.join(folder, OBJECTIVE))
        record: dict[str, Any] = read_state(local / STATE)["record"]
        storage.write_bytes(storage.join(folder, PICTURE), _picture(record))
        facts = {"utterances": len(ids), "encoder": encoder, "options": options.model_dump(mode="json")}
        facts[OBJECTIVE_SUM] = storage.checksum(local / OBJECTIVE).sha256
        storage.write_json(storage.join(folder, DONE), facts | record)  # before the state to go on from is removed
    return target


def reads_frames(encoder: str, options: TaptRunOptions) -> bool:
    """Whether the objective reads cached frames. Raises OptionError for an objective that does not fit the encoder."""
    if options.objective is None:
        return False  # what fits a family by itself reads waves
    try:
        kind = find_objective(options.objective, load_encoder(encoder).family)
    except ValueError as error:
        raise OptionError(f"{encoder}: {error}") from error
    return OBJECTIVES[kind].reads == "frames"


def _frames_layer(encoder: str, options: TaptRunOptions) -> int:
    """The hidden state that the adapter stands on."""
    adapter = str(OBJECTIVES[str(options.objective)].adapter)
    try:
        attached = attach_adapters(load_encoder(encoder), {adapter: options.adapter_options(adapter)}, seed=0)
    except ValueError as error:
        raise OptionError(f"{encoder}: {error}") from error
    return lowest_trainable_layer(attached)


def _features(pool: Pool, on: ClusterOptions) -> Features:
    return lambda encoder, layer: extract_features(pool, encoder, frames_layer=layer, on=on)


def _picture(record: dict[str, Any]) -> bytes:
    # Imported here: the loop imports this module, and drawing takes a second to load.
    from seral.figures.axes import png
    from seral.figures.studies import pretraining_curves

    rows = record["held_out"] or record["history"]
    names = tuple(name for name in CURVES if name in rows[0]) if rows else CURVES[:1]
    return png(pretraining_curves(record["history"], record["held_out"], names))


def pretrain(options: TaptJobOptions) -> str:
    """Adapt an encoder to a pool, or go on doing so; returns the folder of the encoder."""
    options = options.model_copy(update={"run": storage.absolute(options.run)})
    pool = open_pool(options.pool)
    encoder = absolute_encoder(options.encoder)
    need_network(encoder, "a pretraining")
    ids = training_ids(options, pool)
    claim(options, "pretrain", {"run", "cluster"})
    connect(options.cluster)
    say(f"TAPT of {encoder} on {len(ids)} utterances of {pool.uri}")
    return adapt_encoder(pool, ids, encoder, options.run, options.tapt, options.cluster)


def training_ids(options: TaptJobOptions, pool: Pool) -> list[str]:
    """Ids of the clips that a pretraining hears. Raises OptionError for a fold that there is not."""
    table = of_corpora([pool], options.corpora)[0]
    if options.fold is None:
        names: list[str] = table.filter(pc.is_null(table["duplicate_of"]))["utterance_id"].to_pylist()
        return names
    folds = make_folds(table, options.split)
    if not 0 <= options.fold < len(folds):
        raise OptionError(f"fold {options.fold} does not exist: the split gives 0..{len(folds) - 1}")
    return list(folds[options.fold].train)
