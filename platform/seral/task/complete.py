"""Records of complete runs: the same command again says at once what it said, without Ray, torch or the pool's clips.

RUN/complete.json    the verb, a hash of its options and of what they name, every file of the run with its size, and the
                     outcome that the command printed

Where anything has changed since, an option, a pool, a file that went, the record says nothing and the command goes its
usual way, which knows what to do.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from seral import storage
from seral.errors import SeralError
from seral.options import Options
from seral.task.run import CONFIG, KINDS

COMPLETE = "complete.json"
IN_PASSING = ("report/", "tune/", ".train/", ".writers")
"""Files below a run that may change though it is complete."""
NO_INPUTS = {"run", "cluster", "track", "feature_cache"}
"""Options that do not say what a run is about."""


def outcome_of(verb: str, options: Options) -> Any:
    """Outcome of the verb for the same options, of a run that is complete and has not changed; None of any other."""
    run = _run_of(verb, options)
    if run is None or not storage.exists(uri := storage.join(run, COMPLETE)):
        return None
    try:
        record, sizes = storage.read_json(uri), storage.file_sizes(run)
        same = (record["verb"], record["asked"]) == (verb, _asked(options))
    except (SeralError, OSError):
        return None
    return record["outcome"] if same and record["files"].items() <= sizes.items() else None


def write_complete(verb: str, options: Options, outcome: object) -> None:
    """Note that a run is complete, and what its verb returned; nothing for verbs without a run of their own."""
    run = _run_of(verb, options)
    if run is None or outcome is None or not storage.exists(storage.join(run, CONFIG)):
        return
    record = {"verb": verb, "asked": _asked(options), "files": _own_files(run), "outcome": outcome}
    with storage.writing_to(run):
        storage.write_json(storage.join(run, COMPLETE), record)


def _run_of(verb: str, options: Options) -> str | None:
    """The folder of a run that can be complete: of one with people, answers may still come."""
    run = getattr(options, "run", None)
    if verb not in KINDS or not isinstance(run, str) or getattr(options, "people", None) is not None:
        return None
    return storage.absolute(run)


def _own_files(run: str) -> dict[str, int]:
    """Files of a run and their sizes, without those of other runs inside it."""
    sizes = storage.file_sizes(run)
    inner = tuple(name.removesuffix(CONFIG) for name in sizes if name.endswith(f"/{CONFIG}"))
    passing = (COMPLETE, *IN_PASSING, *inner)
    return {name: size for name, size in sorted(sizes.items()) if not name.startswith(passing)}


def _asked(options: Options) -> str:
    """A hash of options, and of the pools, files and folders that they name."""
    asked = options.model_dump(mode="json", exclude=NO_INPUTS)
    parts = [repr(asked), *(f"{text} {_state(text, named)}" for named, text in _texts(asked))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _texts(value: Any, named: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain values, after the name of its option."""
    if isinstance(value, str):
        yield named, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in NO_INPUTS:
                yield from _texts(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, named)


def _state(text: str, named: str) -> str:
    """The state of what a text names: a pool's hash, sizes and times of files; '' where it names nothing."""
    if named in ("pool", "pools", "variants") or os.path.exists(os.path.join(text, "manifest.json")):
        from seral.pool.shards import open_pool

        return open_pool(text).hash
    if "://" in text:  # what else lies in a store may be another one by now: no record is about that
        return uuid4().hex
    if os.path.isfile(text):
        return _stamp(text)
    return repr([_stamp(os.path.join(at, name)) for at, _, names in sorted(os.walk(text)) for name in sorted(names)])


def _stamp(path: str) -> str:
    status = os.stat(path)
    return f"{path} {status.st_size} {status.st_mtime_ns}"
