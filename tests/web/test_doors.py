"""TLS, names of the server, proxies and single sign-on: the real server, by itself and behind a real nginx."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from seral.errors import OptionError
from seral.labels.ledger import Ledger
from seral.options import parse
from seral.web.options import PageOptions
from seral.web.server import make_site, serve, warnings
from seral.web.sessions import HEADER
from tests.web.conftest import Server

Open = Callable[..., Any]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "people.md"
USER = "X-Remote-User"
PROXIED = ("--proxy", "127.0.0.1")
SIGNED_ON = (*PROXIED, "--user-header", USER)
ELSEWHERE = ("--proxy", "192.0.2.1", "--user-header", USER)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate of 127.0.0.1 and labels.example.org, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "labels.crt"), str(folder / "labels.key")
    names = "subjectAltName=IP:127.0.0.1,DNS:labels.example.org"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=labels.example.org", "-addext", names, "-out", files[0], "-keyout", files[1]]
    subprocess.run(command, check=True, capture_output=True)
    return files


@pytest.fixture
def tls_server(ledger: Ledger, tmp_path: Path, pool: str, certificate: tuple[str, str]) -> Iterator[Server]:
    """The server with a certificate of its own."""
    server = Server(
        *(tmp_path, pool, "--set", "request_timeout_s=1.5"),
        *("--tls-cert", certificate[0], "--tls-key", certificate[1]),
    )
    yield server
    server.kill()


def test_the_server_speaks_https_by_itself(tls_server: Server, certificate: tuple[str, str], ledger: Ledger) -> None:
    trust = ssl.create_default_context(cafile=certificate[0])
    with httpx.Client(base_url=tls_server.url, verify=trust, headers={HEADER: "1"}) as browser:
        entered = browser.get(f"/in/{ledger.add_person('ada')}")
        assert entered.status_code == 303
        assert "Secure" in entered.headers["set-cookie"]
        assert browser.get("/api/me").json()["person"] == "ada"
        with socket.create_connection(("127.0.0.1", tls_server.port)) as silent:
            silent.settimeout(10)
            assert browser.get("/api/me").status_code == 200
            assert silent.recv(1) == b"", "a handshake that does not come is given up"
    log = tls_server.log.read_text()
    assert f"https://127.0.0.1:{tls_server.port}" in log
    assert "warning" not in log


def test_what_is_no_certificate_is_told(tmp_path: Path, certificate: tuple[str, str]) -> None:
    with pytest.raises(OptionError, match="give both files or none"):
        parse(PageOptions, {"tls_cert": "labels.crt"})
    with pytest.raises(OptionError, match="reached by https, and url is http://labels"):
        parse(PageOptions, {"tls_cert": "labels.crt", "tls_key": "labels.key", "url": "http://labels"})
    (tmp_path / "no.pem").write_text("hello")
    for cert, key in ((tmp_path / "no.pem", certificate[1]), (tmp_path / "gone", certificate[1]), certificate[::-1]):
        options = parse(PageOptions, {"tls_cert": str(cert), "tls_key": str(key)})
        with pytest.raises(OptionError, match="are no certificate with its key"):
            serve(None, options, ledger="labels.sqlite", pool="pool")


@pytest.mark.parametrize(
    ("values", "warns"),
    [
        ({}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"host": "0.0.0.0"}, True),
        ({"host": "::"}, True),
        ({"host": "labels.example.org"}, True),
        ({"host": "0.0.0.0", "url": "https://labels.example.org"}, True),
        ({"host": "0.0.0.0", "tls_cert": "a", "tls_key": "b"}, False),
    ],
)
def test_plain_http_beyond_this_machine_is_warned_of(values: dict[str, Any], warns: bool) -> None:
    assert [line.startswith("warning: everybody who reaches") for line in warnings(parse(PageOptions, values))] == (
        [True] if warns else []
    )


@pytest.mark.parametrize("options", [("--host", "0.0.0.0")])
def test_the_server_says_so_at_its_start(server: Any) -> None:
    assert "since it speaks plain http; give --tls-cert and --tls-key" in server.log.read_text()


@pytest.mark.parametrize(
    ("values", "names", "status"),
    [
        ({}, {"testserver": 200, "TESTSERVER:80": 200, "127.0.0.1:8800": 200, "[::1]": 200}, 200),
        ({}, {"evil.example": 400, "testserver.evil.example": 400, "": 400, "[": 400}, 400),
        ({"trusted_hosts": ("labels.lan",)}, {"labels.lan:8800": 200, "evil.example": 400}, 200),
        ({"trusted_hosts": ("*",)}, {"evil.example": 200}, 200),
        ({"url": None, "host": "0.0.0.0"}, {"192.0.2.7:8800": 200}, 200),
        ({"url": None}, {"localhost:8800": 200, "evil.example": 400}, 200),
    ],
)
def test_the_server_answers_to_its_names(
    client_of: Open, values: dict[str, Any], names: dict[str, int], status: int
) -> None:
    browser = client_of(**values)
    for name, status in names.items():
        reply = browser.get("/", headers={"Host": name})
        assert reply.status_code == status, name
        if status == 400:
            assert "name it by --trusted-host" in reply.json()["error"]
            assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]


def guess(server: Any, number: int, address: str) -> int:
    return httpx.get(f"{server.url}/in/guess-{number}", headers={"X-Forwarded-For": address}).status_code


@pytest.mark.parametrize("options", [PROXIED])
def test_a_proxy_says_who_asks(server: Any) -> None:
    assert [guess(server, number, "203.0.113.9, 192.0.2.1") for number in range(11)] == [403] * 10 + [429]
    assert guess(server, 11, "203.0.113.9, 192.0.2.2") == 403, "the last address counts, which the proxy has seen"
    assert guess(server, 12, "192.0.2.1, 127.0.0.1") == 429, "a proxy's own address is passed over"


def test_nobody_else_says_who_asks(server: Any) -> None:
    assert [guess(server, number, f"192.0.2.{number}") for number in range(11)] == [403] * 10 + [429]


@pytest.mark.parametrize("options", [SIGNED_ON])
def test_a_proxy_signs_people_in(server: Any, ledger: Ledger) -> None:
    ledger.add_person("zoë")
    ledger.add_person("lea", "lead")
    link = ledger.add_person("ben")

    def ask(path: str, *users: str, method: str = "GET") -> httpx.Response:
        headers = [(USER, user.encode()) for user in users] + [(HEADER, b"1")]
        return httpx.request(method, server.url + path, headers=headers)

    me = ask("/api/me", "zoë").json()
    assert (me["person"], me["role"], me["may_sign_out"]) == ("zoë", "annotator", False)
    assert ask("/api/me", "zoe\u0308").json()["person"] == "zoë"
    assert ask("/api/lead/progress", "lea").status_code == 200
    assert ask("/api/lead/progress", "zoë").status_code == 403
    assert ask("/api/claim", "zoë", method="POST").status_code == 200
    assert "not among those who may label" in ask("/api/me", "eve").json()["error"]
    assert ask("/api/me", "zoë", "lea").json() == {"error": "the proxy has named several people"}
    assert ask("/api/sign-out", "zoë", method="POST").status_code == 422
    assert ask(f"/in/{link}", "zoë").status_code == 409
    assert ask(f"/in/{link}", "ben").status_code == 303
    assert ask("/api/me").status_code == 403
    ledger.revoke("zoë")
    assert ask("/api/me", "zoë").status_code == 403
    with httpx.Client(base_url=server.url) as browser:
        browser.get(f"/in/{link}")
        assert browser.get("/api/me").json()["person"] == "ben", "whom no proxy has named comes in by a link"
        assert browser.get("/api/me", headers={USER: "lea"}).json()["person"] == "lea"


@pytest.mark.parametrize("options", [ELSEWHERE])
def test_nobody_else_signs_anybody_in(server: Any, ledger: Ledger) -> None:
    ledger.add_person("lea", "lead")
    for header in (USER, USER.lower(), USER.upper()):
        assert httpx.get(f"{server.url}/api/me", headers={header: "lea"}).status_code == 403
    forwarded = {USER: "lea", "X-Forwarded-For": "192.0.2.1"}
    assert httpx.get(f"{server.url}/api/me", headers=forwarded).status_code == 403


def test_what_cannot_be_trusted_is_told(ledger: Ledger, pool: str) -> None:
    with pytest.raises(OptionError, match="believed from a proxy alone"):
        parse(PageOptions, {"user_header": USER})
    with pytest.raises(OptionError, match="an address or a network"):
        make_site(ledger, pool, parse(PageOptions, {"proxies": ["labels.example.org"]}))
    wide = parse(PageOptions, {"user_header": USER, "proxies": ["10.0.0.0/8"]})
    assert warnings(wide) == [
        f"warning: any machine of 10.0.0.0/8 can say in {USER} that it is anybody; name the proxy's own address"
    ]


@pytest.fixture(scope="module")
def nginx() -> str:
    """The program of Debian's package `nginx`; skipped without it, unless everything has to run."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        if os.environ.get("SERAL_TEST_ALL"):
            pytest.fail("nginx is not installed")
        pytest.skip("nginx is not installed (Debian: nginx)")
    return program


@pytest.fixture
def behind_nginx(
    nginx: str, server: Any, tmp_path: Path, certificate: tuple[str, str], options: tuple[str, ...]
) -> Iterator[str]:
    """The server behind nginx as docs/people.md has it, ports and files of the test in their places."""
    blocks = re.findall(r"```nginx\n(.*?)```", DOCS.read_text(), re.S)
    block = blocks[0] if USER not in options else blocks[0].replace("    location / {", blocks[1] + "    location / {")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    secret = subprocess.run(["openssl", "passwd", "-apr1", "secret"], check=True, capture_output=True, text=True)
    (tmp_path / "labels.htpasswd").write_text(f"ada:{secret.stdout}")
    for before, after in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("127.0.0.1:8800", f"127.0.0.1:{server.port}"),
        ("/etc/nginx/labels.crt", certificate[0]),
        ("/etc/nginx/labels.key", certificate[1]),
        ("/etc/nginx/labels.htpasswd", str(tmp_path / "labels.htpasswd")),
    ):
        assert before in block or "htpasswd" in before
        block = block.replace(before, after)
    temporary = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi"))
    temporary += f"scgi_temp_path {tmp_path}/scgi;"
    user = "user root;" if os.geteuid() == 0 else ""  # so that its workers read the files of the test
    (tmp_path / "nginx.conf").write_text(
        f"{user}daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/nginx.log; events {{}}\n"
        f"http {{ access_log {tmp_path}/access.log; {temporary}\n{block} }}\n"
    )
    command = [nginx, "-p", str(tmp_path), "-e", str(tmp_path / "nginx.log"), "-c", str(tmp_path / "nginx.conf")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 20
    while True:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    yield f"https://labels.example.org:{port}"
    process.terminate()
    process.communicate()


def browser_of(url: str, certificate: tuple[str, str], **options: Any) -> httpx.Client:
    """A browser that asks nginx for labels.example.org, which is this machine, from another address than nginx has."""
    trust = ssl.create_default_context(cafile=certificate[0])
    host = httpx.URL(url).host
    headers = {HEADER: "1", "Host": host, "Origin": f"https://{host}"}
    transport = httpx.HTTPTransport(verify=trust, local_address="127.0.0.2")
    return httpx.Client(base_url=url.replace(host, "127.0.0.1"), transport=transport, headers=headers, **options)


@pytest.mark.parametrize("options", [("--url", "https://labels.example.org", *PROXIED)])
def test_the_example_of_nginx_serves_the_page(
    behind_nginx: str, server: Any, certificate: tuple[str, str], ledger: Ledger, tmp_path: Path
) -> None:
    token = ledger.add_person("ada")
    with browser_of(behind_nginx, certificate) as browser:
        entered = browser.get(f"/in/{token}")
        assert (entered.status_code, entered.headers["location"]) == (303, "../")
        assert "Secure" in entered.headers["set-cookie"]
        cookie = entered.headers["set-cookie"].partition(";")[0]
        (clip,) = browser.post("/api/claim?count=1", headers={"Cookie": cookie}).json()["clips"]
        sound = browser.get(f"/api/audio/{clip['utterance_id']}", headers={"Cookie": cookie, "Range": "bytes=0-3"})
        assert (sound.status_code, sound.content) == (206, b"fLaC")
        for number in range(11):
            last = browser.get(f"/in/guess-{number}", headers={"X-Forwarded-For": f"192.0.2.{number}"})
        assert last.status_code == 429, "nginx adds the address that it sees, and that one counts"
        assert browser.get("/api/me", headers={"Cookie": cookie}).status_code == 200
    deadline = time.monotonic() + 20
    while "/api/me" not in (log := (tmp_path / "access.log").read_text()):  # nginx writes it after it has answered
        assert time.monotonic() < deadline, log
        time.sleep(0.05)
    assert "/in/" not in log


@pytest.mark.parametrize("options", [("--url", "https://labels.example.org", *SIGNED_ON)])
def test_the_example_of_single_sign_on_signs_people_in(
    behind_nginx: str, server: Any, certificate: tuple[str, str], ledger: Ledger
) -> None:
    ledger.add_person("ada")
    ledger.add_person("lea", "lead")
    with browser_of(behind_nginx, certificate) as stranger:
        assert stranger.get("/api/me", headers={USER: "lea"}).status_code == 401
    with browser_of(behind_nginx, certificate, auth=("ada", "secret")) as browser:
        assert browser.get("/api/me").json()["person"] == "ada"
        assert browser.get("/api/me", headers={USER: "lea"}).json()["person"] == "ada", "nginx says who it is"
        assert browser.post("/api/claim").status_code == 200
