"""The map of a pool: a projection of the encoder's features of its clips onto a plane, by t-SNE."""

# N clips · L hidden states · D features
from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure
from numpy.typing import NDArray

from seral import storage
from seral.errors import FeatureError
from seral.features.store import FeatureStore
from seral.figures.axes import INK, PALETTE, tidy
from seral.loop.options import LoopOptions
from seral.pool.shards import Pool
from seral.report.records import RunRecords
from seral.task.run import OF_ROUNDS, read_options
from seral.vectors.stable_keys import hash_keys

FEWEST = 4
"""Clips that a map needs."""
OF_PICKS = ["utterance_id", "round", "answer", "why"]
"""Columns of picks that a map reads."""
PERPLEXITY = 30.0
COMPONENTS = 50
NAMED = 9
"""Speakers, corpora or languages that have a colour of their own; the other ones share one."""
KEY = "map of the pool."
QUALITY = ["worst quarter", "second quarter", "third quarter", "best quarter"]
NEVER = "not asked"


def draw_clips(metadata: pa.Table, first: list[str], count: int) -> list[str]:
    """Ids of at most `count` clips, duplicates aside: `first`, then others drawn by stable keys."""
    id_N = metadata["utterance_id"].to_numpy(zero_copy_only=False)
    others = id_N[~np.isin(id_N, first)]
    drawn = others[np.argsort(hash_keys(others, KEY), kind="stable")]
    return [*dict.fromkeys(first), *drawn.tolist()][:count]


def open_store(records: RunRecords, pool: Pool, fold: int) -> FeatureStore | None:
    """The features that the models of a fold read, as far as they are still there."""
    options = read_options(LoopOptions, records.run, *OF_ROUNDS)
    fingerprint = records.environment.get("encoder_fingerprint", {}).get(str(fold))
    uri = storage.absolute(options.feature_cache or storage.join(pool.uri, "features"))
    described = storage.join(uri, str(fingerprint), "encoder.json")
    if fingerprint is None or not storage.exists(described):
        return None
    facts: dict[str, Any] = storage.read_json(described)
    store = FeatureStore(
        uri=uri,
        pool=pool,
        encoder=facts["encoder"],
        fingerprint=fingerprint,
        num_layers=facts["num_layers"],
        width=facts["width"],
        shards=tuple(pool.shards_of(options.corpora_read)),
    )
    return store if all(storage.exists(store.table_uri("pooled", shard)) for shard in store.shards) else None


def project(store: FeatureStore, ids: list[str]) -> pd.DataFrame:
    """Places of clips on a plane: utterance_id, x, y, for those that have features.

    Means over time of all hidden states, standardised, their first 50 principal components, then t-SNE (van der Maaten
    and Hinton 2008) from the first two, perplexity 30. Equal features give equal places.
    """
    from sklearn.decomposition import PCA  # late: it takes a second to import
    from sklearn.manifold import TSNE

    index = store.index()
    ids = [name for name, at in zip(ids, index.positions(ids).tolist(), strict=True) if at >= 0]
    if len(ids) < FEWEST:
        raise FeatureError(f"a map needs {FEWEST} clips with features, and there are {len(ids)}: set map_points to 0")
    x_ND: NDArray[np.float32] = store.read(index, ids)[0].astype(np.float32).reshape(len(ids), -1)
    x_ND = (x_ND - x_ND.mean(0)) / (x_ND.std(0) + 1e-6)
    x_ND = PCA(min(COMPONENTS, *x_ND.shape), svd_solver="full", random_state=0).fit_transform(x_ND)
    perplexity = min(PERPLEXITY, (len(ids) - 1) / 3)
    plane_N2 = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(x_ND)
    return pd.DataFrame({"utterance_id": ids, "x": plane_N2[:, 0], "y": plane_N2[:, 1]})


def described(places: pd.DataFrame, metadata: pa.Table, picks: pd.DataFrame, predicted: pd.Series) -> pd.DataFrame:
    """Places with words to colour them by: predicted, answer, round, speaker, corpus, language, quality; and `why`.

    `picks` are those of one trajectory with `answer` and `why`; `predicted` is its last prediction of a clip.
    """
    frame = places.join(picks.set_index("utterance_id")[["round", "answer", "why"]], on="utterance_id")
    frame["round"] = frame["round"].map(lambda number: NEVER if pd.isna(number) else f"round {number:.0f}")
    frame["answer"], frame["why"] = frame["answer"].fillna(NEVER), frame["why"].fillna("–")
    frame["predicted"] = frame["utterance_id"].map(predicted).fillna("not scored")
    columns = metadata.select(["utterance_id", "speaker", "corpus", "language", "quality"]).to_pandas()
    frame = frame.join(columns.set_index("utterance_id"), on="utterance_id")
    for name in ("speaker", "corpus", "language"):
        words = frame[name].astype(object).where(frame[name].notna(), "unknown")
        frequent = words.value_counts().index[:NAMED]
        frame[name] = words.where(words.isin(frequent), "others")
    if frame["quality"].notna().any():
        quarter = np.ceil(4 * frame["quality"].rank(method="first") / frame["quality"].count()) - 1
        frame["quality"] = [f"{at:.0f}" if pd.isna(at) else QUALITY[int(at)] for at in quarter]
        frame["quality"] = frame["quality"].replace("nan", "not measured")
    else:
        frame["quality"] = "not measured"
    return frame


def map_figure(points: pd.DataFrame, column: str = "predicted") -> Figure:
    """Scatter of the places, coloured by a column of words."""
    figure = Figure(figsize=(7.2, 5.4), layout="constrained")
    axes = tidy(figure.subplots(), "", "")
    for at, (word, own) in enumerate(points.groupby(column, sort=True)):
        look: dict[str, Any] = {"color": PALETTE[at % len(PALETTE)], "marker": "osDv^*<>"[at % 8]}
        axes.scatter(own["x"], own["y"], s=10, linewidths=0, label=str(word), **look)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), labelcolor=INK)
    return figure
