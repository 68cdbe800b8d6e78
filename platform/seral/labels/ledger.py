"""The label ledger: who is asked what, who said what. Nothing is ever overwritten.

People claim clips under a lease, so that no two are asked for the same place, and answer without seeing what others
said. An answer changes no other: a correction supersedes the one before it, and both stay. What a label is worth in the
end (majority, soft votes, weights of annotators) is a view: seral.labels.consensus.

Every public function is one transaction; any number of processes may call them at once.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, fields, replace
from typing import Any, get_args

import pyarrow as pa
import sqlalchemy as sa

from seral.errors import LabelError, unknown_name
from seral.labels.assignment import at_hand, for_others, free_slot, lapse, next_slot, task_of
from seral.labels.audit import Action, Event, write_events
from seral.labels.database import ANSWER, BATCH, EVENT, PERSON, PROJECT, QUESTION, SLOT, Database, insert
from seral.labels.records import (
    Answer,
    Asked,
    Progress,
    Project,
    Purpose,
    Role,
    Standing,
    Task,
    check,
    clean_name,
    named,
)
from seral.labels.writing import add_people, find_questions, numbers_by_key, write
from seral.schema import ANSWERS

FORMAT = 1


class Ledger:
    """The ledger of one project, at a file or the URL of a database."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)
        try:
            self.project = _read_project(self._database, url)
        except LabelError:
            self._database.close()
            raise

    @staticmethod
    def create(url: str, project: Project) -> Ledger:
        """Begin a ledger, or open the one that is there. Raises LabelError when that one asks something else."""
        with closing(Database(url)) as database:
            database.create()
            with database.write_alone() as connection:
                if connection.execute(sa.select(PROJECT.c.id)).first() is None:
                    values = {name: list(value) for name, value in asdict(project).items()}
                    connection.execute(sa.insert(PROJECT).values(id=1, format=FORMAT, created_at=time.time(), **values))
        ledger = Ledger(url)
        if ledger.project != project:
            ledger.close()
            raise LabelError(f"the ledger at {url} asks for {ledger.project}, not for {project}; give another")
        return ledger

    @property
    def database(self) -> Database:
        """The database that the ledger lies in, for what else is written there."""
        return self._database

    def close(self) -> None:
        """Let go of all connections."""
        self._database.close()

    # People

    def add_person(self, name: str, role: Role = "annotator") -> str:
        """Let somebody in, or give them a new link: the token of their personal link, which is kept nowhere."""
        name = clean_name(name)
        if role not in get_args(Role):
            raise LabelError(unknown_name("role", role, get_args(Role)))
        token = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            add_people(connection, [name], role)
            person = sa.update(PERSON).where(PERSON.c.name == name)
            connection.execute(person.values(role=role, token_hash=hash_token(token)))
        return token

    def revoke(self, name: str) -> None:
        """Make a person's link worthless. Their answers stay."""
        spellings = {name, unicodedata.normalize("NFC", name)}
        with self._database.write() as connection:
            done = connection.execute(sa.update(PERSON).where(PERSON.c.name.in_(spellings)).values(token_hash=None))
        if not done.rowcount:
            raise LabelError(unknown_name("person", name, (row.name for row in self.people())))

    def person_of(self, token: str) -> tuple[str, Role] | None:
        """Name and role of whoever has this token; None for nobody."""
        rows = self._database.read(sa.select(PERSON).where(PERSON.c.token_hash == hash_token(token)))
        return (rows[0].name, rows[0].role) if rows else None

    def person(self, name: str) -> Any:
        """The row of one person, (name, role, token_hash, created_at); None for nobody."""
        rows = self._database.read(sa.select(PERSON).where(PERSON.c.name == unicodedata.normalize("NFC", name)))
        return rows[0] if rows else None

    def people(self) -> list[Any]:
        """Rows of (name, role, token_hash, created_at), by name."""
        return self._database.read(sa.select(PERSON).order_by(PERSON.c.name))

    # Questions

    def ask(
        self,
        batch: str,
        ids: Sequence[str],
        *,
        purpose: Purpose,
        round: int | None = None,
        overlap: int = 1,
        max_skips: int = 2,
    ) -> list[str]:
        """Ask `overlap` people about each of these, in this order; a batch of that name is only ever asked once.

        Returns the ids of the batch as it stands: those of the first time. Checks have no overlap: everybody is asked.
        """
        if overlap < 1 or max_skips < 0:
            raise LabelError(f"overlap is at least 1 and max_skips at least 0, got {overlap} and {max_skips}")
        if len(set(ids)) < len(ids):
            raise LabelError(f"{batch}: an utterance stands twice among the {len(ids)} to ask about")
        with self._database.write() as connection:
            if _batch_id(connection, batch) is None:
                values = {"purpose": purpose, "round": round, "overlap": overlap, "max_skips": max_skips}
                (number,) = insert(connection, BATCH, [{"name": batch, "created_at": time.time(), **values}])
                questions = insert(connection, QUESTION, [{"batch_id": number, "utterance_id": name} for name in ids])
                if purpose != "check":
                    insert(connection, SLOT, [free_slot(question) for question in questions for _ in range(overlap)])
        return self.asked(batch)

    def asked(self, batch: str) -> list[str]:
        """The ids of a batch, in the order in which they are asked; [] where there is no such batch."""
        query = sa.select(QUESTION.c.utterance_id).join(BATCH).where(BATCH.c.name == batch).order_by(QUESTION.c.id)
        return [row.utterance_id for row in self._database.read(query)]

    def shut(self, batch: str) -> None:
        """Ask nobody any more about a batch. Answers of those who have a clip at hand still count."""
        with self._database.write() as connection:
            if _batch_id(connection, batch) is None:
                raise LabelError(f"there is no batch {batch!r}")
            still = sa.update(BATCH).where(BATCH.c.name == batch, BATCH.c.closed_at.is_(None))
            connection.execute(still.values(closed_at=time.time()))

    def progress(self) -> list[Progress]:
        """All batches, in the order in which they were asked."""
        open_slots = (
            sa.select(SLOT.c.id)
            .where(SLOT.c.question_id == QUESTION.c.id, SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False))
            .exists()
        )
        answered = (
            sa.select(sa.func.count(SLOT.c.answer_id)).where(SLOT.c.question_id == QUESTION.c.id).scalar_subquery()
        )
        done = sa.case((sa.and_(~open_slots, answered > 0), 1), else_=0)
        counts = (
            sa.func.count(QUESTION.c.id).label("questions"),
            sa.func.sum(done).label("done"),
            sa.func.sum(answered).label("said"),
        )
        query = (
            sa.select(
                BATCH, *(count.label(name) for count, name in zip(counts, ("questions", "done", "said"), strict=True))
            )
            .join(QUESTION, isouter=True)
            .group_by(*BATCH.c)
            .order_by(BATCH.c.id)
        )
        return [
            Progress(
                batch=row.name,
                purpose=row.purpose,
                round=row.round,
                questions=row.questions,
                done=int(row.done or 0),
                answers=int(row.said or 0),
                closed=row.closed_at is not None,
                asked_at=row.created_at,
            )
            for row in self._database.read(query)
        ]

    # Answering

    def claim(
        self,
        person: str,
        *,
        count: int = 1,
        lease_s: float = 900.0,
        check_every: int = 0,
        address: str | None = None,
    ) -> list[Task]:
        """The next clips of this person, `count` at most, theirs alone for `lease_s` seconds; [] when none is left.

        First what they have at hand already, then what was asked first. After every `check_every` answers (0 = never)
        one clip of a batch of checks comes in between, where there is one that they have not heard. A second look
        (`relabel`) is for people who have not answered about the clip, where there are as many as it wants. What was
        not at hand before is logged as shown at an address; None = it is not.
        """
        now = time.time()
        with self._database.write() as connection:
            locked = sa.select(PERSON.c.name).where(PERSON.c.name == person).with_for_update(key_share=True)
            if connection.execute(locked).first() is None:
                raise LabelError(f"nobody here is called {person!r}")
            lapse(connection, now)
            taken = at_hand(connection, person)[:count]
            before = len(taken)
            while len(taken) < count:
                if (slot := next_slot(connection, person, check_every)) is None:
                    break
                taken.append(slot)
            if taken:
                leased = sa.update(SLOT).where(SLOT.c.id.in_(taken))
                connection.execute(leased.values(person=person, lease_until=now + lease_s, lapsed=False))
            tasks = [task_of(connection, slot) for slot in taken]
            if address is not None:
                about = [task.utterance_id for task in tasks[before:]]
                write_events(connection, [_event("shown", person, name, address) for name in about])
            return tasks

    def let_go(self, person: str) -> None:
        """Give back all that a person has at hand."""
        with self._database.write() as connection:
            leased = sa.update(SLOT).where(
                SLOT.c.person == person, SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False)
            )
            connection.execute(leased.values(lease_until=0.0))
            lapse(connection, time.time())

    def may_hear(self, person: str, utterance_id: str) -> bool:
        """True if a person was ever given this utterance."""
        query = (
            sa.select(SLOT.c.id).join(QUESTION).where(SLOT.c.person == person, QUESTION.c.utterance_id == utterance_id)
        )
        return bool(self._database.read(query.limit(1)))

    def standing(self, person: str) -> Standing:
        """The progress of a person: how many clips they have answered, and how many there are for them."""
        answered = sa.select(sa.func.count(SLOT.c.answer_id)).where(SLOT.c.person == person)
        mine = SLOT.alias()
        own = sa.select(mine.c.id).where(
            mine.c.question_id == SLOT.c.question_id, mine.c.person == person, mine.c.lapsed.is_(False)
        )
        free = sa.and_(SLOT.c.person.is_(None), BATCH.c.closed_at.is_(None), ~own.exists(), ~for_others(person))
        leased = sa.and_(SLOT.c.person == person, SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False))
        left = sa.select(sa.func.count(sa.distinct(SLOT.c.question_id)))
        left = left.join(QUESTION, SLOT.c.question_id == QUESTION.c.id).join(BATCH).where(sa.or_(free, leased))
        (row,) = self._database.read(sa.select(answered.scalar_subquery(), left.scalar_subquery()))
        return Standing(answered=row[0], left=row[1])

    def latest(self, person: str, count: int) -> list[tuple[int, Answer]]:
        """The newest answers of a person to what they were asked, newest first, each after its question's number."""
        query = sa.select(ANSWER).join(SLOT, SLOT.c.answer_id == ANSWER.c.id).where(SLOT.c.person == person)
        rows = [dict(row._mapping) for row in self._database.read(query.order_by(ANSWER.c.id.desc()).limit(count))]
        return [(row["question_id"], _answer(row)) for row in rows]

    def submit(self, answer: Answer, question: int | None = None, *, address: str | None = None) -> int:
        """Write an answer and return its number; a later one of the same person about the same clip supersedes it.

        `question` says which question it answers; None = the newest that asks about this utterance, if any, such as
        for answers from another tool. With a question that this person was never given it is refused. A lease that has
        run out loses nothing. It is logged with its number and an address; None = it is not. Raises LabelError naming
        what is wrong with the answer.
        """
        check(answer, self.project)
        with self._database.write() as connection:
            if numbers := numbers_by_key(connection, [answer]):
                return numbers[answer.key]
            questions = find_questions(connection, [answer], [None]) if question is None else [question]
            (number,) = write(connection, [answer], questions, must_be_given=question is not None)
            if address is not None:
                action: Action = "decided" if answer.final else "answered"
                event = _event(action, answer.person, answer.utterance_id, address)
                write_events(connection, [replace(event, detail=f"answer {number}")])
            return number

    def record(self, answers: Iterable[Answer], asked: Iterable[Asked | None] | None = None) -> int:
        """Write answers that came from elsewhere, all or none, and their people; returns how many were new.

        `asked` tells for each which batch asked it: what of it is not here is made, and shut. None = the newest
        question about the utterance, if any.
        """
        sent = list(answers)
        batches = [None] * len(sent) if asked is None else list(asked)
        for answer in sent:
            check(answer, self.project)
        with self._database.write() as connection:
            people = set(connection.scalars(sa.select(PERSON.c.name)))
            sent = [named(answer, people) for answer in sent]
            add_people(connection, (answer.person for answer in sent), "annotator")
            numbers = numbers_by_key(connection, sent)
            new = dict[str, tuple[Answer, Asked | None]]()
            for answer, batch in zip(sent, batches, strict=True):
                if answer.key not in numbers:
                    new.setdefault(answer.key, (answer, batch))
            fresh = [answer for answer, _ in new.values()]
            questions = find_questions(connection, fresh, [batch for _, batch in new.values()])
            return len(write(connection, fresh, questions))

    # Reading

    def answers(self, *, batch: str | None = None, person: str | None = None, history: bool = False) -> pa.Table:
        """Answers as schema.ANSWERS in the order in which they came; with `history`, superseded ones too."""
        query = sa.select(ANSWER, BATCH.c.name.label("batch"), BATCH.c.purpose)
        query = query.join(QUESTION, ANSWER.c.question_id == QUESTION.c.id, isouter=True).join(BATCH, isouter=True)
        if batch is not None:
            query = query.where(BATCH.c.name == batch)
        if person is not None:
            query = query.where(ANSWER.c.person == person)
        if not history:
            later = ANSWER.alias()
            query = query.where(~sa.select(later.c.id).where(later.c.supersedes == ANSWER.c.id).exists())
        rows = [dict(row._mapping) for row in self._database.read(query.order_by(ANSWER.c.id))]
        return pa.Table.from_pylist(rows, ANSWERS)

    def answers_of(self, keys: Sequence[str]) -> dict[str, Answer]:
        """Key -> answer, for those of these keys that are here."""
        rows = self._database.read_among(sa.select(ANSWER), ANSWER.c.key, keys)
        return {row.key: _answer(dict(row._mapping)) for row in rows}

    def utterances(self) -> list[str]:
        """Ids of all that was ever asked about or answered."""
        asked, answered = sa.select(QUESTION.c.utterance_id), sa.select(ANSWER.c.utterance_id)
        return sorted(row[0] for row in self._database.read(asked.union(answered)))

    def erase(self, ids: Sequence[str]) -> dict[str, int]:
        """Delete all that is known of some utterances, for good: rows by table. The one way in which anything goes."""
        self._database.create()  # a ledger from before there was a log has no table for it
        with self._database.write() as connection:
            questions = sa.select(QUESTION.c.id).where(QUESTION.c.utterance_id.in_(ids))
            slots = connection.execute(sa.delete(SLOT).where(SLOT.c.question_id.in_(questions)))
            mine = ANSWER.c.utterance_id.in_(ids)
            connection.execute(sa.update(ANSWER).where(mine).values(supersedes=None))
            answers = connection.execute(sa.delete(ANSWER).where(mine))
            asked = connection.execute(sa.delete(QUESTION).where(QUESTION.c.utterance_id.in_(ids)))
            events = connection.execute(sa.delete(EVENT).where(EVENT.c.utterance_id.in_(ids)))
        self._database.flush()
        counts = {"slot": slots, "answer": answers, "question": asked, "event": events}
        return {table: deleted.rowcount for table, deleted in counts.items()}


def _read_project(database: Database, url: str) -> Project:
    if not database.exists():
        raise LabelError(f"there is no ledger at {url}")
    (row,) = database.read(sa.select(PROJECT))
    if row.format != FORMAT:
        raise LabelError(f"the ledger at {url} has format {row.format}, this seral reads {FORMAT}")
    low, high = row.scale
    return Project(classes=tuple(row.classes), dimensions=tuple(row.dimensions), scale=(low, high))


def _answer(row: dict[str, Any]) -> Answer:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Answer)}
    return Answer(**values | {name: tuple(row[name]) for name in ("emotions", "secondary")})


def _event(action: Action, person: str, utterance_id: str, address: str) -> Event:
    return Event(action=action, person=person, utterance_id=utterance_id, address=address)


def hash_token(token: str) -> str:
    """The hash under which a token is stored; tokens are long and random, so a plain one gives nothing away."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def _batch_id(connection: sa.Connection, name: str) -> int | None:
    number: int | None = connection.scalar(sa.select(BATCH.c.id).where(BATCH.c.name == name))
    return number
