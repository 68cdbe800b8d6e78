"""A model of the labels that are there already: those of other corpora, for a target without any.

    FOLDER/<normalisation>/model/   a head for the target's features, fitted on the source's, see ser_models.transfer
    FOLDER/source.json              penalty, UAR on each corpus by the others, the speakers' guard, which one to go by

Every corpus of the source is brought to the mean and the spread of the target by its own speech. No label of the target
is read.
"""

# N clips · C classes
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from ser_models.alignment import MeanVarianceAlignment
from ser_models.fitting import PooledSet, predict_pooled
from ser_models.moments import PooledMoments
from ser_models.transfer import LABELS_OF_L2, SourceHead, fit_source_head
from seral import storage
from seral.errors import OptionError, TrainError
from seral.features.provenance import check_unheard
from seral.features.speakers import Centring, SpeakerShifts
from seral.features.store import FeatureStore
from seral.pool.ids import Ids, one_array, positions
from seral.task.examples import SOME, Targets, Utterances, pooled_rows
from seral.task.folds import FoldData
from seral.training.data import Labelled, SourceModels
from seral.training.finetune_options import FinetuneOptions
from seral.training.head import fit_options, labelled_rows, standardised_pool
from seral.training.model import model_of_head, read_outputs, save_model
from seral.training.normalisation import are_mixed, class_mixing
from seral.training.options import TrainingOptions
from seral.training.raters import raters_of_corpora
from seral.training.scoring import votes_metrics

MODELS = "models"
"""Folder of the models in a run of `seral transfer`."""
FILE = "source.json"


@dataclass(frozen=True, kw_only=True)
class SourceSpeech:
    """Labelled speech of other corpora."""

    views: Mapping[str, Utterances]
    """Normalisation -> the clips."""
    targets: Targets
    corpus_N: NDArray[np.str_]
    """The corpus of each clip."""
    votes_NC: NDArray[np.float32] | None = None
    """Shares of raters' votes as they were given, to judge by; None = nobody voted."""


@dataclass(frozen=True, kw_only=True)
class TargetSpeech:
    """Speech of the target without its labels."""

    views: Mapping[str, Utterances]
    """Normalisation -> some clips, of whole speakers."""
    speaker_N: NDArray[np.integer]
    """The speaker of each of these."""
    corpus_N: NDArray[np.integer]
    """The corpus of each of these."""
    moments: Mapping[str, PooledMoments]
    """Normalisation -> moments of all clips."""


def with_features(source: pa.Table, data: FoldData) -> pa.Table:
    """Metadata of those of the source's utterances that have features."""
    ids = data.index.present(source["utterance_id"].to_pylist())
    present = source.filter(pc.is_in(source["utterance_id"], pa.array(ids, pa.string())))
    return present.select(["utterance_id", "corpus", "speaker"])


def source_models(options: TrainingOptions, data: FoldData, source: pa.Table, folder: str) -> SourceModels | None:
    """The models of the source of a run: those of its `prior`, or of its source's clips, made where they are missing.

    `source`: metadata of the labelled clips of other corpora. None where there is no source, and where a head is no
    prior: of dimensions, with a hidden layer, anchored. Raises TrainError where no clip has one of the classes, and
    OptionError for a prior of other classes, or one that has learnt from labels of the fold's clips or speakers.
    """
    ids, training = source["utterance_id"].to_pylist(), options.finetune
    if options.anchor is not None or training.head.hidden or not data.classes:
        return None
    if options.prior is not None:
        own = storage.join(options.prior, MODELS)
        check_unheard(own, data.metadata, chain(data.fold.train, data.fold.dev, data.fold.test))
        return read_source_models(own, data.classes)
    if not ids:
        return None
    if not storage.exists(storage.join(folder, FILE)):
        corpus_of = dict(zip(source["utterance_id"].to_pylist(), source["corpus"].to_pylist(), strict=True))
        shifts = {kind: data.shifts.get(kind) for kind in kinds(training, data.centrings)}
        names, speaker_N, own_corpus_N = whole_speakers(data.metadata, data.fold.train)
        moments = {"none": data.unlabelled.moments}
        moments |= {kind: centring.moments for kind, centring in data.centrings.items()}
        labelled, some = data.utterances(ids), data.utterances(names)
        corpus_N = np.array([corpus_of[name] for name in ids])
        clips = Labelled(labelled, data.oracle().targets(ids))
        targets = raters_of_corpora(clips, corpus_N, data.store, data.classes, training)
        make_source_models(
            SourceSpeech(
                views={
                    kind: source_view(
                        labelled, taken if kind == "speaker" else None, targets, corpus_N, len(data.classes)
                    )
                    for kind, taken in shifts.items()
                },
                targets=targets,
                corpus_N=corpus_N,
                votes_NC=clips.targets.soft_NC,
            ),
            TargetSpeech(
                views={kind: view(some, taken) for kind, taken in shifts.items()},
                speaker_N=speaker_N,
                corpus_N=own_corpus_N,
                moments=moments,
            ),
            data.store,
            data.classes,
            training,
            folder,
        )
    return read_source_models(folder, data.classes)


def source_view(
    units: Utterances, shifts: SpeakerShifts | None, targets: Targets, corpus_N: NDArray[np.str_], num_classes: int
) -> Utterances:
    """Labelled utterances less the shifts of their speakers, but for corpora whose speakers show one emotion each."""
    if shifts is None:
        return units
    speaker_N, centred = shifts.speakers.rows(units.ids), units.less(shifts)
    mean_NLD, std_NLD = centred.mean_NLD.copy(), centred.std_NLD.copy()
    for corpus in np.unique(corpus_N).tolist():
        own_N = (corpus_N == corpus) & targets.decided_N
        rng = np.random.default_rng(0)
        if not are_mixed(*class_mixing(targets.label_N[own_N], speaker_N[own_N], num_classes, rng)):
            rows_N = corpus_N == corpus
            mean_NLD[rows_N], std_NLD[rows_N] = units.mean_NLD[rows_N], units.std_NLD[rows_N]
    return replace(centred, mean_NLD=mean_NLD, std_NLD=std_NLD)


def view(units: Utterances, shifts: SpeakerShifts | None) -> Utterances:
    """Utterances less the shifts of their speakers, if there are any."""
    return units if shifts is None else units.less(shifts)


def kinds(options: FinetuneOptions, centrings: Mapping[str, Centring]) -> list[str]:
    """Normalisations that models of a source are made under."""
    wanted = options.head.normalise
    return ["none", *centrings] if wanted == "auto" else [wanted if wanted in centrings else "none"]


def whole_speakers(metadata: pa.Table, ids: Ids) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """A sample of clips, SOME at most, speaker after speaker, and the numbers of the speaker and corpus of each."""
    table = metadata.take(positions(pa.array(ids), one_array(metadata["utterance_id"])))
    voice = pc.binary_join_element_wise(table["corpus"], table["speaker"], "/")
    names = np.random.default_rng(0).permutation(voice.unique().drop_null().sort().to_pylist())
    rank_N = pc.fill_null(pc.index_in(voice, pa.array(names, pa.string())), len(names)).to_numpy()
    row_N = np.argsort(rank_N, kind="stable")[:SOME]
    corpus_N = np.unique(table["corpus"].to_pylist(), return_inverse=True)[1]
    return table["utterance_id"].take(row_N).to_pylist(), rank_N[row_N].astype(np.int64), corpus_N[row_N]


def make_source_models(
    source: SourceSpeech,
    target: TargetSpeech,
    store: FeatureStore,
    classes: Sequence[str],
    options: FinetuneOptions,
    folder: str,
) -> None:
    """Fit a model under each normalisation and write them, with what is known of them without labels of the target."""
    facts = {}
    for kind, clips in source.views.items():
        pool = standardised_pool(store, target.moments[kind], options)
        corpora = _aligned(labelled_rows(clips, source.targets), source, target.moments[kind])
        try:
            head = fit_source_head(corpora, len(classes), pool=pool, options=fit_options(options))
        except ValueError as error:
            raise TrainError(f"labels of other corpora: {error}") from error
        model = model_of_head(head.fitted, store, classes, options.head.dropout)
        save_model(storage.join(folder, kind, "model"), model, store, layer=store.num_layers, normalise=kind)
        rows = pooled_rows(target.views[kind])
        predicted_N = predict_pooled(head.fitted, rows.mean_NLD, rows.std_NLD, rows.text_NE).argmax(1).numpy()
        mixing = {
            name: class_mixing(predicted_N, group_N, len(classes), np.random.default_rng(0))
            for name, group_N in (("speaker", target.speaker_N), ("corpus", target.corpus_N))
        }
        facts[kind] = {
            "l2": head.l2,
            "temperature": head.temperature,
            "left_out_uar": dict(head.left_out_uar),
            "left_out_votes": _by_votes(head, source),
            "labels": {corpus: len(part.label_N) for corpus, part in corpora.items()},
            "mixing": {name: {"within": within, "dealt": dealt} for name, (within, dealt) in mixing.items()},
        }
    storage.write_json(storage.join(folder, FILE), {"normalise": _go_by(facts), "models": facts})


def _by_votes(head: SourceHead, source: SourceSpeech) -> dict[str, dict[str, float]]:
    """Agreement of heads of the others with the raters of each corpus that has some."""
    if source.votes_NC is None:
        return {}
    learnt_N = source.targets.labelled_N
    votes_NC, corpus_N = source.votes_NC[learnt_N], source.corpus_N[learnt_N]
    by_corpus = {
        corpus: votes_metrics(votes_NC[corpus_N == corpus], part_NC.numpy())
        for corpus, part_NC in head.left_out_NC.items()
    }
    return {corpus: agreement for corpus, agreement in by_corpus.items() if agreement}


def read_source_facts(folder: str) -> dict[str, Any]:
    """The content of source.json. Raises OptionError where there is none."""
    uri = storage.join(folder, FILE)
    if not storage.exists(uri):
        raise OptionError(
            f"there are no models of a source at {folder}: give the folder of a finished `seral transfer`"
        )
    facts: dict[str, Any] = storage.read_json(uri)
    return facts


def read_source_models(folder: str, classes: Sequence[str]) -> SourceModels:
    """The models of a folder. Raises OptionError where they are of other classes."""
    facts = read_source_facts(folder)
    folders = {kind: storage.join(folder, kind, "model") for kind in facts["models"]}
    own, _ = read_outputs(folders[facts["normalise"]])
    if own != list(classes):
        raise OptionError(
            f"{folder} tells {', '.join(own)} apart, and this run {', '.join(classes)}: in this order too"
        )
    labels = {kind: LABELS_OF_L2 * model["l2"] for kind, model in facts["models"].items()}
    return SourceModels(folders=folders, normalise=facts["normalise"], labels=labels)


def _go_by(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """The normalisation to go by before there are labels: as the options say, or as the guard says."""
    if len(facts) == 1:
        return next(iter(facts))
    for kind in ("speaker", "corpus"):
        if kind in facts and are_mixed(**facts["none"]["mixing"][kind]):
            return kind
    return "none"


def _aligned(rows: PooledSet, source: SourceSpeech, target: PooledMoments) -> dict[str, PooledSet]:
    """The rows of every corpus with the mean and spread of the target, by its own speech."""
    corpora, corpus_N = dict[str, PooledSet](), source.corpus_N[source.targets.labelled_N]
    for corpus in np.unique(corpus_N).tolist():
        part = rows.only(torch.from_numpy(corpus_N == corpus))
        alignment = MeanVarianceAlignment.of(PooledMoments.of(part.mean_NLD, part.std_NLD), target)
        mean_NLD, std_NLD = alignment(part.mean_NLD.float(), part.std_NLD.float())
        corpora[corpus] = replace(part, mean_NLD=mean_NLD, std_NLD=std_NLD)
    return corpora
