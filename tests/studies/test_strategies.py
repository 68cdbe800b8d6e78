import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
import soundfile as sf
from pydantic import ValidationError

from ser_models.intervals import mean_interval
from seral import storage
from seral.errors import OptionError
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.studies.options import StrategyStudyOptions, StrategySurveyOptions
from seral.studies.strategies import area, run_strategy_study, speaker_curves
from seral.studies.survey import run_strategy_survey, situation_gains, situations, summary
from seral.task.cells import Cell

ROWS = [
    "margin",
    "k_center",
    {"name": "badge", "wrappers": [{"name": "quality", "speech_ratio": 2}], "label": "strict"},
]
BUDGETS = [0.1, 0.3, 0.6]


@pytest.fixture
def values(run_values: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The generated speech with 30 clips of noise beside it, as a corpus of its own."""
    pool, noise = tmp_path / "pool", tmp_path / "noise"
    shutil.copytree(run_values["pool"], pool)
    noise.mkdir()
    for number in range(30):
        samples = np.random.default_rng(number).normal(0, 0.05, 12000)
        sf.write(noise / f"{number}.flac", samples, 16000)
    import_corpus(parse(ImportOptions, {"reader": "folder", "root": str(noise), "out": str(pool)}))
    names = ("encoder", "classes", "cluster", "run")
    return {name: run_values[name] for name in names if name in run_values} | {
        "pool": str(pool),
        "corpora": ["demo"],
        "rows": ROWS,
        "budgets": BUDGETS,
        "seeds": [0, 1],
        "folds": [0],
    }


def cells(run: str) -> dict[str, Any]:
    return {path.stem: storage.read_json(path) for path in sorted(Path(run).glob("cells/*.json"))}


@pytest.mark.ray
def test_every_strategy_spends_the_same_and_is_compared_with_random(values: dict[str, Any]) -> None:
    text = run_strategy_study(parse(StrategyStudyOptions, values))
    cell_of = cells(values["run"])
    assert {name.split(".")[0] for name in cell_of} == {"margin", "k_center", "strict", "random"}
    assert len(cell_of) == 4 * 2
    metadata = open_pool(values["pool"]).metadata.filter(pc.equal(open_pool(values["pool"]).metadata["corpus"], "demo"))
    spoken = dict(zip(*(metadata[c].to_pylist() for c in ("utterance_id", "speaker")), strict=True))
    for seed in (0, 1):
        of_seed = [cell for name, cell in cell_of.items() if name.endswith(f"seed-{seed}")]
        assert len({tuple(cell["labelled"]) for cell in of_seed}) == 1
        tested = {
            json.dumps({who: np.sum(m) for who, m in cell["confusion"][0].items()}, default=int) for cell in of_seed
        }
        assert len(tested) == 1, "all rows are tested on the same clips"
        assert all(cell["junk"] == [0, 0, 0] for cell in of_seed)
        for cell in of_seed:
            assert all(who.removeprefix("demo/") in set(spoken.values()) for who in cell["confusion"][0])
            counts = np.sum([list(m) for m in cell["confusion"][2].values()], axis=0)
            recall = np.diag(counts) / np.maximum(counts.sum(1), 1)
            assert cell["uar"][2] == pytest.approx(recall[counts.sum(1) > 0].mean())
    assert cell_of["margin.fold-00.seed-0"]["uar"][0] == cell_of["strict.fold-00.seed-0"]["uar"][0], (
        "the same first labels"
    )
    assert cell_of["margin.fold-00.seed-0"]["uar"] != cell_of["k_center.fold-00.seed-0"]["uar"]
    table = pd.read_csv(Path(values["run"]) / "table.csv").set_index("row")
    expected = np.mean([area(cell["uar"], BUDGETS) for name, cell in cell_of.items() if name.startswith("margin")])
    assert table.loc["margin", "area_uar"] == pytest.approx(expected)
    base = np.mean([area(cell["uar"], BUDGETS) for name, cell in cell_of.items() if name.startswith("random")])
    assert table.loc["margin", "gain"] == pytest.approx(expected - base)
    assert (table["gain_low"] <= table["gain_high"]).sum() == 3
    assert np.isnan(table.loc["random", "gain"])
    assert "| strict |" in text
    assert (Path(values["run"]) / "table.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.ray
@pytest.mark.slow
def test_junk_costs_budget_and_a_quality_floor_keeps_away_from_it(values: dict[str, Any]) -> None:
    """Noise has next to no speech; random meets it as often as there is, the floor only when nothing else is left."""
    rows = ["random", {"name": "random", "wrappers": [{"name": "quality", "snr_db": 3}], "label": "floor"}]
    values |= {"rows": rows, "junk": "noise", "junk_share": 0.25, "run": values["run"] + "-junk", "budgets": [0.2, 0.5]}
    run_strategy_study(parse(StrategyStudyOptions, values))
    cell_of = cells(values["run"])
    met = {
        row: [cell["junk"][-1] / cell["labelled"][-1] for name, cell in cell_of.items() if name.startswith(row)]
        for row in ("random", "floor")
    }
    assert 0.1 < np.mean(met["random"]) < 0.45
    assert np.mean(met["floor"]) < np.mean(met["random"]) / 2


@pytest.mark.ray
@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped(values: dict[str, Any]) -> None:
    before = run_strategy_study(parse(StrategyStudyOptions, values))
    lost = Path(values["run"]) / "cells" / "margin.fold-00.seed-1.json"
    file = Path(values["run"]) / "cells" / "margin.fold-00.seed-0.json"
    was = file.stat().st_mtime_ns
    cell = storage.read_json(lost)
    lost.unlink()
    run_strategy_study(parse(StrategyStudyOptions, values))
    again = storage.read_json(lost)
    assert {**again, "seconds": 0} == {**cell, "seconds": 0}
    assert file.stat().st_mtime_ns == was
    assert before.splitlines()[0].startswith("| row | cells | 10%_uar | 30%_uar")


def test_area_under_known_curves() -> None:
    assert area([0.5, 0.5, 0.5], [0.1, 0.2, 0.6]) == pytest.approx(0.5)
    assert area([0.0, 1.0], [0.1, 0.5]) == pytest.approx(0.5)
    assert area([0.2, 0.4, 0.4], [0.0, 0.5, 1.0]) == pytest.approx(0.35)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": ["margin", "margin"]}, "two rows are called margin"),
        ({"budgets": [0.5, 0.2]}, "increase within"),
        ({"rows": ["margins"]}, "unknown strategy 'margins'"),
    ],
)
def test_wrong_studies_are_refused(more: dict[str, Any], message: str) -> None:
    values = {"pool": "p", "run": "r", "classes": ["a", "b"], "rows": ["margin"]}
    with pytest.raises((OptionError, ValidationError), match=message):
        parse(StrategyStudyOptions, values | more)


@pytest.mark.ray
def test_unknown_junk_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="no corpus 'hum' in"):
        run_strategy_study(parse(StrategyStudyOptions, values | {"junk": "hum"}))


def study_of(**more: Any) -> StrategyStudyOptions:
    values = {"pool": "p", "run": "r", "classes": ["a", "b"], "rows": ["margin"], "budgets": BUDGETS}
    return parse(StrategyStudyOptions, values | more)


def curves_of(uar_of: dict[str, list[list[float]]]) -> dict[Cell, dict[str, Any]]:
    """Cells with these UARs by row, speaker and budget: ten clips of each of two classes and speaker, alike."""
    cell_of = {}
    for row, uar_SB in uar_of.items():
        right_SB = np.round(10 * np.array(uar_SB)).astype(int)
        confusion = [
            {f"speaker{s}": [[right, 10 - right], [10 - right, right]] for s, right in enumerate(right_S.tolist())}
            for right_S in right_SB.T
        ]
        uar = np.mean(uar_SB, axis=0).tolist()
        cell_of[Cell(row=row, fold=0, seed=0)] = {"uar": uar, "confusion": confusion, "labelled": [1, 2, 3]}
    return cell_of


def test_a_summary_of_known_curves() -> None:
    """Better at the first budget by 0.2 for all speakers, later for some more than for others."""
    random, later = [0.5, 0.6, 0.7], [0.9, 0.8, 0.9, 0.8]
    curves = curves_of({"random": [random] * 4, "margin": [[0.7, 0.6, last] for last in later]})
    lines = situation_gains(study_of(), curves, speaker_curves(study_of(), curves))
    table = summary([*lines, *lines]).set_index(["situation", "row"])
    assert set(table.index.get_level_values("situation")) == {"cold start", "small budget", "large budget"}
    cold = table.loc["cold start", "margin"]
    assert cold["gain"] == pytest.approx(0.2)
    assert (cold["gain_low"], cold["gain_high"]) == (pytest.approx(0.2), pytest.approx(0.2)), "the speakers agree"
    assert (cold["better_in"], cold["studies"], cold["speakers"]) == (2, 2, 4)
    large = table.loc["large budget", "margin"]
    gain_G = (0.2 * 0.2 / 2 + 0.3 * (np.array(later) - 0.7) / 2) / 0.5
    assert large["gain"] == pytest.approx(gain_G.mean())
    low, high, p = mean_interval(gain_G)
    expected = (pytest.approx(low), pytest.approx(high), pytest.approx(p))
    assert (large["gain_low"], large["gain_high"], large["gain_p"]) == expected, "one value a speaker, as many clips"
    assert (table.xs("random", level="row")["gain"] == 0).all()


def test_a_voice_is_left_out_of_all_studies_at_once() -> None:
    """Two studies of the same voices say no more about other voices than one; of other voices they do."""
    curves = curves_of({"random": [[0.5, 0.6, 0.7]] * 4, "margin": [[0.7, 0.6, x] for x in (0.9, 0.8, 0.7, 0.6)]})
    renamed = {
        cell: {**values, "confusion": [{f"other {name}": m for name, m in c.items()} for c in values["confusion"]]}
        for cell, values in curves.items()
    }
    one, other = (situation_gains(study_of(), c, speaker_curves(study_of(), c)) for c in (curves, renamed))
    tables = [summary(lines).set_index(["situation", "row"]) for lines in (one, [*one, *one], [*one, *other])]
    alone, twice, apart = (table.loc["large budget", "margin"] for table in tables)
    assert (twice["gain_low"], twice["speakers"]) == (pytest.approx(alone["gain_low"]), 4)
    assert apart["speakers"] == 8
    assert apart["gain_high"] - apart["gain_low"] < 0.75 * (alone["gain_high"] - alone["gain_low"])


def test_curves_without_a_speaker_are_those_of_the_others() -> None:
    curves = curves_of({"random": [[0.5, 0.6, 0.7], [0.3, 0.4, 0.8]], "margin": [[0.7, 0.6, 0.9], [0.7, 0.6, 0.7]]})
    random = speaker_curves(study_of(), curves)["random"]
    np.testing.assert_allclose(random.whole_B, [0.4, 0.5, 0.75])
    np.testing.assert_allclose(random.without["speaker0"], [0.3, 0.4, 0.8])
    np.testing.assert_allclose(random.without["speaker1"], [0.5, 0.6, 0.7])
    turned = speaker_curves(study_of(), dict(reversed(curves.items())))["random"]
    assert {name: own.tolist() for name, own in turned.without.items()} == {
        name: own.tolist() for name, own in random.without.items()
    }


def test_situations_divide_the_budgets() -> None:
    shares = [0.02, 0.05, 0.1, 0.2, 0.5]
    named = situations(study_of(budgets=shares, junk="noise"))
    assert {name: shares[part] for name, part in named.items()} == {
        "noisy, cold start": [0.02],
        "noisy, small budget": [0.02, 0.05, 0.1],
        "noisy, large budget": [0.1, 0.2, 0.5],
    }
    large = situations(study_of(budgets=[0.2, 0.5]))
    assert {name: [0.2, 0.5][part] for name, part in large.items()} == {"cold start": [0.2], "large budget": [0.2, 0.5]}


@pytest.mark.ray
@pytest.mark.slow
def test_a_survey_sums_up_its_studies(values: dict[str, Any]) -> None:
    own = {"run", "encoder", "corpora", "classes"}
    survey = {
        "run": values["run"],
        "encoders": [values["encoder"]],
        "pools": {"speech": {"corpora": ["demo"], "classes": values["classes"]}},
        "junk": "noise",
        "study": {name: value for name, value in values.items() if name not in own} | {"rows": ["k_center"]},
    }
    text = run_strategy_survey(parse(StrategySurveyOptions, survey))
    table = pd.read_csv(Path(values["run"]) / "summary.csv").set_index(["situation", "row"])
    for speech, situation in (("clean", "large budget"), ("junk", "noisy, large budget")):
        study = pd.read_csv(Path(values["run"]) / f"seral-tiny.speech.{speech}" / "table.csv").set_index("row")
        assert table.loc[(situation, "k_center"), "gain"] == pytest.approx(study.loc["k_center", "gain"])
        assert table.loc[(situation, "k_center"), "gain_low"] == pytest.approx(study.loc["k_center", "gain_low"])
    assert "noisy, large budget gain" in text
    assert (Path(values["run"]) / "summary.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OptionError, match=r"study\.encoder is set by the survey"):
        parse(StrategySurveyOptions, survey | {"study": {**survey["study"], "encoder": "x"}})
    with pytest.raises(OptionError, match=r"have the same last name"):
        parse(StrategySurveyOptions, survey | {"encoders": ["one/tiny", "other/tiny"]})
