"""Adapting an encoder to emotions by labels of other corpora, before a loop on a corpus it has not heard.

RUN/encoder/                the encoder, as any other: what the adapters learnt is merged into its weights
RUN/encoder/labels.parquet  the clips it has learnt from: a task on any of them, or their speakers, is refused
RUN/left-out/<corpus>/      encoders that have learnt from all corpora but one, and what they are worth on that one
RUN/adapt.json, table.md    loss by step; UAR on each corpus by labels of the others, adapted and frozen
RUN/adapt.png               the loss as a picture
"""

# N clips · B clips · T frames · L hidden states · D features · C classes
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ser_models.adaptation import AdaptationOptions
from ser_models.alignment import MeanVarianceAlignment
from ser_models.fitting import FitOptions, PooledSet, fit_head, predict_pooled
from ser_models.heads import LayerPool
from ser_models.intervals import mean_interval
from ser_models.metrics import uar
from ser_models.moments import PooledMoments
from ser_models.transfer import USUAL_L2, classes_of, together
from seral import storage
from seral.features.audio import extract_features
from seral.features.frames import keep_frames
from seral.features.provenance import LEARNT, hand_down
from seral.figures.markdown import markdown
from seral.pool.shards import open_pool
from seral.pretraining.layout import ENCODER
from seral.pretraining.trainer import run_name, train_to_end
from seral.progress import say
from seral.task.cells import write_table
from seral.task.context import open_run
from seral.task.examples import Utterances
from seral.task.ray_train import STATE, WORK, read_state
from seral.training.adaptation_steps import AdaptationSpec, LabelledClips, corpora_of
from seral.training.finetune import frames_layer
from seral.training.finetune_options import FinetuneOptions
from seral.training.head import labelled_rows, standardised_pool
from seral.training.options import AdaptOptions, corpora_in
from seral.training.scoring import features_from_frames
from seral.training.sources import LabelledSpeech, Speech, labelled_speech

MAY_CHANGE = {"run", "cluster", "left_out"}
DONE, PICTURE, LEFT_OUT = "adapt.json", "adapt.png", "left-out"


def run_adapt(options: AdaptOptions) -> str:
    """Adapt the encoder, or go on doing so, and judge it; returns the table as text."""
    context = open_run(options, "adapt", MAY_CHANGE)
    options = context.options
    store = context.features()
    training = options.finetune(store.num_layers)
    layer = frames_layer(options.encoder, training)
    parts = list[LabelledSpeech]()
    for source in options.parts:
        parts.append(labelled_speech(source, options, lambda uri: _speech(options, uri), training))
        keep_frames(parts[-1].speech.store, layer or 0, parts[-1].ids, options.cluster)
    clips = [
        LabelledClips(store=part.speech.store, ids=tuple(part.ids), targets=part.targets, corpus_N=part.corpus_N)
        for part in parts
    ]
    spec = AdaptationSpec(
        encoder=options.encoder,
        adapters=training.adapters(),
        clips=tuple(clips),
        layer=layer or 0,
        classes=tuple(options.classes),
        options=AdaptationOptions(lr=options.lr, smoothing=options.smoothing),
        epochs=options.epochs,
        batch_size=options.batch_size,
        checkpoint_every=options.checkpoint_every,
        seed=options.seeds[0],
        on=options.cluster,
        state="",
    )
    names = corpora_of(clips)
    say(f"{sum(len(part.ids) for part in clips)} labelled clips of {', '.join(names)}")
    learnt = pa.concat_tables([part.learnt.select(LEARNT.names) for part in parts])
    record = _train(spec, options.run, learnt)
    rows = []
    if options.left_out and len(names) > 1:
        rows = [_left_out(spec, name, names, options, training) for name in names]
    elif options.left_out:
        say("one corpus has no other to learn from: what the encoder is worth is not said")
    context.write_environment(f"{len(options.classes)}c-adapt", {})
    storage.tidy(options.run)
    return _write(options, record, rows)


def _speech(options: AdaptOptions, uri: str) -> Speech:
    pool = open_pool(uri)
    own = options.feature_cache if uri == options.pool else None
    store = extract_features(
        pool,
        options.encoder,
        uri=own,
        options=options.features,
        on=options.cluster,
        corpora=corpora_in(options.parts, uri),
    )
    return Speech(store=store, index=store.index(), metadata=pool.metadata)


def _train(spec: AdaptationSpec, folder: str, learnt: pa.Table) -> dict[str, Any]:
    """Train to the end, unless that has been done; returns the record of the training."""
    done = storage.join(folder, DONE)
    work = storage.join(folder, WORK)
    if storage.exists(done):
        storage.remove(work)
        record: dict[str, Any] = storage.read_json(done)["training"]
        return record
    name = run_name("adapt", *spec.identity())
    spec = replace(spec, state=storage.join(work, name, STATE))
    with train_to_end(spec, what=f"adapting {spec.encoder}", name=name, work=work) as local:
        target = storage.join(folder, ENCODER)
        storage.copy_folder(local / ENCODER, target)
        hand_down([spec.encoder], target, learnt)
        record = read_state(local / STATE)["record"]
        storage.write_json(done, {"training": record})  # before the state to go on from is removed
    return record


def _left_out(
    spec: AdaptationSpec, name: str, names: Sequence[str], options: AdaptOptions, training: FinetuneOptions
) -> dict[str, Any]:
    """UAR on a corpus by labels of the others, with an encoder that they have adapted and with the frozen one."""
    folder = storage.join(options.run, LEFT_OUT, name)
    done = storage.join(folder, "uar.json")
    if storage.exists(done):
        row: dict[str, Any] = storage.read_json(done)
        return row
    others = tuple(part.without(name) for part in spec.clips)
    less = replace(spec, clips=tuple(part for part in others if part.ids))
    say(f"without {name}")
    learnt = pa.table({"utterance_id": [i for part in less.clips for i in part.ids]})
    columns = {"corpus": np.concatenate([part.corpus_N for part in less.clips]), "speaker": [None] * learnt.num_rows}
    _train(less, folder, pa.table({"utterance_id": learnt["utterance_id"], **columns}))
    uars = {}
    for kind, encoder in (("frozen", spec.encoder), ("adapted", storage.join(folder, ENCODER))):
        rows = dict[str, list[PooledSet]]()
        for part in spec.clips:
            units = part.utterances()
            if kind == "adapted":
                (units,) = features_from_frames(encoder, part.store, spec.layer, units)
            for corpus in names:
                if (part.corpus_N == corpus).any():
                    rows.setdefault(corpus, []).append(_rows(part, units, corpus))
        whole = {corpus: together(dict(enumerate(parts))) for corpus, parts in rows.items()}
        uars[kind] = carried_over(whole, name, len(spec.classes), spec.clips[0].store, training)
    row = {"corpus": name, "labels": int((whole[name].label_N >= 0).sum()), **uars}
    storage.write_json(done, row)
    return row


def _rows(part: LabelledClips, units: Utterances, corpus: str) -> PooledSet:
    own_N = part.corpus_N == corpus
    return labelled_rows(units.rows(own_N), part.targets.rows(own_N.nonzero()[0].tolist()))


def carried_over(
    corpora: dict[str, PooledSet], left_out: str, num_classes: int, store: Any, training: FinetuneOptions
) -> float:
    """UAR on those clips of a corpus that have a class, one of the others', by a head of these on the middle states.

    Every corpus is brought to the mean and spread of the one that is left out.
    """
    own = corpora[left_out]
    moments = PooledMoments.of(own.mean_NLD, own.std_NLD)
    others = dict[str, PooledSet]()
    for name, rows in corpora.items():
        if name != left_out:
            move = MeanVarianceAlignment.of(PooledMoments.of(rows.mean_NLD, rows.std_NLD), moments)
            mean_NLD, std_NLD = move(rows.mean_NLD.float(), rows.std_NLD.float())
            others[name] = replace(rows, mean_NLD=mean_NLD, std_NLD=std_NLD)
    pool: LayerPool = standardised_pool(store, moments, training.head_only)
    labelled = together(others)
    fitted = fit_head(labelled, num_classes, pool=pool, options=FitOptions(l2=USUAL_L2, learn_layers=False))
    shared_N = torch.isin(own.label_N, classes_of({"others": labelled}, num_classes))
    predicted_N = predict_pooled(fitted, own.mean_NLD, own.std_NLD, own.text_NE).argmax(1)
    return uar(own.label_N[shared_N].numpy(), predicted_N[shared_N].numpy())


def _write(options: AdaptOptions, record: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    # Imported here: drawing takes a second to load, and workers import this module.
    from seral.figures.axes import png
    from seral.figures.studies import pretraining_curves

    facts = {"training": record, "left_out": rows, "encoder": options.encoder, "classes": options.classes}
    storage.write_json(storage.join(options.run, DONE), facts)
    picture = png(pretraining_curves(record["history"], [], ("loss", "accuracy")))
    storage.write_bytes(storage.join(options.run, PICTURE), picture)
    if not rows:
        return f"the encoder is in {storage.join(options.run, ENCODER)}"
    table = pd.DataFrame(rows)
    table["gain"] = table["adapted"] - table["frozen"]
    shown = pd.DataFrame(
        {
            "corpus left out": table["corpus"],
            "clips": table["labels"],
            "UAR by labels of the others": [f"{100 * value:.1f}" for value in table["frozen"]],
            "adapted by them": [f"{100 * value:.1f}" for value in table["adapted"]],
            "gain": [f"{100 * value:+.1f}" for value in table["gain"]],
        }
    )
    low, high, _ = mean_interval(table["gain"].to_numpy(np.float64))
    interval = "" if np.isnan(low) else f" (95 % interval over the corpora {100 * low:+.1f} to {100 * high:+.1f})"
    lines = [
        f"The encoder is in {storage.join(options.run, ENCODER)}.",
        f"No label of a corpus that is left out: {100 * table['gain'].mean():+.1f} points of UAR{interval}.",
        "",
        markdown(shown),
    ]
    return write_table(options.run, table, shown="\n".join(lines))
