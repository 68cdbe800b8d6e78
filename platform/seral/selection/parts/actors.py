"""A pool in parts that are actors of Ray, on as many machines as it has."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from seral.cluster import ClusterOptions
from seral.errors import LostPart
from seral.progress import say
from seral.selection.candidates import Candidates
from seral.selection.parts.local import Parts
from seral.selection.parts.part import PoolPart
from seral.selection.source_options import SourceOptions
from seral.vectors.distances import Block

WAIT_S = 5.0
"""Seconds after which parts that wait are looked after."""
CPU_UNITS = 10_000
"""Parts of a CPU that Ray counts in."""
LOST = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)
"""Errors that Ray raises when an actor, or what it has returned, is gone."""

P = ParamSpec("P")
T = TypeVar("T")


class RemoteParts(Parts):
    """Parts in actors, on as many machines as Ray has; they end with the block that they are made for by `with`.

    `made_of` has the arguments of every PoolPart. They wait until all of them have room, and say so.
    """

    def __init__(self, made_of: Sequence[tuple[Candidates] | tuple[SourceOptions, Sequence[str]]]) -> None:
        cpus, self._room = _room_for(len(made_of))
        self._actors = [
            _RemotePart.options(
                num_cpus=cpus, scheduling_strategy=PlacementGroupSchedulingStrategy(self._room, bundle)
            ).remote(*part)
            for bundle, part in enumerate(made_of)
        ]

    def __len__(self) -> int:
        return len(self._actors)

    def __exit__(self, *error: object) -> None:
        remove_placement_group(self._room)  # ends the actors in it

    def each(
        self, function: Callable[Concatenate[PoolPart, P], T], /, *arguments: P.args, **options: P.kwargs
    ) -> list[T]:
        """Call a function of every part; arrays among the arguments go into the store once, for all machines."""
        shared = [ray.put(value) if isinstance(value, Block | np.ndarray) else value for value in arguments]
        return self.respective(function, [tuple(shared)] * len(self), **options)

    def respective(
        self, function: Callable[Concatenate[PoolPart, ...], T], arguments: Sequence[tuple[Any, ...]], **options: Any
    ) -> list[T]:
        """Call a function of every part with arguments of its own. Raises LostPart when one of them is gone."""
        calls = [
            actor.call.remote(function, *own, **options) for actor, own in zip(self._actors, arguments, strict=True)
        ]
        while True:
            try:
                replies: list[T] = ray.get(calls, timeout=WAIT_S)
                return replies
            except ray.exceptions.GetTimeoutError:
                if placement_group_table(self._room)["state"] != "CREATED":  # parts that never began wait for ever
                    raise LostPart("the room of a part was lost with its node") from None
            except LOST as error:
                if getattr(error, "actor_init_failed", False):
                    raise
                raise LostPart(str(error).splitlines()[-1]) from error


_RemotePart = ray.remote(PoolPart)


def despite_losses(work: Callable[[], T], on: ClusterOptions) -> T:
    """The outcome of work on parts, whether or not one is lost on the way: then all begins again, where there is room.

    Raises LostPart when that has happened more than `cluster.max_failures` times.
    """
    losses = 0
    while True:
        try:
            return work()
        except LostPart as error:
            losses += 1
            if losses > on.max_failures:
                raise LostPart(
                    f"given up after {losses} lost parts: {error}. For want of memory, use more `parts` or larger "
                    f"nodes; where nodes come and go, raise cluster.max_failures ({on.max_failures})"
                ) from error
            say(f"a part of the pool was lost ({error}); selection begins again where there is room")


def _room_for(parts: int) -> tuple[float, PlacementGroup]:
    """CPUs of each part, and the room for all of them, asked for again when a node was lost that they may wait for."""
    while True:
        before, cpus, last_line = _alive(), _cpus_each(parts), ""
        room = placement_group([{"CPU": cpus}] * parts, strategy="SPREAD")
        while before <= _alive():
            if room.wait(WAIT_S):
                return cpus, room
            has, free = (resources.get("CPU", 0) for resources in (ray.cluster_resources(), ray.available_resources()))
            line = f"each takes {cpus:g} CPUs, the cluster has {has:g}, of which {free:g} are free"
            if line != last_line:
                say(f"{parts} parts wait for room: {line}")
                last_line = line
        remove_placement_group(room)


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _cpus_each(parts: int) -> float:
    """CPUs that each part asks for: one, or the most of which so many fit an idle cluster, node by node.

    One too where no node has any yet, for a cluster that grows.
    """
    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    share: float = heapq.nlargest(parts, (cpus / count for cpus in nodes for count in range(1, parts + 1)))[-1]
    return min(1.0, math.floor(share * CPU_UNITS) / CPU_UNITS) or 1.0
