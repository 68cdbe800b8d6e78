"""The content of a pool on one HTML page that needs nothing beside it: counts, measures, quarantine, clips to hear."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pydantic import Field

from seral import storage
from seral.audio.quality import REASONS
from seral.errors import DamagedError, OptionError
from seral.options import Options
from seral.pool.dedupe import codes, first_rows
from seral.pool.derivations import note_derivation
from seral.pool.shards import Pool, open_pool
from seral.pool.stats import MEASURES, describe, read_facts
from seral.report import bars, figures, page
from seral.report.listening import Player, read_clips
from seral.task.gold import gold_counts
from seral.vectors.stable_keys import column_keys
from seral.versions import versions

WORST_BY = "quality"
HEARD = ["utterance_id", "duplicate_of", "language", "duration_s", "quality", "snr_db", "loudness_db"]
"""Columns that are read of an utterance that may be heard."""


class PoolReportOptions(Options):
    """Options of the page of a pool."""

    pool: str
    """The pool, or a snapshot of it: POOL@NAME."""
    out: str
    """The HTML file to write."""
    gold: bool = False
    """Count the gold labels by class, corpus and language."""
    players: int = Field(default=8, ge=0)
    """Clips to hear: so many drawn at random, and half as many of the worst quality."""
    hear: str | None = None
    """A Parquet or CSV table that names by `utterance_id` the clips to hear instead, the first `players` of them in its
    order and with its other columns beside them: a run's `filtered.parquet`, a round's `picks.parquet`."""
    seed: int = 0
    """Of the draw."""
    clip_s: float = Field(default=10.0, gt=0)
    """Only the first so many seconds of a clip are put on the page."""


def write_pool_report(options: PoolReportOptions) -> str:
    """Write the page of a pool; returns its address."""
    pool = open_pool(options.pool)
    table = None if options.hear is None else _read_named(options.hear)
    audible: list[pa.Table] = []
    facts = read_facts(pool, lambda rows: audible.append(_audible(rows, options, table)))
    stats, seconds_of = describe(pool, facts), _seconds_by(facts, "corpus")
    measures = {name: column for name in MEASURES if len(column := facts[name].drop_null())}
    groups = _players(pool, pa.concat_tables(audible), table, options)
    clips = [player for players in groups.values() for player in players]
    megabytes = sum(player.size for player in clips) / 1e6
    classes = _classes(pool, facts.num_rows) if options.gold else page.Section()
    html = page.fill(
        "pool.html.j2",
        title=pool.uri.rsplit("/", 1)[-1],
        environment=_facts(pool, stats),
        config="",
        lead=_lead(stats, sum(seconds_of.values())),
        tables={
            "corpora": _corpora(stats["corpora"], seconds_of),
            "measures": _measures(facts.num_rows, measures),
            "quarantine": _quarantine(stats["quarantined"]),
            **classes.tables,
        },
        pictures=_pictures(facts, measures) | classes.pictures,
        groups=groups,
        listening=f"The first {options.clip_s:g} s of {len(clips)} clips, {megabytes:.1f} MB of this page: whoever has "
        "the page has these voices.",
    )
    note_derivation(options.pool, options.out, "page")
    storage.write_bytes(options.out, html.encode("utf-8"))
    return options.out


def _read_named(uri: str) -> pa.Table:
    """A table of clips to hear, in its order, each once: `utterance_id`, a string, and other columns."""
    try:
        table = (
            pa.csv.read_csv(io.BytesIO(storage.read_bytes(uri))) if uri.endswith(".csv") else storage.read_table(uri)
        )
    except (OSError, pa.ArrowInvalid, DamagedError) as error:
        raise OptionError(f"hear: {uri} is no Parquet or CSV table: {error}") from error
    if "utterance_id" not in table.column_names:
        raise OptionError(f"hear: {uri} has no column utterance_id; it has {', '.join(table.column_names)}")
    ids = pc.cast(table["utterance_id"], pa.string())
    table = table.set_column(table.column_names.index("utterance_id"), "utterance_id", ids)
    return table.take(pa.array(first_rows(codes(ids))))


def _audible(rows: pa.Table, options: PoolReportOptions, table: pa.Table | None) -> pa.Table:
    """Of one shard the utterances that may be heard on the page: of any number of rows, a few."""
    rows = rows.select(HEARD)
    if table is not None:
        return rows.filter(pc.is_in(rows["utterance_id"], table["utterance_id"].combine_chunks()))
    worst = _worst(rows, options)
    drawn = _drawn(rows, options.players + worst.num_rows, options)  # as many of them may be among the worst
    return pa.concat_tables([worst, drawn.filter(pc.invert(pc.is_in(drawn["utterance_id"], _ids(worst))))])


def _worst(rows: pa.Table, options: PoolReportOptions) -> pa.Table:
    """The utterances of the lowest quality, half as many as are drawn; duplicates and what was not measured aside."""
    measured = rows.filter(pc.and_(pc.is_null(rows["duplicate_of"]), pc.is_valid(rows[WORST_BY])))
    order = pc.sort_indices(measured, [(WORST_BY, "ascending"), ("utterance_id", "ascending")])
    return measured.take(order[: options.players // 2])


def _drawn(rows: pa.Table, count: int, options: PoolReportOptions) -> pa.Table:
    """So many utterances drawn at random by the seed, duplicates aside."""
    counting = rows.filter(pc.is_null(rows["duplicate_of"])).sort_by("utterance_id")
    key_N = column_keys(counting["utterance_id"], f"{options.seed:016x}"[-16:])
    return counting.take(pa.array(np.argsort(key_N, kind="stable")[:count]))


def _players(pool: Pool, rows: pa.Table, table: pa.Table | None, options: PoolReportOptions) -> dict[str, list[Player]]:
    """Heading of some clips -> the clips, in their order."""
    if table is None:
        worst = _worst(rows, options)
        others = rows.filter(pc.invert(pc.is_in(rows["utterance_id"], _ids(worst))))
        drawn = _drawn(others, options.players, options)
        words_of = dict.fromkeys([*_ids(worst).to_pylist(), *_ids(drawn).to_pylist()], "")
        sizes = {
            "Those of the lowest quality:": worst.num_rows,
            f"Drawn at random, seed {options.seed}:": drawn.num_rows,
        }
    else:
        in_pool = pc.is_in(table["utterance_id"], _ids(rows))
        if strange := table.filter(pc.invert(in_pool))["utterance_id"].slice(0, 5).to_pylist():
            raise OptionError(f"{options.hear} names {', '.join(strange)}, which {options.pool} does not have")
        words_of = _words(table.slice(0, options.players))
        name = str(options.hear).rsplit("/", 1)[-1]
        sizes = {f"The first {len(words_of)} of {table.num_rows} in {name}:": len(words_of)}
    heard_rows = rows.filter(pc.is_in(rows["utterance_id"], pa.array(words_of, pa.string())))
    row_of = {row["utterance_id"]: row for row in heard_rows.to_pylist()}
    captions = {name: _caption(row_of[name], words) for name, words in words_of.items()}
    clips = iter(read_clips(pool, captions, options.clip_s))
    return {title: list(islice(clips, size)) for title, size in sizes.items() if size}


def _words(table: pa.Table) -> dict[str, str]:
    """Ids of a table in its order -> its other values in words."""
    words_of = {}
    for row in table.to_pylist():
        name = row.pop("utterance_id")
        words = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()]
        words_of[name] = " · ".join(words)
    return words_of


def _ids(rows: pa.Table) -> pa.Array:
    return rows["utterance_id"].combine_chunks()


def _caption(row: Mapping[str, Any], besides: str) -> str:
    words = [row["utterance_id"], row["language"], f"{row['duration_s']:.1f} s"]
    words += [f"{name} {row[f]:.{digits}f}{unit}" for name, f, digits, unit in SHOWN if row[f] is not None]
    words.append(besides)
    return " · ".join(part for part in words if part)


SHOWN = (("quality", "quality", 2, ""), ("SNR", "snr_db", 0, " dB"), ("loudness", "loudness_db", 0, " dBFS"))
"""Measures beside a player: name, column, digits, unit."""


def _lead(stats: Mapping[str, Any], seconds: float) -> str:
    languages = ", ".join(stats["languages"]) or "unknown"
    return (
        f"{stats['utterances']:,} utterances, {page.duration(seconds)}, {stats['speakers']:,} known "
        f"speakers, languages: {languages}; {stats['duplicates']:,} are duplicates of another."
    )


def _facts(pool: Pool, stats: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pool": pool.uri,
        "revision": str(pool.manifest["revision"]),
        "pool_hash": pool.hash,
        "shards": f"{stats['shards']:,}",
        "audio": f"{stats['bytes'] / 1e6:,.1f} MB",
        "versions": versions(("seral", "pyarrow")),
    }


def _corpora(corpora: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float]) -> page.Table:
    rows = [
        [
            corpus,
            f"{counts['utterances']:,}",
            page.duration(seconds[corpus]),
            f"{counts['speakers']:,}",
            ", ".join(counts["languages"]) or "–",
            f"{counts['duplicates']:,}",
            ", ".join(f"{fault} {count:,}" for fault, count in sorted(counts["channel_faults"].items())) or "–",
        ]
        for corpus, counts in corpora.items()
    ]
    columns = ["corpus", "utterances", "audio", "speakers", "languages", "duplicates", "channel faults"]
    return page.Table(caption="A speaker's name means somebody within a corpus only.", columns=columns, rows=rows)


def _measures(rows: int, measures: Mapping[str, pa.ChunkedArray]) -> page.Table:
    lines = []
    for name, column in measures.items():
        low, middle, high = np.quantile(np.asarray(column, dtype=np.float64), [0.05, 0.5, 0.95])
        cells = [page.number(value, 2 if abs(high) < 100 else 0) for value in (low, middle, high)]
        lines.append([figures.title_of(name), *cells, f"{rows - len(column):,}"])
    columns = ["measure", "5 %", "median", "95 %", "not measured"]
    return page.Table(caption="Ninety per cent of the utterances lie between the ends.", columns=columns, rows=lines)


def _quarantine(reasons: Mapping[str, int]) -> page.Table:
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    rows = [[reason, f"{count:,}", REASONS.get(reason, "")] for reason, count in ordered]
    return page.Table(
        caption="Files that did not become utterances; POOL/quarantine names each.",
        columns=["reason", "files", "what it means"],
        rows=rows,
    )


def _pictures(facts: pa.Table, measures: Mapping[str, pa.ChunkedArray]) -> dict[str, page.Picture]:
    named = facts.select(["corpus", "speaker"]).filter(pc.is_valid(facts["speaker"]))
    speakers = named.group_by(["corpus", "speaker"]).aggregate([([], "count_all")])["count_all"].to_pylist()
    hours = {language: seconds / 3600 for language, seconds in _seconds_by(facts, "language").items()}
    pictures = {
        "people": page.Picture(
            figure=figures.languages_and_speakers(hours, speakers),
            alt=f"Bars of the hours by language, and the utterances of each of {len(speakers)} speakers.",
            caption="Hours by language; utterances by speaker, where the speaker is known.",
        )
    }
    if measures:
        pictures["measures"] = page.Picture(
            figure=figures.pool_measures(measures),
            alt=f"Histograms of {', '.join(map(figures.title_of, measures))}; the table below has their quantiles.",
            caption="Every measure of the utterances; the line is the median.",
        )
    return pictures


def _classes(pool: Pool, rows: int) -> page.Section:
    """Counts of the gold labels by class: bars that corpora or languages divide, and a table."""
    counts = gold_counts(pool).to_pandas()
    if counts.empty:
        return page.Section()
    total = counts.groupby("class")["clips"].sum().sort_values(ascending=False, kind="stable")
    picture = page.Picture(
        figure=figures.class_counts(total.to_dict(), "utterances"),
        alt=f"Bars of the gold labels: {', '.join(f'{word} {count}' for word, count in total.items())}.",
        caption=f"{total.sum():,} of {rows:,} utterances came with a label.",
        chart=bars.class_counts(counts),
    )
    lines = [
        [str(word), f"{count:,}", f"{100 * count / total.sum():.1f}", *(_divided(counts, word, by) for by in PARTS)]
        for word, count in total.items()
    ]
    columns = ["class", "utterances", "share %", *(f"by {name}" for name in PARTS)]
    table = page.Table(caption="Gold labels by class, the most frequent first.", columns=columns, rows=lines)
    return page.Section(tables={"classes": table}, pictures={"classes": picture})


PARTS = ("corpus", "language")
"""Columns that divide the clips of a class."""


def _divided(counts: pd.DataFrame, word: object, by: str) -> str:
    """Clips of a class by a column, in words."""
    own = counts[counts["class"] == word].groupby(by)["clips"].sum()
    return ", ".join(f"{name} {count:,}" for name, count in own.items())


def _seconds_by(facts: pa.Table, column: str) -> dict[str, float]:
    total = facts.group_by(column).aggregate([("duration_s", "sum")])
    pairs = zip(total[column].to_pylist(), total["duration_s_sum"].to_pylist(), strict=True)
    return {name or "unknown": seconds for name, seconds in pairs}
