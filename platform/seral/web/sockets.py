"""Sockets: a request has to arrive in time, an answer has to be read, and only so many are open at once.

uvicorn closes a connection that is quiet after an answer, and no other: one that never asks, that sends its request a
byte at a time, or that does not read what it asked for would stay for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from seral.web.answers import HEADERS

SLOW_S = 1.0
"""Time for a request after which its socket is closed before those of people who are between two requests."""
LOOKS = 4
"""Looks at a socket within the time that it has."""
ARRIVED = {h11.DONE, h11.MUST_CLOSE, h11.CLOSED, h11.ERROR}
"""States of the other side in which no more of its request is awaited."""


@dataclass(frozen=True, kw_only=True)
class SocketLimits:
    """Limits of sockets."""

    request_s: float
    """Time for a whole request to arrive, and within which something of an answer must be read."""
    most: int
    """Open sockets; one more closes a slow one, or the one that has been quiet for longest."""


class PageConfig(uvicorn.Config):
    """The configuration of uvicorn, and the limits of sockets."""

    def __init__(self, app: Callable[..., Any], limits: SocketLimits, **options: Any) -> None:
        super().__init__(app, http=BoundedProtocol, ws="none", **options)
        self.limits = limits


def listen(config: PageConfig) -> bool:
    """Serve until stopped; False where it could not begin."""
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=lambda: _Loop(config.limits.request_s)) as runner:
        runner.run(server.serve())
    return server.started


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's own loop, with a time limit for the beginning of https, which the protocol above it never sees."""

    def __init__(self, handshake_s: float) -> None:
        super().__init__()
        self._handshake_s = handshake_s

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """Listen, as `asyncio` does it."""
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = self._handshake_s
        return await super().create_server(*arguments, **options)


class BoundedProtocol(H11Protocol):
    """HTTP as uvicorn speaks it, on sockets that may not wait for ever."""

    def __init__(
        self,
        config: PageConfig,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = config.limits
        self._look: asyncio.TimerHandle | None = None
        self._unread = self._stalled = 0
        self._awaited_since: float | None = None
        """The time from which on a part of a request is awaited; None between two, and while one is answered."""
        self.quiet_since = 0.0

    @property
    def busy(self) -> bool:
        """True from a whole request to the end of its answer."""
        return self.cycle is not None and not self.cycle.response_complete and self.conn.their_state in ARRIVED

    @property
    def slow(self) -> bool:
        """True where a request is awaited that should have come by now."""
        return self._awaited_since is not None and self.loop.time() - self._awaited_since > SLOW_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch a new socket, and make room for it."""
        super().connection_made(transport)
        self._awaited_since = self.quiet_since = self.loop.time()
        self._look = self.loop.call_later(self._limits.request_s / LOOKS, self._watch)
        if len(self.connections) > self._limits.most:
            open_ones = [one for one in self.connections if isinstance(one, BoundedProtocol)]
            quiet = [one for one in open_ones if not one.busy]
            oldest = min(quiet, key=lambda one: (not one.slow, one.quiet_since))
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to watch."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A part of a request, or all of it."""
        super().data_received(data)
        if self.conn.their_state in ARRIVED:
            self._awaited_since = None
        elif self._awaited_since is None:
            self._awaited_since = self.loop.time()

    def on_response_complete(self) -> None:
        """Be quiet until the next request, of which a part may be here already."""
        self.quiet_since = self.loop.time()
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            self._awaited_since = self.loop.time() if self.conn.trailing_data[0] else None

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(400, msg)

    def _watch(self) -> None:
        """Close the socket if its request has not come in time, or if nothing was read of what is to be sent."""
        unread = self.transport.get_write_buffer_size()
        late = self._awaited_since is not None and self.loop.time() - self._awaited_since >= self._limits.request_s
        self._stalled = self._stalled + 1 if unread and unread >= self._unread else 0
        self._unread = unread
        if self._stalled >= LOOKS:
            self.transport.abort()
        elif late and not self.transport.is_closing():
            self._refuse(408, f"a request has to arrive within {self._limits.request_s:g} seconds")
        self._look = self.loop.call_later(self._limits.request_s / LOOKS, self._watch)

    def _refuse(self, status: int, message: str) -> None:
        """Answer in a sentence, as far as no other answer has begun, and close the socket."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = json.dumps({"error": message}).encode()
            headers = HEADERS | {"Cache-Control": "no-store", "Content-Type": "application/json", "Connection": "close"}
            headers["Content-Length"] = str(len(body))
            start = h11.Response(status_code=status, headers=list(headers.items()), reason=STATUS_PHRASES[status])
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
