from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seral.errors import StateError
from seral.loop.estimate import Estimate, UnitCosts, check_room, estimate, largest_memory, measure, task_of
from seral.loop.growth import first_folds
from seral.loop.loop import arm_of, foresee, run_loop
from seral.loop.options import PROJECTED, LoopOptions
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pool.splits import folds_of
from seral.task.eligibility import eligible
from seral.verbs.doctor import examine

pytestmark = pytest.mark.ray
LORA = {"adapter": "lora", "top_layers": 1, "epochs": 1}


def expected_of(options: LoopOptions) -> Estimate:
    pool = open_pool(options.pool)
    return foresee(options, pool, first_folds(options, eligible(options, pool, None)))


@pytest.mark.parametrize("frames_gb", [20.0, 0.0])
def test_disk_of_features_and_frames_is_what_was_foreseen(
    run_values: dict[str, Any], tmp_path: Path, frames_gb: float
) -> None:
    one_arm = {"strategy": "margin", "full_arm": False, "random_arm": False, "finetune": LORA}
    values = run_values | one_arm | {"feature_cache": str(tmp_path / "cache"), "frames_gb": frames_gb}
    options = parse(LoopOptions, values)
    before = expected_of(options)
    run_loop(options)
    tables = [path for path in (tmp_path / "cache").rglob("*.parquet") if path.parent.name != "quarantine"]
    overhead = 4000 * len(tables)  # footers and ids, which weigh something where shards are tiny
    assert before.feature_bytes == pytest.approx(sum(path.stat().st_size for path in tables) - overhead, rel=0.15)
    if frames_gb:
        assert expected_of(options).feature_bytes == 0, "nothing is to come when all is there"


def test_a_run_that_cannot_fit_is_refused_before_it_starts(run_values: dict[str, Any]) -> None:
    options = parse(LoopOptions, run_values)
    expected = expected_of(options)
    check_room(options, expected)
    with pytest.raises(StateError, match=r"needs 1000000000\.\d GB of disk at .* are free: give `feature_cache`"):
        check_room(options, replace(expected, feature_bytes=1e18))
    with pytest.raises(StateError, match=r"a trajectory of this run needs about .* GB of memory, and the largest node"):
        check_room(options, replace(expected, trajectory_bytes=2 * largest_memory()))


def test_more_work_takes_longer_and_less_is_foreseen_as_less(run_values: dict[str, Any]) -> None:
    options = parse(LoopOptions, run_values | {"finetune": LORA, "frames_gb": 0.0})
    pool = open_pool(options.pool)
    task = task_of(options, pool, list(folds_of(eligible(options, pool, None), options.split, options.folds).values()))
    large = replace(task, train=10**6, clips=10**6)
    arm, costs = arm_of(options, options.initial, options.strategy, task.train), UnitCosts(encode_s=0.01, weigh_s=1e-4)
    whole = estimate(options, large, [arm], costs)
    clips = 3 * 10**6  # scored in three rounds
    assert whole.hours["scoring"] == pytest.approx(clips * (1e-4 + 0.01 * task.seconds) / 3600, rel=1e-6)
    some = estimate(options.model_copy(update={"candidates_per_round": 1000}), large, [arm], costs)
    assert some.hours["scoring"] == pytest.approx(whole.hours["scoring"] / 1000)
    by_proxy = estimate(options.model_copy(update={"proxy": True}), large, [arm], costs)
    assert by_proxy.hours["scoring"] == pytest.approx(clips * 1e-4 / 3600)
    assert whole.trajectory_bytes > estimate(options, task, [arm], costs).trajectory_bytes + 5e8
    measured = measure(options, task)
    assert 0 < measured.weigh_s < measured.encode_s < 1, "an encoder is slower than a sum of its states"


def test_the_doctor_tells_what_a_run_takes(run_values: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(parse(LoopOptions, run_values).model_dump_json())
    finding = next(one for one in examine(config) if one.subject == "room and time")
    assert finding.ok
    assert all(word in finding.detail for word in ("disk: ", "a trajectory", "time: about"))


def test_embeddings_are_kept_whole_where_they_are_small() -> None:
    by_default, chosen = (LoopOptions.model_construct(embedding=embedding) for embedding in (None, 512))
    assert [by_default.embedding_width(clips, 1536) for clips in (535, 160_000, 170_000)] == [1536, 1536, PROJECTED]
    assert [chosen.embedding_width(clips, 1536) for clips in (535, 170_000)] == [512, 512]
