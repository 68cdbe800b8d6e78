"""Runs on the votes of a corpus's raters: what is learnt, what is judged, and ties, which have no winner, in both."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from seral import storage
from seral.cli import app
from seral.errors import LabelError, StateError
from seral.labels.options import VoteOptions
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.task.gold import Oracle
from seral.training.adaptation import run_adapt
from seral.training.options import AdaptOptions, SupervisedOptions, TransferOptions
from seral.training.supervised import run_train
from seral.training.transfer import run_transfer

CLASSES = ["anger", "happiness", "neutral", "sadness"]
SHARES = {1: [[1.0]], 2: [[1.0], [0.5]], 3: [[1.0], [0.333, 0.667], [0.333]]}
"""Shares that so many answers may have."""
CLIPS, RATERS = 48, ("r1", "r2", "r3")
TABLES = "".join(f"      emotion.{rater}: {{scheme_id: emotion, rater_id: {rater}}}\n" for rater in RATERS)
HEADER = f"""name: NAME
languages: [deu]
raters: {{{", ".join(f"{rater}: {{type: human}}" for rater in RATERS)}}}
schemes:
  emotion: {{dtype: str, labels: [{", ".join(CLASSES)}]}}
  speaker: {{dtype: str}}
tables:
  files:
    type: filewise
    columns:
      speaker: {{scheme_id: speaker}}
{TABLES}"""


def words_of(clip: int) -> list[str]:
    """The three raters' words: every seventh clip is three different ones, every fourth one has a rater against two."""
    truth = clip % 4
    others = [(truth + 1) % 4, (truth + 2) % 4]
    numbers = [truth, *others] if clip % 7 == 5 else [truth, truth, others[0] if clip % 4 == 3 else truth]
    return [CLASSES[number] for number in numbers]


@pytest.fixture(scope="module")
def voted_pool(tmp_path_factory: pytest.TempPathFactory, make_corpus: Any, ray_session: None) -> str:
    root = tmp_path_factory.mktemp("voted")
    import_voted(make_corpus, root / "corpus", "voted", root / "pool")
    return str(root / "pool")


@pytest.fixture(scope="module")
def two_voted(voted_pool: str, tmp_path_factory: pytest.TempPathFactory, make_corpus: Any) -> str:
    """A pool of two voted corpora."""
    root = tmp_path_factory.mktemp("two-voted")
    shutil.copytree(voted_pool, root / "pool")
    import_voted(make_corpus, root / "corpus", "again", root / "pool", seed=1)
    return str(root / "pool")


def import_voted(make_corpus: Any, corpus: Path, name: str, pool: Path, seed: int = 0) -> None:
    make_corpus(corpus, CLIPS, speakers=6, seed=seed)
    (corpus / "manifest.jsonl").unlink()
    (corpus / "db.yaml").write_text(HEADER.replace("NAME", name))
    rows = [",".join([f"audio/clip{clip:04d}.flac", f"s{clip % 6}", *words_of(clip)]) for clip in range(CLIPS)]
    names = ",".join(["file", "speaker", *(f"emotion.{rater}" for rater in RATERS)])
    (corpus / "db.files.csv").write_text("\n".join([names, *rows]) + "\n")
    import_corpus(parse(ImportOptions, {"reader": "audformat", "root": str(corpus), "out": str(pool)}))


def clip_of(pool: str) -> dict[str, int]:
    """Number of the clip of each utterance."""
    opened = open_pool(pool)
    rows = [row for shard in opened.shards for row in opened.read(shard, ["utterance_id", "source"]).to_pylist()]
    return {row["utterance_id"]: int(Path(row["source"]).stem.removeprefix("clip")) for row in rows}


def values_of(pool: str, run: Path, **changes: Any) -> dict[str, Any]:
    """Options of a run on one fold."""
    values: dict[str, Any] = {"pool": pool, "run": str(run), "classes": CLASSES, "votes": {"method": "soft"}}
    return values | {"split": {"scheme": "k-fold", "k": 3}, "folds": [0], "seeds": [0]} | changes


@pytest.mark.ray
def test_an_oracle_of_votes_has_shares_winners_and_ties(voted_pool: str) -> None:
    number = clip_of(voted_pool)
    ids = sorted(number)
    targets = Oracle(open_pool(voted_pool), CLASSES, votes=VoteOptions()).targets(ids)
    assert targets.soft_NC is not None
    for name, label, share_C in zip(ids, targets.label_N.tolist(), targets.soft_NC, strict=True):
        words = words_of(number[name])
        np.testing.assert_allclose(share_C, [words.count(word) / 3 for word in CLASSES], atol=1e-6)
        assert label == (-1 if len(set(words)) == 3 else CLASSES.index(words[0]))
    majority = Oracle(open_pool(voted_pool), CLASSES, votes=VoteOptions(method="majority"))
    assert majority.targets(ids).soft_NC is None
    assert majority.answers(ids).sum() == (targets.label_N >= 0).sum() == CLIPS - 7
    assert not Oracle(open_pool(voted_pool), CLASSES, votes=VoteOptions(least=4), complete=False).answers(ids).any()


@pytest.mark.ray
def test_a_pool_without_votes_says_so(two_corpora: str) -> None:
    with pytest.raises(LabelError, match=r"no rater of .* named an emotion"):
        Oracle(open_pool(two_corpora), CLASSES, votes=VoteOptions())


@pytest.mark.ray
@pytest.mark.parametrize("adapter", ["frozen", "lora"])
def test_a_training_learns_ties_and_is_judged_by_votes(voted_pool: str, tmp_path: Path, adapter: str) -> None:
    values = values_of(voted_pool, tmp_path, finetune={"adapter": adapter, "epochs": 1, "top_layers": 1})
    cells = {}
    for method in ("soft", "majority"):
        run_train(parse(SupervisedOptions, values | {"run": str(tmp_path / method), "votes": {"method": method}}))
        (cell,) = (tmp_path / method / "cells").glob("*.json")
        cells[method] = storage.read_json(cell)
    assert cells["soft"]["labels"] - cells["majority"]["labels"] > 0, "ties are learnt from"
    assert cells["soft"]["votes_cross_entropy"] > 0
    assert 0 <= cells["soft"]["votes_uar_with_ties"] <= 1
    assert "votes_top2" not in cells["majority"], "nobody asked for shares"
    judged = sum(map(sum, cells["soft"]["confusion"]))
    assert len(cells["soft"]["predicted"]) > judged, "ties have no class to be right in"


@pytest.mark.ray
def test_the_method_follows_from_the_number_of_raters_and_is_said_once(
    voted_pool: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = open_pool(voted_pool)
    unset = Oracle(pool, CLASSES, votes=VoteOptions()).targets(sorted(clip_of(voted_pool)))
    assert unset.soft_NC is not None, "three raters: shares"
    for votes in ({"least": 1}, {}, {"method": "soft"}):
        run_train(parse(SupervisedOptions, values_of(voted_pool, tmp_path / "run", votes=votes)))
    assert capsys.readouterr().err.count(f"votes.method=soft: the clips of {voted_pool} have 3 raters (median)") == 1
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["votes"]["method"] == "soft"
    with pytest.raises(StateError, match=r"votes: was .*'soft'.*'majority'"):
        run_train(parse(SupervisedOptions, values_of(voted_pool, tmp_path / "run", votes={"method": "majority"})))


@pytest.mark.ray
def test_raters_are_learnt_with_the_classifier(voted_pool: str, tmp_path: Path) -> None:
    for run, method in (("crowd", "crowd"), ("again", "crowd"), ("soft", "soft")):
        run_train(parse(SupervisedOptions, values_of(voted_pool, tmp_path / run, votes={"method": method})))
    cell, again, soft = (
        storage.read_json(next((tmp_path / run / "cells").glob("*.json"))) for run in ("crowd", "again", "soft")
    )
    raters = cell["history"]["raters"]
    assert raters == again["history"]["raters"]
    assert raters["r1"] > raters["r3"], "r1 is always right, r3 in five of eight"
    assert "raters" not in soft["history"]
    assert cell["confusion"] == again["confusion"]
    assert sum(map(sum, cell["confusion"])) == sum(map(sum, soft["confusion"])), "judged by the same winners"


@pytest.mark.ray
def test_raters_of_no_name_cannot_be_learnt(voted_pool: str, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    shutil.copytree(voted_pool, pool)
    for shard in (pool / "votes").glob("*.parquet"):
        table = pq.read_table(shard)
        nobody = pa.nulls(table.num_rows, pa.string())
        pq.write_table(table.set_column(table.column_names.index("rater"), "rater", nobody), shard)
    with pytest.raises(LabelError, match=r"crowd needs to know who voted, and 144 of 144 votes are of nobody"):
        Oracle(open_pool(str(pool)), CLASSES, votes=VoteOptions(method="crowd"))
    with pytest.raises(ValueError, match="answer=one does not say whose votes they are, for crowd"):
        VoteOptions(method="crowd", answer="one")


@pytest.mark.ray
def test_a_loop_buys_ties_and_learns_from_them(voted_pool: str, tmp_path: Path) -> None:
    values = values_of(voted_pool, tmp_path / "run", strategy="margin", budget={"sizes": [10, 32]}, full_arm=False)
    run = Path(run_loop(parse(LoopOptions, values)))
    number = clip_of(voted_pool)
    for arm in ("margin", "random"):
        rounds = sorted((run / f"trajectories/{arm}.fold-00.seed-0/rounds").iterdir())
        labels = [row for path in rounds for row in pq.read_table(path / "labels.parquet").to_pylist()]
        assert len(labels) == 32, "a tie is a label: nothing is asked in its place"
        tied = {row["utterance_id"] for row in labels if row["emotion"] is None}
        assert tied == {row["utterance_id"] for row in labels if len(set(words_of(number[row["utterance_id"]]))) == 3}
        assert tied, "of 32 clips with every seventh a tie"
        assert all(row["answer"] == "label" and abs(sum(row["probability"]) - 1) < 1e-5 for row in labels)
        metrics = storage.read_json(rounds[-1] / "metrics.json")
        assert metrics["labelled"] == 32
        assert metrics["test"]["votes_cross_entropy"] > 0
        predicted = pq.read_table(rounds[-1] / "predictions/test.parquet")["utterance_id"].to_pylist()
        assert not [name for name in predicted if len(set(words_of(number[name]))) == 3], "test clips have one class"


@pytest.mark.ray
def test_a_loop_may_ask_one_rater_after_the_other(voted_pool: str, tmp_path: Path) -> None:
    again = {"name": "random", "wrappers": [{"name": "relabel", "share": 0.5, "doubt": 0.0}]}
    arms = {"strategy": again, "initial": "random", "random_arm": False, "full_arm": False}
    values = values_of(voted_pool, tmp_path / "run", votes={"answer": "one"}, budget={"sizes": [10, 20, 30]}, **arms)
    run = Path(run_loop(parse(LoopOptions, values)))
    number, rounds = clip_of(voted_pool), sorted((run / "trajectories/random.fold-00.seed-0/rounds").iterdir())
    asked, label_of = Counter[str](), dict[str, dict[str, Any]]()
    for path in rounds:
        asked.update(pq.read_table(path / "picks.parquet")["utterance_id"].to_pylist())
        label_of |= {row["utterance_id"]: row for row in pq.read_table(path / "labels.parquet").to_pylist()}
    assert asked.total() == 30
    assert set(asked.values()) >= {1, 2}, "some clips were asked about again"
    for name, row in label_of.items():
        words = words_of(number[name])
        assert sorted(set(np.round(row["probability"], 3)) - {0.0}) in SHARES[min(asked[name], 3)]
        assert all(word in words for word, share in zip(CLASSES, row["probability"], strict=True) if share)


@pytest.mark.ray
def test_agreement_of_a_pool_is_said(voted_pool: str) -> None:
    result = CliRunner().invoke(app, ["labels", "agreement", voted_pool, "--json"])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["classes"] == CLASSES
    assert (facts["clips"], facts["raters"]) == (CLIPS, 3.0)
    assert facts["tied"] == pytest.approx(7 / CLIPS)
    assert 0 < facts["alpha"] < 1
    assert 0 < facts["ceiling"] < 1


@pytest.mark.ray
def test_an_encoder_learns_shares_and_ties(voted_pool: str, tmp_path: Path) -> None:
    values = {"pool": voted_pool, "classes": CLASSES, "epochs": 1, "settings": {"lora": {"rank": 2}}}
    lost = {}
    for method, clips in (("soft", CLIPS), ("majority", CLIPS - 7), ("crowd", CLIPS)):
        run = tmp_path / method
        run_adapt(parse(AdaptOptions, values | {"run": str(run), "votes": {"method": method}}))
        assert pq.read_table(run / "encoder/labels.parquet").num_rows == clips
        lost[method] = storage.read_json(run / "adapt.json")["training"]["history"][-1]["loss"]
    assert np.isfinite(list(lost.values())).all()
    assert len(set(lost.values())) == 3


@pytest.mark.ray
def test_a_transfer_learns_shares_ties_and_raters(voted_pool: str, two_voted: str, tmp_path: Path) -> None:
    values = {"pool": voted_pool, "classes": CLASSES, "sources": [{"pool": two_voted, "corpora": ["again"]}]}
    spoken = {}
    for method, clips in (("soft", CLIPS), ("majority", CLIPS - 7), ("crowd", CLIPS)):
        run = tmp_path / method
        run_transfer(parse(TransferOptions, values | {"run": str(run), "votes": {"method": method}}))
        facts = storage.read_json(run / "models/source.json")
        assert all(model["labels"] == {"again": clips} for model in facts["models"].values())
        (file,) = (run / "predictions").glob("*.parquet")
        spoken[method] = np.array([pq.read_table(file)[f"p_{name}"].to_pylist() for name in CLASSES])
    for one, other in combinations(spoken.values(), 2):
        assert np.abs(one - other).max() > 1e-3


@pytest.mark.ray
def test_a_transfer_is_judged_by_votes_too(voted_pool: str, two_voted: str, tmp_path: Path) -> None:
    shutil.copytree(voted_pool, tmp_path / "target")
    values = {"pool": str(tmp_path / "target"), "classes": CLASSES, "sources": [{"pool": two_voted}]}
    text = run_transfer(parse(TransferOptions, values | {"run": str(tmp_path / "run"), "votes": {"method": "crowd"}}))
    facts = storage.read_json(tmp_path / "run/transfer.json")["left_out_votes"]
    assert set(facts) == {"again", "voted"}
    for agreement in facts.values():
        assert agreement["votes_cross_entropy"] > 0
        assert 0 <= agreement["votes_uar_with_ties"] <= 1
    assert "votes_top2" in text


@pytest.mark.ray
@pytest.mark.parametrize("adapter", ["frozen", "lora"])
def test_ties_of_other_corpora_are_learnt_from(two_voted: str, tmp_path: Path, adapter: str) -> None:
    finetune = {"adapter": adapter, "epochs": 1, "top_layers": 1}
    values = values_of(two_voted, tmp_path, corpora=["voted"], source_corpora=["again"], finetune=finetune)
    cells = {}
    for method in ("soft", "majority"):
        run_train(parse(SupervisedOptions, values | {"run": str(tmp_path / method), "votes": {"method": method}}))
        (cell,) = (tmp_path / method / "cells").glob("*.json")
        cells[method] = storage.read_json(cell)
        (source,) = (tmp_path / method / "models").glob("*/source/source.json")
        (model,) = {str(facts["labels"]) for facts in storage.read_json(source)["models"].values()}
        assert model == str({"again": CLIPS if method == "soft" else CLIPS - 7})
    assert (
        cells["soft"]["confusion"] != cells["majority"]["confusion"] or cells["soft"]["ece"] != cells["majority"]["ece"]
    )


@pytest.mark.ray
def test_a_loop_learns_ties_of_other_corpora(two_voted: str, tmp_path: Path) -> None:
    values = values_of(two_voted, tmp_path / "run", corpora=["voted"], source_corpora=["again"], random_arm=False)
    values |= {"budget": {"sizes": [6, 10]}, "full_arm": False}
    values["finetune"] = {"adapter": "lora", "epochs": 1, "top_layers": 1}
    run_loop(parse(LoopOptions, values))
    (source,) = (tmp_path / "run/folds").glob("*/source/source.json")
    assert storage.read_json(source)["models"]["none"]["labels"] == {"again": CLIPS}
    (metrics,) = (tmp_path / "run/trajectories").glob("*/rounds/0001/metrics.json")
    assert 0 <= storage.read_json(metrics)["test"]["uar"] <= 1
