"""Reasons of picks: the scores that a strategy goes by, and how many candidates had lower ones.

A strategy says no more than the names of its measures. They are taken once it has picked, of its picks and of a sample
of the candidates, which depends on ids alone: picks are what they would be without, whatever the wrappers and parts.
"""

# N candidates (a sample, and the picks) · P new picks · M labelled · D features
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from seral.errors import OptionError, unknown_name
from seral.selection.candidates import Candidates
from seral.selection.parts.distributed import resolved
from seral.selection.parts.local import Parts, best_of
from seral.selection.selection import StrategyOptions, default_options
from seral.selection.strategies import STRATEGIES
from seral.selection.strategies.bayesian import Posterior, variances
from seral.selection.strategies.dropout_query import share_of_changes
from seral.selection.strategies.herding import least_distance, pool_weights
from seral.selection.strategies.records import Strategy, best_by
from seral.selection.strategies.spread import gradient_lengths
from seral.selection.strategies.uncertainty import UNCERTAINTIES, density_scores, total_direction, uncertainty_of
from seral.selection.strategies.uniform import reversed_keys
from seral.selection.strategies.wrappers import ByChance
from seral.vectors.arrays import Doubles, Rows, Stored
from seral.vectors.index import nearest
from seral.vectors.neighbourhoods import spacing
from seral.vectors.view import View, unit_rows

SAMPLE, KEY = 5_000, "seral.why.picked"
"""Candidates beside the picks that scores are compared with, and the key that draws them."""
EXPLAINED = 2_000
"""Picks of a question that have reasons: the first."""
NEIGHBOURS = 20
QUANTILES = (0.05, 0.5, 0.95)
CHANCE, DOUBT = "chance", "doubt"


class Reason(NamedTuple):
    """A row of schema.REASON: a pick's score by one measure, and where it lies among those of the candidates."""

    utterance_id: str
    measure: str
    score: float | None = None
    share: float | None = None
    low: float | None = None
    median: float | None = None
    high: float | None = None


class Explained(NamedTuple):
    """The clips that measures are taken of, and who picked: a sample of the candidates, and the picks."""

    pool: Candidates
    rows: Rows
    """Rows of the picks in order, (P,)."""
    parts: Parts
    options: dict[str, Any]
    """Options of the strategy, defaults included."""


Steps = Callable[[Explained], Iterable[Doubles]]
"""Scores of all candidates, (N,), as they were before each pick in turn; larger = sooner, NaN = it has none."""


@dataclass(frozen=True)
class Measure:
    """A score that strategies go by, and how it is read."""

    steps: Steps
    words: str
    """Stand before the share of the candidates with a lower score, such as `less sure than`."""


def explain(strategy: StrategyOptions, parts: Parts, picks: Sequence[str], rng: np.random.Generator) -> list[Reason]:
    """Reasons of the picks of a strategy from these parts, in their order, one by each of its measures.

    `rng` is as it was before the strategy picked: what one stands for may depend on it.
    """
    ids = list(picks[:EXPLAINED])
    if strategy == StrategyOptions(name="random"):
        return [Reason(name, CHANCE) for name in ids]
    strategy = resolved(strategy, parts, rng)
    chance_ids = set(ids) if strategy.name == "random" else {name for name in ids if isinstance(name, ByChance)}
    reasons = {name: [Reason(name, CHANCE)] if name in chance_ids else [] for name in ids}
    sample = best_of(parts.each(best_by, reversed_keys, SAMPLE, KEY), SAMPLE)
    pool = parts.gather([*sample, *ids])
    present = set(pool.ids.tolist())
    new = [name for name in ids if name in present]
    options = default_options(strategy.name) | strategy.parameters
    explained = Explained(pool, pool.rows(new), parts, options)
    for name, steps in measures_of(STRATEGIES[strategy.name], options).items():
        for reason in _compared(name, new, explained, steps):
            if reason.utterance_id not in chance_ids:
                reasons[reason.utterance_id].append(reason)
    for reason in _doubted(parts, [name for name in ids if name not in present]):
        reasons[reason.utterance_id].append(reason)
    return list(itertools.chain(*reasons.values()))


def measures_of(strategy: Strategy, options: dict[str, Any]) -> dict[str, Steps]:
    """The measures that a strategy goes by, by name: its own score, or those that its record names, where the name of
    an option stands for its value. Raises OptionError for an unknown one."""
    if (score := strategy.score) is not None:
        return {score.__name__: _unchanged(lambda this: score(this.pool, **this.options))}
    names = [str(options.get(name, name)) for name in strategy.goes_by]
    if unknown := [name for name in names if name not in MEASURES]:
        raise OptionError(unknown_name("measure", unknown[0], MEASURES))
    return {name: MEASURES[name].steps for name in names}


def _compared(measure: str, picks: Sequence[str], this: Explained, steps: Steps) -> Iterator[Reason]:
    """A reason a pick: its score, the share of those who were left that had a lower one, and quantiles of theirs."""
    left_N = np.ones(len(this.pool), dtype=bool)
    for name, row, score_N in zip(picks, this.rows.tolist(), steps(this), strict=True):
        left_N[row] = False
        others = score_N[left_N & np.isfinite(score_N)]
        if not np.isfinite(score_N[row]):
            continue
        low, median, high = np.quantile(others, QUANTILES).tolist() if len(others) else (None, None, None)
        share = float((others < score_N[row]).mean()) if len(others) else None
        yield Reason(name, measure, float(score_N[row]), share, low, median, high)


def _doubted(parts: Parts, again: Sequence[str]) -> Iterator[Reason]:
    """Reasons of picks that are labelled already: how much the model doubts their labels."""
    labelled = parts.labelled_part() if again else None
    if labelled is None or labelled.labelled_ids is None or labelled.labelled_doubt_M is None:
        return
    doubt_of = dict(zip(labelled.labelled_ids.tolist(), labelled.labelled_doubt_M.tolist(), strict=True))
    low, median, high = np.quantile(labelled.labelled_doubt_M, QUANTILES).tolist()
    for name in again:
        if name in doubt_of:
            share = float((labelled.labelled_doubt_M < doubt_of[name]).mean())
            yield Reason(name, DOUBT, doubt_of[name], share, low, median, high)


def _unchanged(score: Callable[[Explained], Doubles]) -> Steps:
    """Steps of a score that picks do not change."""
    return lambda this: itertools.repeat(score(this), len(this.rows))


def _uncertainty(name: str) -> Steps:
    def score(this: Explained) -> Doubles:
        if getattr(this.pool, UNCERTAINTIES[name].reads) is None:  # before there is a model
            return np.full(len(this.pool), np.nan)
        return uncertainty_of(this.pool, name)

    return _unchanged(score)


def _density(this: Explained) -> Doubles:
    x_ND = this.pool.need("embedding_ND")
    direction_D = total_direction(x_ND) / len(x_ND)
    return density_scores(this.pool, this.options["uncertainty"], this.options["beta"], direction_D)


def _typicality(this: Explained) -> Doubles:
    """1 / mean distance to the nearest neighbours, (N,), as in `typiclust` and here of all that are looked at."""
    spacing_N = spacing(View(this.pool.need("embedding_ND"), unit=True), NEIGHBOURS, threads=1)
    return 1 / np.maximum(spacing_N, 1e-6)


def _apart(x_ND: Stored, centre_MD: Stored, rows: Rows) -> Iterator[Doubles]:
    """Distances to the nearest of what is labelled or was picked before; none before anything is."""
    near_N = np.full(len(x_ND), np.nan)
    if len(centre_MD):
        near_N = np.sqrt(nearest(x_ND, centre_MD, 1).distance_QK[:, 0].astype(np.float64))
    for row in rows:
        yield near_N
        away_ND = x_ND.astype(np.float32) - x_ND[row].astype(np.float32)
        near_N = np.fmin(near_N, np.sqrt(np.einsum("nd,nd->n", away_ND, away_ND, dtype=np.float64)))


def _coverage(this: Explained) -> Iterator[Doubles]:
    """Sum over the pool of how much nearer each pick brings it, as a share of all that could be, by the kernel of
    `max_herding`; of the picks alone."""
    x_ND, centre_MD = unit_rows(this.pool.need("embedding_ND")), unit_rows(this.pool.labelled_centres())
    width = this.options.get("width") or least_distance(this.pool.labelled_embedding_MD)
    weight_N = pool_weights(this.pool, this.options["temperature"]) if "temperature" in this.options else 1.0
    near_N = np.zeros(len(x_ND))
    if len(centre_MD):
        near_N = np.exp(-nearest(x_ND, centre_MD, 1).distance_QK[:, 0].astype(np.float64) / width**2)
    for row in this.rows:
        kernel_N = np.exp(-np.maximum(2 - 2 * (x_ND @ x_ND[row]).astype(np.float64), 0) / width**2)
        score_N = np.full(len(x_ND), np.nan)
        score_N[row] = np.mean(weight_N * np.maximum(kernel_N - near_N, 0))
        yield score_N
        near_N = np.maximum(near_N, kernel_N)


MEASURES: dict[str, Measure] = {
    **{name: Measure(_uncertainty(name), "less sure than") for name in UNCERTAINTIES},
    "density": Measure(_unchanged(_density), "less sure and more typical than"),
    "typicality": Measure(_unchanged(_typicality), "more typical than"),
    "distance": Measure(
        lambda this: _apart(this.pool.need("embedding_ND"), this.pool.labelled_centres(), this.rows),
        "farther from what was labelled than",
    ),
    "rating distance": Measure(
        lambda this: _apart(this.pool.need("value_NK"), this.pool.labelled_values(), this.rows),
        "rated farther from what was labelled than",
    ),
    "coverage": Measure(_coverage, "covers more than"),
    "gradient": Measure(_unchanged(lambda this: gradient_lengths(this.pool)), "would change the model more than"),
    "disagreement": Measure(
        _unchanged(lambda this: share_of_changes(this.pool, this.options["passes"])), "passes disagree more than on"
    ),
    "variance": Measure(
        _unchanged(lambda this: variances(this.pool, Posterior.of(this.parts, this.options["noise"]))),
        "less certain than",
    ),
}
"""Measures by name. A new one is a function and a line; strategies name theirs in `goes_by`."""
OTHERS = {CHANCE: "by chance", DOUBT: "its label is doubted more than", "emcm": "would change the model more than"}
"""Words of measures that are no entry of the table."""


def in_words(measure: str, score: float | None, share: float | None) -> str:
    """A reason as it is read: `margin 0.02, less sure than 99 %`."""
    words = MEASURES[measure].words if measure in MEASURES else OTHERS.get(measure, "before")
    if score is None or score != score:
        return words
    number = f"{measure} {abs(score):.2g}"
    return number if share is None or share != share else f"{number}, {words} {_percent(share)}"


def _percent(share: float) -> str:
    """A share of the candidates; all but a few are not called all."""
    return "all others" if share == 1 else f"{min(100 * share, 99.9):.{0 if share < 0.99 else 1}f} %"
