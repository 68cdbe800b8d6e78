"""A pool in parts: in this process, or in actors on as many machines as Ray has."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from seral.errors import LostPart, SelectionError
from seral.progress import say
from seral.selection.candidates import Candidates
from seral.selection.parts.part import PoolPart
from seral.selection.source import SourceOptions
from seral.vectors.distances import Block

WAIT_S = 5.0
"""Seconds after which parts that wait are looked after."""
CPU_UNITS = 10_000
"""Parts of a CPU that Ray counts in."""
LOST = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)
"""What Ray raises when an actor, or what it has returned, is gone."""
NAMED = 3
"""How many ids a message shows."""


class Parts:
    """All parts of a pool."""

    def __init__(self, parts: Sequence[PoolPart]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing ends with the block."""

    def each(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every part with the same arguments; what they return, in order."""
        return self.respective(method, [arguments] * len(self))

    def respective(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Call a method of every part with its own arguments."""
        return [getattr(part, method)(*own) for part, own in zip(self._parts, arguments, strict=True)]

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Whoever is picked or left out within the block is a candidate again after it."""
        self.each("remember")
        try:
            yield
        finally:
            self.each("come_back")

    def sizes(self, by: str) -> tuple[Counter[str], Counter[str]]:
        """How many candidates there are of every group, and how many of it are picked."""
        there, picked = zip(*self.each("sizes", by), strict=True)
        return sum(there, Counter()), sum(picked, Counter())

    def count(self) -> int:
        """Candidates of all parts."""
        return sum(self.each("count"))

    def check_ids(self) -> None:
        """Raises SelectionError when an id is in two parts. Eight bytes a row come from the parts."""
        if len(self) == 1:
            return  # Candidates have looked at it
        hash_N = np.sort(np.concatenate(self.each("id_hashes")))
        found = Counter(itertools.chain(*self.each("ids_of", hash_N[1:][hash_N[1:] == hash_N[:-1]])))
        if twice := sorted(name for name, times in found.items() if times > 1):
            raise SelectionError(f"{len(twice)} ids are in two parts, e.g. {', '.join(twice[:NAMED])}")


class RemoteParts(Parts):
    """Parts in actors, on as many machines as Ray has; they end with the block that they are made for by `with`.

    `made_of` has the arguments of every PoolPart. They wait until all of them have room, and say so.
    """

    def __init__(self, made_of: Sequence[tuple[Candidates] | tuple[SourceOptions, Sequence[str]]]) -> None:
        cpus, self._room = _room_for(len(made_of))
        self._actors = [
            _RemotePart.options(
                num_cpus=cpus, scheduling_strategy=PlacementGroupSchedulingStrategy(self._room, place)
            ).remote(*part)
            for place, part in enumerate(made_of)
        ]

    def __len__(self) -> int:
        return len(self._actors)

    def __exit__(self, *error: object) -> None:
        remove_placement_group(self._room)  # ends the actors in it

    def each(self, method: str, *arguments: Any) -> list[Any]:
        """Arguments go into the store once, for all machines."""
        shared = [ray.put(value) if isinstance(value, Block | np.ndarray) else value for value in arguments]
        return self.respective(method, [tuple(shared)] * len(self))

    def respective(self, method: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        calls = [getattr(actor, method).remote(*own) for actor, own in zip(self._actors, arguments, strict=True)]
        while True:
            try:
                found: list[Any] = ray.get(calls, timeout=WAIT_S)
                return found
            except ray.exceptions.GetTimeoutError:
                if placement_group_table(self._room)["state"] != "CREATED":  # parts that never began wait for ever
                    raise LostPart("the room of a part was lost with its node") from None
            except LOST as error:
                if getattr(error, "actor_init_failed", False):
                    raise
                raise LostPart(str(error).splitlines()[-1]) from error


_RemotePart = ray.remote(PoolPart)


def _room_for(parts: int) -> tuple[float, PlacementGroup]:
    """CPUs of each part, and the room for all of them, asked for again when a node was lost that they may wait for."""
    while True:
        before, cpus, said = _alive(), _cpus_each(parts), ""
        room = placement_group([{"CPU": cpus}] * parts, strategy="SPREAD")
        while before <= _alive():
            if room.wait(WAIT_S):
                return cpus, room
            has, free = (found.get("CPU", 0) for found in (ray.cluster_resources(), ray.available_resources()))
            line = f"each takes {cpus:g} CPUs, the cluster has {has:g}, of which {free:g} are free"
            if line != said:
                say(f"{parts} parts wait for room: {line}")
                said = line
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
