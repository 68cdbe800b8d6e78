"""Candidates: all that a strategy may see of the unlabelled pool, checked once and put into one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seral.errors import OptionError, SelectionError, unknown_name
from seral.vectors.arrays import Floats, Rows, Stored, Strings

# N candidates · M labelled utterances · R repeats (dropout passes) · C classes · D features

SUM_TOLERANCE = 1e-3
"""Largest distance from 1 of the sum of a row of probabilities (fp16 softmax outputs stay within it)."""
SLAB = 65_536
"""Rows looked at in one go."""
NAMED_IN_ERRORS = 3
"""Number of offending ids that a message shows."""

Kind = Literal["number", "feature", "name", "flag"]
DTYPES: dict[Kind, tuple[type[np.generic], ...]] = {
    "number": (np.float32,),
    "feature": (np.float32, np.float16),
    "name": (np.str_,),
    "flag": (np.bool_,),
}
"""Types in which an array of each kind is kept: as it comes where that is one of them, else as the first."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """Everything known about one array of Candidates; all code that goes through the arrays reads it from here."""

    kind: Kind
    axes: int = 1
    axis: int = 0
    """The axis along which the rows lie."""
    labelled: bool = False
    """Whether the rows are those of the labelled part, else of the candidates."""
    finite: bool = False
    """Whether NaN and infinity are refused."""
    distribution: bool = False
    """Whether the last axis holds the probabilities of classes."""
    model: bool = False
    """Whether a trained model has to come first."""
    of: Literal["classes", "ratings"] | None = None
    """The outputs of a model that it is made of."""
    metadata: bool = False
    """Whether a pool's metadata has a column of this name."""
    folder: str | None = None
    """The option of `seral select` that names a folder of vectors with this content."""
    whence: str = ""
    """The end of the message when a strategy needs the column and it is not there: who has it."""


WITH_A_MODEL = "the loop has them once a model is trained, `seral select` reads them from"
METADATA = "a pool's metadata, source.metadata of `seral select`"


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """All a strategy may see of the unlabelled pool. It has no labels, by construction.

    Rows are sorted by id when the object is made, so the order of shards or workers cannot change a pick. A new input
    of strategies is one field here, with its facts: `COLUMNS` is the table of them.
    """

    ids: Annotated[Strings, Column(kind="name")]
    """(N,) utterance ids, unique."""
    probability_NC: Annotated[
        Floats | None,
        Column(
            kind="number",
            axes=2,
            finite=True,
            distribution=True,
            model=True,
            of="classes",
            whence=f"{WITH_A_MODEL} columns p_<class> of source.predictions",
        ),
    ] = None
    """Class probabilities of the current model."""
    dropout_RNC: Annotated[
        Floats | None,
        Column(
            kind="number",
            axes=3,
            axis=1,
            finite=True,
            distribution=True,
            model=True,
            of="classes",
            whence=f"{WITH_A_MODEL} columns p1_<class>, p2_<class> and so on of source.predictions",
        ),
    ] = None
    """Class probabilities of R stochastic passes with dropout on, or of R members of an ensemble."""
    value_NK: Annotated[
        Floats | None,
        Column(
            kind="number",
            axes=2,
            finite=True,
            model=True,
            of="ratings",
            whence=f"{WITH_A_MODEL} columns valence, arousal or dominance of source.predictions",
        ),
    ] = None
    """Ratings that the current model predicts, of K dimensions."""
    member_RNK: Annotated[
        Floats | None,
        Column(
            kind="number",
            axes=3,
            axis=1,
            finite=True,
            model=True,
            of="ratings",
            whence=f"{WITH_A_MODEL} columns valence_1, valence_2 and so on of source.predictions",
        ),
    ] = None
    """Ratings that R members of an ensemble predict."""
    embedding_ND: Annotated[
        Stored | None,
        Column(
            kind="feature",
            axes=2,
            finite=True,
            whence="features of the candidates, source.features of `seral select`",
        ),
    ] = None
    """Pooled features of the candidates."""
    surprisal_NQ: Annotated[
        Stored | None,
        Column(
            kind="feature",
            axes=2,
            finite=True,
            folder="surprisal",
            whence="the loop has it when told to pretrain (tapt), `seral select` reads it from source.surprisal",
        ),
    ] = None
    """Pretraining loss of the candidates by kinds of sound (seral.pretraining.surprisal)."""
    labelled_ids: Annotated[Strings | None, Column(kind="name", labelled=True)] = None
    """(M,) ids of what is already labelled; None = nothing is."""
    labelled_embedding_MD: Annotated[
        Stored | None,
        Column(
            kind="feature",
            axes=2,
            labelled=True,
            finite=True,
            whence="features of what is labelled, from the same source as those of the candidates",
        ),
    ] = None
    """Features of what is already labelled, in the order of `labelled_ids`, without its labels."""
    labelled_doubt_M: Annotated[
        Floats | None,
        Column(
            kind="number",
            labelled=True,
            finite=True,
            model=True,
            of="classes",
            whence=f"{WITH_A_MODEL} a column doubt of source.labelled",
        ),
    ] = None
    """Disbelief of the model in the labels at hand, 0..1; a number, not the label."""
    labelled_value_MK: Annotated[
        Floats | None,
        Column(
            kind="number",
            axes=2,
            labelled=True,
            finite=True,
            model=True,
            of="ratings",
            whence=f"{WITH_A_MODEL} columns valence, arousal or dominance of source.labelled",
        ),
    ] = None
    """Ratings that the current model predicts of what is labelled; not the labels."""
    rejected_M: Annotated[
        NDArray[np.bool_] | None,
        Column(
            kind="flag",
            labelled=True,
            whence="what annotators answered, source.labelled of `seral select`",
        ),
    ] = None
    """Whether the annotator found the utterance unusable, so that it got no label."""
    picked: Candidates | None = None
    """Picks of this selection so far, when it asks a strategy again: neither candidates nor answered yet."""
    duration_s: Annotated[Floats | None, Column(kind="number", finite=True, metadata=True, whence=METADATA)] = None
    """(N,) seconds."""
    speaker: Annotated[Strings | None, Column(kind="name", metadata=True, whence=METADATA)] = None
    """(N,) speaker names; empty string = unknown."""
    corpus: Annotated[Strings | None, Column(kind="name", metadata=True, whence=METADATA)] = None
    """(N,) corpus names."""
    language: Annotated[Strings | None, Column(kind="name", metadata=True, whence=METADATA)] = None
    """(N,) language codes; empty string = unknown."""
    snr_db: Annotated[Floats | None, Column(kind="number", metadata=True, whence=METADATA)] = None
    """(N,) signal-to-noise ratio; NaN = not measurable."""
    clipping: Annotated[Floats | None, Column(kind="number", metadata=True, whence=METADATA)] = None
    """(N,) share of samples at full scale, 0..1; NaN = not measured."""
    speech_ratio: Annotated[Floats | None, Column(kind="number", metadata=True, whence=METADATA)] = None
    """(N,) share of 20 ms frames above the noise floor, 0..1; NaN = not measured."""

    def __post_init__(self) -> None:
        if self.labelled_ids is None:
            self._set("labelled_ids", np.empty(0, dtype=np.str_))
        for name, value in self._arrays():
            self._set(name, _stored(value, COLUMNS[name].kind))
        self._check_shapes()
        self._sort_rows()
        self._check_ids()
        self._check_values()

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Rows) -> Candidates:
        """The candidates at these rows; everything about the labelled part stays."""
        return replace(self, **self._columns(rows))

    def need(self, name: str) -> Any:
        """The named array, or an error saying that the strategy cannot work without it, and where it comes from."""
        if (value := getattr(self, name)) is None:
            raise SelectionError(
                f"this strategy needs {name}, which these candidates do not have: {COLUMNS[name].whence}"
            )
        return value

    def groups(self, by: str) -> Strings:
        """The group of every candidate, (N,): its `speaker`, `corpus`, `language` or `predicted` class."""
        if by not in GROUPS:
            raise OptionError(unknown_name("grouping", by, GROUPS))
        column = self.need(GROUPS[by])
        return np.asarray(column.argmax(axis=1) if column.ndim > 1 else column, dtype=np.str_)

    def group_sizes(self, by: str) -> Counter[str]:
        """Number of candidates of every group."""
        name_G, size_G = np.unique(self.groups(by), return_counts=True)
        return Counter(dict(zip(name_G.tolist(), size_G.tolist(), strict=True)))

    def picked_sizes(self, by: str) -> Counter[str]:
        """Number of picks of every group so far."""
        return Counter() if self.picked is None else self.picked.group_sizes(by)

    def rows(self, ids: Sequence[str]) -> Rows:
        """Rows of the candidates of these ids."""
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
        labelled_MD = self.labelled_embedding_MD
        if labelled_MD is None:
            labelled_MD = self.need("embedding_ND")[:0]
        if self.picked is None:
            return labelled_MD
        centre_MD: Stored = np.concatenate([labelled_MD, self.picked.need("embedding_ND")])
        return centre_MD

    def labelled_values(self) -> Floats:
        """Predicted ratings of all that is labelled or picked, (M, K), in the order of `labelled_centres`."""
        value_MK: Floats = self.need("labelled_value_MK")
        return value_MK if self.picked is None else np.concatenate([value_MK, self.picked.need("value_NK")])

    def _columns(self, rows: Rows) -> dict[str, Any]:
        """Every array of the candidates, at these rows."""
        mine = ((name, value) for name, value in self._arrays() if not COLUMNS[name].labelled)
        return {name: np.take(value, rows, COLUMNS[name].axis) for name, value in mine}

    def _arrays(self) -> list[tuple[str, Any]]:
        """The arrays that are there, by name, in the order of COLUMNS."""
        return [(name, value) for name in COLUMNS if (value := getattr(self, name)) is not None]

    def _row_ids(self, column: Column) -> Strings:
        """The ids of a column's rows."""
        return _present(self.labelled_ids) if column.labelled else self.ids

    def _set(self, name: str, value: NDArray[Any]) -> None:
        object.__setattr__(self, name, value)

    def _check_shapes(self) -> None:
        if self.ids.ndim != 1:
            raise SelectionError(f"ids must be one-dimensional, got shape {self.ids.shape}")
        for name, value in self._arrays():
            facts = COLUMNS[name]
            if value.ndim != facts.axes:
                raise SelectionError(f"{name} must have {facts.axes} axes, got shape {value.shape}")
            rows, expected = value.shape[facts.axis], len(self._row_ids(facts))
            if rows != expected:
                raise SelectionError(f"{name} has {rows} rows for {expected} ids (shape {value.shape})")
        _check_same_width(self.embedding_ND, self.labelled_embedding_MD)

    def _sort_rows(self) -> None:
        for labelled, ids in ((False, self.ids), (True, _present(self.labelled_ids))):
            order = np.argsort(ids, kind="stable")
            if not (np.diff(order) < 0).any():
                continue  # without a copy
            for name, value in self._arrays():
                if COLUMNS[name].labelled == labelled:
                    self._set(name, np.take(value, order, COLUMNS[name].axis))

    def _check_ids(self) -> None:
        labelled = _present(self.labelled_ids)
        for name, ids in (("ids", self.ids), ("labelled_ids", labelled)):
            _refuse(ids == "", ids, f"{name} holds an empty id")
            repeated = np.concatenate([np.zeros(min(1, len(ids)), dtype=bool), ids[1:] == ids[:-1]])
            _refuse(repeated, ids, f"{name} holds the same id twice")
        taken = labelled if self.picked is None else np.concatenate([labelled, self.picked.ids])
        _refuse(np.isin(self.ids, taken), self.ids, "candidates are already labelled")

    def _check_values(self) -> None:
        for name, value in self._arrays():
            facts = COLUMNS[name]
            if facts.finite:
                _refuse(~_finite_rows(value, facts.axis), self._row_ids(facts), f"{name} is not finite")
        for name, value in self._arrays():
            if COLUMNS[name].distribution:
                _check_probabilities(name, value if value.ndim == 3 else value[None], self.ids)


COLUMNS: dict[str, Column] = {
    name: facts
    for name, hint in get_type_hints(Candidates, include_extras=True).items()
    for facts in getattr(hint, "__metadata__", ())
}
"""The arrays of Candidates by name: the one table that shapes, order, checks, messages and reading are derived from."""
METADATA_COLUMNS = tuple(name for name, facts in COLUMNS.items() if facts.metadata)
"""Columns of a pool's metadata that strategies may read."""
WITHOUT_A_MODEL = frozenset(name for name, facts in COLUMNS.items() if not facts.model)
"""Fields of Candidates that may be read before there is a model."""
OF_CLASSES, OF_RATINGS = (
    frozenset(name for name, facts in COLUMNS.items() if facts.of == of) for of in ("classes", "ratings")
)
"""Fields of Candidates that models of classes make, and those that models of ratings make."""


def metadata_columns(metadata: pa.Table) -> dict[str, Any]:
    """Fields of Candidates that a pool's metadata holds."""
    return {
        name: np.asarray(metadata[name].fill_null("").to_pylist())
        if COLUMNS[name].kind == "name"
        else np.asarray(metadata[name], np.float32)
        for name in METADATA_COLUMNS
    }


def concatenate(parts: Sequence[Candidates]) -> Candidates:
    """Candidates of several parts as one; it has the arrays that all of them have.

    A part without a labelled row says nothing of what is known of those of others.
    """
    whole: dict[str, Any] = {}
    labelled = [part for part in parts if len(_present(part.labelled_ids))] or parts
    for name, facts in COLUMNS.items():
        among = labelled if facts.labelled else parts
        values = [value for part in among if (value := getattr(part, name)) is not None]
        if len(values) == len(among):
            whole[name] = np.concatenate(values, axis=facts.axis)
    picked = [part.picked for part in parts if part.picked is not None]
    return Candidates(**whole, picked=concatenate(picked) if picked else None)


GROUPS: dict[str, str] = {
    "predicted": "probability_NC",
    **{name: name for name in METADATA_COLUMNS if COLUMNS[name].kind == "name"},
}
"""By what candidates can be divided, and the column that it is read from."""


def _stored(value: Any, kind: Kind) -> NDArray[Any]:
    """The array as Candidates keep it: contiguous numbers, names or flags, without a copy where it is so already."""
    array = np.asarray(value)
    if kind == "name":
        return np.asarray(array, dtype=np.str_)  # of any length
    kinds = DTYPES[kind]
    return np.ascontiguousarray(array, dtype=array.dtype if array.dtype in kinds else kinds[0])


def _finite_rows(value: NDArray[Any], axis: int) -> NDArray[np.bool_]:
    """Tell which entries along an axis hold finite numbers only; a slab at a time, since the test makes a copy."""
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
