"""What the annotation page's server gives, to whom, and what it refuses."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from seral import cli, storage
from seral.errors import OptionError, PoolError
from seral.labels.audit import read_events
from seral.labels.ledger import Ledger, hash_token
from seral.labels.records import Answer, Project
from seral.labels.sessions import Sessions
from seral.pool.shards import open_pool
from seral.web.limits import BODY_BYTES, Limit
from seral.web.server import ledger_and_pool
from seral.web.sessions import HEADER
from seral.web.sounds import Sounds

Open = Callable[..., Any]
URL = "http://testserver"
IDS = [f"calls-{number:03d}" for number in range(40)]


def answer(clip: dict[str, Any], **more: Any) -> dict[str, Any]:
    about = {name: clip[name] for name in ("question", "utterance_id")}
    return {**about, "key": uuid4().hex, "emotions": ["anger"], **more}


def claim(browser: Any, count: int = 2) -> list[dict[str, Any]]:
    clips: list[dict[str, Any]] = browser.post(f"/api/claim?count={count}").json()["clips"]
    return clips


def test_a_link_lets_its_owner_in_and_leaves_no_token_behind(client_of: Open, ledger: Ledger) -> None:
    browser, token = client_of(), ledger.add_person("ada")
    entered = browser.get(f"/in/{token}")
    assert (entered.status_code, entered.headers["location"]) == (303, "../")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie, "a link out of a chat has to show who is signed in"
    assert "secure" not in cookie, "the page is reached by http"
    assert token not in entered.text
    me = browser.get("/api/me").json()
    assert (me["person"], me["role"], me["standing"]) == ("ada", "annotator", {"answered": 0, "left": 40})


def test_a_cookie_is_for_https_alone_where_the_page_is(client_of: Open, ledger: Ledger) -> None:
    browser = client_of(url="https://testserver/labels")
    cookie = browser.get(f"/in/{ledger.add_person('ada')}").headers["set-cookie"]
    assert "Secure" in cookie
    assert "Path=/labels" in cookie


def test_a_wrong_link_gets_nothing(client_of: Open, ledger: Ledger) -> None:
    browser = client_of()
    refused = browser.get("/in/not-a-token")
    assert refused.status_code == 403
    assert refused.json().keys() == {"error"}
    assert "set-cookie" not in refused.headers
    for path in ("/api/me", "/api/latest", "/api/audio/calls-000"):
        assert browser.get(path).status_code == 403
        assert browser.get(path).json() == {"error": "nobody is signed in here; open your personal link"}
    assert browser.post("/api/claim").status_code == 403
    assert browser.post("/api/answers", json=answer({"question": 1, "utterance_id": "calls-000"})).status_code == 403
    assert ledger.answers().num_rows == 0


def test_a_revoked_link_is_worth_nothing_at_once(client_of: Open, ledger: Ledger) -> None:
    browser = client_of("ada")
    ledger.revoke("ada")
    assert browser.get("/api/me").status_code == 403


def test_a_new_link_ends_the_sessions_of_the_old_one(client_of: Open, ledger: Ledger) -> None:
    browser = client_of("ada")
    token = ledger.add_person("ada")
    ended = browser.get("/api/me")
    assert (ended.status_code, ended.json()["error"]) == (403, "your session has ended; open your personal link again")
    assert browser.get(f"/in/{token}").status_code == 303
    assert browser.get("/api/me").status_code == 200


def test_who_signs_out_is_out_on_the_servers_side_too(client_of: Open, ledger: Ledger) -> None:
    browser, ben = client_of("ada"), client_of("ben")
    elsewhere = client_of()
    elsewhere.cookies.update(browser.cookies)
    (clip, _) = claim(browser)
    assert elsewhere.get("/api/me").status_code == 200
    assert browser.post("/api/sign-out", headers={"Origin": "https://elsewhere.example"}).status_code == 403
    out = browser.post("/api/sign-out")
    assert (out.status_code, out.json()) == (200, {})
    assert dict(browser.cookies) == {}
    assert elsewhere.get("/api/me").status_code == 403, "the cookie alone, somewhere else, is worth nothing"
    assert claim(ben, 1) == [clip], "what was at hand goes to others"
    assert ben.post("/api/sign-out").status_code == 200


def test_a_session_ends_by_itself(client_of: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = 0.0
    monkeypatch.setitem(Sessions.__init__.__kwdefaults__, "clock", lambda: 1_800_000_000 + 3600 * hours)
    asked = client_of("ada", idle_h=1)
    for hours in (0.6, 1.2):  # noqa: B007  # the clock reads them
        assert asked.get("/api/me").status_code == 200, "whoever works stays in"
    hours = 2.3
    assert asked.get("/api/me").json()["error"] == "your session has ended; open your personal link again"
    old = client_of("ben", session_days=1)
    assert old.get("/api/me").status_code == 200
    hours += 25
    assert old.get("/api/me").status_code == 403


def test_anothers_link_asks_before_it_changes_who_one_is(client_of: Open, ledger: Ledger) -> None:
    browser, token = client_of("ada"), ledger.add_person("<b>ben", "lead")
    before = dict(browser.cookies)
    asked = browser.get(f"/in/{token}")
    assert (asked.status_code, "set-cookie" in asked.headers) == (409, False)
    assert "You are signed in as ada" in asked.text
    assert "&lt;b&gt;ben" in asked.text
    assert "<b>ben" not in asked.text
    assert token not in asked.text
    assert "script-src 'self'" in asked.headers["content-security-policy"]
    assert browser.get("/api/me").json()["person"] == "ada"
    assert browser.post(f"/in/{token}", headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert browser.post("/in/wrong").status_code == 403
    assert browser.post(f"/in/{token}").json() == {"to": "../lead"}
    assert browser.get("/api/me").json()["person"] == "<b>ben"
    again = client_of()
    again.cookies.update(before)
    assert again.get("/api/me").status_code == 403, "the session before has ended"


def test_ones_own_link_opens_again(client_of: Open, ledger: Ledger) -> None:
    browser = client_of("ada")
    before = dict(browser.cookies)
    token = ledger.add_person("ada")
    for _ in range(2):
        assert browser.get(f"/in/{token}").status_code == 303
    assert browser.get("/api/me").json()["person"] == "ada"
    assert dict(browser.cookies) != before


def test_a_page_left_open_sends_nothing_in_anothers_name(client_of: Open, ledger: Ledger) -> None:
    browser = client_of("zoë")
    page = {"X-Seral-Person": "zo%C3%AB"}
    assert browser.post("/api/claim", headers=page).status_code == 200
    browser.post(f"/in/{ledger.add_person('ben')}")
    refused = browser.post("/api/claim", headers=page)
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        "this page is zoë's, and ben has signed in; load it anew",
    )


def test_a_ledger_from_before_there_were_sessions_is_served(client_of: Open, tmp_path: Path, ledger: Ledger) -> None:
    with sqlite3.connect(tmp_path / "labels.sqlite") as database:
        database.execute("DROP TABLE session")
    database.close()
    assert client_of("ada").get("/api/me").status_code == 200


def test_who_guesses_has_to_wait(client_of: Open) -> None:
    browser = client_of()
    tried = [browser.get(f"/in/guess-{number}").status_code for number in range(12)]
    assert tried == [403] * 10 + [429] * 2


def test_a_wrong_token_has_to_wait_wherever_it_comes_from(client_of: Open) -> None:
    browser = client_of()
    site = browser.app.state.site
    for number in range(10):
        site.attempts.take(f"token {hash_token('stolen')}")
        assert site.attempts.take(f"address 192.0.2.{number}")
    assert browser.get("/in/stolen").status_code == 429
    assert browser.get("/in/another").status_code == 403


def test_wrong_cookies_lock_out_nobody_else_behind_their_address(server: Any, ledger: Ledger) -> None:
    lead, late = ledger.add_person("lea", "lead"), ledger.add_person("ada")
    with httpx.Client(base_url=server.url, headers={HEADER: "1"}) as browser:
        assert browser.get(f"/in/{lead}").status_code == 303
        name = next(iter(browser.cookies))
        wrong = [httpx.get(f"{server.url}/api/me", headers={"Cookie": f"{name}=wrong-{n}"}) for n in range(15)]
        assert [reply.status_code for reply in wrong] == [403] * 10 + [429] * 5
        assert [browser.get("/api/me").status_code for _ in range(20)] == [200] * 20
    assert httpx.get(f"{server.url}/in/{late}").status_code == 303, "a right link opens too"


def test_who_asks_too_much_has_to_wait(client_of: Open) -> None:
    browser = client_of("ada", burst=4, requests_per_s=0.001)  # her link is one
    asked = [browser.get("/api/me") for _ in range(4)]
    assert [response.status_code for response in asked] == [200, 200, 200, 429]
    assert asked[-1].headers["retry-after"] == "1"


def test_a_limit_fills_up_again() -> None:
    now = 0.0
    limit = Limit(2, 0.5, clock=lambda: now)
    assert [limit.take("a") for _ in range(3)] == [True, True, False]
    assert limit.take("b"), "everybody has their own"
    now = 2.0
    assert [limit.take("a") for _ in range(2)] == [True, False]


def test_clips_are_claimed_heard_answered_and_shown_again(client_of: Open, ledger: Ledger) -> None:
    browser = client_of("ada")
    first, second = claim(browser)
    assert first.keys() == {"question", "utterance_id"}, "neither batch nor purpose: checks look like the rest"
    sent = answer(first, secondary=["sadness"], confidence=0.5, comment="a sigh", seconds=2.5)
    number = browser.post("/api/answers", json=sent).json()["id"]
    assert browser.post("/api/answers", json=sent).json()["id"] == number, "sent twice, written once"
    assert [clip["utterance_id"] for clip in claim(browser)] == [second["utterance_id"], "calls-002"]
    browser.post("/api/answers", json=answer(first, emotions=["neutral"]))
    (shown,) = browser.get("/api/latest").json()["answers"]
    assert (shown["clip"], shown["answer"]["emotions"]) == (first, ["neutral"])
    written = ledger.answers(history=True).to_pylist()
    assert [(row["emotions"], row["supersedes"]) for row in written] == [(["anger"], None), (["neutral"], number)]
    assert (written[0]["comment"], written[0]["tool"], written[0]["person"]) == ("a sigh", "page", "ada")


def test_people_see_their_own_answers_only(client_of: Open, ledger: Ledger) -> None:
    ledger.ask("again", ["calls-000"], purpose="relabel", overlap=2)
    ada, ben = client_of("ada"), client_of("ben")
    (clip,) = claim(ada, 1)
    ada.post("/api/answers", json=answer(clip, comment="only mine"))
    replies = [ben.get("/api/me"), ben.post("/api/claim"), ben.get("/api/latest")]
    assert all("only mine" not in response.text and "ada" not in response.text for response in replies)


def test_given_back_clips_go_to_others(client_of: Open) -> None:
    ada, ben = client_of("ada"), client_of("ben")
    taken = claim(ada)
    assert ada.post("/api/let-go").json() == {}
    assert claim(ben) == taken


def test_audio_is_for_those_who_were_given_it_and_for_leads(client_of: Open, pool: str) -> None:
    ada, lead = client_of("ada"), client_of("lea", "lead")
    (clip,) = claim(ada, 1)
    reply = ada.get(f"/api/audio/{clip['utterance_id']}")
    assert reply.headers["content-type"] == "audio/flac"
    assert reply.content == Sounds(pool).read("calls-000")
    assert ada.get("/api/audio/calls-030").status_code == 404
    assert lead.get("/api/audio/calls-030").status_code == 200
    for name in ("calls-999", "..%2F..%2Fmanifest.json", "%2Fetc%2Fpasswd", "utterances/one.parquet", ""):
        assert lead.get(f"/api/audio/{name}").status_code == 404, name


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=5-999999999", 206, slice(5, None)),
        ("bytes=999999999-", 416, slice(0, 0)),
        ("bytes=7-3", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
        (f"bytes={'9' * 5000}-", 416, slice(0, 0)),
        (f"bytes=5-{'9' * 5000}", 206, slice(5, None)),
        (f"bytes=-{'9' * 5000}", 206, slice(None)),
        (f"bytes={'0' * 12}7-9", 206, slice(7, 10)),
        ("bytes=0-1,4-5", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("lines=1-2", 200, slice(None)),
    ],
)
def test_players_get_the_range_they_ask_for(client_of: Open, wanted: str, status: int, part: slice) -> None:
    browser = client_of("lea", "lead")
    whole = browser.get("/api/audio/calls-003").content
    reply = browser.get("/api/audio/calls-003", headers={"Range": wanted})
    assert reply.status_code == status
    if status == 416:
        assert reply.json()["error"].startswith(f"the clip has {len(whole)} bytes")
        assert reply.headers["content-range"] == f"bytes */{len(whole)}"
    else:
        assert reply.content == whole[part]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({HEADER: ""}, 200),
        ({"Origin": URL}, 200),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_other_sites_cannot_change_anything(client_of: Open, headers: dict[str, str], status: int) -> None:
    assert client_of("ada").post("/api/claim", headers=headers).status_code == status


def test_changes_need_the_header_of_the_page(client_of: Open) -> None:
    browser = client_of("ada")
    del browser.headers[HEADER]
    assert browser.post("/api/claim").status_code == 403


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"emotions": ["boredom"]}, "unknown class 'boredom'"),
        ({"emotions": []}, "it says nothing"),
        ({"kind": "final"}, "kind: "),
        ({"arousal": 3}, "nobody asked for arousal"),
        ({"confidence": 2}, "confidence is 2"),
        ({"seconds": -1}, "seconds: "),
        ({"comment": "x" * 2001}, "comment: "),
        ({"key": "short"}, "key: "),
        ({"final": True}, "final: "),
        ({"question": 40}, "question 40 is not about"),
        ({"question": 0}, "question: "),
        ({"question": 2**63}, "question: expected less than 9223372036854775808"),
        ({"question": 10**400}, "question: "),
        ({"valence": 10**400}, "valence: "),
        ({"question": 2, "utterance_id": "calls-001"}, "was not asked about"),
    ],
)
def test_wrong_answers_are_refused_with_the_reason(
    client_of: Open, ledger: Ledger, wrong: dict[str, Any], reason: str
) -> None:
    browser = client_of("ada")
    (clip,) = claim(browser, 1)
    refused = browser.post("/api/answers", json=answer(clip, **wrong))
    assert refused.status_code == 422
    assert reason in refused.json()["error"]
    assert ledger.answers().num_rows == 0


class TestOnEveryDatabase:
    """What databases differ in: SQLite takes nearly everything, PostgreSQL has numbers of 32 bits and no NUL."""

    @pytest.fixture
    def ledger(self, url: str, project: Project) -> Iterator[Ledger]:
        ledger = Ledger.create(url, project)
        ledger.ask("evaluation", IDS, purpose="evaluation")
        yield ledger
        ledger.close()

    @pytest.mark.parametrize("number", [2**31, 2**31 + 1, 2**40, 2**63 - 1, 2**63, 10**30])
    def test_numbers_that_never_fit_are_not_to_be_sent_again(self, client_of: Open, number: int) -> None:
        browser = client_of("ada")
        (clip,) = claim(browser, 1)
        refused = browser.post("/api/answers", json=answer(clip, question=number))
        assert refused.status_code == 422
        assert "question" in refused.json()["error"] or "no ledger can hold" in refused.json()["error"]

    def test_texts_that_never_fit_are_not_to_be_sent_again(self, client_of: Open, ledger: Ledger) -> None:
        lead, ada = client_of("lea", "lead"), client_of("ada")
        (clip,) = claim(ada, 1)
        for name, status in (("calls-%00", 404), ("calls-000%00", 404), ("%ED%A0%80", 404), ("%FF", 404)):
            for browser in (lead, ada):
                assert browser.get(f"/api/audio/{name}").status_code == status
        assert ada.post("/api/answers", json=answer(clip, comment="a\0b")).status_code == 422
        assert ada.post("/api/answers", json=answer(clip, utterance_id="a\0b")).status_code == 422
        assert lead.post("/api/lead/revoke", json={"name": "a\0b"}).status_code == 422


def test_requests_have_a_length(client_of: Open) -> None:
    browser = client_of("ada")
    long = json.dumps({"comment": "x" * BODY_BYTES}).encode()
    kind = {"Content-Type": "application/json"}
    assert browser.post("/api/answers", content=long, headers=kind).status_code == 413
    in_parts = (long[start : start + 4096] for start in range(0, len(long), 4096))
    assert browser.post("/api/answers", content=in_parts, headers=kind).status_code == 413, "its length untold"


def test_every_answer_has_the_headers_that_keep_others_out(client_of: Open) -> None:
    browser = client_of("ada")
    for path in ("/", "/api/me", "/api/audio/calls-030", "/static/annotate.js", "/nothing"):
        headers = browser.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"], path
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] in {"no-store", "no-cache"}


def check_refusal(reply: Any, status: int) -> None:
    """A sentence, and the headers that keep others out."""
    assert reply.status_code == status
    assert reply.json().keys() == {"error"}
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"], status
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"


def test_errors_have_the_headers_too(server: Any, ledger: Ledger) -> None:
    token = ledger.add_person("ada")
    with httpx.Client(base_url=server.url, headers={HEADER: "1"}) as browser:
        check_refusal(browser.get("/api/me"), 403)
        browser.get(f"/in/{token}")
        check_refusal(browser.get("/nothing"), 404)
        check_refusal(browser.get("/static/../app.py"), 404)
        check_refusal(browser.delete("/api/claim"), 405)
        check_refusal(browser.post("/api/answers", json={}), 422)
        strange = json.dumps({"\ud800": 1}), {"Content-Type": "application/json"}
        check_refusal(browser.post("/api/answers", content=strange[0], headers=strange[1]), 422)
        check_refusal(browser.post("/api/answers", content="{", headers=strange[1]), 422)
        check_refusal(browser.post("/api/answers", content="[" * 50_000, headers=strange[1]), 400)
        check_refusal(browser.post("/api/answers", content=f'{{"question": {"9" * 5000}}}', headers=strange[1]), 400)
        check_refusal(browser.post(f"/api/claim?count={'9' * 5000}"), 422)
        check_refusal(browser.post("/api/answers", content=b"x" * (BODY_BYTES + 1)), 413)


def test_a_failure_of_the_server_has_the_headers_too(client_of: Open, tmp_path: Path) -> None:
    """A ledger whose rows are not what the server has written."""
    ada = client_of("ada")
    with sqlite3.connect(tmp_path / "labels.sqlite") as database:
        database.execute("UPDATE person SET role = x'00ff'")
    database.close()
    browser = TestClient(ada.app, URL, raise_server_exceptions=False, cookies=dict(ada.cookies))
    check_refusal(browser.get("/api/me"), 500)


def test_pages_hold_no_scripts_or_styles_of_their_own() -> None:
    import seral.web.app as app

    for page in Path(app.STATIC).glob("*.html"):
        text = page.read_text()
        assert text.count("<script") == text.count('<script type="module" src="')
        assert not [word for word in ("<style", "style=", " onclick", "http://", "https://") if word in text]


def test_the_model_suggests_only_where_the_policy_says_so(client_of: Open, tmp_path: Path) -> None:
    for number, emotion in ((1, "anger"), (2, "sadness"), (3, "neutral")):
        folder_of_round = str(tmp_path / "trajectories" / "entropy.fold-00.seed-0" / "rounds" / f"{number:04d}")
        rows = [{"utterance_id": "calls-000", "part": "pool", "predicted": emotion}]
        storage.write_table(f"{folder_of_round}/predictions/pool/s1.parquet", pa.Table.from_pylist(rows))
        if number < 3:
            storage.write_json(f"{folder_of_round}/round.json", {})
    (hidden,) = claim(client_of("ada", run=str(tmp_path)), 1)
    assert "suggestion" not in hidden
    shown = claim(client_of("ada", run=str(tmp_path), show_model_suggestion=True))
    assert [clip.get("suggestion") for clip in shown] == ["sadness", None], "of the newest complete round"
    with pytest.raises(OptionError, match="needs a run"):
        client_of("ada", show_model_suggestion=True)


def test_a_run_says_where_its_ledger_and_its_pool_are(tmp_path: Path) -> None:
    run = str(tmp_path)
    (tmp_path / "config.yaml").write_text("pool: speech\n")
    assert ledger_and_pool(run, None, None) == (f"{run}/labels.sqlite", "speech")
    (tmp_path / "config.yaml").write_text("pool: speech\npeople: {ledger: 'postgresql://db/labels', overlap: 2}\n")
    assert ledger_and_pool(run, None, None) == ("postgresql://db/labels", "speech")
    assert ledger_and_pool(run, "other.sqlite", "calls") == ("other.sqlite", "calls")
    with pytest.raises(OptionError, match="give a run, or both"):
        ledger_and_pool(None, "labels.sqlite", None)


def test_people_are_let_in_and_out_by_command(client_of: Open, ledger: Ledger, tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, ["labels", "people", *arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output.strip()

    url = str(tmp_path / "labels.sqlite")
    link = run("add", url, "lea", "--lead", "--url", f"{URL}/")
    assert client_of().get(link).headers["location"] == "../lead"
    assert run("list", url) == "lea\tlead\tmay come in"
    run("revoke", url, "lea")
    assert run("list", url) == "lea\tlead\tno link"
    assert client_of().get(link).status_code == 403


def test_a_ledger_that_cannot_be_reached_is_to_be_tried_again(client_of: Open, ledger: Ledger, tmp_path: Path) -> None:
    browser = client_of("ada")
    with sqlite3.connect(tmp_path / "labels.sqlite") as database:
        database.execute("ALTER TABLE slot RENAME TO away")
    database.close()
    failed = browser.post("/api/claim")
    assert (failed.status_code, failed.headers["retry-after"]) == (503, "2")


def test_the_log_tells_who_saw_played_and_answered_what(server: Any, ledger: Ledger) -> None:
    token, lead = ledger.add_person("ada"), ledger.add_person("lea", "lead")
    with httpx.Client(base_url=server.url, headers={HEADER: "1"}) as browser:
        browser.get(f"/in/{token}")
        (clip,) = claim(browser, 1)
        name = clip["utterance_id"]
        browser.get(f"/api/audio/{name}", headers={"Range": "bytes=0-99"})
        browser.get(f"/api/audio/{name}", headers={"Range": "bytes=100-"})
        assert browser.get("/api/audio/calls-030").status_code == 404
        assert browser.post("/api/played", json={"utterance_id": name}).json() == {}
        assert browser.post("/api/played", json={"utterance_id": "calls-030"}).status_code == 404
        number = browser.post("/api/answers", json=answer(clip)).json()["id"]
        browser.post("/api/sign-out")
        browser.get("/in/wrong")
        browser.get(f"/in/{lead}")
        ledger.record([Answer(utterance_id=name, person="ben", emotions=("sadness",))])
        assert browser.get("/api/lead/disputed").json()["total"] == 1
        decision = {"utterance_id": name, "key": uuid4().hex, "emotions": ["anger"]}
        decided = browser.post("/api/lead/decide", json=decision).json()["id"]
        browser.post("/api/lead/people", json={"name": "eve"})
        browser.post("/api/lead/revoke", json={"name": "eve"})
    server.process.terminate()
    server.process.wait(20)
    lines = read_events(ledger.database)
    assert [(line.action, line.person, line.utterance_id, line.detail) for line in lines] == [
        ("signed-in", "ada", None, None),
        ("shown", "ada", name, None),
        ("sent", "ada", name, None),
        ("played", "ada", name, None),
        ("answered", "ada", name, f"answer {number}"),
        ("signed-out", "ada", None, None),
        ("refused", None, None, None),
        ("signed-in", "lea", None, None),
        ("looked", "lea", name, None),
        ("decided", "lea", name, f"answer {decided}"),
        ("let-in", "lea", None, "eve"),
        ("revoked", "lea", None, "eve"),
    ]
    assert {line.address for line in lines} == {"127.0.0.1"}


def test_nothing_is_logged_where_nobody_wants_it(client_of: Open, ledger: Ledger) -> None:
    browser = client_of("ada", audit=False)
    (clip,) = claim(browser, 1)
    browser.get(f"/api/audio/{clip['utterance_id']}")
    browser.post("/api/answers", json=answer(clip))
    browser.get("/in/wrong")
    browser.post("/api/sign-out")
    browser.app.state.site.trail.flush()
    assert read_events(ledger.database) == []


def test_sounds_finds_every_clip_of_every_shard(pool: str) -> None:
    opened = open_pool(pool)
    sounds = Sounds(pool)
    for shard in opened.shards:
        rows = opened.read(shard, ["utterance_id", "audio"]).to_pylist()
        assert all(sounds.read(row["utterance_id"]) == row["audio"] for row in rows)
    assert "calls-0" not in sounds
    with pytest.raises(PoolError, match="does not hold zzz"):
        sounds.read("zzz")


def test_many_at_once_never_get_the_same_clip(server: Any, ledger: Ledger) -> None:
    counts: Counter[str] = Counter()

    def label(token: str) -> None:
        with httpx.Client(base_url=server.url, headers={HEADER: "1"}, timeout=30) as browser:
            browser.get(f"/in/{token}")
            while clips := claim(browser):
                counts[clips[0]["utterance_id"]] += 1
                assert browser.get(f"/api/audio/{clips[0]['utterance_id']}").content[:4] == b"fLaC"
                assert browser.post("/api/answers", json=answer(clips[0])).status_code == 200

    people = [threading.Thread(target=label, args=(ledger.add_person(f"p{number}"),)) for number in range(6)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert set(counts.values()) == {1}
    assert sorted(ledger.answers()["utterance_id"].to_pylist()) == sorted(counts)
    assert len(counts) == 40
