"""A shard in, a shard out: processes of Ray Data that each hold one model."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Timer
from typing import Any
from uuid import uuid4

import ray

from seral import storage
from seral.cluster import ClusterOptions, connect, encoder_actors
from seral.pool.shards import Pool
from seral.progress import track

IDLE_S = 10.0
"""A process that is also there for other work lets its encoder go after so long without a shard."""


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
    """Give every shard to one of a few processes, {"shard": name} -> {"rows": count}, as many as there are encoders.

    They write below the folder `into`, which is tidied at the end: a process may have been lost with its node. On a GPU
    each is an actor, whose memory is free when all is done. On CPUs shards go to whatever processes Ray has: those that
    worked before, or will work next, have torch imported already, and that takes longer than a small pool.
    """
    connect(on)
    count = min(encoder_actors(on), len(shards))
    rows = pool.manifest["shards"]
    items = [{"shard": shard} for shard in shards]
    whole = {"actor": actor, "arguments": arguments, "pool": pool, "into": into}
    dataset = _on_processes(items, _OfPool, whole, on, count)
    title = f"{label} by {count} process{'es' if count > 1 else ''}"
    with track(title, sum(rows[shard]["rows"] for shard in shards)) as advance:
        for row in dataset.iter_rows():
            advance(row["rows"])
    storage.tidy(into)


class _OfPool:
    """An actor whose files go again where something was erased from the pool meanwhile."""

    def __init__(self, actor: type[Any], arguments: dict[str, Any], pool: Pool, into: str) -> None:
        self.call, self.pool, self.into = actor(**arguments), pool, into

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        with self.pool.publishing(lambda: self._files(row["shard"])):
            answer: dict[str, Any] = self.call(row)
        return answer

    def _files(self, shard: str) -> list[str]:
        names = [name for name in storage.list_files(self.into) if name.rpartition("/")[2] == f"{shard}.parquet"]
        return [storage.join(self.into, name) for name in names]


def each_item(
    items: Sequence[dict[str, Any]],
    actor: type[Any],
    arguments: dict[str, Any],
    on: ClusterOptions,
    processes: int,
    label: str | None = None,
) -> list[dict[str, Any]]:
    """Give every item to one of so many processes; the answers in the order of the items.

    One process is this one. With a label progress is shown, in items.
    """
    with track(label, len(items)) as advance:
        answers = list[dict[str, Any]]()
        if processes == 1:
            call = actor(**arguments)
            for item in items:
                answers.append(call(item))
                advance(1)
            return answers
        numbered = [{**item, "number": number} for number, item in enumerate(items)]
        for row in _on_processes(numbered, actor, arguments, on, min(processes, len(items))).iter_rows():
            answers.append(row)
            advance(1)
    return sorted(answers, key=lambda row: int(row["number"]))


def _on_processes(
    items: Sequence[dict[str, Any]],
    actor: type[Any],
    arguments: dict[str, Any],
    on: ClusterOptions,
    count: int,
) -> ray.data.Dataset:
    """The answers of an actor to every item, a row each, as they come."""
    dataset = ray.data.from_items(items, override_num_blocks=len(items))
    if on.use_gpu:
        actors = ray.data.ActorPoolStrategy(min_size=count, max_size=count)
        return dataset.map(actor, fn_constructor_kwargs=arguments, compute=actors, num_cpus=1, num_gpus=1)
    kwargs = {"call": uuid4().hex, "actor": actor, "arguments": arguments}
    return dataset.map(_on_shard, fn_kwargs=kwargs, compute=ray.data.TaskPoolStrategy(size=count), num_cpus=1)


_encoder_of: dict[str, Any] = {}
"""The one encoder of this process: call of `map_shards` -> what it made of its arguments."""
_release = Timer(0, _encoder_of.clear)


def _on_shard(row: dict[str, Any], call: str, actor: type[Any], arguments: dict[str, Any]) -> dict[str, Any]:
    global _release
    _release.cancel()
    if (encoder := _encoder_of.get(call)) is None:
        _encoder_of.clear()
        encoder = _encoder_of[call] = actor(**arguments)
    try:
        answer: dict[str, Any] = encoder(row)
        return answer | ({"number": row["number"]} if "number" in row else {})
    finally:
        _release = Timer(IDLE_S, _encoder_of.clear)
        _release.daemon = True
        _release.start()
