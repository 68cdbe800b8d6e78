"""A real S3 server (moto's), and a door before it that fails as networks and stores do, by a seed.

    with s3_server() as door:
        door.faults = Faults(share=0.1, kinds=("503", "reset"), seed=7)
        subprocess.run(..., env=os.environ | environment(door))

All passes through: uploads in chunks too, and several requests of one connection.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

STATUS = {
    "503": ("503 Slow Down", "SlowDown"),
    "500": ("500 Internal Server Error", "InternalError"),
    "429": ("429 Too Many Requests", "TooManyRequests"),
    "403": ("403 Forbidden", "AccessDenied"),
}
"""Kind of a fault -> status line and code of the answer that is sent for the server's."""
KINDS = (*STATUS, "reset", "lost", "cut", "slow", "stall", "half")
"""An answer of STATUS; a connection reset before the work, or after it; an answer cut in its middle; one that comes
drop by drop; one that never comes; one of which half comes."""
SLOW_S, DROPS = 1.0, 10
NEVER_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Faults of requests: drawn for each method, path and count of such requests, whatever their order."""

    share: float = 0.0
    """Of all requests."""
    kinds: Sequence[str] = ("503",)
    """Drawn from, of KINDS."""
    methods: Sequence[str] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    """Of the requests that may fail."""
    path: str = ""
    """Part of the paths that may fail."""
    seed: int = 0

    def drawn(self, method: str, path: str, number: int) -> str | None:
        """The fault of the request of this number for a path, None for none."""
        dice = random.Random(f"{self.seed} {method} {path} {number}")
        if method not in self.methods or self.path not in path or dice.random() >= self.share:
            return None
        return dice.choice(self.kinds)


@dataclass
class Request:
    """One request as it came."""

    method: str
    path: str
    data: bytes
    """Head and body, as the server is to have them."""


class Door:
    """Requests to the server pass through; some fail."""

    def __init__(self, behind: str) -> None:
        self.behind = behind
        """Host and port of the server itself."""
        self.faults = Faults()
        self.refuse: Counter[str] = Counter()
        """End of a path -> requests for it that are still to be answered with 503."""
        self.refused: Counter[str] = Counter()
        """End of a path -> requests that were."""
        self.requests = 0
        self.injected: Counter[str] = Counter()
        """Kind of a fault -> requests that it came over."""
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._port = 0
        self.open()

    @property
    def url(self) -> str:
        """Address of the door."""
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        """Let requests in; at the port that the door had before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen(128)
        self._listener, self._port = listener, listener.getsockname()[1]
        threading.Thread(target=self._let_in, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Die: what is under way is reset, and connections are refused from now on."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            clients, self._clients = self._clients, set()
        for client in clients:
            _reset(client)

    def _let_in(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with self._lock:
                    self._clients.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError), client, client.makefile("rb") as stream:
            while (request := _next_request(client, stream)) is not None and self._answer(client, request):
                pass
        with self._lock:
            self._clients.discard(client)

    def _fault(self, request: Request) -> str | None:
        with self._lock:
            self.requests += 1
            self._numbers[request.method, request.path] += 1
            for end, left in self.refuse.items():
                if left > 0 and request.path.partition("?")[0].endswith(end):
                    self.refuse[end] -= 1
                    self.refused[end] += 1
                    return "503"
            number = self._numbers[request.method, request.path]
            kind = self.faults.drawn(request.method, request.path, number)
            if kind is not None:
                self.injected[kind] += 1
            return kind

    def _answer(self, client: socket.socket, request: Request) -> bool:
        """Answer a request; whether the connection lives on."""
        kind = self._fault(request)
        if kind in STATUS:
            line, code = STATUS[kind]
            body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>Come again.</Message></Error>'
            head = f"HTTP/1.1 {line}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall((head + (body if request.method != "HEAD" else "")).encode())
            return True
        if kind == "reset":
            _reset(client)
            return False
        if kind == "stall":
            _wait_for_the_end(client)
            return False
        reply, lives_on = self._ask(request)
        if kind == "lost":
            _reset(client)
            return False
        if kind in ("cut", "half"):
            client.sendall(reply[: len(reply) // 2])
            if kind == "half":
                _wait_for_the_end(client)
            return False
        step = -(-len(reply) // (DROPS if kind == "slow" else 1))
        for at in range(0, len(reply), step):
            client.sendall(reply[at : at + step])
            time.sleep(SLOW_S / DROPS if kind == "slow" else 0.0)
        return lives_on

    def _ask(self, request: Request) -> tuple[bytes, bool]:
        """The server's answer, and whether its end is known without the connection's."""
        host, port = self.behind.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as server, server.makefile("rb") as stream:
            server.sendall(request.data)
            lines = _head(stream)
            names = {line.partition(b":")[0].strip().lower() for line in lines[1:]}
            status = lines[0].split(b" ", 1)[1]
            content = b"" if request.method == "HEAD" else stream.read()
        passed_on = [line for line in lines[1:] if line.partition(b":")[0].strip().lower() != b"connection"]
        measured = b"content-length" in names or status[:3] in (b"204", b"304")
        if not measured and request.method != "HEAD" and b"transfer-encoding" not in names:
            passed_on.append(b"Content-Length: %d" % len(content))
            measured = True
        head = b"\r\n".join([b"HTTP/1.1 " + status, *passed_on])
        return head + b"\r\n\r\n" + content, measured


def _head(stream: BinaryIO) -> list[bytes]:
    """Lines of the head of a request or an answer, none at the end of the connection."""
    lines = []
    while (line := stream.readline()) not in (b"\r\n", b"\n", b""):
        lines.append(line.rstrip(b"\r\n"))
    return lines


def _next_request(client: socket.socket, stream: BinaryIO) -> Request | None:
    lines = _head(stream)
    if not lines:
        return None
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if fields.get(b"expect", b"").lower() == b"100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b"".join(_chunks(stream))
    else:
        body = stream.read(int(fields.get(b"content-length") or 0))
    method, path, _ = lines[0].decode("latin-1").split(" ", 2)
    dropped = (b"connection", b"expect")
    lines = [line for line in lines if line.partition(b":")[0].strip().lower() not in dropped]
    return Request(method, path, b"\r\n".join([*lines, b"Connection: close", b"", body]))


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """A body in chunks, as it came, with its trailers."""
    while size := stream.readline():
        yield size
        if not int(size.partition(b";")[0], 16):
            break
        yield stream.read(int(size.partition(b";")[0], 16) + 2)
    while line := stream.readline():
        yield line
        if line == b"\r\n":
            return


def _reset(client: socket.socket) -> None:
    """End a connection at once, as a machine does that has lost its power."""
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.shutdown(socket.SHUT_RD)
    client.close()


def _wait_for_the_end(client: socket.socket) -> None:
    """Say nothing until the other end hangs up, or the door dies."""
    client.settimeout(NEVER_S)
    while client.recv(1 << 16):
        pass


@contextmanager
def s3_server() -> Iterator[Door]:
    """The server's door; its bucket `speech` is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        behind = ("127.0.0.1", probe.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", behind[0], "-p", str(behind[1])]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    door = Door(f"{behind[0]}:{behind[1]}")
    try:
        put(door, "/speech", b"", until=time.monotonic() + 60)
        yield door
    finally:
        door.close()
        server.kill()
        server.wait()


SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=someone/20260101/us-east-1/s3/aws4_request"}
"""Someone who puts things there: no signature is checked, and anonymous people may not put anything twice."""


def put(door: Door, path: str, data: bytes, until: float = 0.0) -> None:
    """Put something at a path of the server, past the door; it may have to start first."""
    host, port = door.behind.split(":")
    while True:
        try:
            with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
                connection.request("PUT", path, data, SIGNED)
                reply = connection.getresponse()
                assert reply.status == 200, (reply.status, reply.getheaders(), reply.read())
                reply.read()
                return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def environment(door: Door) -> dict[str, str]:
    """Environment variables that lead to the server."""
    return {
        "AWS_ENDPOINT_URL": door.url,
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
