"""Any folder of audio: what most pools start from.

Nothing is known of it but the files themselves, unless their paths follow a pattern or a table is joined to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from seral.corpora.reading.choices import Choices, Reading
from seral.corpora.reading.tree import DECODABLE, TO_CONVERT, audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError


def read_folder(root: Path, **choices: Unpack[Choices]) -> Iterator[Utterance | Skipped]:
    """Every audio file below a folder, with what a pattern of paths and joined tables say of it.

    The corpus is `corpus`, else the folder's name. Without a pattern the names of sub-folders mean nothing.
    """
    files = audio_files(root, DECODABLE | TO_CONVERT)
    if not files:
        expected = ", ".join(f"*{suffix}" for suffix in sorted(DECODABLE))
        raise ReaderError(f"no audio below {root}: expected files named {expected}, for example day1/call-17.wav")
    reading = Reading(choices, root.resolve().name or "folder")
    for file in files:
        yield reading.record(reading.path_fields(file), file)
    yield from reading.remainder()
