from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from ser_models.metrics import uar
from seral import storage
from seral.errors import OptionError, SplitError
from seral.features.audio import extract_features
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pool.splits import check_apart, folds_of
from seral.studies.options import TwoStageOptions
from seral.studies.two_stage import run_two_stage
from seral.task.eligibility import eligible
from seral.task.folds import codes, fold_data
from seral.training.scoring import score

CLASSES = ["anger", "happiness", "neutral", "sadness"]
STAGE_2 = ["stage 2, bottleneck frozen", "stage 2, nothing frozen", "stage 2, head refitted"]


@pytest.fixture
def values(two_corpora: str, tmp_path: Path) -> dict[str, Any]:
    return {
        "pool": two_corpora,
        "run": str(tmp_path / "run"),
        "classes": CLASSES,
        "source": {"corpora": ["acted"], "split": {"scheme": "k-fold", "k": 3}},
        "target": {"corpora": ["natural"], "split": {"scheme": "k-fold", "k": 3}, "folds": [1]},
        "seeds": [0],
        "steps": 8,
        "finetune": {"adapter": "lora+bottleneck", "top_layers": 1, "batch_size": 16},
    }


def cells(run: str) -> dict[str, Any]:
    return {path.stem: storage.read_json(path) for path in sorted(Path(run).glob("cells/*.json"))}


def dev_uar_of_stage_1(values: dict[str, Any]) -> float:
    options = parse(TwoStageOptions, values)
    pool = open_pool(options.pool)
    metadata = eligible(options, pool, ["natural"])
    fold = folds_of(metadata, options.target.split, [1])[1]
    data = fold_data(options, extract_features(pool, options.encoder, frames_layer=3), fold, metadata)
    predicted = score(f"{options.run}/stage-1/fold-01.seed-0", data.store, data.utterances(fold.dev)).probability_NC
    return uar(codes(data.oracle().emotions(fold.dev), CLASSES), predicted.argmax(1))


@pytest.mark.ray
def test_stage_2_starts_from_stage_1_and_all_rows_spend_the_same_steps(values: dict[str, Any]) -> None:
    text = run_two_stage(parse(TwoStageOptions, values))
    table = pd.read_csv(Path(values["run"]) / "table.csv").set_index("row")
    assert table.index.tolist() == ["stage 1", *STAGE_2, "source only", "target only", "joint"]
    assert table["steps"].between(3, 9).all()
    assert {"uar", "source_uar", "probe_uar", "source_probe_uar", "pooled_uar", "probe_pooled_uar"} <= set(table)
    assert "| stage 1 |" in text
    cell_of, expected = cells(values["run"]), dev_uar_of_stage_1(values)
    for name in ("stage_2_bottleneck_frozen", "stage_2_nothing_frozen"):
        second = cell_of[f"{name}.fold-01.seed-0"]
        assert second["history"]["adapter"]["epochs"][0]["dev_uar"] == pytest.approx(expected)
        assert second["labels"] == cell_of["target_only.fold-01.seed-0"]["labels"]
    assert cell_of["target_only.fold-01.seed-0"]["history"]["adapter"]["epochs"][0]["dev_uar"] != pytest.approx(
        expected
    )
    # What the adapters make of the frames is what the new head was fitted on.
    refitted = cell_of["stage_2_head_refitted.fold-01.seed-0"]["history"]
    assert refitted["adapter"]["epochs"][0]["dev_uar"] == pytest.approx(refitted["head"]["dev_uar"])
    assert refitted["head"]["dev_uar"] != pytest.approx(expected)
    frozen, free, _ = (table.loc[row, "trainable"] for row in STAGE_2)
    assert 0 < frozen < free


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"freeze": [["gate"]]}, OptionError, "no part 'gate'; it has bottleneck, head, layer_sum, lora_A, lora_B"),
        ({"finetune": {"adapter": "frozen"}}, OptionError, "needs adapters"),
        ({"target": {"corpora": ["acted", "natural"]}}, SplitError, "in the source and in the target: acted/"),
        ({"source": {"corpora": ["acting"]}}, OptionError, "no corpus acting"),
    ],
)
@pytest.mark.ray
def test_wrong_transfers_are_refused(
    values: dict[str, Any], change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run_two_stage(parse(TwoStageOptions, values | change))


def test_speakers_nobody_knows_are_not_one_person() -> None:
    columns = ("utterance_id", "corpus", "speaker")
    one, other, both = (
        pa.Table.from_pylist([dict(zip(columns, (name, "made", who), strict=True)) for name, who in rows])
        for rows in ([("a", "s1"), ("b", None)], [("c", "s2"), ("d", None)], [("e", "s1"), ("f", None)])
    )
    check_apart({"one": one, "other": other})
    with pytest.raises(SplitError, match="in one and in both: made/s1; their speakers must differ"):
        check_apart({"one": one, "both": both})
