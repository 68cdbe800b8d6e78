"""Shares of what was picked, for figures and charts alike: by round and class, by speaker and corpus, by noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from seral.figures.axes import GROUPS_SHOWN
from seral.schema import RANDOM

POOL = "pool"
"""Stands where an arm does, for the whole pool."""
NO_LABEL = "no label"
SNR_BINS = 20


def arms_in(frame: pd.DataFrame) -> list[str]:
    """The arms of a frame that choose: strategies first, then random."""
    return sorted(set(frame["arm"]) - {POOL}, key=lambda arm: (arm == RANDOM, arm))


def answer_shares(composed: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Answers of every round: arm, round, answer (a class, or no label), clips, share of round, at (rank)."""
    answer = composed["emotion"].astype(object).where(composed["answer"].eq("label"), NO_LABEL).rename("answer")
    shares = composed[["arm", "round"]].assign(answer=answer).value_counts(sort=False).rename("clips").reset_index()
    shares["share"] = shares["clips"] / shares.groupby(["arm", "round"])["clips"].transform("sum")
    return shares.assign(at=shares["answer"].map({name: at for at, name in enumerate([*classes, NO_LABEL])}))


def answers_in(shares: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """The classes in their order, and `no label` where there is any."""
    return [*classes, *([NO_LABEL] if NO_LABEL in set(shares["answer"]) else [])]


def group_shares(composed: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Shares of picks by speaker and by corpus: by, group, arm (or pool), share; the groups that the pool has most of,
    the largest first, and all others as one."""
    parts = []
    for by in ("speaker", "corpus"):
        share = pd.crosstab(composed[by].fillna("unknown"), composed["arm"], normalize="columns")
        counts = metadata[by].value_counts(dropna=False)
        counts.index = counts.index.astype(object).fillna("unknown")
        share = share.join((counts / len(metadata)).rename(POOL), how="outer").fillna(0.0).sort_index()
        top = share[POOL].sort_values(ascending=False, kind="stable").index[:GROUPS_SHOWN]
        shown = share.loc[top]
        if len(share) > len(top):
            others = share.drop(top).sum().rename(f"{len(share) - len(top)} others")
            shown = pd.concat([shown, others.to_frame().T])
        shown.insert(0, "group", shown.index.astype(str))
        parts.append(shown.melt("group", var_name="arm", value_name="share").assign(by=by))
    return pd.concat(parts, ignore_index=True)


def snr_shares(composed: pd.DataFrame, metadata: pd.DataFrame) -> pd.DataFrame:
    """Shares of utterances by signal-to-noise ratio: arm (or pool), low and high (ends of a bin, dB), share.

    Empty where none was measured.
    """
    pool = metadata["snr_db"].dropna().to_numpy(dtype=np.float64)
    if not len(pool):
        return pd.DataFrame(columns=["arm", "low", "high", "share"])
    edges = np.histogram_bin_edges(pool, bins=SNR_BINS)
    values = {POOL: pool} | {arm: composed.loc[composed["arm"] == arm, "snr_db"].dropna() for arm in arms_in(composed)}
    parts = [
        pd.DataFrame({"low": edges[:-1], "high": edges[1:], "share": np.histogram(snr, edges)[0] / max(1, len(snr))})
        for snr in values.values()
    ]
    return pd.concat([part.assign(arm=arm) for arm, part in zip(values, parts, strict=True)], ignore_index=True)
