"""SUBESCO: Bangla, acted, ten sentences, 20 actors. Sultana et al. 2021, doi:10.1371/journal.pone.0250173.

A name is sex, number and name of the speaker, sentence, emotion, take: `F_02_MONIKA_S_1_NEUTRAL_5`. Numbers count
women and men apart. The sentences are printed in the paper only: the text stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = ("ANGRY", "DISGUST", "FEAR", "HAPPY", "NEUTRAL", "SAD", "SURPRISE")
CONVENTION = Convention(
    corpus="subesco",
    pattern=re.compile(
        rf"(?P<speaker>(?P<gender>[FM])_\d\d)_[A-Za-z]+_S_\d{{1,2}}_(?P<emotion>{'|'.join(EMOTIONS)})_\d{{1,2}}"
    ),
    expected="G_NN_NAME_S_N_EMOTION_TAKE (F or M, speaker number and name, sentence, emotion in full, take)",
    example="F_02_MONIKA_S_1_NEUTRAL_5.wav",
)


def read_subesco(root: Path) -> Iterator[Utterance | Skipped]:
    """All of SUBESCO."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": match["speaker"],
        "gender": "female" if match["gender"] == "F" else "male",
        "language": "bn",
        "style": "acted",
        "emotion": match["emotion"].lower(),
    }
