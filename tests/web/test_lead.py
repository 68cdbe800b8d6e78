"""The lead's page: what is shown of people's answers, and what a lead decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import expect

from seral.labels.consensus import consensus
from seral.labels.disputes import find_disputes
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project

Open = Callable[..., Any]
SAID = {
    "calls-000": (("ada", "anger"), ("ben", "anger"), ("cem", "anger")),
    "calls-001": (("ada", "anger"), ("ben", "anger"), ("cem", "sadness")),
    "calls-002": (("ada", "anger"), ("ben", "neutral"), ("cem", "sadness")),
    "calls-003": (("ada", "neutral"),),
}


RATED = Project(classes=("anger", "sadness"), dimensions=("valence", "arousal"))


@pytest.fixture
def rated(ledger: Ledger) -> Ledger:
    """Two people agree about two emotions, and not about how excited one of them is."""
    for name, arousal in (("calls-000", (1.0, 5.0)), ("calls-001", (2.0, 3.0))):
        for person, rating in zip(("ada", "ben"), arousal, strict=True):
            answer = {"valence": 2.0, "arousal": rating}
            ledger.record([Answer(utterance_id=name, person=person, emotions=("anger",), **answer)])
    return ledger


def decided(ledger: Ledger) -> list[dict[str, Any]]:
    """What a lead has decided, as the consensus has it."""
    labels = consensus(ledger.answers(), ledger.project.classes, dimensions=ledger.project.dimensions)
    return [row for row in labels.to_pylist() if row["final"]]


@pytest.fixture
def answered(ledger: Ledger) -> Ledger:
    """Three people: one clip agreed upon, two not, one heard by one of them."""
    ledger.record(
        [
            Answer(utterance_id=name, person=person, emotions=(emotion,), seconds=2.0, comment=f"{person} heard it")
            for name, answer in SAID.items()
            for person, emotion in answer
        ]
    )
    return ledger


def test_only_leads_see_any_of_it(client_of: Open, answered: Ledger) -> None:
    ada = client_of("ada")
    for path in ("progress", "agreement", "disputed"):
        refused = ada.get(f"/api/lead/{path}")
        assert (refused.status_code, refused.json()) == (403, {"error": "this is for leads"})
    for path in ("decide", "people", "revoke"):
        assert ada.post(f"/api/lead/{path}", json={"name": "eve"}).status_code == 403


def test_disputed_are_those_about_which_people_differ_the_worst_first(answered: Ledger) -> None:
    disputed = find_disputes(answered.answers(), answered.project, 0.5)
    assert [clip["utterance_id"] for clip in disputed] == ["calls-002", "calls-001"]
    assert disputed[1]["agreement"] == pytest.approx(2 / 3)
    assert [(answer["person"], answer["emotions"]) for answer in disputed[1]["answers"]] == [
        ("ada", ["anger"]),
        ("ben", ["anger"]),
        ("cem", ["sadness"]),
    ]


def test_a_decision_is_final_and_may_be_taken_again(client_of: Open, answered: Ledger) -> None:
    lead = client_of("lea", "lead")
    for emotion in ("sadness", "neutral"):
        decision = {"utterance_id": "calls-002", "key": uuid4().hex, "emotions": [emotion]}
        assert lead.post("/api/lead/decide", json=decision).status_code == 200
    assert [clip["utterance_id"] for clip in lead.get("/api/lead/disputed").json()["clips"]] == ["calls-001"]
    final = [row for row in answered.answers().to_pylist() if row["final"]]
    assert [(row["person"], row["emotions"], row["tool"]) for row in final] == [("lea", ["neutral"], "adjudication")]
    assert answered.progress()[0].done == 4, "a decision takes nobody's place"
    strange = {"utterance_id": "calls-999", "key": uuid4().hex, "emotions": ["anger"]}
    assert lead.post("/api/lead/decide", json=strange).status_code == 404


@pytest.mark.parametrize("project", [RATED])
def test_ratings_are_decided_with_the_emotion(client_of: Open, rated: Ledger) -> None:
    lead = client_of("lea", "lead")
    (clip,) = lead.get("/api/lead/disputed").json()["clips"]
    assert (clip["utterance_id"], clip["about"]) == ("calls-000", ["arousal"])
    assert [(answer["person"], answer["arousal"]) for answer in clip["answers"]] == [("ada", 1.0), ("ben", 5.0)]
    assert clip["so_far"] == {"emotions": ["anger"], "valence": 2.0, "arousal": 3.0}
    decision = {"utterance_id": "calls-000", "key": uuid4().hex, "emotions": ["anger"], "valence": 2.0}
    assert "outside 1 to 5" in lead.post("/api/lead/decide", json=decision | {"arousal": 6}).json()["error"]
    assert lead.post("/api/lead/decide", json=decision | {"arousal": 4.5}).status_code == 200
    assert lead.get("/api/lead/disputed").json()["total"] == 0
    (label,) = decided(rated)
    assert (label["emotion"], label["valence"], label["arousal"]) == ("anger", 2.0, 4.5)
    strict = client_of("leo", "lead", disputed_spread=0.2)
    assert [clip["utterance_id"] for clip in strict.get("/api/lead/disputed").json()["clips"]] == ["calls-001"]


def test_progress_and_agreement_tell_of_everybody(client_of: Open, answered: Ledger) -> None:
    lead = client_of("lea", "lead")
    progress = lead.get("/api/lead/progress").json()
    assert [(batch["batch"], batch["questions"], batch["answers"]) for batch in progress["batches"]] == [
        ("evaluation", 40, 10)
    ]
    assert {person["name"]: person["link"] for person in progress["people"]} == {
        "ada": False,
        "ben": False,
        "cem": False,
        "lea": True,
    }
    agreement = lead.get("/api/lead/agreement").json()
    assert [report["answers"] for report in agreement["people"]] == [4, 3, 3]
    assert agreement["alpha"]["emotion"]["utterances"] == 3


def test_links_are_given_and_taken(client_of: Open, ledger: Ledger) -> None:
    lead = client_of("lea", "lead")
    link = lead.post("/api/lead/people", json={"name": "eve"}).json()["link"]
    token = link.removeprefix("http://testserver/in/")
    assert ledger.person_of(token) == ("eve", "annotator")
    assert lead.post("/api/lead/revoke", json={"name": "eve"}).status_code == 200
    assert ledger.person_of(token) is None
    for path, name, reason in (
        ("revoke", "nobody", "unknown person 'nobody'"),
        ("revoke", "lea", "nobody takes away their own link"),
        ("people", "lea", "nobody takes away their own link"),
        ("people", "a/b", "is no name"),
        ("people", "eve\u202e", "U+202E (right-to-left override), is one that nobody sees"),
        ("people", "e\0ve", "U+0000"),
    ):
        refused = lead.post(f"/api/lead/{path}", json={"name": name})
        assert refused.status_code == 422
        assert reason in refused.json()["error"]


def test_a_lead_decides_and_lets_people_in_by_the_page(browser: Any, server: Any, answered: Ledger) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(f"{server.url}/in/{answered.add_person('lea', 'lead')}")
    assert page.url == f"{server.url}/lead"
    expect(page.locator("#disputed-text")).to_contain_text("2 clips")
    clip = page.get_by_role("article", name="calls-002")
    expect(clip.get_by_role("cell", name="cem heard it")).to_be_visible()
    clip.get_by_role("button", name="neutral").click()
    expect(page.locator("#disputed-text")).to_contain_text("1 clip ")
    page.get_by_label("Somebody new").fill("eve")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("#link")).to_contain_text(f"{server.url}/in/")
    token = page.locator("#link code").inner_text().rpartition("/")[2]
    assert answered.person_of(token) == ("eve", "annotator")
    page.get_by_role("button", name="Revoke the link of eve").click()
    expect(page.locator("#state")).to_contain_text("worth nothing")
    assert answered.person_of(token) is None
    page.close()
    assert errors == []


@pytest.mark.parametrize("project", [RATED])
def test_a_lead_decides_ratings_by_the_page(browser: Any, server: Any, rated: Ledger) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    errors: list[Any] = []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto(f"{server.url}/in/{rated.add_person('lea', 'lead')}")
    clip = page.get_by_role("article", name="calls-000")
    expect(clip).to_contain_text("They differ about arousal.")
    expect(clip.get_by_role("cell", name="5.0", exact=True)).to_be_visible()
    expect(clip.get_by_role("button", name="anger")).to_have_attribute("aria-pressed", "true")
    expect(clip.get_by_label("valence")).to_have_value("2.00")
    clip.get_by_label("arousal").fill("7")
    clip.get_by_role("button", name="Decide").click()
    expect(clip).to_be_visible()  # the browser says that 7 is more than 5
    assert decided(rated) == []
    clip.get_by_label("arousal").fill("4.5")
    clip.get_by_role("button", name="sadness").click()
    clip.get_by_role("button", name="Decide").click()
    expect(page.locator("#state")).to_have_text("calls-000: sadness, valence 2, arousal 4.5.")
    expect(page.locator("#disputed-text")).to_contain_text("do not differ")
    (label,) = decided(rated)
    assert (label["emotion"], label["valence"], label["arousal"]) == ("sadness", 2.0, 4.5)
    page.close()
    assert errors == []
