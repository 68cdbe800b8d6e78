"""BIIC-Podcast: Mandarin, natural speech from podcasts. Upadhyay et al. 2023, An Intelligent Infrastructure Toward
Large Scale Naturalistic Affective Speech Corpora Collection (ACII).

Laid out like MSP-Podcast. Copies with numbers for classes go round, and what the numbers mean is not documented: say it
with `classes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from seral.corpora.reading.podcast import EMOTIONS, read_podcast
from seral.corpora.reading.tree import Convention
from seral.corpora.reading.utterance import Skipped, Utterance

CONVENTION = Convention(
    corpus="biic-podcast",
    pattern=re.compile(r"BIIC-PODCAST_(?P<podcast>\d+(?:_\d+)*)_\d+"),
    expected="BIIC-PODCAST_PODCAST_SEGMENT (numbers)",
    example="Audios/BIIC-PODCAST_1000_0321_0003.wav",
)


def read_biic_podcast(root: Path, *, classes: Mapping[str | int, str] | None = None) -> Iterator[Utterance | Skipped]:
    """All of BIIC-Podcast. `classes`: what stands in EmoClass -> its word, beside MSP-Podcast's letters and words."""
    words = EMOTIONS | {str(code): word for code, word in (classes or {}).items()}
    hint = ". Say what it means: reader_options.classes={CODE: word}"
    return read_podcast(root, CONVENTION, language="zh", words=words, test="test1", hint=hint)
