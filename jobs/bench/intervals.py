"""Coverage of 95 % intervals: Student's t beside percentiles of a bootstrap, over folds and over speakers.

    python -m jobs.bench.intervals

Folds: a gain that is normal over folds. Speakers: recall of four classes by speakers who differ (log-odds with a
deviation of 0.6), and the difference of two systems that are equally good and to the speakers' taste (0.4).
"""

# N clips · C classes · G groups (speakers, folds) · R repeats (resamples)
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit

from ser_models.intervals import jackknife_interval, mean_interval
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.progress import track

RECALL_C = np.array([0.2, 0.6, -0.2, 0.9])
"""Log-odds of recognising a clip of each class."""
CLIPS = 5
"""Clips of each class that a speaker has."""
VOICE, TASTE = 0.6, 0.4
"""Deviations between speakers: of all systems alike, and of one system against another."""
Intervals = list[tuple[float, float]]
"""By Student's t, and by percentiles."""


class IntervalOptions(Options):
    """Options of the simulation."""

    units: list[int] = Field(default=[3, 4, 5, 6, 10, 15, 24], min_length=1)
    """Folds, or speakers."""
    repetitions: int = Field(default=2000, ge=100)
    resamples: int = Field(default=1000, ge=100)
    """Resamples of a bootstrap."""
    seed: int = 0


def run_intervals(options: IntervalOptions) -> str:
    """Coverage in per cent of both kinds of interval, by the number of units."""
    simulations = {"gain over folds": of_folds, "UAR over speakers": of_speakers, "difference over speakers": of_pairs}
    truths = {"gain over folds": 0.02, "UAR over speakers": _mean_recall(), "difference over speakers": 0.0}
    lines = []
    with track("simulating", len(options.units) * len(simulations)) as advance:
        for count in options.units:
            line: dict[str, float | int] = {"units": count}
            for name, simulate in simulations.items():
                rng = np.random.default_rng([options.seed, count])
                truth, covered = truths[name], np.zeros(2)
                for _ in range(options.repetitions):
                    covered += [low <= truth <= high for low, high in simulate(count, options.resamples, rng)]
                shares = (100 * covered / options.repetitions).round(1).tolist()
                line |= dict(zip((f"{name}: t", f"{name}: percentiles"), shares, strict=True))
                advance(1)
            lines.append(line)
    return markdown(pd.DataFrame(lines))


def of_folds(count: int, resamples: int, rng: np.random.Generator) -> Intervals:
    """Intervals of a mean gain of two points."""
    gain_G = rng.normal(0.02, 0.03, count)
    drawn_R = gain_G[rng.integers(count, size=(resamples, count))].mean(1)
    low, high, _ = mean_interval(gain_G)
    return [(low, high), _percentiles(drawn_R)]


def of_speakers(count: int, resamples: int, rng: np.random.Generator) -> Intervals:
    """Intervals of a UAR."""
    hit_GC = _hits(rng.normal(0, VOICE, (count, 1)), rng)
    return _both(lambda weight_RG: _uar(weight_RG, hit_GC), count, resamples, rng)


def of_pairs(count: int, resamples: int, rng: np.random.Generator) -> Intervals:
    """Intervals of the difference in UAR of two systems that are equally good."""
    voice_G1, taste_G1 = rng.normal(0, VOICE, (count, 1)), rng.normal(0, TASTE, (count, 1))
    a_GC, b_GC = (_hits(voice_G1 + sign * taste_G1, rng) for sign in (1, -1))
    return _both(lambda weight_RG: _uar(weight_RG, a_GC) - _uar(weight_RG, b_GC), count, resamples, rng)


def _both(
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    count: int,
    resamples: int,
    rng: np.random.Generator,
) -> Intervals:
    """Intervals of a statistic of weighted speakers, (R, G) -> (R,)."""
    without_G, whole = statistic(1 - np.eye(count)), statistic(np.ones((1, count)))[0]
    low, high, _ = jackknife_interval(whole, without_G)
    drawn_R = statistic(rng.multinomial(count, np.full(count, 1 / count), size=resamples).astype(np.float64))
    return [(float(low), float(high)), _percentiles(drawn_R)]


def _percentiles(drawn_R: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(drawn_R, [0.025, 0.975])
    return float(low), float(high)


def _hits(shift_G1: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Clips of every speaker and class that are recognised, (G, C)."""
    hit_GC: NDArray[np.int64] = rng.binomial(CLIPS, expit(RECALL_C + shift_G1))
    return hit_GC


def _uar(weight_RG: NDArray[np.float64], hit_GC: NDArray[np.int64]) -> NDArray[np.float64]:
    recall_RC = weight_RG @ hit_GC / (CLIPS * weight_RG.sum(1, keepdims=True))
    uar_R: NDArray[np.float64] = recall_RC.mean(1)
    return uar_R


def _mean_recall() -> float:
    """The UAR over all speakers that there could be."""
    voice_G1 = np.random.default_rng(1).normal(0, VOICE, (1_000_000, 1))
    return float(expit(RECALL_C + voice_G1).mean())


if __name__ == "__main__":
    run_job(IntervalOptions, run_intervals, __doc__)
