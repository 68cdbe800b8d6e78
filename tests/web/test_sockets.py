"""Sockets that are half open, slow, never read from, or too many: the real server, and real sockets before it."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

REQUEST_S = 1.5
HEAD = b"POST /api/answers HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
QUICK = ("--set", f"request_timeout_s={REQUEST_S}")
FEW = ("--set", "max_sockets=20")


def connect(stack: ExitStack, port: int) -> socket.socket:
    made = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    made.settimeout(10)
    return made


def ask(made: socket.socket) -> bytes:
    """The answer to a whole request, on a connection that stays open."""
    made.sendall(b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    reply = b""
    while not reply.endswith(b"}"):
        reply += made.recv(65536)
    return reply


def read_all(made: socket.socket) -> bytes:
    """Everything until the server closes the socket; fails after ten seconds without a byte."""
    parts = []
    try:
        while part := made.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("options", [QUICK])
def test_half_requests_are_closed_and_whole_ones_answered_meanwhile(server: Any) -> None:
    with ExitStack() as stack, httpx.Client(base_url=server.url) as browser:
        browser.get("/")
        silent, head, body, drip = (connect(stack, server.port) for _ in range(4))
        head.sendall(HEAD)
        body.sendall(HEAD + b"Content-Length: 10\r\n\r\n{")
        started = time.monotonic()
        for byte in HEAD[:10]:
            drip.sendall(bytes([byte]))
            assert browser.get("/").status_code == 200
            time.sleep(0.05)
        for made in (silent, head, body, drip):
            reply = read_all(made)
            assert reply.startswith(b"HTTP/1.1 408 "), reply
            assert b"frame-ancestors 'none'" in reply
            assert b'{"error": "a request has to arrive within 1.5 seconds"}' in reply
        assert time.monotonic() - started > REQUEST_S / 2


@pytest.mark.parametrize("options", [QUICK])
def test_a_connection_lives_as_long_as_its_requests_come_whole(server: Any) -> None:
    with ExitStack() as stack:
        made = connect(stack, server.port)
        for _ in range(4):
            assert ask(made).startswith(b"HTTP/1.1 404 ")
            time.sleep(REQUEST_S / 2)
        time.sleep(1.5 * REQUEST_S)
        assert ask(made).startswith(b"HTTP/1.1 404 "), "between two requests it may be quiet"
        made.sendall(b"GET /noth")
        assert read_all(made).startswith(b"HTTP/1.1 408 "), "the second half of the next one does not come"


@pytest.mark.parametrize("options", [QUICK])
def test_an_answer_that_nobody_reads_is_given_up(server: Any) -> None:
    request = b"GET /static/annotate.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with ExitStack() as stack:
        made = stack.enter_context(socket.socket())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", server.port))
        made.settimeout(20)
        whole = len(httpx.get(f"{server.url}/static/annotate.js").content)
        count = 600
        made.sendall(request * count)
        time.sleep(4 * REQUEST_S)
        assert httpx.get(f"{server.url}/").status_code == 200
        assert len(read_all(made)) < count * whole


@pytest.mark.parametrize("options", [FEW])
def test_so_many_sockets_are_open_and_the_quietest_goes_first(server: Any) -> None:
    with ExitStack() as stack, httpx.Client(base_url=server.url) as browser:
        open_sockets = [connect(stack, server.port) for _ in range(60)]
        assert browser.get("/").status_code == 200
        for made in open_sockets[:40]:
            assert read_all(made) == b""
        time.sleep(0.2)
        for made in open_sockets[42:]:
            made.setblocking(False)
            with pytest.raises(BlockingIOError):
                made.recv(1)
        assert browser.get("/").status_code == 200


@pytest.mark.parametrize("options", [FEW])
def test_who_is_between_two_requests_stays_when_sockets_come_that_ask_nothing(server: Any) -> None:
    with ExitStack() as stack:
        person = connect(stack, server.port)
        assert ask(person).startswith(b"HTTP/1.1 404 ")
        slow = [connect(stack, server.port) for _ in range(19)]
        time.sleep(1.5)
        slow += [connect(stack, server.port) for _ in range(15)]
        assert [read_all(made) for made in slow[:15]] == [b""] * 15
        assert ask(person).startswith(b"HTTP/1.1 404 ")


def test_what_is_no_request_is_refused_in_a_sentence(server: Any) -> None:
    with ExitStack() as stack:
        made = connect(stack, server.port)
        made.sendall(b"\x16\x03\x01 no http at all\r\n\r\n")
        reply = read_all(made)
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert b"frame-ancestors 'none'" in reply
        assert b'{"error": "' in reply
