"""Sessions: a personal link sets a cookie, the cookie names the person, and other sites cannot use it.

The cookie holds the token of the link, out of reach of scripts. So a server that is started again knows everybody, and
a person whose link was revoked is out at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from seral.labels.ledger import Ledger, hash_token
from seral.labels.records import Role
from seral.web.limits import Limit
from seral.web.sounds import Sounds

HEADER = "x-seral"
"""A page of another site cannot send a header of ours without asking first, and it is never allowed."""
COOKIE_DAYS = 90
NOBODY = "this link is not valid, or not any more; ask for a new one"


@dataclass(frozen=True, kw_only=True)
class Site:
    """The things that every request needs: the ledger, the clips, where the page lies, and the limits."""

    ledger: Ledger
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
    """Whoever asks."""

    name: str
    role: Role


def come_in(request: Request, token: str) -> Response:
    """Let the owner of a personal link in: a cookie, and away from the address that holds the token."""
    site = site_of(request)
    person = _signed_in(request, token)
    response = RedirectResponse("../lead" if person.role == "lead" else "../", status_code=303)
    response.set_cookie(
        site.cookie,
        token,
        max_age=COOKIE_DAYS * 24 * 3600,
        path=urlsplit(site.url).path or "/",
        secure=site.secure,
        httponly=True,
        samesite="strict",
    )
    return response


def site_of(request: Request) -> Site:
    """The site that the application was made with."""
    site: Site = request.app.state.site
    return site


def person_of(request: Request) -> SignedIn:
    """The person whose cookie came with the request; 403 without one, 429 when they ask too much."""
    site = site_of(request)
    person = _signed_in(request, request.cookies.get(site.cookie, ""))
    if not site.requests.take(person.name):
        raise HTTPException(429, "too many requests; wait a moment", headers={"Retry-After": "1"})
    if request.method != "GET":
        _check_origin(request)
    return person


def lead_of(person: Annotated[SignedIn, Depends(person_of)]) -> SignedIn:
    """The person who asks, if they lead; 403 for others."""
    if person.role != "lead":
        raise HTTPException(403, "this is for leads")
    return person


def _signed_in(request: Request, token: str) -> SignedIn:
    """The owner of a token. Whoever guesses has to wait; a token that is right never does, whoever else is behind the
    address. Nobody is told whether they were close.
    """
    site = site_of(request)
    if not token:
        raise HTTPException(403, NOBODY)
    row = site.ledger.person_of(token)
    if row is None:
        _count_failure(site, address_of(request), token)
        raise HTTPException(403, NOBODY)
    return SignedIn(*row)


def address_of(request: Request) -> str:
    """The address that a request comes from; empty where the server does not know."""
    return request.client.host if request.client else ""


def _count_failure(site: Site, address: str, token: str) -> None:
    """Count a wrong token for its address and for itself, wherever it comes from; 429 when either has failed enough."""
    counted = [site.attempts.take(f"address {address}"), site.attempts.take(f"token {hash_token(token)}")]
    if not all(counted):
        raise HTTPException(429, "too many attempts; wait a minute", headers={"Retry-After": "60"})


def _check_origin(request: Request) -> None:
    """Refuse what another site's page has sent in a person's name."""
    origin, own = request.headers.get("origin"), urlsplit(site_of(request).url)
    hosts = {own.netloc, request.headers.get("host", "")}
    if request.headers.get(HEADER) is None or (origin is not None and urlsplit(origin).netloc not in hosts):
        raise HTTPException(403, f"changes are made from the page itself, with the header {HEADER}")


Asking = Annotated[SignedIn, Depends(person_of)]
Leading = Annotated[SignedIn, Depends(lead_of)]
TheSite = Annotated[Site, Depends(site_of)]
