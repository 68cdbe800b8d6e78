"""One batch of picks from Parquet files, outside a loop: for pools whose labels are kept elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from seral import storage
from seral.cluster import connect
from seral.progress import say
from seral.schema import PICK
from seral.selection.candidates import Candidates
from seral.selection.minutes import select_for_minutes
from seral.selection.options import BatchOptions
from seral.selection.parts.actors import RemoteParts, despite_losses
from seral.selection.parts.distributed import select_in_parts
from seral.selection.parts.local import Parts, Picks
from seral.selection.parts.part import PoolPart
from seral.selection.selection import check_count
from seral.selection.source import different_widths, read_labelled, shards
from seral.selection.source_options import SourceOptions

NAMED = 5
"""Labelled utterances without features that are named."""


def run_batch(options: BatchOptions) -> dict[str, Any]:
    """Read, pick and write; returns what was done: rows, picks, whether one machine would have picked them, seconds.

    Of merged picks also their `distance`, see parts.local.Picks.
    """
    picks, summary = despite_losses(lambda: _pick(options), options.cluster)
    rows = [
        {"utterance_id": name, "order": order, "strategy": picks.strategy or options.strategy.name, "round": 0}
        for order, name in enumerate(picks.ids)
    ]
    storage.write_table(options.out, pa.Table.from_pylist(rows, PICK))
    return {**summary, "out": options.out}


def _pick(options: BatchOptions) -> tuple[Picks, dict[str, Any]]:
    """The picks, and their summary. Raises LostPart when a part was lost; another try picks the same."""
    names, rng, started = shards(options.source), np.random.default_rng(options.seed), time.perf_counter()
    dealt = [part.tolist() for part in np.array_split(np.array(names), min(options.parts, len(names)))]
    with _read(options, dealt) as parts:
        rows, labelled = parts.count(), parts.each(PoolPart.labelled_part)
        if len({part.labelled_centres().shape[1] for part in labelled}) > 1:
            widths = {files[0]: part.labelled_centres().shape[1] for files, part in zip(dealt, labelled, strict=True)}
            raise different_widths(options.source.features, widths)
        parts.check_ids()
        read = time.perf_counter()
        say(f"{rows} candidates of {len(names)} files read in {read - started:.1f} s")
        _report_missing(options.source, labelled)
        check_count(options.strategy.name, options.count or 1, rows)
        if options.minutes is None:
            picks = select_in_parts(options.strategy, parts, options.count or 0, rng)
        else:
            picks = select_for_minutes(options.strategy, parts, options.minutes, rng, options.pace)
    return picks, {
        "candidates": rows,
        "picks": len(picks.ids),
        "exact": picks.exact,
        **({} if picks.distance is None else {"distance": round(picks.distance, 4)}),
        "read_s": round(read - started, 2),
        "select_s": round(time.perf_counter() - read, 2),
    }


def _read(options: BatchOptions, dealt: Sequence[Sequence[str]]) -> Parts:
    """The candidates of some feature files, in as many parts as these are dealt to."""
    if len(dealt) == 1:
        return Parts([PoolPart(options.source, dealt[0])])
    connect(options.cluster)
    return RemoteParts([(options.source, files) for files in dealt])


def _report_missing(source: SourceOptions, labelled: Sequence[Candidates]) -> None:
    """Say which utterances are labelled and have no features."""
    with_features = np.concatenate([part.labelled_ids for part in labelled if part.labelled_ids is not None])
    absent = np.setdiff1d(read_labelled(source).ids, with_features)
    if len(absent):
        first = ", ".join(absent[:NAMED].tolist())
        say(f"{len(absent)} labelled utterances have no features in {source.features} and are left out, e.g. {first}")
