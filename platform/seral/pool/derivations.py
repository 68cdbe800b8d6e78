"""Derivations of a pool: runs, exports, predictions, pages and further pools, by their addresses, for erasure.

POOL/derived/<hash>.json     {"at": address, "kind": a Kind}
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seral import storage
from seral.errors import DeniedError
from seral.pool.shards import split_address
from seral.progress import say

FOLDER = "derived"
RECORD = "derived-from.json"
"""File in a folder of clips that says which pool they are of."""
Kind = Literal["run", "pool", "clips", "labels", "predictions", "page", "features"]


@dataclass(frozen=True, kw_only=True)
class Derivation:
    """Something that was made of a pool."""

    at: str
    kind: Kind


def note_derivation(pool: str, at: str | Path, kind: Kind) -> None:
    """Write down in a pool that something was made of it; where the pool cannot be written to, that is said."""
    uri, target = storage.absolute(split_address(pool)[0]), storage.absolute(at)
    if target.startswith(f"{uri}/"):
        return  # looked through with the pool
    record = storage.join(uri, FOLDER, f"{hashlib.sha256(target.encode()).hexdigest()[:16]}.json")
    try:
        if not storage.exists(record):
            storage.write_json(record, {"at": target, "kind": kind})
    except (OSError, DeniedError) as error:
        say(f"{uri} cannot be written to ({error}): an erasure from it has to be pointed to {target} with --run")


def derivations(pool: str) -> list[Derivation]:
    """All that was made of a pool, by what it says."""
    folder = storage.join(pool, FOLDER)
    return [Derivation(**storage.read_json(storage.join(folder, name))) for name in storage.list_names(folder, ".json")]


def pools_in(options: Any) -> Iterator[str]:
    """Every pool that plain values of options name."""
    if isinstance(options, dict):
        for name, value in options.items():
            if name == "pool" and isinstance(value, str):
                yield value
            else:
                yield from pools_in(value)
    elif isinstance(options, list):
        for value in options:
            yield from pools_in(value)
