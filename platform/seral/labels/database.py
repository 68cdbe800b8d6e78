"""The tables of the label ledger, and connections to it: a SQLite file, or any server that SQLAlchemy knows.

    project     what is asked: classes, dimensions, their scale
    person      who may answer, and the hash of the token in their personal link
    session     a browser in which a person is signed in, and the hash of its token
    batch       clips that were asked about together: a round, an evaluation set, checks, a second look
    question    one clip of a batch
    slot        one person's place at a question: free, leased for a while, or answered
    answer      what somebody said. Only ever added to: a correction is a row that supersedes another
    event       the audit log: who did what, from which address

Times are seconds since 1970, UTC.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DataError, DBAPIError

from seral.errors import LabelError
from seral.secrets import files
from seral.secrets.addresses import LEDGER_PASSWORD, complaint
from seral.secrets.environment import secret

BUSY_S = 30.0
"""Time that a writer waits for the others, SQLite only."""

POLL_S = 0.01

TABLES = sa.MetaData()
PROJECT = sa.Table(
    "project",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("format", sa.Integer, nullable=False),
    sa.Column("classes", sa.JSON, nullable=False),
    sa.Column("dimensions", sa.JSON, nullable=False),
    sa.Column("scale", sa.JSON, nullable=False),  # lowest and highest rating
    sa.Column("created_at", sa.Float, nullable=False),
)
PERSON = sa.Table(
    "person",
    TABLES,
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("role", sa.String(20), nullable=False),  # annotator | lead
    sa.Column("token_hash", sa.String(64), unique=True),  # null = may not come in
    sa.Column("created_at", sa.Float, nullable=False),
)
SESSION = sa.Table(
    "session",
    TABLES,
    sa.Column("id", sa.String(64), primary_key=True),  # the hash of the token in the browser's cookie
    sa.Column("person", sa.ForeignKey("person.name"), nullable=False, index=True),
    sa.Column("link_hash", sa.String(64), nullable=False),  # of the link that began it; another ends it
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("used_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),  # signed out
)
BATCH = sa.Table(
    "batch",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False, unique=True),
    sa.Column("purpose", sa.String(20), nullable=False),  # evaluation | round | relabel | check
    sa.Column("round", sa.Integer),
    sa.Column("overlap", sa.Integer, nullable=False),  # people per clip
    sa.Column("max_skips", sa.Integer, nullable=False),  # how many who pass are replaced by others
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("closed_at", sa.Float),
)
QUESTION = sa.Table(
    "question",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("batch_id", sa.ForeignKey("batch.id"), nullable=False),
    sa.Column("utterance_id", sa.String(200), nullable=False, index=True),
    sa.UniqueConstraint("batch_id", "utterance_id"),
)
ANSWER = sa.Table(
    "answer",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String(100), nullable=False, unique=True),  # sent again, it is the same answer
    sa.Column("question_id", sa.ForeignKey("question.id"), index=True),  # null = nobody had asked
    sa.Column("utterance_id", sa.String(200), nullable=False, index=True),
    sa.Column("person", sa.ForeignKey("person.name"), nullable=False, index=True),
    sa.Column("kind", sa.String(20), nullable=False),  # label | unusable | skipped | other-language
    sa.Column("emotions", sa.JSON, nullable=False),  # the classes heard, alike; usually one
    sa.Column("secondary", sa.JSON, nullable=False),  # further ones, heard less
    sa.Column("valence", sa.Float),
    sa.Column("arousal", sa.Float),
    sa.Column("dominance", sa.Float),
    sa.Column("confidence", sa.Float),  # 0..1
    sa.Column("comment", sa.Text),
    sa.Column("seconds", sa.Float),  # spent on the clip
    sa.Column("round", sa.Integer),
    sa.Column("tool", sa.String(40), nullable=False),
    sa.Column("final", sa.Boolean, nullable=False),  # adjudicated: it stands above the votes
    sa.Column("answered_at", sa.Float, nullable=False),
    sa.Column("supersedes", sa.ForeignKey("answer.id"), unique=True),
)
SLOT = sa.Table(
    "slot",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("question_id", sa.ForeignKey("question.id"), nullable=False, index=True),
    sa.Column("person", sa.ForeignKey("person.name")),  # null = free
    sa.Column("lease_until", sa.Float),
    sa.Column("lapsed", sa.Boolean, nullable=False),  # its lease ran out and another slot took its place
    sa.Column("answer_id", sa.ForeignKey("answer.id"), index=True),  # the newest of this person about it
    sa.UniqueConstraint("question_id", "person"),
)
EVENT = sa.Table(
    "event",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("action", sa.String(20), nullable=False),  # seral.labels.audit.Action
    sa.Column("person", sa.String(100), index=True),
    sa.Column("utterance_id", sa.String(200), index=True),
    sa.Column("address", sa.String(100)),
    sa.Column("detail", sa.Text),
)
sa.Index("slot_of_person", SLOT.c.person, SLOT.c.answer_id)

ALONE = 0x5E7A1
"""Number of the lock by which a server's processes begin a ledger one after the other."""
AT_ONCE = 1000
"""Values in one statement's list: as many as every database takes."""
SUFFIX, SERVERS = ".sqlite", ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql")


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> list[int]:
    """Insert rows and return their numbers, which go up in the order of the rows."""
    if not rows:
        return []
    query = sa.insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return list(connection.scalars(query, rows))


def rows_among(
    connection: sa.Connection, query: sa.Select[Any], column: sa.Column[Any], values: Sequence[int] | Sequence[str]
) -> Iterator[Any]:
    """The rows of a query whose column has one of these values, however many they are."""
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), AT_ONCE):
        yield from connection.execute(query.where(column.in_(distinct[start : start + AT_ONCE])))


def is_database(uri: str) -> bool:
    """True for an address of a database and not a folder or a file of another kind."""
    dialect, mark, _ = uri.partition("://")
    return dialect.partition("+")[0] in SERVERS if mark else uri.endswith(SUFFIX)


class Database:
    """Connections to the ledger's tables; safe to share between threads.

    The URL holds no password: that of a server is SERAL_LEDGER_PASSWORD, in the environment or a file, unless the
    server's own client has another (PGPASSWORD, ~/.pgpass). The file of a ledger is its owner's alone.
    """

    def __init__(self, url: str) -> None:
        if reason := complaint(url):
            raise LabelError(f"no ledger is opened by such an address: {reason}")
        self.url = url if "://" in url else str(Path(url).resolve())
        try:
            address = _address(self.url)
            self._writing, self._reading = (sa.create_engine(address, **_options(address)) for _ in range(2))
        except (sa.exc.ArgumentError, ImportError, ValueError) as error:
            raise LabelError(
                f"no ledger can be at {url}: {error}; give a file, or a URL such as postgresql+psycopg://…"
            ) from None
        self._turn: AbstractContextManager[Any] = nullcontext()
        self._file = address.database if address.get_backend_name() == "sqlite" else None
        if self._file is not None:
            # Threads that wait in line are served sooner than by SQLite's own waiting: it looks again and again.
            self._turn = threading.Lock()
            for engine in (self._writing, self._reading):
                sa.event.listen(engine, "do_connect", _make_file)
                sa.event.listen(engine, "connect", _prepare)
            sa.event.listen(self._writing, "begin", _begin_writing)

    @contextmanager
    def write_alone(self) -> Iterator[sa.Connection]:
        """A transaction that no other process is in, of those that want to be alone too."""
        with self.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ALONE)))
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: all of the block or nothing of it. SQLite's writers go one after the other."""
        with self._turn, _clear_errors(self.url), self._writing.begin() as connection:
            yield connection

    def read(self, query: sa.Select[Any] | sa.CompoundSelect[Any]) -> list[Any]:
        """The rows of one query."""
        with _clear_errors(self.url), self._reading.connect() as connection:
            return list(connection.execute(query))

    def read_among(
        self, query: sa.Select[Any], column: sa.Column[Any], values: Sequence[int] | Sequence[str]
    ) -> list[Any]:
        """The rows of a query whose column has one of these values."""
        with _clear_errors(self.url), self._reading.connect() as connection:
            return list(rows_among(connection, query, column, values))

    def create(self) -> None:
        """Make the tables where they are missing."""
        if self._file is not None:
            files.make_folder(Path(self._file).parent)
        with self.write_alone() as connection:
            TABLES.create_all(connection)

    def exists(self) -> bool:
        """True where the tables are there."""
        with _clear_errors(self.url), self._reading.connect() as connection:
            return sa.inspect(connection).has_table(PROJECT.name)

    def damage(self) -> list[str]:
        """SQLite's sentences on the damage in its file; a server looks after its own. Raises LabelError where there is
        nothing to read."""
        if self._file is None:
            return []
        with _clear_errors(self.url), self._reading.connect() as connection:
            lines = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check")]
        return [line for line in lines if line != "ok"]

    def flush(self) -> None:
        """Put what SQLite still has in its log into the file itself, and empty the log."""
        if self._file is not None:
            with _clear_errors(self.url), self._reading.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of all connections."""
        for engine in (self._writing, self._reading):
            engine.dispose()


def _options(address: sa.URL) -> dict[str, Any]:
    if address.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_S}}
    return {"pool_pre_ping": True, "pool_size": 20, "max_overflow": 20}


def _address(url: str) -> sa.URL:
    """The address of a file, whatever its name, or of a server, with its password.

    Raises ValueError for a password's file that cannot be read.
    """
    if "://" not in url:
        return sa.URL.create("sqlite", database=url)
    address = sa.make_url(url)
    password = None if address.get_backend_name() == "sqlite" else secret(LEDGER_PASSWORD)
    return address if password is None else address.set(password=password)


def _make_file(_dialect: object, _record: object, arguments: Sequence[Any], _named: object) -> None:
    """Make the file where it is missing, its owner's alone: SQLite's log and index of it get the mode that it has."""
    file = str(arguments[0]) if arguments else ""  # absolute, unless it is :memory:
    if os.path.isabs(file) and os.access(os.path.dirname(file), os.W_OK):
        files.make_file(file)


def _prepare(connection: sqlite3.Connection, _: object) -> None:
    """Writers and readers side by side (WAL), nothing lost when power fails, deleted rows overwritten with zeros.

    Transactions are begun by us alone.
    """
    connection.isolation_level = None
    _turn_to_wal(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _turn_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite waits for nobody here while another turns the same new file: that would be two who wait for each other."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)


def _begin_writing(connection: sa.Connection) -> None:
    """Take the write lock at once: a transaction that reads first and writes later would fail instead of waiting."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _clear_errors(url: str) -> Iterator[None]:
    try:
        yield
    except (DataError, OverflowError) as error:
        raise LabelError(f"no ledger can hold a number or a text of these: {error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LabelError(f"the ledger {_shown(url)} holds what seral has not written: {error}") from None
    except DBAPIError as error:
        raise LabelError(f"the ledger {_shown(url)}: {str(error.orig).strip() or error}") from error


def _shown(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True) if "://" in url else url
