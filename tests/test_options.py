from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
import yaml
from pydantic import Field, ValidationError

from seral.errors import AwaitingLabels, OptionError, PoolError
from seral.options import PAUSED, Options, describe, dump, json_schema, load, parse, put, run_job


class Inner(Options):
    rate: float = Field(default=0.5, gt=0, le=1)
    """Share of it."""
    names: list[str] = Field(default=["a"])
    """What they are called."""


class Outer(Options):
    """What to do."""

    where: str
    """Where to
    do it."""
    steps: int | None = None
    """How often."""
    inner: Inner = Inner()
    other: Inner | None = None


def test_values_and_overrides_meet_and_overrides_win() -> None:
    values = {"where": "here", "steps": 1, "inner": {"rate": 0.25, "names": ["x"]}}
    made = parse(Outer, values, ["steps=3", "inner.rate=1", "inner.names=[p, q]", "other.rate=0.1"])
    assert made == Outer(
        where="here", steps=3, inner=Inner(rate=1, names=["p", "q"]), other=Inner(rate=0.1, names=["a"])
    )
    assert values == {"where": "here", "steps": 1, "inner": {"rate": 0.25, "names": ["x"]}}


def test_options_of_what_is_named_alone_keep_its_name() -> None:
    values: dict[str, Any] = {"strategy": "random"}
    put(values, "strategy.power", 2)
    put(values, "other.inner.rate", 1)
    assert values == {"strategy": {"name": "random", "power": 2}, "other": {"inner": {"rate": 1}}}


def test_a_part_named_by_its_module_is_one_key_of_a_path() -> None:
    values: dict[str, Any] = {}
    put(values, "finetune.settings.mine.parts:TILT.strength", 2)
    put(values, "finetune.settings.lora.rank", 4)
    assert values == {"finetune": {"settings": {"mine.parts:TILT": {"strength": 2}, "lora": {"rank": 4}}}}


def test_an_override_can_take_a_value_away() -> None:
    assert parse(Outer, {"where": "x", "steps": 2, "other": {"rate": 1}}, ["steps=null", "other="]).other is None


@pytest.mark.parametrize(
    ("values", "overrides", "words"),
    [
        ({"where": "x", "stepz": 1}, [], ["'stepz'", "known here: where, steps, inner, other"]),
        ({"where": "x"}, ["inner.rat=1"], ["'inner.rat'", "known here: rate, names"]),
        ({"where": "x"}, ["other.rat=1"], ["'other.rat'", "known here: rate, names"]),
        ({"where": "x"}, ["inner.rate=2"], ["inner.rate", "at most 1", "got 2"]),
        ({"where": "x"}, ["steps=many"], ["steps", "whole number", "got 'many'"]),
        ({}, [], ["where", "is missing"]),
        ({"where": "x", "steps": "a", "inner": {"rate": 0}}, [], ["steps", "inner.rate"]),
        ({"where": "x"}, ["steps"], ["key.path=value", "'steps'"]),
        ({"where": "x"}, ["=3"], ["key.path=value", "'=3'"]),
        ({"where": "x"}, ["steps=[1"], ["steps=[1", "YAML"]),
    ],
)
def test_a_wrong_value_is_one_error_that_names_it(
    values: dict[str, object], overrides: list[str], words: list[str]
) -> None:
    with pytest.raises(OptionError) as caught:
        parse(Outer, values, overrides)
    for word in words:
        assert word in str(caught.value)


def test_options_never_change() -> None:
    with pytest.raises(ValidationError):
        Outer(where="x").where = "y"  # type: ignore[misc]  # that this is refused is the point


def test_what_is_dumped_comes_back(tmp_path: Path) -> None:
    made = Outer(where="hier, größer", other=Inner(rate=0.125))
    file = tmp_path / "run.yaml"
    file.write_text(dump(made), encoding="utf-8")
    assert load(Outer, file) == made
    assert list(yaml.safe_load(dump(made))) == list(Outer.model_fields)
    assert load(Outer, file, ["where=there"]).where == "there"
    assert load(Outer, None, ["where=there"]) == Outer(where="there")


@pytest.mark.parametrize(("text", "words"), [("- 1\n", "list"), ("a: [", "not valid YAML"), ("", "NoneType")])
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(OptionError, match=rf"(?s)bad\.yaml.*{words}"):
        load(Outer, file)
    with pytest.raises(OptionError, match=r"no configuration file at .*nowhere\.yaml"):
        load(Outer, tmp_path / "nowhere.yaml")


def test_the_description_lists_every_option_with_its_meaning() -> None:
    text = describe(Outer)
    for line in ("where = required", "Where to do it.", "steps = None", "inner.rate = 0.5", "other.names = ['a']"):
        assert line in text


def test_the_description_has_types_and_bounds() -> None:
    text = describe(Outer)
    for line in (
        "where = required  (str)",
        "steps = None  (int | None)",
        "inner.rate = 0.5  (float, > 0, <= 1)",
        "inner.names = ['a']  (list[str])",
        "other = None  (Inner | None)",
    ):
        assert f"  {line}\n" in text


def test_the_description_names_entries_of_lists_and_mappings() -> None:
    class Table(Options):
        rows: list[Inner] = Field(min_length=1)
        """Its rows."""
        parts: dict[str, Inner] = Field(default={})
        """Its parts."""
        kind: Literal["a", "b"] = "a"
        """Its kind."""
        size: tuple[int, ...] | None = None
        """Its size."""
        code: Annotated[str, Field(pattern="^x")] = "x"
        """Its code."""

    text = describe(Table)
    for line in (
        "rows = required  (list[Inner], at least 1)",
        "rows[].rate = 0.5  (float, > 0, <= 1)",
        "parts = {}  (dict[str, Inner])",
        "parts.KEY.rate = 0.5  (float, > 0, <= 1)",
        "kind = a  (a | b)",
        "size = None  (tuple[int, ...] | None)",
        "code = x  (str, like ^x)",
    ):
        assert f"  {line}\n" in text


def test_a_file_may_name_its_verb_and_only_that_one_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("verb: loop\nwhere: x\n")
    assert load(Outer, file) == load(Outer, file, verb="loop") == Outer(where="x")
    with pytest.raises(OptionError, match=r"run\.yaml holds options of 'loop', not of 'pretrain'"):
        load(Outer, file, verb="pretrain")
    file.write_text("where: x\n")
    assert load(Outer, file, verb="loop") == Outer(where="x")


def test_the_schema_of_a_verb_takes_its_files_and_no_others() -> None:
    schema = json.loads(json_schema(Outer, "loop"))
    jsonschema.validate({"verb": "loop", "where": "x", "inner": {"rate": 0.25}}, schema)
    jsonschema.validate({"where": "x"}, schema)
    for wrong in ({"verb": "train", "where": "x"}, {"where": "x", "stepz": 1}, {"where": "x", "inner": {"rate": 2}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    assert "Where to" in schema["properties"]["where"]["description"]


def test_a_job_takes_a_file_and_overrides_and_prints_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.yaml").write_text("where: here\nsteps: 1\n")
    monkeypatch.setattr(sys, "argv", ["job.py", "--config", str(tmp_path / "job.yaml"), "steps=4"])
    run_job(Outer, lambda options: f"{options.where} {options.steps}", "A job.")
    assert capsys.readouterr().out == "here 4\n"


def test_a_job_ends_in_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Outer) -> None:
        raise PoolError("there is no pool at nowhere")

    monkeypatch.setattr(sys, "argv", ["job.py", "where=x"])
    with pytest.raises(SystemExit, match=r"^error: there is no pool at nowhere$"):
        run_job(Outer, fail, None)
    monkeypatch.setattr(sys, "argv", ["job.py"])
    with pytest.raises(SystemExit, match=r"^error: where: is missing"):
        run_job(Outer, fail, None)


def test_a_job_that_awaits_labels_says_so_and_ends_well_where_it_was_submitted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(_: Outer) -> None:
        raise AwaitingLabels("awaiting labels: 0 of 4")

    monkeypatch.setattr(sys, "argv", ["job.py", "where=x"])
    with pytest.raises(SystemExit) as ended:
        run_job(Outer, ask, None)
    assert ended.value.code == AwaitingLabels.status
    assert capsys.readouterr() == ("", "awaiting labels: 0 of 4\n")
    monkeypatch.setattr(sys, "argv", ["job.py", "--submitted", "where=x"])
    run_job(Outer, ask, None)
    assert capsys.readouterr().out == f"{PAUSED}awaiting labels: 0 of 4\n"


def test_the_help_of_a_job_lists_the_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["job.py", "--help"])
    with pytest.raises(SystemExit):
        run_job(Outer, lambda _: None, "A job.")
    text = capsys.readouterr().out
    assert "A job." in text
    assert "inner.rate = 0.5  (float, > 0, <= 1)\n      Share of it." in text
