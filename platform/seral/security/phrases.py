"""Words for a value that is not of the wanted kind, in the place of those of the library that checks it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ser_models.registry import did_you_mean

LIST = "expected a list, such as [a, b]"
PAIRS = "expected `key: value` pairs"
WHOLE, NUMBER, TRUTH = "expected a whole number", "expected a number", "expected true or false"
WORDS = {
    "missing": "is missing; it has no default",
    "extra_forbidden": "nothing of this name is known; leave it out",
    "unexpected_keyword_argument": "nothing of this name is known; leave it out",
    "string_type": "expected text; put quotes around what looks like a number, a date or a list",
    "string_too_short": "expected text of at least {min_length} characters",
    "string_too_long": "expected text of at most {max_length} characters",
    "string_pattern_mismatch": "expected text like {pattern}",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_parsing_size": "expected a smaller whole number",
    "int_from_float": WHOLE,
    "float_type": NUMBER,
    "float_parsing": NUMBER,
    "finite_number": "expected a finite number",
    "bool_type": TRUTH,
    "bool_parsing": TRUTH,
    "greater_than": "expected more than {gt}",
    "greater_than_equal": "expected at least {ge}",
    "less_than": "expected less than {lt}",
    "less_than_equal": "expected at most {le}",
    "list_type": LIST,
    "tuple_type": LIST,
    "set_type": LIST,
    "too_short": "expected at least {min_length}, not {actual_length}",
    "too_long": "expected at most {max_length}, not {actual_length}",
    "dict_type": PAIRS,
    "mapping_type": PAIRS,
    "model_type": PAIRS,
    "model_attributes_type": PAIRS,
    "dataclass_type": PAIRS,
    "literal_error": "expected one of the words",
    "json_invalid": "no valid JSON",
}
"""Kind of an error of pydantic -> a sentence, with fields of its context."""
ALTERNATIVES = re.compile(r"\^\((\w+(?:\|\w+)+)\)\$")
"""A pattern that only lists words."""
WORD = re.compile(r"'([^']+)'")
"""One of the words that are expected."""


def with_value(problem: Mapping[str, Any], value: str) -> str:
    """The words, then the value (`, got 3`), then what may have been meant."""
    words, hint, near = in_words(problem).partition("; did you mean")
    return words + value + hint + near


def in_words(problem: Mapping[str, Any]) -> str:
    """Say what was expected, for one of the errors that a ValidationError lists; the value itself is not in it.

    A check of one's own says it in its own words.
    """
    kind, context = problem["type"], problem.get("ctx", {})
    if kind in ("value_error", "assertion_error"):
        return str(context.get("error", problem["msg"]))
    if kind == "string_pattern_mismatch" and (words := ALTERNATIVES.fullmatch(context["pattern"])):
        return f"expected {words[1].replace('|', ' or ')}"
    if kind == "literal_error":
        return f"expected {context['expected']}{did_you_mean(problem['input'], WORD.findall(context['expected']))}"
    numbers = {name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()}
    return WORDS.get(kind, f"not a value that may stand there ({kind})").format(**numbers)
