"""Secrets by name: from the environment, or from a file that the environment names."""

from __future__ import annotations

import os
from pathlib import Path


def secret(variable: str) -> str | None:
    """The value of an environment variable, or the text of the file that VARIABLE_FILE names; None without either.

    Mounted secrets of Kubernetes and Docker are such files. Raises ValueError for a file that cannot be read.
    """
    if value := os.environ.get(variable):
        return value
    file = os.environ.get(f"{variable}_FILE")
    if not file:
        return None
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"{variable}_FILE names {file}, which cannot be read: {reason}") from None
