"""The quality filter: recordings too bad to ask anybody about, and the measure that says so."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from seral.audio.quality import weakest
from seral.pool.ids import Ids, one_array, positions
from seral.pool.splits import Fold
from seral.schema import FILTERED

MEASURES = ("snr_db", "clipping", "bandwidth_hz", "voice_ratio")
SLAB = 65_536
"""Rows that are objects at a time."""


def below_quality(ids: Collection[str], metadata: pa.Table, min_quality: float) -> pa.Table:
    """Utterances whose quality is below `min_quality`, schema.FILTERED; what was not measured stays out."""
    rows = metadata.filter(pc.less(metadata["quality"], min_quality))
    rows = rows.filter(pa.array(positions(one_array(rows["utterance_id"]), pa.array(Ids(ids))) >= 0))
    slabs = rows.select(MEASURES).to_batches(max_chunksize=SLAB)
    reasons = [weakest(**row) for slab in slabs for row in slab.to_pylist()]
    columns = {
        "utterance_id": rows["utterance_id"],
        "quality": rows["quality"],
        "reason": pa.array(reasons, pa.string()),
    }
    return pa.table(columns, schema=FILTERED)


def above_quality(fold: Fold, metadata: pa.Table, min_quality: float) -> Fold:
    """The fold without training utterances below `min_quality`. Dev and test judge, so they stay as they are."""
    return fold.without(set(below_quality(fold.train, metadata, min_quality)["utterance_id"].to_pylist()))


def count_reasons(filtered: pa.Table) -> dict[str, int]:
    """Number of utterances filtered out by measure, the most frequent first."""
    counts = pc.value_counts(filtered["reason"]).to_pylist()
    return {line["values"]: line["counts"] for line in sorted(counts, key=lambda line: -line["counts"])}
