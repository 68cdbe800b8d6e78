"""One source file that holds a few classes and all that they use of this package, so that it runs without it.

What is loaded from such a file is the code that trained, word for word: there is no second version to keep equal.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

FUTURE = "from __future__ import annotations"


@dataclass
class Source:
    """The top of a module: its definitions and imports by name."""

    module: str
    lines: list[str]
    definitions: dict[str, ast.stmt] = field(default_factory=dict)
    """Name -> the statement that binds it, in the order of the file."""
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Name -> the module that it is imported from and its name there, of the packages that are bundled."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Name -> the line that imports it from another package."""

    def text(self, name: str) -> str:
        """The source of a definition, decorators included."""
        node = self.definitions[name]
        decorators: list[ast.expr] = getattr(node, "decorator_list", [])
        first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(self.lines[first - 1 : node.end_lineno])


def bundle(roots: Sequence[type], footer: str, about: str) -> str:
    """The source of some classes with all that they use of their packages, and `footer` behind it.

    `about` is the docstring. Raises ValueError where two modules mean different things by one name.
    """
    packages = {root.__module__.partition(".")[0] for root in roots} | {__name__.partition(".")[0]}
    bundler = _Bundler(packages)
    for root in roots:
        bundler.add(root.__module__, root.__name__)
    header = [f'"""{about}"""', FUTURE, "\n".join(sorted(bundler.foreign))]
    return "\n\n\n".join([*header, *bundler.texts, footer.strip()]) + "\n"


class _Bundler:
    def __init__(self, packages: set[str]) -> None:
        self.packages = packages
        self.sources: dict[str, Source] = {}
        self.texts: list[str] = []
        self.foreign: dict[str, None] = {}
        self.owner: dict[str, str] = {}

    def add(self, module: str, name: str) -> None:
        """Append a definition, after those that it uses."""
        source = self._source(module)
        if name in source.imports:
            origin, original = source.imports[name]
            if original != name:
                raise ValueError(f"{module} imports {origin}.{original} as {name}: exports need it under its own name")
            self.add(origin, name)
        elif name in source.foreign:
            self._own(name, source.foreign[name])
            self.foreign[source.foreign[name]] = None
        elif name in source.definitions and self._own(name, module):
            node = source.definitions[name]
            for used in _names(node):
                self.add(module, used)
            self.texts.append(source.text(name))

    def _own(self, name: str, owner: str) -> bool:
        """Whether a name is new. ValueError where it is another's."""
        new = name not in self.owner
        first = self.owner.setdefault(name, owner)
        if first != owner:
            raise ValueError(f"{first} and {owner} both have a {name}: rename one, or no export can hold both")
        return new

    def _source(self, module: str) -> Source:
        if module not in self.sources:
            self.sources[module] = _read(module, self.packages)
        return self.sources[module]


def _read(module: str, packages: set[str]) -> Source:
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"the source of {module} is not to be found: no export can hold its classes")
    text = Path(spec.origin).read_text(encoding="utf-8")
    source = Source(module, text.splitlines())
    for node in ast.parse(text).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in packages:
            for alias in node.names:
                source.imports[alias.asname or alias.name] = (str(node.module), alias.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                renamed = f" as {alias.asname}" if alias.asname else ""
                origin = f"from {node.module} " if isinstance(node, ast.ImportFrom) else ""
                bound = alias.asname or alias.name.partition(".")[0]
                source.foreign[bound] = f"{origin}import {alias.name}{renamed}"
        else:
            source.definitions.update(dict.fromkeys(_bound_by(node), node))
    return source


def _bound_by(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.AnnAssign | ast.Assign):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
        for target in targets:
            yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def _names(node: ast.AST) -> list[str]:
    """Names that a definition reads, in their order, without Python's own."""
    read = (part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load))
    return [name for name in dict.fromkeys(read) if not hasattr(builtins, name)]
