"""The recipes of docs/extending.md work as they stand: the code of the page is put into the real tables and used."""

from __future__ import annotations

import ast
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import typer
from typer.testing import CliRunner

import ser_models.adapters
import ser_models.objectives
import seral.corpora
import seral.selection.strategies
import seral.verbs
from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import adapter_parameters
from ser_models.adapters.store import load_adapter, save_adapter
from ser_models.objectives import find_objective
from seral import storage
from seral.cli.configured import add_configured
from seral.options import load
from seral.pool.shards import FORMAT, MANIFEST
from seral.schema import UTTERANCE
from seral.selection.candidates import Candidates
from seral.selection.parts.distributed import select_in_parts
from seral.selection.parts.local import Parts, Picks
from seral.selection.parts.part import PoolPart
from seral.selection.selection import StrategyOptions, select
from tests import test_layout
from tests.corpora import test_readers
from tests.selection import test_strategies
from tests.ser_models import test_adapters, test_objectives
from tests.ser_models.conftest import tiny_encoder
from tests.verbs import test_verbs

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
FILES = [(path, text) for _, path, text in BLOCK.findall(PAGE) if not (ROOT / path).exists()]
LINES = [(path, text) for _, path, text in BLOCK.findall(PAGE) if (ROOT / path).exists()]
"""Blocks of the page that are new files, and those that are lines of a file that is there."""


def module_name(path: str) -> str:
    return path.removeprefix("platform/").removesuffix(".py").replace("/", ".")


def written(path: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that the page writes to a path, from a file: options take their descriptions from the source."""
    file = folder / path
    file.parent.mkdir(parents=True)
    file.write_text(dict(FILES)[path], encoding="utf-8")
    spec = spec_from_file_location(module_name(path), file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def added(path: str, table: str, namespace: dict[str, Any]) -> tuple[str, Any]:
    """Name and record of the lines that the page adds to a table; `namespace` is that of the table's module."""
    (lines,) = (text for target, text in LINES if target == path and f"# in {table}\n" in text)
    imports, _, entry = lines.partition(f"# in {table}\n")
    scope = dict(namespace)
    exec(imports, scope)
    record: dict[str, Any] = eval("{" + entry + "}", scope)
    ((name, value),) = record.items()
    return name, value


def row(path: str) -> str:
    """The line that the page adds to a page."""
    (line,) = (text.strip() for target, text in LINES if target == path)
    return line


def test_every_file_of_the_page_is_there_or_written_by_it() -> None:
    new = {path for path, _ in FILES}
    assert {path.split("/")[0] for path in new} == {"platform", "ser_models", "jobs"}
    named = set(re.findall(r"`((?:platform|ser_models|jobs|tests|docs)/[\w/.-]+)`", PAGE))
    assert len(named) > 20
    missing = sorted(path for path in named - new if not (ROOT / path).exists())
    assert not missing, f"docs/extending.md names {missing}, which are not there"
    unnamed = sorted(new - named)
    assert not unnamed, f"no table of docs/extending.md names {unnamed}"
    for command in re.findall(r"^\.venv/bin/python -m pytest (.+)$", PAGE, re.MULTILINE):
        assert all((ROOT / path).is_file() for path in command.split()), f"there is no {command}"


def test_every_test_that_the_page_names_is_there() -> None:
    tests = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    for name in re.findall(r"`(test_\w+)`", PAGE):
        assert any(f"def {name}(" in text for text in tests.values()), f"there is no test {name}"


@pytest.mark.parametrize(("path", "text"), FILES, ids=[path for path, _ in FILES])
def test_the_code_of_the_page_follows_the_house_rules(path: str, text: str) -> None:
    tree = ast.parse(text)
    assert all(len(line) <= 120 for line in text.splitlines()), path
    assert ast.get_docstring(tree), f"{path} lacks a docstring"
    assert not list(test_layout.empty_names(tree))
    assert not list(test_layout.leaning_docstrings(tree))
    assert not list(test_layout.foreign_letters(text))
    part, _, floor = module_name(path).partition(".")
    order = test_layout.FLOORS.get(part, [])
    imports = [name.split(".")[1] for _, name in test_layout.imported(tree) if name.startswith(f"{part}.")]
    above = [name for name in imports if order and order.index(name) > order.index(floor.split(".")[0])]
    assert not above, f"{path} imports {above}, which stand above it"


def test_the_reader_reads_its_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written("platform/seral/corpora/mesd.py", tmp_path, monkeypatch)
    name, reader = added("platform/seral/corpora/__init__.py", "READERS", vars(seral.corpora))
    named, layout = added("tests/corpora/test_readers.py", "LAYOUTS", vars(test_readers))
    assert name == named
    monkeypatch.setitem(seral.corpora.READERS, name, reader)
    with pytest.raises(pytest.fail.Exception, match=f"the reader '{name}' has no layout: add a small copy"):
        test_readers.test_every_reader_has_a_layout(name)
    monkeypatch.setitem(test_readers.LAYOUTS, name, layout)
    monkeypatch.setattr(test_readers, "CORPORA", [*test_readers.CORPORA, name])
    with pytest.raises(AssertionError):
        test_readers.test_the_docs_tell_of_every_reader()
    assert re.match(rf"\| `{name}` \|", row("docs/corpora.md"))
    for test in (
        test_readers.test_reader_contract,
        test_readers.test_readers_are_deterministic,
        test_readers.test_reader_refuses_an_empty_folder,
        test_readers.test_nested_and_flat_trees_agree,
        test_readers.test_a_wrong_corpus_is_named_with_a_file_of_it,
    ):
        (tmp_path / test.__name__).mkdir()
        test(name, tmp_path / test.__name__)


def test_the_strategy_picks_the_same_whole_and_in_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written("platform/seral/selection/strategies/votes.py", tmp_path, monkeypatch)
    name, record = added(
        "platform/seral/selection/strategies/__init__.py", "STRATEGIES", vars(seral.selection.strategies)
    )
    assert test_strategies.lacking(name, record) == ["docs/strategies.md has no row for it"]
    monkeypatch.setattr(test_strategies, "ROWS", [*test_strategies.ROWS, row("docs/strategies.md").split("|")[1]])
    assert test_strategies.lacking(name, record) == []
    monkeypatch.setitem(seral.selection.strategies.STRATEGIES, name, record)
    test_strategies.test_a_strategy_reads_what_it_says_it_needs_and_nothing_else(name)
    columns = test_strategies.pool(40, 4, 0)
    whole, strategy = Candidates(**columns), StrategyOptions(name=name)
    picks = select(strategy, whole, 9, np.random.default_rng(0))
    parts = Parts([PoolPart(whole.take(np.arange(first, 40, 3))) for first in range(3)])
    assert select_in_parts(strategy, parts, 9, np.random.default_rng(0)) == Picks(picks, exact=True)
    votes_RN = whole.need("dropout_RNC").argmax(axis=2)
    agreed = {whole.ids[n] for n in range(40) if len(set(votes_RN[:, n].tolist())) == 1}
    assert not agreed & set(picks) or set(whole.ids) - agreed < set(picks)


def test_the_adapter_changes_nothing_learns_and_survives_the_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    written("ser_models/adapters/ssf.py", tmp_path, monkeypatch)
    name, record = added("ser_models/adapters/__init__.py", "ADAPTERS", vars(ser_models.adapters))
    monkeypatch.setitem(ser_models.adapters.ADAPTERS, name, record)
    test_adapters.test_every_entry_of_the_table_is_complete(name)
    assert record.identity
    test_adapters.test_a_fresh_adapter_leaves_the_output_bit_for_bit_unchanged(tiny_encoder("whisper"), name)
    for spec in (name, f"lora+{name}"):
        test_adapters.test_every_adapter_learns_and_nothing_else_does(tiny_encoder("whisper"), spec)
        test_adapters.test_adapters_can_be_switched_off_for_a_while(tiny_encoder("whisper"), spec)
    encoder = attach_adapters(tiny_encoder("hubert-group"), name, seed=0)
    test_adapters.train_a_little(encoder)
    save_adapter(encoder, tmp_path)
    loaded = load_adapter(tiny_encoder("hubert-group"), tmp_path)
    assert loaded.adapters == {name: record.options()}
    saved = adapter_parameters(encoder)
    assert all(torch.equal(parameter, saved[key]) for key, parameter in adapter_parameters(loaded).items())
    with torch.no_grad():
        clips = test_adapters.clips()
        assert torch.equal(loaded(*clips).hidden_LBTD, encoder(*clips).hidden_LBTD)


def test_the_objective_learns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = written("ser_models/objectives/masked_loudness.py", tmp_path, monkeypatch)
    name, record = added("ser_models/objectives/__init__.py", "OBJECTIVES", vars(ser_models.objectives))
    monkeypatch.setitem(ser_models.objectives.OBJECTIVES, name, record)
    monkeypatch.setitem(test_objectives.FAMILY, name, "whisper")
    assert find_objective(name, "whisper") == name
    assert find_objective(None, "whisper") == "masked_clusters"
    test_objectives.test_its_loss_is_finite_and_reaches_what_it_trains(name, tiny_encoder)
    test_objectives.test_the_seed_decides_and_nothing_global(name, tiny_encoder)
    test_objectives.test_its_heads_survive_the_disk(name, tiny_encoder, tmp_path)
    objective = test_objectives.made_objective(name, tiny_encoder)
    assert isinstance(objective, module.MaskedLoudness)
    wave_BS, length_B = torch.ones(1, 16_000), torch.tensor([16_000])
    wave_BS[:, 8_000:] = 10 ** (-35 / 20)
    frames = int(objective.encoder.frames(length_B))
    level_T = objective.levels(wave_BS, length_B)[0].tolist()
    assert level_T[: frames // 2 - 1] == [0] * (frames // 2 - 1)
    assert level_T[frames // 2 + 1 :] == [int(35 / module.RANGE_DB * 6)] * (frames - frames // 2 - 1)


def test_the_verb_runs_as_a_command_and_as_a_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = written("platform/seral/pool/hours.py", tmp_path, monkeypatch)
    name, verb = added("platform/seral/verbs/__init__.py", "VERBS", vars(seral.verbs))
    monkeypatch.setitem(seral.verbs.VERBS, name, verb)
    test_verbs.test_the_table_is_keyed_by_name()
    test_verbs.test_a_verb_has_a_help_of_one_sentence(verb)
    test_verbs.test_a_verb_has_options_that_explain_themselves(verb)
    test_verbs.test_a_verb_has_a_function_of_its_options(verb)
    with pytest.raises(AssertionError, match=rf"jobs/ lacks {verb.file}: each calls run_verb"):
        test_verbs.test_every_job_has_its_file_and_every_file_its_verb()
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    (jobs / verb.file).write_text(dict(FILES)[f"jobs/{verb.file}"], encoding="utf-8")
    monkeypatch.setattr(test_verbs, "JOBS", jobs)
    test_verbs.test_a_job_file_runs_its_verb_and_holds_no_logic(verb)
    test_verbs.test_a_job_file_shadows_no_module_of_python(verb)

    uri = small_pool(tmp_path)
    values = [f"pool={uri}", "by=language"]
    assert verb.call(load(verb.options_model(), None, values, verb.name)) == {"de": 2.0, "unknown": 1.0}
    assert verb.options_model() is module.HoursOptions
    app = typer.Typer()
    add_configured(app, [verb, seral.verbs.VERBS["degrade"]])
    listed = CliRunner().invoke(app, [verb.words[-1], "--options"])
    assert "by = corpus" in listed.output
    printed = CliRunner().invoke(app, [verb.words[-1], *(f"--set={value}" for value in values)])
    assert re.findall(r"(\w+) +([\d.]+)", printed.output) == [("de", "2.0"), ("unknown", "1.0")]
    monkeypatch.setattr(sys, "argv", [verb.file, *values])
    exec(dict(FILES)[f"jobs/{verb.file}"], {"__name__": "__main__"})
    assert capsys.readouterr().out == "{'de': 2.0, 'unknown': 1.0}\n"


def small_pool(folder: Path) -> str:
    """A pool of three utterances of an hour each, without audio."""
    rows = [
        {"utterance_id": f"c-{number}", "corpus": "c", "language": language, "duration_s": 3600.0}
        for number, language in enumerate(["de", "de", None])
    ]
    uri = str(folder / "pool")
    storage.write_table(storage.join(uri, "utterances", "one.parquet"), pa.Table.from_pylist(rows, UTTERANCE))
    storage.write_json(storage.join(uri, MANIFEST), {"format": FORMAT, "pool_hash": "", "shards": {"one": {"rows": 3}}})
    return uri
