"""The order in which people hear clips: slots, their leases, and the places of checks and second looks."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from seral.labels.database import ANSWER, BATCH, PERSON, QUESTION, SLOT, insert
from seral.labels.records import Task


def free_slot(question: int) -> dict[str, Any]:
    """A place at a question for whoever comes first."""
    return {"question_id": question, "lapsed": False}


def lapse(connection: sa.Connection, now: float) -> None:
    """Put free slots in the place of slots whose lease has run out."""
    late = sa.select(SLOT.c.id, SLOT.c.question_id, BATCH.c.purpose).join(QUESTION, SLOT.c.question_id == QUESTION.c.id)
    late = late.join(BATCH).where(SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False), SLOT.c.lease_until < now)
    rows = list(connection.execute(late.with_for_update(of=SLOT, skip_locked=True)))
    if rows:
        connection.execute(sa.update(SLOT).where(SLOT.c.id.in_([row.id for row in rows])).values(lapsed=True))
    if again := [free_slot(row.question_id) for row in rows if row.purpose != "check"]:
        connection.execute(sa.insert(SLOT), again)


def at_hand(connection: sa.Connection, person: str) -> list[int]:
    """Slots this person has the lease of, oldest question first."""
    leased = sa.select(SLOT.c.id).where(SLOT.c.person == person, SLOT.c.answer_id.is_(None), SLOT.c.lapsed.is_(False))
    return list(connection.scalars(leased.order_by(SLOT.c.question_id)))


def next_slot(connection: sa.Connection, person: str, check_every: int) -> int | None:
    """A slot for this person, leased to nobody else: a check when it is time for one, else the first that is free."""
    if check_every and (slot := _check(connection, person, check_every)) is not None:
        return slot
    mine = SLOT.alias()
    own = sa.select(mine.c.id).where(mine.c.question_id == SLOT.c.question_id, mine.c.person == person)
    taken = own.where(mine.c.lapsed.is_(False)).exists()
    free = (
        sa.select(SLOT.c.id, SLOT.c.question_id)
        .join(QUESTION, SLOT.c.question_id == QUESTION.c.id)
        .join(BATCH)
        .where(SLOT.c.person.is_(None), BATCH.c.closed_at.is_(None), ~taken, ~for_others(person))
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


def for_others(person: str) -> sa.ColumnElement[bool]:
    """True for a second look that as many others as it wants can take, who have not answered about the clip before."""
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
    own = sa.select(SLOT.c.question_id).where(SLOT.c.person == person)
    left = sa.select(QUESTION.c.id).join(BATCH).where(BATCH.c.purpose == "check", BATCH.c.closed_at.is_(None))
    question = connection.scalar(left.where(QUESTION.c.id.not_in(own)).order_by(QUESTION.c.id).limit(1))
    if question is None:
        return None
    return insert(connection, SLOT, [{"question_id": question, "person": person, "lapsed": False}])[0]


def task_of(connection: sa.Connection, slot: int) -> Task:
    """The task that the holder of a slot has at hand."""
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
