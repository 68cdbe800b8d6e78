"""Merge patches of manifests, for whatever no option says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from seral.errors import JobError

NAMES = ("name", "groupName")
"""Keys by which entries of lists are told apart: containers, variables, volumes, groups of workers."""


def patched(documents: list[dict[str, Any]], file: str) -> list[dict[str, Any]]:
    """Manifests with those of a file laid over them, each over the one of its `kind`. Raises JobError."""
    try:
        patches = [patch for patch in yaml.safe_load_all(Path(file).read_text(encoding="utf-8")) if patch]
    except (OSError, yaml.YAMLError) as error:
        raise JobError(f"the patch {file} cannot be read as YAML: {error}") from None
    kinds = [document["kind"] for document in documents]
    for patch in patches:
        kind = patch.get("kind") if isinstance(patch, dict) else None
        if kind not in kinds:
            raise JobError(
                f"{file}: a patch needs the `kind` of what it changes, one of {', '.join(kinds)}; got {kind}"
            )
        documents = [merged(document, patch) if document["kind"] == kind else document for document in documents]
    return documents


def merged(value: Any, patch: Any) -> Any:
    """A merge patch over a value: mappings key by key, null takes a key away, everything else is replaced. RFC 7386.

    Differs from the RFC: entries of lists that have a name are merged by it, and new ones added at the end.
    """
    if isinstance(value, list) and isinstance(patch, list) and (name := _name_of([*value, *patch])):
        changes = {entry[name]: entry for entry in patch}
        changed = [merged(entry, changes.pop(entry[name], {})) for entry in value]
        return changed + list(changes.values())
    if not isinstance(patch, Mapping):
        return patch
    result = dict(value) if isinstance(value, Mapping) else {}
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), change)
    return result


def _name_of(entries: list[Any]) -> str | None:
    """The key that names every entry of a list."""
    shared = (name for name in NAMES if all(isinstance(entry, Mapping) and name in entry for entry in entries))
    return next(shared, None)
