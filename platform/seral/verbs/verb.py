"""The record of a verb, and the name of its job file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seral.options import Options


@dataclass(frozen=True, kw_only=True)
class Verb:
    """A function of one options model, and the ways to call it. Options and function are imported when asked for."""

    name: str
    """Key of the table, `verb:` of configuration files, and, with `_` for `-`, the job file."""
    options: str
    """The options model, as module:name."""
    function: str
    """The function that takes the options, as module:name."""
    help: str
    """One sentence."""
    about: str = ""
    """Further paragraphs of the command's help, in Markdown."""
    command: str = ""
    """Words of the command after `seral`, where they are not the name."""
    plan: str = ""
    """The function of the options that says what would be done (`--dry-run`), as module:name; '' = there is none."""
    job: bool = True
    """Whether it may run as a job on a cluster: jobs/ has its file then."""

    @property
    def words(self) -> list[str]:
        """The command after `seral`: groups, then the command itself."""
        return (self.command or self.name).split()

    @property
    def file(self) -> str:
        """Name of the job file."""
        return file_of(self.name)

    @property
    def manual(self) -> str:
        """The help of the command, in Markdown."""
        return f"{self.help}\n\n{self.about}".strip()

    def options_model(self) -> type[Options]:
        """The model of its options, imported now."""
        return _resolve(self.options)  # type: ignore[no-any-return]  # a name becomes a type at run time only

    def call(self, options: Options) -> object:
        """Run it; returns what is worth printing, of a run that is complete at once."""
        from seral.task.complete import outcome_of, write_complete

        if (done := outcome_of(self.name, options)) is not None:
            return done
        call: Callable[[Options], object] = _resolve(self.function)
        outcome = call(options)
        write_complete(self.name, options, outcome)
        return outcome

    def foresee(self, options: Options) -> dict[str, str]:
        """Say what it would read, compute and write, and how long that takes, by parts; nothing is done or written."""
        plan: Callable[[Options], dict[str, str]] = _resolve(self.plan)
        return plan(options)


def _resolve(address: str) -> Any:
    module, _, name = address.partition(":")
    return getattr(import_module(module), name)


def file_of(job: str) -> str:
    """Name of the file of a job: a verb's name, or the file's without .py."""
    return f"{job.replace('-', '_')}.py"
