"""The parts of a report that look into a run's clips: groups, confusions, calibration, picks, mistakes, map, audio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd
import pyarrow as pa

from seral.errors import OptionError
from seral.loop.options import LoopOptions
from seral.pool.shards import Pool
from seral.progress import say
from seral.report import calibration, charts, costs, figures, groups, picked, pool_map
from seral.report.judged import confusions, judged_clips
from seral.report.listening import Player, players_of
from seral.report.options import ReportOptions
from seral.report.page import Picture, Section
from seral.report.rated import rated_sections
from seral.report.records import RunRecords
from seral.schema import FULL
from seral.task.run import OF_ROUNDS, read_options

MAP_CAPTION = (
    "{:,} of {:,} clips, by t-SNE of the encoder's features{}: what lies near sounds alike to the encoder, distances "
    "between far groups mean nothing. Large marks were picked in the first fold and seed. Where the page has a clip's "
    "audio, a click plays it; wheel and drag move the map. By keyboard: arrows go from clip to clip, Enter plays."
)
RELIABILITY_CAPTION = (
    "Share of right answers against confidence, in ten bins of confidence, folds and seeds together. Below the line a "
    "model is surer than it is right."
)
COLOURS = ("predicted", "answer", "round", "speaker", "corpus", "language", "quality")


def costs_section(records: RunRecords, options: ReportOptions, drawn: Mapping[str, Picture]) -> Section:
    """Curves along labels, minutes or money, and their table."""
    prices = (options.price_per_label, options.price_per_hour)
    frame = costs.points(costs.with_costs(records, *prices), records.further)
    return Section(
        frames={"costs": frame},
        tables={"costs": costs.cost_table(frame, records.asks_people, *prices, records.further)},
        pictures={
            "learning_curves": replace(
                drawn["learning_curves"],
                chart=charts.learning_curves(
                    frame, records.arms, 1 / len(records.classes), records.further, records.judged
                ),
            )
        },
    )


def clip_sections(
    records: RunRecords,
    pool: Pool,
    metadata: pa.Table,
    options: ReportOptions,
    drawn: Mapping[str, Picture],
) -> Iterator[Section]:
    """Everything that needs the pool beside the run: its labels of test clips, its features, its audio.

    Nothing of a run whose options this release does not read: an older one's report keeps all that was written down.
    """
    try:
        read_options(LoopOptions, records.run, *OF_ROUNDS)
    except OptionError as error:
        say(f"the report has nothing by clip: {error}")
        return
    if records.dimensions and len(records.ratings):
        yield from rated_sections(records, metadata, drawn)
    judged = judged_clips(records, pool, metadata)
    if len(judged):
        yield _groups(records, judged, drawn)
        if records.part == "test":  # a temperature is fitted to other clips than it is tried on
            yield _calibration(records, judged, judged_clips(records, pool, metadata, "dev"))
        yield _mistakes(records, judged)
        yield _doubts(records)
    picks = picked.explained_picks(records, metadata)
    if not picks.empty:
        yield _picks(records, picks)
    if options.map_points:
        yield from _map(records, pool, metadata, picks, options)


def players(pool: Pool, sections: list[Section], options: ReportOptions) -> list[Player]:
    """Clips of all sections that the budget of audio has room for: of each section the first, then the second, ..."""
    queues = [list(section.clips.items()) for section in sections if section.clips]
    captions: dict[str, str] = {}
    for rank in range(max((len(queue) for queue in queues), default=0)):
        for name, words in (queue[rank] for queue in queues if rank < len(queue)):
            captions.setdefault(name, f"{name} · {words}")
    return players_of(pool, captions, options.audio_mb, options.clip_s, beside=options.audio_beside)


def _groups(records: RunRecords, judged: pd.DataFrame, drawn: Mapping[str, Picture]) -> Section:
    results = groups.results_by_group(judged, records.classes, groups.runnable(records.further))
    counts = confusions(judged, records.classes)
    matrix = replace(drawn["confusion"], chart=charts.confusion(counts, records.classes))
    tables = {f"by_{name}": table for name, table in groups.group_tables(results).items()}
    return Section(frames={"groups": results, "confusions": counts}, tables=tables, pictures={"confusion": matrix})


def _calibration(records: RunRecords, judged: pd.DataFrame, dev: pd.DataFrame) -> Section:
    bins, errors = calibration.tempered(judged, dev, records.classes)
    picture = Picture(
        figure=calibration.reliability_figure(bins, records.arms),
        alt="Line charts of the share of right answers against confidence, before and after a temperature.",
        caption=RELIABILITY_CAPTION,
        chart=charts.reliability(bins, records.arms),
    )
    table = calibration.calibration_table(errors)
    return Section(
        frames={"reliability": bins, "calibration": errors},
        tables={"calibration": table},
        pictures={"reliability": picture},
    )


def _mistakes(records: RunRecords, judged: pd.DataFrame) -> Section:
    arm = records.arms[0]
    wrong = picked.mistakes(judged, arm, records.classes)
    caption_of = {
        row["utterance_id"]: f"{row['truth']}, told as {row['predicted']}" for row in wrong.to_dict("records")
    }
    return Section(
        frames={"mistakes": wrong},
        tables={"mistakes": picked.mistakes_table(wrong, arm, records.judged)},
        clips=caption_of,
    )


def _doubts(records: RunRecords) -> Section:
    doubts = picked.doubtful_labels(records)
    caption_of = {
        row["utterance_id"]: f"{row['label']}, rather {row['suggested']}" for row in doubts.to_dict("records")
    }
    return Section(
        frames={"label_errors": doubts}, tables={"label_errors": picked.doubts_table(doubts)}, clips=caption_of
    )


def _picks(records: RunRecords, picks: pd.DataFrame) -> Section:
    own, shown = picks[picks["arm"] == records.arms[0]], picked.first_of_rounds(picks)
    caption_of = {
        row["utterance_id"]: f"picked in round {row['round']}: {row['answer']}" for row in own.to_dict("records")
    }
    pictures = {}
    if picks["uncertainty"].notna().any():
        arms = [arm for arm in records.arms if (picks.loc[picks["arm"] == arm, "uncertainty"].notna()).any()]
        pictures["picked_why"] = Picture(
            figure=figures.uncertainty_of_picks(picks, arms),
            alt=f"Dots of how unsure the model was of a pick of {', '.join(arms)}, by round; the table has all.",
            caption="Every pick of the first fold and seed after the first round: how unsure the model of the round "
            "before was, and what it believed. A click plays the clip where the page has its audio.",
            chart=charts.picks_by_round(shown, arms, records.classes),
        )
    tables = {"picks": picked.picks_table(shown)}
    return Section(frames={"picked": picks}, tables=tables, pictures=pictures, clips=caption_of)


def _map(
    records: RunRecords, pool: Pool, metadata: pa.Table, picks: pd.DataFrame, options: ReportOptions
) -> Iterator[Section]:
    arm, fold, _ = first = min(key for key in records.last_folders if key[0] == records.arms[0])
    store = pool_map.open_store(records, pool, fold)
    if store is None or metadata.num_rows < pool_map.FEWEST:
        return
    own = picks[picks["arm"] == arm] if len(picks) and arm != FULL else pd.DataFrame(columns=pool_map.OF_PICKS)
    ids = pool_map.draw_clips(metadata, own["utterance_id"].tolist(), options.map_points)
    predicted = picked.last_predictions(records, records.last_folders[first], ids)
    points = pool_map.described(pool_map.project(store, ids), metadata, own, predicted)
    tapt = ", which saw the training audio of the first fold" if "tapt" in str(store.encoder).split("/") else ""
    caption_of = {row["utterance_id"]: f"{row['predicted']}, {row['answer']}" for row in points.to_dict("records")}
    picture = Picture(
        figure=pool_map.map_figure(points),
        alt=f"Scatter plot of {len(points)} clips of the pool, near where they sound alike to the encoder.",
        caption=MAP_CAPTION.format(len(points), metadata.num_rows, tapt),
        chart=charts.pool_map(points, COLOURS),
    )
    yield Section(frames={"map": points}, pictures={"map": picture}, clips=caption_of)
