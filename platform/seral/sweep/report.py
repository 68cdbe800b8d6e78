"""A sweep on a page: the best point and what it is worth, how the others did, which options matter, what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from seral import storage
from seral.figures import sweeps
from seral.figures.markdown import markdown
from seral.options import dump
from seral.report import page
from seral.sweep.board import DONE, FAILED, leaderboard
from seral.sweep.plan import SweepOptions
from seral.sweep.space import Number

LEADERS = 15
ENOUGH = 12
"""Points below which nothing is said of what matters."""


def write_sweep_report(
    options: SweepOptions, records: Mapping[str, Mapping[str, Any]], tested: Mapping[str, Any]
) -> str:
    """Write RUN/report/index.html with its pictures; returns the leaders and the test as text."""
    board, metric = leaderboard(records), options.metric
    paths = [path for path in options.space if path in board]
    logarithmic = [path for path, of in options.space.items() if isinstance(of, Number) and of.log]
    reports = {name: [r["dev"] for r in record["reports"]] for name, record in records.items() if record["reports"]}
    drawn = {
        "curves": sweeps.sweep_curves(board, reports, metric),
        "parallel": sweeps.sweep_parallel(board, paths, logarithmic, metric),
        "progress": sweeps.sweep_progress(board, metric),
    }
    share = importance(board, paths, logarithmic)
    if share is not None:
        drawn["importance"] = sweeps.sweep_importance(share)
        text = share.to_csv(header=["importance"], index_label="option")
        storage.write_bytes(storage.join(options.run, "importance.csv"), text.encode())
    captions = {
        "curves": "Dev score of every point as its reports came: the mean over its folds and seeds so far, or where "
        "there is one, that of an epoch, or the mean of a loop's rounds so far. Lines that end early were stopped.",
        "parallel": "A line a point, the better the darker, the best in orange; below the axes: the option does not "
        "apply.",
        "progress": "What each point reached before it ended or was stopped.",
        "importance": "How much worse a random forest over the points predicts their scores without an option "
        "(permutation importance, points that were seen through). Says what mattered within this space.",
    }
    pictures = {}
    for name, figure in drawn.items():
        picture = page.Picture(figure=figure, alt=captions[name], caption=captions[name])
        storage.write_bytes(storage.join(options.run, "report", f"{name}.png"), picture.png)
        pictures[name] = picture
    html = page.fill(
        "sweep.html.j2",
        title=options.run.rstrip("/").rsplit("/", 1)[-1],
        environment=storage.read_json(storage.join(options.run, "environment.json")),
        config=dump(options),
        lead=f"{len(board)} points tried by {options.search}, judged by {metric.upper()} on dev speakers.",
        verdict=verdict(tested, metric),
        tables=_tables(options, board, paths, tested),
        pictures=pictures,
    )
    storage.write_bytes(storage.join(options.run, "report", "index.html"), html.encode("utf-8"))
    leaders = board.head(5).drop(columns=["error"]).dropna(axis=1, how="all")
    address = storage.join(options.run, "report", "index.html")
    return f"{markdown(leaders)}\n{verdict(tested, metric)}\nReport: {address}"


def verdict(tested: Mapping[str, Any], metric: str) -> str:
    """The test score of the best point and its difference to the training as given, in a sentence."""
    (best, *_), scale = tested["rows"].values(), 100 if metric == "uar" else 1
    score = f"The best point has a test {metric.upper()} of {scale * best['mean']:.{3 - 2 * (scale == 100)}f}"
    gain = tested["gain"]
    difference, low, high = (scale * gain[name] for name in ("difference", "low", "high"))
    digits = 1 if scale == 100 else 3
    if gain["units"] < 2:
        return f"{score}; against what was given: {difference:+.{digits}f}, of one speaker, so without an interval."
    interval = f"{low:+.{digits}f} to {high:+.{digits}f}"
    between = f"{difference:+.{digits}f} ({interval}, p = {gain['p']:.2g}, {gain['units']} speakers)"
    sure = "the interval includes zero" if low <= 0 <= high else "the interval excludes zero"
    return f"{score}; against what was given: {between}; {sure}."


def importance(board: pd.DataFrame, paths: Sequence[str], logarithmic: Sequence[str]) -> pd.Series | None:
    """Share of each option in what a forest explains of the scores; None with too few points, or where nothing is."""
    done = board[board["state"] == DONE]
    if len(done) < ENOUGH or done["dev"].nunique() < 2:
        return None
    columns = {path: _coded(done[path], path in logarithmic) for path in paths if done[path].nunique(dropna=False) > 1}
    if not columns:
        return None
    x_NP, y_N = np.stack(list(columns.values()), axis=1), done["dev"].to_numpy(dtype=np.float64)
    forest = RandomForestRegressor(n_estimators=200, min_samples_leaf=2, random_state=0).fit(x_NP, y_N)
    loss_P = permutation_importance(forest, x_NP, y_N, n_repeats=20, random_state=0).importances_mean.clip(min=0)
    return (
        None if not loss_P.sum() else pd.Series(loss_P / loss_P.sum(), index=list(columns)).sort_values(ascending=False)
    )


def _coded(values: pd.Series, logarithmic: bool) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers as they are, words by their place in the alphabet, what does not apply at -1 or below everything."""
    if pd.api.types.is_numeric_dtype(values):
        numbers = values.to_numpy(dtype=np.float64)
        numbers = np.log(numbers) if logarithmic else numbers
        return np.where(np.isnan(numbers), np.nanmin(numbers) - 1, numbers)
    return pd.Categorical(values.astype("string")).codes.astype(np.float64)


def _tables(
    options: SweepOptions, board: pd.DataFrame, paths: Sequence[str], tested: Mapping[str, Any]
) -> dict[str, page.Table]:
    metric, best = options.metric, board.iloc[0]
    tables = {
        "best": page.Table(
            caption="The best point; `seral sweep best RUN --as-config run.yaml` makes a run of the loop of it.",
            columns=["option", "value"],
            rows=[[path, _shown(best[path])] for path in paths if not _missing(best[path])],
        ),
        "tested": page.Table(
            caption="On the test speakers, mean ± deviation over folds and seeds; of a loop, its rounds' mean.",
            columns=["options", f"test {metric.upper()}", "folds and seeds"],
            rows=[
                [row, _score(scores["mean"], metric) + f" ± {_score(scores['std'], metric)}", str(scores["cells"])]
                for row, scores in tested["rows"].items()
            ],
        ),
        "leaders": page.Table(
            caption=f"The first {min(LEADERS, len(board))} of {len(board)}; all are in leaderboard.csv.",
            columns=["point", "state", f"dev {metric.upper()}", *paths],
            rows=[
                [line["point"], line["state"], _score(line["dev"], metric), *(_shown(line[path]) for path in paths)]
                for line in board.head(LEADERS).to_dict("records")
            ],
        ),
        "cost": page.Table(
            caption="Time inside trials: choosing, training, scoring on dev.",
            columns=["state", "points", "reports", "time", "time a point"],
            rows=[
                [
                    str(state),
                    str(len(group)),
                    str(int(group["reports"].sum())),
                    page.duration(group["seconds"].sum()),
                    page.duration(group["seconds"].mean()),
                ]
                for state, group in board.groupby("state")
            ],
        ),
    }
    failed = board[board["state"] == FAILED]
    if len(failed):
        rows = [[line["point"], str(line["error"])] for line in failed.to_dict("records")]
        tables["failed"] = page.Table(caption="Tried again, and failed again.", columns=["point", "error"], rows=rows)
    return tables


def _missing(value: Any) -> bool:
    return value is None or value != value


def _shown(value: Any) -> str:
    if _missing(value):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _score(value: float, metric: str) -> str:
    return page.number(100 * value, 1) if metric == "uar" else page.number(value, 3)
