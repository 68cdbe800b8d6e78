"""MSP-Podcast: English, natural speech from podcasts. Lotfian and Busso 2019, doi:10.1109/TAFFC.2017.2736999.

The official test sets share speakers with each other and none with training. Test1 is the usual one; the labels of
Test3 are not released.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from seral.corpora.reading.podcast import EMOTIONS, TestSet, read_podcast
from seral.corpora.reading.tree import Convention
from seral.corpora.reading.utterance import Skipped, Utterance

CONVENTION = Convention(
    corpus="msp-podcast",
    pattern=re.compile(r"MSP-PODCAST_(?P<podcast>\d+(?:_\d+)*)_\d+"),
    expected="MSP-PODCAST_PODCAST_SEGMENT (numbers)",
    example="Audios/MSP-PODCAST_0001_0008.wav",
)


def read_msp_podcast(root: Path, *, test: TestSet = "test1") -> Iterator[Utterance | Skipped]:
    """All of MSP-Podcast that has labels. The official test set `test` is the split's test; the others have none."""
    return read_podcast(root, CONVENTION, language="en", words=EMOTIONS, test=test)
