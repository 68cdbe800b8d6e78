"""The oracle: an annotator that knows the gold labels of a benchmark corpus.

The only place that opens `gold/`.

The map from a corpus's words to the run's classes is explicit: a word that is not mapped makes the utterance
"ignored", as if the annotator had skipped it, and such utterances are left out of the run before it starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import LabelError
from seral.pool.ids import Ids, one_array, positions
from seral.pool.shards import Pool
from seral.pool.splits import Fold
from seral.schema import GOLD, LABEL
from seral.task.examples import Targets

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


def gold_words(pool: Pool) -> Counter[str]:
    """Counts of each corpus's own words in the gold table, for a person who asks what a pool holds."""
    table = storage.read_tables([pool.table_uri("gold", shard) for shard in pool.shards], GOLD, ["emotion"])
    return Counter(word for word in table["emotion"].to_pylist() if word is not None)


class Oracle:
    """Answers from the gold table of a pool, in the run's classes.

    Raises LabelError where a class has no label, unless the classes need not be `complete`.
    """

    name = "gold"

    def __init__(
        self,
        pool: Pool,
        classes: Sequence[str],
        class_map: Mapping[str, str] | None = None,
        dimensions: Sequence[str] = (),
        *,
        complete: bool = True,
    ) -> None:
        uris = [pool.table_uri("gold", shard) for shard in pool.shards]
        table = storage.read_tables(uris, GOLD, ["utterance_id", "emotion", *dimensions])
        ids = one_array(table["utterance_id"])
        table = table.drop_columns("utterance_id")
        storage.release_memory()
        order = pc.sort_indices(ids)
        self._ids = ids.take(order)
        del ids
        storage.release_memory()
        self._classes, self._dimensions = tuple(classes), tuple(dimensions)
        encoded = table["emotion"].combine_chunks().dictionary_encode()
        self._words: list[str | None] = [*encoded.dictionary.to_pylist(), None]
        self._word_N = encoded.indices.fill_null(len(encoded.dictionary)).take(order).to_numpy().astype(np.int16)
        self._class_map = class_map or CLASS_MAP
        self._code_N = _class_codes(self._words, self._classes, self._class_map)[self._word_N]
        self._value_NK = np.empty((len(self._ids), len(dimensions)), np.float32)
        for k, name in enumerate(dimensions):
            self._value_NK[:, k] = table[name].take(order).to_numpy()
        self._value_NK[~np.isfinite(self._value_NK).all(1)] = np.nan
        if dimensions and not np.isfinite(self._value_NK).all(1).any():
            raise LabelError(f"no utterance of {pool.uri} has gold ratings of {', '.join(dimensions)}")
        absent = sorted(set(classes) - {classes[code] for code in np.unique(self._code_N) if code >= 0})
        if absent and complete:
            outside = self._outside(self._word_N)
            raise LabelError(
                f"no gold label of {pool.uri} means {', '.join(absent)}; words outside the classes: "
                f"{', '.join(f'{word} ({n})' for word, n in sorted(outside.items())) or 'none'}"
            )

    def ignored(self, ids: Iterable[str] | pa.ChunkedArray) -> Counter[str]:
        """Corpus words that mean none of the classes, counted over these ids."""
        rows = self._rows(ids)
        return self._outside(self._word_N[rows[rows >= 0]])

    def answers(self, ids: Sequence[str] | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whether each id has an answer among the classes, or ratings of all dimensions, (N,)."""
        rated_N = np.isfinite(self._value_NK).all(1) & bool(self._dimensions)
        answered_N: NDArray[np.bool_] = np.append((self._code_N >= 0) | rated_N, False)
        return answered_N[self._rows(ids)]

    @property
    def answerable(self) -> Ids:
        """Ids that have an answer."""
        return Ids(self._ids.filter(pa.array(self.answers(pa.chunked_array([self._ids])))))

    def targets(self, ids: Sequence[str]) -> Targets:
        """Gold classes and ratings of some ids, where they have any."""
        rows, nothing = self._rows(ids), np.full((1, len(self._dimensions)), np.nan, np.float32)
        code_N, value_NK = np.append(self._code_N, np.int16(-1)), np.concatenate([self._value_NK, nothing])
        return Targets(label_N=code_N[rows].astype(np.int64), value_NK=value_NK[rows])

    def emotions(self, ids: Sequence[str]) -> list[str]:
        """Gold emotion of each id. Raises LabelError for an id without one."""
        code_N = self.targets(ids).label_N
        if missing := [name for name, code in zip(ids, code_N.tolist(), strict=True) if code < 0]:
            raise LabelError(f"no gold label for {len(missing)} utterances, e.g. {', '.join(missing[:5])}")
        return [self._classes[code] for code in code_N.tolist()]

    def _rows(self, ids: Iterable[str] | pa.ChunkedArray) -> NDArray[np.int64]:
        """Row of each id; -1, the last, for one that the table does not have."""
        asked = pa.array(Ids(ids))
        return np.arange(len(asked)) if asked.equals(self._ids) else positions(asked, self._ids)

    def _outside(self, word_N: NDArray[np.int16]) -> Counter[str]:
        """Words that mean none of the classes among some, and how often."""
        code_of = _class_codes(self._words, self._classes, self._class_map)
        index, count = np.unique(word_N, return_counts=True)
        pairs = ((self._words[at], code_of[at], n) for at, n in zip(index.tolist(), count.tolist(), strict=True))
        return Counter({word: n for word, code, n in pairs if word is not None and code < 0})

    def close(self) -> None:
        """Nothing is held open."""

    def ask_evaluation(self, fold: Fold, seed: int) -> None:
        """Nothing to ask: an oracle knows dev and test."""

    def evaluated(self, fold: Fold) -> Fold:
        """The fold as it is: all of dev and test has a label."""
        return fold

    def asked(self, batch: str) -> list[str]:
        """An empty list: an oracle keeps no batches."""
        return []

    def ask(self, batch: str, new: Sequence[str], again: Sequence[str], round_number: int) -> list[str]:
        """All of the ids: an oracle knows without being asked."""
        return [*new, *again]

    def labels(self, ids: Sequence[str], round_number: int) -> pa.Table:
        """The labels of some utterances, schema.LABEL."""
        rows = [
            {"utterance_id": name, "emotion": emotion, "annotator": self.name, "answer": "label", "round": round_number}
            for name, emotion in zip(ids, self.emotions(ids), strict=True)
        ]
        return pa.Table.from_pylist(rows, LABEL)


def _class_codes(
    words: Sequence[str | None], classes: Sequence[str], class_map: Mapping[str, str]
) -> NDArray[np.int16]:
    """The index of the class that each of a corpus's words means; -1 for none of them."""
    emotion_of = {word.lower(): name for word, name in class_map.items()}
    code_of = {name: code for code, name in enumerate(classes)}
    lower = ["" if word is None else word.lower() for word in words]
    return np.array([code_of.get(emotion_of.get(word, word), -1) for word in lower], np.int16)
