"""Reports of sessions: what they measured, what was picked and why; what they have not is left out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from seral.errors import OptionError
from seral.loop.session import Session
from seral.options import parse
from seral.pool.shards import open_pool
from seral.report.options import ReportOptions
from seral.report.report import report_run
from seral.task.gold import Oracle

pytestmark = pytest.mark.ray
CLASSES = ["anger", "happiness", "neutral", "sadness"]


def page_of(session: Session, **values: Any) -> str:
    return Path(report_run(parse(ReportOptions, {"run": session.folder, "audio_mb": 0.2, **values}))).read_text()


def test_a_session_has_a_report_of_what_it_measured(two_corpora: str, tmp_path: Path) -> None:
    oracle = Oracle(open_pool(two_corpora), CLASSES)
    emotion_of = dict(zip(oracle.answerable, oracle.emotions(list(oracle.answerable)), strict=True))
    session = Session(two_corpora, tmp_path / "session", classes=CLASSES, strategy="margin")
    (first,) = session.ask(1)
    session.tell({first: emotion_of[first]})
    session.predict()
    page = page_of(session)
    assert "Cross-validated results" in page, "one label has no score, and no curve"
    assert 'id="confusion"' not in page
    for count in (12, 8):
        session.tell({name: emotion_of[name] for name in session.ask(count)})
    session.predict()
    page, folder = page_of(session), Path(session.folder) / "report"
    own, rounds = session.rounds(), pd.read_csv(folder / "rounds.csv")
    assert rounds["uar"].tolist() == pytest.approx(own["uar"].tolist(), nan_ok=True)
    assert own["uar"].isna().tolist() == [True, False, False]
    assert "cross-validated score, %" in page
    assert "Cross-validated clips at each arm" in page
    picked = pd.read_csv(folder / "picked.csv")
    assert sorted(picked["utterance_id"]) == sorted(session.labels)
    assert picked.loc[picked["round"] > 0, "why"].str.match(r"margin .*, less sure than ").all()
    groups = pd.read_csv(folder / "groups.csv")
    assert groups.loc[groups["by"] == "class", "clips"].sum() == 21
    for section in ("calibration", "target", "environment", "map"):
        assert f'id="{section}"' not in page, "a session has none"
    with pytest.raises(OptionError, match="session is a session, which has no test part to compare by"):
        page_of(session, against=[str(shutil.copytree(session.folder, tmp_path / "other"))])


def test_a_session_of_ratings_has_a_report(two_corpora: str, tmp_path: Path) -> None:
    session = Session(two_corpora, tmp_path / "session", dimensions=["arousal"], strategy="random")
    for number in range(2):
        session.tell({name: {"arousal": 0.1 * at + number} for at, name in enumerate(session.ask(8))})
    session.predict()
    page = page_of(session)
    assert "CCC" in page
    headline = pd.read_csv(Path(session.folder) / "report" / "headline.csv")
    assert headline.loc[0, "ccc"] == pytest.approx(session.rounds()["ccc"].iloc[-1])
