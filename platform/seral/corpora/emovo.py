"""EMOVO: Italian, acted, 14 sentences, six actors. Costantini et al. 2014, EMOVO Corpus (LREC 2014, paper 591).

A name is emotion, speaker, sentence: `gio-f1-b1`. Sentences are short (b), long (l), without sense (n) and questions
(d).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from seral.corpora.reading.tree import Convention, utterances_by_name
from seral.corpora.reading.utterance import Skipped, Utterance

EMOTIONS = {
    "dis": "disgust",
    "gio": "joy",
    "neu": "neutral",
    "pau": "fear",
    "rab": "anger",
    "sor": "surprise",
    "tri": "sadness",
}
SENTENCES = {
    "b1": "Gli operai si alzano presto.",
    "b2": "I vigili sono muniti di pistola.",
    "b3": "La cascata fa molto rumore.",
    "l1": "L'autunno prossimo Tony partirà per la Spagna nella prima metà di ottobre.",
    "l2": "Ora prendo la felpa di là ed esco per fare una passeggiata.",
    "l3": "Un attimo dopo s'è incamminato ... ed è inciampato.",
    "l4": "Vorrei il numero telefonico del Signor Piatti.",
    "n1": "La casa forte vuole col pane.",
    "n2": "La forza trova il passo e l'aglio rosso.",
    "n3": "Il gatto sta scorrendo nella pera.",
    "n4": "Insalata pastasciutta coscia d'agnello limoncello.",
    "n5": "Uno quarantatré dieci mille cinquantasette venti.",
    "d1": "Sabato sera cosa farà?",
    "d2": "Porti con te quella cosa?",
}
CONVENTION = Convention(
    corpus="emovo",
    pattern=re.compile(
        rf"(?P<emotion>{'|'.join(EMOTIONS)})-(?P<speaker>(?P<gender>[fm])[123])-(?P<sentence>{'|'.join(SENTENCES)})"
    ),
    expected="EMOTION-SPEAKER-SENTENCE (dis gio neu pau rab sor tri, f1-f3 or m1-m3, sentence such as b1)",
    example="EMOVO/f1/gio-f1-b1.wav",
)


def read_emovo(root: Path) -> Iterator[Utterance | Skipped]:
    """All of EMOVO."""
    return utterances_by_name(root, CONVENTION, _describe)


def _describe(name: str, match: re.Match[str]) -> dict[str, Any]:
    return {
        "speaker": match["speaker"],
        "gender": "female" if match["gender"] == "f" else "male",
        "language": "it",
        "style": "acted",
        "text": SENTENCES[match["sentence"]],
        "emotion": EMOTIONS[match["emotion"]],
    }
