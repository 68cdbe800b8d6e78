"""Sessions: a personal link sets a cookie, the cookie names a session in the ledger, other sites cannot use it.

The cookie holds a random token, out of reach of scripts. Since sessions lie in the ledger, a server that is started
again knows everybody, and a person whose link was revoked is out at once.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

from fastapi import Depends, HTTPException, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from seral.labels.audit import Action, Event, Trail
from seral.labels.ledger import Ledger, hash_token
from seral.labels.records import Role
from seral.labels.sessions import Session, Sessions
from seral.web.doors import USER, Network
from seral.web.limits import Limit
from seral.web.sounds import Sounds

HEADER = "x-seral"
"""A page of another site cannot send a header of ours without asking first, and it is never allowed."""
PAGE_OF = "x-seral-person"
"""The person whom a page shows, so that a page left open sends nothing in the name of another who has signed in."""
SWITCH = Path(__file__).parent / "static" / "switch.html"
WRONG_LINK = "this link is not valid, or not any more; ask for a new one"
NOBODY = "nobody is signed in here; open your personal link"
OVER = "your session has ended; open your personal link again"


@dataclass(frozen=True, kw_only=True)
class Site:
    """The things that every request needs: the ledger, the clips, where the page lies, and the limits."""

    ledger: Ledger
    sessions: Sessions
    trail: Trail
    """The way into the audit log."""
    sounds: Sounds
    url: str
    """The address at which people reach the page, without a slash at the end."""
    lease_s: float
    check_every: int
    spread: float
    """Share of the scale from which on, itself not counted, ratings are disputed."""
    suggest: Callable[[str], str | None]
    """The class that a model takes a clip for, to be shown beside it; None = nothing is."""
    attempts: Limit
    """Wrong links and cookies, by address and by token: ten at once, then one in six seconds."""
    requests: Limit
    """Requests, by person."""
    noted: Limit
    """Lines in the log about people whom a proxy has signed in, by person and address: one an hour."""
    hosts: frozenset[str]
    """The names by which the server may be asked for."""
    proxies: Sequence[Network] = ()
    """Proxies that are believed."""
    user_header: str | None = None
    """The header in which they say who is signed in."""

    @property
    def cookie(self) -> str:
        """The cookie's name; two servers on one machine do not take each other's."""
        return f"seral-{urlsplit(self.url).port or 'page'}"

    @property
    def secure(self) -> bool:
        """True where the page is reached by https."""
        return self.url.startswith("https://")

    def link(self, token: str) -> str:
        """A personal link."""
        return f"{self.url}/in/{token}"


@dataclass(frozen=True)
class SignedIn:
    """Whoever asks, and the session in which they do."""

    name: str
    role: Role
    session: Session | None
    """None where a proxy has signed them in."""
    address: str
    """The address that they ask from."""


def come_in(request: Request, token: str) -> Response:
    """Let the owner of a personal link in: a cookie, and away from the address that holds the token.

    Where somebody else is signed in, a page asks whether to change who one is; nothing changes before it is answered.
    """
    owner, session = _owner_of(request, token), _session_of(request)
    if (user := request.scope[USER]) is not None:
        if user != owner[0]:
            raise HTTPException(409, f"single sign-on says that you are {user}, and this is the link of {owner[0]}")
        return RedirectResponse(_start(owner), status_code=303)
    if session is not None and not session.over and session.person != owner[0]:
        page = SWITCH.read_text(encoding="utf-8")
        for mark, name in (("{now}", session.person), ("{other}", owner[0])):
            page = page.replace(mark, html.escape(name))
        return HTMLResponse(page, 409)
    return _sign_in(request, owner[0], token, RedirectResponse(_start(owner), status_code=303))


def change_person(request: Request, token: str) -> Response:
    """Sign out whoever is signed in, and let the owner of a personal link in instead."""
    check_origin(request)
    owner = _owner_of(request, token)
    return _sign_in(request, owner[0], token, JSONResponse({"to": _start(owner)}))


def sign_out(request: Request, person: Asking) -> Response:
    """End the session on the server's side, and give back what this person has at hand."""
    site = site_of(request)
    if person.session is None:
        raise HTTPException(422, "single sign-on has let you in; sign out there")
    site.sessions.end(person.session, logged(site, person.address))
    site.ledger.let_go(person.name)
    response = JSONResponse({})
    response.delete_cookie(site.cookie, **_cookie_facts(site))
    return response


def site_of(request: Request) -> Site:
    """The site that the application was made with."""
    site: Site = request.app.state.site
    return site


def person_of(request: Request) -> SignedIn:
    """The person whose cookie came with the request; 403 without one, 429 when they ask too much.

    Whoever guesses has to wait; a session that is there never does, whoever else is behind the address.
    """
    user = request.scope[USER]
    person = _signed_in(request) if user is None else _by_single_sign_on(request, user)
    _slow_down(request, person.name)
    owner = request.headers.get(PAGE_OF)
    if owner is not None and unquote(owner) != person.name:
        raise HTTPException(403, f"this page is {unquote(owner)}'s, and {person.name} has signed in; load it anew")
    if request.method != "GET":
        check_origin(request)
    return person


def lead_of(person: Annotated[SignedIn, Depends(person_of)]) -> SignedIn:
    """The person who asks, if they lead; 403 for others."""
    if person.role != "lead":
        raise HTTPException(403, "this is for leads")
    return person


def _signed_in(request: Request) -> SignedIn:
    """The person of the cookie's session; 403 without one."""
    session = _session_of(request)
    if session is None:
        if wrong := request.cookies.get(site_of(request).cookie):
            _count_failure(request, wrong)
        raise HTTPException(403, OVER if wrong else NOBODY)
    if session.over:
        raise HTTPException(403, OVER)
    return SignedIn(session.person, session.role, session, address_of(request))


def _by_single_sign_on(request: Request, user: str) -> SignedIn:
    """The person whom a proxy has signed in; 403 for those whom no lead has let in, and who were shut out since."""
    site = site_of(request)
    row = site.ledger.person(user)
    if row is None or row.token_hash is None:
        raise HTTPException(403, f"{user} is signed in, and not among those who may label; a lead can let them in")
    person = SignedIn(row.name, row.role, None, address_of(request))
    if site.noted.take(f"{person.address} {person.name}"):
        site.trail.add(event(person, "signed-in", detail="single sign-on"))
    return person


def _owner_of(request: Request, token: str) -> tuple[str, Role]:
    """Name and role of the owner of a personal link; 403 for what is no link."""
    owner = site_of(request).ledger.person_of(token)
    if owner is None:
        _count_failure(request, token)
        raise HTTPException(403, WRONG_LINK)
    _slow_down(request, owner[0])
    return owner


def _session_of(request: Request) -> Session | None:
    """The session of the cookie that came with the request, over or not; None for no cookie and for a wrong one."""
    site = site_of(request)
    token = request.cookies.get(site.cookie)
    return site.sessions.find(token) if token else None


def _sign_in(request: Request, person: str, link: str, response: Response) -> Response:
    """Begin a session in the place of the one before, and give its cookie to a response."""
    site, before = site_of(request), _session_of(request)
    address = logged(site, address_of(request))
    if before is not None and not before.over:
        site.sessions.end(before, address)
    token = site.sessions.begin(person, link, address)
    response.set_cookie(site.cookie, token, max_age=int(site.sessions.longest_s), **_cookie_facts(site))
    return response


def _start(owner: tuple[str, Role]) -> str:
    """The page on which a person begins, as seen from that of their link."""
    return "../lead" if owner[1] == "lead" else "../"


def _cookie_facts(site: Site) -> dict[str, Any]:
    """Facts of the cookie. Lax: with a link that is opened out of a chat or a mail a strict cookie does not come, and
    nobody would know that another person is signed in. It is sent with such visits alone, which change nothing.
    """
    path = urlsplit(site.url).path or "/"
    return {"path": path, "secure": site.secure, "httponly": True, "samesite": "lax"}


def event(person: SignedIn, action: Action, utterance_id: str | None = None, detail: str | None = None) -> Event:
    """A line of the log about whoever asks."""
    return Event(action=action, person=person.name, utterance_id=utterance_id, address=person.address, detail=detail)


def logged(site: Site, address: str) -> str | None:
    """The address to log what is written at once; None where nothing is logged."""
    return address if site.trail.on else None


def address_of(request: Request) -> str:
    """The address that a request comes from; empty where the server does not know."""
    return request.client.host if request.client else ""


def _slow_down(request: Request, person: str) -> None:
    """429 when a person asks too much."""
    if not site_of(request).requests.take(person):
        raise HTTPException(429, "too many requests; wait a moment", headers={"Retry-After": "1"})


def _count_failure(request: Request, token: str) -> None:
    """Count a wrong token for its address and for itself, wherever it comes from; 429 when either has failed enough."""
    attempts = site_of(request).attempts
    counted = [attempts.take(f"address {address_of(request)}"), attempts.take(f"token {hash_token(token)}")]
    if not all(counted):
        raise HTTPException(429, "too many attempts; wait a minute", headers={"Retry-After": "60"})
    site_of(request).trail.add(Event(action="refused", address=address_of(request)))


def check_origin(request: Request) -> None:
    """Refuse what another site's page has sent in a person's name."""
    origin, own = request.headers.get("origin"), urlsplit(site_of(request).url)
    hosts = {own.netloc, request.headers.get("host", "")}
    if request.headers.get(HEADER) is None or (origin is not None and urlsplit(origin).netloc not in hosts):
        raise HTTPException(403, f"changes are made from the page itself, with the header {HEADER}")


Asking = Annotated[SignedIn, Depends(person_of)]
Leading = Annotated[SignedIn, Depends(lead_of)]
TheSite = Annotated[Site, Depends(site_of)]
