"""Keyword arguments of readers, besides the corpus folder, checked before anything is read."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from seral.corpora import READERS
from seral.corpora.reading.reader import Read, Reader
from seral.errors import OptionError, unknown_name
from seral.security.phrases import with_value


def find_reader(name: str, arguments: Mapping[str, Any] | None = None) -> Read:
    """A reader by name, with its keyword arguments. Raises OptionError for an unknown name, keyword or value."""
    if name not in READERS:
        raise OptionError(unknown_name("reader", name, READERS))
    accepted = keywords(READERS[name])
    for keyword, value in (arguments or {}).items():
        if keyword not in accepted:
            takes = ", ".join(map(_keyword, accepted, accepted.values())) or "none"
            raise OptionError(f"the reader {name!r} has no option {keyword!r}; it takes: {takes}")
        try:
            TypeAdapter(accepted[keyword]).validate_python(value)
        except ValidationError as error:
            raise OptionError(
                f"reader_options.{keyword} of {name!r}: {with_value(error.errors()[0], f', got {value!r}')}"
            ) from None
    return partial(READERS[name], **arguments) if arguments else READERS[name]


def keywords(reader: Reader) -> dict[str, Any]:
    """Keyword argument of a reader -> its type."""
    accepted: dict[str, Any] = {}
    for parameter in inspect.signature(reader.read, eval_str=True).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            accepted[parameter.name] = parameter.annotation
        elif parameter.kind is parameter.VAR_KEYWORD:
            (choices,) = get_args(parameter.annotation)  # of Unpack[...]
            accepted |= get_type_hints(choices)
    return accepted


def listing() -> str:
    """All readers, each with what it takes: `folder, crema-d (labels: acted | voice | multimodal), ...`."""
    return ", ".join(_with_keywords(name, keywords(reader)) for name, reader in READERS.items())


def _with_keywords(name: str, accepted: Mapping[str, Any]) -> str:
    return f"{name} ({'; '.join(map(_keyword, accepted, accepted.values()))})" if accepted else name


def _keyword(keyword: str, annotation: Any) -> str:
    """The keyword with its values where they can be listed."""
    if get_origin(annotation) is Literal:
        return f"{keyword}: {' | '.join(map(str, get_args(annotation)))}"
    return keyword
