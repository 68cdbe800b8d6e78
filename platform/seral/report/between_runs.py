"""Runs side by side on a page: paired differences on the folds and seeds that they share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from seral import storage
from seral.errors import OptionError
from seral.report import charts, costs, page
from seral.report.comparison import Difference, gain, headline
from seral.report.figures import curves_along_labels
from seral.report.options import ReportOptions
from seral.report.records import RunRecords, read_run
from seral.schema import FULL

CAPTION = (
    "Test results at the last round, mean ± standard deviation over folds and seeds. What has other folds, other test "
    "speakers or another pool is not comparable by these columns: see the paired differences."
)


def write_comparison(options: ReportOptions) -> str:
    """Write RUN/report/comparison.html of the first run, with its tables as CSV; returns its address.

    Raises OptionError for runs of other classes, and for sessions.
    """
    runs = {name: read_run(uri) for name, uri in _names([options.run, *options.against]).items()}
    first = next(iter(runs.values()))
    for name, records in runs.items():
        if records.part != "test":
            raise OptionError(f"{name} is a session, which has no test part to compare by: give its report alone")
        if records.classes != first.classes or not records.classes:
            raise OptionError(
                f"{name} tells {', '.join(records.classes) or 'no classes'} and the first run "
                f"{', '.join(first.classes) or 'no classes'}: name runs of the same classes"
            )
    heads = pd.concat([headline(records).assign(run=name) for name, records in runs.items()], ignore_index=True)
    heads["arm"] = heads["run"] + ": " + heads["arm"]
    gains, remarks = list(differences(runs)), _remarks(runs)
    folder = storage.join(options.run, "report")
    frames = {"comparison": heads.drop(columns="run"), "comparison_differences": pd.DataFrame(gains)}
    for name, frame in frames.items():
        storage.write_bytes(storage.join(folder, f"{name}.csv"), frame.to_csv(index=False).encode("utf-8"))
    html = page.fill(
        "comparison.html.j2",
        title=" against ".join(runs),
        environment={name: f"{records.run}, pool {records.environment['pool_hash']}" for name, records in runs.items()},
        config="",
        tables={"headline": page.headline_table(heads), "differences": differences_table(gains)},
        pictures={"curves": _curves(runs, options)},
        differences=[difference.sentence for difference in gains],
        remarks=remarks,
    )
    target = storage.join(folder, "comparison.html")
    storage.write_bytes(target, html.encode("utf-8"))
    return target


def _names(uris: Sequence[str]) -> dict[str, str]:
    """A short name of each run: the end of its path, or all of it where two ends are alike."""
    if len(set(uris)) < len(uris):
        raise OptionError(f"a run is named twice: {', '.join(uris)}")
    ends = [uri.rstrip("/").rsplit("/", 1)[-1] for uri in uris]
    return {uri if ends.count(end) > 1 else end: uri for uri, end in zip(uris, ends, strict=True)}


def differences(runs: dict[str, RunRecords]) -> Iterator[Difference]:
    """Each further run's arms less those of the same name in the first; its strategy less the first's, whatever their
    names. Over folds with the same test speakers, at the largest number of labels that both have."""
    (base, first), *others = runs.items()
    for name, records in others:
        pairs = [(arm, arm) for arm in records.arms if arm in first.arms]
        if records.arms[0] not in first.arms:
            pairs.insert(0, (records.arms[0], first.arms[0]))
        shared = shared_folds(first, records)
        for arm, against in pairs:
            own, other = (of.rounds[of.rounds["fold"].isin(shared)] for of in (records, first))
            difference = gain(
                own[own["arm"] == arm],
                other[other["arm"] == against],
                np.random.default_rng(0),
                names=(f"{name}: {arm}", f"{base}: {against}"),
                on=["fold", "seed", "labelled"],
            )
            if difference is not None:
                yield difference


def shared_folds(one: RunRecords, other: RunRecords) -> list[int]:
    """Folds that have the same test clips in both runs, of the same pool."""
    if one.environment["pool_hash"] != other.environment["pool_hash"]:
        return []
    tests = [_test_clips(records) for records in (one, other)]
    return sorted(fold for fold in tests[0].keys() & tests[1].keys() if tests[0][fold] == tests[1][fold])


def _test_clips(records: RunRecords) -> dict[int, set[str]]:
    """Fold -> ids of the test clips of one of its trajectories."""
    clips: dict[int, set[str]] = {}
    for (_, fold, _), folder in records.last_folders.items():
        uri = storage.join(folder, "predictions", "test.parquet")
        if fold not in clips and storage.exists(uri):
            clips[fold] = set(storage.read_table(uri, ["utterance_id"])["utterance_id"].to_pylist())
    return clips


def _remarks(runs: dict[str, RunRecords]) -> list[str]:
    """Sentences on what cannot be paired."""
    (base, first), *others = runs.items()
    sentences = []
    for name, records in others:
        shared, folds = shared_folds(first, records), sorted(set(first.rounds["fold"]) | set(records.rounds["fold"]))
        if records.environment["pool_hash"] != first.environment["pool_hash"]:
            sentences.append(f"{name} and {base} are of different pools, so nothing is paired.")
        elif left_out := [str(fold) for fold in folds if fold not in shared]:
            sentences.append(f"{name} and {base} do not share the test clips of fold {', '.join(left_out)}.")
    return sentences


def differences_table(gains: Sequence[Difference]) -> page.Table:
    """The paired differences in points of UAR."""
    rows = [
        [
            gain.arm,
            gain.against,
            page.number(gain.labelled, 0),
            f"{100 * gain.mean:+.1f}",
            "–" if np.isnan(gain.low) else f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}",
            page.number(gain.p, 3),
            str(gain.pairs),
        ]
        for gain in gains
    ]
    caption = (
        "Points of UAR, paired by fold and seed at the largest number of labels that both have. The interval is "
        "Student's t over folds, p is by sign flips of folds. Many comparisons find some differences by chance."
    )
    columns = ["run and arm", "against", "labels", "difference", "95 % interval", "p", "pairs"]
    return page.Table(caption=caption, columns=columns, rows=rows)


def _shared_metrics(runs: dict[str, RunRecords]) -> list[str]:
    """Metrics of other people's that all runs have."""
    (first, *others) = runs.values()
    return [name for name in first.further if all(name in records.further for records in others)]


def _curves(runs: dict[str, RunRecords], options: ReportOptions) -> page.Picture:
    parts, further = [], _shared_metrics(runs)
    for name, records in runs.items():
        rounds = costs.with_costs(records, options.price_per_label, options.price_per_hour)
        frame = costs.points(rounds[rounds["arm"] != FULL], further)
        parts.append(frame.assign(arm=name + ": " + frame["arm"]))
    points = pd.concat(parts, ignore_index=True)
    arms, classes = points["arm"].unique().tolist(), next(iter(runs.values())).classes
    return page.Picture(
        figure=curves_along_labels(points, arms),
        alt=f"Line chart of test UAR along labels of {', '.join(arms)}.",
        caption="Mean over folds and seeds; the band is one standard deviation.",
        chart=charts.learning_curves(points, arms, 1 / len(classes), further),
    )
