"""A model for a pool that has no label, from all labels there are of other corpora, and what it says of the pool.

    RUN/models/<normalisation>/model/   see seral.training.source
    RUN/models/labels.parquet           the clips whose labels they have learnt from
    RUN/models/source.json              penalty, UAR on each corpus by a head of the others, the speakers' guard
    RUN/predictions/<shard>.parquet     class, confidence and calibrated probabilities of every clip
    RUN/transfer.json, table.md         what it may be worth, the labels of each corpus, the shares of the classes
    RUN/table.png                       the same as a picture

Every corpus is brought to the mean and the spread of the pool, and no label of the pool is read.
"""

# N clips · C classes
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ser_models.intervals import mean_interval
from ser_models.moments import PooledMoments
from seral import storage
from seral.errors import FeatureError, OptionError
from seral.features.audio import extract_features
from seral.features.moments import pooled_moments
from seral.features.provenance import LEARNT, check_unheard, hand_down, learnt_from
from seral.features.speakers import Centring, SpeakerShifts, centrings, speaker_sums
from seral.figures.markdown import markdown
from seral.pool.ids import Ids
from seral.pool.shards import open_pool
from seral.progress import say, track
from seral.task.cells import write_table
from seral.task.context import RunContext, open_run
from seral.task.eligibility import askable
from seral.task.examples import Targets, Utterances
from seral.training.finetune_options import FinetuneOptions
from seral.training.options import TransferOptions, corpora_in
from seral.training.scoring import Float, Scorer
from seral.training.source import (
    MODELS,
    SourceSpeech,
    TargetSpeech,
    kinds,
    make_source_models,
    read_source_facts,
    read_source_models,
    source_view,
    view,
    whole_speakers,
)
from seral.training.sources import Speech, labelled_speech

MAY_CHANGE = {"run", "cluster"}
PREDICTIONS = "predictions"
FEW = 6
"""Corpora from which on there is an interval instead of a range."""


def run_transfer(options: TransferOptions) -> str:
    """Fit what is missing, predict the pool and write the tables; returns what they say as Markdown."""
    context = open_run(options, "transfer", MAY_CHANGE)
    options, folder = context.options, storage.join(context.options.run, MODELS)
    target, training = _target(context), FinetuneOptions(head=options.head)
    ids = Ids(sorted(target.ids))
    if not ids:
        raise OptionError(f"no clip of {options.pool} has features and is not of a source: there is no target")
    check_unheard(options.encoder, target.metadata, ids)
    moments = pooled_moments(target.store, target.index, {"target": ids})["target"]
    made = _centrings(target, ids, options, moments)
    shifts = {kind: centring.shifts for kind, centring in made.items()}
    if not storage.exists(storage.join(folder, "source.json")):
        names, speaker_N, corpus_N = whole_speakers(target.metadata, ids)
        some, of_kind = target.utterances(names), {"none": moments}
        of_kind |= {kind: centring.moments for kind, centring in made.items()}
        make_source_models(
            _source(context, target, kinds(training, made), made.get("speaker")),
            TargetSpeech(
                views={kind: view(some, shifts.get(kind)) for kind in of_kind},
                speaker_N=speaker_N,
                corpus_N=corpus_N,
                moments=of_kind,
            ),
            target.store,
            options.classes,
            training,
            folder,
        )
    shares_C = _predict(options, target, ids, shifts)
    context.write_environment(f"{len(options.classes)}c-transfer", {})
    storage.tidy(options.run)
    return _write(options, len(ids), shares_C)


def _target(context: RunContext[TransferOptions]) -> Speech:
    options, pool = context.options, context.pool
    own = [source.corpora for source in options.sources if source.pool == options.pool]
    corpora = options.corpora
    if own and corpora is None:
        if None in own:
            raise OptionError("all corpora of the pool are sources: name those that are the target with corpora")
        labelled = {name for names in own if names is not None for name in names}
        corpora = sorted(set(pool.column("corpus").unique().to_pylist()) - labelled)
    if both := sorted({name for names in own for name in names or corpora or ()} & set(corpora or ())):
        raise OptionError(f"{both[0]} of {options.pool} is target and source; choose one")
    store = context.features()
    return Speech(store=store, index=store.index(), metadata=askable(pool, corpora))


def _centrings(target: Speech, ids: Ids, options: TransferOptions, moments: PooledMoments) -> dict[str, Centring]:
    """The means of the target's speakers or corpora, where the options ask for them."""
    if options.head.normalise == "none":
        return {}
    try:
        sums = speaker_sums(target.store, target.index, target.metadata, ids)
        return centrings(sums, ids, moments, options.head.normalise)
    except FeatureError as error:
        if options.head.normalise != "auto":
            raise
        say(f"no means are taken away: {error}")
        return {}


def _source(
    context: RunContext[TransferOptions], target: Speech, names: Sequence[str], centring: Centring | None
) -> SourceSpeech:
    """The labelled clips of all sources, under every normalisation."""
    options, parts = context.options, dict[str, list[Utterances]]()
    targets, voted = list[Targets](), list[Targets]()
    corpora, learnt = list[NDArray[np.str_]](), list[pa.Table]()

    def speech_of(uri: str) -> Speech:
        return target if uri == options.pool else _features(uri, context)

    for source in options.sources:
        labelled = labelled_speech(source, options, speech_of, FinetuneOptions(head=options.head))
        speech, ids, shifts = labelled.speech, labelled.ids, None
        units = speech.utterances(ids)
        if centring is not None:
            sums = speaker_sums(speech.store, speech.index, speech.metadata, ids)
            shifts = sums.shifts(centring.moments.mean.mean, centring.moments.std.mean)
        learnt.append(labelled.learnt.select(LEARNT.names))
        targets.append(labelled.targets)
        voted.append(replace(labelled.targets, soft_NC=labelled.votes_NC))
        corpora.append(labelled.corpus_N)
        for kind in names:
            taken = shifts if kind == "speaker" else None
            clips = source_view(units, taken, labelled.targets, labelled.corpus_N, len(options.classes))
            parts.setdefault(kind, []).append(clips)
    hand_down([options.encoder], storage.join(options.run, MODELS), pa.concat_tables(learnt))
    views = {kind: _together(units) for kind, units in parts.items()}
    return SourceSpeech(
        views=views,
        targets=Targets.joined(targets),
        corpus_N=np.concatenate(corpora),
        votes_NC=Targets.joined(voted).soft_NC,
    )


def _features(uri: str, context: RunContext[TransferOptions]) -> Speech:
    options, pool = context.options, open_pool(uri)
    corpora = corpora_in(options.sources, uri)
    store = extract_features(pool, options.encoder, options=options.features, on=options.cluster, corpora=corpora)
    return Speech(store=store, index=store.index(), metadata=pool.metadata)


def _together(parts: Sequence[Utterances]) -> Utterances:
    """The clips of all parts, one after the other; an id may come twice, from two pools."""
    return Utterances(
        ids=[name for part in parts for name in part.ids],
        mean_NLD=np.concatenate([part.mean_NLD for part in parts]),
        std_NLD=np.concatenate([part.std_NLD for part in parts]),
    )


def _predict(options: TransferOptions, target: Speech, ids: Ids, shifts: Mapping[str, SpeakerShifts]) -> Float:
    """Write the predictions that are missing; the share of each class in all of them, (C,)."""
    folder = storage.join(options.run, MODELS)
    facts, models = read_source_facts(folder), read_source_models(folder, options.classes)
    temperature, out = facts["models"][models.normalise]["temperature"], storage.join(options.run, PREDICTIONS)
    scorer, count_C = Scorer(models.folder, target.store, options.cluster, shifts), np.zeros(len(options.classes))
    rows_of = target.index.rows_by_shard(ids)
    with track("predictions", len(rows_of)) as advance:
        for shard, row_N in rows_of.items():
            uri = storage.join(out, f"{shard}.parquet")
            if not storage.exists(uri):
                part = target.store.read_shard(shard, row_N)
                units = Utterances(ids=part.ids, mean_NLD=part.mean_NLD, std_NLD=part.std_NLD, text_NE=part.text_NE)
                log_NC = np.log(np.maximum(scorer(units, shard=shard).probability_NC, 1e-9)) / temperature
                probability_NC = np.exp(log_NC - np.logaddexp.reduce(log_NC, axis=1, keepdims=True))
                with target.store.pool.publishing(lambda uri=uri: [uri]):  # type: ignore[misc]  # of this turn
                    storage.write_table(uri, _table(part.ids, probability_NC, options.classes))
            done = storage.read_table(uri, ["predicted"])["predicted"]
            count_C += [pc.sum(pc.equal(done, name)).as_py() or 0 for name in options.classes]
            advance(1)
    shares_C: Float = (count_C / count_C.sum()).astype(np.float32)
    return shares_C


def _table(ids: Sequence[str], probability_NC: Float, classes: Sequence[str]) -> pa.Table:
    columns: dict[str, Any] = {
        "utterance_id": ids,
        "predicted": [classes[row] for row in probability_NC.argmax(1)],
        "confidence": probability_NC.max(1).astype(np.float32),
    }
    columns |= {f"p_{name}": probability_NC[:, row].astype(np.float32) for row, name in enumerate(classes)}
    return pa.table(columns)


def _write(options: TransferOptions, clips: int, shares_C: Float) -> str:
    # Imported here: drawing takes a second to load.
    from seral.figures.studies import transferred

    facts = read_source_facts(storage.join(options.run, MODELS))
    chosen: Mapping[str, Any] = facts["models"][facts["normalise"]]
    uars, votes = chosen["left_out_uar"], chosen.get("left_out_votes", {})
    mean, low, high = _worth(list(uars.values()))
    shares = dict(zip(options.classes, shares_C.tolist(), strict=True))
    result = {
        "clips": clips,
        "normalise": facts["normalise"],
        "mixing": chosen["mixing"],
        "expected_uar": {"mean": mean, "low": low, "high": high},
        "left_out_uar": uars,
        "left_out_votes": votes,
        "labels": chosen["labels"],
        "class_shares": {name: round(share, 4) for name, share in shares.items()},
        "temperature": chosen["temperature"],
    }
    storage.write_json(storage.join(options.run, "transfer.json"), result)
    corpora = pd.DataFrame(
        {
            "corpus": list(chosen["labels"]),
            "labels": list(chosen["labels"].values()),
            "UAR by the others": [f"{100 * uars[name]:.1f}" if name in uars else "" for name in chosen["labels"]],
        }
    )
    for name in sorted({name for agreement in votes.values() for name in agreement}):
        values = [votes.get(corpus, {}).get(name) for corpus in corpora["corpus"]]
        corpora[name] = ["" if value is None else f"{value:.3f}" for value in values]
    lines = [
        f"{clips} clips by {sum(chosen['labels'].values())} labels of {len(chosen['labels'])} corpora; "
        f"normalise: {facts['normalise']}.",
        _sentence(mean, low, high, len(uars)),
        *_doubt(options.encoder, uars),
        "",
        markdown(corpora),
        "",
        markdown(pd.DataFrame({"class": list(shares), "share": [f"{100 * share:.1f} %" for share in shares.values()]})),
    ]
    figure = transferred(uars, shares)
    return write_table(options.run, corpora, shown="\n".join(lines), figure=figure)


def _worth(uars: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Mean of what heads of the other corpora are worth, and its interval, or the range of a few; None without any."""
    if not uars:
        return None, None, None
    low, high = (min(uars), max(uars)) if len(uars) < FEW else mean_interval(np.array(uars))[:2]
    return float(np.mean(uars)), float(low), float(high)


def _sentence(mean: float | None, low: float | None, high: float | None, corpora: int) -> str:
    if mean is None:
        return "No UAR can be expected: with one source corpus there is none to leave out."
    text = f"Expected UAR {100 * mean:.1f}: the mean over {corpora} corpora, each by a head of the others"
    if low is None or high is None:
        return f"{text}."
    kind = "range" if corpora < FEW else "95 % interval of the mean"
    return f"{text} ({kind} {100 * low:.0f} to {100 * high:.0f})."


def _doubt(encoder: str, corpora: Collection[str]) -> list[str]:
    """A line, if the encoder has learnt from labels of what its worth is measured on."""
    learnt = set(learnt_from(encoder)["corpus"].unique().to_pylist())
    if not (both := sorted(learnt & set(corpora))):
        return []
    return [f"Too high: the encoder has learnt from labels of {', '.join(both)}; its own table leaves them out."]
