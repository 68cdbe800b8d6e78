"""Candidates from Parquet: features, predictions and what else is known, of whole pools or of some of their shards."""

# N candidates · M labelled · L hidden states · D features · C classes
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from seral import storage
from seral.active.candidates import KNOWN_COLUMNS, Candidates, Stored, known_of
from seral.errors import OptionError, SelectionError
from seral.features import ENCODER_KEY
from seral.options import Options

VECTORS = ("embedding", "mean")
"""Columns in which features are looked for, the first that is there."""


class SourceOptions(Options):
    """Where candidates are read from. Every folder holds Parquet files with a column `utterance_id`."""

    features: str
    """Folder of features: `embedding` (fp16 or fp32 numbers, as lists or as binary fp16), or the `mean` of all hidden
    states as jobs/features.py writes it (FEATURES/<fingerprint>/pooled)."""
    state: int | None = Field(default=None, ge=0)
    """Which hidden state of `mean`; needs `states`."""
    states: int | None = Field(default=None, ge=1)
    """How many hidden states `mean` holds."""
    predictions: str | None = None
    """Folder or file of class probabilities `p_<class>`; of a run, only the part `pool` is read."""
    metadata: str | None = None
    """A pool's `utterances` folder: durations, speakers, corpora, languages, quality."""
    surprisal: str | None = None
    """Folder of pretraining losses, for `alps`: TAPT/surprisal."""
    labelled: str | None = None
    """Folder or file of what is labelled already: `utterance_id`, and `answer` where it is there, of which only
    `unusable` is read."""


def shards(options: SourceOptions) -> list[str]:
    """Names of the feature files. Raises SelectionError when they say that different encoders made them."""
    names = storage.list_names(options.features, ".parquet")
    if not names:
        raise OptionError(f"there are no Parquet files in {options.features}")
    made_by: dict[bytes, str] = {}
    for name in names:
        metadata = storage.read_schema(storage.join(options.features, name)).metadata or {}
        if ENCODER_KEY.encode() in metadata:
            made_by.setdefault(metadata[ENCODER_KEY.encode()], name)
    if len(made_by) > 1:
        found = ", ".join(f"{name} by {encoder.decode()}" for encoder, name in made_by.items())
        raise SelectionError(f"{options.features} holds features of different encoders, which do not compare: {found}")
    return names


def read_candidates(options: SourceOptions, names: Sequence[str]) -> Candidates:
    """The candidates of some feature files, and what is labelled among their rows.

    Features are written straight to their place in the order of ids, one file at a time: memory is that of the result
    and of one file.
    """
    every = np.concatenate([_ids(options.features, name) for name in names])
    labelled, rejected = _labelled_ids(options)
    is_labelled_N = np.isin(every, labelled)
    order = np.argsort(every, kind="stable")
    free, known = order[~is_labelled_N[order]], order[is_labelled_N[order]]
    place_N = np.empty(len(every), dtype=np.intp)
    place_N[free], place_N[known] = np.arange(len(free)), np.arange(len(known))
    x_ND: dict[bool, Stored] = {}
    at = 0
    for name in names:
        part_BD = _vectors(options, name)
        here = slice(at, at + len(part_BD))
        at += len(part_BD)
        for kind, count in ((False, len(free)), (True, len(known))):
            if kind not in x_ND:
                x_ND[kind] = np.empty((count, part_BD.shape[1]), dtype=part_BD.dtype)
            rows = np.flatnonzero(is_labelled_N[here] == kind)
            x_ND[kind][place_N[here][rows]] = part_BD[rows]
        del part_BD
        pa.default_memory_pool().release_unused()  # Arrow keeps what a file took, else
    candidate_ids, labelled_ids = every[free], every[known]
    del every, order, place_N, is_labelled_N
    return Candidates(
        ids=candidate_ids,
        embedding_ND=x_ND[False],
        surprisal_NK=None if options.surprisal is None else read_vectors(options.surprisal, candidate_ids.tolist()),
        labelled_ids=labelled_ids,
        labelled_embedding_MD=x_ND[True],
        rejected_M=np.isin(labelled_ids, rejected),
        **_predictions(options, names, candidate_ids),
        **_metadata(options, names, candidate_ids),
    )


def read_vectors(folder: str, ids: Sequence[str]) -> Stored:
    """Vectors of some ids from a folder of Parquet files with `utterance_id` and `embedding`, in their order."""
    table = _all_of(folder, ["utterance_id", "embedding"])
    rows = _rows(table, np.asarray(ids, dtype=np.str_), f"vector in {folder}")
    flat = _numbers(table["embedding"].combine_chunks())
    return flat.reshape(table.num_rows, -1)[rows]


def _ids(folder: str, name: str) -> NDArray[np.str_]:
    table = storage.read_table(storage.join(folder, name), ["utterance_id"])
    return np.asarray(table["utterance_id"].to_pylist(), dtype=np.str_)


def _vectors(options: SourceOptions, name: str) -> Stored:
    """The features of one file, (B, D)."""
    uri = storage.join(options.features, name)
    present = storage.read_schema(uri).names
    column = next((c for c in VECTORS if c in present), None)
    if column is None:
        raise SelectionError(f"{uri} has none of the columns {', '.join(VECTORS)}; it has {', '.join(present)}")
    cells = storage.read_table(uri, [column])[column].combine_chunks()
    if cells.null_count:
        raise SelectionError(f"{uri}: {cells.null_count} rows have no {column}")
    flat = _numbers(cells)
    if not len(cells) or flat.size % len(cells):
        raise SelectionError(f"{uri}: {flat.size} numbers in {len(cells)} rows; every row must have as many")
    if column == "embedding":
        return flat.reshape(len(cells), -1)
    if options.state is None or options.states is None or not options.state < options.states:
        raise OptionError(f"{uri} holds all hidden states: say `states` (how many) and `state` (which one, from 0)")
    return flat.reshape(len(cells), options.states, -1)[:, options.state]


def _numbers(cells: pa.Array) -> Stored:
    """The numbers of a column of vectors in one row; binary cells hold fp16."""
    kind = cells.type
    if pa.types.is_fixed_size_binary(kind):
        start, end = cells.offset * kind.byte_width, (cells.offset + len(cells)) * kind.byte_width
        return np.frombuffer(cells.buffers()[1], np.uint8)[start:end].view(np.float16)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        width = np.int64 if pa.types.is_large_binary(kind) else np.int32
        limit = np.frombuffer(cells.buffers()[1], width)[cells.offset : cells.offset + len(cells) + 1]
        return np.frombuffer(cells.buffers()[2], np.uint8)[limit[0] : limit[-1]].view(np.float16)
    flat = np.asarray(cells.flatten())
    return flat if flat.dtype == np.float16 else flat.astype(np.float32)


def _labelled_ids(options: SourceOptions) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """What is labelled, and what of it was found unusable."""
    if options.labelled is None:
        return np.empty(0, dtype=np.str_), np.empty(0, dtype=np.str_)
    table = _all_of(options.labelled)
    ids = np.asarray(table["utterance_id"].to_pylist(), dtype=np.str_)
    if "answer" not in table.column_names:
        return ids, ids[:0]
    return ids, ids[np.asarray(table["answer"].to_pylist(), dtype=object) == "unusable"]


def _all_of(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, or all of a folder."""
    if uri.endswith(".parquet"):
        return storage.read_table(uri, columns)
    names = storage.list_names(uri, ".parquet")
    if not names:
        raise OptionError(f"there are no Parquet files in {uri}")
    return pa.concat_tables([storage.read_table(storage.join(uri, name), columns) for name in names])


def _beside(uri: str, names: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
    """The files that are called like the feature files, or everything when there are none of that name."""
    if uri.endswith(".parquet") or not set(names) <= set(storage.list_names(uri, ".parquet")):
        return _all_of(uri, columns)
    return pa.concat_tables([storage.read_table(storage.join(uri, name), columns) for name in names])


def _rows(table: pa.Table, ids: NDArray[np.str_], what: str) -> NDArray[np.intp]:
    """Rows of the table about these ids, in their order."""
    named = np.asarray(table["utterance_id"].to_pylist(), dtype=np.str_)
    order = np.argsort(named, kind="stable")
    place = np.minimum(np.searchsorted(named, ids, sorter=order), len(named) - 1)
    rows = order[place] if len(named) else np.empty(0, dtype=np.intp)
    absent = ids[named[rows] != ids] if len(named) else ids
    if len(absent):
        raise SelectionError(f"{len(absent)} utterances have features but no {what}, e.g. {', '.join(absent[:3])}")
    return rows


def _predictions(options: SourceOptions, names: Sequence[str], ids: NDArray[np.str_]) -> dict[str, Any]:
    if options.predictions is None:
        return {}
    table = _beside(options.predictions, names)
    if "part" in table.column_names:
        table = table.filter(pc.equal(table["part"], "pool"))
    classes = [column for column in table.column_names if column.startswith("p_")]
    rows = _rows(table, ids, f"probabilities in {options.predictions}")
    return {"probability_NC": np.stack([np.asarray(table[c], np.float32)[rows] for c in classes], axis=1)}


def _metadata(options: SourceOptions, names: Sequence[str], ids: NDArray[np.str_]) -> dict[str, Any]:
    if options.metadata is None:
        return {}
    table = _beside(options.metadata, names, ["utterance_id", *KNOWN_COLUMNS])
    table = table.take(_rows(table, ids, f"row in {options.metadata}"))
    return known_of(table)
