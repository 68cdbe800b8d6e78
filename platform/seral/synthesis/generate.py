"""The demonstration corpus as a verb."""

from __future__ import annotations

import tempfile
from pathlib import Path

from seral import storage
from seral.progress import track
from seral.synthesis.corpus import MANIFEST, SynthesisOptions, synthesise


class GenerateOptions(SynthesisOptions):
    """Options of a demonstration corpus and where to write it."""

    out: str
    """Folder or address for the audio and its manifest.jsonl."""


def generate(options: GenerateOptions) -> str:
    """Generate the corpus with a progress bar and return its folder, which may lie in an object store."""
    out = storage.absolute(options.out)
    with track("generating", options.utterances) as advance:
        if "://" not in out:
            return str(synthesise(Path(out), options, advance))
        storage.remove(storage.join(out, MANIFEST))  # of a corpus before this one
        with tempfile.TemporaryDirectory(prefix="seral-") as folder:
            synthesise(Path(folder), options, advance)
            for name in sorted(storage.list_files(folder), key=lambda name: name == MANIFEST):
                storage.copy_file(storage.join(folder, name), storage.join(out, name))
    return out
