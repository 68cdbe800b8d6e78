"""Doubts about labels: each reason by hand, and errors planted in labels that features know better."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from ser_models.encoders import load_encoder
from ser_models.pooling import masked_mean_std
from seral.labels.confident import out_of_sample
from seral.labels.doubts import conflicting_copies, find_doubts, label_errors
from seral.schema import ANSWERS, DOUBTS

CLASSES = ("anger", "joy", "neutral")


def table(*answers: tuple[str, str, str], final: bool = False) -> pa.Table:
    """Answers of (utterance, person, emotion)."""
    rows = [
        {
            "id": number,
            "utterance_id": name,
            "person": person,
            "kind": "label",
            "emotions": [emotion],
            "secondary": [],
            "final": final,
            "purpose": "round",
            "answered_at": float(number),
        }
        for number, (name, person, emotion) in enumerate(answers, start=1)
    ]
    return pa.Table.from_pylist(rows, ANSWERS)


def doubts(answers: pa.Table, **evidence: object) -> list[tuple[str, str, float]]:
    doubtful = find_doubts(answers, CLASSES, **({"probability": {}, "leader_of": {}} | evidence))  # type: ignore[arg-type]
    assert doubtful.schema == DOUBTS
    return [(row["utterance_id"], row["reason"], pytest.approx(row["score"])) for row in doubtful.to_pylist()]


def test_people_who_disagree_by_half_or_more() -> None:
    answers = table(
        ("u1", "ada", "joy"), ("u1", "ben", "anger"),
        ("u2", "ada", "joy"), ("u2", "ben", "anger"), ("u2", "cem", "neutral"),
        ("u3", "ada", "joy"), ("u3", "ben", "joy"), ("u3", "cem", "anger"),
        ("u4", "ada", "joy"),
    )  # fmt: skip
    assert doubts(answers) == [("u2", "disagreement", 2 / 3), ("u1", "disagreement", 1 / 2)]


def test_copies_with_other_labels() -> None:
    label_of = {"a1": "joy", "a2": "joy", "a3": "anger", "b1": "joy", "b2": "neutral", "c1": "joy", "c2": "joy"}
    leader_of = {name: f"{name[0]}1" for name in label_of}
    doubtful = {row["utterance_id"]: row for row in conflicting_copies(label_of, leader_of)}
    score = {name: row["score"] for name, row in doubtful.items()}
    assert score == {"a1": 0.5, "a2": 0.5, "a3": 1.0, "b1": 1.0, "b2": 1.0}
    assert (doubtful["a3"]["suggested"], doubtful["a3"]["other_id"]) == ("joy", "a1")
    assert (doubtful["b1"]["suggested"], doubtful["b1"]["other_id"]) == ("neutral", "b2")


def test_what_a_lead_decided_is_not_doubted() -> None:
    split = (("u1", "ada", "joy"), ("u1", "ben", "anger"))
    assert doubts(table(*split)) == [("u1", "disagreement", 0.5)]
    decided = table(("u1", "lea", "joy"), final=True)
    assert doubts(pa.concat_tables([table(*split), decided])) == []


def test_the_strongest_doubt_comes_first_and_every_reason_is_told() -> None:
    answers = table(("a", "ada", "joy"), ("b", "ada", "joy"), ("c", "ada", "anger"), ("d", "ada", "anger"))
    probability = {
        "a": np.array([0.1, 0.9, 0.0]),
        "b": np.array([0.7, 0.3, 0.0]),
        "c": np.array([0.6, 0.4, 0.0]),
        "d": np.array([0.7, 0.3, 0.0]),
    }
    doubtful = doubts(answers, probability=probability, leader_of={"a": "a", "c": "a"})
    # Thresholds: joy 0.6, anger 0.65. Only b has another class above its threshold.
    assert doubtful == [("a", "near-duplicate", 1.0), ("c", "near-duplicate", 1.0), ("b", "label-error", 0.7)]


def test_planted_errors_are_found() -> None:
    rng = np.random.default_rng(0)
    label_M = np.arange(300) % 3
    x_MD = (np.eye(3, 8)[label_M] * 4 + rng.normal(size=(300, 8))).astype(np.float32)
    wrong = rng.choice(300, 30, replace=False)
    wrong_M = label_M.copy()
    wrong_M[wrong] = (wrong_M[wrong] + rng.integers(1, 3, 30)) % 3
    ids = [f"u{row:03d}" for row in range(300)]
    probability = dict(zip(ids, out_of_sample(x_MD, wrong_M, 0), strict=True))
    doubtful = list(label_errors(dict(zip(ids, (CLASSES[c] for c in wrong_M), strict=True)), probability, CLASSES))
    planted = {ids[row] for row in wrong}
    first = sorted(doubtful, key=lambda row: -row["score"])[:30]
    assert len(planted & {row["utterance_id"] for row in first}) >= 27
    truth = {ids[row]: CLASSES[label_M[row]] for row in wrong}
    right = [row["suggested"] == truth[row["utterance_id"]] for row in first if row["utterance_id"] in planted]
    assert np.mean(right) > 0.95


def test_nothing_known_nothing_doubted() -> None:
    assert doubts(table(("u1", "ada", "joy"))) == []
    assert doubts(table()) == []
    assert list(label_errors({"u1": "joy"}, {}, CLASSES)) == []


@pytest.mark.slow
@pytest.mark.corpora
def test_errors_planted_in_real_speech_are_found(shared: Path) -> None:
    """EmoDB with one label of ten wrong, judged on frozen features of whisper-tiny."""
    corpus = shared / "corpora" / "emodb"
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    encoder, means = load_encoder(shared / "encoders" / "whisper-tiny-en"), []
    for row in rows:
        wave = torch.from_numpy(soundfile.read(corpus / row["audio"], dtype="float32")[0])
        with torch.inference_mode():
            output = encoder(wave[None], torch.tensor([len(wave)]))
            means.append(masked_mean_std(output.hidden_LBTD, output.mask_BT)[0][:, 0].flatten().numpy())
    classes, label_M = np.unique([row["emotion"] for row in rows], return_inverse=True)
    rng, count = np.random.default_rng(0), len(rows) // 10
    wrong = rng.choice(len(rows), count, replace=False)
    wrong_M = label_M.copy()
    wrong_M[wrong] = (wrong_M[wrong] + rng.integers(1, len(classes), count)) % len(classes)
    ids = [f"u{row:03d}" for row in range(len(rows))]
    probability = dict(zip(ids, out_of_sample(np.stack(means), wrong_M, 0), strict=True))
    doubtful = list(label_errors(dict(zip(ids, classes[wrong_M].tolist(), strict=True)), probability, classes.tolist()))
    planted = {ids[row] for row in wrong}
    ranked = [row["utterance_id"] for row in sorted(doubtful, key=lambda row: -row["score"])]
    assert len(planted & set(ranked[:count])) > 0.8 * count
    assert len(planted & set(ranked[: count // 2])) > 0.95 * (count // 2)
