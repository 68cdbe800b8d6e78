"""The content of a pool on one HTML page that needs nothing beside it: counts, measures, quarantine, clips to hear."""

# N utterances
from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray
from pydantic import Field

from seral import storage
from seral.audio.decode import decode_flac, encode_flac
from seral.audio.quality import REASONS
from seral.errors import OptionError
from seral.figures.axes import png
from seral.options import Options
from seral.pool.shards import Pool, open_pool, pool_stats
from seral.report import figures, page
from seral.schema import METADATA_COLUMNS, SAMPLE_RATE, UTTERANCE
from seral.task.gold import gold_words
from seral.vectors.stable_keys import hash_keys
from seral.versions import versions

MEASURES = [
    field.name
    for field in UTTERANCE
    if field.name in METADATA_COLUMNS and pa.types.is_floating(field.type) and field.name not in ("start_s", "end_s")
]
"""Everything of an utterance that is a number and a measure."""
WORST_BY = "quality"


class PoolReportOptions(Options):
    """Options of the page of a pool."""

    pool: str
    """The pool, or a snapshot of it: POOL@NAME."""
    out: str
    """The HTML file to write."""
    gold: bool = False
    """Count the gold labels by class."""
    players: int = Field(default=8, ge=0)
    """Clips to hear: so many drawn at random, and half as many of the worst quality."""
    hear: str | None = None
    """A Parquet or CSV table that names by `utterance_id` the clips to hear instead, the first `players` of them in its
    order and with its other columns beside them: a run's `filtered.parquet`, a round's `picks.parquet`."""
    seed: int = 0
    """Of the draw."""
    clip_s: float = Field(default=10.0, gt=0)
    """Only the first so many seconds of a clip are put on the page."""


@dataclass(frozen=True, kw_only=True)
class Player:
    """A clip as it is heard."""

    flac: bytes
    caption: str

    @property
    def source(self) -> str:
        """The audio inside the page."""
        return "data:audio/flac;base64," + base64.b64encode(self.flac).decode("ascii")


def write_pool_report(options: PoolReportOptions) -> str:
    """Write the page of a pool; returns its address."""
    pool, stats = open_pool(options.pool), pool_stats(options.pool)
    rows = pool.metadata
    values = {name: value_N for name in MEASURES if len(value_N := _numbers(rows[name]))}
    groups = {
        words: _players(pool, rows, words_of, options.clip_s)
        for words, words_of in _to_hear(rows, options).items()
        if words_of
    }
    clips = [player for players in groups.values() for player in players]
    megabytes = sum(len(player.source) for player in clips) / 1e6
    html = page.fill(
        "pool.html.j2",
        title=pool.uri.rsplit("/", 1)[-1],
        environment=_facts(pool, stats),
        config="",
        lead=_lead(stats, sum(_seconds_by(rows, "corpus").values())),
        tables={
            "corpora": _corpora(stats["corpora"], _seconds_by(rows, "corpus")),
            "measures": _measures(rows, values),
            "quarantine": _quarantine(stats["quarantined"]),
        },
        pictures=_pictures(pool, rows, values, options),
        groups=groups,
        listening=f"The first {options.clip_s:g} s of {len(clips)} clips, {megabytes:.1f} MB of this page: whoever has "
        "the page has these voices.",
    )
    storage.write_bytes(options.out, html.encode("utf-8"))
    return options.out


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    return np.asarray(column.drop_null(), dtype=np.float64)


def _to_hear(rows: pa.Table, options: PoolReportOptions) -> dict[str, dict[str, str]]:
    """Heading of some clips -> their ids -> the words beside each of them."""
    if options.hear is None:
        worst, sample = _worst_and_drawn(rows, options)
        title = f"Drawn at random, seed {options.seed}:"
        return {"Those of the lowest quality:": dict.fromkeys(worst, ""), title: dict.fromkeys(sample, "")}
    words_of = _named_by(options.hear)
    in_pool = pc.is_in(pa.array(words_of, pa.string()), rows["utterance_id"])
    if strange := [name for name, present in zip(words_of, in_pool.to_pylist(), strict=True) if not present]:
        raise OptionError(f"{options.hear} names {', '.join(strange[:5])}, which {options.pool} does not have")
    first = dict(list(words_of.items())[: options.players])
    return {f"The first {len(first)} of {len(words_of)} in {options.hear.rsplit('/', 1)[-1]}:": first}


def _named_by(uri: str) -> dict[str, str]:
    """Ids of a table in its order, each once -> its other values in words."""
    try:
        table = (
            pa.csv.read_csv(io.BytesIO(storage.read_bytes(uri))) if uri.endswith(".csv") else storage.read_table(uri)
        )
    except (OSError, pa.ArrowInvalid) as error:
        raise OptionError(f"hear: {uri} is no Parquet or CSV table: {error}") from error
    if "utterance_id" not in table.column_names:
        raise OptionError(f"hear: {uri} has no column utterance_id; it has {', '.join(table.column_names)}")
    words_of: dict[str, str] = {}
    for row in table.to_pylist():
        name = str(row.pop("utterance_id"))
        words = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()]
        words_of.setdefault(name, " · ".join(words))
    return words_of


def _worst_and_drawn(rows: pa.Table, options: PoolReportOptions) -> tuple[list[str], list[str]]:
    """Ids of the worst clips and of a draw from the others; duplicates are neither."""
    counting = rows.filter(pc.is_null(rows["duplicate_of"]))
    measured = counting.filter(pc.is_valid(counting[WORST_BY]))
    order = pc.sort_indices(measured, [(WORST_BY, "ascending"), ("utterance_id", "ascending")])
    worst: list[str] = measured["utterance_id"].take(order[: options.players // 2]).to_pylist()
    others = np.setdiff1d(np.asarray(counting["utterance_id"].to_pylist(), dtype=np.str_), worst)
    key_N = hash_keys(others, f"{options.seed:016x}"[-16:])
    return worst, others[np.argsort(key_N, kind="stable")][: options.players].tolist()


def _players(pool: Pool, rows: pa.Table, words_of: Mapping[str, str], clip_s: float) -> list[Player]:
    """The clips in the order asked for."""
    audio = dict(pool.clips(words_of))
    metadata = rows.filter(pc.is_in(rows["utterance_id"], pa.array(words_of, pa.string()))).to_pylist()
    captions = {row["utterance_id"]: _caption(row, words_of[row["utterance_id"]]) for row in metadata}
    length = int(clip_s * SAMPLE_RATE)
    return [Player(flac=encode_flac(decode_flac(audio[name])[:length]), caption=captions[name]) for name in words_of]


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


def _measures(rows: pa.Table, values: Mapping[str, NDArray[np.float64]]) -> page.Table:
    lines = []
    for name, value_N in values.items():
        low, middle, high = np.quantile(value_N, [0.05, 0.5, 0.95])
        cells = [page.number(value, 2 if abs(high) < 100 else 0) for value in (low, middle, high)]
        lines.append([figures.title_of(name), *cells, f"{rows.num_rows - len(value_N):,}"])
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


def _pictures(
    pool: Pool, rows: pa.Table, values: Mapping[str, NDArray[np.float64]], options: PoolReportOptions
) -> dict[str, page.Picture]:
    with_speaker = rows.filter(pc.is_valid(rows["speaker"]))
    speakers = Counter(zip(with_speaker["corpus"].to_pylist(), with_speaker["speaker"].to_pylist(), strict=True))
    hours = {language: seconds / 3600 for language, seconds in _seconds_by(rows, "language").items()}
    pictures = {
        "people": page.Picture(
            png=png(figures.languages_and_speakers(hours, list(speakers.values()))),
            alt=f"Bars of the hours by language, and the utterances of each of {len(speakers)} speakers.",
            caption="Hours by language; utterances by speaker, where the speaker is known.",
        )
    }
    if values:
        pictures["measures"] = page.Picture(
            png=png(figures.pool_measures(values)),
            alt=f"Histograms of {', '.join(map(figures.title_of, values))}; the table below has their quantiles.",
            caption="Every measure of the utterances; the line is the median.",
        )
    if options.gold and (words := gold_words(pool)):
        counts = ", ".join(f"{word} {count}" for word, count in words.most_common())
        pictures["classes"] = page.Picture(
            png=png(figures.class_counts(dict(words), "utterances")),
            alt=f"Bars of the gold labels: {counts}.",
            caption=f"{words.total():,} of {rows.num_rows:,} utterances came with a label.",
        )
    return pictures


def _seconds_by(rows: pa.Table, column: str) -> dict[str, float]:
    total = rows.group_by(column).aggregate([("duration_s", "sum")])
    pairs = zip(total[column].to_pylist(), total["duration_s_sum"].to_pylist(), strict=True)
    return {name or "unknown": seconds for name, seconds in pairs}
