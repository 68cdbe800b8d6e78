"""Similarity of the layers of an encoder between languages or corpora, pair by pair, as a table and a heat map.

RUN/similarity.csv    measure, source, target, layer, similarity
RUN/similarity.md     the table that is printed
RUN/similarity.png    one panel a measure, a row for each pair, a column for each hidden state
"""

# N, M clips of two groups · L hidden states (encoder layers + 1) · D features
from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ser_models.fitting import PooledSet, fit_head, predict_pooled
from ser_models.similarity import SIMILARITIES, layer_similarity
from seral import storage
from seral.cluster import connect
from seral.errors import OptionError
from seral.features.audio import extract_features
from seral.features.batches import rows_of
from seral.pool.shards import Pool, open_pool
from seral.progress import say
from seral.studies.layer_options import SimilarityOptions
from seral.task.cells import write_table
from seral.task.gold import Oracle
from seral.task.run import claim

MAY_CHANGE = {"run", "cluster", "feature_cache"}


Group = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Pooled means and standard deviations (N, L, D) and classes (N,), -1 where none is known."""


def compare_layers(options: SimilarityOptions) -> str:
    """Compute all similarities and write them; returns them as Markdown, a column for each hidden state."""
    pool = open_pool(options.pool)
    members = _members(options, pool)
    options = options.model_copy(update={"run": storage.absolute(options.run)})
    claim(options, "similarity", MAY_CHANGE, pool=pool)
    connect(options.cluster)
    groups = _groups(options, pool, members)
    rows: list[dict[str, Any]] = []
    for measure in options.measures:
        # Emotions are told by a probe of the source, which makes a difference to the direction.
        pairs = permutations if measure in options.of_labels and options.labels == "pseudo" else combinations
        for source, target in pairs(groups, 2):
            similarity_L = _similarity(measure, groups[source], groups[target], options)
            rows += [
                {"measure": measure, "source": source, "target": target, "layer": layer, "similarity": value}
                for layer, value in enumerate(similarity_L)
            ]
    return _write(options, pd.DataFrame(rows))


def _members(options: SimilarityOptions, pool: Pool) -> dict[str, list[str]]:
    """Ids of every language or corpus, drawn at random where there are too many; without duplicates."""
    table = pool.metadata
    columns = (table[name].to_pylist() for name in ("utterance_id", options.by, "duplicate_of"))
    members: dict[str, list[str]] = {}
    for name, group, duplicate_of in zip(*columns, strict=True):
        if group is not None and duplicate_of is None:
            members.setdefault(group, []).append(name)
    if unknown := sorted(set(options.groups or ()) - set(members)):
        raise OptionError(f"no {options.by} {unknown[0]!r} in {pool.uri}; it has {', '.join(sorted(members))}")
    members = {group: sorted(members[group]) for group in options.groups or sorted(members)}
    if len(members) < 2:
        raise OptionError(f"{pool.uri} has one {options.by} only, {', '.join(members)}: there is nothing to compare")
    return members


def _groups(options: SimilarityOptions, pool: Pool, members: Mapping[str, list[str]]) -> dict[str, Group]:
    store = extract_features(
        pool, options.encoder, uri=options.feature_cache, options=options.features, on=options.cluster
    )
    ids, mean_NLD, std_NLD = store.pooled()
    with_features = set(ids)
    oracle = Oracle(pool, options.classes) if options.of_labels else None
    groups: dict[str, Group] = {}
    for number, (group, names) in enumerate(members.items()):
        usable = [name for name in names if name in with_features]
        order = np.random.default_rng([options.seed, number]).permutation(len(usable))[: options.max_clips]
        chosen = [usable[row] for row in sorted(order)]
        rows = rows_of(ids, chosen)
        label_N = np.full(len(chosen), -1) if oracle is None else oracle.targets(chosen).label_N
        mean, std = (torch.from_numpy(part[rows].astype(np.float32)) for part in (mean_NLD, std_NLD))
        groups[group] = (mean, std, torch.from_numpy(label_N))
        say(f"{options.by} {group}: {len(chosen)} of {len(names)} clips")
    return groups


def _similarity(measure: str, source: Group, target: Group, options: SimilarityOptions) -> NDArray[np.float64]:
    if not SIMILARITIES[measure].of_labels:
        return layer_similarity(measure, source[0], target[0])
    source = _labelled(source)
    target = _labelled(target) if options.labels == "gold" else _pseudo_labelled(source, target, options)
    return layer_similarity(measure, source[0], target[0], source_label_N=source[2], target_label_M=target[2])


def _labelled(group: Group) -> Group:
    mean_NLD, std_NLD, label_N = group
    labelled_N = label_N >= 0
    return mean_NLD[labelled_N], std_NLD[labelled_N], label_N[labelled_N]


def _pseudo_labelled(source: Group, target: Group, options: SimilarityOptions) -> Group:
    """The target with the classes that a probe of the source predicts."""
    mean_NLD, std_NLD, label_N = source
    fitted = fit_head(PooledSet(mean_NLD=mean_NLD, std_NLD=std_NLD, label_N=label_N), len(options.classes))
    return target[0], target[1], predict_pooled(fitted, target[0], target[1]).argmax(1)


def _write(options: SimilarityOptions, table: pd.DataFrame) -> str:
    # Imported here: drawing takes a second to load.
    from seral.figures.studies import layer_similarity as figure

    pairs = ["measure", "source", "target"]
    wide = table.set_index([*pairs, "layer"])["similarity"].unstack("layer")
    wide = wide.reindex(list(table[pairs].drop_duplicates().itertuples(index=False, name=None)))
    shown = wide.rename(columns=str).reset_index()
    return write_table(options.run, table, "similarity", shown=shown, figure=figure(wide))
