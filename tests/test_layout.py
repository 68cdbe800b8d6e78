"""The rules about where code may live and what it may import, checked on the syntax tree of every file."""

from __future__ import annotations

import ast
import re
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
FLOORS = {
    "seral": [
        *("secrets", "errors", "schema", "versions", "progress", "process", "security", "storage", "options"),
        *("figures", "vectors", "audio", "synthesis", "cluster"),
        *("corpora", "pool", "features", "labels", "web", "selection"),
        *("task", "pretraining", "training", "erase", "loop", "models"),
        *("exports", "testing", "report", "studies", "sweep", "verbs", "submit", "cli"),
    ],
    "ser_models": [
        *(
            "checksums",
            "channels",
            "defaults",
            "registry",
            "losses",
            "metrics",
            "intervals",
            "pooling",
            "moments",
            "heads",
            "encoders",
            "audio_text",
            "fitting",
            "transfer",
            "relevance",
        ),
        *("alignment", "similarity"),
        *("training", "adapters", "objectives", "build", "exports", "inference", "adaptation"),
    ],
}
"""Folders and loose modules of each part, the ground first: an import may only go down its list."""
TOP_MODULES = 9
FOLDER_LINES = 5000
MODULE_LINES = 450
FUNCTION_LINES = 60
EMPTY_NAMES = {
    *("told", "found", "heard", "said", "given", "known", "here", "rest", "seen", "kept", "held", "place"),
}
"""Names that say nothing of what they hold: predictions, rows, a path, scores and ids have names of their own."""
OPENINGS = {
    *("The same", "Those", "These", "Some of", "Its", "It", "They", "As"),
    *("What", "How", "Which", "Where", "Who", "When"),
}
"""Words that lean on the code around a docstring, or make a question of it; both mean nothing in help()."""
LEGEND = {
    "A": ("anchors",),
    "B": ("batch", "clips", "rows", "budgets"),
    "C": ("classes", "channels"),
    "D": ("features", "encoder width"),
    "E": ("text features", "features of a transcript", "conv features"),
    "F": ("folds", "frequency bins", "real frames"),
    "G": ("groups", "codebook groups"),
    "H": ("heads",),
    "J": ("joint answers",),
    "K": ("rated dimensions", "clusters", "prototypes", "units", "neighbours", "distractors"),
    "L": ("hidden states",),
    "M": ("labelled", "centres", "copies", "clips", "mel bands", "masked frames", "hidden frames"),
    "N": ("rows", "candidates", "clips", "utterances", "frames"),
    "O": ("outputs",),
    "P": ("pairs", "principal directions", "new picks", "parts", "projected features", "projection", "prefix length"),
    "Q": ("clusters", "queries", "clips in the queue"),
    "R": ("repeats",),
    "S": ("samples",),
    "T": ("frames", "mel frames", "tokens"),
    "U": ("embedding",),
    "V": ("codewords",),
}
"""Letter of a shape -> how its meaning may begin in a module's legend (`# N rows · L hidden states · D features`), the
usual one first. L counts hidden states, one more than encoder layers, and nothing else."""
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


def module_of(part: str, path: Path) -> str:
    """Dotted name of a file; a package has the name of its folder."""
    parts = path.relative_to(SOURCES[part].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def project_imports(modules: dict[str, Path], path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of the project's own code, inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module in modules:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield node.lineno, inner if inner in modules else node.module


def import_graph(part: str) -> dict[str, set[str]]:
    """Module -> the modules of the same part that it imports; the package's own face, which is lazy, left out."""
    modules = {module_of(part, path): path for path in files(part)}
    graph = {name: {to for _, to in project_imports(modules, path)} - {name} for name, path in modules.items()}
    return {name: to for name, to in graph.items() if name != part}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another, each sorted."""
    reachable = {name: set(to) for name, to in graph.items()}
    for middle in graph:
        for name, to in reachable.items():
            if middle in to:
                reachable[name] = to | reachable[middle]
    groups = {
        tuple(sorted(other for other in to if name in reachable.get(other, ())))
        for name, to in reachable.items()
        if name in to
    }
    return [list(group) for group in sorted(groups)]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def stored_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable, parameter, attribute, function and alias that a file makes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.lineno, node.name


def empty_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of what is stored under an empty name, whatever its shape suffix (`told_NC`) and underscore."""
    for line, name in stored_names(tree):
        if re.sub(r"_[A-Z0-9]+$", "", name).strip("_") in EMPTY_NAMES:
            yield line, name


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those under fields and constants too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


def leaning_docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and opening of every docstring that does not stand alone."""
    for line, text in docstrings(tree):
        if opening := re.match(rf"({'|'.join(sorted(OPENINGS, key=len, reverse=True))})\b", text):
            yield line, opening.group()


def foreign_letters(source: str) -> Iterator[tuple[int, str, str]]:
    """Line, letter and meaning of every entry of a module's legend that is not in LEGEND."""
    for number, line in enumerate(source.splitlines(), start=1):
        entries = [re.fullmatch(r"([A-Z](?:, [A-Z])*) ([a-z].*)", part) for part in line[2:].split(" · ")]
        legend = [entry for entry in entries if entry and line.startswith("# ")]
        for letters, meaning in (entry.groups() for entry in legend if len(legend) == len(entries)):
            wrong = [letter for letter in letters.split(", ") if not meaning.startswith(LEGEND.get(letter, ()))]
            yield from ((number, letter, meaning) for letter in wrong)


def unsafe_loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and call of everything that may run code hidden in a file it reads."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        owner, _, function = called.rpartition(".")
        if UNPICKLING & set(owner.split(".")) and function in {"load", "loads", "open", "Unpickler"}:
            yield node.lineno, called
        elif called == "torch.load" and keywords.get("weights_only") != "True":
            yield node.lineno, "torch.load without weights_only=True"
        elif function in {"load", "save", "savez"} and keywords.get("allow_pickle", "False") != "False":
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
    path = Path(done.stdout.strip())
    assert not path.is_relative_to(ROOT)
    assert path.name == "platform.py"


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


@pytest.mark.parametrize("part", FLOORS)
def test_imports_run_down_the_floors(part: str) -> None:
    order, wrong = FLOORS[part], []
    modules = {module_of(part, path): path for path in files(part)}
    floor_of = {name: name.split(".")[1] for name in modules if "." in name}
    unknown = {floor for floor in floor_of.values() if floor not in {*order, "__main__"}}
    assert not unknown, f"{sorted(unknown)} have no place in FLOORS[{part!r}]: put them above all that they import"
    for name, path in modules.items():
        own_floor = floor_of.get(name)
        for line, to in project_imports(modules, path):
            there = floor_of.get(to)
            if own_floor in order and (there is None or order.index(there) > order.index(own_floor)):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {own_floor} imports {to}, which stands above it")
    assert not wrong, f"imports may only go down; from the ground: {', '.join(order)}\n" + "\n".join(wrong)


@pytest.mark.parametrize("part", FLOORS)
def test_no_files_import_each_other_in_a_circle(part: str) -> None:
    assert circles(import_graph(part)) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_the_top_of_the_package_is_small() -> None:
    top = sorted(path.name for path in SOURCES["seral"].glob("*.py"))
    assert len(top) <= TOP_MODULES, f"{len(top)} modules lie loose: {', '.join(top)}"


def test_no_folder_is_a_warehouse() -> None:
    sizes: dict[str, int] = {}
    for folder in (folder for part in ("seral", "ser_models") for folder in SOURCES[part].iterdir() if folder.is_dir()):
        code = [path for path in folder.rglob("*") if path.suffix in {".py", ".js", ".html", ".css", ".j2"}]
        sizes[f"{folder.parent.name}/{folder.name}"] = sum(lines_of(path) for path in code)
    assert {name: size for name, size in sizes.items() if size > FOLDER_LINES} == {}


def test_modules_and_functions_stay_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines_of(path)} lines" for _, path in every_file() if lines_of(path) > MODULE_LINES
    ]
    for _, path in every_file():
        for function in functions(path):
            size = (function.end_lineno or function.lineno) - function.lineno + 1
            if size > FUNCTION_LINES:
                long.append(f"{path.relative_to(ROOT)}:{function.lineno}: {function.name} has {size} lines")
    assert not long, "split them:\n" + "\n".join(long)


def test_jobs_stay_short() -> None:
    lines = {path.name: lines_of(path) for path in files("jobs") if "bench" not in path.parts}
    assert {name: count for name, count in lines.items() if count > JOB_LINES} == {}


def test_no_module_has_a_name_that_says_nothing_or_shadows() -> None:
    named = [(path, name) for _, path in every_file() for name in (path.stem, path.parent.name)]
    inside = [str(path.relative_to(ROOT)) for path, name in named if name in FORBIDDEN_MODULES]
    assert inside == []


def test_names_say_what_they_hold() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {name!r} says nothing of what it holds: name the content"
        for path in (*(path for _, path in every_file()), *sorted((ROOT / "tests").rglob("*.py")))
        for line, name in empty_names(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not wrong, "\n".join(wrong)


def test_docstrings_stand_alone() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: a docstring opens with {word!r}: say what it is, for a reader of help()"
        for _, path in every_file()
        for line, word in leaning_docstrings(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not wrong, "\n".join(wrong)


def test_a_letter_of_a_shape_means_one_thing() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {letter} is {meaning!r}, but LEGEND says {LEGEND.get(letter, 'nothing')}"
        for _, path in every_file()
        for line, letter, meaning in foreign_letters(path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "take a letter that means this, or add the meaning to LEGEND:\n" + "\n".join(wrong)


def test_the_checks_of_names_find_what_they_should() -> None:
    tree = ast.parse(
        'def f(told_NC):\n    """What."""\n    a.seen = _found = 1\n    for place in x: keep\n'
        'class A:\n    found_ids: int\n    """Whether."""\n    b: str\n    """The same."""\n'
    )
    assert sorted(name for _, name in empty_names(tree)) == ["_found", "place", "seen", "told_NC"]
    assert sorted(word for _, word in leaning_docstrings(tree)) == ["The same", "What"]
    legend = "# N rows · L encoder layers · D features\n# N, M clips\n# Z zeros\n# A word of prose\nx = 1  # L layers\n"
    assert [letter for _, letter, _ in foreign_letters(legend)] == ["L", "Z", "A"]


def test_nothing_is_ever_unpickled() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {call}"
        for _, path in every_file()
        for line, call in unsafe_loads(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "unsafe"),
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
def test_the_check_for_unsafe_loads_finds_what_it_should(code: str, unsafe: bool) -> None:
    assert bool(list(unsafe_loads(ast.parse(code)))) is unsafe


def test_the_import_check_sees_imports_inside_functions() -> None:
    tree = ast.parse("def f():\n    import ray.data\n    from seral.pool import ingest\n    from . import x\n")
    assert [name for _, name in imported(tree)] == ["ray.data", "seral.pool", "."]
