"""Sessions of people who are signed in, on every database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from seral.labels.database import SESSION
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.labels.sessions import FORGOTTEN_S, Sessions

IDLE_S, LONGEST_S = 3600.0, 86_400.0


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    ledger = Ledger.create(url, Project(classes=("anger", "joy")))
    yield ledger
    ledger.close()


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


def is_over(sessions: Sessions, token: str) -> bool:
    session = sessions.find(token)
    assert session is not None
    return session.over


def test_a_session_ends_unused_old_signed_out_or_with_its_link(ledger: Ledger) -> None:
    clock = Clock()
    sessions = Sessions(ledger.database, idle_s=IDLE_S, longest_s=LONGEST_S, clock=clock)
    links = {"ada": ledger.add_person("ada", "lead"), "ben": ledger.add_person("ben")}
    idle, old, out, revoked = (sessions.begin(name, links[name]) for name in ("ada", "ada", "ada", "ben"))
    session = sessions.find(out)
    assert session is not None
    assert (session.person, session.role, session.over) == ("ada", "lead", False)
    assert out not in str(ledger.database.read(sa.select(SESSION))), "tokens are kept nowhere"
    assert sessions.find("nobody's") is None
    sessions.end(session)
    ledger.revoke("ben")
    assert [is_over(sessions, token) for token in (idle, old, out, revoked)] == [False, False, True, True]
    ledger.add_person("ben")
    assert is_over(sessions, revoked), "a new link opens no old session"
    assert is_over(sessions, sessions.begin("ben", links["ben"])), "an old link opens no new one"
    for _ in range(25):
        assert not is_over(sessions, old)
        clock.now += 0.99 * IDLE_S
        if clock.now - 1e9 >= LONGEST_S:
            break
    assert is_over(sessions, idle)
    assert is_over(sessions, old)
    again = Sessions(ledger.database, idle_s=IDLE_S, longest_s=LONGEST_S, clock=clock)
    assert is_over(again, old), "another server knows it too"


def test_sessions_that_are_long_over_are_forgotten(ledger: Ledger) -> None:
    clock = Clock()
    sessions = Sessions(ledger.database, idle_s=IDLE_S, longest_s=LONGEST_S, clock=clock)
    link = ledger.add_person("ada")
    token = sessions.begin("ada", link)
    clock.now += LONGEST_S + FORGOTTEN_S + 1
    sessions.begin("ada", link)
    assert sessions.find(token) is None
    assert len(ledger.database.read(sa.select(SESSION))) == 1
