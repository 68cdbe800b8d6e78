"""Completion of option keys and their values in bash, zsh and fish, beside that of commands and flags.

`seral loop run x.yaml --set finetune.ad<TAB>` gives keys, `--set finetune.adapter=<TAB>` values. Names in tables are
read from the source of the table, so that nobody waits for torch after a TAB.
"""

from __future__ import annotations

import ast
import os
import shlex
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from seral.security.phrases import ALTERNATIVES
from seral.verbs import VERBS

BASH, KEY = "_SERAL_COMPLETE", "_SERAL_COMPLETE_KEY"
"""Variables of the environment: the protocol of completion, and the key whose value is completed."""
STRATEGY_TABLE = ("seral.selection.strategies", "OWN", "seral.strategies")
TABLES = {
    "adapter": ("ser_models.adapters", "OWN", "seral.adapters"),
    "loss": ("ser_models.losses", "LOSSES", ""),
    "pooling": ("ser_models.pooling", "POOLINGS", ""),
    "objective": ("ser_models.objectives", "OWN", "seral.objectives"),
    "encoder": ("ser_models.encoders", "EMBEDDED", ""),
    "protocol": ("seral.pool.protocols", "PROTOCOLS", ""),
    "reader": ("seral.corpora", "OWN", "seral.readers"),
    "format": ("seral.exports", "FORMATS", ""),
    "labels format": ("seral.labels.exchange", "FORMATS", ""),
    "model format": ("ser_models.exports", "FORMATS", ""),
    "strategy": STRATEGY_TABLE,
    "initial": STRATEGY_TABLE,
    "strategy.name": STRATEGY_TABLE,
    "initial.name": STRATEGY_TABLE,
}
"""Last parts of an option's key -> module and name of the table that its values are names of, and the group of entry
points by which packages add to it."""


def complete_setting(ctx: typer.Context, incomplete: str) -> list[str]:
    """Keys, or values after `KEY=`, for `--set` of a command."""
    words = ctx.command_path.split()[1:]
    name = ctx.params.get("job") if words[:1] == ["jobs"] else None
    verb = next((v for v in VERBS.values() if v.words == words or v.name == name), None)
    if verb is None:
        return []
    from seral.options import every_option

    fields = {path: field for path, field in every_option(verb.options_model()) if "[]" not in path}
    if key := os.environ.get(KEY):
        return [*_values(key, fields.get(key), incomplete)]
    key, equals, text = incomplete.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values(key, fields.get(key), text)]
    keys = [path for path in fields if path.startswith(key) and ".KEY" not in path]
    # A single word would be followed by a space: with what may stand behind it, there are two.
    return [f"{path}=" for path in keys] if len(keys) != 1 else [f"{keys[0]}=", *_behind(keys[0], fields[keys[0]])]


def of_table(name: str) -> Callable[[str], list[str]]:
    """Completion of an argument by the names of a table, one of TABLES."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in table_names(*TABLES[name]) if word.startswith(incomplete)]

    return complete


def table_names(module: str, table: str, group: str = "") -> list[str]:
    """The keys of a table, a literal dict in the source of a module, without importing it, and what packages add."""
    from importlib.metadata import entry_points  # only who presses TAB waits for it

    *parents, last = module.split(".")
    spec = find_spec(parents[0] if parents else last)  # the package itself is light
    folder = Path(str(spec.origin)).parent.joinpath(*module.split(".")[1:]) if spec else Path()
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Dict) and any(getattr(target, "id", None) == table for target in targets):
            # A constant in the place of a word has the word's own name.
            own = [k.id.lower() if isinstance(k, ast.Name) else str(getattr(k, "value", "")) for k in value.keys]
            return [*own, *(point.name for point in entry_points(group=group) if group)]
    return []


def join_words() -> None:
    """Undo what bash does to `KEY=VALUE` before completion: it ends words at an equals sign."""
    if os.environ.get(BASH) != "complete_bash":
        return
    try:
        words, at = shlex.split(os.environ["COMP_WORDS"]), int(os.environ["COMP_CWORD"])
    except (KeyError, ValueError):
        return  # no protocol of bash, or a quote that is still open
    words = words[: at + 1] + [""] * (at + 1 - len(words))
    if words[at] == "=":
        os.environ[KEY], words = words[at - 1], [*words[: at - 1], ""]
    elif at > 1 and words[at - 1] == "=":
        os.environ[KEY], words = words[at - 2], [*words[: at - 2], words[at]]
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = shlex.join(words), str(len(words) - 1)


def _values(key: str, field: Any, text: str) -> Iterator[str]:
    """Values of an option that begin with a text; a list of names joined by + goes on with a further one."""
    before, plus, last = text.rpartition("+")
    for value in _all_values(key, field):
        if value.startswith(last if plus else text):
            yield f"{before}{plus}{value}"


def _all_values(key: str, field: Any) -> Iterator[str]:
    parts = key.split(".")
    for name in (".".join(parts[-2:]), parts[-1]):
        if name in TABLES:
            yield from table_names(*TABLES[name])
            return
    if field is None:
        return
    for kind in (field.annotation, *get_args(field.annotation)):
        if get_origin(kind) is Literal:
            yield from map(str, get_args(kind))
        elif kind is bool:
            yield from ("true", "false")
        elif kind is type(None):
            yield "null"
    for constraint in field.metadata:
        if words := ALTERNATIVES.fullmatch(getattr(constraint, "pattern", None) or ""):
            yield from words[1].split("|")


def _behind(key: str, field: Any) -> list[str]:
    """Values that may stand behind a key: all of a choice, else the beginning of one."""
    beginning = (
        "[" if get_origin(field.annotation) in (list, tuple) else "1" if field.annotation in (int, float) else "./"
    )
    return [f"{key}={value}" for value in _all_values(key, field)] or [f"{key}={beginning}"]
