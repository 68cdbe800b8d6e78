"""EmoDB: German, acted, ten sentences, ten speakers. Burkhardt et al. 2005, A database of German emotional speech.

A name is speaker, sentence, emotion letter, version: `03a01Fa`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = {
    "W": "anger",
    "L": "boredom",
    "E": "disgust",
    "A": "anxiety",
    "F": "happiness",
    "T": "sadness",
    "N": "neutral",
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
MEN = {"03", "10", "11", "12", "15"}
CONVENTION = Convention(
    corpus="emodb",
    pattern=re.compile(rf"(?P<speaker>03|08|09|1[0-6])(?P<sentence>{'|'.join(SENTENCES)})(?P<emotion>[WLEAFTN])[a-z]"),
    expected="SSTTTEv (speaker 03 or 08-16, sentence such as a01, emotion letter W L E A F T N, version)",
    example="wav/03a01Fa.wav",
)


def read_emodb(root: Path) -> Iterator[Utterance | Skipped]:
    """All of EmoDB."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": match["speaker"],
        "gender": "male" if match["speaker"] in MEN else "female",
        "language": "de",
        "style": "acted",
        "text": SENTENCES[match["sentence"]],
        "emotion": EMOTIONS[match["emotion"]],
    }
