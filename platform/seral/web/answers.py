"""Answers of servers: the same headers on each of them, and errors as sentences."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from seral.security.phrases import in_words

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


def add_errors(app: FastAPI) -> None:
    """Have an application answer its errors with `{"error": "a sentence"}`."""
    app.exception_handler(HTTPException)(refuse)
    app.exception_handler(RequestValidationError)(explain)
    app.exception_handler(Exception)(fail)


def error_answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A sentence as JSON, `{"error": ...}`."""
    # Half of a surrogate pair, such as in the name of a field, is no text that could be sent back.
    return JSONResponse({"error": message.encode(errors="replace").decode()}, status, headers)


def refuse(_: Request, error: HTTPException) -> Response:
    """The answer to a request that is refused on purpose."""
    return error_answer(error.status_code, error.detail, dict(error.headers or {}))


def explain(_: Request, error: RequestValidationError) -> Response:
    """The answer to a request with wrong fields, which are named."""
    wrong = (f"{'.'.join(map(str, item['loc'][1:])) or item['loc'][0]}: {in_words(item)}" for item in error.errors())
    return error_answer(422, "; ".join(wrong))


def fail(_: Request, error: Exception) -> Response:
    """The last resort: what went wrong stands in the server's log, and is nobody else's business."""
    return error_answer(500, f"the server has failed ({type(error).__name__}); its log says where")
