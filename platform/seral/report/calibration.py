"""Trust in confidence: reliability and calibration error on test clips, before and after a temperature.

The temperature is fitted on the dev clips of each trajectory, which no test speaker is among: Guo et al. 2017
(arXiv 1706.04599).
"""

# N clips · C classes
from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ser_models.metrics import calibration_error
from seral.figures.axes import INK, MUTED, percent, tidy
from seral.report import page
from seral.report.figures import arm_styles

BINS = 10
KEYS = ["arm", "fold", "seed"]
CAPTION = (
    "Expected calibration error (ECE, 15 bins) on test clips at the last round, mean ± standard deviation over folds "
    "and seeds. After: probabilities with a temperature fitted on the dev clips of the trajectory (above 1 the model "
    "was too sure). A temperature changes no prediction. The models of the run are as they were before."
)


def tempered(judged: pd.DataFrame, dev: pd.DataFrame, classes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reliability and error of every arm.

    The first frame has a row an arm, stage (before, after) and bin of confidence: clips, confidence, right. The second
    has a row a trajectory: temperature, ece_before, ece_after; NaN after where there is no dev clip.
    """
    names = [f"p_{name}" for name in classes]
    dev_of = dict(iter(dev.groupby(KEYS))) if len(dev) else {}
    clips, errors = [], []
    for keys, own in judged.groupby(KEYS, sort=True):
        facts = dict(zip(KEYS, keys, strict=True))
        truth_N = pd.Categorical(own["truth"], classes).codes
        before_NC = own[names].to_numpy(np.float64)
        before_NC = before_NC / before_NC.sum(1, keepdims=True)
        stages, temperature = {"before": before_NC}, float("nan")
        if keys in dev_of:
            temperature = _temperature(dev_of[keys][names].to_numpy(np.float64), dev_of[keys]["truth"], classes)
            stages["after"] = _scaled(before_NC, temperature)
        ece = {f"ece_{stage}": calibration_error(truth_N, p_NC) for stage, p_NC in stages.items()}
        errors.append({**facts, "temperature": temperature, **ece})
        for stage, p_NC in stages.items():
            right_N = p_NC.argmax(1) == truth_N
            clips.append(
                pd.DataFrame({"confidence": p_NC.max(1), "right": right_N}).assign(arm=str(facts["arm"]), stage=stage)
            )
    frame = pd.concat(clips, ignore_index=True)
    frame["bin"] = np.clip(np.ceil(frame["confidence"] * BINS).astype(int) - 1, 0, BINS - 1)
    by_bin = frame.groupby(["arm", "stage", "bin"], as_index=False)
    reliability = by_bin.agg(clips=("right", "size"), confidence=("confidence", "mean"), right=("right", "mean"))
    return reliability, pd.DataFrame(errors, columns=[*KEYS, "temperature", "ece_before", "ece_after"])


def _temperature(p_NC: NDArray[np.float64], truth: pd.Series, classes: list[str]) -> float:
    import torch  # late: reports of other things do without

    from ser_models.losses import best_temperature

    label_N = torch.from_numpy(pd.Categorical(truth, classes).codes.astype(np.int64))
    return best_temperature(torch.from_numpy(np.log(np.maximum(p_NC, 1e-9))), label_N)


def _scaled(p_NC: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities whose logits are divided by a temperature."""
    log_NC = np.log(np.maximum(p_NC, 1e-9)) / temperature
    power_NC = np.exp(log_NC - log_NC.max(1, keepdims=True))
    scaled_NC: NDArray[np.float64] = power_NC / power_NC.sum(1, keepdims=True)
    return scaled_NC


def calibration_table(errors: pd.DataFrame) -> page.Table:
    """ECE of each arm before and after."""
    rows = [
        [
            str(arm),
            *(page.mean_and_std(own[name].mean(), own[name].std()) for name in ("ece_before", "ece_after")),
            page.number(own["temperature"].mean(), 2),
        ]
        for arm, own in errors.groupby("arm", sort=True)
    ]
    return page.Table(caption=CAPTION, columns=["arm", "ECE % before", "ECE % after", "temperature"], rows=rows)


def reliability_figure(reliability: pd.DataFrame, arms: list[str]) -> Figure:
    """Share of right answers against confidence, a panel before and one after the temperature."""
    figure = Figure(figsize=(8.6, 4.0), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, stage in zip(panels, ("before", "after"), strict=True):
        tidy(axes, "confidence", "share right" if stage == "before" else "")
        axes.set_title(f"{stage} temperature", color=INK, fontsize=11, fontweight="bold")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 3)), label="as sure as right")
        for arm in arms:
            colour, marker, line = arm_styles(arms)[arm]
            own = reliability[(reliability["arm"] == arm) & (reliability["stage"] == stage)]
            look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5}
            axes.plot(own["confidence"], own["right"], label=arm, **look)
        percent(axes.xaxis)
        percent(axes.yaxis)
    panels[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure
