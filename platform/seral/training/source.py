"""A model of the labels that are there already: those of other corpora, for a target without any.

    FOLDER/<normalisation>/model/   a head for the target's features, fitted on the source's, see ser_models.transfer
    FOLDER/source.json              penalty, UAR on each corpus by the others, the speakers' guard, which one to go by

Every corpus of the source is brought to the mean and the spread of the target by its own speech. No label of the target
is read.
"""

# N clips · C classes
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from ser_models.alignment import MeanVarianceAlignment
from ser_models.fitting import PooledSet, predict_pooled
from ser_models.moments import PooledMoments
from ser_models.transfer import SourceHead, fit_source_head
from seral import storage
from seral.errors import TrainError
from seral.pool.ids import one_array, positions
from seral.task.examples import SOME, Utterances, pooled_rows
from seral.task.folds import FoldData
from seral.training.alignment import AnchorOptions
from seral.training.data import Labelled, SourceModels
from seral.training.finetune_options import FinetuneOptions
from seral.training.head import fit_options, labelled_rows, standardised_pool
from seral.training.model import model_of_head, save_model
from seral.training.normalisation import class_mixing

FILE = "source.json"
MIXED = 0.1
"""Nats that the predicted classes may be less mixed within speakers than by chance, for their means to be taken away.
EmoDB, RAVDESS and nEMO lack .02 to .06 of it, URDU, whose speakers show one emotion each, .20."""


def with_features(source: pa.Table, data: FoldData) -> pa.Table:
    """Metadata of those of the source's utterances that have features."""
    ids = data.index.present(source["utterance_id"].to_pylist())
    present = source.filter(pc.is_in(source["utterance_id"], pa.array(ids, pa.string())))
    return present.select(["utterance_id", "corpus", "speaker"])


def source_models(
    anchor: AnchorOptions | None, data: FoldData, source: pa.Table, options: FinetuneOptions, folder: str
) -> SourceModels | None:
    """Fit a model under each normalisation that the options allow, unless it is there, and write it.

    `source`: metadata of the labelled clips of other corpora. None where there are none, and where a head is no prior:
    of dimensions, with a hidden layer, anchored. Raises TrainError where no clip has one of the classes.
    """
    ids = source["utterance_id"].to_pylist()
    if not ids or anchor is not None or options.head.hidden or not data.classes:
        return None
    kinds, uri = _kinds(data, options), storage.join(folder, FILE)
    if not storage.exists(uri):
        corpus_of = dict(zip(source["utterance_id"].to_pylist(), source["corpus"].to_pylist(), strict=True))
        some = _whole_speakers(data)
        sides = SourceData(
            labelled=Labelled(data.utterances(ids), data.oracle().targets(ids)),
            corpus_N=np.array([corpus_of[name] for name in ids]),
            target=data.utterances([name for name, _ in some]),
            speaker_N=np.unique([voice for _, voice in some], return_inverse=True)[1],
        )
        facts = {kind: _make(data, sides, kind, options, storage.join(folder, kind)) for kind in kinds}
        storage.write_json(uri, {"normalise": _go_by(facts), "models": facts})
    facts = storage.read_json(uri)
    folders = {kind: storage.join(folder, kind, "model") for kind in facts["models"]}
    return SourceModels(folders=folders, normalise=facts["normalise"])


@dataclass(frozen=True, kw_only=True)
class SourceData:
    """Labelled speech of other corpora, and speech of the target without its labels."""

    labelled: Labelled
    corpus_N: NDArray[np.str_]
    """The corpus of each labelled clip."""
    target: Utterances
    """Some of the target's training clips, whole speakers."""
    speaker_N: NDArray[np.integer]
    """The speaker of each of these."""


def _kinds(data: FoldData, options: FinetuneOptions) -> list[str]:
    """Normalisations that models are made under."""
    if data.centring is None:
        return ["none"]
    return ["none", "speaker"] if options.head.normalise == "auto" else ["speaker"]


def _whole_speakers(data: FoldData) -> list[tuple[str, str]]:
    """Some training clips and their speakers, all clips of one speaker after the other, at most SOME."""
    table = data.metadata.take(positions(pa.array(data.fold.train), one_array(data.metadata["utterance_id"])))
    voice = pc.binary_join_element_wise(table["corpus"], table["speaker"], "/")
    names = np.random.default_rng(0).permutation(voice.unique().drop_null().sort().to_pylist())
    rank = pc.fill_null(pc.index_in(voice, pa.array(names)), len(names)).to_numpy()
    rows = np.argsort(rank, kind="stable")[:SOME]
    rows = rows[rank[rows] < len(names)]
    return list(zip(table["utterance_id"].take(rows).to_pylist(), voice.take(rows).to_pylist(), strict=True))


def _go_by(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The normalisation to go by before there are labels: as the options say, or as the guard says."""
    if len(facts) == 1:
        return next(iter(facts))
    mixing = facts["none"]["mixing"]
    return "speaker" if mixing["dealt"] - mixing["within"] < MIXED else "none"


def _make(data: FoldData, sides: SourceData, kind: str, options: FinetuneOptions, folder: str) -> dict[str, Any]:
    """Fit and write the model under one normalisation; what is known of it without labels of the target."""
    source, target, moments = sides.labelled.units, sides.target, data.unlabelled.moments
    if kind == "speaker" and data.centring is not None:
        source, target = (units.less(data.centring.shifts) for units in (source, target))
        moments = data.centring.moments
    pool = standardised_pool(data.store, moments, options)
    corpora = _aligned(labelled_rows(source, sides.labelled.targets), sides, moments)
    try:
        head = fit_source_head(corpora, len(data.classes), pool=pool, options=fit_options(options))
    except ValueError as error:
        raise TrainError(f"source_corpora: {error}") from error
    model = model_of_head(head.fitted, data.store, data.classes, options.head.dropout)
    save_model(storage.join(folder, "model"), model, data.store, layer=data.store.num_layers, normalise=kind)
    probability_NC, rng = _predict(head, target), np.random.default_rng(0)
    within, dealt = class_mixing(probability_NC.argmax(1), sides.speaker_N, len(data.classes), rng)
    return {
        "l2": head.l2,
        "left_out_uar": dict(head.left_out_uar),
        "labels": {corpus: len(part.label_N) for corpus, part in corpora.items()},
        "mixing": {"within": within, "dealt": dealt},
        "class_shares": dict(zip(data.classes, probability_NC.mean(0).round(4).tolist(), strict=True)),
    }


def _predict(head: SourceHead, target: Utterances) -> NDArray[np.float32]:
    rows = pooled_rows(target)
    logits_NC = predict_pooled(head.fitted, rows.mean_NLD, rows.std_NLD, rows.text_NE)
    probability_NC: NDArray[np.float32] = logits_NC.softmax(1).numpy()
    return probability_NC


def _aligned(rows: PooledSet, sides: SourceData, target: PooledMoments) -> dict[str, PooledSet]:
    """The rows of every corpus with the mean and spread of the target, by its own speech."""
    corpora, corpus_N = dict[str, PooledSet](), sides.corpus_N[sides.labelled.targets.labelled_N]
    for corpus in np.unique(corpus_N).tolist():
        part = rows.only(torch.from_numpy(corpus_N == corpus))
        alignment = MeanVarianceAlignment.of(PooledMoments.of(part.mean_NLD, part.std_NLD), target)
        mean_NLD, std_NLD = alignment(part.mean_NLD.float(), part.std_NLD.float())
        corpora[corpus] = replace(part, mean_NLD=mean_NLD, std_NLD=std_NLD)
    return corpora
