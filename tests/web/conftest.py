"""What tests of the annotation page share: a pool, a ledger over it, and the real server as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from seral import storage
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.pool.shards import FORMAT, MANIFEST
from seral.schema import UTTERANCE
from seral.web.app import create_app
from seral.web.options import PageOptions
from seral.web.server import make_site
from seral.web.sessions import HEADER

CLASSES = ("anger", "happiness", "neutral", "sadness")
IDS = [f"calls-{number:03d}" for number in range(40)]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
FLAGS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a microphone that beeps
URL = "http://testserver"
Open = Callable[..., Any]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory, speech: Callable[[float, int], NDArray[np.float32]]) -> str:
    """Forty clips in two shards of several row groups; the page needs audio and ids of a pool, nothing else."""
    uri = str(tmp_path_factory.mktemp("web") / "pool")
    for shard, ids in (("one", IDS[::2]), ("two", IDS[1::2])):
        rows = [{"utterance_id": name, "audio": flac(speech(0.4, IDS.index(name)))} for name in ids]
        table = pa.Table.from_pylist(rows, UTTERANCE)
        storage.write_table(storage.join(uri, "utterances", f"{shard}.parquet"), table, row_group_rows=6)
    shards = {shard: {"rows": 20} for shard in ("one", "two")}
    storage.write_json(storage.join(uri, MANIFEST), {"format": FORMAT, "pool_hash": "", "shards": shards})
    return uri


def flac(samples: NDArray[np.float32]) -> bytes:
    sink = BytesIO()
    sf.write(sink, samples, 16_000, format="FLAC")
    return sink.getvalue()


@pytest.fixture
def project() -> Project:
    """What is asked; a module may say otherwise."""
    return Project(classes=CLASSES)


@pytest.fixture
def ledger(tmp_path: Path, project: Project) -> Iterator[Ledger]:
    """A ledger that asks one person about each clip."""
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), project)
    ledger.ask("evaluation", IDS, purpose="evaluation")
    yield ledger
    ledger.close()


class Server:
    """`seral labels serve` as a process of its own, to be killed and started again."""

    def __init__(self, folder: Path, pool: str, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"{'https' if '--tls-cert' in options else 'http'}://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._command = [sys.executable, "-m", "seral", "labels", "serve", "--port", str(self.port), *options]
        self._command += ["--ledger", str(folder / "labels.sqlite"), "--pool", pool]
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "the server did not start within 30 s"
            try:
                httpx.get(f"{self.url}/", timeout=1, verify=False)
                return
            except httpx.TransportError:
                time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: no time to put anything away."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def options() -> tuple[str, ...]:
    """Options of the server; a test may say otherwise."""
    return ()


@pytest.fixture
def server(ledger: Ledger, tmp_path: Path, pool: str, options: tuple[str, ...]) -> Iterator[Server]:
    """The server over `ledger` and `pool`."""
    server = Server(tmp_path, pool, *options)
    yield server
    server.kill()
    assert not re.search(r"Traceback|/in/", server.log.read_text()), server.log.read_text()


@pytest.fixture(scope="module")
def launched(chromium: str) -> Iterator[Browser]:
    """Chromium for the tests of one file."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


class Watched:
    """A browser that takes down what pages were refused by their Content-Security-Policy."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.refused = list[str]()
        self.contexts = list[BrowserContext]()

    def new_context(self, **options: Any) -> BrowserContext:
        context = self._browser.new_context(**options)
        self.contexts.append(context)
        context.on("console", lambda message: self._take_down(message.text))
        return context

    def new_page(self, **options: Any) -> Page:
        return self.new_context(**options).new_page()

    def _take_down(self, text: str) -> None:
        if "Content Security Policy" in text:
            self.refused.append(text)


@pytest.fixture
def browser(launched: Browser) -> Iterator[Watched]:
    """Chromium; whatever a test does, no page may try what its policy forbids."""
    browser = Watched(launched)
    yield browser
    for context in browser.contexts:
        context.close()
    assert browser.refused == []


@pytest.fixture
def client_of(ledger: Ledger, pool: str) -> Iterator[Open]:
    """`client_of("ada")`: a browser that has followed her link; None = one that nobody has let in."""
    made = []

    def client(name: str | None = None, role: str = "annotator", run: str | None = None, **options: Any) -> Any:
        site = make_site(ledger, pool, PageOptions(**{"url": URL, **options}), run)
        browser = TestClient(
            create_app(site), base_url=site.url.removesuffix("/labels"), follow_redirects=False, headers={HEADER: "1"}
        )
        made.append(browser)
        if name is not None:
            assert browser.get(f"/in/{ledger.add_person(name, role)}").status_code == 303  # type: ignore[arg-type]
        return browser

    yield client
    for browser in made:
        browser.close()
