"""Commands that write to a run while something is erased from its pool: they have to see the tombstone first."""

from __future__ import annotations

import time
from collections.abc import Iterable

from seral import storage
from seral.labels.database import is_database
from seral.progress import say

POLL_S = 0.2


def wait_for_writers(locations: Iterable[str]) -> None:
    """Wait until no command writes to any of some folders: each stops once it has seen what was erased."""
    for folder in locations:
        if is_database(folder) or not storage.is_written_to(folder):
            continue
        say(f"a command writes to {folder}: it stops at its next step, or stop it; then this goes on")
        while storage.is_written_to(folder):
            time.sleep(POLL_S)
