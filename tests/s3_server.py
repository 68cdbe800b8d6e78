"""A real S3 server (moto's) in this process, behind a door that can be told to be busy."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

BUSY = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'

SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=someone/20260101/us-east-1/s3/aws4_request"}
"""Who puts something there; the server does not check signatures, and anonymous people may not put anything twice."""


@dataclass
class Door:
    """Requests to the server pass here; of those for a key some may be turned away first."""

    url: str
    behind: str
    """Host and port of the server itself."""
    refuse: Counter[str] = field(default_factory=Counter)
    """End of a path -> requests for it that are still to be answered with 503."""
    refused: Counter[str] = field(default_factory=Counter)
    """End of a path -> requests that were."""

    def turns_away(self, path: str) -> bool:
        for end, left in self.refuse.items():
            if left > 0 and path.partition("?")[0].endswith(end):
                self.refuse[end] -= 1
                self.refused[end] += 1
                return True
        return False


@contextmanager
def s3_server() -> Iterator[Door]:
    """The server's door; its bucket `speech` is there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        behind = ("127.0.0.1", probe.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", behind[0], "-p", str(behind[1])]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    door = Door(url="", behind=f"{behind[0]}:{behind[1]}")

    class Porter(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if door.turns_away(self.path):
                self.answer(503, {"Content-Type": "application/xml"}, BUSY)
                return
            with closing(http.client.HTTPConnection(*behind, timeout=30)) as connection:
                connection.request(self.command, self.path, body, dict(self.headers.items()))
                reply = connection.getresponse()
                content = reply.read()
            passed_on = {n: v for n, v in reply.getheaders() if n.lower() not in ("connection", "transfer-encoding")}
            if self.command != "HEAD":
                passed_on = {n: v for n, v in passed_on.items() if n.lower() != "content-length"}
            self.answer(reply.status, passed_on, content)

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = pass_on

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    porter = ThreadingHTTPServer(("127.0.0.1", 0), Porter)
    threading.Thread(target=porter.serve_forever, daemon=True).start()
    door.url = f"http://127.0.0.1:{porter.server_address[1]}"
    try:
        _put(behind, "/speech", b"", until=time.monotonic() + 60)
        yield door
    finally:
        porter.shutdown()
        porter.server_close()
        server.kill()
        server.wait()


def _put(to: tuple[str, int], path: str, data: bytes, until: float = 0.0) -> None:
    """Put something at a path of a server, which may have to start first."""
    while True:
        try:
            with closing(http.client.HTTPConnection(*to, timeout=30)) as connection:
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


def use(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lead this process to the server."""
    for name, value in environment(door).items():
        monkeypatch.setenv(name, value)


def upload(folder: Path, prefix: str, door: Door) -> None:
    """Put all files of a folder into the bucket, as they are, past the door."""
    host, port = door.behind.split(":")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = quote(f"/speech/{prefix}/{path.relative_to(folder).as_posix()}")
        _put((host, int(port)), key, path.read_bytes())
