"""A run whose pool grows: labels, dev and test stay what they are, and new clips of other speakers become candidates.

RUN/folds/fold-00/judged.parquet    ids and part (dev, test) of the fold, as the run began
RUN/growth.json                     every growth: utterances before and after, complete rounds of every trajectory

The folds of a pool that has grown are not dealt anew: a speaker that was learnt from might come to judge.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from seral import storage
from seral.errors import StateError
from seral.loop.folders import count_rounds, read_picks, round_folder
from seral.loop.options import LoopOptions
from seral.loop.picking import INITIAL
from seral.loop.pool_scores import SELECTION
from seral.pool.ids import Ids
from seral.pool.shards import Pool
from seral.pool.splits import Fold, folds_of, with_new_clips
from seral.progress import say
from seral.schema import GROWTH
from seral.task.run import ENVIRONMENT, growths

JUDGED = "judged.parquet"


def first_folds(options: LoopOptions, metadata: pa.Table) -> dict[int, Fold]:
    """The folds of a run as it begins, by number; without dev speakers where bought labels take their place."""
    folds = folds_of(metadata, options.split, options.folds)
    return folds if options.dev == "speakers" else {number: fold.without_dev() for number, fold in folds.items()}


def folds_of_run(options: LoopOptions, pool: Pool, metadata: pa.Table) -> dict[int, Fold]:
    """The folds of a run by number, as they were dealt when it began, with what has come to its pool since.

    Raises StateError where that cannot be said, and SplitError where a fold leaks or clips of dev and test are gone.
    """
    _note_growth(options, pool)
    if not storage.exists(storage.join(options.run, GROWTH)):
        folds = first_folds(options, metadata)
        for number, fold in folds.items():
            _write_judged(options, number, fold)
        return folds
    present = {int(name.removeprefix("fold-")): name for name in storage.list_names(storage.join(options.run, "folds"))}
    numbers = sorted(present) if options.folds is None else options.folds
    if absent := sorted(set(numbers) - present.keys()):
        raise StateError(
            f"fold {absent[0]} is none of those with which {options.run} began, and its pool has grown since: folds "
            "cannot be added any more; start another run"
        )
    folds = {n: with_new_clips(_read_judged(options, n), metadata, options.split) for n in numbers}
    for number, fold in folds.items():
        _check_labelled(options, number, fold)
    return folds


def reopened(run: str, trajectory: str, done: int) -> bool:
    """Whether the pool has grown since the last of the `done` rounds of a trajectory."""
    entries = growths(run)
    return bool(entries) and entries[-1]["rounds"].get(trajectory) == done


def check_budget(before: Sequence[float], after: Sequence[float], done: int, name: str) -> None:
    """Raise StateError where the budget of a trajectory is no longer what its complete rounds have spent."""
    if list(before[:done]) != list(after[:done]):
        raise StateError(
            f"{name} has spent {list(before[:done])} in {done} rounds, and the budget now begins with "
            f"{list(after[:done])}: a pool that has grown may get further rounds, not other ones"
        )


def _note_growth(options: LoopOptions, pool: Pool) -> None:
    """Write down that the pool has grown, and remove what was made for the selection from the smaller one."""
    facts_uri = storage.join(options.run, ENVIRONMENT)
    if not storage.exists(facts_uri):
        return
    facts, entries = storage.read_json(facts_uri), growths(options.run)
    if pool.hash in (facts["pool_hash"], entries[-1]["pool_hash"] if entries else None):
        return
    trajectories = storage.join(options.run, "trajectories")
    rounds = {name: count_rounds(storage.join(trajectories, name)) for name in storage.list_names(trajectories)}
    for name, count in rounds.items():
        if count:
            storage.remove(storage.join(round_folder(storage.join(trajectories, name), count - 1), SELECTION))
    for name in storage.list_names(storage.join(options.run, "folds")):
        storage.remove(storage.join(options.run, "folds", name, INITIAL))
    before = entries[-1]["after"] if entries else facts["pool_rows"]
    entry = {"pool_hash": pool.hash, "before": before, "after": pool.rows, "rounds": rounds}
    storage.write_json(storage.join(options.run, GROWTH), {"growths": [*entries, entry]})
    say(f"the pool has grown from {before:,} to {pool.rows:,} utterances")


def _fold_folder(options: LoopOptions, number: int) -> str:
    return storage.join(options.run, "folds", f"fold-{number:02d}")


def _write_judged(options: LoopOptions, number: int, fold: Fold) -> None:
    uri = storage.join(_fold_folder(options, number), JUDGED)
    if storage.exists(uri):
        _check_judged(options, number, fold)
    else:
        parts = ["dev"] * len(fold.dev) + ["test"] * len(fold.test)
        table = pa.table({"utterance_id": [*fold.dev, *fold.test], "part": parts})
        storage.write_table(uri, table.replace_schema_metadata({"fold": fold.name}))


def _read_judged(options: LoopOptions, number: int) -> Fold:
    uri = storage.join(_fold_folder(options, number), JUDGED)
    if not storage.exists(uri):
        raise StateError(f"{uri} is missing: the run began with a release that did not note dev and test")
    table = storage.read_table(uri)
    pairs = list(zip(*(table[name].to_pylist() for name in ("utterance_id", "part")), strict=True))
    dev, test = (Ids(name for name, part in pairs if part == wanted) for wanted in ("dev", "test"))
    return Fold(name=table.schema.metadata[b"fold"].decode(), train=Ids(), dev=dev, test=test)


def _check_judged(options: LoopOptions, number: int, fold: Fold) -> None:
    """Raise StateError where clips that dev or test had when the run began are in another part now."""
    before = _read_judged(options, number)
    part_of = dict.fromkeys(before.dev, "dev") | dict.fromkeys(before.test, "test")
    parts = {"train": fold.train, "dev": fold.dev, "test": fold.test}
    if moved := [name for part, ids in parts.items() for name in ids if part_of.get(name, part) != part]:
        raise StateError(
            f"{options.run} was begun with other folds: of fold {number} {len(moved)} clips of dev or test are in "
            f"another part now, e.g. {moved[0]}; start another run"
        )


def _check_labelled(options: LoopOptions, number: int, fold: Fold) -> None:
    """Raise StateError where clips that have been asked about are no longer there to learn from."""
    train, trajectories = set(fold.train), storage.join(options.run, "trajectories")
    for name in storage.list_names(trajectories):
        if f".fold-{number:02d}." in name:
            folder = storage.join(trajectories, name)
            if gone := sorted(set(read_picks(folder, count_rounds(folder))) - train):
                raise StateError(
                    f"{name} has asked about {len(gone)} clips that its training part has no longer, e.g. {gone[0]}: a "
                    "pool may grow, but not lose what was labelled"
                )
