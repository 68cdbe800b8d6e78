"""JL-Corpus: New Zealand English, acted, four actors. James et al. 2018, doi:10.21437/Interspeech.2018-1349.

A name is speaker (sex and number), emotion, sentence and session, repetition: `female1_angry_10a_1`. The prompt stands
in a text file of the same name beside the audio; without it the text stays unknown. The archive holds the tree twice
under names that differ in case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, files_below, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = (
    *("angry", "excited", "happy", "neutral", "sad"),
    *("anxious", "apologetic", "assertive", "concerned", "encouraging"),
)
CONVENTION = Convention(
    corpus="jl",
    pattern=re.compile(
        rf"(?P<speaker>(?P<gender>female|male)[12])_(?P<emotion>{'|'.join(EMOTIONS)})_\d{{1,2}}(?P<session>[ab])_[12]"
    ),
    expected="SPEAKER_emotion_SENTENCE_REPETITION (female1 female2 male1 or male2, the emotion, 1a-15b, 1 or 2)",
    example="JL(wav+txt)/female1_angry_10a_1.wav",
)


def read_jl(root: Path) -> Iterator[Utterance | Skipped]:
    """All of JL-Corpus."""
    prompts = {path.stem: path for path in files_below(root, r".*\.txt")}

    def describe(name: str, match: re.Match[str]) -> dict[str, Any]:
        return {
            "speaker": match["speaker"],
            "gender": match["gender"],
            "session": match["session"],
            "language": "en",
            "style": "acted",
            "text": prompts[name].read_text(encoding="utf-8", errors="replace").strip() if name in prompts else None,
            "emotion": match["emotion"],
        }

    return utterances_by_name(root, CONVENTION, describe)
