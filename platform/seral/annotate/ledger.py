"""The label ledger: who is asked what, who said what. Nothing is ever overwritten.

People claim clips under a lease, so that no two are asked for the same place, and answer without seeing what others
said. An answer changes no other: a correction supersedes the one before it, and both stay. What a label is worth in the
end (majority, soft votes, weights of annotators) is a view: seral.annotate.consensus.

Every public function is one transaction; any number of processes may call them at once.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

import pyarrow as pa
import sqlalchemy as sa

from seral.annotate.database import ANSWER, BATCH, PERSON, PROJECT, QUESTION, SLOT, Database
from seral.errors import LabelError, unknown_name
from seral.schema import ANSWERS

FORMAT = 1
Kind = Literal["label", "unusable", "skipped", "other-language"]
Purpose = Literal["evaluation", "round", "relabel", "check"]
Role = Literal["annotator", "lead"]
Asked = tuple[str, Purpose]
"""Name and purpose of a batch."""
PASSES: tuple[Kind, ...] = ("skipped", "other-language")
"""Answers of people who pass: somebody else is asked in their place."""
NAME = re.compile(r"[^\s/][^\n\r/]{0,98}")


@dataclass(frozen=True, kw_only=True)
class Project:
    """What people are asked."""

    classes: tuple[str, ...]
    dimensions: tuple[str, ...] = ()
    scale: tuple[float, float] = (1.0, 5.0)
    """Lowest and highest rating of a dimension."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one person said of one utterance."""

    utterance_id: str
    person: str
    kind: Kind = "label"
    emotions: tuple[str, ...] = ()
    """The classes heard, each as much as the others; usually one."""
    secondary: tuple[str, ...] = ()
    """Further classes that were heard, but less."""
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    confidence: float | None = None
    """Of the person in the answer, 0..1."""
    comment: str | None = None
    seconds: float | None = None
    """Spent on the clip."""
    round: int | None = None
    """That asked; None = the round of the question, if it has one."""
    tool: str = "page"
    final: bool = False
    """Adjudicated by a lead: it stands above the votes."""
    answered_at: float | None = None
    """Seconds since 1970; None = now."""
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """The same key sent again is the same answer, and is written once."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A clip somebody has the lease of."""

    question: int
    utterance_id: str
    batch: str
    purpose: Purpose
    round: int | None
    lease_until: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a batch is."""

    batch: str
    purpose: Purpose
    round: int | None
    questions: int
    done: int
    """Clips about which everybody has answered who was to."""
    answers: int
    """Answers so far, corrections not counted."""
    closed: bool
    asked_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far one person is."""

    answered: int
    """Clips they have answered, corrections not counted."""
    left: int
    """Clips they have at hand or could be asked about now, checks not counted."""


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
        database = Database(url)
        database.create()
        with database.write() as connection:
            if connection.execute(sa.select(PROJECT.c.id)).first() is None:
                values = {name: list(value) for name, value in asdict(project).items()}
                connection.execute(sa.insert(PROJECT).values(id=1, format=FORMAT, created_at=time.time(), **values))
        database.close()
        ledger = Ledger(url)
        if ledger.project != project:
            ledger.close()
            raise LabelError(f"the ledger at {url} asks for {ledger.project}, not for {project}; give another")
        return ledger

    def close(self) -> None:
        """Let go of all connections."""
        self._database.close()

    # People

    def add_person(self, name: str, role: Role = "annotator") -> str:
        """Let somebody in, or give them a new link: the token of their personal link, which is kept nowhere."""
        if not NAME.fullmatch(name) or name != name.strip():
            raise LabelError(f"{name!r} is no name for a person: up to 99 characters in one line, without /")
        if role not in get_args(Role):
            raise LabelError(unknown_name("role", role, get_args(Role)))
        token = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            _add_person(connection, name, role)
            known = sa.update(PERSON).where(PERSON.c.name == name)
            connection.execute(known.values(role=role, token_hash=_hash(token)))
        return token

    def revoke(self, name: str) -> None:
        """Make a person's link worthless. Their answers stay."""
        with self._database.write() as connection:
            done = connection.execute(sa.update(PERSON).where(PERSON.c.name == name).values(token_hash=None))
        if not done.rowcount:
            raise LabelError(unknown_name("person", name, (row.name for row in self.people())))

    def person_of(self, token: str) -> tuple[str, Role] | None:
        """Name and role of whoever has this token; None for nobody."""
        rows = self._database.read(sa.select(PERSON).where(PERSON.c.token_hash == _hash(token)))
        return (rows[0].name, rows[0].role) if rows else None

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
                number = _insert(connection, sa.insert(BATCH).values(name=batch, created_at=time.time(), **values))
                rows = [{"batch_id": number, "utterance_id": name} for name in ids]
                if rows:
                    connection.execute(sa.insert(QUESTION), rows)
                if purpose != "check":
                    asked = sa.select(QUESTION.c.id).where(QUESTION.c.batch_id == number).order_by(QUESTION.c.id)
                    free = [_free(row.id) for row in connection.execute(asked) for _ in range(overlap)]
                    if free:
                        connection.execute(sa.insert(SLOT), free)
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
        said = sa.select(sa.func.count(SLOT.c.answer_id)).where(SLOT.c.question_id == QUESTION.c.id).scalar_subquery()
        done = sa.case((sa.and_(~open_slots, said > 0), 1), else_=0)
        counts = (
            sa.func.count(QUESTION.c.id).label("questions"),
            sa.func.sum(done).label("done"),
            sa.func.sum(said).label("said"),
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

    def claim(self, person: str, *, count: int = 1, lease_s: float = 900.0, check_every: int = 0) -> list[Task]:
        """The next clips of this person, `count` at most, theirs alone for `lease_s` seconds; [] when none is left.

        First what they have at hand already, then what was asked first. After every `check_every` answers (0 = never)
        one clip of a batch of checks comes in between, where there is one that they have not heard. A second look
        (`relabel`) is for people who have not answered about the clip, where there are as many as it wants.
        """
        now = time.time()
        with self._database.write() as connection:
            locked = sa.select(PERSON.c.name).where(PERSON.c.name == person).with_for_update(key_share=True)
            if connection.execute(locked).first() is None:
                raise LabelError(f"nobody here is called {person!r}")
            _lapse(connection, now)
            taken = _at_hand(connection, person)[:count]
            while len(taken) < count:
                if (slot := _next_slot(connection, person, check_every)) is None:
                    break
                taken.append(slot)
            if taken:
                leased = sa.update(SLOT).where(SLOT.c.id.in_(taken))
                connection.execute(leased.values(person=person, lease_until=now + lease_s, lapsed=False))
            return [_task(connection, slot) for slot in taken]

    def let_go(self, person: str) -> None:
        """Give back all that a person has at hand."""
        with self._database.write() as connection:
            held = sa.update(SLOT).where(SLOT.c.person == person, SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False))
            connection.execute(held.values(lease_until=0.0))
            _lapse(connection, time.time())

    def may_hear(self, person: str, utterance_id: str) -> bool:
        """Whether a person was given this utterance, now or ever."""
        query = (
            sa.select(SLOT.c.id).join(QUESTION).where(SLOT.c.person == person, QUESTION.c.utterance_id == utterance_id)
        )
        return bool(self._database.read(query.limit(1)))

    def standing(self, person: str) -> Standing:
        """How far a person is: what they have answered, and what there is for them."""
        answered = sa.select(sa.func.count(SLOT.c.answer_id)).where(SLOT.c.person == person)
        mine = SLOT.alias()
        known = sa.select(mine.c.id).where(
            mine.c.question_id == SLOT.c.question_id, mine.c.person == person, mine.c.lapsed.is_(False)
        )
        free = sa.and_(SLOT.c.person.is_(None), BATCH.c.closed_at.is_(None), ~known.exists(), ~_for_others(person))
        held = sa.and_(SLOT.c.person == person, SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False))
        left = sa.select(sa.func.count(sa.distinct(SLOT.c.question_id)))
        left = left.join(QUESTION, SLOT.c.question_id == QUESTION.c.id).join(BATCH).where(sa.or_(free, held))
        (row,) = self._database.read(sa.select(answered.scalar_subquery(), left.scalar_subquery()))
        return Standing(answered=row[0], left=row[1])

    def latest(self, person: str, count: int) -> list[tuple[int, Answer]]:
        """The newest answers of a person to what they were asked, newest first, each after its question's number."""
        query = sa.select(ANSWER).join(SLOT, SLOT.c.answer_id == ANSWER.c.id).where(SLOT.c.person == person)
        rows = [dict(row._mapping) for row in self._database.read(query.order_by(ANSWER.c.id.desc()).limit(count))]
        return [(row["question_id"], _answer(row)) for row in rows]

    def submit(self, answer: Answer, question: int | None = None) -> int:
        """Write an answer and return its number; a later one of the same person about the same clip supersedes it.

        `question` says which question it answers; None = the newest that asks about this utterance, if any, such as
        for answers from another tool. With a question that this person was never given it is refused. A lease that has
        run out loses nothing. Raises LabelError naming what is wrong with the answer.
        """
        self.check(answer)
        with self._database.write() as connection:
            return _write(connection, answer, question, must_be_given=question is not None)

    def record(self, answers: Iterable[Answer], asked: Iterable[Asked | None] | None = None) -> int:
        """Write answers that came from elsewhere, all or none, and their people; returns how many were new.

        `asked` tells for each which batch asked it: what of it is not here is made, and shut. None = the newest
        question about the utterance, if any.
        """
        given = list(answers)
        for answer in given:
            self.check(answer)
        batches = [None] * len(given) if asked is None else list(asked)
        with self._database.write() as connection:
            for name in sorted({answer.person for answer in given}):
                _add_person(connection, name, "annotator")
            before = connection.scalar(sa.select(sa.func.count(ANSWER.c.id)))
            for answer, batch in zip(given, batches, strict=True):
                if _known(connection, answer) is None:
                    question = None if batch is None else _question_of(connection, answer, *batch)
                    _write(connection, answer, question, must_be_given=False)
            return int(connection.scalar(sa.select(sa.func.count(ANSWER.c.id))) or 0) - int(before or 0)

    def check(self, answer: Answer) -> None:
        """Raise LabelError for an answer that this project cannot hold."""
        about = f"the answer of {answer.person} about {answer.utterance_id}"
        _check_texts(answer, about)
        if answer.kind not in get_args(Kind):
            raise LabelError(f"{about}: {unknown_name('kind', answer.kind, get_args(Kind))}")
        heard = [*answer.emotions, *answer.secondary]
        if unknown := sorted(set(heard) - set(self.project.classes)):
            raise LabelError(f"{about}: {unknown_name('class', unknown[0], self.project.classes)}")
        if len(set(heard)) < len(heard):
            raise LabelError(f"{about}: a class stands twice in {', '.join(heard)}")
        rated = {name: value for name in RATINGS if (value := getattr(answer, name)) is not None}
        low, high = self.project.scale
        for name, value in rated.items():
            if name not in self.project.dimensions:
                raise LabelError(f"{about}: nobody asked for {name}")
            if not low <= value <= high:
                raise LabelError(f"{about}: {name} is {value:g}, outside {low:g} to {high:g}")
        if answer.kind == "label" and not (answer.emotions or rated):
            raise LabelError(f"{about}: it says nothing; a label has a class or a rating")
        if answer.kind != "label" and (heard or rated):
            raise LabelError(f"{about}: {answer.kind}, and yet it has a class or a rating")
        if answer.confidence is not None and not 0 <= answer.confidence <= 1:
            raise LabelError(f"{about}: confidence is {answer.confidence:g}, outside 0 to 1")
        if answer.seconds is not None and not 0 <= answer.seconds < float("inf"):
            raise LabelError(f"{about}: {answer.seconds} seconds")

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

    def utterances(self) -> list[str]:
        """Ids of all that was ever asked about or answered."""
        asked, answered = sa.select(QUESTION.c.utterance_id), sa.select(ANSWER.c.utterance_id)
        return sorted(row[0] for row in self._database.read(asked.union(answered)))

    def erase(self, ids: Sequence[str]) -> dict[str, int]:
        """Delete all that is known of some utterances, for good: rows by table. The one way in which anything goes."""
        with self._database.write() as connection:
            questions = sa.select(QUESTION.c.id).where(QUESTION.c.utterance_id.in_(ids))
            slots = connection.execute(sa.delete(SLOT).where(SLOT.c.question_id.in_(questions)))
            mine = ANSWER.c.utterance_id.in_(ids)
            connection.execute(sa.update(ANSWER).where(mine).values(supersedes=None))
            answers = connection.execute(sa.delete(ANSWER).where(mine))
            asked = connection.execute(sa.delete(QUESTION).where(QUESTION.c.utterance_id.in_(ids)))
        self._database.flush()
        return {"slot": slots.rowcount, "answer": answers.rowcount, "question": asked.rowcount}


RATINGS = ("valence", "arousal", "dominance")
LENGTHS = {"utterance_id": 200, "key": 100, "tool": 40}


def _check_texts(answer: Answer, about: str) -> None:
    """Refuse what not every database can hold."""
    if not NAME.fullmatch(answer.person) or answer.person != answer.person.strip():
        raise LabelError(f"{answer.person!r} is no name for a person: up to 99 characters in one line, without /")
    for name, most in LENGTHS.items():
        if not 1 <= len(getattr(answer, name)) <= most:
            raise LabelError(f"{about}: {name} has {len(getattr(answer, name))} characters, not 1 to {most}")
    for name in ("person", "comment", *LENGTHS):
        if any(mark == "\0" or "\ud800" <= mark <= "\udfff" for mark in getattr(answer, name) or ""):
            raise LabelError(f"{about}: {name} has a character that is no text (NUL, or half of a surrogate pair)")


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


def _hash(token: str) -> str:
    """Tokens are long and random, so a plain hash gives nothing away."""
    return hashlib.sha256(token.encode()).hexdigest()


def _free(question: int) -> dict[str, Any]:
    return {"question_id": question, "lapsed": False}


def _batch_id(connection: sa.Connection, name: str) -> int | None:
    number: int | None = connection.scalar(sa.select(BATCH.c.id).where(BATCH.c.name == name))
    return number


def _insert(connection: sa.Connection, row: sa.Insert) -> int:
    """Insert one row and return its number."""
    return int(connection.execute(row.returning(row.table.c.id)).scalar_one())


def _add_person(connection: sa.Connection, name: str, role: Role) -> None:
    if connection.execute(sa.select(PERSON.c.name).where(PERSON.c.name == name)).first() is None:
        connection.execute(sa.insert(PERSON).values(name=name, role=role, created_at=time.time()))


def _lapse(connection: sa.Connection, now: float) -> None:
    """Put free slots in the place of those whose lease has run out."""
    late = sa.select(SLOT.c.id, SLOT.c.question_id, BATCH.c.purpose).join(QUESTION, SLOT.c.question_id == QUESTION.c.id)
    late = late.join(BATCH).where(SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False), SLOT.c.lease_until < now)
    rows = list(connection.execute(late.with_for_update(of=SLOT, skip_locked=True)))
    if rows:
        connection.execute(sa.update(SLOT).where(SLOT.c.id.in_([row.id for row in rows])).values(lapsed=True))
    if again := [_free(row.question_id) for row in rows if row.purpose != "check"]:
        connection.execute(sa.insert(SLOT), again)


def _at_hand(connection: sa.Connection, person: str) -> list[int]:
    """Slots this person has the lease of, oldest question first."""
    held = sa.select(SLOT.c.id).where(SLOT.c.person == person, SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False))
    return list(connection.scalars(held.order_by(SLOT.c.question_id)))


def _next_slot(connection: sa.Connection, person: str, check_every: int) -> int | None:
    """A slot for this person, leased to nobody else: a check when it is time for one, else the first that is free."""
    if check_every and (slot := _check(connection, person, check_every)) is not None:
        return slot
    mine = SLOT.alias()
    known = sa.select(mine.c.id).where(mine.c.question_id == SLOT.c.question_id, mine.c.person == person)
    taken = known.where(mine.c.lapsed.is_(False)).exists()
    free = (
        sa.select(SLOT.c.id, SLOT.c.question_id)
        .join(QUESTION, SLOT.c.question_id == QUESTION.c.id)
        .join(BATCH)
        .where(SLOT.c.person.is_(None), BATCH.c.closed_at.is_(None), ~taken, ~_for_others(person))
        .order_by(SLOT.c.question_id, SLOT.c.id)
        .limit(1)
    )
    row = connection.execute(free.with_for_update(of=SLOT, skip_locked=True)).first()
    if row is None:
        return None
    lapsed = connection.scalar(
        sa.select(SLOT.c.id).where(SLOT.c.question_id == row.question_id, SLOT.c.person == person)
    )
    if lapsed is None:
        connection.execute(sa.update(SLOT).where(SLOT.c.id == row.id).values(person=person))
        return int(row.id)
    connection.execute(sa.delete(SLOT).where(SLOT.c.id == row.id))  # back in their old place
    connection.execute(sa.update(SLOT).where(SLOT.c.id == lapsed).values(lapsed=False))
    return int(lapsed)


def _for_others(person: str) -> sa.ColumnElement[bool]:
    """Whether a question is a second look that as many others as it wants can take who have not answered before."""
    before = sa.select(ANSWER.c.person).where(
        ANSWER.c.utterance_id == QUESTION.c.utterance_id, ANSWER.c.question_id.is_distinct_from(QUESTION.c.id)
    )
    before = before.correlate(QUESTION)  # to the question at hand, however deep it stands in the query
    others = sa.select(sa.func.count(PERSON.c.name)).where(
        PERSON.c.role == "annotator", PERSON.c.token_hash.is_not(None), PERSON.c.name.not_in(before)
    )
    wanted = others.correlate(QUESTION).scalar_subquery() >= BATCH.c.overlap
    mine = before.where(ANSWER.c.person == person).exists()
    return sa.and_(BATCH.c.purpose == "relabel", mine, wanted)


def _check(connection: sa.Connection, person: str, every: int) -> int | None:
    """A place at a check that this person has not heard, if they had enough else for one more."""
    purposes = (
        sa.select(BATCH.c.purpose).select_from(SLOT).join(QUESTION, SLOT.c.question_id == QUESTION.c.id).join(BATCH)
    )
    had = list(connection.scalars(purposes.where(SLOT.c.person == person, SLOT.c.lapsed.is_(False))))
    checks = had.count("check")
    if len(had) - checks < every * (checks + 1):
        return None
    heard = sa.select(SLOT.c.question_id).where(SLOT.c.person == person)
    left = sa.select(QUESTION.c.id).join(BATCH).where(BATCH.c.purpose == "check", BATCH.c.closed_at.is_(None))
    question = connection.scalar(left.where(QUESTION.c.id.not_in(heard)).order_by(QUESTION.c.id).limit(1))
    if question is None:
        return None
    return _insert(connection, sa.insert(SLOT).values(question_id=question, person=person, lapsed=False))


def _task(connection: sa.Connection, slot: int) -> Task:
    query = sa.select(SLOT, QUESTION.c.utterance_id, BATCH.c.name, BATCH.c.purpose, BATCH.c.round)
    query = query.join(QUESTION, SLOT.c.question_id == QUESTION.c.id).join(BATCH).where(SLOT.c.id == slot)
    row = connection.execute(query).one()
    return Task(
        question=row.question_id,
        utterance_id=row.utterance_id,
        batch=row.name,
        purpose=row.purpose,
        round=row.round,
        lease_until=row.lease_until,
    )


def _write(connection: sa.Connection, answer: Answer, question: int | None, *, must_be_given: bool) -> int:
    if (known := _known(connection, answer)) is not None:
        return known
    if question is None:
        newest = sa.select(QUESTION.c.id).where(QUESTION.c.utterance_id == answer.utterance_id)
        question = connection.scalar(newest.order_by(QUESTION.c.id.desc()).limit(1))
    slot = _slot_of(connection, answer, question, must_be_given) if question is not None else None
    before = _newest_of(connection, answer, question)
    values = {f.name: getattr(answer, f.name) for f in fields(answer)}
    values |= {"emotions": list(answer.emotions), "secondary": list(answer.secondary)}
    values["answered_at"] = time.time() if answer.answered_at is None else answer.answered_at
    if answer.round is None and question is not None:
        values["round"] = connection.scalar(sa.select(BATCH.c.round).join(QUESTION).where(QUESTION.c.id == question))
    number = _insert(connection, sa.insert(ANSWER).values(**values, question_id=question, supersedes=before))
    if slot is not None and question is not None:
        connection.execute(sa.update(SLOT).where(SLOT.c.id == slot).values(answer_id=number, lapsed=False))
        _balance(connection, question)
    return number


def _known(connection: sa.Connection, answer: Answer) -> int | None:
    """The number of this answer if it is there already."""
    known = connection.execute(sa.select(ANSWER).where(ANSWER.c.key == answer.key)).first()
    if known is None:
        return None
    if (known.person, known.utterance_id) != (answer.person, answer.utterance_id):
        raise LabelError(f"the key {answer.key} belongs to another answer")
    return int(known.id)


def _question_of(connection: sa.Connection, answer: Answer, batch: str, purpose: Purpose) -> int:
    """The question of a batch that an answer is about; made where it is not here, and its batch, which is shut."""
    known = connection.execute(sa.select(BATCH).where(BATCH.c.name == batch)).first()
    if known is None:
        now = time.time()
        made = sa.insert(BATCH).values(name=batch, purpose=purpose, round=answer.round, overlap=1, max_skips=0)
        number = _insert(connection, made.values(created_at=now, closed_at=now))
    elif known.purpose != purpose:
        raise LabelError(f"the batch {batch!r} is here for the purpose {known.purpose!r}, not {purpose!r}")
    else:
        number = int(known.id)
    same = sa.select(QUESTION.c.id).where(QUESTION.c.batch_id == number)
    question = connection.scalar(same.where(QUESTION.c.utterance_id == answer.utterance_id))
    row = {"batch_id": number, "utterance_id": answer.utterance_id}
    return int(question) if question is not None else _insert(connection, sa.insert(QUESTION).values(**row))


def _newest_of(connection: sa.Connection, answer: Answer, question: int | None) -> int | None:
    """This person's answer so far, which the new one supersedes: to the same question, adjudications apart."""
    same = ANSWER.c.question_id.is_(None) if question is None else ANSWER.c.question_id == question
    query = sa.select(sa.func.max(ANSWER.c.id)).where(
        same,
        ANSWER.c.person == answer.person,
        ANSWER.c.utterance_id == answer.utterance_id,
        ANSWER.c.final.is_(answer.final),
    )
    number: int | None = connection.scalar(query)
    return number


def _slot_of(connection: sa.Connection, answer: Answer, question: int, must_be_given: bool) -> int | None:
    """The slot that the answer fills; an adjudication fills none."""
    asked = connection.scalar(
        sa.select(QUESTION.c.utterance_id).where(QUESTION.c.id == question).with_for_update(key_share=True)
    )
    if asked != answer.utterance_id:
        raise LabelError(f"question {question} is not about {answer.utterance_id}")
    if answer.final:
        return None
    mine = sa.select(SLOT.c.id).where(SLOT.c.question_id == question, SLOT.c.person == answer.person)
    if (slot := connection.scalar(mine)) is not None:
        return int(slot)
    if must_be_given:
        raise LabelError(f"{answer.person} was not asked about {answer.utterance_id}")
    return _insert(connection, sa.insert(SLOT).values(question_id=question, person=answer.person, lapsed=False))


def _balance(connection: sa.Connection, question: int) -> None:
    """Keep as many slots as people are wanted: one more for each who passed, one less for an answer nobody awaited."""
    query = sa.select(BATCH).join(QUESTION).where(QUESTION.c.id == question)
    batch = connection.execute(query).one()
    if batch.purpose == "check":
        return
    slots = sa.select(SLOT.c.id, SLOT.c.person, ANSWER.c.kind).join(
        ANSWER, SLOT.c.answer_id == ANSWER.c.id, isouter=True
    )
    rows = list(connection.execute(slots.where(SLOT.c.question_id == question, SLOT.c.lapsed.is_(False))))
    passed = sum(row.kind in PASSES for row in rows)
    lacking = batch.overlap + min(passed, batch.max_skips) - len(rows)
    if lacking > 0:
        connection.execute(sa.insert(SLOT), [_free(question) for _ in range(lacking)])
    elif free := [row.id for row in rows if row.person is None][: -lacking or None] if lacking else []:
        connection.execute(sa.delete(SLOT).where(SLOT.c.id.in_(free)))
