"""The contract of the table of verbs: every record is complete, and jobs/ and the command line agree with it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from corpus_layouts.pool_rows import write_large_pool

from seral.options import Options, every_option
from seral.verbs import VERBS, Verb, file_of

JOBS = Path(__file__).resolve().parents[2] / "jobs"
PAGE = JOBS.parent / "docs" / "configuration.md"
SENTENCE = re.compile(r"[A-Z][^.]*[a-z)]\.")
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)


def test_the_table_is_keyed_by_name() -> None:
    wrong = [f"{key!r} holds the record of {verb.name!r}" for key, verb in VERBS.items() if key != verb.name]
    assert not wrong, "; ".join(wrong)
    commands = [" ".join(verb.words) for verb in VERBS.values()]
    assert len(set(commands)) == len(commands), "two verbs have one command"


@every_verb
def test_a_verb_has_a_help_of_one_sentence(verb: Verb) -> None:
    assert SENTENCE.fullmatch(verb.help), f"{verb.name}: help should be one sentence, ending in a full stop"
    assert len(verb.help) <= 110, f"{verb.name}: help should fit on a line, has {len(verb.help)} characters"
    assert re.search(rf"Example: `seral {' '.join(verb.words)} ", verb.about), f"{verb.name}: about lacks its Example"


def test_the_docs_tell_of_every_verb() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    missing = [name for name in VERBS if not any(f"`{name}`" in row.split("|")[1] for row in rows)]
    assert not missing, f"docs/configuration.md has no row for {missing} in its table of verbs"


@every_verb
def test_a_verb_has_options_that_explain_themselves(verb: Verb) -> None:
    model = verb.options_model()
    assert issubclass(model, Options), f"{verb.name}: {verb.options} is no model of seral.options.Options"
    dumb = [path for path, field in every_option(model) if not field.description]
    assert not dumb, f"{verb.name}: {verb.options} lacks a docstring under {', '.join(dumb)}"
    assert "verb" not in model.model_fields, f"{verb.name}: `verb` is the key of its files that names it"


@every_verb
def test_a_verb_has_a_function_of_its_options(verb: Verb) -> None:
    module, _, name = verb.function.partition(":")
    function = getattr(import_module(module), name)
    parameters = list(inspect.signature(function).parameters.values())
    assert len(parameters) == 1, f"{verb.name}: {verb.function} should take its options and nothing else"
    assert parameters[0].annotation == verb.options_model().__name__, (
        f"{verb.name}: {verb.function} takes other options"
    )
    assert function.__doc__, f"{verb.name}: {verb.function} lacks a docstring"


def test_every_job_has_its_file_and_every_file_its_verb() -> None:
    files = {path.name for path in JOBS.glob("*.py")}
    named = {verb.file for verb in VERBS.values() if verb.job}
    assert not named - files, f"jobs/ lacks {', '.join(sorted(named - files))}: each calls run_verb"
    assert not files - named, f"no verb of VERBS is a job called {', '.join(sorted(files - named))}"


@pytest.mark.parametrize("verb", [verb for verb in VERBS.values() if verb.job], ids=lambda verb: verb.name)
def test_a_job_file_runs_its_verb_and_holds_no_logic(verb: Verb) -> None:
    tree = ast.parse((JOBS / verb.file).read_text(encoding="utf-8"))
    assert f"python jobs/{verb.file} " in (ast.get_docstring(tree) or ""), f"{verb.file}: its docstring lacks a call"
    body = [ast.unparse(node) for node in tree.body[1:]]
    main = f"if __name__ == '__main__':\n    run_verb('{verb.name}')"
    assert body == ["from seral.verbs import run_verb", main], f"{verb.file} should call run_verb and nothing else"


@pytest.mark.parametrize("verb", [verb for verb in VERBS.values() if verb.job], ids=lambda verb: verb.name)
def test_a_job_file_shadows_no_module_of_python(verb: Verb) -> None:
    """A job file's folder is the first in which Python looks for modules, for every job in it."""
    assert verb.file.removesuffix(".py") not in sys.stdlib_module_names, f"{verb.name} needs another name"


def test_a_file_is_named_after_the_verb() -> None:
    assert (file_of("two-stage"), file_of("mine_own"), VERBS["pool-import"].file) == (
        "two_stage.py",
        "mine_own.py",
        "pool_import.py",
    )


HEAVY = {"torch", "ray", "transformers", "peft", "sklearn", "scipy", "pandas", "matplotlib", "faiss"}


def imported_by(script: str) -> set[str]:
    """Top-level packages that a script has imported at its end, in a process of its own."""
    script += "\nprint(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", f"import sys; {script}"], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("seral.verbs", {"torch", "ray", "transformers", "pandas", "pyarrow", "numpy", "pydantic"}),
        ("seral.cli", {"torch", "ray", "transformers", "pandas", "pyarrow", "numpy"}),
        ("seral.loop.status", HEAVY),
        ("seral.report.listing", HEAVY | {"sqlalchemy"}),
        ("seral.report.outcome", {"torch", "ray", "transformers", "matplotlib", "sklearn"}),
        ("seral.sweep.board", HEAVY),
        ("seral.verbs.check_run", HEAVY | {"sqlalchemy"}),
        ("seral.task.gold", HEAVY - {"scipy"}),
    ],
)
def test_the_table_imports_nothing_of_what_it_names(module: str, heavy: set[str]) -> None:
    late = heavy & imported_by(f"import {module}")
    assert not late, f"`seral --help` would wait for {', '.join(sorted(late))}"


SERVERS = {"fastapi", "uvicorn", "sqlalchemy"}


@pytest.mark.parametrize(
    ("command", "heavy"),
    [
        ("--version", HEAVY | {"pyarrow", "numpy", "pydantic", "yaml", "rich"}),
        ("loop status --help", HEAVY | {"pyarrow", "numpy", "yaml"}),
        ("config", HEAVY | {"pyarrow", "numpy"}),
        ("protocols", HEAVY | {"pyarrow", "numpy"}),
        ("jobs manifest --options", HEAVY | {"pyarrow", "numpy"}),
        ("labels serve --options", HEAVY | SERVERS | {"pyarrow", "numpy"}),
        ("serve --options", HEAVY | SERVERS),
        ("loop run --options", HEAVY | SERVERS),
        ("loop run --json-schema", HEAVY | SERVERS),
        ("strategies", HEAVY | SERVERS),
    ],
)
def test_a_listing_loads_nothing_of_what_it_does_not_list(command: str, heavy: set[str]) -> None:
    run = "import contextlib\nfrom seral.cli import main\nwith contextlib.suppress(SystemExit): main()"
    late = heavy & imported_by(f"sys.argv = ['seral', *{command.split()!r}]; {run}")
    assert not late, f"`seral {command}` would wait for {', '.join(sorted(late))}"


def test_a_corpus_is_guessed_without_pandas(tmp_path: Path) -> None:
    for name in ("03a01Fa", "08a01Na"):
        (tmp_path / f"{name}.wav").touch()
    run = "import contextlib\nfrom seral.cli import main\nwith contextlib.suppress(SystemExit): main()"
    late = HEAVY & imported_by(f"sys.argv = ['seral', 'pool', 'guess', {str(tmp_path)!r}]; {run}")
    assert not late, f"`seral pool guess` would wait for {', '.join(sorted(late))}"


def test_a_pool_is_counted_without_pandas(tmp_path: Path) -> None:
    """Arrow imports pandas for values of Python, for groups and for what becomes an array of numpy."""
    pool = write_large_pool(tmp_path / "pool", 100, shard_rows=60)
    run = "import contextlib\nfrom seral.cli import main\nwith contextlib.suppress(SystemExit): main()"
    late = HEAVY & imported_by(f"sys.argv = ['seral', 'pool', 'stats', {pool!r}]; {run}")
    assert not late, f"`seral pool stats` would wait for {', '.join(sorted(late))}"


def test_options_are_listed_without_what_they_are_for() -> None:
    modules = sorted({verb.options.partition(":")[0] for verb in VERBS.values()})
    late = HEAVY & imported_by(f"import {', '.join(modules)}")
    assert not late, f"`--options` would wait for {', '.join(sorted(late))}: options live in an options.py, apart"


def test_a_job_of_the_table_checks_its_options_and_lists_them(tmp_path: Path) -> None:
    config = tmp_path / "screen.yaml"
    config.write_text("verb: screen\npool: data/pool\n")
    command = [sys.executable, str(JOBS / "screen.py"), "--config", str(config)]
    done = subprocess.run([*command, "--check", "similarity=0.9"], capture_output=True, text=True, check=True)
    assert "pool: data/pool" in done.stdout
    assert "similarity: 0.9" in done.stdout
    config.write_text("verb: loop\npool: data/pool\n")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "holds options of 'loop', not of 'screen'" in done.stderr
