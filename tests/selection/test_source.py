from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seral.errors import FeatureError, LabelError, OptionError, SelectionError
from seral.options import parse
from seral.selection.batch import run_batch
from seral.selection.candidates import Candidates
from seral.selection.options import BatchOptions
from seral.selection.source import read_candidates, shards
from seral.selection.source_options import SourceOptions

# N candidates · M labelled · R passes · C classes · D features

CLASSES = ["anger", "joy", "neutral"]


def pool(count: int = 30, labelled: int = 6) -> Candidates:
    rng = np.random.default_rng(0)
    return Candidates(
        ids=np.array([f"u{number:02d}" for number in range(count)], dtype=np.str_),
        probability_NC=rng.dirichlet(np.ones(3), size=count).astype(np.float32),
        dropout_RNC=rng.dirichlet(np.ones(3), size=(11, count)).astype(np.float32),
        embedding_ND=rng.normal(size=(count, 4)).astype(np.float32),
        labelled_ids=np.array([f"v{number:02d}" for number in range(labelled)], dtype=np.str_),
        labelled_embedding_MD=rng.normal(size=(labelled, 4)).astype(np.float32),
        labelled_doubt_M=rng.uniform(size=labelled).astype(np.float32),
        rejected_M=np.arange(labelled) % 2 == 1,
    )


def write(folder: Path, name: str, **columns: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), folder / name)


def features(folder: Path, name: str, ids: list[Any], width: int = 4) -> None:
    vectors = pa.array(np.ones((len(ids), width), np.float32).tolist(), pa.list_(pa.float32()))
    write(folder, f"features/{name}", utterance_id=pa.array(ids, pa.string()), embedding=vectors)


def source_of(folder: Path, **beside: str) -> SourceOptions:
    """Features and, by their names, other files of a folder."""
    return SourceOptions(
        features=str(folder / "features"), **{name: str(folder / file) for name, file in beside.items()}
    )


def written(folder: Path, whole: Candidates) -> SourceOptions:
    """The candidates as Parquet files."""
    assert whole.labelled_ids is not None
    ids = np.concatenate([whole.ids, whole.labelled_ids])
    x_XD = np.concatenate([whole.need("embedding_ND"), whole.labelled_centres()])
    for number, rows in enumerate(np.array_split(np.random.default_rng(1).permutation(len(ids)), 3)):
        write(folder, f"features/{number}.parquet", utterance_id=ids[rows].tolist(), embedding=x_XD[rows].tolist())
    scores = {f"p_{name}": whole.need("probability_NC")[:, at] for at, name in enumerate(CLASSES)}
    for number, p_NC in reversed(list(enumerate(whole.need("dropout_RNC"), start=1))):
        scores |= {f"p{number}_{name}": p_NC[:, at] for at, name in enumerate(CLASSES)}
    write(folder, "predictions.parquet", utterance_id=whole.ids.tolist(), predicted=["joy"] * len(whole), **scores)
    columns = {
        "answer": np.where(whole.need("rejected_M"), "unusable", "label").tolist(),
        "doubt": whole.need("labelled_doubt_M"),
    }
    write(folder, "labelled.parquet", utterance_id=whole.labelled_ids.tolist(), **columns)
    return source_of(folder, predictions="predictions.parquet", labelled="labelled.parquet")


def picked(source: SourceOptions, folder: Path, **more: Any) -> list[str]:
    """Five picks, or those of some minutes."""
    much = {} if "minutes" in more else {"count": 5}
    values = {"source": source.model_dump(), "strategy": "k_center", "out": str(folder / "picks.parquet")}
    run_batch(parse(BatchOptions, {**values, **much, **more}))
    ids: list[str] = pq.read_table(folder / "picks.parquet")["utterance_id"].to_pylist()
    return ids


def test_dropout_passes_and_doubts_are_read_back(tmp_path: Path) -> None:
    whole = pool()
    source = written(tmp_path, whole)
    read = read_candidates(source, shards(source))
    for field in fields(Candidates):
        before, after = getattr(whole, field.name), getattr(read, field.name)
        assert (before is None) == (after is None), field.name
        assert before is None or before.tolist() == after.tolist(), field.name


def test_what_needs_passes_or_doubts_picks_from_parquet(tmp_path: Path) -> None:
    whole = pool()
    source = written(tmp_path, whole)
    apart = picked(source, tmp_path, strategy="bald")
    assert set(apart) <= set(whole.ids.tolist())
    assert len(set(picked(source, tmp_path, strategy="batch_bald"))) == 5
    relabel = {"name": "relabel", "share": 0.4, "doubt": 0.0}
    again = picked(source, tmp_path, strategy={"name": "bald", "wrappers": [relabel]})
    assert whole.labelled_ids is not None
    most = np.argsort(-whole.need("labelled_doubt_M"))[:2]
    assert again == [*apart[:3], *whole.labelled_ids[most].tolist()]


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("bald", r"needs dropout_RNC, .* p1_<class>, p2_<class> and so on of source\.predictions"),
        ({"name": "random", "wrappers": ["relabel"]}, r"needs labelled_doubt_M, .* a column doubt of source\.labelled"),
        ("margin", r"needs probability_NC, .* columns p_<class> of source\.predictions"),
        ("alps", r"needs surprisal_NQ, .* reads it from source\.surprisal"),
        ({"name": "random", "by": "speaker"}, r"needs speaker, .* source\.metadata of `seral select`"),
    ],
)
def test_what_is_missing_is_named_and_where_it_comes_from(strategy: Any, message: str, tmp_path: Path) -> None:
    features(tmp_path, "0.parquet", [f"u{number}" for number in range(9)])
    write(tmp_path, "labelled.parquet", utterance_id=["u0"])
    with pytest.raises(SelectionError, match=message):
        picked(source_of(tmp_path, labelled="labelled.parquet"), tmp_path, strategy=strategy)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"p_a": [0.5], "p_b": [0.5], "p1_a": [0.5], "p2_b": [0.5]}, "passes or members, but no column p1_b, p2_a"),
        ({"valence": [2.0], "arousal": [2.0], "valence_1": [2.0]}, "passes or members, but no column arousal_1"),
        ({"a": [0.5], "b": [0.5]}, "no column p_<class>, valence, arousal, dominance; it has utterance_id, a, b"),
    ],
)
def test_predictions_without_all_their_columns_are_refused(
    columns: dict[str, Any], message: str, tmp_path: Path
) -> None:
    features(tmp_path, "0.parquet", ["u0"])
    write(tmp_path, "predictions.parquet", utterance_id=["u0"], **columns)
    with pytest.raises(SelectionError, match=message):
        read_candidates(source_of(tmp_path, predictions="predictions.parquet"), ["0.parquet"])


@pytest.mark.parametrize("beside", ["predictions", "metadata", "labelled"])
def test_a_file_that_is_not_there_is_named(beside: str, tmp_path: Path) -> None:
    features(tmp_path, "0.parquet", ["u0", "u1"])
    source = source_of(tmp_path, **{beside: "nowhere.parquet"}).model_dump()
    values = {"source": source, "strategy": "k_center", "count": 1, "out": str(tmp_path / "picks.parquet")}
    with pytest.raises(OptionError, match=r"there is no file .*nowhere\.parquet"):
        run_batch(parse(BatchOptions, values))


def test_an_empty_pool_is_named_and_an_empty_file_skipped(tmp_path: Path) -> None:
    for number in range(2):
        features(tmp_path, f"{number}.parquet", [])
    source = source_of(tmp_path)
    message = r"features holds no utterance: all its Parquet files are empty, e\.g\. 0\.parquet"
    with pytest.raises(FeatureError, match=message):
        picked(source, tmp_path)
    with pytest.raises(FeatureError, match=r"1\.parquet holds no utterance"):
        read_candidates(source, ["1.parquet"])
    features(tmp_path, "2.parquet", [f"u{number}" for number in range(5)])
    assert sorted(picked(source, tmp_path)) == [f"u{number}" for number in range(5)]


def test_files_of_different_widths_are_named(tmp_path: Path) -> None:
    features(tmp_path, "0.parquet", ["u0", "u1"])
    features(tmp_path, "1.parquet", ["u2", "u3"], width=6)
    with pytest.raises(FeatureError, match=r"4 numbers an utterance in 0\.parquet, 6 numbers an utterance in 1\.parq"):
        picked(source_of(tmp_path), tmp_path)


@pytest.mark.parametrize("cells", [pa.array([[1.0], [1.0, 2.0, 3.0]]), pa.array([b"12", b"123456"])], ids=str)
def test_rows_of_different_widths_are_named_though_their_sum_would_fit(cells: pa.Array, tmp_path: Path) -> None:
    write(tmp_path, "features/0.parquet", utterance_id=["u0", "u1"], embedding=cells)
    with pytest.raises(SelectionError, match=r"0\.parquet: embedding of \d to \d (numbers|bytes); every row must have"):
        picked(source_of(tmp_path), tmp_path)


def test_an_utterance_in_two_files_is_named_with_both(tmp_path: Path) -> None:
    for number, ids in enumerate((["u5", "u0"], ["u4", "u3"], ["u2", "u0", "u1"])):
        features(tmp_path, f"{number}.parquet", ids)
    with pytest.raises(FeatureError, match=r"holds u0 twice: in 0\.parquet and in 2\.parquet"):
        picked(source_of(tmp_path), tmp_path)
    features(tmp_path, "2.parquet", ["u2", "u1", None])
    with pytest.raises(SelectionError, match=r"2\.parquet: 1 rows have no utterance_id"):
        picked(source_of(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("answers", "rejected", "doubt"),
    [
        ({"answer": ["unusable", "label", "unusable"]}, [False, True], None),
        ({"answer": ["label", "label", "skipped"]}, [False, False], None),
        ({"doubt": [0.25, 0.5, 0.25]}, [False, False], [0.5, 0.25]),
        ({"doubt": [0.25, None, 0.25]}, [False, False], [0, 0.25]),
    ],
)
def test_an_utterance_may_be_labelled_twice_when_what_is_said_agrees(
    answers: dict[str, Any], rejected: list[bool], doubt: list[float] | None, tmp_path: Path
) -> None:
    features(tmp_path, "0.parquet", ["u0", "u1", "u2"])
    write(tmp_path, "labelled.parquet", utterance_id=["u2", "u1", "u2"], **answers)
    read = read_candidates(source_of(tmp_path, labelled="labelled.parquet"), ["0.parquet"])
    assert read.labelled_ids is not None
    assert read.labelled_ids.tolist() == ["u1", "u2"]
    assert read.need("rejected_M").tolist() == rejected
    assert doubt == (None if read.labelled_doubt_M is None else read.labelled_doubt_M.tolist())


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"answer": ["label", "label", "unusable"]}, "holds u2 twice and .*: unusable is False and True"),
        ({"doubt": [None, 0.5, 0.25]}, r"labelled\.parquet holds u2 twice and .*: doubt is 0.0 and 0.25"),
    ],
)
def test_what_is_said_twice_and_differs_is_refused(answers: dict[str, Any], message: str, tmp_path: Path) -> None:
    features(tmp_path, "0.parquet", ["u0", "u1", "u2"])
    write(tmp_path, "labelled.parquet", utterance_id=["u2", "u1", "u2"], **answers)
    with pytest.raises(LabelError, match=message):
        picked(source_of(tmp_path, labelled="labelled.parquet"), tmp_path)


def test_labels_without_features_are_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features(tmp_path, "0.parquet", [f"u{number}" for number in range(9)])
    source = source_of(tmp_path, labelled="labelled.parquet")
    write(tmp_path, "labelled.parquet", utterance_id=["u0", *(f"w{number}" for number in range(7))])
    picked(source, tmp_path)
    message = f"7 labelled utterances have no features in {source.features} and are left out, e.g. w0, w1, w2, w3, w4\n"
    assert message in capsys.readouterr().err
    write(tmp_path, "labelled.parquet", utterance_id=["u0"])
    picked(source, tmp_path)
    assert "have no features" not in capsys.readouterr().err


@pytest.mark.parametrize("more", [{}, {"minutes": 5}])
def test_when_everything_is_labelled_it_is_said(more: dict[str, Any], tmp_path: Path) -> None:
    features(tmp_path, "0.parquet", ["u0", "u1"])
    write(tmp_path, "labelled.parquet", utterance_id=["u0", "u1"])
    with pytest.raises(SelectionError, match="of 0 candidates: every utterance with features is labelled already"):
        picked(source_of(tmp_path, labelled="labelled.parquet"), tmp_path, **more)


@pytest.mark.ray
def test_parts_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str], ray_session: None) -> None:
    for number in range(3):
        features(tmp_path, f"{number}.parquet", [f"u{number}{row}" for row in range(4)] if number != 1 else [])
    source = source_of(tmp_path, labelled="labelled.parquet")
    write(tmp_path, "labelled.parquet", utterance_id=["u00", "u20", "w0"])
    assert len(picked(source, tmp_path, parts=3)) == 5
    assert "1 labelled utterances have no features" in capsys.readouterr().err
    write(tmp_path, "labelled.parquet", utterance_id=[f"u{number}{row}" for number in (0, 2) for row in range(4)])
    with pytest.raises(SelectionError, match="every utterance with features is labelled already"):
        picked(source, tmp_path, parts=2)
    features(tmp_path, "2.parquet", ["u20"], width=5)
    with pytest.raises(FeatureError, match=r"4 numbers an utterance in 0\.parquet, 5 numbers an utterance in 2\.parq"):
        picked(source, tmp_path, parts=2)
