from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import cohen_kappa_score

from seral.errors import FeatureError, LabelError, OptionError, StateError
from seral.loop import trajectory as trajectory_module
from seral.loop.learning import UNFINISHED, restore_selection
from seral.loop.loop import arm_of, loop_fold, run_loop
from seral.loop.options import MAY_CHANGE, LoopOptions
from seral.loop.rounds import Round, Trajectory, draw_in_proportion
from seral.loop.status import loop_status
from seral.loop.stopping import RoundSummary
from seral.loop.trajectory import OnRound, run_trajectory
from seral.models.options import PredictOptions
from seral.models.prediction import predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pool.splits import folds_of
from seral.report.outcome import run_outcome
from seral.report.records import read_run
from seral.report.report import write_run_report
from seral.task.context import open_run
from seral.task.gold import Oracle

pytestmark = pytest.mark.ray


def predictions_of(folder: Path, part: str | None = None) -> list[dict[str, Any]]:
    """Predictions of a round for one part, or for all, in the order of ids."""
    rows = pq.read_table(folder / "predictions").sort_by("utterance_id").to_pylist()
    return [row for row in rows if part in (None, row["part"])]


def outcome(run: str | Path) -> dict[str, Any]:
    """Everything a run decided and found, without the clock: picks, predictions and metrics of every round."""
    content: dict[str, Any] = {}
    for folder in sorted(Path(run).glob("trajectories/*/rounds/*")):
        name = f"{folder.parts[-3]}/{folder.name}"
        content[f"{name}/picks"] = pq.read_table(folder / "picks.parquet").to_pylist()
        content[f"{name}/predictions"] = predictions_of(folder)
        content[f"{name}/metrics"] = json.loads((folder / "metrics.json").read_text())
        content[f"{name}/head"] = (folder / "model" / "head.safetensors").read_bytes()
        content[f"{name}/reasons"] = [path.read_bytes() for path in folder.glob("reasons.parquet")]
    return content


def test_run_spends_its_budget_on_training_utterances_alone(run_values: dict[str, Any]) -> None:
    run = run_loop(parse(LoopOptions, run_values))
    rows = {row["trajectory"]: row for row in loop_status(run)}
    assert {name.split(".")[0] for name in rows} == {"auto", "random", "full"}
    assert rows["auto.fold-00.seed-0"]["rounds"] == "3/3"
    pool = open_pool(run_values["pool"])
    speaker = dict(zip(*(pool.metadata[c].to_pylist() for c in ("utterance_id", "speaker")), strict=True))
    for arm in ("auto", "random"):
        folder = Path(run) / "trajectories" / f"{arm}.fold-00.seed-0"
        tested = set(json.loads((folder / "trajectory.json").read_text())["test_speakers"])
        asked: list[str] = []
        for number, labelled in enumerate((8, 14, 20)):
            folder_of_round = folder / "rounds" / f"{number:04d}"
            asked += pq.read_table(folder_of_round / "labels.parquet")["utterance_id"].to_pylist()
            assert len(asked) == len(set(asked)) == labelled
            parts = {p: {row["utterance_id"] for row in predictions_of(folder_of_round, p)} for p in ("pool", "test")}
            assert bool(parts["pool"]) == (arm == "auto")  # nobody reads what the random arm's model makes of it
            assert not parts["pool"] & set(asked)
            assert not {speaker[name] for name in asked} & {speaker[name] for name in parts["test"]}
            assert {speaker[name] for name in parts["test"]} == tested


def test_report_and_prediction_of_a_run(run_values: dict[str, Any], tmp_path: Path) -> None:
    run = run_loop(parse(LoopOptions, run_values | {"full_arm": False, "budget": {"sizes": [12]}}))
    assert "<html" in Path(write_run_report(run)).read_text()
    out = str(tmp_path / "of-pool.parquet")
    summary = predict(parse(PredictOptions, {"run": run, "source": [run_values["pool"]], "out": out}))
    assert summary["rows"] == open_pool(run_values["pool"]).rows
    (folder,) = Path(run).glob("trajectories/auto*/rounds/0000")
    by_loop = [row for part in ("pool", "test") for row in predictions_of(folder, part)]
    by_predict = {row["utterance_id"]: row for row in pq.read_table(out).to_pylist()}
    for row in by_loop:  # cached fp16 features against the whole model from audio
        assert row["p_anger"] == pytest.approx(by_predict[row["utterance_id"]]["p_anger"], abs=0.02)


def test_prediction_names_bad_files_and_goes_on(run_values: dict[str, Any], tmp_path: Path) -> None:
    run = run_loop(parse(LoopOptions, run_values | {"full_arm": False, "budget": {"sizes": [12]}}))
    files = tmp_path / "files"
    files.mkdir()
    (files / "broken.wav").write_text("not audio")
    audio = next((Path(run_values["pool"]).parent / "corpus" / "audio").iterdir())
    shutil.copy(audio, files / "good.flac")
    summary = predict(parse(PredictOptions, {"run": run, "source": [str(files)], "out": str(tmp_path / "p.parquet")}))
    rows = {Path(r["utterance_id"]).name: r for r in pq.read_table(tmp_path / "p.parquet").to_pylist()}
    assert summary["errors"] == 1
    assert "not-audio" in rows["broken.wav"]["error"]
    assert rows["good.flac"]["predicted"] in run_values["classes"]


WRAPPERS = [{"name": "relabel", "share": 0.4, "doubt": 0.01}, "quality", {"name": "quota", "by": "predicted"}]


@pytest.mark.parametrize(
    "strategy",
    [
        "auto",
        "batch_bald",
        "badge",
        {"name": "after", "beta": 2, "diversity": "k_center", "uncertainty": "bald"},
        {"name": "typiclust", "wrappers": WRAPPERS},
    ],
)
def test_every_kind_of_strategy_runs_in_the_loop(run_values: dict[str, Any], strategy: Any) -> None:
    run = run_loop(parse(LoopOptions, run_values | {"strategy": strategy, "full_arm": False, "random_arm": False}))
    assert [row["rounds"] for row in loop_status(run)] == ["3/3"]


def in_process(options: LoopOptions, folder: Path, on_round: OnRound) -> list[Path]:
    """The rounds of the strategy's arm on the first fold and seed, run in this process."""
    context = open_run(options, "loop", MAY_CHANGE)
    metadata = context.eligible(None)
    fold = next(iter(folds_of(metadata, options.split, options.folds).values()))
    data = context.fold_data(context.features(), fold, metadata)
    arm = arm_of(options, options.initial, options.strategy, len(data.fold.train))
    trajectory = Trajectory(arm=options.strategy.name, fold=0, seed=options.seeds[0])
    whole = loop_fold(options, data, data.metadata.slice(0, 0), str(folder / "fold"))
    run_trajectory(str(folder / "arm"), trajectory, arm, whole, on_round)
    return sorted((folder / "arm" / "rounds").iterdir())


def test_an_ensemble_disagrees_in_the_place_of_dropout_passes(run_values: dict[str, Any], tmp_path: Path) -> None:
    values = run_values | {"strategy": "bald", "full_arm": False, "random_arm": False}
    selected_by = list[pa.Table | None]()

    def keep(rounds: Sequence[RoundSummary]) -> None:
        folder = tmp_path / "arm" / "rounds" / f"{len(rounds) - 1:04d}" / "selection"
        selected_by.append(pq.read_table(folder) if folder.exists() else None)

    rounds = in_process(parse(LoopOptions, values | {"ensemble": 3}), tmp_path, keep)
    assert [table is None for table in selected_by] == [False, False, True], "the last round selects nothing"
    assert selected_by[0] is not None
    table, classes = selected_by[0].sort_by("utterance_id"), run_values["classes"]
    ids = table["utterance_id"].to_pylist()
    p_RNC = np.array([[table[f"p{n}_{name}"] for name in classes] for n in (1, 2, 3)]).transpose(0, 2, 1)
    assert "p4_" + classes[0] not in table.column_names
    assert not np.allclose(p_RNC[0], p_RNC[1])
    assert np.array_equal(p_RNC.sum(-1).round(4), np.ones(p_RNC.shape[:2]))
    # The next round asks where the members disagree most.
    mean_NC = p_RNC.mean(0)
    entropies = [-(p * np.log(np.maximum(p, 1e-12))).sum(-1) for p in (mean_NC, p_RNC)]
    score_N = entropies[0] - entropies[1].mean(0)
    picks = pq.read_table(rounds[1] / "picks.parquet")["utterance_id"].to_pylist()
    assert set(picks) == {ids[row] for row in np.argsort(-score_N)[: len(picks)]}
    assert not list(tmp_path.glob("arm/rounds/*/ensemble")), "only what was said is kept"
    assert not list(tmp_path.glob("arm/rounds/*/selection")), "nor what nobody will select by any more"
    with pytest.raises(OptionError, match="one model has nobody to disagree with"):
        parse(LoopOptions, values | {"ensemble": 1})


@pytest.mark.parametrize(("strategy", "passes"), [("bald", 5), ("dropquery", 4)])
def test_bald_reads_models_and_dropquery_dropout(
    run_values: dict[str, Any], tmp_path: Path, strategy: str, passes: int
) -> None:
    values = run_values | {"strategy": strategy, "dropout_passes": 4, "full_arm": False, "random_arm": False}
    names = list[set[str]]()

    def look(rounds: Sequence[RoundSummary]) -> None:
        if len(rounds) == 1:
            names.append(set(pq.read_table(tmp_path / "arm" / "rounds" / "0000" / "selection").column_names))

    in_process(parse(LoopOptions, values), tmp_path, look)
    of_passes = {name.partition("_")[0] for name in names[0] if name.endswith("_" + run_values["classes"][0])}
    assert of_passes - {"p"} == {f"p{number + 1}" for number in range(passes)}


def test_strategies_stand_beside_one_another_in_one_run(run_values: dict[str, Any]) -> None:
    """An arm each, on the same budget; more may join a run that is there, and what was found stays."""
    values = run_values | {"strategy": "margin", "full_arm": False}
    before = outcome(run_loop(parse(LoopOptions, values)))
    run = run_loop(parse(LoopOptions, values | {"others": ["badge", {"name": "after", "beta": 2}]}))
    rows = {row["trajectory"].split(".")[0]: row["rounds"] for row in loop_status(run)}
    assert rows == dict.fromkeys(["margin", "badge", "after", "random"], "3/3")
    after = outcome(run)
    assert {name: after[name] for name in before} == before
    page = Path(write_run_report(run)).read_text()
    assert all(f"{arm} − random at" in page for arm in ("margin", "badge", "after"))
    with pytest.raises(OptionError, match="there is an arm 'random' already"):
        parse(LoopOptions, values | {"others": ["random"]})


def test_a_doubtful_label_is_asked_for_again_and_paid_for(run_values: dict[str, Any]) -> None:
    strategy = {"name": "margin", "wrappers": WRAPPERS[:1]}
    run = run_loop(parse(LoopOptions, run_values | {"strategy": strategy, "full_arm": False, "random_arm": False}))
    asked, rounds = list[str](), sorted(Path(run).glob("trajectories/*/rounds/*"))
    for number, folder in enumerate(rounds):
        picks = pq.read_table(folder / "picks.parquet")["utterance_id"].to_pylist()
        assert len(picks) == (8, 6, 6)[number]
        again = [pick for pick in picks if pick in asked]
        assert len(again) == (0, 2, 2)[number]  # 40 % of six
        asked += picks
        assert json.loads((folder / "metrics.json").read_text())["labelled"] == len(set(asked))


def test_a_budget_of_minutes_is_spent_and_not_overspent(run_values: dict[str, Any]) -> None:
    schedule = [1.5, 2.5, 2.5001]  # the last pays for nothing
    budget = {"minutes": schedule, "pace": {"listening": 2, "deciding_s": 3}}
    run = run_loop(parse(LoopOptions, run_values | {"budget": budget, "full_arm": False}))
    metadata = open_pool(run_values["pool"]).metadata
    seconds = dict(zip(*(metadata[c].to_pylist() for c in ("utterance_id", "duration_s")), strict=True))
    for arm in ("auto", "random"):
        spent = 0.0
        for number, minutes in enumerate(schedule):
            folder_of_round = Path(run) / "trajectories" / f"{arm}.fold-00.seed-0" / "rounds" / f"{number:04d}"
            picks = pq.read_table(folder_of_round / "picks.parquet")["utterance_id"].to_pylist()
            spent += sum(2 * seconds[pick] + 3 for pick in picks)
            assert bool(picks) == (number < 2)
            assert 60 * minutes - 2 * max(seconds.values()) - 3 < spent <= 60 * minutes
            assert json.loads((folder_of_round / "round.json").read_text())["minutes"] == pytest.approx(
                spent / 60, abs=0.01
            )


def test_rounds_tell_how_sure_and_how_stable_the_model_is(run_values: dict[str, Any]) -> None:
    run = run_loop(parse(LoopOptions, run_values | {"full_arm": False, "random_arm": False}))
    before: dict[str, str] = {}
    for folder in sorted(Path(run).glob("trajectories/*/rounds/*")):
        record = json.loads((folder / "round.json").read_text())
        rows = predictions_of(folder, "pool")
        p_NC = np.array([[row[f"p_{name}"] for name in run_values["classes"]] for row in rows])
        assert record["uncertainty"] == pytest.approx(
            scipy_entropy(p_NC, axis=1).mean() / np.log(p_NC.shape[1]), rel=1e-5
        )
        predicted = {row["utterance_id"]: row["predicted"] for row in rows}
        if before:
            kappa = cohen_kappa_score([before[name] for name in predicted], list(predicted.values()))
            assert record["kappa"] == pytest.approx(kappa)
        else:
            assert record["kappa"] is None
        before = predicted


@pytest.mark.slow
def test_the_first_labels_may_be_what_surprises_the_pretrained_encoder(run_values: dict[str, Any]) -> None:
    values = run_values | {"initial": "alps", "full_arm": False, "random_arm": False, "budget": {"sizes": [8]}}
    with pytest.raises(OptionError, match="alps reads what surprises the encoder after TAPT: give `tapt`"):
        parse(LoopOptions, values)
    tapt = {"steps": 2, "batch_s": 10, "warmup_steps": 1, "held_out": 0}
    run = Path(run_loop(parse(LoopOptions, values | {"tapt": tapt})))
    picks = pq.read_table(next(run.glob("trajectories/*/rounds/0000/picks.parquet")))["utterance_id"].to_pylist()
    folder = run / "tapt" / "fold-00" / "surprisal"
    embedding_of = {
        row["utterance_id"]: row["embedding"] for f in folder.iterdir() for row in pq.read_table(f).to_pylist()
    }
    assert set(picks) <= set(embedding_of)
    units_D = np.stack([np.frombuffer(embedding_of[pick], np.float16) for pick in picks]).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(units_D, axis=1), 1, atol=2e-3)
    described = json.loads(next(run.glob("trajectories/*/trajectory.json")).read_text())
    assert len(embedding_of) == described["n_train"], "nobody's audio but the training speakers'"


def test_what_needs_a_model_cannot_be_first(run_values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="initial: margin reads probability_NC"):
        parse(LoopOptions, run_values | {"initial": "margin"})


def test_a_proxy_picks_as_the_head_does_and_adapters_come_with_the_last_round(
    run_values: dict[str, Any], tmp_path: Path
) -> None:
    values = run_values | {"full_arm": False, "random_arm": False}
    adapter = {"adapter": "lora", "settings": {"lora": {"rank": 2}}, "top_layers": 1, "epochs": 1, "lr": 1e-9}
    head = Path(run_loop(parse(LoopOptions, values | {"run": str(tmp_path / "head")})))
    run = Path(run_loop(parse(LoopOptions, values | {"proxy": True, "finetune": adapter})))
    name = "trajectories/auto.fold-00.seed-0/rounds"
    assert [(run / name / n / "model" / "adapter").exists() for n in ("0000", "0001", "0002")] == [False, False, True]
    for number in ("0000", "0001", "0002"):
        assert pq.read_table(run / name / number / "picks.parquet") == pq.read_table(
            head / name / number / "picks.parquet"
        )
    with pytest.raises(OptionError, match="patience"):
        parse(LoopOptions, values | {"proxy": True, "stop": {"patience": 2}})
    page = Path(write_run_report(run)).read_text(encoding="utf-8")
    (training,) = read_run(run).trainings.to_dict("records")
    assert (training["round"], training["effect"] < 0.01, training["first_loss"]) == (2, True, training["last_loss"])
    assert '<h2 id="adapters">' in page
    (warning,) = run_outcome(str(run))["warnings"]
    assert warning.startswith("Warning, auto, 1 of 1 trainings: the adapter lora does nothing")
    assert warning in page
    assert (run / "report" / "adapters.csv").is_file()
    assert '<h2 id="adapters">' not in Path(write_run_report(head)).read_text(encoding="utf-8")


def test_resume_after_lost_rounds_gives_the_same_run(run_values: dict[str, Any]) -> None:
    run = run_loop(parse(LoopOptions, run_values))
    whole = outcome(run)
    folder = Path(run) / "trajectories" / "auto.fold-00.seed-0" / "rounds"
    (folder / "0001" / "round.json").unlink()  # the round was cut off before its end ...
    (folder / "0001" / "picks.parquet").write_bytes(b"half")
    shutil.rmtree(folder / "0002")  # ... and so the next one never began
    run_loop(parse(LoopOptions, run_values))
    assert outcome(run) == whole


@pytest.mark.parametrize(
    "fault",
    [
        "missing",
        pytest.param("of another encoder", marks=pytest.mark.slow),
        pytest.param("cut off", marks=pytest.mark.slow),
    ],
)
def test_a_run_whose_features_are_lost_on_the_way_says_which_and_goes_on(
    run_values: dict[str, Any], tmp_path: Path, fault: str
) -> None:
    options = parse(LoopOptions, run_values | {"feature_cache": str(tmp_path / "cache")})
    whole = in_process(options, tmp_path / "whole", lambda _: None)
    shard = sorted((tmp_path / "cache").glob("*/pooled/*.parquet"))[0]

    def spoil(rounds: Sequence[RoundSummary]) -> None:
        if len(rounds) == 1:
            table = pq.read_table(shard)
            shard.unlink()
            if fault == "of another encoder":
                pq.write_table(table.replace_schema_metadata({"encoder": "somebody-else"}), shard)
            elif fault == "cut off":
                shard.write_bytes(b"PAR1 and no more")

    with pytest.raises(FeatureError, match=f"features of shard '{shard.stem}' ") as error:
        in_process(options, tmp_path / "lost", spoil)
    assert "the same command" in str(error.value).lower()
    shard.unlink(missing_ok=True)  # as the message says
    rounds = in_process(options, tmp_path / "lost", lambda _: None)
    assert [folder.name for folder in rounds] == [folder.name for folder in whole] == ["0000", "0001", "0002"]
    for mine, others in zip(rounds, whole, strict=True):
        assert predictions_of(mine) == predictions_of(others)
        assert pq.read_table(mine / "picks.parquet") == pq.read_table(others / "picks.parquet")


def test_a_worker_that_outlives_its_driver_may_complete_the_round_of_the_one_that_goes_on(
    run_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It puts the round in place and takes away what the other is about to select by."""
    options = parse(LoopOptions, run_values)
    whole = in_process(options, tmp_path / "whole", lambda _: None)
    overtaken = list[int]()

    def overtake(this: Round) -> None:
        restore_selection(this)
        rounds = Path(this.folder) / "rounds"
        if this.number == 1:
            shutil.copytree(whole[1], rounds / "0001")
            shutil.rmtree(rounds / "0000" / "selection")
            overtaken.append(this.number)

    monkeypatch.setattr(trajectory_module, "restore_selection", overtake)
    rounds = in_process(options, tmp_path / "overtaken", lambda _: None)
    assert overtaken == [1]
    for mine, others in zip(rounds, whole, strict=True):
        assert predictions_of(mine) == predictions_of(others)
        assert pq.read_table(mine / "picks.parquet") == pq.read_table(others / "picks.parquet")
    assert not (tmp_path / "overtaken" / "arm" / "attempts").exists()


def test_what_a_round_selects_by_is_made_again_where_that_was_cut_off(
    run_values: dict[str, Any], tmp_path: Path
) -> None:
    options = parse(LoopOptions, run_values)
    whole = in_process(options, tmp_path / "whole", lambda _: None)

    def stop(rounds: Sequence[RoundSummary]) -> None:
        raise StopIteration

    with pytest.raises(StopIteration):
        in_process(options, tmp_path / "cut", stop)
    selection = tmp_path / "cut" / "arm" / "rounds" / "0000" / "selection"
    next(selection.glob("*.parquet")).unlink()
    (selection / UNFINISHED).touch()
    rounds = in_process(options, tmp_path / "cut", lambda _: None)
    for mine, others in zip(rounds, whole, strict=True):
        assert pq.read_table(mine / "picks.parquet") == pq.read_table(others / "picks.parquet")


def test_adapters_without_the_frames_of_the_pool_pick_the_same(run_values: dict[str, Any], tmp_path: Path) -> None:
    values = run_values | {"strategy": "after", "finetune": {"adapter": "lora", "top_layers": 1, "epochs": 2}}
    values |= {"full_arm": False, "random_arm": False, "budget": {"sizes": [8, 14]}}
    whole = run_loop(parse(LoopOptions, values | {"feature_cache": str(tmp_path / "all")}))
    bounded = {"feature_cache": str(tmp_path / "some"), "frames_gb": 0.0, "run": str(tmp_path / "bounded")}
    run = run_loop(parse(LoopOptions, values | bounded))
    assert outcome(run) == outcome(whole)
    arm = next(Path(run).glob("trajectories/*"))
    judged = {row["utterance_id"] for part in ("dev", "test") for row in predictions_of(arm / "rounds" / "0000", part)}
    picked = pq.read_table(sorted(arm.glob("rounds/*/picks.parquet")))["utterance_id"].to_pylist()
    tables = [pq.read_table(file) for file in (tmp_path / "some").glob("*/frames-*/*.parquet")]
    assert sorted(n for table in tables for n in table["utterance_id"].to_pylist()) == sorted({*judged, *picked})


def test_candidates_may_be_drawn_in_proportion(run_values: dict[str, Any]) -> None:
    values = run_values | {
        "strategy": "margin",
        "candidates_per_round": 15,
        "full_arm": False,
        "stop": {"kappa": 0.999},
    }
    run = Path(run_loop(parse(LoopOptions, values)))
    for arm in ("margin", "random"):
        scored, picked = list[set[str]](), list[list[str]]()
        for folder in sorted(run.glob(f"trajectories/{arm}.*/rounds/*")):
            scored.append({row["utterance_id"] for row in predictions_of(folder, "pool")})
            picked.append(pq.read_table(folder / "picks.parquet")["utterance_id"].to_pylist())
        assert [len(ids) for ids in scored] == [15] * len(scored)
        assert scored[0] != scored[1], "drawn anew"
        if arm == "margin":
            assert all(set(ids) <= before for ids, before in zip(picked[1:], scored[:-1], strict=True))
    assert "chose from 15 clips of the pool" in Path(write_run_report(run)).read_text()


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", None])), min_size=1, max_size=60), st.data()
)
def test_a_draw_holds_its_share_of_every_group(groups: list[tuple[str, str | None]], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(groups)))
    corpus, speaker = zip(*groups, strict=True)
    rows = pa.table({"corpus": corpus, "speaker": pa.array(speaker, pa.string())})
    drawn = draw_in_proportion(rows, count, np.random.default_rng(data.draw(st.integers(0, 9))))
    assert sorted(set(drawn.tolist())) == drawn.tolist()
    assert len(drawn) == count
    for group in set(groups):
        share = count * groups.count(group) / len(groups)
        assert abs(sum(groups[row] == group for row in drawn) - share) < 1 + 1e-9
    for name in set(corpus):
        assert abs(sum(corpus[row] == name for row in drawn) - count * corpus.count(name) / len(groups)) < 1 + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["after", "badge", {"name": "margin", "wrappers": ["quality"]}])
def test_a_pool_in_parts_is_asked_about_the_same(run_values: dict[str, Any], tmp_path: Path, strategy: Any) -> None:
    values = run_values | {"strategy": strategy, "initial": "k_center", "full_arm": False, "random_arm": False}
    whole = run_loop(parse(LoopOptions, values))
    parts = values | {"run": str(tmp_path / "parts"), "cluster": {"cpus": 2, "parts": 2}}
    assert outcome(run_loop(parse(LoopOptions, parts))) == outcome(whole)


def test_number_of_cpus_changes_nothing(run_values: dict[str, Any], tmp_path: Path) -> None:
    values = run_values | {"full_arm": False}
    side_by_side = run_loop(parse(LoopOptions, values | {"seeds": [0, 1]}))
    alone = run_loop(parse(LoopOptions, values | {"seeds": [1], "run": str(tmp_path / "alone")}))
    some = {name: value for name, value in outcome(side_by_side).items() if "seed-1" in name}
    assert some == outcome(alone)


@pytest.mark.slow
def test_killed_driver_resumes_to_the_same_numbers(
    run_values: dict[str, Any], tmp_path: Path, kill_driver: Callable[[list[str], Callable[[], bool]], None]
) -> None:
    values = run_values | {"seeds": [0, 1], "folds": [0, 1], "full_arm": False}
    whole = outcome(run_loop(parse(LoopOptions, values | {"run": str(tmp_path / "whole")})))
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(values | {"cluster": {"cpus": 2}}))
    rounds = Path(values["run"]) / "trajectories"
    kill_driver(["loop", "run", str(config)], lambda: len(list(rounds.glob("*/rounds/*/round.json"))) >= 4)
    assert len(list(rounds.glob("*/rounds/*/round.json"))) < len(whole) // 4
    run_loop(parse(LoopOptions, values))
    assert outcome(values["run"]) == whole


def test_bad_recordings_are_no_candidates_and_the_run_says_which(
    run_values: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    quality = open_pool(run_values["pool"]).metadata.select(["utterance_id", "quality"]).to_pylist()
    floor = float(np.quantile([row["quality"] for row in quality], 0.3))
    values = run_values | {"full_arm": False, "random_arm": False, "budget": {"sizes": [8]}, "min_quality": floor}
    run = Path(run_loop(parse(LoopOptions, values)))
    filtered = {row["utterance_id"] for row in pq.read_table(run / "filtered.parquet").to_pylist()}
    assert f"min_quality {floor:g} leaves out {len(filtered)} of " in capsys.readouterr().err
    assert filtered < {row["utterance_id"] for row in quality if row["quality"] < floor}
    facts = json.loads((run / "environment.json").read_text())
    assert sum(facts["n_filtered"]["0"].values()) == len(filtered) > 0
    folder_of_round = run / "trajectories" / "auto.fold-00.seed-0" / "rounds" / "0000"
    asked = set(pq.read_table(folder_of_round / "labels.parquet")["utterance_id"].to_pylist())
    unasked = {row["utterance_id"] for row in predictions_of(folder_of_round, "pool")}
    assert len(asked | unasked) == facts["n_train"]["0"]
    assert not filtered & (asked | unasked)
    message = f"Fold 0: {len(filtered)} of {len(filtered | asked | unasked)} training utterances, by "
    assert message in Path(write_run_report(str(run))).read_text()


def test_another_configuration_is_refused(run_values: dict[str, Any]) -> None:
    values = run_values | {"full_arm": False, "random_arm": False, "budget": {"sizes": [8]}}
    run_loop(parse(LoopOptions, values))
    with pytest.raises(StateError, match="budget: was"):
        run_loop(parse(LoopOptions, values | {"budget": {"sizes": [9]}}))


def test_wrong_names_are_told_with_the_right_ones(run_values: dict[str, Any], speech_pool: str) -> None:
    with pytest.raises(OptionError, match=r"unknown option 'finetune\.epoch'.*did you mean 'epochs'\?"):
        parse(LoopOptions, run_values, ["finetune.epoch=3"])
    with pytest.raises(OptionError, match=r"unknown strategy 'afer'.*did you mean 'after'\?"):
        parse(LoopOptions, run_values | {"strategy": "afer"})
    with pytest.raises(OptionError, match=r"no corpus iemocap.*demo"):
        run_loop(parse(LoopOptions, run_values | {"corpora": ["iemocap"]}))
    with pytest.raises(OptionError, match=r"folds \[7\] do not exist"):
        run_loop(parse(LoopOptions, run_values | {"folds": [7], "run": run_values["run"] + "2"}))
    with pytest.raises(LabelError, match=r"disgust.*words outside"):
        Oracle(open_pool(speech_pool), ["anger", "disgust"])
    with pytest.raises(LabelError, match=r"sadness \(\d+, which class_map takes for grief\)"):
        Oracle(open_pool(speech_pool), ["sadness"], {"sadness": "grief"})
