"""The oracle: an annotator that knows the gold labels of a benchmark corpus.

Nothing else opens `gold/` but exports of a pool, which choose nothing.

The map from a corpus's words to the run's classes is explicit: a word that is not mapped makes the utterance
"ignored", as if the annotator had skipped it, and such utterances are left out of the run before it starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage
from seral.errors import LabelError
from seral.labels.consensus import of_labels, usual_method
from seral.labels.crowd import Votes, votes_of
from seral.labels.options import VoteOptions
from seral.labels.votes import RatersInTurn, raters_per_clip, voted_labels, votes_by_clip, winners
from seral.pool.ids import Ids, one_array, positions
from seral.pool.shards import Pool
from seral.pool.splits import Fold
from seral.schema import GOLD, VOTES, label_schema

if TYPE_CHECKING:
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


def gold_counts(pool: Pool) -> pa.Table:
    """Clips with a gold label by the corpus's own word, for a person who asks what a pool holds: class, corpus,
    language, clips; sorted, an unknown language as `unknown`."""
    by, parts = ["class", "corpus", "language"], list[pa.Table]()
    for shard in pool.shards:
        gold = storage.read_table(pool.table_uri("gold", shard), ["utterance_id", "emotion"])
        rows = pool.read(shard, ["utterance_id", "corpus", "language"])
        joined = gold.filter(pc.is_valid(gold["emotion"])).join(rows, "utterance_id").rename_columns(["id", *by])
        parts.append(joined.group_by(by).aggregate([([], "count_all")]))
    if not parts:
        return pa.table({**{name: pa.array([], pa.string()) for name in by}, "clips": pa.array([], pa.int64())})
    counts = pa.concat_tables(parts).group_by(by).aggregate([("count_all", "sum")])
    counts = counts.rename_columns([*by, "clips"])
    counts = counts.set_column(2, "language", pc.fill_null(counts["language"], "unknown"))
    return counts.sort_by([(name, "ascending") for name in by])


def read_votes(pool: Pool) -> pa.Table:
    """The votes of a corpus's own raters, schema.VOTES. Raises LabelError where nobody named an emotion."""
    table = storage.read_tables([pool.table_uri("votes", shard) for shard in pool.shards], VOTES)
    if table["emotion"].null_count == table.num_rows:
        raise LabelError(f"no rater of {pool.uri} named an emotion: import it with its raters' votes")
    return table


def voted_classes(votes: pa.Table, class_map: Mapping[str, str]) -> list[str]:
    """The usual classes that raters named, sorted."""
    words = [word.strip().lower() for word in votes["emotion"].drop_null().unique().to_pylist()]
    return sorted({class_map[word] for word in words if word in class_map})


class Oracle:
    """Answers from the gold table of a pool, in the run's classes.

    With `votes` clips that raters voted on have the labels of the votes: a class, shares, or both. Raises LabelError
    where a class has no label, unless the classes need not be `complete`.
    """

    name = "gold"

    def __init__(
        self,
        pool: Pool,
        classes: Sequence[str],
        class_map: Mapping[str, str] | None = None,
        dimensions: Sequence[str] = (),
        *,
        votes: VoteOptions | None = None,
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
        self._share_NC: NDArray[np.float32] | None = None
        self._in_turn: RatersInTurn | None = None
        self._votes_of: dict[str, list[tuple[str, int]]] | None = None
        self._learns_shares = False
        if votes is not None:
            self._take_votes(pool, votes)
        self._value_NK = np.empty((len(self._ids), len(dimensions)), np.float32)
        for k, name in enumerate(dimensions):
            self._value_NK[:, k] = table[name].take(order).to_numpy()
        self._value_NK[~np.isfinite(self._value_NK).all(1)] = np.nan
        if dimensions and not np.isfinite(self._value_NK).all(1).any():
            raise LabelError(f"no utterance of {pool.uri} has gold ratings of {', '.join(dimensions)}")
        absent = sorted(set(classes) - {classes[code] for code in np.unique(self._code_N) if code >= 0})
        if absent and complete:
            words = [self._counted(word, count) for word, count in sorted(self._outside(self._word_N).items())]
            raise LabelError(
                f"no gold label of {pool.uri} means {', '.join(absent)}; words outside the classes: "
                f"{', '.join(words) or 'none'}"
            )

    def _counted(self, word: str, count: int) -> str:
        """A word, how often it was said, and the class that it means where that has another name."""
        meant = self._class_map.get(word.strip().lower(), word)
        return f"{word} ({count})" if meant == word else f"{word} ({count}, which class_map takes for {meant})"

    def ignored(self, ids: Iterable[str] | pa.ChunkedArray) -> Counter[str]:
        """Corpus words that mean none of the classes, counted over these ids."""
        rows = self._rows(ids)
        return self._outside(self._word_N[rows[rows >= 0]])

    def answers(self, ids: Sequence[str] | pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whether each id has an answer among the classes, or ratings of all dimensions, (N,)."""
        rated_N = np.isfinite(self._value_NK).all(1) & bool(self._dimensions)
        shared_N = False if self._share_NC is None else np.isfinite(self._share_NC).all(1)
        answered_N: NDArray[np.bool_] = np.append((self._code_N >= 0) | rated_N | shared_N, False)
        return answered_N[self._rows(ids)]

    @property
    def answerable(self) -> Ids:
        """Ids that have an answer."""
        return Ids(self._ids.filter(pa.array(self.answers(pa.chunked_array([self._ids])))))

    def targets(self, ids: Sequence[str]) -> Targets:
        """Gold classes and ratings of some ids, where they have any."""
        from seral.task.examples import Targets  # late: it loads torch, and votes are counted without it

        rows, nothing = self._rows(ids), np.full((1, len(self._dimensions)), np.nan, np.float32)
        code_N, value_NK = np.append(self._code_N, np.int16(-1)), np.concatenate([self._value_NK, nothing])
        label_N = code_N[rows].astype(np.int64)
        targets = Targets(label_N=label_N, value_NK=value_NK[rows], soft_NC=self._shares(rows))
        return targets if self._votes_of is None else replace(targets, votes_N=self.votes(ids))

    def emotions(self, ids: Sequence[str]) -> list[str | None]:
        """Gold emotion of each id; None where it is rated and no more. Raises LabelError for an id with neither."""
        targets = self.targets(ids)
        labelled_N = targets.decided_N | targets.rated_N
        if missing := [name for name, labelled in zip(ids, labelled_N.tolist(), strict=True) if not labelled]:
            raise LabelError(f"no gold label for {len(missing)} utterances, e.g. {', '.join(missing[:5])}")
        return [self._classes[code] if code >= 0 else None for code in targets.label_N.tolist()]

    def ratings(self, ids: Sequence[str]) -> NDArray[np.float32]:
        """Gold ratings of some utterances, (N, K), NaN where there are none."""
        return self.targets(ids).value_NK

    def _take_votes(self, pool: Pool, options: VoteOptions) -> None:
        """Put the labels of votes in the place of gold ones. Raises LabelError for a pool without votes."""
        table = read_votes(pool)
        method = options.method or usual_method(raters_per_clip(table))
        self._learns_shares = method != "majority"
        voted = voted_labels(table, self._classes, self._class_map, of_labels(method), secondary=options.secondary)
        if method == "crowd":
            self._votes_of = votes_by_clip(table, self._classes, self._class_map)
        if options.answer == "one":
            self._in_turn = RatersInTurn.of(table, self._classes, self._class_map)
        at = positions(pa.array(voted.ids, pa.string()), self._ids)
        enough_N = (at >= 0) & (voted.votes_N >= options.least)
        self._code_N[at[at >= 0]] = -1
        self._code_N[at[enough_N]] = voted.label_N[enough_N]
        if self._learns_shares:
            self._share_NC = np.full((len(self._ids), len(self._classes)), np.nan, np.float32)
            self._share_NC[at[enough_N]] = voted.share_NC[enough_N]

    def shares(self, ids: Sequence[str]) -> NDArray[np.float32] | None:
        """Shares of the votes on some utterances, (N, C), NaN where nobody voted; None where votes are not asked."""
        return self.targets(ids).soft_NC

    def votes(self, ids: Sequence[str]) -> Votes | None:
        """Votes of named raters on some utterances, where raters are to be learnt; else None."""
        return None if self._votes_of is None else votes_of([self._votes_of.get(name, []) for name in ids])

    def _shares(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | None:
        """Shares of the votes of some rows, (N, C), NaN where nobody voted; None where nobody did at all."""
        if self._share_NC is None:
            return None
        nothing = np.full((1, len(self._classes)), np.nan, np.float32)
        return np.concatenate([self._share_NC, nothing])[rows]

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
        """The fold without those clips of dev and test on which votes are tied."""
        if self._share_NC is None:
            return fold  # without shares a tie has no answer, and is in no fold
        judged = [*fold.dev, *fold.test]
        targets = self.targets(judged)
        tied_N = ~(targets.decided_N | targets.rated_N)
        tied = [name for name, is_tied in zip(judged, tied_N.tolist(), strict=True) if is_tied]
        return fold.without(tied) if tied else fold

    def asked(self, batch: str) -> list[str]:
        """An empty list: an oracle keeps no batches."""
        return []

    def ask(self, batch: str, new: Sequence[str], again: Sequence[str], round_number: int) -> list[str]:
        """All of the ids: an oracle knows without being asked."""
        return [*new, *again]

    def labels(self, ids: Sequence[str], round_number: int) -> pa.Table:
        """The labels of some utterances, schema.label_schema; of a tie the shares alone."""
        times, names = Counter(ids), list(dict.fromkeys(ids))
        targets = self.targets(names)
        if self._in_turn is None:
            codes, share_NC = targets.label_N, targets.soft_NC
            if share_NC is None:
                self.emotions(names)  # one without a label is named
        else:
            share_NC = np.array([self._in_turn.shares(name, times[name], len(self._classes)) for name in names])
            codes = winners(share_NC)
        rows = [
            self._label(name, int(code), None if share_NC is None else share_NC[at], targets.value_NK[at], round_number)
            for at, (name, code) in enumerate(zip(names, codes, strict=True))
        ]
        return pa.Table.from_pylist(rows, label_schema(self._dimensions))

    def _label(
        self,
        name: str,
        code: int,
        share_C: NDArray[np.floating] | None,
        value_K: NDArray[np.float32],
        round_number: int,
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"utterance_id": name, "annotator": self.name, "round": round_number}
        rated = len(value_K) > 0 and bool(np.isfinite(value_K).all())
        row |= dict(zip(self._dimensions, value_K.tolist(), strict=True)) if rated else {}
        shared = share_C is not None and bool(np.isfinite(share_C).all())
        probability = share_C.tolist() if share_C is not None and shared and self._learns_shares else None
        if code < 0 and probability is None and not rated:
            return row | {"answer": "disputed" if shared else "skipped"}
        return row | {
            "answer": "label",
            "emotion": self._classes[code] if code >= 0 else None,
            "probability": probability,
        }


def _class_codes(
    words: Sequence[str | None], classes: Sequence[str], class_map: Mapping[str, str]
) -> NDArray[np.int16]:
    """The index of the class that each of a corpus's words means; -1 for none of them."""
    emotion_of = {word.lower(): name for word, name in class_map.items()}
    code_of = {name: code for code, name in enumerate(classes)}
    lower = ["" if word is None else word.lower() for word in words]
    return np.array([code_of.get(emotion_of.get(word, word), -1) for word in lower], np.int16)
