"""Requests of a person who labels. They hear what they were given and see what they said themselves."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from seral.labels.records import Answer, Kind
from seral.web.sessions import Asking, SignedIn, Site, TheSite, event, logged

annotator = APIRouter(prefix="/api")
LATEST = 20
"""Answers that one can go back through."""
RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
LONGEST_CLIP = 10**15
"""Bytes; a range that asks for more asks for the end."""
Number = Annotated[int, Field(ge=1, lt=2**63)]
"""The number of a row in the ledger, as far as any database counts."""


class SentAnswer(BaseModel):
    """An answer as a page sends it."""

    model_config = ConfigDict(extra="forbid")

    utterance_id: str = Field(max_length=200)
    key: str = Field(pattern=r"^[0-9a-f]{32}$")
    kind: Kind = "label"
    emotions: list[str] = Field(default=[], max_length=100)
    secondary: list[str] = Field(default=[], max_length=100)
    valence: float | None = None
    arousal: float | None = None
    dominance: float | None = None
    confidence: float | None = None
    comment: str | None = Field(default=None, max_length=2000)
    seconds: float | None = Field(default=None, ge=0, le=86_400)

    def answer(self, person: str, **more: Any) -> Answer:
        """The answer of this person."""
        values = {name: getattr(self, name) for name in SentAnswer.model_fields} | more
        values |= {name: tuple(values[name]) for name in ("emotions", "secondary")}
        return Answer(**values, person=person)


class SentAnswerToQuestion(SentAnswer):
    """An answer to a question that was put to the person."""

    question: Number


class PlayedClip(BaseModel):
    """A clip that a page has begun to play."""

    model_config = ConfigDict(extra="forbid")

    utterance_id: str = Field(max_length=200)


@annotator.get("/me")
def me(person: Asking, site: TheSite) -> dict[str, Any]:
    """The person who asks, the project, and their progress."""
    return {
        "person": person.name,
        "role": person.role,
        "may_sign_out": person.session is not None,
        **asdict(site.ledger.project),
        "lease_s": site.lease_s,
        "standing": asdict(site.ledger.standing(person.name)),
    }


@annotator.post("/claim")
def claim(person: Asking, site: TheSite, count: Annotated[int, Query(ge=1, le=5)] = 2) -> dict[str, Any]:
    """The next clips: the first to be heard, the others to be fetched meanwhile. Nobody is told which are checks."""
    tasks = site.ledger.claim(
        person.name,
        count=count,
        lease_s=site.lease_s,
        check_every=site.check_every,
        address=logged(site, person.address),
    )
    clips = [_clip(site, task.question, task.utterance_id) for task in tasks]
    return {"clips": clips, "standing": asdict(site.ledger.standing(person.name))}


@annotator.post("/answers")
def submit(sent: SentAnswerToQuestion, person: Asking, site: TheSite) -> dict[str, Any]:
    """Write an answer, once for each key; a later one about the same clip corrects it."""
    answer = sent.answer(person.name)
    return {"id": site.ledger.submit(answer, sent.question, address=logged(site, person.address))}


@annotator.get("/latest")
def latest(person: Asking, site: TheSite) -> dict[str, Any]:
    """The last answers of this person, newest first, to go back to."""
    shown = SentAnswer.model_fields.keys() - {"key"}
    answers = site.ledger.latest(person.name, LATEST)
    return {
        "answers": [
            {
                "clip": _clip(site, question, answer.utterance_id),
                "answer": {name: value for name, value in asdict(answer).items() if name in shown},
            }
            for question, answer in answers
        ]
    }


@annotator.post("/let-go")
def let_go(person: Asking, site: TheSite) -> dict[str, Any]:
    """Give back the clips at hand, for others to label."""
    site.ledger.let_go(person.name)
    return {}


@annotator.get("/audio/{utterance_id}")
def audio(utterance_id: str, request: Request, person: Asking, site: TheSite) -> Response:
    """A clip as FLAC, or the range of it that a player asks for. 404 for what is not theirs to hear, or is not there.

    A lead hears everything in the pool.
    """
    _check_theirs(site, person, utterance_id)
    reply = _ranged(site.sounds.read(utterance_id), request.headers.get("range"))
    if not reply.headers.get("content-range", "bytes 0-").startswith("bytes 0-"):
        return reply  # a further part of what was sent
    site.trail.add(event(person, "sent", utterance_id))
    return reply


@annotator.post("/played")
def played(clip: PlayedClip, person: Asking, site: TheSite) -> dict[str, Any]:
    """Log that a clip has begun to play."""
    _check_theirs(site, person, clip.utterance_id)
    site.trail.add(event(person, "played", clip.utterance_id))
    return {}


def _check_theirs(site: Site, person: SignedIn, utterance_id: str) -> None:
    there = utterance_id in site.sounds  # asked first: no database has to look for a name that no clip has
    if not there or not (person.role == "lead" or site.ledger.may_hear(person.name, utterance_id)):
        raise HTTPException(404, "no such clip is yours to hear")


def _clip(site: Site, question: int, utterance_id: str) -> dict[str, Any]:
    clip: dict[str, Any] = {"question": question, "utterance_id": utterance_id}
    suggestion = site.suggest(utterance_id)
    return clip if suggestion is None else clip | {"suggestion": suggestion}


def _ranged(data: bytes, wanted: str | None) -> Response:
    """All of the bytes, or one range of them (RFC 9110, section 14); a range that makes no sense is ignored."""
    headers = {"Accept-Ranges": "bytes", "Cache-Control": "private, no-store"}
    match = RANGE.fullmatch(wanted.strip()) if wanted else None
    if wanted is None or match is None or not any(match.groups()):
        return Response(data, media_type="audio/flac", headers=headers)
    first, last = (_bytes(digits) for digits in match.groups())
    start = max(0, len(data) - (last or 0)) if first is None else first
    end = len(data) if first is None or last is None else min(last + 1, len(data))
    if start >= end:
        headers["Content-Range"] = f"bytes */{len(data)}"
        raise HTTPException(416, f"the clip has {len(data)} bytes, and {wanted[:40]!r} asks for none of them", headers)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Response(data[start:end], 206, headers, media_type="audio/flac")


def _bytes(digits: str) -> int | None:
    """A number of bytes as a range writes it, LONGEST_CLIP at most; None for an open end."""
    if not digits:
        return None
    return min(int(digits), LONGEST_CLIP) if len(digits) <= len(str(LONGEST_CLIP)) else LONGEST_CLIP
