import base64
import hashlib
import json
import re
import shutil
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from seral import storage
from seral.errors import StateError
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project
from seral.pool.shards import FORMAT
from seral.report.comparison import (
    cost_of_target,
    crossing,
    curve,
    differences,
    headline,
    last_rounds,
    paired_difference,
)
from seral.report.outcome import arm_rows
from seral.report.records import read_run
from seral.report.report import write_report
from seral.schema import LABEL, METADATA_COLUMNS, PICK, UTTERANCE, prediction_schema

CLASSES = ["anger", "happiness", "neutral", "sadness"]
POOL, TEST = 200, 60
SCHEDULE = {"after": [16, 32, 48, 64], "random": [16, 32, 48, 64], "full": [POOL]}


def pool_metadata(rng: np.random.Generator) -> pa.Table:
    """A pool of two corpora and seven speakers, some of them noisy."""
    count = POOL + TEST
    speaker = rng.integers(7, size=count)
    columns: dict[str, Any] = {
        "utterance_id": [f"u{number:04d}" for number in range(count)],
        "duration_s": rng.gamma(4, 0.8, count),
        "corpus": np.where(speaker < 4, "studio", "phone").tolist(),
        "speaker": [f"s{number:02d}" for number in speaker],
        "snr_db": rng.normal(np.where(speaker < 4, 32, 14), 4),
    }
    fields = [UTTERANCE.field(name) for name in METADATA_COLUMNS]
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * count)).cast(f.type) for f in fields})


def score(truth_N: np.ndarray, predicted_N: np.ndarray) -> dict[str, Any]:
    """Test metrics from predictions, by their definitions."""
    confusion_CC = np.zeros((4, 4), dtype=int)
    np.add.at(confusion_CC, (truth_N, predicted_N), 1)
    recall_C = confusion_CC.diagonal() / confusion_CC.sum(axis=1)
    f1_C = 2 * confusion_CC.diagonal() / (confusion_CC.sum(axis=0) + confusion_CC.sum(axis=1))
    return {
        "uar": recall_C.mean(),
        "wa": confusion_CC.trace() / confusion_CC.sum(),
        "macro_f1": f1_C.mean(),
        "per_class_recall": dict(zip(CLASSES, recall_C.tolist(), strict=True)),
        "confusion": confusion_CC.tolist(),
        "mine:WORST.recall": recall_C.min(),
    }


def predict(truth_N: np.ndarray, accuracy: float, rng: np.random.Generator) -> np.ndarray:
    """Right with the given chance, else any class; probabilities (N, C)."""
    predicted_N = np.where(rng.random(len(truth_N)) < accuracy, truth_N, rng.integers(4, size=len(truth_N)))
    return 0.7 * np.eye(4)[predicted_N] + 0.3 * rng.dirichlet(np.ones(4), len(truth_N))


def write_trajectory(run: Path, arm: str, fold: int, seed: int, gold_N: np.ndarray) -> None:
    """All rounds of one trajectory, as the contract of a run folder has them."""
    rng = np.random.default_rng([fold, seed, len(arm)])
    folder = run / "trajectories" / f"{arm}.fold-{fold:02d}.seed-{seed}"
    ids, order = [f"u{number:04d}" for number in range(POOL + TEST)], rng.permutation(POOL)
    write_json(
        folder / "trajectory.json",
        {
            "arm": arm,
            "fold": fold,
            "seed": seed,
            "fold_name": f"fold {fold}",
            "n_train": POOL,
            "test_speakers": ["s06"],
        },
    )
    for number, count in enumerate(SCHEDULE[arm]):
        asked = order[(SCHEDULE[arm][number - 1] if number else 0) : count]
        accuracy = 0.35 + 0.45 * (count / POOL) ** 0.5 + (0.08 if arm == "after" else 0.0)
        probability_NC = predict(gold_N, accuracy, rng)
        test = score(gold_N[POOL:], probability_NC[POOL:].argmax(axis=1))
        write_round(folder / "rounds" / f"{number:04d}", number, arm, [ids[row] for row in asked], gold_N[asked])
        round_folder = folder / "rounds" / f"{number:04d}"
        part = ["pool"] * POOL + ["test"] * TEST
        table = {"utterance_id": ids, "part": part, "predicted": [CLASSES[code] for code in probability_NC.argmax(1)]}
        table |= {f"p_{name}": probability_NC[:, code] for code, name in enumerate(CLASSES)}
        (round_folder / "predictions").mkdir()
        pq.write_table(pa.table(table).cast(prediction_schema(CLASSES)), round_folder / "predictions" / "all.parquet")
        metrics = {
            "labelled": count,
            "fraction": count / POOL,
            "dev": test,
            "test": test,
            "probe": {"test_uar": 0.4321},
        }
        write_json(round_folder / "metrics.json", metrics)
        seconds = {"label": 0.1, "train": 0.4 * count, "score": 6.0, "select": 1.0 if arm == "after" else 0.1}
        finish = {"finished": "2026-01-01T00:00:00+00:00", "stop_reason": "budget" if count in {64, POOL} else None}
        write_json(round_folder / "round.json", {"round": number, "labelled": count, "seconds": seconds, **finish})


def write_round(folder: Path, number: int, arm: str, ids: list[str], gold_K: np.ndarray) -> None:
    """Picks and answers of a round; the first answer is "skipped"."""
    folder.mkdir(parents=True)
    picks = [{"utterance_id": u, "order": i, "strategy": arm, "round": number} for i, u in enumerate(ids)]
    pq.write_table(pa.Table.from_pylist(picks, PICK), folder / "picks.parquet")
    labels = [
        {"utterance_id": u, "emotion": CLASSES[code], "annotator": "gold", "answer": "label", "round": number}
        for u, code in zip(ids, gold_K, strict=True)
    ]
    labels[0] |= {"emotion": None, "answer": "skipped"}
    pq.write_table(pa.Table.from_pylist(labels, LABEL), folder / "labels.parquet")


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_run(run: Path, arms: list[str], folds: int = 2, seeds: int = 3) -> pa.Table:
    """A whole run folder; returns the pool's metadata."""
    rng = np.random.default_rng(0)
    metadata, gold_N = pool_metadata(rng), rng.integers(4, size=POOL + TEST)
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"pool": "pools/demo", "strategy": {"name": "after", "beta": 5}}))
    write_json(
        run / "environment.json",
        {"versions": {"seral": "0.1.0"}, "pool_hash": "abc123", "protocol": "demo <v1>", "classes": CLASSES},
    )
    for arm in arms:
        for fold in range(folds):
            for seed in range(seeds):
                write_trajectory(run, arm, fold, seed, gold_N)
    return metadata


@pytest.fixture(scope="module")
def run_pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    run = tmp_path_factory.mktemp("runs") / "demo"
    return run, write_run(run, ["after", "random", "full"])


@pytest.fixture(scope="module")
def page(run_pool: tuple[Path, pa.Table], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_report(*run_pool, out=tmp_path_factory.mktemp("report")))


class Reader(HTMLParser):
    """Collects what a browser would load, the images' texts, the headings of tables and all visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded, self.links, self.alts, self.scopes, self.text = [], [], [], [], []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.loaded += [attributes[name] for name in ("src", "srcset", "data", "poster") if name in attributes]
        self.links += [attributes["href"]] if "href" in attributes else []
        self.alts += [attributes.get("alt")] if tag == "img" else []
        self.scopes += [attributes.get("scope")] if tag == "th" else []
        assert tag not in {"link", "iframe", "object"}
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.text.append(data)


def read_page(path: str | Path) -> Reader:
    reader = Reader()
    reader.feed(Path(path).read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_needs_nothing_beside_it(page: Path) -> None:
    reader = read_page(page)
    assert len(reader.loaded) == len(reader.alts) == 6
    assert all(str(source).startswith("data:image/png;base64,iVBOR") for source in reader.loaded)
    assert all(str(link).startswith("#") for link in reader.links)
    html = page.read_text(encoding="utf-8")
    assert not re.search(r"@import|url\(|https?://", re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL))
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">', html)
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", html, flags=re.DOTALL)
    }
    assert {part for part in policy.replace(";", "").split() if part.startswith("'sha256")} == hashes
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_page_can_be_heard(page: Path) -> None:
    reader = read_page(page)
    assert all(alt and len(alt) > 40 for alt in reader.alts)
    assert set(reader.scopes) == {"row", "col"}
    assert page.read_text(encoding="utf-8").count("<caption>") == 5


def test_the_page_holds_the_numbers(run_pool: tuple[Path, pa.Table], page: Path) -> None:
    text = " ".join(read_page(page).text)
    records = read_run(run_pool[0])
    for row in headline(records).to_dict("records"):
        assert f"{100 * row['uar']:.1f} ± {100 * row['uar_std']:.1f}" in text
        worst = row["mine:WORST.recall"]
        assert f"{worst:.3f} ± {row['mine:WORST.recall_std']:.3f}" in text
    assert records.further == ["mine:WORST.recall"]
    (last, *_) = [row for row in arm_rows(records)[::-1] if row["arm"] == records.arms[0]]
    final = last_rounds(records.rounds).query("arm == @records.arms[0]")["mine:WORST.recall"]
    assert last["mine:WORST.recall"] == f"{final.mean():.3f}"
    assert " to " in last["mine:WORST.recall 95 %"]
    for difference in differences(records):
        assert difference.sentence in text
    assert "demo <v1>" in text
    assert "linear probe UAR %" in text
    assert "43.2" in text
    assert "beta: 5" in text
    assert "abc123" in text


def test_figures_and_tables_lie_beside_the_page(page: Path) -> None:
    names = {path.name for path in page.parent.iterdir()}
    assert {name for name in names if name.endswith(".png")} == {
        f"{name}.png"
        for name in ("learning_curves", "confusion", "picked_classes", "picked_groups", "picked_quality", "time")
    }
    assert {"rounds.csv", "headline.csv", "target.csv", "differences.csv", "picks.csv", "time.csv"} <= names
    assert len(pd.read_csv(page.parent / "rounds.csv")) == 2 * 3 * 9


def test_the_page_says_where_curves_show_a_proxy(run_pool: tuple[Path, pa.Table], page: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_pool[0], run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"proxy": True}))
    html = Path(write_report(run, run_pool[1], out=tmp_path / "proxy")).read_text(encoding="utf-8")
    assert "Adapters were trained at the last point" in html
    assert "Adapters were trained at the last point" not in page.read_text(encoding="utf-8")


def test_the_page_says_which_strategies_another_one_stood_for(
    run_pool: tuple[Path, pa.Table], page: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_pool[0], run)
    for folder in run.glob("trajectories/after.*/rounds/0000"):
        table = pq.read_table(folder / "picks.parquet").to_pylist()
        picks = [row | {"strategy": "k_means"} for row in table]
        pq.write_table(pa.Table.from_pylist(picks, PICK), folder / "picks.parquet")
    html = Path(write_report(run, run_pool[1], out=tmp_path / "chosen")).read_text(encoding="utf-8")
    assert "Rounds that after picked by: after in 18, k_means in 6." in html
    assert "Rounds that random picked" not in html
    assert "picked by:" not in page.read_text(encoding="utf-8")


def test_equal_runs_give_equal_pages(run_pool: tuple[Path, pa.Table], page: Path, tmp_path: Path) -> None:
    assert Path(write_report(*run_pool, out=tmp_path / "again")).read_bytes() == page.read_bytes()


def test_frames_against_the_files(run_pool: tuple[Path, pa.Table]) -> None:
    records = read_run(run_pool[0])
    assert records.arms == ["after", "random", "full"]
    assert len(records.picks) == len(records.answers) == 6 * (64 + 64 + POOL)
    rounds_folder = run_pool[0] / "trajectories" / "after.fold-01.seed-2" / "rounds"
    metrics = [json.loads((rounds_folder / f"{number:04d}" / "metrics.json").read_text()) for number in range(4)]
    mine = records.rounds.query("arm == 'after' and fold == 1 and seed == 2")
    assert mine["uar"].tolist() == [entry["test"]["uar"] for entry in metrics]
    assert mine["seconds_train"].tolist() == pytest.approx([0.4 * labelled for labelled in SCHEDULE["after"]])
    assert records.confusion["after"].sum() == 6 * TEST
    assert curve(records, "after")["elapsed"].tolist()[:2] == pytest.approx([0.1 + 6.4 + 6 + 1, 2 * 7.1 + 0.4 * 48])


def test_a_round_without_its_last_file_does_not_count(tmp_path: Path) -> None:
    write_run(tmp_path / "run", ["after"], folds=1, seeds=1)
    rounds = tmp_path / "run" / "trajectories" / "after.fold-00.seed-0" / "rounds"
    (rounds / "0003" / "round.json").unlink()
    (rounds / "0003" / "metrics.json").write_text("{half")
    assert read_run(tmp_path / "run").rounds["round"].tolist() == [0, 1, 2]


def test_one_arm_one_trajectory_and_no_ceiling_still_make_a_page(tmp_path: Path) -> None:
    metadata = write_run(tmp_path / "run", ["after"], folds=1, seeds=1)
    reader = read_page(write_report(tmp_path / "run", metadata))
    text = " ".join(reader.text)
    assert "no arm with all labels" in text
    assert "nothing here says that choosing helped" in text
    assert "nan" not in text.lower()


def test_only_the_full_arm_makes_a_page(tmp_path: Path) -> None:
    metadata = write_run(tmp_path / "run", ["full"], folds=1, seeds=1)
    assert "No arm of this run chose anything" in " ".join(read_page(write_report(tmp_path / "run", metadata)).text)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"no run at .*config\.yaml is missing"):
        read_run(tmp_path)
    write_run(tmp_path / "run", [])
    with pytest.raises(StateError, match="no complete round"):
        read_run(tmp_path / "run")


def rounds_frame(strategy: list[float], random: list[float]) -> pd.DataFrame:
    """One fold, a seed per pair, two rounds; the first round is the same for both."""
    rows = []
    for arm, finals in (("after", strategy), ("random", random)):
        for seed, uar in enumerate(finals):
            rows += [(arm, 0, seed, 0, 10, 0.3), (arm, 0, seed, 1, 20, uar)]
    return pd.DataFrame(rows, columns=["arm", "fold", "seed", "round", "labelled", "uar"])


@pytest.mark.parametrize(
    ("strategy", "random", "words"),
    [
        ([0.6, 0.61, 0.62], [0.5, 0.5, 0.5], "did better than random"),
        ([0.5, 0.5, 0.5], [0.6, 0.61, 0.62], "did worse than random"),
        ([0.4, 0.6, 0.5], [0.5, 0.5, 0.5], "interval includes zero"),
        ([0.6], [0.5], "One pair says nothing"),
    ],
)
def test_the_difference_claims_no_more_than_it_shows(strategy: list[float], random: list[float], words: str) -> None:
    difference = paired_difference(rounds_frame(strategy, random), "after", np.random.default_rng(0))
    assert difference is not None
    assert (difference.pairs, difference.labelled) == (len(strategy), 20)
    assert difference.mean == pytest.approx(np.mean(np.subtract(strategy, random)))
    assert words in difference.sentence


def test_pairs_are_compared_at_the_largest_budget_both_have() -> None:
    frame = rounds_frame([0.6, 0.7], [0.5, 0.5])
    stopped_early = frame.drop(frame.query("arm == 'after' and seed == 1 and round == 1").index)
    difference = paired_difference(stopped_early, "after", np.random.default_rng(0))
    assert difference is not None
    assert (difference.mean, difference.labelled) == (pytest.approx(0.05), 15)
    assert paired_difference(frame.query("arm == 'after'"), "after", np.random.default_rng(0)) is None


def test_budgets_in_minutes_are_paired_though_they_buy_different_numbers_of_labels() -> None:
    frame = rounds_frame([0.6, 0.7], [0.5, 0.5])
    frame.loc[frame["arm"] == "random", "labelled"] += 3
    difference = paired_difference(frame, "after", np.random.default_rng(0))
    assert difference is not None
    assert (difference.pairs, difference.mean, difference.labelled) == (2, pytest.approx(0.15), 20)


def test_few_folds_are_told_with_their_range() -> None:
    frame = pd.concat([rounds_frame([uar], [0.5]).assign(fold=fold) for fold, uar in enumerate([0.6, 0.61, 0.65])])
    difference = paired_difference(frame, "after", np.random.default_rng(0))
    assert difference is not None
    assert difference.gains == pytest.approx((0.1, 0.11, 0.15))
    assert "3 pairs of 3 folds, whose own differences go from +10.0 to +15.0, p = 0.25" in difference.sentence


@pytest.mark.parametrize(
    ("uar", "expected"),
    [([0.4, 0.5, 0.7], 25.0), ([0.7, 0.5, 0.9], 10.0), ([0.6, 0.4, 0.5], 10.0), ([0.1, 0.6, 0.5], 20)],
)
def test_a_target_is_met_where_the_curve_first_reaches_it(uar: list[float], expected: float) -> None:
    assert crossing([10, 20, 30], uar, 0.6) == pytest.approx(expected)


def test_a_target_may_not_be_reached(run_pool: tuple[Path, pa.Table], page: Path) -> None:
    assert np.isnan(crossing([10, 20], [0.1, 0.2], 0.6))
    reached = cost_of_target(read_run(run_pool[0]), share=2.0)
    assert reached["labels"].isna().all()
    assert "not reached" in " ".join(read_page(page).text)


@pytest.fixture
def asked(tmp_path: Path) -> tuple[Path, pa.Table]:
    """A run whose labels are those of three people, one of whom says nothing but joy in the end."""
    run = tmp_path / "run"
    metadata = write_run(run, ["after"], folds=1, seeds=1)
    ids = metadata["utterance_id"].to_pylist()[:40]
    write_pool(tmp_path / "pool", ids)
    config = {"pool": str(tmp_path / "pool"), "people": {"overlap": 3}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with closing(Ledger.create(str(run / "labels.sqlite"), Project(classes=tuple(CLASSES)))) as ledger:
        for number, name in enumerate(ids):
            truth = CLASSES[number % 4]
            answers_of = {"ada": truth, "ben <b>": truth, "cem": truth if number < 20 else CLASSES[3 - number % 4]}
            ledger.record(
                Answer(utterance_id=name, person=who, emotions=(emotion,), seconds=4.0, answered_at=number)
                for who, emotion in answers_of.items()
            )
        ledger.record([Answer(utterance_id="u0000", person="dan", emotions=("sadness",), seconds=1.0)])
        ledger.record([Answer(utterance_id="u0000", person="eve", emotions=("sadness",), seconds=1.0)])
        ledger.record([Answer(utterance_id="u0000", person="fay", kind="skipped")])
    return run, metadata


def write_pool(folder: Path, ids: list[str]) -> None:
    """A pool with nothing but names, the last two of which are one recording."""
    rows = [{"utterance_id": name, "duplicate_of": ids[-2] if name == ids[-1] else None} for name in ids]
    storage.write_table(folder / "utterances" / "run_pool-1.parquet", pa.Table.from_pylist(rows, UTTERANCE))
    manifest = {"format": FORMAT, "pool_hash": "abc", "shards": {"run_pool-1": {"rows": len(ids)}}}
    write_json(folder / "manifest.json", manifest)


def test_a_run_with_people_tells_of_them_and_of_doubtful_labels(asked: tuple[Path, pa.Table]) -> None:
    page = Path(write_report(*asked))
    reader = read_page(page)
    text = " ".join(" ".join(reader.text).split())
    assert "Labels" in text
    people = pd.read_csv(page.parent / "people.csv").set_index("person")
    assert people["answers"].to_dict() == {"ada": 40, "ben <b>": 40, "cem": 40, "dan": 1, "eve": 1, "fay": 1}
    assert people.loc["cem", "early"] == 1
    assert people.loc["cem", "late"] == 0
    assert people.loc["cem", "p"] < 0.001
    assert "100 % → 0 % *" in text
    assert people.loc["fay", "skipped"] == 1
    doubts = pd.read_csv(page.parent / "doubts.csv")
    assert set(doubts["reason"]) == {"label-error", "near-duplicate"}
    assert {"u0038", "u0039"} <= set(doubts["utterance_id"])
    assert "u0038" in text
    # cem says sadness for anger and happiness for neutral: the other class, never the two of one half.
    assert "Hardest to tell apart: anger and sadness" in text or "Hardest to tell apart: happiness and neutral" in text
    assert (page.parent / "said_together.png").exists()
    assert "nan" not in text.lower()
    assert Path(write_report(*asked, out=page.parent.parent / "again")).read_bytes() == page.read_bytes()


def test_a_run_without_people_has_no_such_section(page: Path) -> None:
    assert 'id="labels"' not in page.read_text(encoding="utf-8")
    assert not (page.parent / "people.csv").exists()


def test_a_ledger_without_answers_makes_a_page_too(tmp_path: Path) -> None:
    metadata = write_run(tmp_path / "run", ["after"], folds=1, seeds=1)
    write_pool(tmp_path / "pool", ["u0000", "u0001"])
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"pool": str(tmp_path / "pool"), "people": {}}))
    Ledger.create(str(tmp_path / "run" / "labels.sqlite"), Project(classes=tuple(CLASSES))).close()
    text = " ".join(read_page(write_report(tmp_path / "run", metadata)).text)
    assert "Nothing speaks against any label" in text
    assert "nan" not in text.lower()
