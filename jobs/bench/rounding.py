"""Picks that two devices have in common: features rounded in another way, and scores compared on coarser grids.

    python -m jobs.bench.rounding pool=POOL encoder=ENCODER

One side has features in single precision. The other has them by a network in bf16, or with the noise that two devices
in single precision differ by. Both fit a probe to the same random labels, and a strategy picks by each.
"""

# N clips · M labelled clips · D features · C classes
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from seral.cluster import ClusterOptions, connect
from seral.features.audio import extract_features
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.pool.shards import Pool, open_pool
from seral.selection.candidates import Candidates
from seral.selection.selection import StrategyOptions, select
from seral.task.gold import Oracle

Floats = NDArray[np.float32]


class RoundingOptions(Options):
    """Options of the comparison of roundings."""

    pool: str
    """A labelled pool."""
    encoder: str
    classes: list[str] = Field(default=["anger", "happiness", "neutral", "sadness"], min_length=2)
    strategies: list[str] = Field(
        default=["entropy", "margin", "k_center", "badge", "cluster_margin", "k_means_plus_plus", "typiclust", "after"]
    )
    labels: list[int] = Field(default=[16, 48, 128], min_length=1)
    """Sizes of the labelled part."""
    count: int = Field(default=16, ge=1)
    """Clips that are picked."""
    draws: int = Field(default=5, ge=1)
    """Random labelled parts of each size."""
    noise: float = Field(default=1e-6, ge=0)
    """Relative noise of a feature between two devices in single precision."""
    grids: list[float] = Field(default=[0, 2**-10, 2**-7, 2**-5, 2**-3])
    """Steps that probabilities and vectors are rounded to before anything is compared; 0 = none."""


def run_rounding(options: RoundingOptions) -> str:
    """Shares of the picks in common, by strategy and grid, for both kinds of noise."""
    pool = open_pool(options.pool)
    connect(ClusterOptions())
    oracle = Oracle(pool, options.classes)
    ids, single_ND = _vectors(pool, options.encoder, "fp32", oracle)
    _, half_ND = _vectors(pool, options.encoder, "bf16", oracle)
    noise_ND = 1 + options.noise * np.random.default_rng(0).standard_normal(single_ND.shape, np.float32)
    label_N = oracle.targets(ids.tolist()).label_N
    tables = []
    for name, other_ND in (("features in bf16", half_ND), (f"noise of {options.noise:g}", single_ND * noise_ND)):
        shares = pd.DataFrame(_shares(ids, label_N, single_ND, other_ND, options))
        mean = shares.pivot_table("share", "strategy", "grid", sort=False).reset_index()
        tables.append(f"{name}\n\n{markdown(mean)}")
    return "\n\n".join(tables)


def _vectors(pool: Pool, encoder: str, precision: str, oracle: Oracle) -> tuple[NDArray[np.str_], Floats]:
    """Ids of the clips with a label, and the middle state's means (N, D), standardised."""
    store = extract_features(pool, encoder, on=ClusterOptions(precision=precision))
    ids, mean_NLD, _ = store.pooled()
    keep_N = oracle.answers(ids)
    vector_ND = mean_NLD[keep_N, (store.num_layers + 1) // 2].astype(np.float32)
    return np.array(ids)[keep_N], StandardScaler().fit_transform(vector_ND).astype(np.float32)


def _shares(
    ids: NDArray[np.str_], label_N: NDArray[np.int64], one_ND: Floats, other_ND: Floats, options: RoundingOptions
) -> Iterator[dict[str, Any]]:
    for draw in range(options.draws):
        for size in options.labels:
            order = np.random.default_rng([draw, size]).permutation(len(ids))
            rows_M, rows_N = order[:size], np.sort(order[size:])
            probes = [LogisticRegression(max_iter=2000).fit(x[rows_M], label_N[rows_M]) for x in (one_ND, other_ND)]
            for grid in options.grids:
                sides = [
                    _candidates(ids, x_ND, probe.predict_proba(x_ND[rows_N]), rows_M, rows_N, grid)
                    for x_ND, probe in zip((one_ND, other_ND), probes, strict=True)
                ]
                for name, picks in _picks(sides, draw, options).items():
                    yield {"strategy": name, "grid": f"{grid:.4f}", "share": len(picks[0] & picks[1]) / options.count}


def _candidates(
    ids: NDArray[np.str_],
    x_ND: Floats,
    probability_NC: NDArray[np.float64],
    rows_M: NDArray[np.int64],
    rows_N: NDArray[np.int64],
    grid: float,
) -> Candidates:
    if grid:
        x_ND = np.round(x_ND / grid).astype(np.float32) * np.float32(grid)
        probability_NC = np.round(probability_NC / grid) * grid + 1e-9
    return Candidates(
        ids=ids[rows_N],
        embedding_ND=x_ND[rows_N],
        probability_NC=(probability_NC / probability_NC.sum(1, keepdims=True)).astype(np.float32),
        labelled_ids=ids[rows_M],
        labelled_embedding_MD=x_ND[rows_M],
    )


def _picks(sides: list[Candidates], draw: int, options: RoundingOptions) -> Mapping[str, tuple[set[str], set[str]]]:
    picks = {}
    for name in options.strategies:
        rngs = (np.random.default_rng(draw) for _ in sides)
        one, other = (
            set(select(StrategyOptions(name=name), s, options.count, r)) for s, r in zip(sides, rngs, strict=True)
        )
        picks[name] = (one, other)
    return picks


if __name__ == "__main__":
    run_job(RoundingOptions, run_rounding, __doc__)
