"""Limits of what anybody may ask: requests a second, failed attempts to come in, bytes of a request.

In one process and in memory: for several servers behind one address, the proxy in front has to do it.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_BYTES = 64 * 1024
"""The longest request: an answer with the longest comment has a tenth of that."""
DIGITS = re.compile("[0-9]{1,9}")
REMEMBERED = 10_000
"""Buckets kept; the one that was not used for longest goes first, and it is full again by then."""


@dataclass
class Bucket:
    """The requests that somebody still has."""

    tokens: float
    at: float


class Limit:
    """A token bucket for each key: `burst` at once, and `per_s` a second in the long run."""

    def __init__(self, burst: int, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.burst, self.per_s = burst, per_s
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str) -> bool:
        """True where this one still may, which is counted."""
        with self._lock:
            bucket = self._filled(key)
            bucket.tokens -= (may := bucket.tokens >= 1)
            return may

    def _filled(self, key: str) -> Bucket:
        now = self._clock()
        bucket = self._buckets.setdefault(key, Bucket(self.burst, now))
        bucket.tokens = min(self.burst, bucket.tokens + (now - bucket.at) * self.per_s)
        bucket.at = now
        self._buckets.move_to_end(key)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket


class BodyLimit:
    """Refuse requests that are too long, whether they say so or not."""

    def __init__(self, app: ASGIApp, most_bytes: int = BODY_BYTES) -> None:
        self._app, self._most = app, most_bytes
        self._words = f"a request has at most {most_bytes} bytes"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "0")
        if not DIGITS.fullmatch(declared) or int(declared) > self._most:
            await JSONResponse({"error": self._words}, 413)(scope, receive, send)
            return
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(413, self._words)  # whoever reads the body passes it on
            return message

        await self._app(scope, counted, send)
