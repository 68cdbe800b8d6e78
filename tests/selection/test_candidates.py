from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from seral.errors import SelectionError
from seral.selection.candidates import COLUMNS, METADATA_COLUMNS, Candidates, concatenate, metadata_columns
from seral.selection.source_options import SourceOptions


def made(**changes: Any) -> Candidates:
    """Three candidates out of order, two labelled ones, every array told apart by its rows."""
    columns: dict[str, Any] = {
        "ids": ["c", "a", "b"],
        "probability_NC": [[0.3, 0.7], [0.1, 0.9], [0.2, 0.8]],
        "dropout_RNC": [[[0.3, 0.7], [0.1, 0.9], [0.2, 0.8]]] * 2,
        "embedding_ND": [[3.0, 0], [1, 0], [2, 0]],
        "labelled_ids": ["z", "y"],
        "labelled_embedding_MD": [[26.0, 0], [25, 0]],
        "duration_s": [3, 1, 2],
        "speaker": ["s3", "s1", "s2"],
        "snr_db": [30, np.nan, 20],
    }
    return Candidates(**{**columns, **changes})


def test_rows_are_sorted_by_id_in_every_column() -> None:
    candidates = made()
    assert candidates.ids.tolist() == ["a", "b", "c"]
    assert candidates.need("embedding_ND")[:, 0].tolist() == [1, 2, 3]
    np.testing.assert_allclose(candidates.need("probability_NC")[:, 0], [0.1, 0.2, 0.3])
    np.testing.assert_allclose(candidates.need("dropout_RNC")[1, :, 0], [0.1, 0.2, 0.3])
    assert candidates.speaker is not None
    assert candidates.speaker.tolist() == ["s1", "s2", "s3"]
    assert candidates.labelled_centres()[:, 0].tolist() == [25, 26]


def test_it_has_no_field_that_could_hold_a_label() -> None:
    words = ("emotion", "gold", "target", "truth", "answer", "label_", "valence", "arousal", "dominance")
    names = [field.name for field in fields(Candidates)]
    assert [name for name in names if any(word in name for word in words) or name in {"label", "labels", "y"}] == []
    assert {name for name in names if "label" in name} == {
        "labelled_ids",
        "labelled_embedding_MD",
        "labelled_doubt_M",
        "labelled_value_MK",  # as the model predicts them
    }


def test_every_field_says_what_it_is() -> None:
    """A field without a Column would be neither checked, sorted nor taken; only what is picked has none."""
    without = {field.name for field in fields(Candidates)} - set(COLUMNS)
    assert without == {"picked"}, f"{sorted(without - {'picked'})} need Annotated[..., Column(...)]"
    for name, facts in COLUMNS.items():
        assert facts.whence or name in {"ids", "labelled_ids"}, f"{name}: its Column does not say whence it comes"
        assert facts.axis < facts.axes, f"{name}: axis {facts.axis} of {facts.axes}"
        assert not (facts.metadata and facts.labelled), f"{name}: metadata is about candidates"
        assert facts.folder is None or facts.folder in SourceOptions.model_fields, f"{name}: no option {facts.folder}"


def test_metadata_is_read_by_the_table() -> None:
    table = pa.table(
        {name: ["x", None] if COLUMNS[name].kind == "name" else [1.0, None] for name in METADATA_COLUMNS}
        | {"emotion": ["anger", "joy"]}
    )
    columns = metadata_columns(table)
    assert set(columns) == {"duration_s", "speaker", "corpus", "language", "snr_db", "clipping", "speech_ratio"}
    assert columns["speaker"].tolist() == ["x", ""]
    assert np.isnan(columns["snr_db"][1])


def test_take_keeps_rows_and_the_labelled_part() -> None:
    taken = made().take(np.array([2, 0]))
    assert taken.ids.tolist() == ["a", "c"]
    assert taken.need("dropout_RNC").shape == (2, 2, 2)
    assert taken.labelled_centres().shape == (2, 2)


def test_picks_leave_the_candidates_and_are_remembered_with_all_that_is_known_of_them() -> None:
    left = made().but(["b"]).but(["c"], barred=np.array([0]))
    assert left.ids.tolist() == []
    assert left.picked is not None
    assert left.picked.ids.tolist() == ["b", "c"]
    assert left.picked.groups("speaker").tolist() == ["s2", "s3"]
    assert left.picked.need("dropout_RNC").shape == (2, 2, 2)
    assert left.labelled_ids is not None
    assert left.labelled_ids.tolist() == ["y", "z"]
    assert left.labelled_centres()[:, 0].tolist() == [25, 26, 2, 3]
    assert made(labelled_embedding_MD=None).but(["b"]).labelled_centres()[:, 0].tolist() == [2]


def test_picks_of_parts_are_put_together() -> None:
    parts = [made(labelled_ids=None, labelled_embedding_MD=None).take(np.array(rows)) for rows in ([0], [1, 2])]
    whole = concatenate([parts[0], parts[1].but(["c"])])
    assert whole.ids.tolist() == ["a", "b"]
    assert whole.picked is not None
    assert whole.picked.ids.tolist() == ["c"]


def test_no_candidates_are_allowed() -> None:
    empty = Candidates(ids=np.array([], dtype=np.str_), embedding_ND=np.empty((0, 4), dtype=np.float32))
    assert len(empty) == 0
    assert empty.labelled_centres().shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["c", "a", "a"]}, "same id twice: a"),
        ({"ids": ["c", "a", ""]}, "empty id"),
        ({"ids": ["c", "a", "y"]}, "already labelled: y"),
        ({"picked": Candidates(ids=np.array(["a"]))}, "already labelled: a"),
        ({"labelled_ids": ["z", "z"]}, "labelled_ids holds the same id twice: z"),
        ({"ids": [["c", "a", "b"]]}, "one-dimensional"),
        ({"embedding_ND": [[3.0, 0], [1, 0]]}, "embedding_ND has 2 rows for 3 ids"),
        ({"embedding_ND": [3.0, 1, 2]}, "embedding_ND must have 2 axes"),
        ({"embedding_ND": [[3.0], [1], [2]]}, "1 features, labelled_embedding_MD 2"),
        ({"embedding_ND": [[3.0, 0], [np.nan, 0], [2, 0]]}, "embedding_ND is not finite: a"),
        ({"labelled_embedding_MD": [[np.inf, 0], [25, 0]]}, "labelled_embedding_MD is not finite: z"),
        ({"labelled_ids": None}, "labelled_embedding_MD has 2 rows for 0 ids"),
        ({"probability_NC": [[0.3, 0.7], [0.1, 0.9], [0.5, 0.8]]}, "does not sum to 1 .*: b"),
        ({"probability_NC": [[0.3, 0.7], [0.1, 0.9], [1.5, -0.5]]}, "probability_NC is negative: b"),
        ({"probability_NC": [[1.0], [1], [1]]}, "at least 2 classes, got 1"),
        ({"dropout_RNC": np.empty((0, 3, 2))}, "at least 1 pass"),
        ({"dropout_RNC": [[[0.3, 0.7], [np.nan, 0.9], [0.2, 0.8]]]}, "dropout_RNC is not finite: a"),
    ],
)
def test_wrong_input_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        made(**changes)


def test_a_missing_column_is_an_error_that_names_it() -> None:
    with pytest.raises(SelectionError, match="needs dropout_RNC"):
        made(dropout_RNC=None).need("dropout_RNC")
