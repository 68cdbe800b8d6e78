"""A served model by its own command: what it answers, refuses, counts and leaves behind, and its page in a browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile as sf
import torch
from numpy.typing import NDArray
from playwright.sync_api import Page, expect

from ser_models.build import build_model
from ser_models.encoders import load_encoder
from ser_models.exports import write_export
from ser_models.inference import Model
from seral.errors import OptionError
from seral.models.options import ServerOptions
from seral.models.serve import app, serve_model

CLASSES = ("anger", "happiness", "neutral", "sadness")
SECRET = "a-token-of-this-test"
NAME = "voice-of-somebody.flac"
pytestmark = pytest.mark.slow
Speech = Callable[[float, int], NDArray[np.float32]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, waves: list[NDArray[np.float32]]) -> Path:
    """An export whose head tells clips apart, with a temperature that shows; it is sure enough of half of the clips."""
    made = build_model(load_encoder("seral-tiny"), CLASSES).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.head.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("served") / "export"
    confidence_N = np.sort(Model(made, temperature=1.5).predict_proba(waves).max(1))
    assert confidence_N[2] - confidence_N[1] > 0.001, "clips too much alike to be sure of some"
    write_export(made, folder, "hf", temperature=1.5, abstain_below=float(confidence_N[1:3].mean()))
    return folder


@pytest.fixture(scope="module")
def waves(speech: Speech) -> list[NDArray[np.float32]]:
    return [speech(seconds, number) for number, seconds in enumerate((0.5, 0.6, 1.5, 2.4))]


def flac(wave_S: NDArray[np.float32]) -> bytes:
    sink = io.BytesIO()
    sf.write(sink, wave_S, 16_000, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


class Served:
    """`seral serve` as a process of its own, which wants a token."""

    def __init__(self, model: Path, folder: Path, temporary: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.log, self.temporary = f"http://127.0.0.1:{self.port}", folder / "log", temporary
        self.client = httpx.Client(base_url=self.url, timeout=30, headers={"Authorization": f"Bearer {SECRET}"})
        (folder / "token").write_text(f"{SECRET}\n")
        command = [sys.executable, "-m", "seral", "serve", str(model), "--port", str(self.port), "--replicas", "2"]
        for setting in (
            "max_duration_s=3",
            "max_upload_mb=1",
            "batch_wait_s=0.2",
            "max_files=12",
            "cpus=2",
            "abstain=true",
        ):
            command += ["--set", setting]
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {"SERAL_SERVE_TOKEN_FILE": str(folder / "token"), "RAY_TMPDIR": str(temporary)}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 300
        while f"is served at {self.url}" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, "it did not serve within five minutes"
            time.sleep(0.1)

    def predict(self, *contents: bytes) -> httpx.Response:
        return self.client.post("/predict", files=[("clip", (NAME, content)) for content in contents])

    def count(self, name: str) -> float:
        text = self.client.get("/metrics").text
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    temporary = Path("/tmp") / f"seral-serve-{os.getpid()}"  # a socket's path must be short
    temporary.mkdir(mode=0o700)
    server = Served(model, tmp_path_factory.mktemp("server"), temporary)
    try:
        server.wait()
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.client.close()
        shutil.rmtree(temporary, ignore_errors=True)


def test_it_answers_what_the_model_says_of_each_clip(
    served: Served, model: Path, waves: list[NDArray[np.float32]]
) -> None:
    expected_NC = Model.load(model).predict_proba([np.round(wave_S * 32768) / np.float32(32768) for wave_S in waves])
    assert expected_NC.std(0).max() > 0.01, "clips too much alike to show a difference"
    rows = served.predict(*map(flac, waves)).json()["predictions"]
    share_NC = [[row["probabilities"][name] for name in CLASSES] for row in rows]
    np.testing.assert_allclose(share_NC, expected_NC, atol=1e-4)
    named = Model.load(model).predict(waves, unsure="unsure")
    assert [row["predicted"] or "unsure" for row in rows] == named
    assert [row["unsure"] for row in rows] == [name == "unsure" for name in named]
    assert named.count("unsure") == 2
    assert [row["seconds"] for row in rows] == [len(wave_S) / 16_000 for wave_S in waves]
    assert {row["file"] for row in rows} == {NAME}
    (alone,) = served.client.post("/predict", content=flac(waves[0])).json()["predictions"]
    assert alone["probabilities"] == pytest.approx(rows[0]["probabilities"], abs=1e-5)


def test_it_refuses_in_a_sentence(served: Served, waves: list[NDArray[np.float32]]) -> None:
    good, many = flac(waves[0]), served.predict(*[flac(waves[0])] * 13)
    silent, long = flac(np.zeros(16_000, np.float32)), flac(np.tile(waves[3], 2))
    for answer, status, words in (
        (httpx.post(f"{served.url}/predict", content=good), 401, "this server wants its token"),
        (httpx.get(f"{served.url}/metrics"), 401, "this server wants its token"),
        (httpx.post(f"{served.url}/predict", headers={"Authorization": "Bearer wrong"}), 401, "wants its token"),
        (served.predict(b"no audio at all"), 422, f"{NAME}: not-audio"),
        (served.predict(good, silent), 422, f"{NAME}: silent"),
        (served.predict(long), 422, f"{NAME}: too-long: 4.8 s, the most is 3 s"),
        (served.predict(good[: len(good) // 2]), 422, f"{NAME}: truncated"),
        (served.predict(bytes(1_100_000)), 413, "a request has at most 1000000 bytes"),
        (many, 400, "Too many files. Maximum number of files is 12"),
        (served.client.post("/predict", data={"clip": "text"}, files={}), 422, "clip: not-audio"),
        (served.client.post("/predict"), 422, "clip: empty: 0 bytes"),
        (served.client.get("/predict"), 405, "Method Not Allowed"),
    ):
        assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert httpx.get(f"{served.url}/health").json() == {"status": "ok", "classes": list(CLASSES), "dimensions": []}


def test_it_counts_requests_and_takes_clips_together(served: Served, waves: list[NDArray[np.float32]]) -> None:
    names = ('seral_requests_total{status="200"}', 'seral_requests_total{status="422"}', "seral_request_seconds_count")
    before, clips = [served.count(name) for name in names], served.count("seral_batch_clips_sum")
    batches = served.count("seral_batch_clips_count")
    served.predict(*map(flac, waves * 3))
    served.predict(b"nothing")
    assert [served.count(name) for name in names] == [before[0] + 1, before[1] + 1, before[2] + 2]
    assert served.count("seral_batch_clips_sum") == clips + 12
    assert served.count("seral_batch_clips_count") - batches < 12, "no two clips were taken together"


def test_nothing_of_a_clip_is_left_behind(served: Served, waves: list[NDArray[np.float32]]) -> None:
    content = flac(waves[2])
    assert served.predict(content, b"junk").status_code == 422
    assert served.predict(content).status_code == 200
    files = [path for path in served.temporary.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files, "Ray's own files are looked through"
    for path in (*files, served.log):
        stored = path.read_bytes()
        assert NAME.encode() not in stored, path
        assert content[200:264] not in stored, path


class Visit:
    """The page, with the token that it asks for."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        page.goto(url)
        expect(page.get_by_role("heading", name="Drop a clip of speech")).to_be_visible()

    def drop(self, name: str, content: bytes) -> None:
        script = """([name, bytes]) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], name, { type: "audio/flac" }));
            document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }"""
        self.page.evaluate(script, [name, list(content)])

    def open_the_door(self) -> None:
        self.page.get_by_label("Token").fill(SECRET)
        self.page.keyboard.press("Enter")


def test_a_clip_that_is_dropped_shows_its_classes(
    served: Served, browser: Any, waves: list[NDArray[np.float32]]
) -> None:
    page = browser.new_page(color_scheme="dark")
    visit = Visit(page, served.url)
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    visit.drop("mine.flac", flac(waves[1]))
    expect(page.locator("#state")).to_contain_text("this server wants its token")
    visit.open_the_door()
    expect(page.locator(".answer")).to_have_count(1)
    expect(page.locator("#door")).to_be_hidden()
    (row,) = served.predict(flac(waves[1])).json()["predictions"]
    expect(page.locator(".predicted")).to_have_text(row["predicted"] or "unsure")
    expect(page.locator(".file")).to_have_text("mine.flac · 0.6 s")
    shares = sorted(row["probabilities"].items(), key=lambda pair: -pair[1])
    lines = page.locator(".answer tbody tr").all_inner_texts()
    assert [re.split(r"\s+", line.strip(), maxsplit=1) for line in lines] == [
        [name, f"{100 * share:.1f} %"] for name, share in shares
    ]
    values = page.locator(".answer progress").evaluate_all("bars => bars.map((bar) => bar.value)")
    assert values == pytest.approx([share for _, share in shares])
    visit.drop("bad.flac", b"nothing")
    expect(page.locator("#state")).to_contain_text("bad.flac: not-audio")
    expect(page.locator(".answer")).to_have_count(1)


def test_the_page_says_where_the_model_does_not_answer(
    served: Served, browser: Any, waves: list[NDArray[np.float32]]
) -> None:
    visit = Visit(browser.new_page(), served.url)
    rows = served.predict(*map(flac, waves)).json()["predictions"]
    visit.drop("first.flac", flac(waves[0]))
    visit.open_the_door()
    expect(visit.page.locator(".answer")).to_have_count(1)
    for number, row in enumerate(rows[1:], start=2):
        visit.drop(f"{number}.flac", flac(waves[number - 1]))
        expect(visit.page.locator(".answer")).to_have_count(number)
        card = visit.page.locator(".answer", has_text=f"{number}.flac")
        expect(card.locator(".predicted")).to_have_text("unsure" if row["unsure"] else row["predicted"])
        expect(card.locator("tbody tr")).to_have_count(len(CLASSES))


def test_a_clip_is_recorded_by_keyboard(served: Served, browser: Any) -> None:
    page = browser.new_page(permissions=["microphone"])
    visit = Visit(page, served.url)
    page.keyboard.press("r")
    expect(page.get_by_role("button", name="Stop and listen")).to_be_visible()
    page.wait_for_timeout(1200)
    page.keyboard.press("r")
    expect(page.locator("#state")).to_contain_text("this server wants its token")
    visit.open_the_door()
    expect(page.locator(".file")).to_contain_text("recording.wav · 1.")
    expect(page.locator(".answer tbody tr")).to_have_count(len(CLASSES))


def test_a_signal_ends_it_in_a_sentence(served: Served) -> None:
    """The last test of this server: a supervisor sends the signal to it and to Ray's processes at once."""
    os.killpg(served.process.pid, signal.SIGTERM)
    assert served.process.wait(timeout=15) == 143
    assert served.log.read_text().splitlines()[-1] == "stopped by SIGTERM: the same command serves again"


def test_what_cannot_be_served_is_refused_before_ray_starts(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="no run, no model and no export of the format hf lies there"):
        serve_model(ServerOptions(model=str(tmp_path)))
    without = shutil.copytree(model, tmp_path / "without")
    config = json.loads((without / "config.json").read_text())
    (without / "config.json").write_text(json.dumps(config | {"head": config["head"] | {"abstain_below": None}}))
    with pytest.raises(OptionError, match=r"abstain: .* has no threshold"):
        serve_model(ServerOptions(model=str(without), abstain=True))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OptionError, match=r"nothing can listen on 127\.0\.0\.1:.*: give another --port"):
            serve_model(ServerOptions(model=str(model), port=taken.getsockname()[1]))
    monkeypatch.setenv("SERAL_SERVE_TOKEN_FILE", str(tmp_path / "nowhere"))
    with pytest.raises(OptionError, match=r"SERAL_SERVE_TOKEN_FILE names .*nowhere, which cannot be read"):
        serve_model(ServerOptions(model=str(model)))


def test_the_application_takes_the_arguments_of_a_manifest(model: Path) -> None:
    assert type(app({"model": str(model), "replicas": 3})).__name__ == "Application"
    with pytest.raises(OptionError, match=r"unknown option 'replica'; known here: model, .*replicas"):
        app({"model": str(model), "replica": 3})
    assert json.loads((model / "config.json").read_text())["head"]["temperature"] == 1.5
