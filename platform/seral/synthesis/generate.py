"""The demonstration corpus as a verb."""

from __future__ import annotations

from pathlib import Path

from seral.progress import track
from seral.synthesis.corpus import SynthesisOptions, synthesise


class GenerateOptions(SynthesisOptions):
    """Options of a demonstration corpus and where to write it."""

    out: str
    """Folder for the audio and its manifest.jsonl."""


def generate(options: GenerateOptions) -> Path:
    """Generate the corpus with a progress bar and return its folder."""
    with track("generating", options.utterances) as advance:
        return synthesise(Path(options.out), options, advance)
