"""An ensemble of ridge regressions on a model's embedding, from resampled labels: what ratings leave open."""

# N rows · M labelled rows · U embedding · K rated dimensions · R repeats (members)
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV

from seral.training.scoring import ROWS_IN_BATCH, Float

PENALTIES = np.logspace(-1, 4, 11)
"""Ridge penalties of which leave-one-out chooses, as for the linear probe."""


@dataclass(frozen=True)
class RidgeHeads:
    """R linear heads for ratings."""

    weight_RUK: Float
    bias_RK: Float

    def __call__(self, embedding_NU: NDArray[np.floating]) -> Float:
        """Ratings of each member, (N, U) -> (R, N, K); those of a row do not depend on the rows beside it."""
        value_RNK = np.empty((len(self.bias_RK), len(embedding_NU), self.bias_RK.shape[1]), np.float32)
        batch_BU = np.zeros((ROWS_IN_BATCH, embedding_NU.shape[1]), np.float32)
        for at in range(0, len(embedding_NU), ROWS_IN_BATCH):  # products of one shape, as in scoring
            rows_BU = embedding_NU[at : at + ROWS_IN_BATCH]
            batch_BU[: len(rows_BU)] = rows_BU
            value_RNK[:, at : at + len(rows_BU)] = (batch_BU @ self.weight_RUK)[:, : len(rows_BU)]
        return value_RNK + self.bias_RK[:, None]

    @staticmethod
    def fit(
        embedding_MU: NDArray[np.floating], value_MK: NDArray[np.floating], members: int, rng: np.random.Generator
    ) -> RidgeHeads:
        """Fit each member on M rows drawn with replacement; the penalty is chosen once, by leave-one-out on all."""
        alpha = RidgeCV(PENALTIES).fit(embedding_MU, value_MK).alpha_
        weights, biases = [], []
        for _ in range(members):
            count_M = np.bincount(rng.integers(len(value_MK), size=len(value_MK)), minlength=len(value_MK))
            head = Ridge(alpha).fit(embedding_MU, value_MK, sample_weight=count_M)
            weights.append(head.coef_.T)
            biases.append(head.intercept_)
        return RidgeHeads(np.array(weights, np.float32), np.array(biases, np.float32))
