"""The rules about where code may live and what it may import, checked on the syntax tree of every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "jobs": ROOT / "jobs",
    "seral": ROOT / "platform" / "seral",
    "ser_models": ROOT / "ser_models",
}
FORBIDDEN_IMPORTS = {
    "jobs": set(),
    "seral": {"jobs"},
    "ser_models": {"jobs", "seral", "ray", "pyarrow", "faiss"},
}
FORBIDDEN_MODULES = {
    *("utils", "helpers", "common", "base", "manager"),
    *("select", "queue", "types", "io", "random", "statistics", "copy", "code", "test", "platform"),
}
JOB_LINES = 100
FLOORS = [
    *("errors", "schema", "versions", "progress", "storage", "options"),
    *("figures", "vectors", "audio", "synthesis", "cluster"),
    *("corpora", "pool", "features", "labels", "selection"),
    *("task", "pretraining", "training", "erase", "loop", "predict"),
    *("report", "studies", "sweep", "submit", "verbs", "cli"),
]
"""Folders and loose modules of platform/seral, the ground first: an import may only go down this list."""
UNPICKLING = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def files(part: str) -> list[Path]:
    return sorted(path for path in SOURCES[part].rglob("*.py") if "__pycache__" not in path.parts)


def every_file() -> list[tuple[str, Path]]:
    return [(part, path) for part in SOURCES for path in files(part)]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything a file imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level + (node.module or "")


def unsafe_loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and call of everything that may run code hidden in a file it reads."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        owner, _, function = called.rpartition(".")
        if UNPICKLING & set(owner.split(".")) and function in {"load", "loads", "open", "Unpickler"}:
            yield node.lineno, called
        elif called == "torch.load" and given.get("weights_only") != "True":
            yield node.lineno, "torch.load without weights_only=True"
        elif function in {"load", "save", "savez"} and given.get("allow_pickle", "False") != "False":
            yield node.lineno, f"{called} with allow_pickle"


def test_the_trees_are_where_this_test_looks() -> None:
    for part in SOURCES:
        assert len(files(part)) >= 5, f"no files found for {part}"


def test_platform_is_a_folder_and_never_a_package() -> None:
    stray = [path.name for path in (ROOT / "platform").glob("*.py*")]
    assert stray == [], "a package called platform would shadow Python's own: torch and Ray die from the repo root"


def test_import_platform_at_the_root_is_the_standard_library() -> None:
    script = "import platform, sys; print(platform.__file__); sys.exit(not platform.python_version())"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    found = Path(done.stdout.strip())
    assert not found.is_relative_to(ROOT)
    assert found.name == "platform.py"


@pytest.mark.parametrize("part", SOURCES)
def test_imports_run_in_one_direction(part: str) -> None:
    wrong = []
    for path in files(part):
        for line, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            if name.startswith("."):
                wrong.append(f"{path.relative_to(ROOT)}:{line} has the relative import {name!r}")
            elif name.split(".")[0] in FORBIDDEN_IMPORTS[part]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "imports run jobs -> seral -> ser_models only:\n" + "\n".join(wrong)


def test_jobs_stay_short() -> None:
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in files("jobs")}
    assert {name: count for name, count in lines.items() if count > JOB_LINES} == {}


def test_no_module_has_a_name_that_says_nothing_or_shadows() -> None:
    named = [(path, name) for _, path in every_file() for name in (path.stem, path.parent.name)]
    inside = [str(path.relative_to(ROOT)) for path, name in named if name in FORBIDDEN_MODULES]
    assert inside == []


def test_nothing_is_ever_unpickled() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {call}"
        for _, path in every_file()
        for line, call in unsafe_loads(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("pickle.load(f)", True),
        ("ray.cloudpickle.loads(b)", True),
        ("cloudpickle.loads(b)", True),
        ("torch.load(f)", True),
        ("torch.load(f, weights_only=False)", True),
        ("torch.load(f, weights_only=True)", False),
        ("np.load(f, allow_pickle=True)", True),
        ("np.load(f, allow_pickle=False)", False),
        ("np.load(f)", False),
        ("json.load(f)", False),
    ],
)
def test_the_check_for_unsafe_loads_finds_what_it_should(code: str, found: bool) -> None:
    assert bool(list(unsafe_loads(ast.parse(code)))) is found


def test_the_import_check_sees_imports_inside_functions() -> None:
    tree = ast.parse("def f():\n    import ray.data\n    from seral.pool import ingest\n    from . import x\n")
    assert [name for _, name in imported(tree)] == ["ray.data", "seral.pool", "."]
