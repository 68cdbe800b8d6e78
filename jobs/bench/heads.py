"""The head beside scikit-learn's probes on the same few labels: random picks, every corpus by itself.

    python -m jobs.bench.heads pool=data/pool encoder=../shared/encoders/moonshine-base-en

A probe is a logistic regression on the mean of one hidden state: the middle one, or the best on a dev speaker, whose
labels are not counted and the head does without. UAR over the test clips of all folds and deals together, differences
with 95 % intervals by leaving out each test speaker.
"""

# N clips · M labelled · B budgets · C classes
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import Field

from ser_models.fitting import PooledSet, fit_head, middle_layers, predict_pooled
from ser_models.heads import LayerPool
from ser_models.intervals import jackknife_interval
from ser_models.metrics import confusion_matrix, mean_recall
from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.features.audio import extract_features
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.pool.shards import open_pool
from seral.pool.split_options import SplitOptions
from seral.pool.splits import folds_of, voices
from seral.progress import say
from seral.task.eligibility import askable
from seral.task.examples import Utterances
from seral.task.gold import Oracle
from seral.training.linear_probe import probe_classes

HEAD, MIDDLE, CHOSEN = "head", "probe, middle state", "probe, state chosen by dev"
CLASSES = ["anger", "boredom", "calm", "disgust", "fear", "happiness", "neutral", "sadness", "surprise"]


class HeadBenchOptions(Options):
    """Options of the benchmark of heads."""

    pool: str
    """The pool."""
    encoder: str
    """A hub id or a folder."""
    corpora: list[str] | None = None
    """Corpora, each by itself; None = all of the pool."""
    shares: list[float] = Field(default=[0.05, 0.1, 0.2, 0.5, 1.0], min_length=1)
    """Labels, as shares of the training part."""
    deals: int = Field(default=5, ge=1)
    """Deals of the speakers to three groups, each tested once."""
    out: str = "runs/bench-heads"
    """Folder of the table."""


Counts = dict[str, dict[str, NDArray[np.int64]]]
"""Way -> test speaker -> confusion at every budget, (B, C, C)."""


def main(options: HeadBenchOptions) -> str:
    """Compare on every corpus; returns the table."""
    connect(ClusterOptions())
    pool = open_pool(options.pool)
    store = extract_features(pool, options.encoder)
    index, lines = store.index(), list[dict[str, Any]]()
    for corpus in options.corpora or sorted(set(pool.column("corpus").unique().to_pylist())):
        oracle = Oracle(pool, CLASSES, None, [])
        metadata = askable(pool, [corpus])
        metadata = metadata.filter(oracle.answers(metadata["utterance_id"]))
        if not metadata.num_rows:
            continue
        units = Utterances.of(store, index, list(index.present(metadata["utterance_id"].to_pylist())))
        classes, label_N = np.unique(oracle.targets(units.ids).label_N, return_inverse=True)
        counts: Counts = {HEAD: {}, MIDDLE: {}, CHOSEN: {}}
        for deal in range(options.deals):
            say(f"{corpus}, deal {deal + 1} of {options.deals}")
            split = SplitOptions(scheme="k-fold", k=3, seed=deal)
            for number, fold in folds_of(metadata, split, None).items():
                parts = [
                    [units.row_of[name] for name in ids if name in units.row_of]
                    for ids in (fold.train, fold.dev, fold.test)
                ]
                order = np.random.default_rng([deal, number]).permutation(parts[0])
                _add(counts, units, label_N, (order, *parts[1:]), len(classes), voices(metadata), options.shares)
        lines += _lines(corpus, counts, options.shares)
    table = pd.DataFrame(lines)
    text = markdown(table)
    storage.write_bytes(storage.join(options.out, "table.md"), text.encode())
    return text


def _add(
    counts: Counts,
    units: Utterances,
    label_N: NDArray[np.int64],
    parts: Any,
    classes: int,
    voice_of: dict[str, str],
    shares: list[float],
) -> None:
    """Add the confusions of one fold, by the speakers of its test clips."""
    train, dev, test = (np.asarray(part, np.int64) for part in parts)
    mean, std = torch.from_numpy(units.mean_NLD), torch.from_numpy(units.std_NLD)
    pool = LayerPool(mean.shape[1], mean.shape[2])
    pool.fit(mean[train], std[train])
    pool.lean_to(middle_layers(mean.shape[1]))
    voice_N = np.array([voice_of[units.ids[row]] for row in test])
    predicted: dict[str, list[NDArray[np.int64]]] = {name: [] for name in counts}
    nothing = (_some(units, test[:0]), label_N[:0])
    for share in shares:
        rows = train[: max(2, round(share * len(train)))]
        labelled = PooledSet(mean_NLD=mean[rows], std_NLD=std[rows], label_N=torch.from_numpy(label_N[rows]))
        fitted = fit_head(labelled, classes, pool=pool)
        predicted[HEAD].append(predict_pooled(fitted, mean[test], std[test]).argmax(1).numpy())
        sides = [(_some(units, part), label_N[part]) for part in (rows, dev, test)]
        predicted[MIDDLE].append(probe_classes(sides[0], nothing, sides[2]).predicted_N)
        predicted[CHOSEN].append(probe_classes(*sides).predicted_N)
    for name, of_budget in predicted.items():
        for voice in np.unique(voice_N).tolist():
            own_N = voice_N == voice
            made = np.stack([confusion_matrix(label_N[test][own_N], one_N[own_N], classes) for one_N in of_budget])
            counts[name][voice] = counts[name].get(voice, 0) + made


def _some(units: Utterances, rows: NDArray[np.int64]) -> Utterances:
    mean_NLD, std_NLD = units.mean_NLD[rows], units.std_NLD[rows]
    return Utterances(ids=[units.ids[row] for row in rows], mean_NLD=mean_NLD, std_NLD=std_NLD)


def _lines(corpus: str, counts: Counts, shares: list[float]) -> list[dict[str, Any]]:
    """A line a budget: UAR of every way, and the head's difference to each probe."""
    lines = []
    speakers = sorted(counts[HEAD])
    for number, share in enumerate(shares):
        line: dict[str, Any] = {"corpus": corpus, "labels": f"{share:.0%}"}
        line |= {name: f"{100 * _uar(own, number, None):.1f}" for name, own in counts.items()}
        for name in (MIDDLE, CHOSEN):
            whole, *without = (
                _uar(counts[HEAD], number, left) - _uar(counts[name], number, left) for left in (None, *speakers)
            )
            low, high, _ = jackknife_interval(whole, np.array(without))
            line[f"head - {name}"] = f"{100 * whole:+.1f} ({100 * float(low):+.1f} to {100 * float(high):+.1f})"
        lines.append(line)
    return lines


def _uar(counts: dict[str, NDArray[np.int64]], budget: int, left_out: str | None) -> float:
    return float(mean_recall(sum(matrix[budget] for speaker, matrix in counts.items() if speaker != left_out)))


if __name__ == "__main__":
    run_job(HeadBenchOptions, main, __doc__ or "")
