"""A shard in, a shard out: actors of Ray Data that each hold one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray

from seral import storage
from seral.cluster import ClusterOptions, connect, encoder_actors
from seral.pool.shards import Pool
from seral.progress import track


def map_shards(
    pool: Pool,
    shards: Sequence[str],
    actor: type[Any],
    arguments: dict[str, Any],
    on: ClusterOptions,
    label: str,
    *,
    into: str,
) -> None:
    """Give every shard to one of a few actors, {"shard": name} -> {"rows": count}, as many as there are encoders.

    They write below the folder `into`, which is tidied at the end: an actor may have been lost with its node.
    """
    connect(on)
    actors = min(encoder_actors(on), len(shards))
    rows = pool.manifest["shards"]
    progress_rows = ray.data.from_items([{"shard": shard} for shard in shards], override_num_blocks=len(shards)).map(
        actor,
        fn_constructor_kwargs=arguments,
        compute=ray.data.ActorPoolStrategy(min_size=actors, max_size=actors),
        num_cpus=1,
        num_gpus=1 if on.use_gpu else 0,
    )
    with track(
        f"{label} by {actors} process{'es' if actors > 1 else ''}", sum(rows[s]["rows"] for s in shards)
    ) as advance:
        for row in progress_rows.iter_rows():
            advance(row["rows"])
    storage.tidy(into)
