"""Submission to a real job server with token authentication, in a Ray of its own."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from seral.errors import AwaitingLabels, JobError
from seral.submit.options import SubmitOptions
from seral.submit.submit import Jobs, check, exit_code, uses_gpus

COUNT = '''
"""Count up in a file, going on where it stopped."""
import sys, time
from pathlib import Path
import seral
from seral.errors import AwaitingLabels
from seral.options import Options, run_job

class CountOptions(Options):
    run: str
    upto: int = 3
    pause_s: float = 0.0
    fail: bool = False
    labels: str | None = None

def count(options):
    print("code from", Path(seral.__file__).parent, flush=True)
    file = Path(options.run) / "count"
    file.parent.mkdir(parents=True, exist_ok=True)
    done = int(file.read_text()) if file.is_file() else 0
    for number in range(done + 1, options.upto + 1):
        time.sleep(options.pause_s)
        file.write_text(str(number))
        print(f"line {number}", flush=True)
    if options.fail:
        sys.exit("error: told to fail")
    if options.labels is not None and not Path(options.labels).is_file():
        raise AwaitingLabels("awaiting labels: none are at " + options.labels)

if __name__ == "__main__":
    run_job(CountOptions, count, __doc__)
'''


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray head that wants a token, which this process has."""
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={free_port()}"]
        command += [f"--dashboard-port={port}", "--num-cpus=2", "--disable-usage-stats", f"--temp-dir=/tmp/sj{port}"]
        # Ports of their own: other Rays on this machine have the usual ones.
        command += [f"--{name}={free_port()}" for name in ("dashboard-agent-listen-port", "metrics-export-port")]
        with (folder / "log").open("w") as log:
            head = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            Jobs(f"http://127.0.0.1:{port}")  # waits until it answers
            yield f"http://127.0.0.1:{port}"
        finally:
            head.terminate()  # ends all of this Ray, and only this one
            try:
                head.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(head.pid, signal.SIGKILL)
                head.wait()


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., SubmitOptions]:
    """`options(upto=5)`: how to submit the counting job."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "count.py").write_text(COUNT)

    def make(**values: Any) -> SubmitOptions:
        overrides = [f"{name}={value}" for name, value in {"run": tmp_path / "run", **values}.items()]
        return SubmitOptions(job="count", folder=str(folder), overrides=overrides)

    return make


def quick(server: str) -> Jobs:
    return Jobs(server, patience_s=30)


def follow(jobs: Jobs, name: str) -> tuple[str, dict[str, Any]]:
    chunks = list[str]()
    status = jobs.follow(name, chunks.append)
    return "".join(chunks), status


@pytest.mark.slow
def test_a_run_is_submitted_once_followed_stopped_and_taken_up_again(
    server: str, options: Callable[..., SubmitOptions], tmp_path: Path
) -> None:
    jobs = quick(server)
    slow = options(upto=60, pause_s=0.5)
    first = jobs.submit(slow)
    assert first.is_new
    while not (tmp_path / "run" / "count").is_file():
        time.sleep(0.2)
    # Twice is harmless; with other options it is refused while it runs.
    again = jobs.submit(slow)
    assert (again.name, again.is_new) == (first.name, False)
    with pytest.raises(JobError, match=rf"is being worked on by {first.name}, with other options"):
        jobs.submit(options(upto=3))
    assert jobs.stop(first.name) == "STOPPED"
    assert exit_code(jobs.status(first.name)) == 1
    # It goes on where it stopped.
    done = int((tmp_path / "run" / "count").read_text())
    longer = options(upto=done + 3)
    second = jobs.submit(longer)
    assert second.is_new
    assert second.name == first.name.removesuffix("1") + "2"
    text, status = follow(jobs, second.name)
    assert [line for line in text.splitlines() if line.startswith("line")] == [f"line {done + n}" for n in (1, 2, 3)]
    assert exit_code(status) == 0
    assert "runtime_resources/py_modules_files" in text, "the code that was sent, not what is installed"
    # What has ended well is not done again, unless it is asked for.
    assert not jobs.submit(longer).is_new
    third = jobs.submit(longer.model_copy(update={"again": True}))
    assert third.is_new
    follow(jobs, third.name)
    assert [job["name"] for job in jobs.all()][:3] == [third.name, second.name, first.name]
    assert jobs.all()[0]["run"] == str(tmp_path / "run")


@pytest.mark.slow
def test_a_failure_is_told_and_a_lost_connection_made_again(
    server: str, options: Callable[..., SubmitOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    with proxy(server) as (address, cut):
        jobs = quick(address)
        name = jobs.submit(options(upto=30, pause_s=0.2, fail=True)).name
        chunks = list[str]()

        def hear(text: str) -> None:
            chunks.append(text)
            if "line 5\n" in text or "line 15\n" in text:
                cut()

        status = jobs.follow(name, hear)
    lines = [line for line in "".join(chunks).splitlines() if line.startswith("line")]
    assert lines == [f"line {number}" for number in range(1, 31)], "each once, none lost"
    assert "told to fail" in "".join(chunks)
    assert status["state"] == "FAILED"
    assert exit_code(status) == 1
    assert cut.count >= 2


@pytest.mark.slow
def test_a_run_that_awaits_labels_has_not_failed_and_goes_on_by_the_same_command(
    server: str, options: Callable[..., SubmitOptions], tmp_path: Path
) -> None:
    jobs, labels = quick(server), tmp_path / "labels"
    job = options(labels=labels)
    command = [sys.executable, "-m", "seral", "jobs", "submit", "count", "--address", server, "--folder", job.folder]
    command += [word for override in job.overrides for word in ("--set", override)]
    submitted = subprocess.run(command, capture_output=True, text=True, check=False)
    assert submitted.returncode == AwaitingLabels.status
    name = str(jobs.all()[0]["name"])
    message = " ".join(submitted.stderr.split())
    assert re.search(rf"{name}: paused after [\d.]+ s\. awaiting labels: none are at {labels}", message)
    assert jobs.all()[0]["state"] == "SUCCEEDED", "to Ray, whose users would look for what is broken"
    status = jobs.status(name)
    assert (status["state"], status["message"]) == ("PAUSED", f"awaiting labels: none are at {labels}")
    labels.touch()
    second = jobs.submit(job)
    assert (second.is_new, second.name) == (True, name.removesuffix("1") + "2")
    _, status = follow(jobs, second.name)
    assert (status["state"], exit_code(status)) == ("SUCCEEDED", 0)
    assert not jobs.submit(job).is_new


def test_options_are_checked_before_anything_is_sent(options: Callable[..., SubmitOptions], tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"unknown option 'uptoo'; known here: run, upto, pause_s, fail, labels"):
        check(options(uptoo=3))
    with pytest.raises(JobError, match=r"run: 'runs/mine' must be absolute, or an address such as s3://"):
        check(options(run="runs/mine"))
    with pytest.raises(JobError, match=r"no job 'cuont' in .*; there are: adapt, .*, count, "):
        check(options().model_copy(update={"job": "cuont"}))
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"run": "s3://bucket/run", "upto": 7}))
    job = options().model_copy(update={"config": str(config), "overrides": ["pause_s=1"]})
    assert check(job) == {"run": "s3://bucket/run", "upto": 7, "pause_s": 1.0, "fail": False, "labels": None}


@pytest.mark.slow
def test_without_the_token_the_cluster_is_closed(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "seral", "jobs", "list", "--address", server],
        env={**os.environ, "RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "the cluster wants a token" in done.stderr


def test_a_verb_is_a_job_wherever_seral_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    screen = SubmitOptions(job="screen", overrides=["pool=s3://speech/pool", "similarity=0.97"])
    assert screen.program() == ["-m", "seral.verbs", "screen"]
    assert check(screen)["similarity"] == 0.97
    with pytest.raises(JobError, match="screen does not take these options: unknown option 'similarly'"):
        check(SubmitOptions(job="screen", overrides=["pool=s3://speech/pool", "similarly=0.97"]))
    with pytest.raises(JobError, match="audit is no cluster job: run `seral pool audit` here"):
        check(SubmitOptions(job="audit"))
    with pytest.raises(JobError, match=r"no job 'lop'; there are: adapt, .*Job files of your own: --folder FOLDER"):
        check(SubmitOptions(job="lop"))
    # Modules of one's own travel along, and are found where options are checked.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "outskirts.py").write_text("def far(candidates, k, rng, *, power: float = 1.0): ...")
    values = ["pool=s3://b/pool", "run=s3://b/run", "classes=[a, b]", "strategy={name: 'outskirts:far', power: 2}"]
    loop = SubmitOptions(job="loop", folder="mine", overrides=values)
    assert check(loop)["strategy"]["name"] == "outskirts:far"


class Refusing(BaseHTTPRequestHandler):
    """A server that refuses whatever it is asked."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_error(410)

    def log_message(self, *words: object) -> None:
        pass


def test_a_refusal_is_not_tried_again() -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(JobError, match=r"the job server refused: 410"):
            Jobs(f"http://127.0.0.1:{server.server_port}", patience_s=30)
        server.shutdown()
        assert len(server.asked) == 1  # type: ignore[attr-defined]
    with pytest.raises(JobError, match=r"head:8265 is no address of a job server: write http://head:8265"):
        Jobs("head:8265")


def test_gpus_that_would_stand_idle_are_refused(tmp_path: Path) -> None:
    values = ["pool=s3://b/pool", "encoder=seral-tiny"]
    assert not uses_gpus(check(SubmitOptions(job="features", overrides=values)))
    assert uses_gpus(check(SubmitOptions(job="features", overrides=[*values, "cluster.use_gpu=true"])))


def test_a_server_that_does_not_answer_is_named_with_the_remedy() -> None:
    with pytest.raises(JobError, match=r"no job server answers after 1 s[\s\S]*Name it with --address or RAY_ADDRESS"):
        Jobs(f"http://127.0.0.1:{free_port()}", patience_s=1)


@pytest.mark.slow
def test_an_unknown_submission_is_told_with_the_latest(server: str) -> None:
    with pytest.raises(JobError, match="the cluster knows no job 'seral-x-1'; the latest are"):
        Jobs(server).status("seral-x-1")


class Cut:
    """Ends all connections through a proxy."""

    def __init__(self) -> None:
        self.open: set[socket.socket] = set()
        self.count = 0

    def __call__(self) -> None:
        self.count += 1
        for connection in list(self.open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class proxy:
    """A way to a server that can be cut."""

    def __init__(self, server: str) -> None:
        host, port = server.removeprefix("http://").split(":")
        self._to = (host, int(port))

    def __enter__(self) -> tuple[str, Cut]:
        self._listener, self._cut = socket.create_server(("127.0.0.1", 0)), Cut()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}", self._cut

    def __exit__(self, *raised: object) -> None:
        self._listener.close()
        self._cut()
        for thread in self._threads:
            thread.join(10)
        for connection in self._ends:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._to)
            self._ends += [near, far]
            for source, target in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pass, args=(source, target), daemon=True))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        self._cut.open.add(source)
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        self._cut.open.discard(source)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
