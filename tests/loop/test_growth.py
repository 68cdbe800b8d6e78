from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seral import storage
from seral.errors import OptionError, StateError
from seral.loop.growth import folds_of_run
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.loop.status import loop_status
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.report.report import write_run_report

pytestmark = pytest.mark.ray
ARMS = ("margin.fold-00.seed-0", "random.fold-00.seed-0")


@pytest.fixture
def night(make_corpus: Callable[..., Path], tmp_path: Path, ray_session: None) -> Callable[[int, int, int], str]:
    """`night(first, count, speakers)` adds clips to a pool, in a shard of their own; returns the pool."""

    def add(first: int, count: int, speakers: int) -> str:
        corpus = make_corpus(tmp_path / f"from-{first}", count, first=first, speakers=speakers)
        values = {"reader": "manifest", "root": str(corpus), "out": str(tmp_path / "pool"), "corpus": "calls"}
        import_corpus(parse(ImportOptions, values))
        return str(tmp_path / "pool")

    return add


def values_of(run_values: dict[str, Any], pool: str) -> dict[str, Any]:
    split = {"scheme": "leave-one-speaker"}
    more = {"pool": pool, "split": split, "strategy": "margin", "full_arm": False, "min_quality": 0.0}
    return run_values | more | {"budget": {"sizes": [8, 14]}}


def picks(run: str, arm: str) -> list[list[str]]:
    files = sorted(Path(run).glob(f"trajectories/{arm}/rounds/*/picks.parquet"))
    return [pq.read_table(file)["utterance_id"].to_pylist() for file in files]


def judged(run: str, arm: str) -> list[set[str]]:
    """Clips of test in every round."""
    files = sorted(Path(run).glob(f"trajectories/{arm}/rounds/*/predictions/test.parquet"))
    return [set(pq.read_table(file)["utterance_id"].to_pylist()) for file in files]


def test_a_run_goes_on_with_a_pool_that_has_grown(
    run_values: dict[str, Any], night: Callable[[int, int, int], str]
) -> None:
    values = values_of(run_values, night(0, 60, 5))
    run = run_loop(parse(LoopOptions, values))
    before, first = {arm: picks(run, arm) for arm in ARMS}, open_pool(values["pool"])
    features = {path: path.stat().st_mtime_ns for path in (Path(values["pool"]) / "features").rglob("*.parquet")}
    file = Path(run) / "folds" / "fold-00" / "judged.parquet"
    table, content = pq.read_table(file), file.read_bytes()
    ids = pa.array([before[ARMS[0]][0][0], *table["utterance_id"].to_pylist()[1:]])
    pq.write_table(table.set_column(0, "utterance_id", ids), file)
    with pytest.raises(
        StateError, match=f"other folds: of fold 0 1 clips of dev or test are .*{ids[0]}; start another"
    ):
        folds_of_run(parse(LoopOptions, values), first, first.metadata)
    file.write_bytes(content)
    night(60, 84, 7)  # of the five speakers that were there, and of two new ones
    with pytest.raises(StateError, match=r"has changed since .* began; give `run` another folder, or say --grown"):
        run_loop(parse(LoopOptions, values))
    with pytest.raises(StateError, match=r"has spent \[8, 14\] in 2 rounds, and the budget now begins with \[6, 20\]"):
        run_loop(parse(LoopOptions, values | {"grown": True, "budget": {"sizes": [6, 20, 30]}}))

    assert run_loop(parse(LoopOptions, values | {"grown": True, "budget": {"sizes": [8, 14, 40]}})) == run
    grown = open_pool(values["pool"])
    assert {path: path.stat().st_mtime_ns for path in features} == features, "what was there is not computed again"
    speaker = dict(zip(*(grown.metadata[c].to_pylist() for c in ("utterance_id", "speaker")), strict=True))
    old = set(first.metadata["utterance_id"].to_pylist())
    tested = {speaker[name] for name in judged(run, ARMS[0])[0]}
    for arm in ARMS:
        after = picks(run, arm)
        assert after[:2] == before[arm], "labels stay"
        assert len(after[2]) == 26
        assert set(after[2]) - old, "new clips are asked about"
        assert not {speaker[name] for ids in after for name in ids} & tested, "none of a voice that judges"
        assert judged(run, arm)[2] == judged(run, arm)[0], "test stays"
    page = Path(write_run_report(run)).read_text()
    assert f"The pool grew from 60 to 144 utterances, after 2 rounds of {ARMS[0]}, {ARMS[1]}" in page

    again = values | {"budget": {"sizes": [8, 14, 40]}}
    rounds = sorted(path.stat().st_mtime_ns for path in Path(run).glob("trajectories/*/rounds/*/round.json"))
    run_loop(parse(LoopOptions, again))  # the pool is that of the run now, and nothing is left to do
    assert rounds == sorted(path.stat().st_mtime_ns for path in Path(run).glob("trajectories/*/rounds/*/round.json"))
    with pytest.raises(StateError, match="folds cannot be added any more"):
        run_loop(parse(LoopOptions, again | {"folds": [0, 1]}))


def test_an_unfinished_run_scores_new_clips_by_the_model_it_has(
    run_values: dict[str, Any], night: Callable[[int, int, int], str], tmp_path: Path
) -> None:
    """The same picks whether the scores of the grown pool were made in the round or after it."""
    values = values_of(run_values, night(0, 60, 5)) | {"random_arm": False}
    run = run_loop(parse(LoopOptions, values))
    night(60, 84, 7)
    asked = {"grown": True, "budget": {"sizes": [8, 14, 20, 26]}}
    copy = shutil.copytree(run, tmp_path / "copy")
    run_loop(parse(LoopOptions, values | asked))
    for path in sorted(Path(copy).glob("trajectories/*/rounds/0001/predictions/pool/*")):
        path.unlink()  # nothing of the old scores is needed
    run_loop(parse(LoopOptions, values | asked | {"run": str(copy)}))
    assert picks(str(copy), ARMS[0]) == picks(run, ARMS[0])
    assert [row["rounds"] for row in loop_status(run)] == ["4/4"]
    entries = storage.read_json(Path(run) / "growth.json")["growths"]
    assert [(entry["before"], entry["after"], entry["rounds"]) for entry in entries] == [(60, 144, {ARMS[0]: 2})]


def test_a_pool_that_was_moved_is_the_same_pool(
    run_values: dict[str, Any], night: Callable[[int, int, int], str], tmp_path: Path
) -> None:
    values = values_of(run_values, night(0, 60, 5)) | {"random_arm": False}
    run = run_loop(parse(LoopOptions, values))
    moved = str(Path(values["pool"]).rename(tmp_path / "elsewhere"))
    assert run_loop(parse(LoopOptions, values | {"pool": moved, "feature_cache": str(tmp_path / "cache")})) == run
    assert json.loads((Path(run) / "environment.json").read_text())["pool"] == moved
    assert "<html" in Path(write_run_report(run)).read_text()
    shutil.rmtree(Path(run) / "trajectories")
    assert picks(run_loop(parse(LoopOptions, values | {"pool": moved})), ARMS[0])


def test_further_rounds_are_for_pools_that_have_grown(
    run_values: dict[str, Any], night: Callable[[int, int, int], str]
) -> None:
    values = values_of(run_values, night(0, 60, 5)) | {"random_arm": False}
    run_loop(parse(LoopOptions, values))
    with pytest.raises((StateError, OptionError), match=r"other options \(budget: was"):
        run_loop(parse(LoopOptions, values | {"budget": {"sizes": [8, 14, 40]}}))
