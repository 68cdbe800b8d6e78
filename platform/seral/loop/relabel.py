"""Doubts about the labels of a ledger or a run, and asking again about the strongest.

A ledger knows where people disagree. A run knows more: what its models said of utterances before they were labelled,
and which of the pool's utterances are copies of each other.
"""

# M labelled utterances · N utterances with features · L hidden states · D features · C classes
from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from seral import storage
from seral.errors import LabelError, StateError
from seral.features.screen import leaders
from seral.labels.confident import out_of_sample
from seral.labels.consensus import consensus
from seral.labels.doubts import Probabilities, find_doubts
from seral.labels.ledger import Ledger
from seral.labels.options import PeopleOptions
from seral.labels.people import ledger_url
from seral.loop.folders import PREDICTIONS, count_rounds, round_folder
from seral.loop.options import LoopOptions
from seral.loop.pool_scores import probabilities
from seral.options import parse
from seral.pool.screened import FOLDER as SCREENS
from seral.pool.shards import Pool, open_pool
from seral.schema import SCREEN
from seral.task.folds import features_of
from seral.task.run import read_options

BATCH = "relabel-"


def doubts_of(uri: str, *, cross_validate: bool = False) -> pa.Table:
    """The doubts about all labels of a run folder, or of a ledger, schema.DOUBTS.

    A run's models are asked what they said last of each utterance: they never score what they were trained on. With
    `cross_validate` it is a new model of the encoder's frozen features that has seen all labels but a fifth, which also
    judges the first round's. Raises LabelError for a run that asks nobody, or a ledger without a run to validate with.
    """
    answers, classes = _answers(_ledger(uri))
    if not _is_run(uri):
        if cross_validate:
            raise LabelError(f"{uri} has no features to cross-validate with: name the run folder")
        return find_doubts(answers, classes, probability={}, leader_of={})
    pool, labels = open_pool(_config(uri)["pool"]), consensus(answers, classes)
    labels = labels.filter(pc.is_valid(labels["emotion"]))
    ids, emotions = labels["utterance_id"].to_pylist(), labels["emotion"].to_pylist()
    label_M = np.array([classes.index(emotion) for emotion in emotions], np.int64)
    if cross_validate:
        probability: Probabilities = cross_validated(read_options(LoopOptions, uri), pool, ids, label_M, len(classes))
    else:
        probability = earlier_predictions(uri, ids, classes)
    return find_doubts(answers, classes, probability=probability, leader_of=copies(pool))


def ask_again(uri: str, count: int, *, overlap: int = 2, cross_validate: bool = False) -> tuple[str, list[str]]:
    """Ask `overlap` others about each of the `count` most doubtful labels; returns the batch and what it asks about.

    What was asked again before is left out. Raises LabelError where nothing else is doubtful.
    """
    doubtful = dict.fromkeys(doubts_of(uri, cross_validate=cross_validate)["utterance_id"].to_pylist())
    with closing(Ledger(_ledger(uri))) as ledger:
        before = [batch.batch for batch in ledger.progress() if batch.purpose == "relabel"]
        again = {name for batch in before for name in ledger.asked(batch)}
        ids = [name for name in doubtful if name not in again][:count]
        if not ids:
            raise LabelError(f"nothing in {uri} is doubtful that was not asked about again before")
        batch = f"{BATCH}{sum(name.startswith(BATCH) for name in before)}"
        return batch, ledger.ask(batch, ids, purpose="relabel", overlap=overlap)


def earlier_predictions(run: str, ids: Collection[str], classes: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    """The last predictions (C,) of a run's models for each utterance, mean over its trajectories.

    Predictions are of the unlabelled rest, of test, and of dev: labelled clips by heads that have not heard their
    speakers, or clips that nothing is learned from. So none of them has seen the label of its utterance.
    """
    wanted, predictions_of = pa.array(sorted(ids), pa.string()), defaultdict(list)
    for name in storage.list_names(storage.join(run, "trajectories")):
        folder, last = storage.join(run, "trajectories", name), dict[str, NDArray[np.float32]]()
        for number in range(count_rounds(folder)):
            path = storage.join(round_folder(folder, number), PREDICTIONS)
            for name in storage.list_files(path):
                table = storage.read_table(storage.join(path, name))
                table = table.filter(pc.is_in(table["utterance_id"], wanted))
                last |= dict(zip(table["utterance_id"].to_pylist(), probabilities(table, classes), strict=True))
        for utterance, p_C in last.items():
            predictions_of[utterance].append(p_C)
    return {utterance: np.mean(parts, axis=0) for utterance, parts in predictions_of.items()}


def cross_validated(
    options: LoopOptions, pool: Pool, ids: Sequence[str], label_M: NDArray[np.int64], num_classes: int
) -> dict[str, NDArray[np.float64]]:
    """Out-of-sample probabilities (C,) of each utterance by a linear model of all hidden states' means."""
    store = features_of(options, pool, options.encoder, None)
    index = store.index()
    keep_M = index.positions(ids) >= 0
    names = [name for name, keep in zip(ids, keep_M, strict=True) if keep]
    x_MD = store.read(index, names)[0].astype(np.float32).reshape(len(names), -1)
    p_MC = np.zeros((len(names), num_classes))
    p_MC[:, np.unique(label_M[keep_M])] = out_of_sample(x_MD, label_M[keep_M], options.seeds[0])
    return dict(zip(names, p_MC, strict=True))


def copies(pool: Pool) -> dict[str, str]:
    """Utterance -> the first of its group, for those of a pool that have copies: exact ones, and near ones by all
    tables of `seral pool screen`.
    """
    names: list[str] = pool.metadata["utterance_id"].to_pylist()
    row_of = {name: row for row, name in enumerate(names)}
    folder = storage.join(pool.uri, SCREENS)
    screens = storage.read_tables([storage.join(folder, name) for name in storage.list_names(folder)], SCREEN)
    pairs = [
        (row_of[one], row_of[other])
        for table, column in ((pool.metadata, "duplicate_of"), (screens, "near_duplicate_of"))
        for one, other in zip(table["utterance_id"].to_pylist(), table[column].to_pylist(), strict=True)
        if one in row_of and other in row_of
    ]
    pair_P2 = np.array(pairs, np.int64).reshape(-1, 2)
    first_N = leaders(pair_P2, len(names))
    return {names[row]: names[first_N[row]] for row in np.unique(pair_P2).tolist()}


def ledger_of(run: str) -> str:
    """The ledger of a run. Raises LabelError for one that asks the oracle."""
    if (people := _config(run).get("people")) is None:
        raise LabelError(f"the run at {run} asks nobody: its labels are the oracle's")
    return ledger_url(run, parse(PeopleOptions, people))


def _config(run: str) -> dict[str, Any]:
    path = storage.join(run, "config.yaml")
    if not storage.exists(path):
        raise StateError(f"there is no run at {run}: {path} is missing")
    values: dict[str, Any] = yaml.safe_load(storage.read_bytes(path))
    return values


def _is_run(uri: str) -> bool:
    return Path(uri).is_dir() or uri.startswith(("s3://", "gs://"))


def _ledger(uri: str) -> str:
    return ledger_of(uri) if _is_run(uri) else uri


def _answers(url: str) -> tuple[pa.Table, tuple[str, ...]]:
    with closing(Ledger(url)) as ledger:
        return ledger.answers(), ledger.project.classes
