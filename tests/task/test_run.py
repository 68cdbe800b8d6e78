"""Result folders: what they say of themselves, and which folders are refused."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import yaml

import seral
from seral.errors import OptionError, StateError
from seral.loop.loop import LoopOptions
from seral.models.prediction import model_folder
from seral.options import Options
from seral.task.run import KINDS, claim, read_config, read_options, verb_of


class Inner(Options):
    """Options inside others."""

    lr: float = 0.1
    cpus: int = 1


class Outer(Options):
    """Options of a made-up run."""

    run: str
    seed: int = 0
    inner: Inner = Inner()


def options(folder: Path, **values: Any) -> Outer:
    return Outer.model_validate({"run": str(folder), **values})


def test_a_run_says_what_it_is_in_its_first_line(tmp_path: Path) -> None:
    claim(options(tmp_path, seed=3), "compare")
    text = (tmp_path / "config.yaml").read_text()
    assert text.splitlines()[0] == "verb: compare"
    assert yaml.safe_load(text) == {"verb": "compare", **options(tmp_path, seed=3).model_dump()}
    assert verb_of(str(tmp_path)) == "compare"
    assert read_options(Outer, str(tmp_path), "compare") == options(tmp_path, seed=3)
    assert "verb" not in read_config(str(tmp_path))


def test_a_run_is_resumed_with_equal_options_or_those_that_may_change(tmp_path: Path) -> None:
    claim(options(tmp_path), "compare")
    claim(options(tmp_path), "compare")
    claim(options(tmp_path, inner={"cpus": 2}), "compare", {"run", "inner.cpus"})
    with pytest.raises(StateError, match=r"holds a run with other options \(seed: was 0, now 1\); give `run` another"):
        claim(options(tmp_path, seed=1, inner={"cpus": 2}), "compare", {"run"})
    with pytest.raises(StateError, match="another folder, or remove this, still empty"):
        claim(options(tmp_path, seed=1), "compare", {"run", "inner"})
    (tmp_path / "environment.json").touch()
    with pytest.raises(StateError, match=r"other options \(inner: was .* another folder$"):
        claim(options(tmp_path, inner={"cpus": 2, "lr": 0.2}), "compare", {"run", "inner.cpus"})
    assert read_options(Outer, str(tmp_path)).seed == 0


def test_a_folder_of_another_kind_is_refused_and_named(tmp_path: Path) -> None:
    claim(options(tmp_path), "sweep")
    with pytest.raises(StateError, match=r"holds a sweep \(seral sweep\), not a loop; give `run` another folder"):
        claim(options(tmp_path), "loop")
    with pytest.raises(StateError, match=r"holds a sweep \(seral sweep\), not a loop or a training or a session: name"):
        model_folder(str(tmp_path))
    with pytest.raises(StateError, match=r"holds a sweep \(seral sweep\), not a comparison of trainings: name"):
        read_options(Outer, str(tmp_path), "compare")


def test_a_folder_that_does_not_say_what_it_is_still_opens(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(options(tmp_path, seed=2).model_dump()))
    assert verb_of(str(tmp_path)) is None
    assert read_options(Outer, str(tmp_path), "compare").seed == 2
    claim(options(tmp_path, seed=2), "compare")
    assert verb_of(str(tmp_path)) == "compare"
    (tmp_path / "config.yaml").write_text("seed: 2\n")
    with pytest.raises(
        OptionError, match=r"(?s)config\.yaml is of another release or kind of run.*unknown option 'seed'"
    ):
        read_options(LoopOptions, str(tmp_path), "loop")


def test_a_run_with_code_of_a_package_is_opened_when_the_package_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SERAL_PLUGINS", raising=False)
    (tmp_path / "config.yaml").write_text("pool: p\nrun: r\nclasses: [a, b]\nstrategy: somebodys:outskirts\n")
    with pytest.raises(OptionError, match=r"set SERAL_PLUGINS=somebodys if it may run") as error:
        read_options(LoopOptions, str(tmp_path))
    assert "another release" not in str(error.value)


def test_where_there_is_no_run_it_is_said(tmp_path: Path) -> None:
    assert verb_of(str(tmp_path)) is None
    with pytest.raises(StateError, match="there is no run at"):
        read_options(Outer, str(tmp_path), "loop")


def test_every_kind_of_run_that_is_claimed_has_a_name() -> None:
    claimed = set()
    for path in Path(seral.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("claim", "open_run", "run_study"):
                verbs = [*node.args[1:2], *(word.value for word in node.keywords if word.arg == "verb")]
                claimed |= {verb.value for verb in verbs if isinstance(verb, ast.Constant)}
    assert claimed == set(KINDS), "every verb that claims a folder needs its words in KINDS, and no other has any"
