"""What a reader takes besides the corpus folder: its keyword arguments, checked before it reads anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from seral.corpora import READERS
from seral.corpora.reading.utterance import Reader
from seral.errors import OptionError, unknown_name


def find_reader(name: str, given: Mapping[str, Any] | None = None) -> Reader:
    """A reader by name, with its keyword arguments. Raises OptionError for an unknown name, keyword or value."""
    if name not in READERS:
        raise OptionError(unknown_name("reader", name, READERS))
    known = keywords(READERS[name])
    for keyword, value in (given or {}).items():
        if keyword not in known:
            takes = ", ".join(map(_shown, known, known.values())) or "none"
            raise OptionError(f"the reader {name!r} has no option {keyword!r}; it takes: {takes}")
        try:
            TypeAdapter(known[keyword]).validate_python(value)
        except ValidationError as error:
            raise OptionError(
                f"reader_options.{keyword} of {name!r}: {error.errors()[0]['msg']}, got {value!r}"
            ) from None
    return partial(READERS[name], **given) if given else READERS[name]


def keywords(read: Reader) -> dict[str, Any]:
    """Keyword argument of a reader -> its type."""
    parameters = inspect.signature(read, eval_str=True).parameters.values()
    return {found.name: found.annotation for found in parameters if found.kind is found.KEYWORD_ONLY}


def listing() -> str:
    """All readers, each with what it takes: `folder, crema-d (labels: acted | voice | multimodal), ...`."""
    return ", ".join(_with_keywords(name, keywords(read)) for name, read in READERS.items())


def _with_keywords(name: str, known: Mapping[str, Any]) -> str:
    return f"{name} ({'; '.join(map(_shown, known, known.values()))})" if known else name


def _shown(keyword: str, annotation: Any) -> str:
    """The keyword with its values where they can be listed."""
    if get_origin(annotation) is Literal:
        return f"{keyword}: {' | '.join(map(str, get_args(annotation)))}"
    return keyword
