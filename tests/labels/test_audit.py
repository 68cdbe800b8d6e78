"""The audit log: what is written, read, lost when the ledger cannot be reached, and erased; on every database."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from seral import cli
from seral.labels.audit import WRITE_EVERY_S, Event, Trail, forget_events, log, read_events
from seral.labels.database import EVENT
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project

IDS = [f"calls-{number}" for number in range(3)]


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger.create(url, Project(classes=("anger", "joy")))
    ledger.ask("round-0", IDS, purpose="round")
    ledger.add_person("ada")
    ledger.add_person("lea", "lead")
    yield ledger
    ledger.close()


def actions(ledger: Ledger, **only: str | float | int) -> list[tuple[str, str | None, str | None]]:
    return [(event.action, event.person, event.utterance_id) for event in read_events(ledger.database, **only)]  # type: ignore[arg-type]


def wait_for_lines(ledger: Ledger) -> None:
    deadline = time.monotonic() + 30
    while not actions(ledger) and time.monotonic() < deadline:
        time.sleep(0.05)


def test_clips_and_answers_are_logged_once_with_what_wrote_them(ledger: Ledger) -> None:
    first, _ = ledger.claim("ada", count=2, address="192.0.2.1")
    ledger.claim("ada", count=2, address="192.0.2.1")
    answer = Answer(utterance_id=first.utterance_id, person="ada", emotions=("joy",))
    number = ledger.submit(answer, first.question, address="192.0.2.1")
    ledger.submit(answer, first.question, address="192.0.2.1")
    ledger.submit(Answer(utterance_id=IDS[1], person="lea", emotions=("joy",), final=True), address="::1")
    ledger.claim("ada", count=2)
    assert actions(ledger) == [
        ("shown", "ada", IDS[0]),
        ("shown", "ada", IDS[1]),
        ("answered", "ada", IDS[0]),
        ("decided", "lea", IDS[1]),
    ]
    answered = read_events(ledger.database)[2]
    assert (answered.address, answered.detail) == ("192.0.2.1", f"answer {number}")
    assert abs(answered.at - time.time()) < 60
    assert actions(ledger, person="lea") == actions(ledger, count=1) == [("decided", "lea", IDS[1])]
    assert actions(ledger, utterance_id=IDS[0]) == [("shown", "ada", IDS[0]), ("answered", "ada", IDS[0])]
    assert actions(ledger, since=time.time() + 60) == []


def test_what_is_read_is_logged_soon_in_its_order(ledger: Ledger) -> None:
    trail = Trail(ledger.database)
    for name in IDS:
        trail.add(Event(action="sent", person="ada", utterance_id=name))
    wait_for_lines(ledger)
    assert [name for _, _, name in actions(ledger)] == IDS
    trail.add(Event(action="played", person="ada", utterance_id=IDS[0]))
    trail.flush()
    assert actions(ledger, count=1) == [("played", "ada", IDS[0])]
    Trail(ledger.database, on=False).add(Event(action="sent", person="ben"))
    time.sleep(WRITE_EVERY_S + 1)
    assert actions(ledger, person="ben") == []


def test_a_ledger_that_is_away_for_a_while_loses_nothing(ledger: Ledger) -> None:
    warnings: list[str] = []
    trail = Trail(ledger.database, warn=warnings.append)
    rename = "ALTER TABLE {} RENAME TO {}"
    with ledger.database.write() as connection:
        connection.execute(sa.text(rename.format("event", "away")))
    trail.add(Event(action="sent", person="ada", utterance_id=IDS[0]))
    trail.flush()
    assert warnings[0].startswith("1 lines of the audit log wait: the ledger ")
    with ledger.database.write() as connection:
        connection.execute(sa.text(rename.format("away", "event")))
    wait_for_lines(ledger)
    assert actions(ledger) == [("sent", "ada", IDS[0])]


def test_lines_are_forgotten_with_their_clip_and_by_age(ledger: Ledger) -> None:
    log(ledger.database, *(Event(action="sent", person="ada", utterance_id=name, at=1000.0) for name in IDS))
    log(ledger.database, Event(action="signed-in", person="ada", at=2000.0))
    assert ledger.erase(IDS[:1])["event"] == 1
    assert [event.utterance_id for event in read_events(ledger.database)] == [*IDS[1:], None]
    assert forget_events(ledger.database, 2000.0) == 2
    assert actions(ledger) == [("signed-in", "ada", None)]


def test_a_ledger_from_before_there_was_a_log_gets_one(ledger: Ledger, url: str) -> None:
    with ledger.database.write() as connection:
        EVENT.drop(connection)
    assert actions(ledger) == []
    with ledger.database.write() as connection:
        EVENT.drop(connection)
    assert ledger.erase(IDS[:1])["event"] == 0


def test_a_command_shows_the_log(ledger: Ledger, url: str) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(cli.app, ["labels", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert run("audit", url) == "nothing is logged\n"
    run("people", "add", url, "ben")
    run("people", "revoke", url, "ben")
    log(ledger.database, Event(action="sent", person="ada", utterance_id=IDS[0], address="192.0.2.1", at=1e9))
    lines = run("audit", url).splitlines()
    assert lines[0].split() == ["at", "action", "person", "utterance_id", "address", "detail"]
    assert lines[1].split() == ["2001-09-09T01:46:40Z", "sent", "ada", IDS[0], "192.0.2.1", "–"]
    rows = json.loads(run("audit", url, "--json", "--since", "2020-01-01"))
    assert [(row["action"], row["address"], row["detail"]) for row in rows] == [
        ("let-in", "command line", "ben"),
        ("revoked", "command line", "ben"),
    ]
    assert run("audit", url, "--person", "ada", "--clip", IDS[1]) == "nothing is logged\n"
    assert run("audit", url, "--forget-before", "2002-01-01") == "1 lines deleted\n"
    assert len(json.loads(run("audit", url, "--json"))) == 2
