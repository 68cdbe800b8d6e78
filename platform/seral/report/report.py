"""The report of a run: one HTML file, its figures as PNG and its tables as CSV beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.figures.axes import svg
from seral.pool.shards import Pool, open_pool
from seral.report import bars, comparison, figures, page, ratings, shares
from seral.report.adapters import adapter_section
from seral.report.listening import Player
from seral.report.options import ReportOptions
from seral.report.records import RunRecords, adapter_warnings, read_run
from seral.schema import RANDOM
from seral.task.run import OF_ROUNDS, read_config

TARGET_SHARE = 0.95
"""The target whose cost is shown, as a share of the UAR with all labels."""

CURVE_CAPTION = "Mean over folds and seeds; the band is one standard deviation. The grey level is all labels."
PROXY_CAPTION = "Adapters were trained at the last point of each arm only; before it, points are the head."
DRAWN_CAPTION = (
    "From the second round on, every round chose from {:,} clips of the pool, drawn anew from all corpora and speakers."
)

DIFFERENCE_COLUMNS = [field.name for field in fields(comparison.Difference)]


def report_run(options: ReportOptions) -> str:
    """Write the report of a run, or a page that compares it with others; returns the address of the HTML file."""
    if options.against:
        from seral.report.between_runs import write_comparison  # late: it needs the loop, whose modules draw figures

        return write_comparison(options)
    return write_run_report(options.run, options)


def write_run_report(run: str | Path, options: ReportOptions | None = None) -> str:
    """Write the report of a run, with the pool that its configuration names; returns the address of the HTML file."""
    config = read_config(str(run), *OF_ROUNDS)
    pool = open_pool(config["pool"])
    metadata = pool.metadata
    if config.get("corpora"):
        metadata = metadata.filter(pc.is_in(metadata["corpus"], pa.array(config["corpora"])))
    return write_report(run, metadata, pool=pool, options=options)


def write_report(
    run: str | Path,
    metadata: pa.Table,
    out: str | Path | None = None,
    *,
    pool: Pool | None = None,
    options: ReportOptions | None = None,
) -> str:
    """Write the report of a run into `out` (RUN/report by default); returns the address of the HTML file.

    `metadata` holds one row an utterance of the pool, with the columns of schema.METADATA_COLUMNS. Without the `pool`
    nothing is on the page that needs its labels, features or audio.
    """
    folder = storage.join(run, "report") if out is None else str(out)
    options = options or ReportOptions(run=str(run))
    records, columns = read_run(run), comparison.report_columns(metadata)
    whole = comparison.pool_frame(columns)
    goal = f"{TARGET_SHARE:.0%} of the {records.metrics[0].upper()} with all labels"
    frames = _frames(records, comparison.composition(records, columns), whole)
    pictures = _pictures(records, frames["picks"], whole)
    tables = {
        "headline": page.headline_table(frames["headline"], records.judged),
        "target": page.target_table(frames["target"], f"First point of each arm's mean curve at {goal}."),
        "quality": page.quality_table(frames["quality"]),
        "time": page.phase_table(frames["time"], records.shared_seconds),
    }
    if len(records.ratings):
        frames, pictures, tables = ratings.add_to(records, frames, pictures, tables)
    sections, players = _sections(records, pool, metadata, options, pictures)
    for section in sections:
        frames, pictures, tables = frames | section.frames, pictures | section.pictures, tables | section.tables
    for name, frame in frames.items():
        storage.write_bytes(storage.join(folder, f"{name}.csv"), frame.to_csv(index=name == "time").encode("utf-8"))
    for name, picture in pictures.items():
        storage.write_bytes(storage.join(folder, f"{name}.png"), picture.png)
        if options.svg:
            storage.write_bytes(storage.join(folder, "svg", f"{name}.svg"), svg(picture.figure))
    storage.remove(storage.join(folder, "audio"))
    for player in players:
        if player.beside:
            storage.write_bytes(storage.join(folder, player.file), player.flac)
    html = page.render(
        records,
        tables=tables,
        pictures=pictures,
        differences=comparison.differences(records),
        remarks={
            "target": _target_sentence(records, goal),
            "filtered": _filtered_sentences(records),
            "growth": _growth_sentences(records),
            "warnings": adapter_warnings(records.trainings),
        },
        players=players,
    )
    target = storage.join(folder, "index.html")
    storage.write_bytes(target, html.encode("utf-8"))
    return target


def _sections(
    records: RunRecords,
    pool: Pool | None,
    metadata: pa.Table,
    options: ReportOptions,
    drawn: Mapping[str, page.Picture],
) -> tuple[list[page.Section], list[Player]]:
    """The parts of the page that need more than its records, and the clips of them that are on it."""
    # Imported here: they need the loop, whose modules draw figures.
    from seral.report import explore
    from seral.report.labels import label_section

    sections = [label_section(records.run)] if records.asks_people else []
    if len(records.trainings):
        sections.append(adapter_section(records))
    if "learning_curves" in drawn:
        sections.append(explore.costs_section(records, options, drawn))
    if pool is None:
        return sections, []
    sections += explore.clip_sections(records, pool, metadata, options, drawn)
    return sections, explore.players(pool, sections, options)


def _frames(records: RunRecords, composed: pd.DataFrame, pool: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The tables that are written beside the page."""
    return {
        "rounds": records.rounds,
        "headline": comparison.headline(records),
        "target": comparison.cost_of_target(records, TARGET_SHARE),
        "differences": pd.DataFrame(comparison.differences(records), columns=DIFFERENCE_COLUMNS),
        "picks": composed,
        "quality": comparison.quality_by_round(composed, pool),
        "time": comparison.phase_seconds(records),
    }


def _pictures(records: RunRecords, composed: pd.DataFrame, pool: pd.DataFrame) -> dict[str, page.Picture]:
    """The figures, each with a text that says what it shows."""
    seconds = comparison.phase_seconds(records)
    pictures = (_class_pictures(records) if records.classes else {}) | {
        "time": page.Picture(
            figure=figures.time_by_phase(seconds),
            alt="Stacked bars of the mean seconds of a trajectory by phase; the table below holds the same numbers.",
            caption="Mean wall-clock time of a trajectory by phase.",
            chart=bars.time_by_phase(seconds),
        ),
    }
    return pictures if composed.empty else pictures | _pick_pictures(records, composed, pool)


def _class_pictures(records: RunRecords) -> dict[str, page.Picture]:
    """Learning curves and confusion of classes."""
    if not records.confusion:
        return {}
    final = comparison.headline(records)
    reached = ", ".join(f"{row['arm']} {100 * row['uar']:.1f} %" for row in final.to_dict("records"))
    return {
        "learning_curves": page.Picture(
            figure=figures.learning_curves(records),
            alt=f"Line chart of {records.judged} UAR against the share of labels. UAR at the last round: {reached}.",
            caption=_curve_caption(records),
        ),
        "confusion": page.Picture(
            figure=figures.confusion_matrices(records),
            alt=f"Confusion matrices of {', '.join(records.arms)} at the last round, rows are the truth.",
            caption=f"{records.judged.capitalize()} clips at the last round, folds and seeds together: share of the "
            "true class, and the count.",
        ),
    }


def _curve_caption(records: RunRecords) -> str:
    """Caption of the curves, which says what of the run or the pool they leave out."""
    drawn = records.candidates_per_round
    remarks = [CURVE_CAPTION, PROXY_CAPTION if records.proxy else "", DRAWN_CAPTION.format(drawn) if drawn else ""]
    return " ".join(remark for remark in remarks if remark)


def _pick_pictures(records: RunRecords, composed: pd.DataFrame, pool: pd.DataFrame) -> dict[str, page.Picture]:
    arms = ", ".join(arm for arm in records.arms if arm in set(composed["arm"]))
    answers = f"The answers of each round. The {RANDOM} arm shows what the training part holds."
    classes = dict[str, page.Picture]()
    groups, quality = shares.group_shares(composed, pool), shares.snr_shares(composed, pool)
    if records.classes:
        by_answer = shares.answer_shares(composed, records.classes)
        in_order = shares.answers_in(by_answer, records.classes)
        classes["picked_classes"] = page.Picture(
            figure=figures.picked_classes(by_answer, in_order),
            chart=bars.picked_classes(by_answer, in_order),
            alt=f"Stacked bars of the answered classes by round for {arms}.",
            caption=" ".join([answers, *_picked_by(records)]),
        )
    return classes | {
        "picked_groups": page.Picture(
            figure=figures.picked_groups(groups),
            chart=bars.picked_groups(groups),
            alt=f"Bars of the share of picks by speaker and by corpus for {arms}, with the share in the pool.",
            caption="Picks of all rounds; the line is the share in the pool, its test part included.",
        ),
        "picked_quality": page.Picture(
            figure=figures.picked_quality(quality),
            chart=None if quality.empty else bars.picked_quality(quality),
            alt=f"Histograms of the signal-to-noise ratio of the pool and of the picks of {arms}; medians are below.",
            caption="Signal-to-noise ratio of the picks against the pool.",
        ),
    }


def _picked_by(records: RunRecords) -> list[str]:
    """Sentences on the strategies that arms picked by, where another than they are named for."""
    sentences = []
    for arm, picks in records.picks.groupby("arm", sort=True):
        rounds_of = picks.groupby("strategy")[["fold", "seed", "round"]].apply(lambda own: len(own.drop_duplicates()))
        if set(rounds_of.index) - {arm}:
            ordered = rounds_of.sort_values(ascending=False, kind="stable")
            words = ", ".join(f"{name} in {count}" for name, count in ordered.items())
            sentences.append(f"Rounds that {arm} picked by: {words}.")
    return sentences


def _filtered_sentences(records: RunRecords) -> list[str]:
    """Sentences on the utterances left out for the quality of their recording, one a fold."""
    sentences = []
    for fold, reasons in records.environment.get("n_filtered", {}).items():
        if reasons:
            training, count = records.environment["n_train"][fold], sum(reasons.values())
            words = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
            sentences.append(f"Fold {fold}: {count} of {training + count} training utterances, by {words}.")
    return sentences


def _growth_sentences(records: RunRecords) -> list[str]:
    """Sentences on the growths of the pool, and the rounds that were complete by then."""
    lines = []
    for entry in records.growths:
        arms_of: dict[int, list[str]] = {}
        for name, count in sorted(entry["rounds"].items()):
            arms_of.setdefault(count, []).append(name)
        reached = "; ".join(f"{count} rounds of {', '.join(names)}" for count, names in sorted(arms_of.items()))
        sizes = f"from {entry['before']:,} to {entry['after']:,} utterances"
        lines.append(f"The pool grew {sizes}, after {reached or 'no round'}: later rounds chose from all of them.")
    return lines


def _target_sentence(records: RunRecords, goal: str) -> str:
    """Sentence on the target of this run, a share of the UAR with all labels; none for a session."""
    if records.part != "test":
        return ""
    ceiling, classes = comparison.full_score(records), bool(records.classes)
    if ceiling is None:
        return "This run has no arm with all labels, so there is no target to measure against."
    return (
        f"The target is {goal}: {page.score_text(TARGET_SHARE * ceiling, classes)} (all labels: "
        f"{page.score_text(ceiling, classes)}). Between two "
        "rounds the mean curve is taken as straight. Time is that of the rounds up to there, without shared work."
    )
