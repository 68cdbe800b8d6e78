"""The oracle: an annotator that knows the gold labels of a benchmark corpus. The only place that opens `gold/`.

The map from a corpus's words to the run's classes is explicit: a word that is not mapped makes the utterance
"ignored", as if the annotator had skipped it, and such utterances are left out of the run before it starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa

from seral import storage
from seral.errors import LabelError
from seral.pool.shards import Pool
from seral.schema import GOLD, LABEL

CLASS_MAP: dict[str, str] = {
    "anger": "anger",
    "angry": "anger",
    "happiness": "happiness",
    "happy": "happiness",
    "joy": "happiness",
    "sadness": "sadness",
    "sad": "sadness",
    "neutral": "neutral",
    "fear": "fear",
    "fearful": "fear",
    "anxiety": "fear",
    "disgust": "disgust",
    "surprise": "surprise",
    "surprised": "surprise",
    "boredom": "boredom",
    "calm": "calm",
}
"""The usual words (in lower case) and the field's terms for them; a run names the classes it wants."""


class Oracle:
    """Answers from the gold table of a pool, in the run's classes."""

    name = "gold"

    def __init__(self, pool: Pool, classes: Sequence[str], class_map: Mapping[str, str] | None = None) -> None:
        words = {word.lower(): name for word, name in (class_map or CLASS_MAP).items()}
        table = storage.read_tables([storage.join(pool.uri, "gold", f"{s}.parquet") for s in pool.shards], GOLD)
        wanted = set(classes)
        self._emotion: dict[str, str] = {}
        self._ignored: dict[str, str] = {}
        for name, word in zip(*(table[c].to_pylist() for c in ("utterance_id", "emotion")), strict=True):
            if word is None:
                continue
            emotion = words.get(word.lower(), word.lower())
            if emotion in wanted:
                self._emotion[name] = emotion
            else:
                self._ignored[name] = word
        absent = sorted(wanted - set(self._emotion.values()))
        if absent:
            raise LabelError(
                f"no gold label of {pool.uri} means {', '.join(absent)}; words outside the classes: "
                f"{', '.join(f'{word} ({n})' for word, n in sorted(Counter(self._ignored.values()).items())) or 'none'}"
            )

    def ignored(self, ids: Iterable[str]) -> Counter[str]:
        """Corpus words that mean none of the classes, counted over these ids."""
        return Counter(self._ignored[name] for name in ids if name in self._ignored)

    @property
    def answerable(self) -> set[str]:
        """Ids that have an answer among the classes."""
        return set(self._emotion)

    def emotions(self, ids: Sequence[str]) -> list[str]:
        """Gold emotion of each id. Raises LabelError for an id without one."""
        missing = [name for name in ids if name not in self._emotion]
        if missing:
            raise LabelError(f"no gold label for {len(missing)} utterances, e.g. {', '.join(missing[:5])}")
        return [self._emotion[name] for name in ids]

    def ask(self, ids: Sequence[str], round_number: int) -> pa.Table:
        """The answers for one round, schema.LABEL."""
        rows = [
            {"utterance_id": name, "emotion": emotion, "annotator": self.name, "answer": "label", "round": round_number}
            for name, emotion in zip(ids, self.emotions(ids), strict=True)
        ]
        return pa.Table.from_pylist(rows, LABEL)
