"""Recordings too bad to ask anybody about: who they are, and which measure says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from seral.audio.quality import weakest
from seral.pool.splits import Fold
from seral.schema import FILTERED

MEASURES = ("snr_db", "clipping", "bandwidth_hz", "voice_ratio")


def below_floor(ids: Collection[str], metadata: pa.Table, min_quality: float) -> pa.Table:
    """Those of the utterances whose quality is below the floor, schema.FILTERED; what was not measured is not."""
    asked = pc.is_in(metadata["utterance_id"], pa.array(sorted(ids), pa.string()))
    rows = metadata.filter(pc.and_(asked, pc.less(metadata["quality"], min_quality)))
    reasons = [weakest(**row) for row in rows.select(MEASURES).to_pylist()]
    known = {"utterance_id": rows["utterance_id"], "quality": rows["quality"], "reason": pa.array(reasons, pa.string())}
    return pa.table(known, schema=FILTERED)


def above_floor(fold: Fold, metadata: pa.Table, min_quality: float) -> Fold:
    """The fold without training utterances below the floor. Dev and test judge, so they stay as they are."""
    return fold.without(set(below_floor(fold.train, metadata, min_quality)["utterance_id"].to_pylist()))


def count_reasons(filtered: pa.Table) -> dict[str, int]:
    """How many utterances were left out for each measure, the most frequent first."""
    return dict(Counter(filtered["reason"].to_pylist()).most_common())
