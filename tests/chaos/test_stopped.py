"""A command that gets a signal: its status, one sentence, and nothing of it is left alive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from corpus_layouts.pool_rows import put_shard, row, set_shards

from jobs.bench.chaos.commands import SUBJECTS, differences
from jobs.bench.chaos.signals import complaints
from jobs.bench.chaos.watched import Running, title
from seral.labels.ledger import Ledger
from seral.labels.records import Project

BOTH = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])


def stop(running: Running, ready: Callable[[Running], bool], number: int) -> None:
    """Stop a command in a moment, and assert that it ended as it should."""
    assert running.wait_for(ready), running.outcome()
    end = running.strike(number)
    assert end.status == 128 + number, end
    assert complaints(end) == [], end
    assert end.last_line.startswith(f"stopped by {signal.Signals(number).name}: "), end


def imports(running: Running) -> bool:
    """Whether it has loaded NumPy, which is in the middle of what it loads."""
    return "numpy" in Path(f"/proc/{running.process.pid}/maps").read_text()


@BOTH
def test_while_it_is_loaded(tmp_path: Path, number: int) -> None:
    stop(Running(["loop", "run", "nothing.yaml"], tmp_path / "log"), imports, number)


@BOTH
def test_without_ray_and_then_the_same_bytes(tmp_path: Path, number: int) -> None:
    folder, twin = tmp_path / "stopped", tmp_path / "twin"
    words = [*SUBJECTS["generate"].words(tmp_path, folder), "--set", "utterances=60"]
    stop(Running(words, tmp_path / "log"), lambda _: len(list(folder.rglob("*.flac"))) >= 5, number)
    assert not (folder / "corpus" / "manifest.jsonl").exists()
    for out in (folder, twin):
        again = [*SUBJECTS["generate"].words(tmp_path, out), "--set", "utterances=60"]
        assert Running(again, tmp_path / "log").outcome().status == 0
    assert differences(SUBJECTS["generate"], folder, twin) == []


@BOTH
def test_of_the_page(tmp_path: Path, number: int) -> None:
    ledger, pool = str(tmp_path / "labels.sqlite"), str(tmp_path / "pool")
    set_shards(pool, {"made-1": put_shard(pool, "made-1", [row("made-00000000000000a1")])})
    with closing(Ledger.create(ledger, Project(classes=("anger", "joy")))) as opened:
        opened.ask("evaluation", ["made-00000000000000a1"], purpose="evaluation")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["labels", "serve", "--ledger", ledger, "--pool", pool, "--port", str(port)]

    def answers(_: Running) -> bool:
        with socket.socket() as page:
            return page.connect_ex(("127.0.0.1", port)) == 0

    stop(Running(words, tmp_path / "log"), answers, number)
    stop(Running(words, tmp_path / "log"), answers, number)  # the same command opens the page again


@BOTH
@pytest.mark.slow
def test_while_ray_starts(materials: Path, tmp_path: Path, number: int) -> None:
    words = SUBJECTS["loop"].words(materials, tmp_path / "loop")
    stop(Running(words, tmp_path / "log"), lambda running: bool(running.pids("GCS")), number)


STUBBORN = """
import sys, time
sys.path[:0] = {path!r}
from seral.process.ending import stoppable
with stoppable():
    ready = ["ready"]
    while True:
        try:
            while ready:
                print(ready.pop(), flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


CALLED_BY_C = """
import ctypes, sys, time
sys.path[:0] = {path!r}
from seral.process.ending import stoppable
def compare(one, other):
    print("ready", flush=True)
    time.sleep(60)
    return 0
with stoppable():
    compared = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(compare)
    ctypes.CDLL(None).qsort((ctypes.c_int * 2)(), 2, 4, compared)
    time.sleep(60)
"""


def stubborn(then: Callable[[subprocess.Popen[str]], None], program: str = STUBBORN) -> tuple[int, float, str]:
    """Status, seconds and words of a program that swallows what stops it."""
    program = program.format(path=[path for path in sys.path if path])
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    then(process)
    _, errors = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - started, errors


def test_who_does_not_end_is_ended() -> None:
    status, seconds, errors = stubborn(lambda process: None)
    assert (status, errors) == (143, "stopped by SIGTERM: the same command goes on, and what is complete is kept\n")
    assert 4 < seconds < 10


def test_what_c_code_swallows_comes_once_more() -> None:
    status, seconds, errors = stubborn(lambda process: None, CALLED_BY_C)
    assert (status, errors) == (143, "stopped by SIGTERM: the same command goes on, and what is complete is kept\n")
    assert seconds < 4


def test_a_second_signal_ends_it_at_once() -> None:
    def again(process: subprocess.Popen[str]) -> None:
        time.sleep(2)
        process.send_signal(signal.SIGTERM)

    status, seconds, errors = stubborn(again)
    assert status == 143
    assert errors.startswith("stopped by SIGTERM")
    assert seconds < 4


GUARDED = """
import os, subprocess, sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from seral.process.guard import Guard

def start(session, after_s):
    # A worker of Ray's, whose title is written over its environment, opens its log after a moment.
    log = Path({folder!r}, session, "logs", "worker.out")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    opens = f"import time; time.sleep({{after_s}}); log = open({{str(log)!r}}); time.sleep(300)"
    words = ["ray::Worker", "-I", "-c", opens]
    return subprocess.Popen(words, executable=sys.executable, env={{}}, start_new_session=True)

before = start(f"session_0_{{os.getpid()}}", 0)  # of a command that had the number before
time.sleep(.1)
guard = Guard(speaks=True)
with guard.marking():
    marked = subprocess.Popen(["sh", "-c", "sleep 300 & sleep 300"], start_new_session=True)
ours = start(f"session_1_{{os.getpid()}}", 1)
others = start("session_1_1", 0)
outside = subprocess.Popen(["sleep", "300"])
print(marked.pid, ours.pid, before.pid, others.pid, outside.pid, flush=True)
time.sleep(300)
"""


def test_the_guard_ends_what_is_of_its_ray_and_nothing_else(tmp_path: Path) -> None:
    program = GUARDED.format(path=[path for path in sys.path if path], folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        marked, ours, *strangers = map(int, process.stdout.readline().split())
        process.kill()
        try:
            # The guard writes to the program's standard error when all that is its Ray's is gone.
            assert process.stderr.readline().startswith("error: the command was killed")
            assert "sleep" not in title(marked)
            assert "ray::Worker" not in title(ours)
            assert [title(pid).split()[0] for pid in strangers] == ["ray::Worker", "ray::Worker", "sleep"]
        finally:
            for pid in strangers:
                os.kill(pid, signal.SIGKILL)
