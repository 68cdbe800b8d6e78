"""Any folder of audio: nothing is known of it but the files themselves. What most pools start from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seral.corpora.reading.tree import audio_files
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError

DECODABLE = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".caf", ".au"})
TO_CONVERT = frozenset({".m4a", ".aac", ".mp4", ".webm", ".wma", ".amr", ".3gp"})
"""Formats libsndfile cannot read, but PyAV can (the extra `codecs`); without it the import reports these files."""


def read_folder(root: Path) -> Iterator[Utterance | Skipped]:
    """Every audio file below a folder, unlabelled; the folder's name is the corpus. Sub-folder names mean nothing."""
    files = audio_files(root, DECODABLE | TO_CONVERT)
    if not files:
        expected = ", ".join(f"*{suffix}" for suffix in sorted(DECODABLE))
        raise ReaderError(f"no audio below {root}: expected files named {expected}, for example day1/call-17.wav")
    corpus = root.resolve().name or "folder"
    for file in files:
        name = file.source.removesuffix(file.path.suffix)
        yield Utterance(audio=file.path, source=file.source, corpus=corpus, name=name)
