"""Conditions on what is known of an utterance: `language == de and snr_db > 10`, parsed, never evaluated as code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral.errors import OptionError, unknown_name
from seral.schema import UTTERANCE

COLUMNS = [name for name in UTTERANCE.names if name != "audio"]
OPERATORS: dict[str, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    "<=": pc.less_equal,
    ">=": pc.greater_equal,
    "<": pc.less,
    ">": pc.greater,
}
IN, NULL = "in", "null"
TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>'[^']*'|"[^"]*")|(?P<sign>==|!=|<=|>=|<|>|[(),])|(?P<word>[^\s'"()<>=!,]+))""", re.VERBOSE
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One comparison of one column; holds for no row where the column is unknown, but for `== null`."""

    column: str
    operator: str
    values: tuple[str | None, ...]
    """Values as written; None = null. One, or with `in` any number."""

    def holds(self, table: pa.Table) -> NDArray[np.bool_]:
        """Rows of a table for which it is true, (N,)."""
        column = table[self.column]
        if self.values == (None,):
            mask = pc.is_null(column) if self.operator == "==" else pc.is_valid(column)
        elif self.operator == IN:
            mask = pc.is_in(column, self._cast(column.type))
        else:
            mask = OPERATORS[self.operator](column, self._cast(column.type)[0])
        return np.asarray(pc.fill_null(mask, False))

    def _cast(self, kind: pa.DataType) -> pa.Array:
        try:
            return pa.array(self.values, pa.string()).cast(kind)
        except pa.ArrowInvalid:
            raise OptionError(f"{self.column} is {kind}, got {', '.join(map(repr, self.values))}") from None


def parse_conditions(texts: Sequence[str]) -> list[Condition]:
    """The conditions of texts, each one or more joined by `and`; all have to hold. Raises OptionError."""
    return [condition for text in texts for condition in _parse(text)]


def _parse(text: str) -> list[Condition]:
    words = _tokens(text)
    conditions = []
    while True:
        conditions.append(_condition(words, text))
        if not words:
            return conditions
        if words.pop(0) != "and":
            raise OptionError(f"{text!r}: conditions are joined by `and`; for one of several values write `in`")


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    while position < len(text.rstrip()):
        match = TOKEN.match(text, position)
        if match is None:
            raise OptionError(f"{text!r}: cannot read {text[position:].strip()!r}")
        tokens.append(match.group().strip())
        position = match.end()
    return tokens


def _condition(words: list[str], text: str) -> Condition:
    """Take one condition from the front of the words."""
    if len(words) < 3:
        raise OptionError(f"{text!r}: a condition is COLUMN OPERATOR VALUE, for example snr_db > 10")
    column, operator = words.pop(0), words.pop(0)
    if column not in COLUMNS:
        raise OptionError(unknown_name("column", column, COLUMNS))
    if operator not in (*OPERATORS, IN):
        raise OptionError(unknown_name("operator", operator, (*OPERATORS, IN)))
    values = _values(words, text) if operator == IN else (_value(words.pop(0)),)
    if None in values and operator not in ("==", "!="):
        raise OptionError(f"{text!r}: null is compared by == or != only")
    return Condition(column=column, operator=operator, values=values)


def _values(words: list[str], text: str) -> tuple[str | None, ...]:
    """The list after `in`: (a, b)."""
    if words[0] != "(" or ")" not in words:
        raise OptionError(f"{text!r}: write the values as in (a, b)")
    end = words.index(")")
    inside, words[: end + 1] = words[1:end], []
    if not inside or any((word == ",") != bool(index % 2) for index, word in enumerate(inside)):
        raise OptionError(f"{text!r}: write the values as in (a, b)")
    return tuple(_value(word) for word in inside[::2])


def _value(word: str) -> str | None:
    return None if word == NULL else word[1:-1] if word[0] in "'\"" else word
