"""The demonstration corpus as a verb."""

from __future__ import annotations

from seral.progress import track
from seral.synthesis.corpus import SynthesisOptions, synthesise


class GenerateOptions(SynthesisOptions):
    """Options of a demonstration corpus and where to write it."""

    out: str
    """Folder or address for the audio and its manifest.jsonl."""


def generate(options: GenerateOptions) -> str:
    """Generate the corpus with a progress bar and return its folder, which may lie in an object store."""
    with track("generating", options.utterances) as advance:
        return synthesise(options.out, options, advance)
