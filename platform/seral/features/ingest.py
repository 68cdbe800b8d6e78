"""Tables of features that were computed elsewhere, checked and brought into a folder that is an `encoder`.

A row is an utterance: its id, path or file name, and one of

    embedding      D numbers: one state, whose standard deviations are 0
    mean, std      D numbers, or L lists of D, a state each; without std it is 0
    frames         T lists of D numbers, or L lists of T lists: mean and standard deviation over time are computed

Tables are read a few rows at a time, and the folder is whole once its features.json is there.
"""

# N rows · L hidden states · T frames · D features
from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from ser_models.encoders.precomputed import FACTS
from ser_models.pooling import masked_mean_std
from seral import storage
from seral.errors import FeatureError, OptionError
from seral.features.options import ImportFeaturesOptions
from seral.features.precomputed import BAD, BYTES_AT_ONCE, FORMAT, NAMED, POOLED, stored_schema
from seral.features.store import GROUP_BYTES
from seral.pool.derivations import note_derivation
from seral.pool.ids import one_array, positions
from seral.pool.shards import Pool, open_pool
from seral.progress import say, track
from seral.schema import QUARANTINE, UTTERANCE

Float = NDArray[np.float32]
RowsOf = Mapping[str, NDArray[np.int64]]
"""Table -> the clip that each of its rows is about, by its position; -1 = none of the pool's."""
ID_COLUMNS = ("utterance_id", "id", "source", "path", "file", "audio", "wav", "key", "name")
"""Columns looked for, in this order, that say whose features a row holds."""
KINDS = ("embedding", "mean", "frames")
"""Columns of which a table has one."""
CLIP = ["utterance_id", "source", "pcm_hash"]
ROWS_AT_ONCE, CLIPS_AT_ONCE = 1024, 16
"""Rows of a table that are read at a time, and those with frames."""
SUFFIXES = (".parquet", ".npz")
HELP = "`seral pool import-features --help` says what a table holds"


class Features(NamedTuple):
    """Features of the clip at a position of the pool's table, fp32: two arrays (L, D)."""

    clip: int
    mean_LD: Float
    std_LD: Float


@dataclass(kw_only=True)
class _Written:
    """Counts and digests of what is written so far."""

    shape: tuple[int, ...] = ()
    """(L, D) of all features."""
    digests: dict[str, bytes] = field(default_factory=dict)
    """Utterance -> digest of its features."""
    bad: dict[str, str] = field(default_factory=dict)
    """Utterance -> why its features cannot be used."""

    def digest(self) -> str:
        """16 hex digits of all features, whatever their order and their tables."""
        whole = hashlib.sha256(repr(self.shape).encode())
        for name in sorted(self.digests):
            whole.update(name.encode() + b"\0" + self.digests[name])
        return whole.hexdigest()[:16]


def import_features(options: ImportFeaturesOptions) -> dict[str, Any]:
    """Check tables of features against a pool, and write the folder; returns it and what it holds.

    Raises FeatureError for what cannot be meant: rows of nobody, or several of one, other columns, other sizes.
    """
    out, pools, written = storage.absolute(options.out), [open_pool(uri) for uri in options.pools], _Written()
    _check_new(out)
    tables, clips = _tables(options.tables), _clips(pools)
    rows_of = _matched(clips, {table: _names(table, options.id_column) for table in tables})
    with ExitStack() as publishing:
        for pool in pools:
            note_derivation(pool.uri, out, "features")
            publishing.enter_context(pool.publishing(lambda: [out]))
        _write(out, clips, _features(rows_of, clips, written), written)
        bad = [{"source": name, "reason": "features", "detail": why} for name, why in sorted(written.bad.items())]
        storage.write_table(storage.join(out, BAD), pa.Table.from_pylist(bad, QUARANTINE))
        states, width = written.shape
        facts = {"format": FORMAT, "made_by": options.made_by, "states": states, "width": width}
        storage.write_json(storage.join(out, FACTS), facts | {"digest": written.digest()})
    counts = {"utterances": len(written.digests), "unusable": len(written.bad), "missing": _say_missing(clips, written)}
    return {"encoder": out, "states": states, "width": width, **counts}


def _check_new(out: str) -> None:
    """Raise OptionError unless there is nothing, or what a killed import has left: that is removed."""
    names = set(storage.list_names(out))
    if names - {POOLED, BAD}:
        raise OptionError(f"out={out}: there is something already; give a new folder: other features, another encoder")
    if names:
        storage.remove(out)


def _clips(pools: Sequence[Pool]) -> pa.Table:
    """CLIP of the utterances of all pools, by id. Raises FeatureError where one sounds otherwise in another pool."""
    uris = (pool.table_uri("utterances", shard) for pool in pools for shard in pool.shards)
    clips = storage.read_tables(uris, UTTERANCE, CLIP)
    clips = clips.group_by(CLIP).aggregate([]).sort_by("utterance_id").combine_chunks()
    counts = pc.value_counts(one_array(clips["utterance_id"]))
    if len(twice := counts.filter(pc.greater(counts.field("counts"), 1)).field("values")):
        raise FeatureError(
            f"{len(twice)} utterances sound otherwise in one of {', '.join(pool.uri for pool in pools)} than in "
            f"another, e.g. {twice[0]}: import features of each pool into a folder of its own"
        )
    return clips


def _tables(sources: Sequence[str]) -> list[str]:
    """Addresses of the tables of files and folders. Raises OptionError where there is none."""
    tables = list[str]()
    for source in map(storage.absolute, sources):
        names = [source] if storage.is_file(source) else [storage.join(source, n) for n in storage.list_files(source)]
        inside = [name for name in names if name.endswith(SUFFIXES)]
        if not inside:
            raise OptionError(
                f"{source}: no table of features is there; its name has to end in {' or '.join(SUFFIXES)}"
            )
        tables += inside
    return list(dict.fromkeys(tables))


def _arrays(table: str) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(storage.read_bytes(table)), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _columns(table: str) -> list[str]:
    if table.endswith(".npz"):
        return list(_arrays(table))
    names: list[str] = storage.read_footer(table).schema.to_arrow_schema().names
    return names


def _names(table: str, asked: str | None) -> pa.Array:
    """Names that a table has for its rows. Raises FeatureError for one without rows, or without their names."""
    columns = _columns(table)
    column = next((name for name in ([asked] if asked else ID_COLUMNS) if name in columns), None)
    if column is None:
        raise FeatureError(
            f"{table} has no column {asked or 'of names, such as utterance_id or file'}, only {', '.join(columns)}: "
            "--set id_column=NAME says which one tells whose features a row holds"
        )
    npz = table.endswith(".npz")
    names = pa.array(_arrays(table)[column]) if npz else one_array(storage.read_table(table, [column])[column])
    if not len(names):
        raise FeatureError(f"{table} has no rows")
    if not (pa.types.is_string(names.type) or pa.types.is_large_string(names.type)):
        raise FeatureError(f"{table}: {column} holds {names.type}, and names of rows are text")
    if names.null_count:
        raise FeatureError(f"{table}: row {pc.index(names.is_null(), True)} has no {column}")
    return names.cast(pa.string())


def _stems(names: pa.Array) -> pa.Array:
    """File names without folders and suffixes."""
    return pc.replace_substring_regex(pc.replace_substring_regex(names, r"^.*[/\\]", ""), r"\.[A-Za-z0-9]+$", "")


def _matched(clips: pa.Table, names_of: Mapping[str, pa.Array]) -> RowsOf:
    """The clip that each row of each table is about.

    All are named in the first way that fits any: by id, by path in the corpus, by a file that is called after the id,
    by file name. Raises FeatureError where none fits, and for a name of several clips or several rows of one.
    """
    ids, sources = (one_array(clips[name]) for name in CLIP[:2])
    names = pa.concat_arrays([*names_of.values()])
    for asked, among in ((names, ids), (names, sources), (_stems(names), ids), (_stems(names), _stems(sources))):
        clip_N = positions(asked, among)
        if (clip_N >= 0).any():
            break
    else:
        raise FeatureError(
            f"none of {len(names)} rows, such as {names[0]}, is named after an utterance of the pool: expected ids "
            f"such as {ids[0]}, paths such as {sources[0]}, or file names"
        )
    counts = pc.value_counts(among.filter(pc.is_in(among, value_set=asked)))
    if len(several := counts.filter(pc.greater(counts.field("counts"), 1)).field("values")):
        alike = ids.filter(pc.equal(among, several[0])).to_pylist()
        raise FeatureError(
            f"{len(several)} names fit several utterances, e.g. {several[0]}: name the rows by utterance id, such as "
            f"{', '.join(alike[:NAMED])}"
        )
    order_N = np.argsort(clip_N, kind="stable")
    again_N = order_N[1:][(np.diff(clip_N[order_N]) == 0) & (clip_N[order_N[1:]] >= 0)]
    if len(again_N):
        raise FeatureError(f"{len(again_N)} rows are about an utterance that has one, e.g. {names[int(again_N.min())]}")
    if len(strangers := np.flatnonzero(clip_N < 0)):
        e_g = names[int(strangers[0])]
        say(f"{len(strangers)} rows are about no utterance of the pool, e.g. {e_g}: they are left out")
    ends = np.cumsum([len(own) for own in names_of.values()])
    return dict(zip(names_of, np.split(clip_N, ends[:-1]), strict=True))


def _write(out: str, clips: pa.Table, features: Iterator[Features], written: _Written) -> None:
    """Write features as tables of bounded size, each whole or not there. Raises FeatureError where there are none."""
    number = 0
    while (first := next(features, None)) is not None:
        numbers = first.mean_LD.size
        uri, group = storage.join(out, POOLED, f"{number:05d}.parquet"), max(16, GROUP_BYTES // (4 * numbers))
        with storage.table_writer(uri, stored_schema(numbers), row_group_rows=group) as writer:
            writer.append(_cells(first, clips, written))
            for one in islice(features, int(BYTES_AT_ONCE / (4 * numbers))):
                writer.append(_cells(one, clips, written))
        number += 1
    if not number:
        name, why = next(iter(written.bad.items()))
        raise FeatureError(f"no row can be used, e.g. of {name}: {why}")


def _cells(features: Features, clips: pa.Table, written: _Written) -> dict[str, Any]:
    """A row of the folder's tables."""
    mean, std = (values.astype(np.float16).tobytes() for values in features[1:])
    row: dict[str, Any] = {name: clips[name][features.clip].as_py() for name in ("utterance_id", "pcm_hash")}
    written.digests[row["utterance_id"]] = hashlib.sha256(mean + std).digest()
    return row | {"mean": mean, "std": std}


def _features(rows_of: RowsOf, clips: pa.Table, written: _Written) -> Iterator[Features]:
    """Features of clips that can be used, in the order of the tables. Raises FeatureError where sizes differ."""
    with track("features", sum(map(len, rows_of.values()))) as advance:
        for table, clip_N in rows_of.items():
            for clip, parts in zip(clip_N.tolist(), _rows(table), strict=True):
                advance(1)
                if clip < 0:
                    continue
                name = clips["utterance_id"][clip].as_py()
                one = Features(clip, *_moments(f"{table}: {name}", parts))
                written.shape = written.shape or one.mean_LD.shape
                if one.mean_LD.shape != written.shape:
                    sizes = (" x ".join(map(str, shape)) for shape in (one.mean_LD.shape, written.shape))
                    raise FeatureError(f"{table}: {name} has {' numbers, and those before '.join(sizes)}")
                with np.errstate(over="ignore"):
                    finite = all(np.isfinite(part.astype(np.float16)).all() for part in one[1:])
                if finite:
                    yield one
                else:
                    written.bad[name] = "its features are NaN, infinite, or too large for half precision"


def _rows(table: str) -> Iterator[dict[str, NDArray[Any]]]:
    """Columns of the features of each row of a table, as arrays. Raises FeatureError for columns that are not usual."""
    columns = _columns(table)
    kinds = [name for name in KINDS if name in columns]
    if len(kinds) != 1:
        raise FeatureError(
            f"{table} has the columns {', '.join(columns)}, of which one of {', '.join(KINDS)} is needed"
        )
    asked = [*kinds, *(["std"] if kinds == ["mean"] and "std" in columns else [])]
    if table.endswith(".npz"):
        arrays = _arrays(table)
        yield from ({name: arrays[name][row] for name in asked} for row in range(len(arrays[kinds[0]])))
        return
    number = 0
    for batch in storage.read_batches(table, asked, rows=CLIPS_AT_ONCE if kinds == ["frames"] else ROWS_AT_ONCE):
        for row in range(batch.num_rows):
            yield {name: _array(batch[name][row], f"{table}, row {number}: {name}") for name in asked}
            number += 1


def _array(cell: pa.Scalar, what: str) -> NDArray[Any]:
    """Nested lists of one length at each level as an array. Raises FeatureError for anything else."""
    if not _is_list(cell.type):
        raise FeatureError(f"{what} holds {cell.type}, and features are lists of numbers")
    if not cell.is_valid:
        raise FeatureError(f"{what} is empty: leave the row out")
    values, shape = cell.values, [len(cell.values)]
    while _is_list(values.type):
        lengths = pc.unique(pc.list_value_length(values))
        if len(lengths) != 1 or values.null_count:
            raise FeatureError(f"{what} holds lists of several lengths")
        shape.append(lengths[0].as_py())
        values = values.flatten()
    if not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise FeatureError(f"{what} holds lists of {values.type}, and features are numbers")
    numbers: NDArray[Any] = values.to_numpy(zero_copy_only=False)  # a gap is NaN
    return numbers.reshape(shape)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _moments(what: str, parts: Mapping[str, NDArray[Any]]) -> tuple[Float, Float]:
    """Mean and standard deviation (L, D) of the columns of one row. Raises FeatureError for other shapes."""
    name, values = next(iter(parts.items()))
    deepest = 3 if name == "frames" else 2
    if not values.size or not deepest - 1 <= values.ndim <= deepest or values.dtype.kind not in "fiu":
        raise FeatureError(f"{what} has {name} of {values.dtype} and the shape {values.shape}: {HELP}")
    values = values.astype(np.float32).reshape(-1, *values.shape[1 - deepest :])
    if name == "frames":
        hidden_LBTD = torch.from_numpy(values)[:, None]
        mean_LBD, std_LBD = masked_mean_std(hidden_LBTD, torch.ones(1, values.shape[1], dtype=torch.bool))
        return mean_LBD[:, 0].numpy(), std_LBD[:, 0].numpy()
    std = parts["std"].astype(np.float32) if "std" in parts else np.zeros_like(values)
    if std.size != values.size:
        raise FeatureError(f"{what} has {values.size} numbers in mean and {std.size} in std: {HELP}")
    return values, std.reshape(values.shape)


def _say_missing(clips: pa.Table, written: _Written) -> int:
    """Say which utterances there are no features of that can be used; returns the count of those without any."""
    if written.bad:
        name, why = next(iter(written.bad.items()))
        say(f"{len(written.bad)} utterances are left out, e.g. {name}: {why}")
    missing = [n for n in clips["utterance_id"].to_pylist() if n not in written.digests and n not in written.bad]
    if missing:
        say(f"{len(missing)} of {len(clips)} utterances have no features, e.g. {missing[0]}: runs leave them out")
    return len(missing)
