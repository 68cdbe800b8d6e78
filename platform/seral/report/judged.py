"""Clips that models were judged by: truth, prediction and metadata of dev and test clips at every last round."""

# C classes
from __future__ import annotations

from contextlib import closing

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.loop.annotators import ANNOTATORS
from seral.loop.options import LoopOptions
from seral.pool.shards import Pool
from seral.report.records import RunRecords
from seral.schema import KEYS
from seral.task.run import read_options

TRAITS = ["speaker", "corpus", "language", "gender"]
"""Columns of metadata that may go with how well a clip is told."""


def judged_clips(records: RunRecords, pool: Pool, metadata: pa.Table, part: str | None = None) -> pd.DataFrame:
    """One row a trajectory and clip of its last round: arm, fold, seed, utterance_id, truth, predicted, confidence,
    p_* of each class, and TRAITS; clips without a true class are left out.

    `part` is test or dev, None = the one that the run is judged by. Truth is what the annotator of the run said: gold
    labels, or people.
    """
    part, parts = part or records.part, []
    for (arm, fold, seed), folder in records.last_folders.items():
        uri = storage.join(folder, "predictions", f"{part}.parquet")
        if storage.exists(uri):
            frame = storage.read_table(uri).drop_columns("part").to_pandas()
            parts.append(frame.assign(arm=arm, fold=fold, seed=seed))
    if not parts or not records.classes:
        return pd.DataFrame(columns=[*KEYS, "utterance_id", "truth", "predicted", "confidence", *TRAITS])
    frame = pd.concat(parts, ignore_index=True)
    frame["truth"] = frame["utterance_id"].map(_truth(records, pool, frame["utterance_id"].unique().tolist()))
    frame["confidence"] = frame[[f"p_{name}" for name in records.classes]].max(axis=1)
    own = metadata.filter(pc.is_in(metadata["utterance_id"], pa.array(frame["utterance_id"].unique(), pa.string())))
    traits = own.select(["utterance_id", *TRAITS]).to_pandas().set_index("utterance_id")
    if metadata["corpus"].combine_chunks().unique().to_pylist()[1:]:  # names are unique within a corpus alone
        traits["speaker"] = traits["corpus"] + " " + traits["speaker"]
    frame = frame.join(traits.astype("category"), on="utterance_id")
    labelled: pd.DataFrame = frame[frame["truth"].notna()]
    return labelled.reset_index(drop=True)


def _truth(records: RunRecords, pool: Pool, ids: list[str]) -> dict[str, str | None]:
    """Class of each clip: what was answered in a round, or else what the annotator says of dev and test."""
    answers = records.answers[records.answers["answer"] == "label"].drop_duplicates("utterance_id", keep="last")
    emotion_of: dict[str, str | None] = dict(zip(answers["utterance_id"], answers["emotion"], strict=True))
    others = [name for name in ids if name not in emotion_of]
    if not others:
        return emotion_of
    options = read_options(LoopOptions, records.run, "loop")
    with closing(ANNOTATORS[options.annotator].open(options, pool)) as annotator:
        return emotion_of | dict(zip(others, annotator.emotions(others), strict=True))


def confusions(judged: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """Counts of true and predicted classes, seeds together: arm, fold (`all` too), truth, predicted, clips, share of
    the true class in per cent."""
    rows = []
    for (arm, fold), own in [
        *(((arm, "all"), own) for arm, own in judged.groupby("arm", sort=True)),
        *(((arm, str(fold)), own) for (arm, fold), own in judged.groupby(["arm", "fold"], sort=True)),
    ]:
        count = pd.crosstab(own["truth"], own["predicted"]).reindex(index=classes, columns=classes, fill_value=0)
        count_CC = count.to_numpy(np.int64)
        share_CC = 100 * count_CC / np.maximum(count_CC.sum(1, keepdims=True), 1)
        for (row, column), clips in np.ndenumerate(count_CC):
            facts = {"arm": arm, "fold": fold, "truth": classes[row], "predicted": classes[column]}
            rows.append(facts | {"clips": int(clips), "share": round(float(share_CC[row, column]), 1)})
    return pd.DataFrame(rows)
