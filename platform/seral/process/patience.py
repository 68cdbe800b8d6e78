"""Patience with a local Ray that comes up: as long as its raylet lives, and no longer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from seral.process.vital import end_of

POLL_S = 0.1


class RayletDied(Exception):
    """The raylet of a local Ray ended before its node had come up."""


@contextmanager
def patience(limit_s: float) -> Iterator[None]:
    """In the block a local Ray's node has `limit_s` to come up, where Ray gives up after 30 s, which nothing sets.

    Raises RayletDied as soon as its raylet has ended, which Ray does not look for.
    """
    from ray._private import services
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    get_node, start_raylet, raylets = services.get_node, services.start_raylet, list[Any]()

    def start(*arguments: Any, **options: Any) -> Any:
        info = start_raylet(*arguments, **options)
        raylets.append(info.process)
        return info

    def wait(address: str, node: str) -> Any:
        gcs, deadline = GcsClient(address=address), time.monotonic() + limit_s
        while not any(other.hex() == node for other in gcs.get_all_node_info(timeout=limit_s)):
            if how := next(filter(None, map(end_of, raylets)), None):
                raise RayletDied(f"its raylet {how}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"its node has not come up within {limit_s:.0f} s")
            time.sleep(POLL_S)
        return get_node(address, node)  # which waits, for a node that is not there, for 30 s

    services.get_node, services.start_raylet = wait, start
    try:
        yield
    finally:
        services.get_node, services.start_raylet = get_node, start_raylet
