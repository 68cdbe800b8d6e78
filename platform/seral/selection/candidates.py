"""What a strategy may see of the unlabelled pool, checked once and put into one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral.errors import OptionError, SelectionError, unknown_name
from seral.vectors.arrays import Floats, Rows, Stored, Strings

# N candidates · M labelled utterances · R dropout passes · C classes · D features


SUM_TOLERANCE = 1e-3
"""How far a row of probabilities may be from summing to 1 (fp16 softmax outputs stay within it)."""

SLAB = 65_536
"""Rows looked at in one go."""

NAMED_IN_ERRORS = 3
"""How many offending ids a message shows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """All a strategy may see of the unlabelled pool. It has no labels, by construction.

    Rows are sorted by id when the object is made, so the order of shards or workers cannot change a pick.
    """

    ids: Strings
    """(N,) utterance ids, unique."""
    probability_NC: Floats | None = None
    """Class probabilities of the current model."""
    dropout_RNC: Floats | None = None
    """Class probabilities of R stochastic passes with dropout on."""
    embedding_ND: Stored | None = None
    """Pooled features of the candidates."""
    surprisal_NQ: Stored | None = None
    """Pretraining loss of the candidates by kinds of sound (seral.pretraining.surprisal)."""
    labelled_ids: Strings | None = None
    """(M,) ids of what is already labelled; None = nothing is."""
    labelled_embedding_MD: Stored | None = None
    """Features of what is already labelled, in the order of `labelled_ids`, without its labels."""
    labelled_doubt_M: Floats | None = None
    """How little the model believes the labels at hand, 0..1; a number, not the label."""
    rejected_M: NDArray[np.bool_] | None = None
    """Which of what is labelled got no label, because the annotator found it unusable."""
    picked: Candidates | None = None
    """What this selection has picked so far, when it asks a strategy again: neither a candidate nor answered yet."""
    duration_s: Floats | None = None
    """(N,) seconds."""
    speaker: Strings | None = None
    """(N,) speaker names; empty string = unknown."""
    corpus: Strings | None = None
    """(N,) corpus names."""
    language: Strings | None = None
    """(N,) language codes; empty string = unknown."""
    snr_db: Floats | None = None
    """(N,) signal-to-noise ratio; NaN = not measurable."""
    clipping: Floats | None = None
    """(N,) share of samples at full scale, 0..1."""
    speech_ratio: Floats | None = None
    """(N,) share of 20 ms frames above the noise floor, 0..1."""

    def __post_init__(self) -> None:
        self._set("ids", np.asarray(self.ids, dtype=np.str_))
        self._set("labelled_ids", np.asarray([] if self.labelled_ids is None else self.labelled_ids, dtype=np.str_))
        for name in _FLOAT_AXES:
            if (value := getattr(self, name)) is not None:
                kept = np.float16 if name in _FEATURES and np.asarray(value).dtype == np.float16 else np.float32
                self._set(name, np.ascontiguousarray(value, dtype=kept))
        for name in _NAMES:
            if (value := getattr(self, name)) is not None:
                self._set(name, np.asarray(value, dtype=np.str_))
        if self.rejected_M is not None:
            self._set("rejected_M", np.asarray(self.rejected_M, dtype=bool))
        self._check_shapes()
        self._sort_rows()
        self._check_ids()
        self._check_values()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Rows) -> Candidates:
        """The candidates at these rows; everything about the labelled part stays."""
        return replace(self, **self._columns(rows))

    def need(self, field: str) -> Any:
        """The named array, or an error saying that the strategy cannot work without it, and where it comes from."""
        if (value := getattr(self, field)) is None:
            raise SelectionError(f"this strategy needs {field}, which these candidates do not have: {_WHENCE[field]}")
        return value

    def groups(self, by: str) -> Strings:
        """The group of every candidate, (N,): its `speaker`, `corpus`, `language` or `predicted` class."""
        if by not in GROUPS:
            raise OptionError(unknown_name("grouping", by, GROUPS))
        if by == "predicted":
            return np.asarray(self.need("probability_NC").argmax(axis=1), dtype=np.str_)
        groups: Strings = self.need(by)
        return groups

    def group_sizes(self, by: str) -> Counter[str]:
        """How many candidates there are of every group."""
        name_G, size_G = np.unique(self.groups(by), return_counts=True)
        return Counter(dict(zip(name_G.tolist(), size_G.tolist(), strict=True)))

    def picked_sizes(self, by: str) -> Counter[str]:
        """How many of every group were picked so far."""
        return Counter() if self.picked is None else self.picked.group_sizes(by)

    def rows(self, ids: Sequence[str]) -> Rows:
        """Where candidates of these ids stand."""
        return np.searchsorted(self.ids, np.asarray(ids, dtype=np.str_))

    def without(self, rows: Rows) -> Candidates:
        """The candidates but those at these rows."""
        return self.but((), rows)

    def but(self, picks: Sequence[str], barred: Rows | None = None) -> Candidates:
        """The candidates but these ids, which join what is `picked`, and but those at the `barred` rows."""
        rows, picked = self.rows(picks), self.picked
        gone = rows if barred is None else np.union1d(rows, barred)
        if not len(gone):
            return self  # without a copy of the features
        if len(rows):
            new = Candidates(**self._columns(rows))
            picked = new if picked is None else concatenate([picked, new])
        return replace(self, **self._columns(np.setdiff1d(np.arange(len(self)), gone)), picked=picked)

    def labelled_centres(self) -> Stored:
        """Features of all that is labelled or picked, (M, D); (0, D) when there is nothing."""
        known_MD = self.labelled_embedding_MD
        if known_MD is None:
            known_MD = self.need("embedding_ND")[:0]
        if self.picked is None:
            return known_MD
        both_MD: Stored = np.concatenate([known_MD, self.picked.need("embedding_ND")])
        return both_MD

    def _columns(self, rows: Rows) -> dict[str, Any]:
        """What is known of the candidates at these rows."""
        columns = {name: (self._get(name), axis) for name, axis in _AXES.items()}
        return {name: np.take(value, rows, axis) for name, (value, axis) in columns.items() if value is not None}

    def _get(self, name: str) -> NDArray[Any] | None:
        value: NDArray[Any] | None = getattr(self, name)
        return value

    def _set(self, name: str, value: NDArray[Any]) -> None:
        object.__setattr__(self, name, value)

    def _check_shapes(self) -> None:
        if self.ids.ndim != 1:
            raise SelectionError(f"ids must be one-dimensional, got shape {self.ids.shape}")
        rows = {
            **dict.fromkeys(_CANDIDATE_AXIS, len(self.ids)),
            **dict.fromkeys(_LABELLED[1:], len(_present(self.labelled_ids))),
        }
        for name, expected in rows.items():
            value, axis = self._get(name), _CANDIDATE_AXIS.get(name, 0)
            if value is None:
                continue
            if value.ndim != _FLOAT_AXES.get(name, 1):
                raise SelectionError(f"{name} must have {_FLOAT_AXES.get(name, 1)} axes, got shape {value.shape}")
            if value.shape[axis] != expected:
                raise SelectionError(f"{name} has {value.shape[axis]} rows for {expected} ids (shape {value.shape})")
        _check_same_width(self.embedding_ND, self.labelled_embedding_MD)

    def _sort_rows(self) -> None:
        order, labelled_order = (np.argsort(ids, kind="stable") for ids in (self.ids, _present(self.labelled_ids)))
        for name in (*_AXES, *_LABELLED):
            chosen = labelled_order if name in _LABELLED else order
            if (value := self._get(name)) is not None and (np.diff(chosen) < 0).any():  # else no copy is made
                self._set(name, np.take(value, chosen, _AXES.get(name, 0)))

    def _check_ids(self) -> None:
        labelled = _present(self.labelled_ids)
        for name, ids in (("ids", self.ids), ("labelled_ids", labelled)):
            _refuse(ids == "", ids, f"{name} holds an empty id")
            repeated = np.concatenate([np.zeros(min(1, len(ids)), dtype=bool), ids[1:] == ids[:-1]])
            _refuse(repeated, ids, f"{name} holds the same id twice")
        known = labelled if self.picked is None else np.concatenate([labelled, self.picked.ids])
        _refuse(np.isin(self.ids, known), self.ids, "candidates are already labelled")

    def _check_values(self) -> None:
        for name, axis in _CANDIDATE_AXIS.items():
            if name in _MUST_BE_FINITE and (value := self._get(name)) is not None:
                _refuse(~_finite_rows(value, axis), self.ids, f"{name} is not finite")
        for name in ("labelled_embedding_MD", "labelled_doubt_M"):
            if (value := self._get(name)) is not None:
                _refuse(~_finite_rows(value, 0), _present(self.labelled_ids), f"{name} is not finite")
        if self.probability_NC is not None:
            _check_probabilities("probability_NC", self.probability_NC[None], self.ids)
        if self.dropout_RNC is not None:
            _check_probabilities("dropout_RNC", self.dropout_RNC, self.ids)


def known_of(metadata: pa.Table) -> dict[str, Any]:
    """What a pool's metadata says of its rows, as fields of Candidates."""
    known: dict[str, Any] = {name: np.asarray(metadata[name], np.float32) for name in _NUMBERS}
    return known | {name: np.asarray(metadata[name].fill_null("").to_pylist()) for name in _NAMES}


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """Candidates of several parts as one."""
    whole: dict[str, Any] = {}
    for name in (*_AXES, *_LABELLED):
        values = [value for part in parts if (value := part._get(name)) is not None]
        if len(values) == len(parts):
            whole[name] = np.concatenate(values, axis=_AXES.get(name, 0))
    picked = [part.picked for part in parts if part.picked is not None]
    return Candidates(**whole, picked=concatenate(picked) if picked else None)


Strategy = Callable[[Candidates, int, np.random.Generator], list[str]]
"""(candidates, k, rng) -> k ids in order of preference, 1 <= k <= N. Parameters are keyword-only, with defaults."""

_FLOAT_AXES = {
    "probability_NC": 2,
    "dropout_RNC": 3,
    "embedding_ND": 2,
    "surprisal_NQ": 2,
    "labelled_embedding_MD": 2,
    "labelled_doubt_M": 1,
    "duration_s": 1,
    "snr_db": 1,
    "clipping": 1,
    "speech_ratio": 1,
}
_CANDIDATE_AXIS = {
    "probability_NC": 0,
    "dropout_RNC": 1,
    "embedding_ND": 0,
    "surprisal_NQ": 0,
    "duration_s": 0,
    "speaker": 0,
    "corpus": 0,
    "language": 0,
    "snr_db": 0,
    "clipping": 0,
    "speech_ratio": 0,
}
_AXES = {"ids": 0, **_CANDIDATE_AXIS}
_LABELLED = ("labelled_ids", "labelled_embedding_MD", "labelled_doubt_M", "rejected_M")
_FEATURES = {"embedding_ND", "surprisal_NQ", "labelled_embedding_MD"}
_NUMBERS, _NAMES = ("duration_s", "snr_db", "clipping", "speech_ratio"), ("speaker", "corpus", "language")
KNOWN_COLUMNS = (*_NUMBERS, *_NAMES)
"""The columns of metadata that `known_of` reads."""
_WITH_A_MODEL = "the loop has them once a model is trained, `seral select` reads them from"
_WHENCE = {
    "probability_NC": f"{_WITH_A_MODEL} columns p_<class> of source.predictions",
    "dropout_RNC": f"{_WITH_A_MODEL} columns p1_<class>, p2_<class> and so on of source.predictions",
    "labelled_doubt_M": f"{_WITH_A_MODEL} a column doubt of source.labelled",
    "surprisal_NQ": "the loop has it when told to pretrain (tapt), `seral select` reads it from source.surprisal",
    "embedding_ND": "features of the candidates, source.features of `seral select`",
    "labelled_embedding_MD": "features of what is labelled, from the same source as those of the candidates",
    "rejected_M": "what annotators answered, source.labelled of `seral select`",
    **dict.fromkeys((*_NUMBERS, *_NAMES), "a pool's metadata, source.metadata of `seral select`"),
}
"""What is missing, and who has it."""
# Quality may be NaN, which says "not measurable"; what a score is computed from may not.
_MUST_BE_FINITE = {"probability_NC", "dropout_RNC", "embedding_ND", "surprisal_NQ", "duration_s"}


GROUPS = ("predicted", "speaker", "corpus", "language")
"""By what candidates can be divided."""


def _finite_rows(value: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """Which entries along an axis hold finite numbers only; a slab at a time, since the test makes a copy."""
    rows = (
        np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1) if value.size else np.zeros((value.shape[axis], 0))
    )
    parts = [np.isfinite(rows[at : at + SLAB]).all(axis=1) for at in range(0, len(rows), SLAB)]
    return np.concatenate([*parts, np.empty(0, bool)])


def _present(ids: Strings | None) -> Strings:
    """The ids, or none of them."""
    return np.empty(0, dtype=np.str_) if ids is None else ids


def _check_same_width(embedding_ND: Stored | None, labelled_MD: Stored | None) -> None:
    """Candidates and labelled utterances must be described by the same features."""
    if embedding_ND is not None and labelled_MD is not None and embedding_ND.shape[1] != labelled_MD.shape[1]:
        raise SelectionError(
            f"embedding_ND has {embedding_ND.shape[1]} features, labelled_embedding_MD {labelled_MD.shape[1]}: "
            "both must come from the same encoder"
        )


def _check_probabilities(name: str, probability_RNC: Floats, ids: Strings) -> None:
    """Rows of a distribution: at least two classes, nothing negative, sum 1."""
    if probability_RNC.shape[2] < 2:
        raise SelectionError(f"{name} needs at least 2 classes, got {probability_RNC.shape[2]}")
    if probability_RNC.shape[0] == 0:
        raise SelectionError(f"{name} needs at least 1 pass, got 0")
    _refuse((probability_RNC < 0).any(axis=(0, 2)), ids, f"{name} is negative")
    off = np.abs(probability_RNC.sum(axis=2) - 1).max(axis=0)
    _refuse(off > SUM_TOLERANCE, ids, f"{name} does not sum to 1 (largest difference {off.max(initial=0):.3g})")


def _refuse(bad: Any, ids: Strings, what: str) -> None:
    """Raise when any row is bad (booleans, one an id), naming the first of them."""
    if bad.any():
        first = ", ".join(ids[bad][:NAMED_IN_ERRORS].tolist())
        raise SelectionError(f"{what}: {first} ({int(bad.sum())} of {len(ids)} rows)")
