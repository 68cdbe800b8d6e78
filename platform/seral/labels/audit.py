"""The audit log of a ledger: who came in and went, who was shown, sent and played which clip, who answered what.

It is a table of the ledger's database. An answer, and the clips that somebody is shown, are logged in the transaction
that writes them; what is only read is gathered for a moment and written together, so that no request waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Literal

import sqlalchemy as sa

from seral.errors import LabelError
from seral.labels.database import EVENT, Database
from seral.progress import say

Action = Literal[
    "signed-in",
    "signed-out",
    "refused",
    "shown",
    "sent",
    "played",
    "answered",
    "decided",
    "looked",
    "let-in",
    "revoked",
]
WRITE_EVERY_S = 0.5
"""Time for which events are gathered: a server that is killed loses those of so long."""
WAITING = 10_000
"""Events that wait for a ledger that cannot be reached; the oldest go when there are more."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of the log."""

    action: Action
    """signed-in, signed-out; refused: a token that is nobody's; shown: a clip became theirs to answer; sent: its audio
    went to their browser; played: it began to play, as the page says; answered, decided: the answer of that number;
    looked: a lead saw what others said of it; let-in, revoked: the link of the person in `detail`."""
    person: str | None = None
    utterance_id: str | None = None
    address: str | None = None
    detail: str | None = None
    at: float = field(default_factory=time.time)
    """Seconds since 1970."""


def write_events(connection: sa.Connection, events: Sequence[Event]) -> None:
    """Add lines to the log, in a transaction that somebody else has begun."""
    if events:
        connection.execute(sa.insert(EVENT), [asdict(event) for event in events])


def log(database: Database, *events: Event) -> None:
    """Add lines to the log at once, also where a ledger from before there was one has no table for it."""
    database.create()
    with database.write() as connection:
        write_events(connection, events)


def read_events(
    database: Database,
    *,
    person: str | None = None,
    utterance_id: str | None = None,
    since: float | None = None,
    count: int | None = None,
) -> list[Event]:
    """The newest `count` lines of the log (None = all) that fit, the oldest of them first."""
    database.create()
    query = sa.select(EVENT)
    for column, value in ((EVENT.c.person, person), (EVENT.c.utterance_id, utterance_id)):
        if value is not None:
            query = query.where(column == value)
    if since is not None:
        query = query.where(EVENT.c.at >= since)
    rows = database.read(query.order_by(EVENT.c.at.desc(), EVENT.c.id.desc()).limit(count))
    return [Event(**{f.name: getattr(row, f.name) for f in fields(Event)}) for row in reversed(rows)]


def forget_events(database: Database, before: float) -> int:
    """Delete the lines from before a time, for good; returns how many."""
    database.create()
    with database.write() as connection:
        return connection.execute(sa.delete(EVENT).where(EVENT.c.at < before)).rowcount


class Trail:
    """Events on their way into the log; safe to share between threads. Nothing is logged where `on` is False."""

    def __init__(self, database: Database, *, on: bool = True, warn: Callable[[str], None] = say) -> None:
        self.on = on
        self._database, self._warn = database, warn
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        self._timer: threading.Timer | None = None

    def add(self, *events: Event) -> None:
        """Log these soon."""
        if not self.on or not events:
            return
        with self._lock:
            self._waiting += events
            self._start()

    def flush(self) -> None:
        """Write all that waits. A ledger that cannot be reached is tried again later."""
        with self._lock:
            events, self._waiting, self._timer = self._waiting, [], None
        try:
            with self._database.write() as connection:
                write_events(connection, events)
        except LabelError as error:
            self._warn(f"{len(events)} lines of the audit log wait: {error}")
            with self._lock:
                self._waiting = [*events, *self._waiting][-WAITING:]
                self._start()

    def _start(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(WRITE_EVERY_S, self.flush)
            self._timer.daemon = True
            self._timer.start()
