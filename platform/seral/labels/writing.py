"""Writing answers into the ledger: any number in a few statements, as if one had come after the other.

Databases take their time for each statement, hardly for each row: an import of thousands is as many statements as one
answer of the page.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from seral.errors import LabelError
from seral.labels.assignment import free_slot
from seral.labels.database import ANSWER, BATCH, PERSON, QUESTION, SLOT, insert, rows_among
from seral.labels.records import PASSES, Answer, Asked, Role


def add_people(connection: sa.Connection, names: Iterable[str], role: Role) -> None:
    """Make those known who are not."""
    wanted = sorted(set(names))
    present = {row.name for row in rows_among(connection, sa.select(PERSON.c.name), PERSON.c.name, wanted)}
    if new := [name for name in wanted if name not in present]:
        now = time.time()
        connection.execute(sa.insert(PERSON), [{"name": name, "role": role, "created_at": now} for name in new])


def numbers_by_key(connection: sa.Connection, answers: Sequence[Answer]) -> dict[str, int]:
    """Key -> number of the answers that are there. Raises LabelError where a key is that of another answer."""
    query = sa.select(ANSWER.c.id, ANSWER.c.key, ANSWER.c.person, ANSWER.c.utterance_id)
    rows = list(rows_among(connection, query, ANSWER.c.key, [answer.key for answer in answers]))
    owners = {row.key: (row.person, row.utterance_id) for row in rows}
    for answer in answers:
        own = (answer.person, answer.utterance_id)
        if owners.setdefault(answer.key, own) != own:
            raise LabelError(f"the key {answer.key} belongs to another answer")
    return {row.key: row.id for row in rows}


def find_questions(
    connection: sa.Connection, answers: Sequence[Answer], asked: Sequence[Asked | None]
) -> list[int | None]:
    """The question that each answer is about: that of the batch which asked, else the newest about the utterance.

    Batches and questions that are not here are made; such batches are shut.
    """
    batches = _find_batches(connection, answers, asked)
    about = [
        None if batch is None else (batches[batch[0]], answer.utterance_id)
        for answer, batch in zip(answers, asked, strict=True)
    ]
    numbers, newest = dict[tuple[int, str], int](), dict[str, int]()
    ids = [answer.utterance_id for answer in answers]
    for row in rows_among(connection, sa.select(QUESTION).order_by(QUESTION.c.id), QUESTION.c.utterance_id, ids):
        numbers[row.batch_id, row.utterance_id] = newest[row.utterance_id] = row.id
    new = [pair for pair in dict.fromkeys(about) if pair is not None and pair not in numbers]
    rows = [{"batch_id": batch, "utterance_id": name} for batch, name in new]
    made = dict(zip(new, insert(connection, QUESTION, rows), strict=True))
    numbers |= made
    questions = list[int | None]()
    for answer, pair in zip(answers, about, strict=True):
        if pair in made:  # the newest from here on, for the answers after it
            newest[answer.utterance_id] = max(made[pair], newest.get(answer.utterance_id, 0))
        questions.append(newest.get(answer.utterance_id) if pair is None else numbers[pair])
    return questions


def _find_batches(
    connection: sa.Connection, answers: Sequence[Answer], asked: Sequence[Asked | None]
) -> dict[str, int]:
    """Name -> number of the batches that asked."""
    first = dict[str, dict[str, Any]]()
    now = time.time()
    for answer, batch in zip(answers, asked, strict=True):
        if batch is not None:
            name, purpose = batch
            made = {"name": name, "purpose": purpose, "round": answer.round, "created_at": now, "closed_at": now}
            first.setdefault(name, made | {"overlap": 1, "max_skips": 0})
    rows = list(rows_among(connection, sa.select(BATCH), BATCH.c.name, list(first)))
    purposes = {name: values["purpose"] for name, values in first.items()} | {row.name: row.purpose for row in rows}
    for name, purpose in filter(None, asked):
        if purposes[name] != purpose:
            raise LabelError(f"the batch {name!r} is here for the purpose {purposes[name]!r}, not {purpose!r}")
    numbers = {row.name: int(row.id) for row in rows}
    new = [name for name in first if name not in numbers]
    return numbers | dict(zip(new, insert(connection, BATCH, [first[name] for name in new]), strict=True))


def write(
    connection: sa.Connection,
    answers: Sequence[Answer],
    questions: Sequence[int | None],
    *,
    must_be_given: bool = False,
) -> list[int]:
    """Write answers to these questions, all of them new, and return their numbers.

    Each supersedes what its person said before, here or in the ledger, and fills their slot. With `must_be_given` the
    person must have one.
    """
    batches = _lock(connection, answers, questions)
    slots = _slots(connection, answers, questions, must_be_given=must_be_given)
    rows, corrected = _answer_rows(answers, questions, batches, _newest(connection, answers))
    numbers = insert(connection, ANSWER, rows)
    number_of = {answer.key: number for answer, number in zip(answers, numbers, strict=True)}
    if corrected:
        later = sa.update(ANSWER).where(ANSWER.c.id == sa.bindparam("later"))
        pairs = [{"later": number_of[key], "supersedes": number_of[before]} for key, before in corrected.items()]
        connection.execute(later, pairs)
    filled = {
        (question, answer.person): number_of[answer.key]
        for answer, question in zip(answers, questions, strict=True)
        if question is not None and not answer.final
    }
    _fill(connection, slots, filled)
    _balance(connection, [batches[question] for question in sorted({question for question, _ in filled})])
    return numbers


def _answer_rows(
    answers: Sequence[Answer],
    questions: Sequence[int | None],
    batches: dict[int, Any],
    superseded: dict[tuple[Any, ...], int],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Rows of the table of answers, and those that correct another of these: key -> key of the earlier one.

    `superseded` are the numbers of the answers in the ledger that the next one supersedes.
    """
    newest: dict[Any, int | str | None] = dict(superseded)
    rows, corrected, now = [], dict[str, str](), time.time()
    for answer, question in zip(answers, questions, strict=True):
        row = {f.name: getattr(answer, f.name) for f in fields(answer)} | {"question_id": question}
        row |= {"emotions": list(answer.emotions), "secondary": list(answer.secondary)}
        row["answered_at"] = now if answer.answered_at is None else answer.answered_at
        if answer.round is None and question is not None:
            row["round"] = batches[question].round
        same = (question, answer.person, answer.utterance_id, answer.final)
        before = newest.get(same)
        if isinstance(before, str):  # the key of an answer that has no number yet
            corrected[answer.key] = before
        rows.append(row | {"supersedes": before if isinstance(before, int) else None})
        newest[same] = answer.key
    return rows, corrected


def _lock(connection: sa.Connection, answers: Sequence[Answer], questions: Sequence[int | None]) -> dict[int, Any]:
    """Question -> its number, utterance and batch. Nobody else answers these questions until the transaction ends."""
    columns = (
        QUESTION.c.id,
        QUESTION.c.utterance_id,
        BATCH.c.purpose,
        BATCH.c.round,
        BATCH.c.overlap,
        BATCH.c.max_skips,
    )
    query = sa.select(*columns).join(BATCH).order_by(QUESTION.c.id).with_for_update(key_share=True, of=QUESTION)
    wanted = sorted({question for question in questions if question is not None})
    questions_by_id = {row.id: row for row in rows_among(connection, query, QUESTION.c.id, wanted)}
    for answer, question in zip(answers, questions, strict=True):
        if question is not None and (
            question not in questions_by_id or questions_by_id[question].utterance_id != answer.utterance_id
        ):
            raise LabelError(f"question {question} is not about {answer.utterance_id}")
    return questions_by_id


def _slots(
    connection: sa.Connection, answers: Sequence[Answer], questions: Sequence[int | None], *, must_be_given: bool
) -> dict[tuple[int, str], int]:
    """Question and person -> the slot that is theirs."""
    wanted = [question for question in questions if question is not None]
    query = sa.select(SLOT.c.id, SLOT.c.question_id, SLOT.c.person).where(SLOT.c.person.is_not(None))
    slots = {(row.question_id, row.person): row.id for row in rows_among(connection, query, SLOT.c.question_id, wanted)}
    for answer, question in zip(answers, questions, strict=True):
        if must_be_given and not answer.final and (question, answer.person) not in slots:
            raise LabelError(f"{answer.person} was not asked about {answer.utterance_id}")
    return slots


def _newest(connection: sa.Connection, answers: Sequence[Answer]) -> dict[tuple[Any, ...], int]:
    """Question, person, utterance and whether it is final -> the newest answer, which the next one supersedes."""
    same = (ANSWER.c.question_id, ANSWER.c.person, ANSWER.c.utterance_id, ANSWER.c.final)
    query = sa.select(sa.func.max(ANSWER.c.id), *same).group_by(*same)
    rows = rows_among(connection, query, ANSWER.c.utterance_id, [answer.utterance_id for answer in answers])
    return {tuple(about): int(number) for number, *about in rows}


def _fill(connection: sa.Connection, slots: dict[tuple[int, str], int], filled: dict[tuple[int, str], int]) -> None:
    """Put answers into the slots of their people, and make those that are missing."""
    reused = [{"slot": slots[owner], "answer_id": number} for owner, number in filled.items() if owner in slots]
    if reused:
        connection.execute(sa.update(SLOT).where(SLOT.c.id == sa.bindparam("slot")).values(lapsed=False), reused)
    insert(
        connection,
        SLOT,
        [
            {"question_id": question, "person": person, "lapsed": False, "answer_id": number}
            for (question, person), number in filled.items()
            if (question, person) not in slots
        ],
    )


def _balance(connection: sa.Connection, questions: Sequence[Any]) -> None:
    """Keep as many slots as people are wanted: one more for each who passed, one less for an answer nobody awaited."""
    query = sa.select(SLOT.c.id, SLOT.c.question_id, SLOT.c.person, ANSWER.c.kind)
    query = query.join(ANSWER, SLOT.c.answer_id == ANSWER.c.id, isouter=True).where(SLOT.c.lapsed.is_(False))
    slots = defaultdict(list)
    for row in rows_among(connection, query, SLOT.c.question_id, [question.id for question in questions]):
        slots[row.question_id].append(row)
    more, fewer = [], []
    for question in questions:
        if question.purpose == "check":
            continue
        own = slots[question.id]
        passed = sum(row.kind in PASSES for row in own)
        lacking = question.overlap + min(passed, question.max_skips) - len(own)
        more += [free_slot(question.id)] * lacking
        fewer += [{"slot": row.id} for row in own if row.person is None][: max(0, -lacking)]
    if more:
        connection.execute(sa.insert(SLOT), more)
    if fewer:
        connection.execute(sa.delete(SLOT).where(SLOT.c.id == sa.bindparam("slot")), fewer)
