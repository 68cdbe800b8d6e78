"""The lead's page: what is shown of people's answers, and what a lead decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, expect

from seral.annotate.ledger import Ledger
from seral.annotate.records import Answer
from seral.annotate.web.lead import find_disputed

Open = Callable[..., Any]
SAID = {
    "calls-000": (("ada", "anger"), ("ben", "anger"), ("cem", "anger")),
    "calls-001": (("ada", "anger"), ("ben", "anger"), ("cem", "sadness")),
    "calls-002": (("ada", "anger"), ("ben", "neutral"), ("cem", "sadness")),
    "calls-003": (("ada", "neutral"),),
}


@pytest.fixture
def answered(ledger: Ledger) -> Ledger:
    """Three people: one clip agreed upon, two not, one heard by one of them."""
    ledger.record(
        [
            Answer(utterance_id=name, person=person, emotions=(emotion,), seconds=2.0, comment=f"{person} heard it")
            for name, said in SAID.items()
            for person, emotion in said
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
    found = find_disputed(answered)
    assert [clip["utterance_id"] for clip in found] == ["calls-002", "calls-001"]
    assert found[1]["agreement"] == pytest.approx(2 / 3)
    assert [(answer["person"], answer["emotions"]) for answer in found[1]["answers"]] == [
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
    told = lead.get("/api/lead/agreement").json()
    assert [report["answers"] for report in told["people"]] == [4, 3, 3]
    assert told["alpha"]["emotion"]["utterances"] == 3


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
    ):
        refused = lead.post(f"/api/lead/{path}", json={"name": name})
        assert refused.status_code == 422
        assert reason in refused.json()["error"]


def test_a_lead_decides_and_lets_people_in_by_the_page(browser: Browser, server: Any, answered: Ledger) -> None:
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
