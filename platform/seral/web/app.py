"""The application: pages, what they ask for, and the same headers on every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from seral.errors import LabelError, PoolError
from seral.web.annotator import annotator
from seral.web.answers import STATIC, SafeHeaders, add_errors, error_answer
from seral.web.doors import Doors
from seral.web.lead import lead
from seral.web.limits import BodyLimit
from seral.web.sessions import Site, change_person, come_in, sign_out


def create_app(site: Site) -> FastAPI:
    """The annotation page over one ledger and one pool."""
    app = Page(site)
    app.add_api_route("/", _page("annotate.html"))
    app.add_api_route("/in/{token}", come_in)
    app.add_api_route("/in/{token}", change_person, methods=["POST"])
    app.add_api_route("/api/sign-out", sign_out, methods=["POST"])
    app.add_api_route("/lead", _page("lead.html"))
    app.include_router(annotator)
    app.include_router(lead)
    app.mount("/static", StaticFiles(directory=STATIC))
    add_errors(app)
    app.exception_handler(LabelError)(_label_error)
    app.exception_handler(PoolError)(_pool_error)
    app.add_middleware(BodyLimit)
    return app


class Page(FastAPI):
    """An application whose every answer has HEADERS, failures too: they go around all that Starlette adds."""

    def __init__(self, site: Site) -> None:
        super().__init__(
            title="seral labels", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_log_to_the_end
        )
        self.state.site = site

    def build_middleware_stack(self) -> ASGIApp:
        """All that a request goes through, the outermost first."""
        site: Site = self.state.site
        inner = super().build_middleware_stack()
        return SafeHeaders(Doors(inner, hosts=site.hosts, proxies=site.proxies, user_header=site.user_header))


@asynccontextmanager
async def _log_to_the_end(app: FastAPI) -> AsyncIterator[None]:
    """Write what waits for the audit log before the server stops: on its way out a signal may end the process."""
    yield
    site: Site = app.state.site
    await run_in_threadpool(site.trail.flush)


def _page(name: str) -> Callable[[], Awaitable[Response]]:
    """A page as it lies in `static`: it holds nothing that is anybody's, that comes through /api."""

    async def page() -> Response:
        return FileResponse(STATIC / name)

    return page


def _label_error(_: Request, error: LabelError) -> Response:
    """422 for what the ledger refuses or no ledger could hold; 503 where it cannot be reached: to be tried again."""
    if isinstance(error.__cause__, DBAPIError):
        return error_answer(503, "the ledger cannot be reached at the moment", {"Retry-After": "2"})
    return error_answer(422, str(error))


def _pool_error(_: Request, error: PoolError) -> Response:
    return error_answer(503, str(error))
