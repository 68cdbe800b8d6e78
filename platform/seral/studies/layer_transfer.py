"""From a labelled language to an unlabelled one: every ordered pair of a pool's languages or corpora, in one table.

Rows of a pair: `source only` (standardised by its own speech), `rescaled` (the source brought to the target's mean and
spread), an anchored head for every anchor set, `chosen` among them, the same with adapters in the encoder if wished,
and `target, supervised` as the ceiling. Anchors and λ are chosen by dev speakers of the source and by a label-free
criterion on the target's training speech; labels of the target are read for the ceiling and for the test.

    RUN/cells/<source>_to_<target>.fold-<FF>.seed-<S>.json    all rows of a pair on one division of its speakers
    RUN/table.csv                                             UAR of every row and pair, over the test clips of all
                                                              folds and seeds, and its difference to `source only`
    RUN/table.md, table.png                                   the same as a matrix, rows by pairs, and as a picture
"""

# N clips · L hidden states (encoder layers + 1) · D features · C classes
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from numpy.typing import NDArray

from ser_models.alignment import Anchors, align, fit_anchored
from ser_models.fitting import FitOptions, FitResult, PooledRows, PooledSet, fit_head, predict_pooled
from ser_models.heads import LayerPool
from ser_models.intervals import paired_difference
from ser_models.metrics import uar
from ser_models.similarity import anchor_layers, information, layer_similarity
from seral import storage
from seral.errors import OptionError
from seral.features.provenance import check_unheard
from seral.pool.splits import Fold, check_apart, voices
from seral.studies.layer_options import LayerTransferOptions
from seral.task.cells import Cell, Results, write_table
from seral.task.context import RunContext
from seral.task.examples import Targets, Unlabelled
from seral.task.folds import FoldData, folds_by_seed
from seral.task.study import Study, run_study
from seral.training.augmented import check_noises
from seral.training.data import Labelled, Source, TrainingData
from seral.training.finetune import finetune, frames_layer
from seral.training.finetune_options import AnchorOptions, FinetuneOptions
from seral.training.scoring import evaluate, score

MAY_CHANGE = {"run", "cluster", "folds", "seeds"}
SOURCE_ONLY, RESCALED, CHOSEN, CEILING = "source only", "rescaled", "chosen", "target, supervised"
ADAPTED = "chosen, adapters"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One division of the speakers of both sides."""

    source_train: Sequence[str]
    source_dev: Sequence[str]
    target: Fold


def run_layer_transfer(options: LayerTransferOptions) -> str:
    """Compute what is missing and write the tables; returns the matrix of rows by pairs as Markdown."""
    return run_study(options, "layer-transfer", MAY_CHANGE, _plan)


def _plan(context: RunContext[LayerTransferOptions]) -> Study:
    options = context.options
    metadata = context.eligible(None)
    groups = _groups(options, metadata)
    check_apart(groups)
    if options.finetune is not None:
        check_noises(options.finetune.augment, context.pool, metadata)
    layer = None if options.finetune is None else frames_layer(options.encoder, options.finetune)
    store = context.features(frames_layer=layer)
    folds = {
        group: folds_by_seed(table, options.split, options.folds, options.seeds, store)
        for group, table in groups.items()
    }
    check_unheard(store.encoder, metadata, metadata["utterance_id"].to_pylist())  # every group is tested on
    first = next(iter(next(iter(folds.values())).values()))
    data = context.fold_data(store, first, metadata)
    context.write_environment(f"{' '.join(groups)}-{len(options.classes)}c-transfer@v1", {})
    shared = ray.put(data)
    arguments: dict[Cell, Sequence[Any]] = {}
    for source, target in permutations(groups, 2):
        for (number, seed), fold in folds[target].items():
            left = folds[source][min(number, max(n for n, s in folds[source] if s == seed)), seed]
            pair = Pair(source_train=left.train + left.test, source_dev=left.dev, target=fold)
            arguments[Cell(row=_name(source, target), fold=number, seed=seed)] = (shared, pair, options)
    return Study(
        cell=pair_cell,
        stages=[(f"{len(arguments)} transfers", arguments)],
        write=lambda results: _write(options, results, metadata),
    )


def pair_cell(cell: Cell, folder: str, data: FoldData, pair: Pair, options: LayerTransferOptions) -> dict[str, Any]:
    """All rows of a pair on one division of the speakers."""
    oracle, classes = data.oracle(), data.classes
    source, dev = (_labelled(data.pooled(ids), oracle.targets(ids)) for ids in (pair.source_train, pair.source_dev))
    own, speech = (data.pooled(ids) for ids in (pair.source_train, [*pair.target.train, *pair.target.dev]))
    test, truth_N = data.pooled(pair.target.test), oracle.targets(pair.target.test).label_N
    probe = FitOptions(l2=options.l2)
    moved, moved_dev = (replace(part, **vars(align(part, own, speech))) for part in (source, dev))
    pools = [_pool(own), _pool(speech)]
    fits = {
        SOURCE_ONLY: fit_head(source, len(classes), pool=pools[0], options=probe),
        RESCALED: fit_head(moved, len(classes), pool=pools[1], options=probe),
        CEILING: _ceiling(data, oracle.targets, pair, pools[1], probe),
    }
    similarity_L = layer_similarity(options.similarity, moved.mean_NLD, speech.mean_NLD)
    judged: dict[tuple[str, float], tuple[FitResult, float, float]] = {}
    facts: dict[str, Any] = {}
    for kind in options.anchors:
        layers = anchor_layers(kind, similarity_L, size=options.size)
        facts[kind] = {"layers": layers}
        for weight in options.weights:
            anchors = Anchors(layers=layers, weight=weight, projection=options.projection)
            fit = fit_anchored(moved, moved, speech, len(classes), anchors=anchors, pool=pools[1], options=probe)
            judged[kind, weight] = (fit, _uar(fit, moved_dev), _information(fit, speech))
        best = _best({key: scores for key, scores in judged.items() if key[0] == kind}, len(dev.label_N))
        fits[kind] = judged[best][0]
        facts[kind] |= {"weight": best[1], "dev_uar": judged[best][1]}
    best = _best(judged, len(dev.label_N))
    fits[CHOSEN] = judged[best][0]
    facts[CHOSEN] = {"anchors": best[0], "weight": best[1]}
    rows = {}
    for name, fit in fits.items():
        probability_NC = predict_pooled(fit, test.mean_NLD, test.std_NLD).softmax(1).numpy()
        rows[name] = _judged(truth_N, probability_NC, classes)
    if options.finetune is not None:
        # Anchors that adapters can do something about.
        start = frames_layer(data.store.encoder, options.finetune) or 0
        reached = {key: scores for key, scores in judged.items() if max(facts[key[0]]["layers"]) > start}
        best = _best(reached, len(dev.label_N)) if reached else best
        facts[ADAPTED] = {"anchors": best[0], "weight": best[1]}
        anchor = AnchorOptions(
            anchors=best[0],
            size=options.size,
            similarity=options.similarity,
            weight=best[1],
            projection=options.projection,
        )
        probability_NC = _adapted(cell, folder, data, pair, options, anchor)
        rows[ADAPTED] = _judged(truth_N, probability_NC, classes)
    return {
        "rows": rows,
        "ids": list(pair.target.test),
        "truth": truth_N.tolist(),
        "similarity": similarity_L.tolist(),
        "anchors": facts,
    }


def _adapted(
    cell: Cell, folder: str, data: FoldData, pair: Pair, options: LayerTransferOptions, anchor: AnchorOptions
) -> NDArray[np.float32]:
    """Class probabilities (N, C) of the test clips by adapters that learnt from the source, anchored to the target."""
    oracle = data.oracle()
    examples = {
        side: (data.utterances(ids), oracle.targets(ids)) for side, ids in vars(pair).items() if side != "target"
    }
    learning = TrainingData(
        train=Labelled(*examples["source_train"]),
        dev=Labelled(*examples["source_dev"]),
        unlabelled=Unlabelled.of(data.utterances([*pair.target.train, *pair.target.dev])),
        store=data.store,
        classes=data.classes,
        source=Source(units=data.utterances([*pair.source_train, *pair.source_dev]), anchor=anchor),
    )
    finetune(learning, options.finetune or FinetuneOptions(), folder, seed=cell.seed, on=options.cluster)
    return score(storage.join(folder, "model"), data.store, data.utterances(pair.target.test)).probability_NC


def _judged(truth_N: NDArray[np.int64], probability_NC: NDArray[np.float32], classes: Sequence[str]) -> dict[str, Any]:
    return evaluate(truth_N, probability_NC, classes) | {"told": probability_NC.argmax(1).tolist()}


def _best(judged: Mapping[tuple[str, float], tuple[FitResult, float, float]], clips: int) -> tuple[str, float]:
    """The anchor set and λ that are chosen."""
    return list(judged)[choose([(dev_uar, information_) for _, dev_uar, information_ in judged.values()], clips)]


def choose(scores: Sequence[tuple[float, float]], clips: int) -> int:
    """The candidate with the most information on the target among those that do as well on the source.

    `scores`: (UAR on the source's dev speakers, information on unlabelled speech of the target) of each. As well:
    within a standard error of the best, as of a share of so many clips.
    """
    best = max(score for score, _ in scores)
    lowest = best - float(np.sqrt(best * (1 - best) / max(1, clips)))
    return max((row for row, (score, _) in enumerate(scores) if score >= lowest), key=lambda row: scores[row][1])


def _groups(options: LayerTransferOptions, metadata: pa.Table) -> dict[str, pa.Table]:
    """Metadata of every language or corpus that takes part."""
    present = sorted(set(metadata[options.by].to_pylist()) - {None})
    if unknown := sorted(set(options.groups or ()) - set(present)):
        raise OptionError(f"no labelled {options.by} {unknown[0]!r}; there are {', '.join(present)}")
    groups = options.groups or present
    if len(groups) < 2:
        raise OptionError(f"one {options.by} only, {', '.join(groups)}: there is nothing to carry over")
    return {group: metadata.filter(pc.equal(metadata[options.by], group)) for group in groups}


def _labelled(rows: PooledRows, target: Targets) -> PooledSet:
    return PooledSet(mean_NLD=rows.mean_NLD, std_NLD=rows.std_NLD, label_N=torch.from_numpy(target.label_N))


def _pool(rows: PooledRows) -> LayerPool:
    """The standardisation of some unlabelled speech."""
    _, states, width = rows.mean_NLD.shape
    pool = LayerPool(states, width)
    pool.fit(rows.mean_NLD, rows.std_NLD)
    return pool


def _uar(fit: FitResult, rows: PooledSet) -> float:
    predicted_N = predict_pooled(fit, rows.mean_NLD, rows.std_NLD).argmax(1)
    return uar(rows.label_N.numpy(), predicted_N.numpy())


def _information(fit: FitResult, rows: PooledRows) -> float:
    return information(predict_pooled(fit, rows.mean_NLD, rows.std_NLD).softmax(1))


def _name(source: str, target: str) -> str:
    return f"{source} to {target}"


def _ceiling(
    data: FoldData, targets: Callable[[Sequence[str]], Targets], pair: Pair, pool: LayerPool, probe: FitOptions
) -> FitResult:
    """A head on the labels of the target's own training speakers: what there is to reach."""
    train = _labelled(data.pooled(pair.target.train), targets(pair.target.train))
    return fit_head(train, len(data.classes), pool=pool, options=probe)


def _write(options: LayerTransferOptions, results: Results, metadata: pa.Table) -> str:
    # Imported here: workers import this module, and drawing takes a second to load.
    from seral.figures.studies import transfer_rows

    speaker_of = voices(metadata)
    adapted = [] if options.finetune is None else [ADAPTED]
    names = [SOURCE_ONLY, RESCALED, *options.anchors, CHOSEN, *adapted, CEILING]
    lines: list[dict[str, Any]] = []
    for pair in dict.fromkeys(cell.row for cell in results):
        cells = [values for cell, values in results.items() if cell.row == pair]
        # A clip comes once per seed, always under its speaker, who is what is left out in turn.
        truth_N = np.concatenate([values["truth"] for values in cells])
        speaker_N = np.array([speaker_of[name] for values in cells for name in values["ids"]])
        predicted = {name: np.concatenate([values["rows"][name]["told"] for values in cells]) for name in names}
        for name in names:
            line: dict[str, Any] = {"row": name, "pair": pair, "uar": uar(truth_N, predicted[name])}
            if name != SOURCE_ONLY:
                against = paired_difference(uar, truth_N, predicted[name], predicted[SOURCE_ONLY], speaker_N)
                line |= against._asdict()
            lines.append(line)
    table = pd.DataFrame(lines)
    wide = pd.DataFrame({"row": names})
    for heading, rows in table.groupby("pair", sort=False):
        wide[str(heading)] = [_shown(line) for line in rows.to_dict("records")]
    wide["mean"] = [f"{100 * table.loc[table['row'] == name, 'uar'].mean():.1f}" for name in names]
    return write_table(options.run, table, shown=wide, figure=transfer_rows(table))


def _shown(line: Mapping[Any, Any]) -> str:
    """UAR in per cent, its difference to source only, and a star where the interval excludes none."""
    text = f"{100 * line['uar']:.1f}"
    if np.isnan(line["difference"]):
        return text
    star = "*" if line["low"] > 0 or line["high"] < 0 else ""
    return f"{text} ({100 * line['difference']:+.1f}{star})"
