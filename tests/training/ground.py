"""A pool with features and one fold, and trainings on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from seral.cluster import ClusterOptions
from seral.features.audio import extract_features
from seral.features.batches import rows_of
from seral.features.store import FeatureStore
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pool.split_options import SplitOptions
from seral.pool.splits import Fold, make_folds
from seral.task.examples import Targets, Unlabelled, Utterances
from seral.task.gold import Oracle
from seral.training.data import Labelled, TrainingData
from seral.training.finetune import Start, finetune
from seral.training.finetune_options import FinetuneOptions

CLASSES = ("anger", "happiness", "neutral", "sadness")


class Ground:
    """A pool with features and one fold, and a training on it."""

    def __init__(self, pool: str) -> None:
        opened = open_pool(pool)
        self.store: FeatureStore = extract_features(opened, "seral-tiny", frames_layer=3)
        self.ids, self.mean_NLD, self.std_NLD = self.store.pooled()
        self.oracle = Oracle(opened, CLASSES)
        keep = [name in set(self.oracle.answerable) for name in opened.metadata["utterance_id"].to_pylist()]
        self.fold: Fold = make_folds(opened.metadata.filter(keep), SplitOptions(scheme="k-fold", k=3))[0]

    def units(self, ids: Any) -> Utterances:
        rows = rows_of(self.ids, ids)
        mean_NLD, std_NLD = (array[rows].astype(np.float32) for array in (self.mean_NLD, self.std_NLD))
        return Utterances(ids=list(ids), mean_NLD=mean_NLD, std_NLD=std_NLD)

    def labels(self, ids: Any) -> Any:
        return np.array([CLASSES.index(emotion) for emotion in self.oracle.emotions(list(ids))])

    def targets(self, ids: Any, rated: bool) -> Targets:
        label_N = self.labels(ids)
        value_NK = label_N[:, None].astype(np.float32) % 2 if rated else np.empty((len(label_N), 0), np.float32)
        return Targets(label_N=label_N, value_NK=value_NK)

    def train(
        self,
        folder: Path,
        values: dict[str, Any],
        start: str | None = None,
        freeze: Any = (),
        soft: Callable[[Any], Any] = lambda label_N: None,
        judged: bool = True,
        rated: bool = False,
        **cluster: Any,
    ) -> dict[str, Any]:
        labelled, dev = self.fold.train[::2], self.fold.dev if judged else ()
        label_N = self.labels(labelled)
        data = TrainingData(
            train=Labelled(self.units(labelled), replace(self.targets(labelled, rated), soft_NC=soft(label_N))),
            dev=Labelled(self.units(dev), self.targets(dev, rated)),
            dimensions=("arousal",) if rated else (),
            unlabelled=Unlabelled.of(self.units(self.fold.train)),
            store=self.store,
            classes=CLASSES,
        )
        return finetune(
            data,
            parse(FinetuneOptions, values),
            str(folder),
            seed=1,
            on=ClusterOptions(**cluster),
            start=None if start is None else Start(model=start, freeze=freeze),
        )
