"""The seam between the loop and whoever gives labels: people, or the gold labels of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral.labels.crowd import Votes
from seral.pool.splits import Fold


@runtime_checkable
class Annotator(Protocol):
    """Whoever gives a run its labels. All of its answers come through these methods, a round at a time."""

    name: str
    """The column `annotator` of the labels."""

    def close(self) -> None:
        """Let go of what answers are read from."""

    def ask_evaluation(self, fold: Fold, seed: int) -> None:
        """Ask for labels of the dev and test parts, before anything else is asked."""

    def evaluated(self, fold: Fold) -> Fold:
        """The fold with those clips of dev and test that have a label. Raises AwaitingLabels until they have."""

    def emotions(self, ids: Sequence[str]) -> list[str | None]:
        """The emotion of each clip of the evaluation; None where a clip is rated and no more.

        Raises LabelError for one without a label.
        """

    def ratings(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Ratings of clips of the evaluation, (N, K), NaN where there are none; K = 0 where none are asked for."""

    def shares(self, ids: Sequence[str]) -> NDArray[np.float32] | None:
        """Shares of raters' votes on clips of the evaluation, (N, C), NaN where nobody voted; None without votes."""

    def votes(self, ids: Sequence[str]) -> Votes | None:
        """Votes of named raters on labelled clips, where training is to learn them (seral.labels.crowd), else None."""

    def asked(self, batch: str) -> list[str]:
        """The ids that were asked about under the name of a batch before; [] = none."""

    def ask(self, batch: str, new: Sequence[str], again: Sequence[str], round_number: int) -> list[str]:
        """Ask about new clips, and once more about labelled ones; returns the ids that were asked about.

        Raises AwaitingLabels until enough is answered.
        """

    def labels(self, ids: Sequence[str], round_number: int) -> pa.Table:
        """The labels of clips by all answers so far, a row a clip; those without an answer have none.

        schema.LABEL, or with dimensions schema.label_schema.

        An id stands there as often as it was asked about.
        """
