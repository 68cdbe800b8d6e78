from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seral.errors import LostPart, OptionError, SelectionError
from seral.options import parse
from seral.selection.batch import run_batch
from seral.selection.options import BatchOptions

N, FILES = 90, 3


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """Features of 90 utterances in three files, ids scattered over them, with durations."""
    rng = np.random.default_rng(0)
    names = np.array([f"u{number:02d}" for number in rng.permutation(N)])
    for folder in ("features", "utterances"):
        (tmp_path / folder).mkdir()
    for number, ids in enumerate(np.array_split(names, FILES)):
        rows = {"utterance_id": ids.tolist(), "embedding": rng.normal(size=(len(ids), 4)).tolist()}
        pq.write_table(pa.table(rows), tmp_path / "features" / f"{number}.parquet")
        columns: dict[str, Any] = {name: np.full(len(ids), 10, np.float32) for name in ("duration_s", "snr_db")}
        columns |= {name: np.zeros(len(ids), np.float32) for name in ("clipping", "speech_ratio")}
        columns |= dict.fromkeys(("speaker", "corpus", "language"), ["x"] * len(ids))
        pq.write_table(
            pa.table({"utterance_id": ids.tolist(), **columns}), tmp_path / "utterances" / f"{number}.parquet"
        )
    pq.write_table(pa.table({"utterance_id": names[:5].tolist()}), tmp_path / "labelled.parquet")
    source = {"features": str(tmp_path / "features"), "labelled": str(tmp_path / "labelled.parquet")}
    return {"source": source, "strategy": "k_center", "out": str(tmp_path / "picks.parquet")}


def picked(values: dict[str, Any], **more: Any) -> tuple[dict[str, Any], list[str]]:
    summary = run_batch(parse(BatchOptions, {**values, **more}))
    table = pq.read_table(values["out"])
    assert table["order"].to_pylist() == list(range(summary["picks"]))
    return summary, table["utterance_id"].to_pylist()


def test_picks_are_written_in_order_and_never_labelled_ones(values: dict[str, Any], tmp_path: Path) -> None:
    summary, picks = picked(values, count=12)
    assert (summary["candidates"], summary["picks"], summary["exact"]) == (N - 5, 12, True)
    assert not set(picks) & set(pq.read_table(tmp_path / "labelled.parquet")["utterance_id"].to_pylist())


def test_the_files_names_and_order_change_nothing(values: dict[str, Any], tmp_path: Path) -> None:
    _, before = picked(values, count=12)
    for old, new in (("0", "z"), ("2", "a")):
        (tmp_path / "features" / f"{old}.parquet").rename(tmp_path / "features" / f"{new}.parquet")
    assert picked(values, count=12)[1] == before


@pytest.mark.ray
@pytest.mark.parametrize("strategy", ["k_center", "k_means_plus_plus", {"name": "random", "wrappers": ["quality"]}])
@pytest.mark.parametrize("budget", [{"count": 12}, {"minutes": 3}], ids=str)
def test_parts_change_nothing(
    values: dict[str, Any], strategy: Any, budget: dict[str, Any], tmp_path: Path, ray_session: None
) -> None:
    values["source"]["metadata"] = str(tmp_path / "utterances")
    _, one = picked(values, **budget, strategy=strategy)
    summary, many = picked(values, **budget, strategy=strategy, parts=2)
    assert many == one
    assert summary["exact"]
    assert "distance" not in summary


@pytest.mark.ray
def test_merged_picks_come_with_their_distance(values: dict[str, Any], ray_session: None) -> None:
    summary, _ = picked(values, count=12, strategy="auto", parts=9)  # more than there are files
    assert not summary["exact"]
    assert summary["distance"] > 0
    summary, _ = picked(values, count=12, strategy="auto")
    assert summary["exact"]
    (Path(values["source"]["features"]) / "copy.parquet").write_bytes(
        (Path(values["source"]["features"]) / "0.parquet").read_bytes()
    )
    with pytest.raises(SelectionError, match=r"30 ids are in two parts, e\.g\. u"):
        picked(values, count=12, strategy="margin", parts=4)


@pytest.mark.ray
def test_a_lost_part_is_named_when_selection_may_not_begin_again(
    values: dict[str, Any], ray_session: None, workers_of_ray: Callable[[str], list[psutil.Process]]
) -> None:
    ended = Event()

    def kill() -> None:
        while not ended.wait(0.01):
            for worker in workers_of_ray("PoolPart"):
                worker.kill()

    killer = Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(LostPart, match=r"after 1 lost parts: .*more `parts`.*raise cluster\.max_failures \(0\)"):
            picked(values, count=12, parts=2, cluster={"max_failures": 0})
    finally:
        ended.set()
        killer.join()
    assert not Path(values["out"]).exists()


def test_minutes_are_counted(values: dict[str, Any], tmp_path: Path) -> None:
    values["source"]["metadata"] = str(tmp_path / "utterances")
    summary, _ = picked(values, minutes=4, pace={"listening": 1, "deciding_s": 10})
    assert summary["picks"] == 4 * 60 // 20


def test_what_does_not_fit_together_is_refused(values: dict[str, Any]) -> None:
    for more, message in (
        ({}, "one of them"),
        ({"count": 3, "minutes": 2}, "one of them"),
    ):
        with pytest.raises(OptionError, match=message):
            parse(BatchOptions, {**values, **more})
