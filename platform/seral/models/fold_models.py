"""The models that a run made for its folds: what they learnt from, what they chose, what they say of unheard speakers.

Of a loop these are the last complete rounds of its strategy's trajectories, of a training its cells.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from statistics import median_low
from typing import Any

import numpy as np

from seral import storage
from seral.errors import StateError
from seral.labels.ledger import Ledger
from seral.labels.people import ledger_url
from seral.loop.folders import NO_OUTPUTS, count_rounds, prediction_files, read_picks, round_folder
from seral.loop.growth import JUDGED
from seral.loop.options import LoopOptions
from seral.schema import PICK
from seral.task.cells import CELLS
from seral.task.run import read_config, read_options, verb_of
from seral.training.finetune_options import FinetuneOptions
from seral.training.options import SupervisedOptions

NORMALISATIONS = ("none", "corpus", "speaker")
"""The choices of `finetune.head.normalise: auto`, the one that takes away the least first."""


@dataclass(frozen=True, kw_only=True)
class FoldModel:
    """One model of a run, and what it says of clips whose speakers it has not heard."""

    fold: int
    seed: int
    labels: int
    """Labels that it learnt from and, where these were bought too, was chosen by."""
    history: Mapping[str, Any]
    """History of its training, see seral.training.finetune."""
    outputs: Mapping[str, list[float]]
    """Test clip -> probabilities of the classes, then values of the dimensions."""


def task_of_run(run: str) -> LoopOptions:
    """The options of a run of the loop, or of a training as those of a loop that was told all labels.

    Raises StateError for any other run.
    """
    read_config(run, "loop", "train")
    if verb_of(run) != "train":
        return read_options(LoopOptions, run)
    values = read_options(SupervisedOptions, run).model_dump(exclude={"variants"})
    return LoopOptions.model_validate({**values, "min_quality": 0.0, "dev": "speakers"})


def read_fold_models(run: str, options: LoopOptions) -> list[FoldModel]:
    """The models of a run, by fold and seed. Raises StateError where none has come to its end."""
    models = [*_cells(run)] if verb_of(run) == "train" else [*_last_rounds(run, options)]
    if not models:
        raise StateError(f"no model of {run} has come to its end: run it again first")
    return sorted(models, key=lambda model: (model.fold, model.seed))


def _cells(run: str) -> Iterator[FoldModel]:
    for name in storage.list_names(storage.join(run, CELLS)):
        cell = storage.read_json(storage.join(run, CELLS, name))
        numbers = name.removesuffix(".json").split(".fold-")[-1].split(".seed-")
        yield FoldModel(
            fold=int(numbers[0]),
            seed=int(numbers[1]),
            labels=cell["labels"],
            history=cell["history"],
            outputs=cell["predicted"],
        )


def _last_rounds(run: str, options: LoopOptions) -> Iterator[FoldModel]:
    for folder, rounds in _trajectories(run, options):
        facts = storage.read_json(storage.join(folder, "trajectory.json"))
        path = round_folder(folder, rounds - 1)
        metrics = storage.read_json(storage.join(path, "metrics.json"))
        (uri,) = prediction_files(path, "test")
        table = storage.read_table(uri)
        columns = [np.asarray(table[name]) for name in table.column_names[NO_OUTPUTS:]]
        outputs = dict(zip(table["utterance_id"].to_pylist(), np.stack(columns, 1).tolist(), strict=True))
        yield FoldModel(
            fold=facts["fold"],
            seed=facts["seed"],
            labels=metrics["labelled"],
            history=metrics["training"],
            outputs=outputs,
        )


def _trajectories(run: str, options: LoopOptions) -> Iterator[tuple[str, int]]:
    """The folder and the complete rounds of every trajectory of the strategy that has any."""
    root = storage.join(run, "trajectories")
    for name in storage.list_names(root):
        folder = storage.join(root, name)
        if name.startswith(f"{options.strategy.name}.") and (rounds := count_rounds(folder)):
            yield folder, rounds


def asked_ids(run: str, options: LoopOptions) -> list[str] | None:
    """The clips whose labels were bought, sorted, one that was asked about again as often as that; None = all there
    are, as a training has them.

    Of an oracle these are the picks of the strategy on all folds and seeds, and with `dev: speakers` the clips that
    models were chosen by; of people all that they were ever asked about.
    """
    if verb_of(run) == "train":
        return None
    if options.people is not None:
        with closing(Ledger(ledger_url(run, options.people))) as ledger:
            return ledger.utterances()
    times = Counter[str]()
    for folder, rounds in _trajectories(run, options):
        times |= Counter(read_picks(folder, rounds))
        if options.dev == "speakers":
            times |= Counter(_dev_ids(run, folder))
    return sorted(times.elements())


def _dev_ids(run: str, folder: str) -> list[str]:
    number = storage.read_json(storage.join(folder, "trajectory.json"))["fold"]
    table = storage.read_table(storage.join(run, "folds", f"fold-{number:02d}", JUDGED))
    rows = zip(table["utterance_id"].to_pylist(), table["part"].to_pylist(), strict=True)
    return [name for name, part in rows if part == "dev"]


def strategies_of(run: str, options: LoopOptions) -> dict[str, int]:
    """Strategy that picked -> picks, over all folds and seeds, the most first; nothing for a training."""
    uris = [
        storage.join(round_folder(folder, number), "picks.parquet")
        for folder, rounds in _trajectories(run, options)
        for number in range(rounds)
    ]
    return dict(Counter(storage.read_tables(uris, PICK)["strategy"].to_pylist()).most_common()) if uris else {}


def settled(options: FinetuneOptions, models: Iterable[FoldModel]) -> FinetuneOptions:
    """Options of a training with what the folds chose in the place of what a development set would choose.

    The normalisation of the head is that of most folds, of equally many the one that takes away less. Epochs of
    adapters are the median (low) of those at which the dev loss of each was lowest; where that is none the head alone
    is learnt. Where no fold had a development set, the epochs stay as they are.
    """
    histories = [model.history for model in models]
    chosen = Counter(history["head"]["normalise"] for history in histories if "head" in history)
    if chosen:
        name = max(NORMALISATIONS, key=lambda name: (chosen[name], -NORMALISATIONS.index(name)))
        options = options.model_copy(update={"head": options.head.model_copy(update={"normalise": name})})
    best = [epoch for history in histories if (epoch := best_epoch(history)) is not None]
    if options.frozen or not best:
        return options
    epochs = median_low(best)
    return options.model_copy(update={"epochs": epochs, "steps": None}) if epochs else options.head_only


def best_epoch(history: Mapping[str, Any]) -> int | None:
    """The epoch of adapters with the lowest dev loss, 0 = the head as it was fitted; None without a development set."""
    losses = [epoch.get("dev_loss") for epoch in history.get("adapter", {}).get("epochs", [])]
    return int(np.argmin(losses)) if losses and None not in losses else None
