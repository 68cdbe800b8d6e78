from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from seral import storage
from seral.errors import LabelError, OptionError, StateError, TrainError
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.studies.compare import labelled_share, run_compare
from seral.studies.options import CompareOptions
from seral.task.cells import Cell, study_table
from seral.task.gold import Oracle

LORA = {"adapter": "lora+gate", "top_layers": 1, "epochs": 1}
ROWS = [{"name": "head"}, {"name": "lora + gate", "finetune": LORA}]


@pytest.fixture
def values(run_values: dict[str, Any]) -> dict[str, Any]:
    task = {name: value for name, value in run_values.items() if name not in ("budget", "finetune")}
    return task | {"rows": ROWS, "fractions": [0.5, 1.0]}


def cells(run: str) -> dict[str, Any]:
    return {path.stem: storage.read_json(path) for path in sorted(Path(run).glob("cells/*.json"))}


@pytest.mark.ray
def test_every_variant_is_trained_on_the_same_labels_and_judged_beside_the_probe(values: dict[str, Any]) -> None:
    text = run_compare(parse(CompareOptions, values))
    scores_of = cells(values["run"])
    assert len(scores_of) == 2 * 2
    for share in ("50", "100"):
        head, lora = (scores_of[f"{name}_{share}_.fold-00.seed-0"] for name in ("head", "lora_gate"))
        assert head["labels"] == lora["labels"]
        assert head["probe_uar"] == lora["probe_uar"]
        assert "memory_mb" not in head
        assert 0 < lora["trainable_share"] < 0.2
        assert head["teacher_share"] < lora["teacher_share"] < lora["trainable_share"], "seral-tiny's teacher is larger"
        assert lora["epoch_s"] > 0
        for cell in (head, lora):
            assert {"none", "speaker"} <= cell["history"]["head"]["normalise_losses"].keys()
    table = pd.read_csv(Path(values["run"]) / "table.csv")
    assert table["row"].tolist() == ["head, 50 %", "head, 100 %", "lora + gate, 50 %", "lora + gate, 100 %"]
    mean = np.mean([value["uar"] for name, value in scores_of.items() if name.startswith("head_100")])
    assert table["uar"][1] == pytest.approx(mean)
    assert f"| {100 * mean:.1f} |" in text
    shown = table.set_index("row")[["first_loss", "last_loss", "update", "effect"]]
    assert shown.loc["head, 100 %"].isna().all()
    assert (shown.loc["lora + gate, 100 %"] >= 0).all()
    assert (Path(values["run"]) / "table.png").read_bytes().startswith(b"\x89PNG")
    assert not (Path(values["run"]) / "work").exists() or not list((Path(values["run"]) / "work").iterdir())


@pytest.mark.ray
@pytest.mark.parametrize("classes", [[], ["anger", "happiness", "neutral", "sadness"]], ids=["dimensions", "both"])
def test_dimensions_are_learnt_alone_and_beside_classes(values: dict[str, Any], classes: list[str]) -> None:
    lora = {"adapter": "lora", "top_layers": 1, "epochs": 3, "batch_size": 32, "lr": 0.005}
    rows = [{"name": "head"}, {"name": "lora", "finetune": lora}]
    task = {"classes": classes, "dimensions": ["valence", "arousal"], "fractions": [1.0]}
    run_compare(parse(CompareOptions, values | task | {"rows": rows}))
    scores_of = cells(values["run"])
    head, lora_cell = (scores_of[f"{name}.fold-00.seed-0"] for name in ("head", "lora"))
    for cell in (head, lora_cell):
        assert cell["ccc"] == pytest.approx((cell["ccc_valence"] + cell["ccc_arousal"]) / 2)
        assert cell["ccc_arousal"] > 0
        assert cell["rmse_arousal"] > 0
        assert ("uar" in cell) == ("probe_uar" in cell) == bool(classes)
        assert "probe_ccc" in cell
    epochs = lora_cell["history"]["adapter"]["epochs"]
    assert all(-1 <= epoch["dev_ccc"] <= 1 for epoch in epochs)
    assert all(0 < epoch["loss"] < 2 for epoch in epochs[1:])
    table = pd.read_csv(Path(values["run"]) / "table.csv")
    assert ("gain" if classes else "gain_ccc") in table


@pytest.mark.ray
def test_asking_for_ratings_nobody_gave_is_an_error(make_corpus: Callable[..., Path], tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 8)
    pool = str(tmp_path / "pool")
    import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(corpus), "out": pool}))
    with pytest.raises(LabelError, match="ratings of dominance"):
        Oracle(open_pool(pool), [], dimensions=["dominance"])


@pytest.mark.ray
def test_a_study_goes_on_where_it_stopped(values: dict[str, Any]) -> None:
    small = values | {"folds": [0], "fractions": [1.0], "rows": ROWS[:1]}
    run_compare(parse(CompareOptions, small))
    file = Path(values["run"]) / "cells" / "head.fold-00.seed-0.json"
    storage.write_json(file, storage.read_json(file) | {"kept": 1})
    run_compare(parse(CompareOptions, small | {"seeds": [0, 1]}))
    scores_of = cells(values["run"])
    assert [value.get("kept") for value in scores_of.values()] == [1, None]
    with pytest.raises(StateError, match="row 'head' with other options"):
        run_compare(parse(CompareOptions, small | {"rows": [{"name": "head", "finetune": {"epochs": 2}}]}))
    with pytest.raises(StateError, match="encoder"):
        run_compare(parse(CompareOptions, small | {"encoder": "seral-tiny-untrained"}))


@pytest.mark.ray
@pytest.mark.slow
def test_pretraining_is_a_row_like_any_other_and_hears_the_training_part_alone(values: dict[str, Any]) -> None:
    tapt = {"steps": 3, "batch_s": 10.0, "warmup_steps": 1, "lr": 0.001}
    rows = [{"name": "as it is"}, {"name": "with TAPT", "tapt": tapt}, {"name": "again with TAPT", "tapt": tapt}]
    run_compare(parse(CompareOptions, values | {"fractions": [1.0], "rows": rows}))
    scores_of = cells(values["run"])
    plain, adapted = (scores_of[f"{name}.fold-00.seed-0"]["predicted"] for name in ("as_it_is", "with_TAPT"))
    assert plain.keys() == adapted.keys()
    assert plain != adapted, "both rows saw the same features"
    record = storage.read_json(Path(values["run"]) / "tapt" / "with_TAPT" / "fold-00" / "tapt.json")
    assert record["utterances"] == scores_of["as_it_is.fold-00.seed-0"]["labels"]
    assert scores_of["again_with_TAPT.fold-00.seed-0"]["predicted"] == adapted
    assert [path.name for path in (Path(values["run"]) / "tapt").iterdir()] == ["with_TAPT"], "rows share what is alike"


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_study_goes_on_to_the_same_numbers(
    values: dict[str, Any], tmp_path: Path, kill_driver: Callable[[list[str], Callable[[], bool]], None]
) -> None:
    values = values | {
        "folds": [0, 1],
        "seeds": [0, 1],
        "fractions": [1.0],
        "rows": [{"name": "lora", "finetune": LORA}],
    }
    run_compare(parse(CompareOptions, values | {"run": str(tmp_path / "whole")}))
    config = tmp_path / "study.yaml"
    config.write_text(yaml.safe_dump(values | {"cluster": {"cpus": 1}}))
    kill_driver(["compare", str(config)], lambda: bool(cells(values["run"])))
    before = cells(values["run"])
    assert 0 < len(before) < 4
    assert not (Path(values["run"]) / "table.csv").exists()
    run_compare(parse(CompareOptions, values))
    whole, resumed = (cells(run) for run in (str(tmp_path / "whole"), values["run"]))
    assert len(whole) == 4
    costs = {"seconds", "epoch_s", "memory_mb"}
    assert {name: {key: cell[key] for key in cell.keys() - costs} for name, cell in whole.items()} == {
        name: {key: cell[key] for key in cell.keys() - costs} for name, cell in resumed.items()
    }
    assert all(resumed[name] == cell for name, cell in before.items()), "what was done is kept"


@pytest.mark.ray
def test_a_cell_that_fails_is_named_after_the_others_are_done(values: dict[str, Any]) -> None:
    broken = {"name": "broken", "finetune": LORA | {"lr": 1e30, "epochs": 4}}
    with pytest.raises(TrainError, match=r"1 of 2 failed; broken.fold-00.seed-0: the loss is"):
        run_compare(parse(CompareOptions, values | {"folds": [0], "fractions": [1.0], "rows": [broken, ROWS[0]]}))
    assert list(cells(values["run"])) == ["head.fold-00.seed-0"]


def test_smaller_shares_of_the_labels_lie_inside_larger_ones() -> None:
    ids = tuple(f"u{number:03d}" for number in range(50))
    shares = [labelled_share(ids, share, [0, 3]) for share in (0.001, 0.1, 0.5, 1.0)]
    assert [len(share) for share in shares] == [1, 5, 25, 50]
    assert all(set(a) < set(b) for a, b in pairwise(shares))
    assert labelled_share(ids, 0.1, [1, 3]) != shares[1]


def test_gains_are_paired_by_fold_and_seed() -> None:
    values = {("a", 0): 0.5, ("a", 1): 0.7, ("b", 0): 0.6, ("b", 1): 0.9}
    scores_of = {Cell(row=row, fold=fold, seed=0): {"uar": value} for (row, fold), value in values.items()}
    table = study_table(scores_of, {"b": "a"}).set_index("row")
    assert table.loc["b", "gain"] == pytest.approx(0.15)
    half = 12.7062 * 0.05  # t over two folds, whose gains are 0.1 and 0.2
    assert table.loc["b", ["gain_low", "gain_high"]].tolist() == pytest.approx([0.15 - half, 0.15 + half], abs=1e-4)
    assert table.loc["b", ["gain_p", "folds"]].tolist() == [0.5, 2]
    assert table.loc["a", "uar_std"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert np.isnan(table.loc["a", "gain"])


def test_the_pooled_uar_is_that_of_all_folds_together() -> None:
    folds = [[[3, 1], [0, 0]], [[0, 0], [2, 2]]]  # each fold's speakers show one class only
    scores_of = {
        Cell(row="a", fold=fold, seed=0): {"uar": uar, "confusion": confusion}
        for fold, (uar, confusion) in enumerate(zip((0.75, 0.5), folds, strict=True))
    }
    assert study_table(scores_of, {})["pooled_uar"].tolist() == [pytest.approx((0.75 + 0.5) / 2)]
    more = {Cell(row="a", fold=2, seed=0): {"uar": 1.0, "confusion": [[4, 0], [0, 0]]}}
    assert study_table(scores_of | more, {})["pooled_uar"].tolist() == [pytest.approx((7 / 8 + 0.5) / 2)]
    alone = {cell: values for cell, values in scores_of.items() if cell.fold == 0}
    assert study_table(alone, {})["pooled_uar"].tolist() == [0.75]
    assert "pooled_uar" not in study_table({Cell(row="a", fold=0, seed=0): {"ccc": 0.5}}, {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [ROWS[0], ROWS[0]]}, "names of their own"),
        ({"rows": [{"name": "a b"}, {"name": "a/b"}]}, "as files too, got a b, a/b"),
        ({"classes": []}, "at least two classes, or dimensions"),
        ({"classes": ["anger"]}, "at least two classes, or dimensions"),
        ({"dimensions": ["power"]}, "valence"),
        ({"baseline": "tail"}, "'tail' is none of the rows"),
        ({"fractions": [0.5, 1.5]}, "1.5"),
        ({"rows": [{"name": "x", "finetune": {"adapter": "lora+gates"}}]}, "no adapter 'gates'"),
        ({"rows": [{"name": "x", "finetune": {"adapter": "lora", "settings": {"lora": {"rang": 2}}}}]}, "rank"),
        ({"rows": [{"name": "x", "finetune": {"adapter": "gate", "settings": {"lora": {}}}}]}, "not among"),
    ],
)
def test_wrong_studies_are_refused(change: dict[str, Any], message: str) -> None:
    values = {"pool": "p", "run": "r", "classes": ["a", "b"], "rows": ROWS}
    with pytest.raises(OptionError, match=message):
        parse(CompareOptions, values | change)
