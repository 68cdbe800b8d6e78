"""Ask and tell: the picks of the loop, without a second loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from seral.errors import LabelError, OptionError, StateError
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.loop.session import Session
from seral.models.options import PredictOptions
from seral.models.prediction import predict
from seral.options import parse
from seral.pool.shards import open_pool
from seral.selection.candidates import Candidates
from seral.task.gold import Oracle

pytestmark = pytest.mark.ray
CLASSES = ["anger", "happiness", "neutral", "sadness"]
SPLIT = {"scheme": "k-fold", "k": 3}


@pytest.fixture(scope="module")
def emotion_of(two_corpora: str) -> dict[str, Any]:
    """The gold label of each clip: whoever holds a session knows them, the session does not."""
    oracle = Oracle(open_pool(two_corpora), CLASSES)
    return dict(zip(oracle.answerable, oracle.emotions(list(oracle.answerable)), strict=True))


def picks_of(run: str | Path, arm: str) -> list[list[str]]:
    """What each round of a run asked about, in order."""
    files = sorted(Path(run).glob(f"trajectories/{arm}.fold-00.seed-3/rounds/*/picks.parquet"))
    return [pq.read_table(file)["utterance_id"].to_pylist() for file in files]


@pytest.mark.parametrize(
    ("strategy", "further"),
    [
        ("margin", {"candidates_per_round": 24}),
        pytest.param("margin", {"corpora": ["natural"], "source_corpora": ["acted"]}, marks=pytest.mark.slow),
        *(pytest.param(name, {}, marks=pytest.mark.slow) for name in ("margin", "auto", "batch_bald")),
    ],
)
def test_a_session_picks_and_learns_as_the_loop_does(
    strategy: str, further: dict[str, Any], two_corpora: str, emotion_of: dict[str, Any], tmp_path: Path
) -> None:
    values: dict[str, Any] = {"pool": two_corpora, "classes": CLASSES, "split": SPLIT, "folds": [0], **further}
    arms = {"random_arm": False, "full_arm": False, "seeds": [3], "budget": {"sizes": [8, 14, 20]}}
    run = run_loop(parse(LoopOptions, {**values, **arms, "run": str(tmp_path / "run"), "strategy": strategy}))
    wanted = picks_of(run, strategy)
    assert [len(ids) for ids in wanted] == [8, 6, 6]
    for ids in wanted:
        # Made anew for every question, as in a notebook that was opened again.
        session = Session(folder=tmp_path / "session", strategy=strategy, seed=3, **values)
        if "source_corpora" in values:  # there is a model before the first label
            assert set(session.predict()["predicted"]) <= set(CLASSES)
        assert session.ask(len(ids)) == ids
        session.tell({name: emotion_of[name] for name in ids})
    session.predict()
    heads = [
        sorted(Path(folder).glob("trajectories/*/rounds/*/model/head.safetensors"))
        for folder in (run, tmp_path / "session")
    ]
    assert len(heads[0]) == 3
    assert [file.read_bytes() for file in heads[0]] == [file.read_bytes() for file in heads[1]]


def test_a_session_goes_on_with_the_answers_there_are(
    two_corpora: str, emotion_of: dict[str, Any], tmp_path: Path
) -> None:
    session = Session(two_corpora, tmp_path / "session", classes=CLASSES, strategy="margin")
    with pytest.raises(StateError, match="there is no model yet: ask for clips"):
        session.predict()
    first = session.ask(6)
    assert session.ask(6) == first  # a cell that is run twice
    session.tell(dict.fromkeys(first))
    others = session.ask(6)  # no label yet, and those are unusable
    assert len(others) == 6
    assert not set(others) & set(first)
    with pytest.raises(LabelError, match="unknown class 'joy'; known: anger, happiness"):
        session.tell({others[0]: "joy"})
    with pytest.raises(LabelError, match="no clip 'nobody' in this session"):
        session.tell({others[0]: "anger", "nobody": "anger"})
    with pytest.raises(LabelError, match="shares of classes sum to 1"):
        session.tell({others[0]: {"anger": 0.5}})
    assert session.labels == dict.fromkeys(first)
    session.tell({name: emotion_of[name] for name in others[:4]} | {others[4]: {"anger": 0.5, "sadness": 0.5}})
    own = next(name for name in sorted(emotion_of) if name not in [*first, *others])
    session.tell({own: emotion_of[own]})  # nobody asked
    more = session.ask(3)
    assert not set(more) & {*first, *others[:5], own}
    (done,) = session.rounds().to_dict("records")
    assert done["labelled"] == 6
    session.tell({others[0]: "sadness"})  # corrected
    late = others[5]  # asked in the round before, and not answered then
    session.tell({name: emotion_of[name] for name in {*more, late}})
    table = session.predict()
    assert len(table) == 96
    assert np.allclose(table[[f"p_{name}" for name in CLASSES]].sum(axis=1), 1, atol=1e-4)
    assert session.rounds()["labelled"].tolist() == [6, 10 - (late in more)]
    labels = pq.read_table(next(Path(session.folder).glob("trajectories/*/rounds/0001/labels.parquet"))).to_pylist()
    assert {row["utterance_id"]: row["emotion"] for row in labels}[others[0]] == "sadness"
    assert session.audio(own).ndim == 1
    counts = predict(
        parse(PredictOptions, {"run": session.folder, "source": [two_corpora], "out": str(tmp_path / "p.parquet")})
    )
    assert counts["model"].endswith("rounds/0001/model")


def last_by_id(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    """No idea at all."""
    return sorted(candidates.ids.tolist())[-k:]


def test_a_table_of_files_and_a_function_of_ones_own(make_corpus: Any, tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 16, seconds=(0.8, 1.2))
    files = sorted((corpus / "audio").iterdir())
    table = pd.DataFrame({"audio": [str(file) for file in files]})  # no speakers, no labels
    session = Session(table, tmp_path / "session", classes=["low", "high"], strategy=last_by_id, min_quality=0)
    ids = session.ask(4)
    session.tell(dict(zip(ids, ["low", "high", "low", "high"], strict=True)))
    remaining = sorted(set(session.predict()["utterance_id"]) - set(ids))
    assert session.ask(3) == remaining[-3:]
    session.tell(dict.fromkeys(remaining, "low"))
    assert session.ask(5) == []  # nothing is left
    assert set(session.predict(ids)["predicted"]) <= {"low", "high"}


def test_ratings_are_told_as_numbers(two_corpora: str, tmp_path: Path) -> None:
    session = Session(two_corpora, tmp_path / "session", dimensions=["arousal"], strategy="random")
    ids = session.ask(6)
    with pytest.raises(LabelError, match="unknown class 'anger'"):
        session.tell({ids[0]: "anger"})
    session.tell({name: {"arousal": 0.1 * number} for number, name in enumerate(ids)})
    assert np.isfinite(session.predict()["arousal"]).all()


def test_what_a_session_cannot_have_is_refused(two_corpora: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a session has no option budget: run the loop"):
        Session(two_corpora, tmp_path / "session", classes=CLASSES, budget={"sizes": [8]})
    session = Session(two_corpora, tmp_path / "session", classes=CLASSES)
    with pytest.raises(OptionError, match="ask for one clip at least, got 0"):
        session.ask(0)
    with pytest.raises(StateError, match="holds a run with other options"):
        Session(two_corpora, tmp_path / "session", classes=CLASSES[:2])
