"""Patterns of paths: a regular expression whose named groups are fields of an utterance."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from seral.corpora.reading.fields import ALIASES
from seral.errors import OptionError, unknown_name

GROUPS = tuple(name for name in ALIASES if name not in ("audio", "duration_s"))


class PathPattern:
    """A pattern for the path below the corpus folder, without the suffix or with it, whatever folders come before."""

    def __init__(self, text: str) -> None:
        """Raises OptionError for text that is no regular expression, or that has other groups than GROUPS, or none."""
        self.text = text
        try:
            self._whole = re.compile(rf"(?:.*/)?(?:{text})")
        except re.error as error:
            raise OptionError(f"the pattern {text!r} is no regular expression: {error}") from None
        if not self._whole.groupindex:
            example = r"(?P<speaker>\d\d)_(?P<emotion>[a-z]+)"
            raise OptionError(f"the pattern {text!r} names no group, of {', '.join(GROUPS)}; for example {example}")
        for name in self._whole.groupindex:
            if name not in GROUPS:
                message = unknown_name("group", name, GROUPS)
                end = "" if message.endswith("?") else "."
                raise OptionError(f"pattern: {message}{end} A group that says nothing needs no name: (...)")

    def groups(self, path: str) -> dict[str, tuple[str, str]] | None:
        """Our name -> (the group for errors, its text), of the groups that matched; None where the path does not."""
        suffix = PurePosixPath(path).suffix
        match = self._whole.fullmatch(path.removesuffix(suffix)) or self._whole.fullmatch(path)
        if match is None:
            return None
        return {name: (f"(?P<{name}>", text) for name, text in match.groupdict().items() if text is not None}
