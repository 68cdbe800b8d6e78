"""Vega-Lite specifications of bars: what was picked, where the time goes, and the classes of a pool."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from seral.figures.axes import PALETTE
from seral.report.charts import SHOWN_ARMS, Spec, choice, spec, switch
from seral.report.figures import arm_styles
from seral.report.shares import POOL, arms_in

INK = "#888888"
"""Of what stands for the whole pool: seen on white and on black."""
PERCENT: Spec = {"field": "percent", "type": "quantitative", "title": "share, %"}
BAR_HEIGHT = 12
BAR: Spec = {"type": "bar", "stroke": "white", "strokeWidth": 1}


def _coloured(name: str, domain: Sequence[str], colours: Sequence[str] = PALETTE) -> Spec:
    """A channel of colours by a column of words; beyond the palette its colours come again."""
    chosen = [colours[at % len(colours)] for at in range(len(domain))]
    return {"field": name, "type": "nominal", "title": None, "scale": {"domain": list(domain), "range": chosen}}


def picked_classes(shares: pd.DataFrame, answers: Sequence[str]) -> Spec:
    """Answers of each round as shares of it, a panel an arm; `shares` are those of shares.answer_shares."""
    tooltip = [{"field": name} for name in ("arm", "round", "answer", "clips")]
    return spec(
        shares.assign(percent=100 * shares["share"]),
        params=[switch(arms_in(shares))],
        transform=[SHOWN_ARMS],
        facet={"column": {"field": "arm", "type": "nominal", "title": None, "sort": arms_in(shares)}},
        spec={
            "width": 200,
            "height": 240,
            "mark": BAR,
            "encoding": {
                "x": {"field": "round", "type": "ordinal", "axis": {"labelAngle": 0}},
                "y": PERCENT | {"title": "share of the answers, %", "scale": {"domain": [0, 100]}},
                "color": _coloured("answer", answers) | {"legend": {"orient": "bottom"}},
                "order": {"field": "at", "type": "quantitative"},
                "tooltip": [*tooltip, PERCENT],
            },
        },
    )


def picked_groups(shares: pd.DataFrame) -> Spec:
    """Share of the picks of each arm by speaker or corpus, with the pool's as a line; `shares` are of group_shares."""
    arms = arms_in(shares)
    group = {"field": "group", "type": "nominal", "title": None, "sort": shares["group"].unique().tolist()}
    tooltip = [{"field": name} for name in ("group", "arm")]
    picks = {
        "y": group,
        "x": PERCENT,
        "yOffset": {"field": "arm", "type": "nominal", "sort": arms},
        "color": _coloured("arm", arms, [arm_styles(arms)[arm][0] for arm in arms]),
        "tooltip": [*tooltip, PERCENT],
    }
    line = {"type": "tick", "thickness": 3, "color": INK, "size": BAR_HEIGHT * len(arms)}
    return spec(
        shares.assign(percent=100 * shares["share"]),
        width=520,
        height={"step": BAR_HEIGHT * len(arms) + 10, "for": "position"},
        params=[switch(arms), choice("by", ["speaker", "corpus"], "by")],
        transform=[{"filter": "datum.by === by"}],
        layer=[
            {"transform": [SHOWN_ARMS], "mark": BAR, "encoding": picks},
            {
                "transform": [{"filter": f"datum.arm === '{POOL}'"}],
                "mark": line,
                "encoding": {"y": group, "x": PERCENT, "tooltip": [*tooltip, PERCENT]},
            },
        ],
    )


def picked_quality(shares: pd.DataFrame) -> Spec:
    """Signal-to-noise ratio of the picks of each arm over the pool's; `shares` are those of shares.snr_shares."""
    arms = arms_in(shares)
    low = {"field": "low", "type": "quantitative", "title": "SNR, dB", "scale": {"zero": False}}
    tooltip = [{"field": "arm"}, *({"field": end, "title": f"{end}, dB"} for end in ("low", "high")), PERCENT]
    pool = {"x": low, "x2": {"field": "high"}, "y": PERCENT, "tooltip": tooltip}
    colour = _coloured("arm", arms, [arm_styles(arms)[arm][0] for arm in arms])
    lines = {"x": low | {"field": "middle"}, "y": PERCENT, "color": colour, "tooltip": tooltip}
    return spec(
        shares.assign(percent=100 * shares["share"], middle=(shares["low"] + shares["high"]) / 2),
        width=560,
        height=240,
        params=[switch(arms)],
        layer=[
            {
                "transform": [{"filter": f"datum.arm === '{POOL}'"}],
                "mark": {"type": "bar", "color": INK, "opacity": 0.35},
                "encoding": pool,
            },
            {
                "transform": [SHOWN_ARMS],
                "mark": {"type": "line", "interpolate": "step", "strokeWidth": 2, "point": {"filled": True}},
                "encoding": lines,
            },
        ],
    )


def time_by_phase(seconds: pd.DataFrame) -> Spec:
    """Mean seconds of a trajectory, one bar an arm, by phase: the columns of the frame, whose rows are the arms."""
    phases, arms = [str(name) for name in seconds.columns], [str(arm) for arm in seconds.index]
    frame = seconds.reset_index(names="arm").melt("arm", var_name="phase", value_name="seconds")
    return spec(
        frame.assign(at=frame["phase"].map({name: at for at, name in enumerate(phases)})),
        width=560,
        height={"step": 34},
        params=[switch(arms)],
        transform=[SHOWN_ARMS],
        mark=BAR,
        encoding={
            "y": {"field": "arm", "type": "nominal", "title": None, "sort": arms},
            "x": {"field": "seconds", "type": "quantitative", "title": "seconds per trajectory, all rounds"},
            "color": _coloured("phase", phases),
            "order": {"field": "at", "type": "quantitative"},
            "tooltip": [{"field": name} for name in ("arm", "phase", "seconds")],
        },
    )


def class_counts(counts: pd.DataFrame) -> Spec:
    """Bars of clips by class, stacked by a column of words that is chosen: corpus or language."""
    return spec(
        counts,
        width=560,
        height={"step": 26},
        params=[choice("by", ["corpus", "language"], "divided by")],
        transform=[{"calculate": "datum[by]", "as": "part"}],
        mark=BAR,
        encoding={
            "y": {"field": "class", "type": "nominal", "sort": "-x", "title": None},
            "x": {"aggregate": "sum", "field": "clips", "type": "quantitative", "title": "clips"},
            "color": {"field": "part", "type": "nominal", "title": None, "scale": {"range": PALETTE}},
            "tooltip": [
                {"field": "class"},
                {"field": "part", "title": "of"},
                {"aggregate": "sum", "field": "clips", "title": "clips"},
            ],
        },
    )
