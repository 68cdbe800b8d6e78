"""audformat databases: `db.yaml`, a filewise table a split, and the clips; raters are columns of these tables.

The package is not needed; `audformat.Database.load` opens it. A vote of a rater without a name, or of one among more
than MOST_RATERS, has no column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from seral.exports.clips import COLUMNS, LABELS, About, Clip, write_clip
from seral.options import deep_copy
from seral.progress import say
from seral.schema import RATED

MOST_RATERS = 200
FIELDS = tuple(name for name in COLUMNS if name not in {"split", "votes"})
"""Columns of every table."""
BATCH_ROWS = 1024


def write_audformat(clips: Iterator[Clip], out: Path, about: About) -> None:
    """Write the clips, the tables and, last, the header."""
    raters = about.raters if len(about.raters) <= MOST_RATERS else ()
    if raters != about.raters:
        say(f"{len(about.raters)} raters are too many for audformat's columns: their votes are left out")
    columns: dict[str, dict[str, str]] = {name: {"scheme_id": name} for name in FIELDS}
    columns |= {f"{name}.{who}": {"scheme_id": name, "rater_id": who} for who in raters for name in LABELS}
    fields = [(name, pa.float32() if about["scheme_id"] in RATED else pa.string()) for name, about in columns.items()]
    schema = pa.schema([("file", pa.string()), *fields])
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(pq.ParquetWriter(out / f"db.{split}.parquet", schema)) for split in about.splits
        }
        rows: dict[str, list[dict[str, Any]]] = {split: [] for split in about.splits}
        for clip in clips:
            rows[clip.split].append({"file": write_clip(out, clip)} | _row(clip, frozenset(raters)))
            if len(rows[clip.split]) == BATCH_ROWS:
                writers[clip.split].write_table(pa.Table.from_pylist(rows[clip.split], schema))
                rows[clip.split] = []
        for split, left in rows.items():
            writers[split].write_table(pa.Table.from_pylist(left, schema))
    header = _header(about, columns, raters)
    (out / "db.yaml").write_text(yaml.safe_dump(header, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _row(clip: Clip, raters: frozenset[str]) -> dict[str, Any]:
    row = {name: clip.values.get(name) for name in FIELDS}
    for vote in json.loads(clip.values.get("votes", "[]")):
        if vote.get("rater") in raters:
            row |= {f"{name}.{vote['rater']}": vote[name] for name in LABELS if name in vote}
    return row


def _header(about: About, columns: dict[str, dict[str, str]], raters: tuple[str, ...]) -> dict[str, Any]:
    schemes = {name: {"dtype": "float" if name in RATED else "str"} for name in FIELDS}
    splits = {split: {"type": split} for split in about.splits if split in ("train", "dev", "test")}
    # A mapping that stood there twice would be an alias in the YAML.
    tables = {
        split: {"type": "filewise"} | ({"split_id": split} if split in splits else {}) | {"columns": deep_copy(columns)}
        for split in about.splits
    }
    header: dict[str, Any] = {"name": about.name, "source": "", "usage": "other"}
    header |= {"license": about.licence} if about.licence else {}
    header |= {"raters": {who: {"type": "human"} for who in raters}} if raters else {}
    return header | {"schemes": schemes, "splits": splits, "tables": tables}
