"""Vega-Lite specifications of the charts that a report's scripts draw; `arms` in them is the page's switch of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from seral.figures.axes import PALETTE
from seral.report.comparison import METRICS
from seral.report.figures import arm_styles
from seral.schema import FULL, RANDOM

Spec = dict[str, Any]
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
SHAPES = {"o": "circle", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "s": "square", "*": "cross"}
"""Marker of matplotlib -> shape of Vega."""
DASHES: dict[Any, list[int]] = {"-": [1, 0], "-.": [6, 2, 1, 2], ":": [1, 2], "--": [5, 3], (0, (5, 1)): [5, 1]}
COST = {"labels": "labels", "share of labels, %": "share", "minutes of annotators": "minutes", "money": "money"}
"""Costs that a curve may run along: words of the page, and the field."""
SHOWN_ARMS = {"filter": "indexof(arms, datum.arm) >= 0"}
Y: Spec = {"field": "y", "type": "quantitative", "scale": {"zero": False}}
MARKS = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"]


def spec(values: pd.DataFrame, **parts: Any) -> Spec:
    """A specification over the rows of a frame; numbers with four digits, what is missing is null."""
    rounded = values.astype(dict.fromkeys(values.select_dtypes("float32"), float)).round(4).astype(object)
    rows = rounded.where(values.notna(), None).to_dict("records")
    return {"$schema": SCHEMA, "data": {"values": rows}, **parts}


def choice(name: str, options: Mapping[str, Any] | Sequence[str], words: str) -> Spec:
    """A parameter that a list of the page sets."""
    labels = list(options)
    values = list(options.values()) if isinstance(options, Mapping) else labels
    return {
        "name": name,
        "value": values[0],
        "bind": {"input": "select", "options": values, "labels": labels, "name": words},
    }


def switch(arms: Sequence[str]) -> Spec:
    return {"name": "arms", "value": list(arms)}


def _styled(arms: Sequence[str]) -> Spec:
    """Colour, shape and dash of arms as in the figures, one legend for all three."""
    styles = arm_styles(arms)
    looks = {
        "color": [styles[arm][0] for arm in arms],
        "shape": [SHAPES[styles[arm][1]] for arm in arms],
        "strokeDash": [DASHES[styles[arm][2]] for arm in arms],
    }
    return {
        channel: {"field": "arm", "type": "nominal", "title": "arm", "scale": {"domain": list(arms), "range": values}}
        for channel, values in looks.items()
    }


def _curves(arms: Sequence[str], title: str, tooltip: list[Spec]) -> list[Spec]:
    """Layers of curves of y along x with a band from low to high, one an arm; all labels as a level."""
    looks, curved = _styled(arms), [{"filter": f"datum.arm !== '{FULL}'"}]
    y = Y | {"title": title}
    both = {"x": {"field": "x", "type": "quantitative", "title": None, "scale": {"zero": False}}, "y": y}
    both |= {"color": looks["color"]}
    band = {"y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
    dashed, pointed = {"strokeDash": looks["strokeDash"]}, {"shape": looks["shape"], "tooltip": tooltip}
    level = {"y": y, "color": looks["color"], **dashed, "tooltip": tooltip}
    dot = {"type": "point", "filled": True, "size": 80, "opacity": 1}
    return [
        {"transform": curved, "mark": {"type": "area", "opacity": 0.14}, "encoding": both | band},
        {"transform": curved, "mark": {"type": "line", "strokeWidth": 2}, "encoding": both | dashed},
        {"transform": curved, "mark": dot, "encoding": both | pointed},
        {
            "transform": [{"filter": f"datum.arm === '{FULL}'"}],
            "mark": {"type": "rule", "strokeWidth": 2},
            "encoding": level,
        },
    ]


def learning_curves(
    points: pd.DataFrame, arms: list[str], chance: float, further: Sequence[str] = (), judged: str = "test"
) -> Spec:
    """Scores along labels, minutes or money with a band of one standard deviation; all labels as a level.

    `points` has a row an arm and round: labels, share, minutes, money, trajectories, and of each score NAME, NAME_std.
    `judged` is what kind of scores they are.
    """
    costs = {words: name for words, name in COST.items() if points[name].notna().any()}
    unit = "score" if further else "score, %"
    scores = {title: name for name, title in METRICS.items()} | {name: name for name in further}
    tooltip = [
        {"field": "arm"},
        {"field": "round"},
        *({"field": name, "title": words} for words, name in costs.items()),
        {"field": "y", "title": unit},
        {"field": "deviation", "title": "±"},
        {"field": "trajectories", "title": "runs"},
    ]
    by_chance = {
        "data": {"values": [{"y": round(100 * chance, 2), "level": "chance"}]},
        "mark": {"type": "rule", "strokeDash": [1, 4], "color": "gray"},
        "transform": [{"filter": f"indexof({list(METRICS)}, score) >= 0"}],
        "encoding": {"y": Y, "tooltip": [{"field": "level"}, {"field": "y", "title": "score, %"}]},
    }
    return spec(
        points,
        width=560,
        height=320,
        params=[switch(arms), choice("along", costs, "along"), choice("score", scores, "score")],
        transform=[
            SHOWN_ARMS,
            {"calculate": "datum[along]", "as": "x"},
            {"calculate": "datum[score]", "as": "y"},
            {"calculate": "datum[score + '_std']", "as": "deviation"},
            {"calculate": "datum.y - datum.deviation", "as": "low"},
            {"calculate": "datum.y + datum.deviation", "as": "high"},
        ],
        layer=[*_curves(arms, f"{judged} {unit}", tooltip), by_chance],
    )


def ccc_curves(curves: pd.DataFrame, arms: list[str]) -> Spec:
    """CCC of the mean or of one dimension along labels with its interval; all labels as a level.

    `curves` has a row an arm, round and dimension: labelled, fraction, ccc, low, high.
    """
    points = curves.assign(labels=curves["labelled"], share=100 * curves["fraction"])
    dimensions = sorted(curves["dimension"].unique(), key=lambda name: (name != "mean", name))
    tooltip = [{"field": name} for name in ("arm", "round", "labels", "share", "ccc", "low", "high")]
    along = {words: name for words, name in COST.items() if name in points}
    return spec(
        points,
        width=560,
        height=320,
        params=[
            switch(arms),
            choice("along", along, "along"),
            choice("dimension", dimensions, "dimension"),
        ],
        transform=[
            SHOWN_ARMS,
            {"filter": "datum.dimension === dimension"},
            {"calculate": "datum[along]", "as": "x"},
            {"calculate": "datum.ccc", "as": "y"},
        ],
        layer=_curves(arms, "test CCC", tooltip),
    )


def true_and_predicted(points: pd.DataFrame, arms: list[str], dimensions: list[str]) -> Spec:
    """Predicted against true ratings of test clips, of the arm and dimension that are chosen; a click plays a clip."""
    tooltip = [{"field": name} for name in ("utterance_id", "true", "predicted", "speaker", "fold")]
    ends = [points[["true", "predicted"]].min().min(), points[["true", "predicted"]].max().max()]
    domain = [round(float(end), 3) for end in ends]
    scale = {"zero": False, "domain": domain}
    x = {"field": "true", "type": "quantitative", "title": "true rating", "scale": scale}
    y = {"field": "predicted", "type": "quantitative", "title": "predicted", "scale": scale}
    return spec(
        points.assign(clip=points["utterance_id"]),
        width=420,
        height=420,
        params=[choice("arm", arms, "arm"), choice("dimension", dimensions, "dimension")],
        layer=[
            {
                "data": {"values": [{"true": end, "predicted": end} for end in domain]},
                "mark": {"type": "line", "color": "gray", "strokeDash": [1, 4]},
                "encoding": {"x": x, "y": y},
            },
            {
                "transform": [{"filter": "datum.arm === arm && datum.dimension === dimension"}],
                "mark": {"type": "point", "filled": True, "opacity": 0.6, "cursor": "pointer"},
                "encoding": {"x": x, "y": y, "color": {"value": PALETTE[0]}, "tooltip": tooltip},
            },
        ],
    )


def confusion(counts: pd.DataFrame, classes: list[str]) -> Spec:
    """One matrix, of the arm and fold that are chosen: share of the true class, and the count."""
    arms, folds = counts["arm"].unique().tolist(), counts["fold"].unique().tolist()
    ordered = sorted(arms, key=lambda arm: (arm == FULL, arm == RANDOM, arm))
    step = 92 if len(classes) <= 6 else 62
    axes = {
        "x": {"field": "predicted", "type": "nominal", "sort": classes, "axis": {"labelAngle": -30, "domain": False}},
        "y": {"field": "truth", "type": "nominal", "sort": classes, "axis": {"domain": False}},
    }
    ink = {"condition": {"test": "datum.share > 55", "value": "white"}, "value": "#1f2430"}
    shade = {"field": "share", "type": "quantitative", "legend": None}
    tooltip = [{"field": name} for name in ("truth", "predicted", "clips")]
    tooltip.append({"field": "share", "title": "share of the truth, %"})
    return spec(
        counts,
        width={"step": step},
        height={"step": 0.62 * step},
        params=[choice("arm", ordered, "arm"), choice("fold", folds, "fold")],
        transform=[{"filter": "datum.arm === arm && datum.fold === fold"}],
        encoding=axes,
        layer=[
            {
                "mark": "rect",
                "encoding": {
                    "color": shade | {"scale": {"scheme": "blues", "domain": [0, 100]}},
                    "tooltip": tooltip,
                },
            },
            {
                "mark": {"type": "text", "fontSize": 15, "dy": -7},
                "transform": [{"calculate": "round(datum.share) + ' %'", "as": "words"}],
                "encoding": {"text": {"field": "words"}, "color": ink},
            },
            {
                "mark": {"type": "text", "fontSize": 11, "dy": 11},
                "encoding": {"text": {"field": "clips", "type": "quantitative"}, "color": ink},
            },
        ],
    )


def reliability(bins: pd.DataFrame, arms: list[str]) -> Spec:
    """Share of right answers against confidence, before or after the temperature; the line is where both agree."""
    looks = _styled(arms)
    shares = bins.assign(confidence=100 * bins["confidence"], right=100 * bins["right"])
    domain = {"domain": [0, 100]}
    x = {"field": "confidence", "type": "quantitative", "title": "confidence, %", "scale": domain}
    y = {"field": "right", "type": "quantitative", "title": "right, %", "scale": domain}
    tooltip = [{"field": "arm"}, {"field": "clips"}, {"field": "confidence", "title": "confidence, %"}]
    tooltip.append({"field": "right", "title": "right, %"})
    size = {"field": "clips", "type": "quantitative", "legend": None, "scale": {"range": [40, 400]}}
    stages = [stage for stage in ("before", "after") if stage in set(bins["stage"])]
    return spec(
        shares,
        width=420,
        height=360,
        params=[switch(arms), choice("stage", stages, "temperature")],
        layer=[
            {
                "data": {"values": [{"confidence": 0, "right": 0}, {"confidence": 100, "right": 100}]},
                "mark": {"type": "line", "color": "gray", "strokeDash": [1, 4]},
                "encoding": {"x": x, "y": y},
            },
            {
                "transform": [SHOWN_ARMS, {"filter": "datum.stage === stage"}],
                "mark": {"type": "line", "strokeWidth": 2},
                "encoding": {"x": x, "y": y, "color": looks["color"], "strokeDash": looks["strokeDash"]},
            },
            {
                "transform": [SHOWN_ARMS, {"filter": "datum.stage === stage"}],
                "mark": {"type": "point", "filled": True, "opacity": 1},
                "encoding": {
                    "x": x,
                    "y": y,
                    "size": size,
                    "tooltip": tooltip,
                    "color": looks["color"],
                    "shape": looks["shape"],
                },
            },
        ],
    )


def picks_by_round(picks: pd.DataFrame, arms: list[str], classes: list[str]) -> Spec:
    """Every pick of a trajectory: how unsure the model was of it, by round, arm and what was believed."""
    names = ["utterance_id", "round", "order", "believed", "answer", "uncertainty", "why", "speaker", "corpus"]
    tooltip = [{"field": name} for name in names if name in picks]
    return spec(
        picks.assign(clip=picks["utterance_id"]),
        params=[switch(arms)],
        transform=[SHOWN_ARMS, {"filter": "isValid(datum.uncertainty)"}],
        facet={"column": {"field": "arm", "type": "nominal", "title": None}},
        spec={
            "width": 240,
            "height": 280,
            "transform": [{"calculate": "(datum.order * 0.618034) % 1 - 0.5", "as": "shift"}],
            "mark": {"type": "point", "filled": True, "size": 60, "cursor": "pointer", "opacity": 0.9},
            "encoding": {
                "x": {"field": "round", "type": "ordinal", "axis": {"labelAngle": 0}},
                "xOffset": {"field": "shift", "type": "quantitative"},
                "y": {"field": "uncertainty", "type": "quantitative", "title": "uncertainty before, %"},
                "color": _nominal("believed", classes, PALETTE),
                "shape": _nominal("believed", classes, MARKS),
                "tooltip": tooltip,
            },
        },
    )


def _nominal(name: str, values: Sequence[str], looks: Sequence[str]) -> Spec:
    """A channel by a column of words."""
    chosen = [looks[at % len(looks)] for at in range(len(values))]
    return {"field": name, "type": "nominal", "scale": {"domain": list(values), "range": chosen}}


def pool_map(points: pd.DataFrame, colours: Sequence[str]) -> Spec:
    """Clips where the projection puts them, coloured by a column of words that is chosen; a click plays the clip."""
    tooltip = [{"field": name} for name in ("utterance_id", *colours, "why")]
    axis = {"type": "quantitative", "axis": None, "scale": {"zero": False, "nice": False}}
    return spec(
        points.assign(clip=points["utterance_id"]),
        renderer="canvas",
        width=620,
        height=520,
        params=[
            choice("colour", list(colours), "coloured by"),
            {"name": "zoom", "select": "interval", "bind": "scales"},
        ],
        transform=[{"calculate": "datum[colour]", "as": "group"}],
        mark={"type": "point", "filled": True, "cursor": "pointer"},
        encoding={
            "x": axis | {"field": "x"},
            "y": axis | {"field": "y"},
            "color": {
                "field": "group",
                "type": "nominal",
                "title": None,
                "scale": {"range": [*PALETTE[:6], "#888888", "#8c564b", "#9467bd", "#17becf", "#bcbd22", "#7f3c8d"]},
            },
            "shape": {"field": "group", "type": "nominal", "title": None, "scale": {"range": MARKS}},
            "size": {"condition": {"test": "datum.round !== 'not asked'", "value": 90}, "value": 35},
            "tooltip": tooltip,
        },
    )
