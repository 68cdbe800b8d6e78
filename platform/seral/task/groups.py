"""Clips that models were judged by, a group after another: of a speaker, a class, a fold, a corpus, a language."""

# N clips
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

GROUPINGS = {"speaker": "speaker", "fold": "fold", "corpus": "corpus", "language": "language", "sex": "gender"}
"""Heading of a table of groups -> the column of judged clips."""


def grouped(clips: pd.DataFrame, column: str) -> Iterator[tuple[Any, NDArray[np.bool_], int]]:
    """Values of a column in order, the rows of each, (N,), and how many speakers these are of. `clips` has a column
    `speaker`; a missing value is no group."""
    code_N, values = pd.factorize(clips[column], sort=True)
    for code, value in enumerate(values):
        own_N = code_N == code
        yield value, own_N, int(clips["speaker"][own_N].nunique())
