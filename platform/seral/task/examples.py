"""Examples for training and scoring: utterances as ids and pooled features, never labels and features in one record."""

# N rows · L hidden states · D features · E text features · C classes · K rated dimensions
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.fitting import PooledRows
from ser_models.moments import PooledMoments
from seral.features.index import ShardIndex
from seral.features.speakers import SpeakerShifts
from seral.features.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class Utterances:
    """Ids and the pooled features of every hidden state, mean and std (N, L, D), fp32 or fp16 as they are kept."""

    ids: list[str]
    mean_NLD: NDArray[np.floating]
    std_NLD: NDArray[np.floating]
    text_NE: NDArray[np.floating] | None = None
    """Vectors of the transcripts, NaN where there is none; None where nobody reads."""

    @staticmethod
    def of(store: FeatureStore, index: ShardIndex, ids: Sequence[str]) -> Utterances:
        """Pooled features of some utterances, in the order asked for, read from storage, in half precision."""
        mean_NLD, std_NLD, text_NE = store.read(index, ids)
        text_NE = None if text_NE is None else text_NE.astype(np.float32)
        return Utterances(ids=list(ids), mean_NLD=mean_NLD, std_NLD=std_NLD, text_NE=text_NE)

    def rows(self, keep_N: NDArray[np.bool_]) -> Utterances:
        """Chosen rows, in their order."""
        ids = [name for name, keep in zip(self.ids, keep_N, strict=True) if keep]
        text_NE = None if self.text_NE is None else self.text_NE[keep_N]
        return Utterances(ids=ids, mean_NLD=self.mean_NLD[keep_N], std_NLD=self.std_NLD[keep_N], text_NE=text_NE)

    def less(self, shifts: SpeakerShifts) -> Utterances:
        """The utterances less the shifts of their speakers."""
        mean_NLD, std_NLD = shifts.centred(self.ids, self.mean_NLD, self.std_NLD)
        return replace(self, mean_NLD=mean_NLD, std_NLD=std_NLD)

    def means(self, state: int) -> NDArray[np.float32]:
        """Means over time of one hidden state, (N, D), in single precision."""
        return self.mean_NLD[:, state].astype(np.float32)

    def with_others(self, others: Utterances) -> Utterances:
        """Own rows first, then the other utterances that are not among them."""
        new = others.rows(np.array([name not in self.row_of for name in others.ids], dtype=bool))
        if not new.ids:
            return self
        parts = (self, new)
        text = [part.text_NE for part in parts if part.text_NE is not None]
        return Utterances(
            ids=[*self.ids, *new.ids],
            mean_NLD=np.concatenate([part.mean_NLD for part in parts]),
            std_NLD=np.concatenate([part.std_NLD for part in parts]),
            text_NE=np.concatenate(text) if text else None,
        )

    def texts(self, rows: Sequence[int] | slice | NDArray[np.bool_]) -> Tensor | None:
        """The transcripts' vectors of some rows as a tensor, if there are any."""
        return None if self.text_NE is None else torch.from_numpy(self.text_NE[rows])

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row of each id."""
        return {name: row for row, name in enumerate(self.ids)}


SOME = 2000
"""Unlabelled clips, at most, whose features themselves are needed beside the moments of all."""


@dataclass(frozen=True, kw_only=True)
class Unlabelled:
    """Speech without its labels."""

    moments: PooledMoments
    """Of all clips."""
    read: Callable[[], Utterances]
    """Reads the features of SOME of them."""

    @cached_property
    def some(self) -> Utterances:
        """Up to SOME of the clips: what covariances and recomputed statistics are made of."""
        return self.read()

    @staticmethod
    def of(units: Utterances) -> Unlabelled:
        """Clips that are all in memory."""
        rows = pooled_rows(units)
        return Unlabelled(moments=PooledMoments.of(rows.mean_NLD, rows.std_NLD, rows.text_NE), read=lambda: units)


def some_of(ids: Sequence[str]) -> list[str]:
    """SOME of the ids, evenly drawn and in their order; all where there are no more."""
    if len(ids) <= SOME:
        return list(ids)
    rows = np.random.default_rng(len(ids)).choice(len(ids), SOME, replace=False)
    return [ids[row] for row in np.sort(rows).tolist()]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Labels of N utterances: of a class, rated on K dimensions, or both."""

    label_N: NDArray[np.int64]
    """Class indices; -1 where no class is known, or votes are tied."""
    value_NK: NDArray[np.float32]
    """Ratings on the corpus's own scale; NaN where there are none, K = 0 where nobody asks."""
    weight_N: NDArray[np.float32] | None = None
    """Weight of the class of each, 1 on average; None = all alike."""
    soft_NC: NDArray[np.float32] | None = None
    """Shares of the votes, `q_c = votes_c / Σ votes`, that training learns instead of the one class; NaN in rows that
    have a class and no votes, None = nobody voted. Models are judged by `label_N`, and beside it by the shares."""
    votes_N: NDArray[np.object_] | None = None
    """Votes of raters who are known by name (seral.labels.crowd), by which training makes shares of its own; None = it
    takes those that there are."""

    @staticmethod
    def of_classes(label_N: NDArray[np.int64]) -> Targets:
        """Classes and no ratings."""
        return Targets(label_N=label_N, value_NK=np.empty((len(label_N), 0), np.float32))

    @staticmethod
    def joined(parts: Sequence[Targets]) -> Targets:
        """Classes and shares of all parts, one after the other; no ratings."""
        soft = [part.soft_NC for part in parts if part.soft_NC is not None]
        width = soft[0].shape[1] if soft else 0
        shares = [
            np.full((len(part.label_N), width), np.nan, np.float32) if part.soft_NC is None else part.soft_NC
            for part in parts
        ]
        classes = Targets.of_classes(np.concatenate([part.label_N for part in parts]))
        return replace(classes, soft_NC=np.concatenate(shares) if soft else None)

    def rows(self, rows: Sequence[int]) -> Targets:
        """Labels of some rows, which may come again."""
        index = list(rows)
        return Targets(
            label_N=self.label_N[index],
            value_NK=self.value_NK[index],
            weight_N=None if self.weight_N is None else self.weight_N[index],
            soft_NC=None if self.soft_NC is None else self.soft_NC[index],
            votes_N=None if self.votes_N is None else self.votes_N[index],
        )

    def first(self, count: int) -> Targets:
        """Labels of the first rows."""
        return self.rows(range(count))

    @property
    def varies(self) -> bool:
        """Whether rated rows are two or more and differ in every dimension, so that values can be learnt."""
        value_NK = self.value_NK[self.rated_N]
        return len(value_NK) > 1 and bool((value_NK.min(0) < value_NK.max(0)).all())

    @property
    def decided(self) -> Targets:
        """The classes alone: no ratings, no shares of votes."""
        return Targets.of_classes(self.label_N)

    @property
    def labelled_N(self) -> NDArray[np.bool_]:
        """Rows that a class can be learnt from: they have one, or shares."""
        return self.decided_N if self.soft_NC is None else self.decided_N | np.isfinite(self.soft_NC).all(1)

    @property
    def decided_N(self) -> NDArray[np.bool_]:
        """Rows that have a class: no tie among raters."""
        return self.label_N >= 0

    @property
    def rated_N(self) -> NDArray[np.bool_]:
        """Rows that are rated on every dimension."""
        asked = self.value_NK.shape[1] > 0
        return np.asarray(np.isfinite(self.value_NK).all(1) & asked)


def pooled_rows(units: Utterances) -> PooledRows:
    """Utterances as the model library takes them, in single precision."""
    return PooledRows(
        mean_NLD=torch.from_numpy(units.mean_NLD).float(),
        std_NLD=torch.from_numpy(units.std_NLD).float(),
        text_NE=units.texts(slice(None)),
    )
