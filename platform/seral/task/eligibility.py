"""Utterances that may take part in a run."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.errors import OptionError
from seral.pool.protocols import find_protocol
from seral.pool.shards import Pool
from seral.progress import say
from seral.task.gold import Oracle
from seral.task.options import ProtocolOptions, TaskOptions


def of_corpora(pools: Sequence[Pool], corpora: Sequence[str] | None) -> list[pa.Table]:
    """Metadata of each pool, of some corpora only where any are named. Raises OptionError for one that no pool has."""
    tables = [pool.metadata for pool in pools]
    if corpora is None:
        return tables
    present = {name for table in tables for name in table["corpus"].unique().to_pylist()}
    if unknown := sorted(set(corpora) - present):
        where = ", ".join(pool.uri for pool in pools)
        raise OptionError(f"no corpus {', '.join(unknown)} in {where}; it has {', '.join(sorted(present))}")
    return [_only(table, pc.is_in(table["corpus"], pa.array(corpora, pa.string()))) for table in tables]


def eligible(options: TaskOptions, pool: Pool, corpora: Sequence[str] | None) -> pa.Table:
    """Metadata of what may take part: chosen corpora, no duplicates, and an answer among the classes or ratings."""
    table = askable(pool, corpora)
    storage.release_memory()
    oracle = Oracle(pool, options.classes, options.class_map, options.dimensions, votes=options.votes)
    if options.classes and (ignored := oracle.ignored(table["utterance_id"])):
        words = ", ".join(f"{word} ({count})" for word, count in sorted(ignored.items()))
        say(f"outside the classes and left out: {words}")
    table = _only(table, pa.array(oracle.answers(table["utterance_id"])))
    if isinstance(options, ProtocolOptions) and options.protocol is not None:
        complete = find_protocol(options.protocol).utterances
        if complete not in (None, table.num_rows):
            say(f"{options.protocol} is about {complete} utterances, this pool has {table.num_rows} of them")
    return table


def askable(pool: Pool, corpora: Sequence[str] | None) -> pa.Table:
    """Metadata of what anybody can be asked about: chosen corpora, no duplicates."""
    table = of_corpora([pool], corpora)[0]
    return _only(table, pc.is_null(table["duplicate_of"]))


def _only(table: pa.Table, mask: pa.Array | pa.ChunkedArray) -> pa.Table:
    """The rows of a mask: the table itself, and no copy of it, where that is all of them."""
    return table if pc.all(mask, min_count=0).as_py() else table.filter(mask)
