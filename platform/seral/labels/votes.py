"""Votes of a corpus's own raters as labels: shares of the classes, and the class that won, if one did.

A vote for a word that means none of the classes counts as well: where such words win, a clip is none of them. Else the
shares are those of the votes for the classes.
"""

# N clips · C classes
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ser_models.metrics import mean_recall
from seral.errors import LabelError, unknown_name
from seral.labels.agreement import Alpha, krippendorff_alpha
from seral.labels.consensus import fit_dawid_skene
from seral.labels.options import SECONDARY, TargetMethod

if TYPE_CHECKING:
    import pandas as pd

VoteMethod = Literal["majority", "soft", "dawid-skene"]
TIED = 1e-9
"""Shares that differ by less are alike."""


def raters_per_clip(votes: pa.Table) -> float:
    """Median number of raters who named an emotion, over the clips of which somebody did (schema.VOTES)."""
    votes = votes.filter(pc.is_valid(votes["emotion"]))
    clips = votes.select(["utterance_id"]).append_column("count", votes["count"].fill_null(1))
    return float(np.median(clips.group_by("utterance_id").aggregate([("count", "sum")])["count_sum"].to_numpy()))


@dataclass(frozen=True, kw_only=True)
class VotedLabels:
    """Labels of the clips that somebody voted on."""

    ids: list[str]
    """Sorted."""
    share_NC: NDArray[np.float64]
    """Shares of the classes; NaN where a clip is none of them."""
    label_N: NDArray[np.int64]
    """The class with the largest share; -1 for a tie, and for a clip that is none of the classes."""
    votes_N: NDArray[np.float64]
    """Raters who named a class."""

    @property
    def tied_N(self) -> NDArray[np.bool_]:
        """Clips with shares and without a winner."""
        tied_N: NDArray[np.bool_] = (self.label_N < 0) & np.isfinite(self.share_NC).all(1)
        return tied_N


def voted_labels(
    votes: pa.Table,
    classes: Sequence[str],
    class_map: Mapping[str, str],
    method: VoteMethod = "soft",
    *,
    secondary: float = SECONDARY,
) -> VotedLabels:
    """The labels of all clips of a table of votes (schema.VOTES), in whatever order.

    majority: all of a clip for the class that most raters named; soft: the mean of the raters, each of whom gives 1 in
    all, a further emotion `secondary` of a first one; dawid-skene: the posterior given how each rater confuses classes,
    further emotions left out. Raises LabelError for dawid-skene where nobody knows who voted.
    """
    if method not in get_args(VoteMethod):
        raise LabelError(unknown_name("method of votes", method, get_args(VoteMethod)))
    ids, count_ND = count_votes(votes, classes, class_map, secondary=secondary)
    share_NC = _shares(count_ND)
    if method == "dawid-skene":
        share_NC = _posterior(votes, classes, class_map, ids, share_NC)
    label_N = winners(share_NC)
    if method == "majority":
        decided_N = label_N >= 0
        share_NC[decided_N] = np.eye(len(classes))[label_N[decided_N]]
    return VotedLabels(ids=ids, share_NC=share_NC, label_N=label_N, votes_N=count_ND[:, :-1].sum(1))


def count_votes(
    votes: pa.Table, classes: Sequence[str], class_map: Mapping[str, str], *, secondary: float = SECONDARY
) -> tuple[list[str], NDArray[np.float64]]:
    """Clips, sorted, and how many raters named each class of them, (N, C + 1); the last column is all other words."""
    votes = votes.filter(pc.is_valid(votes["emotion"]))
    encoded = votes["utterance_id"].combine_chunks().dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    row_V, column_V = encoded.indices.to_numpy(), class_columns(votes["emotion"], classes, class_map)
    counts = votes["count"].fill_null(1).to_numpy().astype(np.float64)
    vote_VD = np.zeros((len(row_V), len(classes) + 1))
    vote_VD[np.arange(len(row_V)), column_V] = 1
    lists = votes["secondary"].combine_chunks()
    further = pc.list_flatten(lists)
    if secondary and len(further):
        np.add.at(
            vote_VD,
            (pc.list_parent_indices(lists).to_numpy(), class_columns(further, classes, class_map)),
            secondary,
        )
        vote_VD /= vote_VD.sum(1, keepdims=True)
    count_ND = np.zeros((len(names), len(classes) + 1))
    np.add.at(count_ND, row_V, vote_VD * counts[:, None])
    order = np.argsort(np.array(names, dtype=object))
    return [names[row] for row in order.tolist()], count_ND[order]


@dataclass(frozen=True, kw_only=True)
class RatersInTurn:
    """The votes on each clip in the order in which its raters are asked: by chance, the same in every run."""

    ids: list[str]
    """Sorted."""
    start_N: NDArray[np.int64]
    """The first vote of each clip, and at the end the number of votes."""
    column_V: NDArray[np.int64]
    """Class of every vote, the number of classes for other words."""

    @staticmethod
    def of(votes: pa.Table, classes: Sequence[str], class_map: Mapping[str, str]) -> RatersInTurn:
        """The votes of a table (schema.VOTES) that name an emotion; further emotions are left out."""
        votes = votes.filter(pc.is_valid(votes["emotion"]))
        counts = votes["count"].fill_null(1).to_numpy()
        column_V = np.repeat(class_columns(votes["emotion"], classes, class_map), counts)
        name_V = np.repeat(np.array(votes["utterance_id"].to_pylist(), dtype=object), counts)
        # Before the draw the order of the table must not matter.
        order = np.lexsort((column_V, name_V))
        column_V, name_V = column_V[order], name_V[order]
        drawn_V = np.random.default_rng(0).random(len(name_V))
        names, start_N = np.unique(name_V.astype(str), return_index=True)
        order = np.lexsort((drawn_V, name_V))
        return RatersInTurn(
            ids=names.tolist(), start_N=np.append(start_N, len(name_V)).astype(np.int64), column_V=column_V[order]
        )

    def shares(self, name: str, times: int, num_classes: int) -> NDArray[np.float64]:
        """Shares of the classes by the first so many raters of a clip, (C,); NaN where they named none, or other words
        won."""
        at = bisect_left(self.ids, name)
        begin = self.start_N[at]
        column_V = self.column_V[begin : min(begin + times, self.start_N[at + 1])]
        share_NC = _shares(np.bincount(column_V, minlength=num_classes + 1)[None].astype(np.float64))
        return share_NC.reshape(-1)


def class_columns(
    words: pa.Array | pa.ChunkedArray, classes: Sequence[str], class_map: Mapping[str, str]
) -> NDArray[np.int64]:
    """The index of the class that each word means, the number of classes for all other words."""
    encoded = words.combine_chunks().dictionary_encode() if isinstance(words, pa.ChunkedArray) else words
    encoded = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.dictionary_encode()
    meaning = {word.lower(): name for word, name in class_map.items()}
    lower = [word.strip().lower() for word in encoded.dictionary.to_pylist()]
    column = {name: index for index, name in enumerate(classes)}
    column_W = np.array([column.get(meaning.get(word, word), len(classes)) for word in lower], np.int64)
    return column_W[encoded.indices.to_numpy()] if len(column_W) else np.empty(0, np.int64)


def winners(share_NC: NDArray[np.floating]) -> NDArray[np.int64]:
    """The class with the largest share of each row, (N,); -1 for a tie and for a row of NaN."""
    share_NC = np.nan_to_num(share_NC, nan=0.0)
    best_N = share_NC.argmax(1)
    alike_N = (share_NC >= share_NC.max(1, keepdims=True) - TIED).sum(1)
    return np.where(alike_N == 1, best_N, -1)


def _shares(count_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Votes as shares of the classes; NaN where none was named, or other words won."""
    of_classes = count_ND[:, :-1]
    total_N1 = of_classes.sum(1, keepdims=True)
    outside_N = (count_ND[:, -1] > of_classes.max(1) + TIED) | (total_N1[:, 0] == 0)
    share_NC = of_classes / np.where(total_N1 > 0, total_N1, 1)
    share_NC[outside_N] = np.nan
    return share_NC


def _posterior(
    votes: pa.Table,
    classes: Sequence[str],
    class_map: Mapping[str, str],
    ids: Sequence[str],
    share_NC: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Shares by the model of Dawid and Skene; NaN where those of the votes are."""
    posterior = fit_dawid_skene(_named_votes(votes, classes, class_map, "dawid-skene"), {}, len(classes)).posterior
    rows = [posterior.get(name, np.full(len(classes), np.nan)) for name in ids]
    by_model = np.array(rows, np.float64).reshape(-1, len(classes))
    by_model[np.isnan(share_NC).any(1)] = np.nan
    return by_model


def _named_votes(
    votes: pa.Table, classes: Sequence[str], class_map: Mapping[str, str], method: TargetMethod
) -> pd.DataFrame:
    """A row for each vote for a class: `task`, `worker` and `label`. Raises LabelError for votes of nobody."""
    import pandas as pd

    votes = votes.filter(pc.is_valid(votes["emotion"]))
    if votes["rater"].null_count:
        raise LabelError(
            f"{method} needs to know who voted, and {votes['rater'].null_count} of {votes.num_rows} votes are of "
            "nobody: take majority or soft"
        )
    column_V = class_columns(votes["emotion"], classes, class_map)
    data = pd.DataFrame(
        {"task": votes["utterance_id"].to_pylist(), "worker": votes["rater"].to_pylist(), "label": column_V}
    )
    return data[column_V < len(classes)]


def votes_by_clip(
    votes: pa.Table, classes: Sequence[str], class_map: Mapping[str, str]
) -> dict[str, list[tuple[str, int]]]:
    """Clip -> its raters and the class that each named, sorted. Raises LabelError where nobody knows who voted."""
    rows_of = dict[str, list[tuple[str, int]]]()
    named = _named_votes(votes, classes, class_map, "crowd")
    for name, rater, code in zip(*(named[column].tolist() for column in ("task", "worker", "label")), strict=True):
        rows_of.setdefault(name, []).append((rater, code))
    return {name: sorted(rows) for name, rows in rows_of.items()}


@dataclass(frozen=True, kw_only=True)
class VoteFacts:
    """Agreement of a corpus's raters, and the most that a model can be asked for."""

    clips: int
    raters: float
    """Raters of a clip who named a class, in the mean."""
    tied: float
    """Share of the clips on which they are tied."""
    outside: float
    """Share of the clips that are none of the classes by their votes."""
    alpha: Alpha
    """Krippendorff's alpha of the classes."""
    ceiling: float | None
    """UAR of one rater by the majority of the others; None where nobody has two others."""
    compared: int
    """Votes behind it."""


def vote_facts(votes: pa.Table, classes: Sequence[str], class_map: Mapping[str, str]) -> VoteFacts:
    """Facts of all votes on a pool (schema.VOTES). Further emotions do not count.

    The ceiling leaves out one vote after the other: what it says against the class of most of the rest, where that is
    one class and of two votes at least. Raters need not be known by name for it.
    """
    _, count_ND = count_votes(votes, classes, class_map, secondary=0)
    share_NC = _shares(count_ND)
    inside_N = np.isfinite(share_NC).all(1)
    count_NC = count_ND[:, :-1].round().astype(np.int64)
    row_V = np.repeat(np.arange(len(count_NC)), count_NC.sum(1))
    vote_V = np.concatenate([np.repeat(np.arange(len(classes)), row) for row in count_NC])
    alpha = krippendorff_alpha(row_V.astype(str).tolist(), np.eye(len(classes))[vote_V])
    confusion_CC = np.zeros((len(classes), len(classes)))
    for voted in range(len(classes)):
        others_NC = count_NC - np.eye(len(classes), dtype=np.int64)[voted]
        enough_N = (count_NC[:, voted] > 0) & (others_NC.sum(1) > 1) & inside_N
        truth_N = winners(others_NC)
        for truth in range(len(classes)):
            confusion_CC[truth, voted] = count_NC[enough_N & (truth_N == truth), voted].sum()
    compared = int(confusion_CC.sum())
    return VoteFacts(
        clips=len(count_ND),
        raters=float(count_NC.sum(1).mean()),
        tied=float((inside_N & (winners(share_NC) < 0)).mean()),
        outside=float((~inside_N).mean()),
        alpha=alpha,
        ceiling=float(mean_recall(confusion_CC)) if compared else None,
        compared=compared,
    )
