"""Words of a wrong value: none of the checking library's own reach a person, whatever option is wrong, however."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from seral.errors import OptionError
from seral.options import every_option, parse
from seral.security.phrases import WORDS
from seral.verbs import VERBS, Verb

WRONG = (None, "x", "", -1, 10**9, 1.5, float("nan"), True, [], ["x"], [None], [[]], [1, 2, 3, 4, 5], {}, {"zzz": 1})
LIBRARY = re.compile(
    r"Input should|Field required|Extra inputs|Value error|should match|should have|valid dictionary|instance of"
    r"|unable to|after validation|function-|literal\[|not a value that may stand there"
)


def values_at(path: str, value: Any) -> dict[str, Any]:
    """Plain values in which one option, named as every_option does, has this value."""
    for part in reversed(path.replace("[]", ".0").replace(".KEY", ".key").split(".")):
        value = [value] if part == "0" else {part: value}
    return value  # type: ignore[no-any-return]  # the outermost part is a name


def complaints(verb: Verb) -> Iterator[tuple[str, Any, str]]:
    """Every option with every wrong value, and what is said of it."""
    model = verb.options_model()
    for path, _ in every_option(model):
        for value in WRONG:
            try:
                parse(model, values_at(path, value))
            except OptionError as error:
                yield path, value, str(error)


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_no_phrase_of_the_library_reaches_a_person(verb: Verb) -> None:
    refused = list(complaints(verb))
    assert refused
    leaks = [f"{path}={value!r}: {text}" for path, value, text in refused if LIBRARY.search(text)]
    assert not leaks, f"{len(leaks)}, the first: {leaks[0]}"


def test_every_kind_of_error_that_options_raise_has_words() -> None:
    kinds = set[str]()
    for verb in VERBS.values():
        model = verb.options_model()
        for path, _ in every_option(model):
            for value in WRONG:
                try:
                    model.model_validate(values_at(path, value))
                except ValidationError as error:
                    kinds |= {problem["type"] for problem in error.errors()}
                except OptionError:
                    continue  # a sentence already
    assert len(kinds) > 15, "options are no longer tried with values that they refuse"
    assert kinds - set(WORDS) <= {"value_error"}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"seeds": "many"}, "seeds: expected a list, such as [a, b], got 'many'"),
        ({"seeds": [1.5]}, "seeds.0: expected a whole number, got 1.5"),
        ({"min_quality": 3}, "min_quality: expected at most 1, got 3"),
        ({"cluster": {"precision": "fp8"}}, "cluster.precision: expected fp32 or bf16, got 'fp8'"),
        ({"dev": "speaker"}, "dev: expected 'cross-validated' or 'speakers', got 'speaker'; did you mean 'speakers'?"),
        ({"protocol": ["a"]}, "unknown protocol ['a']; known: "),
        ({"run": None}, "run: expected text; put quotes around what looks like a number, a date or a list, got None"),
    ],
)
def test_a_wrong_value_is_a_sentence_with_the_option_and_what_to_give(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=re.escape(sentence)):
        parse(VERBS["loop"].options_model(), {"pool": "p", "run": "r", "classes": ["a", "b"]} | values)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(OptionError, match=r"^run: is missing; it has no default$"):
        parse(VERBS["loop"].options_model(), {"pool": "p", "classes": ["a", "b"]})
    with pytest.raises(OptionError, match=r"^channel: expected 'mean', .* or 'auto', or 'apart', got 'x'$"):
        parse(VERBS["cut"].options_model(), {"root": "r", "out": "o", "channel": "x"})
