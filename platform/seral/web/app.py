"""The application: pages, what they ask for, and the same headers on every answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seral.errors import LabelError, PoolError
from seral.security.phrases import in_words
from seral.web.annotator import annotator
from seral.web.doors import Doors
from seral.web.lead import lead
from seral.web.limits import BodyLimit
from seral.web.sessions import Site, change_person, come_in, sign_out

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src 'self' blob:; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


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
    app.exception_handler(HTTPException)(_refuse)
    app.exception_handler(RequestValidationError)(_explain)
    app.exception_handler(LabelError)(_label_error)
    app.exception_handler(PoolError)(_pool_error)
    app.exception_handler(Exception)(_fail)
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


class SafeHeaders:
    """HEADERS on everything, and nothing kept by others on the way unless the answer says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache" if "etag" in headers else "no-store")
            await send(message)

        await self._app(scope, receive, safe)


def _page(name: str) -> Callable[[], Awaitable[Response]]:
    """A page as it lies in `static`: it holds nothing that is anybody's, that comes through /api."""

    async def page() -> Response:
        return FileResponse(STATIC / name)

    return page


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    # Half of a surrogate pair, such as in the name of a field, is no text that could be sent back.
    return JSONResponse({"error": message.encode(errors="replace").decode()}, status, headers)


def _refuse(_: Request, error: HTTPException) -> Response:
    return _error(error.status_code, error.detail, dict(error.headers or {}))


def _explain(_: Request, error: RequestValidationError) -> Response:
    wrong = (f"{'.'.join(map(str, item['loc'][1:])) or item['loc'][0]}: {in_words(item)}" for item in error.errors())
    return _error(422, "; ".join(wrong))


def _fail(_: Request, error: Exception) -> Response:
    """The last resort: what went wrong stands in the server's log, and is nobody else's business."""
    return _error(500, f"the server has failed ({type(error).__name__}); its log says where")


def _label_error(_: Request, error: LabelError) -> Response:
    """422 for what the ledger refuses or no ledger could hold; 503 where it cannot be reached: to be tried again."""
    if isinstance(error.__cause__, DBAPIError):
        return _error(503, "the ledger cannot be reached at the moment", {"Retry-After": "2"})
    return _error(422, str(error))


def _pool_error(_: Request, error: PoolError) -> Response:
    return _error(503, str(error))
