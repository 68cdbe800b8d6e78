"""The oracle: an annotator that knows the gold labels of a benchmark corpus.

The only place that opens `gold/` and `votes/`.

The map from a corpus's words to the run's classes is explicit: a word that is not mapped makes the utterance
"ignored", as if the annotator had skipped it, and such utterances are left out of the run before it starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from seral import storage
from seral.errors import LabelError
from seral.pool.shards import Pool
from seral.schema import GOLD, LABEL, VOTES
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
    """Counts of the corpora's own words in the gold table, for a person who asks what a pool holds."""
    table = storage.read_tables([pool.table_uri("gold", shard) for shard in pool.shards], GOLD, ["emotion"])
    return Counter(word for word in table["emotion"].to_pylist() if word is not None)


def vote_shares(
    pool: Pool, classes: Sequence[str], class_map: Mapping[str, str] | None = None
) -> dict[str, dict[str, float]]:
    """Shares of the raters' votes for the classes, of each utterance that has any."""
    words = {word.lower(): name for word, name in (class_map or CLASS_MAP).items()}
    tables = [pool.table_uri("votes", shard) for shard in pool.shards]
    votes = storage.read_tables(tables, VOTES, ["utterance_id", "emotion", "count"])
    counts: dict[str, Counter[str]] = {}
    for name, word, count in zip(*(votes[column].to_pylist() for column in votes.column_names), strict=True):
        emotion = None if word is None else words.get(word.lower(), word.lower())
        if emotion is not None and emotion in classes:
            counts.setdefault(name, Counter())[emotion] += count
    return {name: {key: n / votes_of.total() for key, n in votes_of.items()} for name, votes_of in counts.items()}


class Oracle:
    """Answers from the gold table of a pool, in the run's classes."""

    name = "gold"

    def __init__(
        self,
        pool: Pool,
        classes: Sequence[str],
        class_map: Mapping[str, str] | None = None,
        dimensions: Sequence[str] = (),
    ) -> None:
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
        self._classes, self._dimensions = tuple(classes), tuple(dimensions)
        columns = zip(*(table[name].to_pylist() for name in dimensions), strict=True)
        rated = zip(table["utterance_id"].to_pylist(), columns, strict=True) if dimensions else ()
        self._ratings = {name: row for name, row in rated if None not in row}
        if dimensions and not self._ratings:
            raise LabelError(f"no utterance of {pool.uri} has gold ratings of {', '.join(dimensions)}")
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
        """Ids that have an answer among the classes, or ratings of all dimensions."""
        return {*self._emotion, *self._ratings}

    def targets(self, ids: Sequence[str]) -> Targets:
        """Gold classes and ratings of some ids, where they have any."""
        code = {name: index for index, name in enumerate(self._classes)}
        label_N = np.array([code[self._emotion[n]] if n in self._emotion else -1 for n in ids], np.int64)
        none = (float("nan"),) * len(self._dimensions)
        rows = [self._ratings.get(name, none) for name in ids]
        return Targets(label_N=label_N, value_NK=np.array(rows, np.float32).reshape(len(rows), len(none)))

    def emotions(self, ids: Sequence[str]) -> list[str]:
        """Gold emotion of each id. Raises LabelError for an id without one."""
        missing = [name for name in ids if name not in self._emotion]
        if missing:
            raise LabelError(f"no gold label for {len(missing)} utterances, e.g. {', '.join(missing[:5])}")
        return [self._emotion[name] for name in ids]

    def asked(self, batch: str) -> list[str]:
        """Nothing: an oracle keeps no batches."""
        return []

    def ask(self, batch: str, new: Sequence[str], again: Sequence[str], round_number: int) -> list[str]:
        """Everything: an oracle knows without being asked."""
        return [*new, *again]

    def labels(self, ids: Sequence[str], round_number: int) -> pa.Table:
        """The labels of some utterances, schema.LABEL."""
        rows = [
            {"utterance_id": name, "emotion": emotion, "annotator": self.name, "answer": "label", "round": round_number}
            for name, emotion in zip(ids, self.emotions(ids), strict=True)
        ]
        return pa.Table.from_pylist(rows, LABEL)
