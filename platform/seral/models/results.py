"""Expectations of a final model: what the models of its run said of speakers that they had not heard, with intervals.

The score over folds has the interval of a mean of folds, which are independent in their speakers. Everything else is by
groups of the clips that some fold was tested on, as in a report (seral.task.groups): means over seeds, with the
interval of leaving out one speaker at a time. Both are 95 % ones of Student's t (ser_models.intervals).
"""

# N rows (a clip as often as it was tested, by seeds) · G groups (speakers, folds) · C classes · K rated dimensions
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from ser_models.intervals import mean_interval
from ser_models.metrics import ccc_by_dimension, uar
from seral.labels.annotator import Annotator
from seral.models.fold_models import FoldModel
from seral.pool.ids import Ids, one_array, positions
from seral.pool.splits import Fold
from seral.task.groups import Score, grouped, mean_ccc, recalls

FEWEST = 3
"""Speakers below which a figure has no interval."""
GROUPS = ("corpus", "language", "gender", "speaker")
"""Columns of the metadata by which results are told apart."""
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Clips that fold models were tested on, a row for every model that was: the truth, and what the model says."""

    classes: tuple[str, ...]
    dimensions: tuple[str, ...]
    fold_N: NDArray[np.int64]
    seed_N: NDArray[np.int64]
    about: pd.DataFrame
    """GROUPS of each row, `unknown` where the pool does not say; speakers as corpus/speaker."""
    truth: NDArray[Any]
    """Classes (N,), or, where only ratings are learnt, these (N, K)."""
    predicted: NDArray[Any]
    share_NC: NDArray[np.float64]
    """Probabilities of the classes as the models gave them."""

    @staticmethod
    def of(
        models: Sequence[FoldModel],
        annotator: Annotator,
        metadata: pa.Table,
        classes: Sequence[str],
        dimensions: Sequence[str],
    ) -> Judged:
        """The test clips of some models that have a label, as the annotator gives it."""
        ids = sorted({name for model in models for name in model.outputs})
        present = set(annotator.evaluated(Fold(name="tested", train=Ids(), dev=Ids(), test=Ids(ids))).test)
        names = [name for name in ids if name in present]
        truth_of, row_of = _truth(annotator, names, classes), {name: row for row, name in enumerate(names)}
        judged = [(model, name) for model in models for name in model.outputs if name in row_of]
        rows = np.array([row_of[name] for _, name in judged], np.int64)
        outputs = np.array([model.outputs[name] for model, name in judged])
        tested_N = (truth_of >= 0) if classes else np.isfinite(truth_of).all(1)
        use_N = tested_N[rows]
        return Judged(
            classes=tuple(classes),
            dimensions=tuple(dimensions),
            fold_N=np.array([model.fold for model, _ in judged])[use_N],
            seed_N=np.array([model.seed for model, _ in judged])[use_N],
            about=_about(metadata, names).iloc[rows[use_N]].reset_index(drop=True),
            truth=truth_of[rows][use_N],
            predicted=(outputs[:, : len(classes)].argmax(1) if classes else outputs)[use_N],
            share_NC=outputs[use_N, : len(classes)].astype(np.float64),
        )

    @property
    def metric(self) -> str:
        """The score: uar, or where only ratings are learnt ccc."""
        return "uar" if self.classes else "ccc"

    def score(self, truth: NDArray[Any], predicted: NDArray[Any]) -> float:
        """UAR, or the mean CCC of the dimensions."""
        if self.classes:
            return uar(truth, predicted)
        return float(np.mean(list(ccc_by_dimension(truth, predicted, self.dimensions).values())))

    def expected(self) -> dict[str, Any]:
        """The score on unheard speakers: mean over folds with its interval, of one fold that over its speakers."""
        pairs = pd.DataFrame({"fold": self.fold_N, "seed": self.seed_N})
        cells = pairs.groupby(["fold", "seed"]).indices
        scores = pd.Series({key: self.score(self.truth[rows], self.predicted[rows]) for key, rows in cells.items()})
        value_G = scores.groupby(level=0).mean()
        if len(value_G) > 1:
            low, high, _ = mean_interval(value_G.to_numpy())
            facts = {"value": float(value_G.mean()), **self._bounds(low, high)}
        else:
            facts = self._of_rows("value", np.ones(len(self.truth), np.bool_))
        over = f"{len(value_G)} folds" if len(value_G) > 1 else f"{self.about['speaker'].nunique()} speakers"
        each = {str(fold): float(value) for fold, value in value_G.items()}
        return {"metric": self.metric, **facts, "over": over, "folds": each}

    def by_class(self) -> list[dict[str, Any]]:
        """Recall of every class that was tested, with its interval over speakers; nothing without classes."""
        if not self.classes:
            return []
        groups = grouped(self.about.assign(truth=self.truth), "truth")
        return [
            {"class": self.classes[code], **self._row("recall", own_N, speakers)} for code, own_N, speakers in groups
        ]

    def by(self, group: str) -> list[dict[str, Any]]:
        """The score within each corpus, language, gender or speaker, with its interval over speakers."""
        groups = grouped(self.about, group)
        return [{group: name, **self._row("value", own_N, speakers)} for name, own_N, speakers in groups]

    def _row(self, score: str, own_N: NDArray[np.bool_], speakers: int) -> dict[str, Any]:
        """The score of a group under its name, its interval, and how many clips and speakers it is of."""
        return self._of_rows(score, own_N) | {"clips": self._clips(int(own_N.sum())), "speakers": speakers}

    def _of_rows(self, score: str, own_N: NDArray[np.bool_]) -> dict[str, Any]:
        value, low, high = self._recall(own_N) if self.classes else self._concordance(own_N)
        few = self.about["speaker"][own_N].nunique() < FEWEST
        return {score: value, **(self._bounds(np.nan, np.nan) if few else self._bounds(low, high))}

    def _recall(self, own_N: NDArray[np.bool_]) -> Score:
        unit_N, _ = pd.factorize(self.about["speaker"][own_N], sort=True)
        return recalls(self.truth[own_N], self.predicted[own_N], self.seed_N[own_N], unit_N)["uar"]

    def _concordance(self, own_N: NDArray[np.bool_]) -> Score:
        columns = {"fold": self.fold_N, "seed": self.seed_N, "speaker": self.about["speaker"]}
        columns |= {f"true_{name}": self.truth[:, at] for at, name in enumerate(self.dimensions)}
        columns |= {f"predicted_{name}": self.predicted[:, at] for at, name in enumerate(self.dimensions)}
        return mean_ccc(pd.DataFrame(columns)[own_N], self.dimensions)

    def _bounds(self, low: Any, high: Any) -> dict[str, float | None]:
        """Ends of an interval, within what a recall (0 to 1) or a CCC (-1 to 1) can be; None where there is none."""
        if not (np.isfinite(low) and np.isfinite(high)):
            return {"low": None, "high": None}
        return {"low": max(float(low), 0.0 if self.classes else -1.0), "high": min(float(high), 1.0)}

    def _clips(self, rows: int) -> int:
        """Clips of so many rows: each was tested once by every seed."""
        return round(rows / max(1, len(np.unique(self.seed_N))))


def _truth(annotator: Annotator, ids: Sequence[str], classes: Sequence[str]) -> NDArray[Any]:
    """Classes (N,), -1 for a clip that is rated and no more, or without classes ratings (N, K)."""
    if not classes:
        return annotator.ratings(ids)
    code_of = {name: code for code, name in enumerate(classes)}
    return np.array([-1 if name is None else code_of[name] for name in annotator.emotions(ids)], np.int64)


def _about(metadata: pa.Table, ids: Sequence[str]) -> pd.DataFrame:
    """GROUPS of some utterances."""
    rows = metadata.take(positions(pa.array(Ids(ids)), one_array(metadata["utterance_id"])))
    frame: pd.DataFrame = rows.select(list(GROUPS)).to_pandas().fillna(UNKNOWN).astype(str)
    frame["speaker"] = frame["corpus"] + "/" + frame["speaker"]
    return frame
