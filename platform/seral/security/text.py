"""Text and JSON of anyone: no more bytes and no deeper than is allowed, and whatever is wrong is a ValueError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TextIO, TypeVar

T = TypeVar("T")
END = object()


@dataclass(frozen=True, kw_only=True)
class TextLimits:
    """Limits of what is read as text from files of others."""

    characters: int = 16_000_000
    """Of a line of a table, or of a member with text in a tar."""
    nesting: int = 64
    """Lists and objects inside one another in JSON."""


USUAL = TextLimits()
_limits: ContextVar[TextLimits] = ContextVar("limits")


def limits() -> TextLimits:
    """The limits of this iteration."""
    return _limits.get(USUAL)


def limited(items: Iterator[T], of_text: TextLimits) -> Iterator[T]:
    """The items, each made under these limits."""
    context = copy_context()
    context.run(_limits.set, of_text)
    while (item := context.run(next, items, END)) is not END:
        yield item  # type: ignore[misc]  # no END


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON document. Raises ValueError for any that is not valid, or nested too deeply."""
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    except json.JSONDecodeError:
        raise
    except ValueError as error:  # a whole number of thousands of digits, or bytes that are no UTF-8
        raise ValueError(str(error).partition(";")[0]) from None
    level = [content]
    for _ in range(limits().nesting):
        level = [inner for part in level for inner in _inside(part)]
        if not level:
            return content
    raise ValueError(_too_deep())


def lines_of(file: TextIO) -> Iterator[str]:
    """Lines with their ends. Raises ValueError for one that is too long, before all of it is read."""
    longest = limits().characters
    while line := file.readline(longest + 1):
        if len(line) > longest:
            raise ValueError(f"a line of more than {longest:,} characters; max_text_mb allows others")
        yield line


def _inside(part: Any) -> Any:
    values = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [value for value in values if isinstance(value, dict | list)]


def _too_deep() -> str:
    return f"nested deeper than {limits().nesting} levels; max_nesting allows others"
