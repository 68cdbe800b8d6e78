"""Requests of a lead: progress, agreement, what to decide, who may come in."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from seral.labels.agreement import agreement, person_reports
from seral.labels.disputes import find_disputes
from seral.labels.records import Role
from seral.web.annotator import SentAnswer
from seral.web.sessions import Leading, TheSite, event, logged

lead = APIRouter(prefix="/api/lead")
SHOWN = (
    *("person", "kind", "emotions", "secondary", "valence", "arousal", "dominance"),
    *("confidence", "comment", "seconds"),
)
"""Fields of an answer that a lead sees."""


class Newcomer(BaseModel):
    """Somebody to be let in."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=100)
    role: Role = "annotator"


class Leaver(BaseModel):
    """Somebody whose link shall be worth nothing."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=100)


@lead.get("/progress")
def progress(person: Leading, site: TheSite) -> dict[str, Any]:
    """The progress of every batch, and who may come in."""
    people = [
        {"name": row.name, "role": row.role, "link": row.token_hash is not None, "you": row.name == person.name}
        for row in site.ledger.people()
    ]
    return {"batches": [asdict(batch) for batch in site.ledger.progress()], "people": people}


@lead.get("/agreement")
def how_people_agree(person: Leading, site: TheSite) -> dict[str, Any]:
    """Krippendorff's alpha and a report for each person, from all answers: seconds where there are many of them."""
    answers, asked = site.ledger.answers(), site.ledger.project
    alphas = agreement(answers, asked.classes, asked.dimensions)
    reports = person_reports(answers, asked.classes)
    return {
        "alpha": {name: asdict(alpha) for name, alpha in alphas.items()},
        "people": [asdict(report) for report in reports],
    }


@lead.get("/disputed")
def disputed(person: Leading, site: TheSite, count: Annotated[int, Query(ge=1, le=100)] = 20) -> dict[str, Any]:
    """Clips about which people differ and nobody has decided, the least agreed upon first, with all answers."""
    disputes = find_disputes(site.ledger.answers(), site.ledger.project, site.spread)
    clips = [clip | {"answers": [_shown(answer) for answer in clip["answers"]]} for clip in disputes[:count]]
    site.trail.add(*(event(person, "looked", clip["utterance_id"]) for clip in clips))
    return {"total": len(disputes), "clips": clips}


@lead.post("/decide")
def decide(sent: SentAnswer, person: Leading, site: TheSite) -> dict[str, Any]:
    """Adjudicate: the lead's answer counts instead of the votes. A later one takes its place."""
    if sent.utterance_id not in site.sounds:
        raise HTTPException(404, f"the pool does not hold {sent.utterance_id}")
    answer = sent.answer(person.name, final=True, tool="adjudication")
    return {"id": site.ledger.submit(answer, address=logged(site, person.address))}


@lead.post("/people")
def let_in(newcomer: Newcomer, person: Leading, site: TheSite) -> dict[str, Any]:
    """Add somebody, or give them a new link in place of the old; it is shown this once."""
    _not_oneself(newcomer.name, person.name)
    link = site.link(site.ledger.add_person(newcomer.name, newcomer.role))
    site.trail.add(event(person, "let-in", detail=newcomer.name))
    return {"link": link}


@lead.post("/revoke")
def revoke(leaver: Leaver, person: Leading, site: TheSite) -> dict[str, Any]:
    """Make somebody's link worthless; their answers stay."""
    _not_oneself(leaver.name, person.name)
    site.ledger.revoke(leaver.name)
    site.trail.add(event(person, "revoked", detail=leaver.name))
    return {}


def _shown(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in SHOWN}


def _not_oneself(name: str, own: str) -> None:
    if name == own:
        raise HTTPException(422, "nobody takes away their own link; another lead or `seral labels people` can")
