"""Candidates from Parquet: features, predictions and metadata, of whole pools or of some of their shards."""

# N candidates · M labelled · R repeats (dropout passes) · L hidden states · D features · C classes
from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import FeatureError, LabelError, OptionError, SelectionError
from seral.features.store import vector_numbers
from seral.pool.ids import one_array
from seral.schema import ENCODER_KEY, RATED
from seral.selection.candidates import COLUMNS, METADATA_COLUMNS, Candidates, metadata_columns
from seral.selection.source_options import SourceOptions
from seral.vectors.arrays import Floats, Rows, Stored, Strings

VECTORS = ("embedding", "mean")
"""Columns in which features are looked for, the first that is there."""
PASS = re.compile(r"p(\d+)_(.*)")
"""A column of one dropout pass: its number and its class."""
MEMBER = re.compile(rf"({'|'.join(RATED)})_(\d+)")
"""A column of one member of an ensemble: the dimension that it rates and its number."""


def shards(options: SourceOptions) -> list[str]:
    """Names of the feature files that are not empty.

    Raises FeatureError when all are, and SelectionError when they say that different encoders made them.
    """
    files = storage.list_names(options.features, ".parquet")
    if not files:
        raise OptionError(f"there are no Parquet files in {options.features}")
    names, made_by = list[str](), dict[bytes, str]()
    for name in files:
        footer = storage.read_footer(storage.join(options.features, name))
        if footer.num_rows:
            names.append(name)
            if (encoder := (footer.metadata or {}).get(ENCODER_KEY.encode())) is not None:
                made_by.setdefault(encoder, name)
    if not names:
        raise FeatureError(f"{options.features} holds no utterance: all its Parquet files are empty, e.g. {files[0]}")
    if len(made_by) > 1:
        makers = ", ".join(f"{name} by {encoder.decode()}" for encoder, name in made_by.items())
        raise SelectionError(f"{options.features} holds features of different encoders, which do not compare: {makers}")
    return names


def read_candidates(options: SourceOptions, names: Sequence[str]) -> Candidates:
    """The candidates of some feature files, none of them empty, and what is labelled among their rows.

    Features are written straight to their row in the order of ids, one file at a time: memory is that of the result
    and of one file. Raises FeatureError when files are of different widths or name an utterance twice.
    """
    labels = read_labelled(options)
    layout = _layout(options, names, labels.ids)
    candidate_ids, labelled_ids = layout.ids
    candidate_ND, labelled_MD = _read_features(options, names, layout)
    predictions = _predictions(options, names, layout)
    del layout
    if options.labelled_features is not None:
        labelled_ids, labelled_MD = labels.ids, read_vectors(options.labelled_features, labels.ids.tolist())
    labelled_rows = np.searchsorted(labels.ids, labelled_ids)
    return Candidates(
        ids=candidate_ids,
        embedding_ND=candidate_ND,
        labelled_ids=labelled_ids,
        labelled_embedding_MD=labelled_MD,
        labelled_doubt_M=None if labels.doubt_M is None else labels.doubt_M[labelled_rows],
        labelled_value_MK=None if labels.value_MK is None else labels.value_MK[labelled_rows],
        rejected_M=labels.rejected_M[labelled_rows],
        **_vectors_of_folders(options, candidate_ids),
        **predictions,
        **_metadata(options, names, candidate_ids),
    )


class _Layout(NamedTuple):
    """The rows of all feature files, divided into candidates and labelled utterances, each in the order of ids."""

    ids: tuple[Strings, Strings]
    """Of the candidates, and of what is labelled."""
    is_labelled_N: NDArray[np.bool_]
    """Whether a row of the files, one after another, is labelled."""
    target_N: Rows
    """The row that it becomes, among the candidates or the labelled ones."""
    rows: Rows
    """The rows of the candidates, in the order of ids."""


def _layout(options: SourceOptions, names: Sequence[str], labelled_ids: Strings) -> _Layout:
    """Positions of every row of the files. Raises FeatureError when an utterance is in two of them."""
    ids = [_ids(storage.join(options.features, name)) for name in names]
    id_N, limits = np.concatenate(ids), np.cumsum([len(part) for part in ids])
    del ids
    is_labelled_N = np.isin(id_N, labelled_ids)
    order = np.argsort(id_N, kind="stable")
    sorted_N = id_N[order]
    if len(twice := np.flatnonzero(sorted_N[1:] == sorted_N[:-1])):
        one, other = (names[int(np.searchsorted(limits, row, side="right"))] for row in order[twice[0] :][:2])
        raise FeatureError(f"{options.features} holds {sorted_N[twice[0]]} twice: in {one} and in {other}")
    del sorted_N
    rows = order[~is_labelled_N[order]], order[is_labelled_N[order]]
    target_N = np.empty(len(id_N), dtype=np.intp)
    for mine in rows:
        target_N[mine] = np.arange(len(mine))
    return _Layout((id_N[rows[0]], id_N[rows[1]]), is_labelled_N, target_N, rows[0])


def _read_features(
    options: SourceOptions, names: Sequence[str], layout: _Layout
) -> tuple[Stored | None, Stored | None]:
    """Features of the candidates, (N, D), and of what is labelled, (M, D), read one file at a time.

    None where the files hold predictions and no features.
    """
    if options.features == options.predictions and _vector_column(options, names[0]) is None:
        return None, None
    whole: list[Stored] = []
    start = 0
    for name in names:
        part_BD = _vectors(options, name)
        if not whole:
            whole = [np.empty((len(ids), part_BD.shape[1]), dtype=part_BD.dtype) for ids in layout.ids]
        if part_BD.shape[1] != (width := whole[0].shape[1]):
            raise different_widths(options.features, {names[0]: width, name: part_BD.shape[1]})
        file = slice(start, start + len(part_BD))
        start = file.stop
        for labelled, x_ND in enumerate(whole):
            rows = np.flatnonzero(layout.is_labelled_N[file] == labelled)
            x_ND[layout.target_N[file][rows]] = part_BD[rows]
        del part_BD
        storage.release_memory()  # else what a file took is kept
    return whole[0], whole[1]


def _vectors_of_folders(options: SourceOptions, ids: Strings) -> dict[str, Any]:
    """Columns of Candidates that have a folder of vectors of their own, where the options name it."""
    folders = ((name, getattr(options, facts.folder)) for name, facts in COLUMNS.items() if facts.folder is not None)
    return {name: read_vectors(folder, ids.tolist()) for name, folder in folders if folder is not None}


def different_widths(folder: str, width_of: Mapping[str, int]) -> FeatureError:
    """The error for files whose features are not of one width."""
    widths = ", ".join(f"{width} numbers an utterance in {name}" for name, width in width_of.items())
    return FeatureError(f"{folder} holds features of different widths, which do not compare: {widths}")


class Labelled(NamedTuple):
    """Facts about the utterances that are labelled already, in the order of their ids."""

    ids: Strings
    rejected_M: NDArray[np.bool_]
    """True where it was found unusable."""
    doubt_M: NDArray[np.float32] | None
    """Disbelief in the labels, 0..1; None = nobody said."""
    value_MK: NDArray[np.float32] | None
    """Predicted ratings; None = nobody said."""


def read_labelled(options: SourceOptions) -> Labelled:
    """Labelled utterances and their labels. Raises LabelError for an utterance of which two things are said."""
    if options.labelled is None:
        return Labelled(np.empty(0, dtype=np.str_), np.empty(0, dtype=bool), None, None)
    table = _read(_files(options.labelled))
    ids, first, row_M = np.unique(_names(table, options.labelled), return_index=True, return_inverse=True)
    values: dict[str, NDArray[Any]] = {"unusable": np.zeros(len(row_M), dtype=bool)}
    if "answer" in table.column_names:
        values["unusable"] = np.asarray(table["answer"].to_pylist(), dtype=object) == "unusable"
    if "doubt" in table.column_names:
        values["doubt"] = np.asarray(table["doubt"].fill_null(0), dtype=np.float32)
    dimensions = [name for name in RATED if name in table.column_names]
    values |= {name: np.asarray(table[name], dtype=np.float32) for name in dimensions}
    for name, value_M in values.items():
        first_M = value_M[first][row_M]
        if len(against := np.flatnonzero((value_M != first_M) & (np.arange(len(row_M)) != first[row_M]))):
            row = against[0]
            raise LabelError(
                f"{options.labelled} holds {ids[row_M[row]]} twice and does not agree with itself: {name} is "
                f"{first_M[row]} and {value_M[row]}"
            )
    value_MK = np.stack([values[name][first] for name in dimensions], axis=1) if dimensions else None
    return Labelled(ids, values["unusable"][first], values["doubt"][first] if "doubt" in values else None, value_MK)


def read_vectors(folder: str, ids: Sequence[str]) -> Stored:
    """Vectors of some ids from a folder of Parquet files with `utterance_id` and `embedding`, in their order."""
    table = _read(_files(folder), ["utterance_id", "embedding"])
    rows = _rows(table, np.asarray(ids, dtype=np.str_), f"vector in {folder}")
    flat = _numbers(table["embedding"].combine_chunks())
    return flat.reshape(table.num_rows, -1)[rows]


def _ids(uri: str) -> Strings:
    return _names(storage.read_table(uri, ["utterance_id"]), uri)


def _check_names(table: pa.Table, uri: str) -> None:
    """Raise SelectionError where rows of a table that was read from there have no id."""
    if nameless := table["utterance_id"].null_count:
        raise SelectionError(f"{uri}: {nameless} rows have no utterance_id")


def _names(table: pa.Table, uri: str) -> Strings:
    """The ids of a table that was read from there."""
    _check_names(table, uri)
    return np.asarray(table["utterance_id"].to_pylist(), dtype=np.str_)


def _vector_column(options: SourceOptions, name: str) -> str | None:
    """The column of vectors of a file; None where it has none."""
    present = storage.read_footer(storage.join(options.features, name)).schema.to_arrow_schema().names
    return next((column for column in VECTORS if column in present), None)


def _vectors(options: SourceOptions, name: str) -> Stored:
    """The features of one file, (B, D)."""
    uri, column = storage.join(options.features, name), _vector_column(options, name)
    if column is None:
        present = storage.read_footer(uri).schema.to_arrow_schema().names
        raise SelectionError(f"{uri} has none of the columns {', '.join(VECTORS)}; it has {', '.join(present)}")
    cells = storage.read_table(uri, [column])[column].combine_chunks()
    if cells.null_count:
        raise SelectionError(f"{uri}: {cells.null_count} rows have no {column}")
    if not len(cells):
        raise FeatureError(f"{uri} holds no utterance")
    length, unit = (pc.list_value_length, "numbers") if pa.types.is_nested(cells.type) else (pc.binary_length, "bytes")
    if (least := pc.min(length(cells))) != (most := pc.max(length(cells))):
        raise SelectionError(f"{uri}: {column} of {least} to {most} {unit}; every row must have as many")
    flat = _numbers(cells)
    if column == "embedding":
        return flat.reshape(len(cells), -1)
    if options.state is None or options.states is None or not options.state < options.states:
        raise OptionError(f"{uri} holds all hidden states: say `states` (how many) and `state` (which one, from 0)")
    return flat.reshape(len(cells), options.states, -1)[:, options.state]


def _numbers(cells: pa.Array) -> Stored:
    """The numbers of a column of vectors in one row; binary cells hold fp16."""
    if not pa.types.is_nested(cells.type):
        return vector_numbers(cells)
    flat = np.asarray(cells.flatten())
    return flat if flat.dtype == np.float16 else flat.astype(np.float32)


def _files(uri: str, names: Sequence[str] = ()) -> list[str]:
    """One Parquet file, or of a folder those that have these names, or all when there are none of that name."""
    if uri.endswith(".parquet"):
        if not storage.exists(uri):
            raise OptionError(f"there is no file {uri}")
        return [uri]
    present = storage.list_names(uri, ".parquet")
    if not present:
        raise OptionError(f"there are no Parquet files in {uri}")
    return [storage.join(uri, name) for name in (names if names and set(names) <= set(present) else present)]


def _read(files: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Parquet files one after another, or some of their columns."""
    return pa.concat_tables([storage.read_table(file, columns) for file in files])


def _is_prediction(column: str) -> bool:
    """Whether a column of a table of predictions is read: ids, parts and outputs, not what lies beside them."""
    if column in ("utterance_id", "part", *RATED) or column.startswith("p_"):
        return True
    return PASS.fullmatch(column) is not None or MEMBER.fullmatch(column) is not None


def _rows(table: pa.Table, ids: Strings, what: str) -> NDArray[np.intp]:
    """Rows of the table about these ids, in their order."""
    _check_names(table, what)
    rows = pc.index_in(pa.array(ids, pa.string()), value_set=one_array(table["utterance_id"]))
    if rows.null_count:
        absent = ids[np.asarray(rows.is_null())]
        raise SelectionError(f"{len(absent)} utterances have features but no {what}, e.g. {', '.join(absent[:3])}")
    return np.asarray(rows, dtype=np.intp)


def _predictions(options: SourceOptions, names: Sequence[str], layout: _Layout) -> dict[str, Any]:
    if options.predictions is None:
        return {}
    files = _files(options.predictions, names)
    present = storage.read_footer(files[0]).schema.to_arrow_schema().names
    table = _read(files, [column for column in present if _is_prediction(column)])
    if options.predictions == options.features and "part" not in table.column_names:
        rows = layout.rows  # of the same files
    else:
        if "part" in table.column_names:
            table = table.filter(pc.equal(table["part"], "pool"))
        rows = _rows(table, layout.ids[0], f"predictions in {options.predictions}")

    def stacked(columns: Sequence[str]) -> Floats:
        return np.stack([np.asarray(table[column], np.float32)[rows] for column in columns], axis=1)

    classes = [column[2:] for column in table.column_names if column.startswith("p_")]
    dimensions = [name for name in RATED if name in table.column_names]
    passes = sorted({int(match[1]) for column in table.column_names if (match := PASS.fullmatch(column))})
    members = sorted({int(match[2]) for column in table.column_names if (match := MEMBER.fullmatch(column))})
    if not classes and not dimensions:
        wanted_names = f"p_<class>, {', '.join(RATED)}"
        raise SelectionError(f"{options.predictions} has no column {wanted_names}; it has {', '.join(present)}")
    columns = {"probability_NC": stacked([f"p_{name}" for name in classes])} if classes else {}
    columns |= {"value_NK": stacked(dimensions)} if dimensions else {}
    repeated = {
        "dropout_RNC": [[f"p{number}_{name}" for name in classes] for number in passes],
        "member_RNK": [[f"{name}_{number}" for name in dimensions] for number in members],
    }
    for field, wanted in repeated.items():
        if absent := {*itertools.chain(*wanted)} - {*table.column_names}:
            raise SelectionError(
                f"{options.predictions} has several passes or members, but no column {', '.join(sorted(absent))}"
            )
        if wanted:
            columns[field] = np.stack([stacked(names) for names in wanted])
    return columns


def _metadata(options: SourceOptions, names: Sequence[str], ids: Strings) -> dict[str, Any]:
    if options.metadata is None:
        return {}
    table = _read(_files(options.metadata, names), ["utterance_id", *METADATA_COLUMNS])
    table = table.take(_rows(table, ids, f"row in {options.metadata}"))
    return metadata_columns(table)
