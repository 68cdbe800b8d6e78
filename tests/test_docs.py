"""The documentation names what is there: every page, link, picture, command and file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import seral
from ser_models.adapters import ADAPTERS
from ser_models.encoders import FAMILIES
from ser_models.metrics import METRICS
from ser_models.objectives import OBJECTIVES
from seral import cli
from seral.corpora import READERS
from seral.selection.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")] + PAGES
COMMAND_PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *(page for page in PAGES if page.parent == DOCS or page.name == "index.md"),
]
"""Pages whose commands are today's; the other results pages quote those of the day they were measured on."""
OLD = {"seral layers anchor", "seral loop options", "seral local-attributes"}
"""Commands that the changelog names as gone."""
RECIPE = {"seral pool hours"}
"""The command that a recipe of docs/extending.md makes."""
TITLE = re.compile(r'title="([^"]+)"')
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
CODE = re.compile(r"```.*?```|`[^`]+`", re.DOTALL)
SERAL = re.compile(r"(?<![\w./-])(?<!from )seral((?: +[a-z][a-z-]*)+)([^;|&`]*)")
JOB_FILE = re.compile(r"\bjobs/[\w./-]*\w")
PYTHON = re.compile(r"(?<![\w./-])(?:seral|ser_models)(?:\.[A-Za-z_]\w*)+(?![\w/])(?!\.(?:svg|png|yaml|json))")
IMPORT = re.compile(r"^from ((?:seral|ser_models)[\w.]*) import ([\w, ]+)$", re.MULTILINE)
MODULE = re.compile(r"python -m (jobs\.[\w.]+)")
README_LINES, LINE = 120, 200
ENTRY_POINTS = {table.group for table in (ADAPTERS, FAMILIES, METRICS, OBJECTIVES, READERS, STRATEGIES)}
"""Groups of entry points of packages that bring parts."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose_of(text: str) -> str:
    """The text without code, in which square brackets and parentheses are no links."""
    return CODE.sub("", text)


def code_of(text: str) -> Iterator[str]:
    """Lines of code blocks and inline code, without what is said behind `#`."""
    for block in CODE.findall(text):
        for line in block.strip("`").splitlines():
            yield re.split(r"(?:^|\s)#", line)[0]


def slug(heading: str) -> str:
    """The anchor of a heading, as Markdown's `toc` makes it."""
    plain = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


def nav_of(entries: list[Any]) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else nav_of(value)


def site() -> dict[str, Any]:
    """mkdocs.yml, whose names of Python objects are of no matter here."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda *_: None)
    return yaml.load((ROOT / "mkdocs.yml").read_text(), loader)


@cache
def command_line() -> Any:
    return get_command(cli.app)


def command_at(words: list[str]) -> Any:
    """The command that the words after `seral` name, arguments aside. Raises KeyError where there is none."""
    command = command_line()
    for word in words:
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    return command


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts} | {"--help"}


def quoted(path: Path) -> set[tuple[str, tuple[str, ...]]]:
    """Words and options of every `seral ...` in the code of a page."""
    return {
        (" ".join(words.split()), tuple(re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments)))
        for line in code_of(path.read_text())
        for words, arguments in SERAL.findall(line)
        if f"seral {' '.join(words.split())}" not in OLD | RECIPE
    }


def test_every_page_is_in_the_nav_once() -> None:
    pages = [*PAGES, *(path.with_suffix(".md") for path in DOCS.rglob("*.ipynb"))]
    assert sorted(nav_of(site()["nav"])) == sorted(path.relative_to(DOCS).as_posix() for path in pages)


def test_every_results_page_is_linked_from_the_table_of_results() -> None:
    index = (DOCS / "results" / "index.md").read_text()
    for page in (DOCS / "results").glob("*.md"):
        assert page.name == "index.md" or f"({page.name}" in index, f"docs/results/index.md does not link {page.name}"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_link_and_picture_is_there(path: Path) -> None:
    for link in (first or second for first, second in LINK.findall(prose_of(path.read_text()))):
        if link.startswith(("http://", "https://")):
            continue
        address, _, anchor = link.partition("#")
        target = path if not address else (path.parent / address).resolve()
        assert target.exists(), f"{name_of(path)} links {link}, and there is no {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), f"{name_of(path)} links {link}, and there is no such heading"


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= README_LINES
    assert not [line for line in lines if len(line) > LINE]


@pytest.mark.parametrize("path", COMMAND_PAGES, ids=name_of)
def test_every_command_exists(path: Path) -> None:
    for words, options in quoted(path):
        try:
            command = command_at(words.split())
        except KeyError as unknown:
            pytest.fail(f"{name_of(path)} quotes `seral {words}`: there is no command {unknown}")
        strange = set(options) - options_of(command)
        assert not strange, f"{name_of(path)} quotes `seral {words}` with {', '.join(sorted(strange))}: it has none"


def test_the_check_of_commands_finds_what_is_not_there() -> None:
    assert command_at(["pool", "import", "emodb"]).name == "import"
    with pytest.raises(KeyError):
        command_at(["pool", "imports"])
    assert "--out" in options_of(command_at(["pool", "import"]))


@pytest.mark.parametrize("path", [path for path in TEXTS if path.parent != DOCS / "results"], ids=name_of)
def test_every_job_file_exists(path: Path) -> None:
    text = path.read_text()
    for line in code_of(text):
        for file in set(JOB_FILE.findall(line)) - set(TITLE.findall(text)):  # a page may show a file to write
            assert (ROOT / file).exists(), f"{name_of(path)} names {file}, which is not there"
        for module in set(MODULE.findall(line)) - {"jobs.bench.NAME"}:
            file = ROOT / f"{module.replace('.', '/')}.py"
            main = file.with_suffix("") / "__main__.py"
            assert file.is_file() or main.is_file(), f"{name_of(path)} names {module}, and there is no {file}"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_python_name_is_there(path: Path) -> None:
    """Names such as `seral.verbs.VERBS`: a module, or what is in one; results pages quote commits of their day."""
    text = path.read_text()
    written = modules_written_by(text)
    for address in sorted(set(PYTHON.findall("\n".join(code_of(text)))) - ENTRY_POINTS):
        names = address.split(".")
        count = next((n for n in range(len(names), 0, -1) if find_module(".".join(names[:n]))), 0)
        if ".".join(names[: count + 1]) in written:
            continue
        assert count >= len(names) - 1, f"{name_of(path)} names {address}: there is no {'.'.join(names[:-1])}"
        if count < len(names):
            module = import_module(".".join(names[:-1]))
            assert hasattr(module, names[-1]), f"{name_of(path)} names {address}, which is not there"


def modules_written_by(text: str) -> set[str]:
    """Python modules that are titles of blocks of a page: what a recipe writes."""
    files = (file.removeprefix("platform/") for file in TITLE.findall(text) if not (ROOT / file).exists())
    return {file.removesuffix(".py").replace("/", ".") for file in files}


@cache
def find_module(name: str) -> bool:
    """Whether there is a module or package of that name."""
    package = name.rpartition(".")[0]
    if package and not (find_module(package) and hasattr(import_module(package), "__path__")):
        return False
    return find_spec(name) is not None


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_every_import_of_python_code_works(path: Path) -> None:
    written = {
        file.removeprefix("platform/").removesuffix(".py").replace("/", ".") for file in TITLE.findall(path.read_text())
    }
    for module, names in IMPORT.findall(path.read_text()):
        if module in written:
            continue
        for name in (word.strip() for word in names.split(",")):
            there = hasattr(import_module(module), name) or find_module(f"{module}.{name}")
            assert there, f"{name_of(path)} imports {name} from {module}, which has none"


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    arguments = ["build", "--strict", "--quiet", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path / "site")]
    built = subprocess.run([sys.executable, "-m", "mkdocs", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        assert not re.findall(r'<(?:script|img|link)\b[^>]*(?:src|href)="?(?:https?:)?//', page.read_text()), page.name
    api = (tmp_path / "site" / "python.html").read_text()
    for name in (name for name in seral.__all__ if not name.startswith("__")):
        assert f'id="seral.{name}' in api, f"the page of the Python API lacks {name}"
