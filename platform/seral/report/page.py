"""The page: frames and figures into one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from importlib import resources
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from seral.figures.axes import png
from seral.report.comparison import METRICS, Difference
from seral.report.listening import Player
from seral.report.records import RunRecords
from seral.secrets.addresses import mask

Row = list[str]
LONGEST_NAME = 24
"""Characters of a cell that is never broken into lines, such as an id."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table as it is shown: the first cell of a row is its heading."""

    caption: str
    columns: list[str]
    """Headings; under a first one called `arm`, rows are shown or hidden by the page's switch of arms."""
    rows: list[Row]
    clips: list[str] = field(default_factory=list)
    """The clip of each row, which a button plays where the page has its audio."""

    @property
    def words(self) -> list[bool]:
        """Whether a column holds sentences, which are broken into lines."""
        return [any(len(cell) > LONGEST_NAME for cell in cells) for cells in zip(self.columns, *self.rows, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as it is shown."""

    figure: Figure
    """Drawing for where no script runs, for print and for files beside the page."""
    alt: str
    caption: str
    chart: Mapping[str, Any] | None = None
    """A Vega-Lite specification that scripts draw instead; a key `renderer` beside it is svg or canvas."""

    @cached_property
    def png(self) -> bytes:
        """The figure as PNG bytes."""
        return png(self.figure)

    @property
    def source(self) -> str:
        """The image inside the page."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")

    @property
    def json(self) -> Markup:
        """The chart as JSON that may stand inside a script element."""
        text = json.dumps(self.chart, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return Markup(text.replace("<", "\\u003c"))


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a report: content of its page, and tables that are written beside it."""

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    clips: dict[str, str] = field(default_factory=dict)
    """Clips that are worth hearing, the first first, and what is said of each."""


def render(
    records: RunRecords,
    *,
    tables: Mapping[str, Table],
    pictures: Mapping[str, Picture],
    differences: list[Difference],
    remarks: Mapping[str, Any],
    players: Sequence[Player],
) -> str:
    """The whole page; `remarks` are the sentences `target`, `filtered`, `growth` and `warnings`."""
    return fill(
        "run.html.j2",
        title=records.run.rstrip("/").rsplit("/", 1)[-1],
        judged=records.judged,
        environment=records.environment,
        config=records.config,
        tables=tables,
        pictures=pictures,
        differences=[difference.sentence for difference in differences],
        **remarks,
        players=players,
        audio_mb=sum(player.size for player in players) / 1e6,
    )


def fill(template: str, *, title: str, environment: Mapping[str, Any], config: str, **content: Any) -> str:
    """A template of this folder as a page; a run of an earlier release may have passwords in its configuration."""
    templates = Environment(
        loader=PackageLoader("seral.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = any(picture.chart for picture in content.get("pictures", {}).values())
    style, *scripts = (_asset(name) for name in ("report.css", *(["charts/vega.min.js"] if drawn else []), "report.js"))
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            "media-src data:" + (" 'self'" if any(player.beside for player in content.get("players", [])) else ""),
            f"style-src {_hash(style)}",
            f"script-src {' '.join(map(_hash, scripts))}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return templates.get_template(template).render(
        title=title,
        environment=_plain(environment),
        config=mask(config),
        policy=Markup(policy),
        style=Markup(style),
        scripts=[Markup(script) for script in scripts],
        **content,
    )


@cache
def _asset(name: str) -> str:
    return resources.files("seral.report").joinpath("static", name).read_text(encoding="utf-8")


@cache
def _hash(text: str) -> str:
    """Source of a policy that allows this text and no other."""
    return f"'sha256-{base64.b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def headline_table(frame: pd.DataFrame, judged: str = "test") -> Table:
    """The headline in words and points; `judged` is what kind of results they are."""
    optional = {
        "UAR %, 10 clips enrolled": "enrolled_uar",
        "calibration error %": "calibration_error",
        "linear probe UAR %": "probe_uar",
    }
    scores = [name for name in frame.columns if f"{name}_std" in frame]
    rated = [name for name in scores if name.split("_")[0] == "ccc"]
    others = [name for name in scores if name not in rated]
    shown = {title: name for title, name in optional.items() if frame[name].notna().any()}
    probes = ["probe_ccc"] if "probe_ccc" in frame and frame["probe_ccc"].notna().any() else []
    rows = [
        [
            str(row["arm"]),
            f"{row['labels']:.0f} ({row['fraction']:.0%})",
            *(mean_and_std(row[name], row[f"{name}_std"], *scale_of(name)) for name in others),
            *(number(100 * row[name], 1) for name in shown.values()),
            *(mean_and_std(row[name], row[f"{name}_std"], *scale_of(name)) for name in rated),
            *(number(row[name], 3) for name in probes),
            duration(row["seconds"]),
            str(row["trajectories"]),
        ]
        for row in frame.to_dict("records")
    ]
    titles = [("CCC " + name.removeprefix("ccc").lstrip("_")).strip() for name in rated]
    titles += ["ridge probe CCC"] * len(probes)
    columns = ["arm", "labels", *(METRICS.get(name, name) for name in others), *shown, *titles, "time", "runs"]
    caption = f"{judged.capitalize()} results at each arm's last round: mean ± standard deviation over folds and seeds."
    if "enrolled_uar" in shown.values():
        caption += (
            " Models that take speakers' means away know test speakers by all of their unlabelled clips, or, where it "
            "says so, by ten enrolled ones, on the others."
        )
    return Table(caption=caption, columns=columns, rows=rows)


def target_table(frame: pd.DataFrame, caption: str) -> Table:
    """Labels and time to the target, or that it was not reached."""
    rows = []
    for row in frame.to_dict("records"):
        reached = pd.notna(row["labels"])
        cells = [number(row["labels"], 0), f"{row['fraction']:.1%}", duration(row["seconds"])] if reached else []
        rows.append([str(row["arm"]), *(cells or ["not reached", "–", "–"])])
    return Table(caption=caption, columns=["arm", "labels", "share of the training part", "time"], rows=rows)


def quality_table(frame: pd.DataFrame) -> Table:
    """Quality of the picks by round beside the pool's."""
    columns = ["arm", "round", "utterances", "median SNR, dB", "median length, s", "answered without a label"]
    rows = [
        [
            str(row["arm"]),
            number(row["round"], 0),
            number(row["picks"], 0),
            number(row["snr_db"], 1),
            number(row["duration_s"], 2),
            number(row["without_label"], 0),
        ]
        for row in frame.to_dict("records")
    ]
    return Table(caption="Quality of what was picked, all folds and seeds together.", columns=columns, rows=rows)


def phase_table(frame: pd.DataFrame, shared_seconds: Mapping[str, float]) -> Table:
    """Time by phase and arm, and what all trajectories share."""
    rows = [
        [str(arm), *(duration(value) for value in seconds), duration(seconds.sum())]
        for arm, seconds in frame.iterrows()
    ]
    caption = "Mean wall-clock time of a trajectory, all rounds."
    if shared_seconds:
        shared_work = ", ".join(f"{phase} {duration(seconds)}" for phase, seconds in sorted(shared_seconds.items()))
        caption += f" Spent once for all trajectories, and not in this table: {shared_work}."
    return Table(caption=caption, columns=["arm", *map(str, frame.columns), "total"], rows=rows)


def mean_and_std(mean: float, std: float, scale: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation, in points by default; the mean alone when there was one run."""
    points = number(scale * mean, digits)
    return points if pd.isna(std) else f"{points} ± {scale * std:.{digits}f}"


def with_interval(row: Mapping[Any, Any], name: str, scale: float | None = None) -> tuple[str, str]:
    """A score as it is shown, and the ends of its interval, columns NAME_low and NAME_high; 1 where they are scaled."""
    usual, digits = scale_of(name)
    scale = usual if scale is None else scale
    low, high = (scale * row[f"{name}_{end}"] for end in ("low", "high"))
    return number(scale * row[name], digits), "–" if pd.isna(low) else f"{low:.{digits}f} to {high:.{digits}f}"


def scale_of(metric: str) -> tuple[float, int]:
    """Factor and digits of a metric as it is shown: points of a hundred, or as it is."""
    return (100, 1) if metric in METRICS else (1, 3)


def score_text(score: float, classes: bool) -> str:
    """A UAR in per cent, or a CCC."""
    return f"{100 * score:.1f} %" if classes else f"{score:.3f}"


def number(value: Any, digits: int) -> str:
    """A number, or a dash for a missing one."""
    return "–" if pd.isna(value) else f"{float(value):,.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


def _plain(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The environment as name and text; what is nested as compact JSON."""
    return [
        (name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))
        for name, value in environment.items()
    ]
