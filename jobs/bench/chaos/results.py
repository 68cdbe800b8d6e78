"""Records of tries, as JSON lines that are written as they come: the same command goes on after the last of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Results:
    """Records in a file, each by the values of its `key`."""

    def __init__(self, file: Path, key: Sequence[str]) -> None:
        self._file, self._key = file, key
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        self.records: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def __contains__(self, key: tuple[Any, ...]) -> bool:
        return any(self._of(record) == key for record in self.records)

    def add(self, record: dict[str, Any]) -> None:
        """Write a record, which has at least the values of the key."""
        self.records.append(record)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with open(self._file, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def failed(self) -> list[str]:
        """A line for each record that has something in `wrong`."""
        return [
            f"    {', '.join(map(str, self._of(record)))}: {'; '.join(record['wrong'])}"
            for record in self.records
            if record["wrong"]
        ]

    def _of(self, record: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(record[name] for name in self._key)
