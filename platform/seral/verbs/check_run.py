"""The check of a run: every file against its checksum, every round whole, and the ledger of its labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from seral import storage
from seral.errors import LabelError, SeralError, StateError
from seral.progress import track
from seral.storage.check import FileCheck, check_files

ROUND = ("picks.parquet", "labels.parquet", "metrics.json", "model/model.json", "predictions/test.parquet")
"""Files of a complete round."""
RECORD = "round.json"
RAYS_OWN = {"tune", ".train"}
"""Folders where Ray Tune and Ray Train keep, in formats of their own, what they go on from."""


def check_run(run: str) -> FileCheck:
    """Every problem of a run, in words: files that are not as they were written, rounds that lack something.

    Also of its cache of features, its ledger, and features that are its encoder, where they lie elsewhere.

    Raises StateError where there is no run.
    """
    from seral.task.run import CONFIG, read_config

    total, run = FileCheck(), storage.absolute(run)
    if not storage.exists(storage.join(run, CONFIG)):
        raise StateError(f"there is no run at {run}: {CONFIG} is missing")
    try:
        values = read_config(run)
    except SeralError:
        values = {}  # named below, with all other files
    folders = [run, *_caches(values)]
    names_of = {
        folder: [name for name in storage.list_files(folder) if not RAYS_OWN & {*name.split("/")[:-1]}]
        for folder in folders
    }
    with track(f"checking {run}", sum(map(len, names_of.values()))) as advance:
        for folder, names in names_of.items():
            for outcome in check_files(folder, names):
                total.files += outcome.files
                total.without += outcome.without
                total.problems += outcome.problems
                advance(1)
    total.problems += [*_incomplete(run, names_of[run]), *_ledgers(run, names_of[run], values)]
    return total


def _caches(values: dict[str, Any]) -> list[str]:
    """Folders of features that a run's options name: a cache of its own, and one that is its encoder."""
    task = values.get("training") or values.get("loop") or values
    cache, encoder = task.get("feature_cache"), str(task.get("encoder"))
    folders = [cache] if cache and storage.exists(cache) else []
    if "://" in encoder or Path(encoder).is_dir():
        from seral.features.precomputed import is_precomputed  # late: it imports torch

        folders += [encoder] if is_precomputed(encoder) else []
    return folders


def _incomplete(run: str, names: list[str]) -> Iterator[str]:
    """Rounds of which a file is missing, or which are missing between others."""
    present, rounds = set(names), dict[str, set[int]]()
    for name in names:
        folder, _, file = name.rpartition("/")
        if file != RECORD or "/rounds/" not in folder or "/attempts/" in folder:
            continue
        trajectory, _, number = folder.rpartition("/rounds/")
        rounds.setdefault(trajectory, set()).add(int(number))
        lacking = [part for part in ROUND if f"{folder}/{part}" not in present]
        if lacking and not storage.exists(storage.join(run, folder, "erased.json")):
            yield f"{storage.join(run, folder)} lacks {', '.join(lacking)}"
    for trajectory, numbers in rounds.items():
        if gaps := sorted(set(range(max(numbers))) - numbers):
            yield f"{storage.join(run, trajectory)} lacks the rounds {', '.join(map(str, gaps))}"


def _ledgers(run: str, names: list[str], values: dict[str, Any]) -> Iterator[str]:
    """Ledgers of the run whose database is damaged, in its own words."""
    uris = {storage.join(run, name) for name in names if name.endswith(".sqlite")}
    if ledger := (values.get("people") or {}).get("ledger"):
        uris.add(ledger)
    for uri in sorted(uris):
        from seral.labels.database import Database  # late: most runs have no ledger

        try:
            with closing(Database(uri)) as database:
                yield from (f"{uri} is damaged: {line}" for line in database.damage())
        except LabelError as error:
            yield str(error)
