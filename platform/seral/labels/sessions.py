"""Sessions of people who are signed in: rows of the ledger, so that they end on the server's side.

A browser has a random token, the ledger its hash. A session ends when its person signs out, when nobody has used it for
a while, when it is old, and when the link by which it began is worth nothing any more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from seral.labels.audit import Event, write_events
from seral.labels.database import PERSON, SESSION, Database
from seral.labels.ledger import hash_token
from seral.labels.records import Role

NOTED_S = 60.0
"""A session's last use is written down no more often than that."""
FORGOTTEN_S = 90 * 86_400.0
"""Time after its beginning when a session that is over is forgotten."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session, and whose it is."""

    id: str
    """The hash of its token."""
    person: str
    role: Role
    over: bool
    """True where it has ended, in whatever way."""


class Sessions:
    """The sessions of a ledger, which end after `idle_s` without use and `longest_s` after they began."""

    def __init__(
        self, database: Database, *, idle_s: float, longest_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.idle_s, self.longest_s = idle_s, longest_s
        self._database, self._clock = database, clock
        database.create()  # a ledger from before there were sessions has no table for them

    def begin(self, person: str, link: str, address: str | None = None) -> str:
        """Sign a person in by the token of their link: the token of a new session, which is kept nowhere.

        Should the link be worth nothing any more by now, the session is not either. Logged, unless the address is None.
        """
        token, now = secrets.token_urlsafe(32), self._clock()
        facts = {"person": person, "link_hash": hash_token(link), "created_at": now, "used_at": now}
        with self._database.write() as connection:
            connection.execute(sa.delete(SESSION).where(SESSION.c.created_at < now - self.longest_s - FORGOTTEN_S))
            connection.execute(sa.insert(SESSION).values(id=hash_token(token), **facts))
            if address is not None:
                write_events(connection, [Event(action="signed-in", person=person, address=address)])
        return token

    def find(self, token: str) -> Session | None:
        """The session of a token, over or not; None where there never was one. Its use is noted."""
        query = sa.select(SESSION, PERSON.c.role, PERSON.c.token_hash).join(PERSON)
        rows = self._database.read(query.where(SESSION.c.id == hash_token(token)))
        if not rows:
            return None
        row, now = rows[0], self._clock()
        over = (
            row.ended_at is not None
            or row.link_hash != row.token_hash
            or now - row.used_at >= self.idle_s
            or now - row.created_at >= self.longest_s
        )
        if not over and now - row.used_at >= min(NOTED_S, self.idle_s / 10):
            with self._database.write() as connection:
                connection.execute(sa.update(SESSION).where(SESSION.c.id == row.id).values(used_at=now))
        return Session(id=row.id, person=row.person, role=row.role, over=over)

    def end(self, session: Session, address: str | None = None) -> None:
        """Sign out: the token of this session is worth nothing from now on. Logged, unless the address is None."""
        with self._database.write() as connection:
            ended = sa.update(SESSION).where(SESSION.c.id == session.id, SESSION.c.ended_at.is_(None))
            done = connection.execute(ended.values(ended_at=self._clock()))
            if address is not None and done.rowcount:
                write_events(connection, [Event(action="signed-out", person=session.person, address=address)])
