"""Many annotators at once before one annotation server, which is killed and started again on the way.

    python -m jobs.bench.labels pool=POOL

The server is `seral labels serve`, a process of its own. The people are threads that do what the page does: claim two
clips, fetch the audio of the next, think, answer, and send again, under the same key, what was not confirmed. At the
end the ledger is counted against what everybody has said. With `slow` so many sockets besides send a request that
never ends, a byte every second, and are opened again as often as the server closes them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
from pydantic import Field

from seral import storage
from seral.errors import LabelError
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.options import Options, run_job
from seral.pool.shards import open_pool
from seral.progress import say

CLASSES = ("anger", "happiness", "neutral", "sadness")
RETRY_S = 0.5


class LabelsBenchOptions(Options):
    """Options of the label server benchmark."""

    pool: str
    """A pool of real speech."""
    ledger: str | None = None
    """Address of the ledger, such as the URL of an empty PostgreSQL database; None = SQLite in `work`."""
    people: int = Field(default=50, ge=1)
    """Annotators at once."""
    clips: int = Field(default=20, ge=1)
    """Clips that each of them labels, on average: they go on until nothing is left."""
    overlap: int = Field(default=2, ge=1)
    """People who hear each clip."""
    think_s: float = Field(default=2.0, ge=0)
    """Mean time between hearing a clip and the answer; drawn anew for each, 0 = as fast as the server can."""
    kills: int = Field(default=1, ge=0)
    """Times the server is killed (SIGKILL) and started again, at even distances."""
    slow: int = Field(default=0, ge=0)
    """Sockets that hold the server up (slow-loris)."""
    port: int = 8799
    """Port of the server."""
    seed: int = Field(default=0, ge=0)
    """Draws the times to think."""
    work: str = "runs/bench-labels"
    """Folder of the ledger and the raw numbers; what is there is replaced."""


@dataclass
class Record:
    """One person's record: seconds of every request that was answered, by its name, and their answers' keys."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    utterance_of: dict[str, str] = field(default_factory=dict)
    """Key of the answer -> utterance."""
    failed: int = 0
    """Requests that nobody answered, and that were sent again."""


def run_labels_bench(options: LabelsBenchOptions) -> str:
    """Label with everybody at once; returns a table and writes `work`/labels.json. Raises LabelError for any loss."""
    work = Path(options.work).resolve()
    storage.remove(str(work))
    work.mkdir(parents=True)
    url = options.ledger or str(work / "labels.sqlite")
    ledger = Ledger.create(url, Project(classes=CLASSES))
    needed = -(-options.people * options.clips // options.overlap)
    ids = sorted(open_pool(options.pool).ids["utterance_id"].to_pylist())[:needed]
    if len(ids) < needed:
        raise LabelError(
            f"{options.people} people with {options.clips} clips each need {needed}, the pool has {len(ids)}"
        )
    ledger.ask("bench", ids, purpose="round", round=0, overlap=options.overlap)
    tokens = [ledger.add_person(f"person-{number:03d}") for number in range(options.people)]
    records = [Record() for _ in tokens]
    load = {"before": os.getloadavg()[0]}
    with server(options, url) as kill, slow_requests(options) as opened:
        begun = time.monotonic()
        people = [
            threading.Thread(target=label, args=(options, token, record, number))
            for number, (token, record) in enumerate(zip(tokens, records, strict=True))
        ]
        for person in people:
            person.start()
        for part in range(options.kills):
            share = (part + 1) / (options.kills + 1)
            while sum(len(record.utterance_of) for record in records) < share * options.people * options.clips:
                time.sleep(0.05)
            kill()
        for person in people:
            person.join()
        wall_s = time.monotonic() - begun
    load["after"] = os.getloadavg()[0]
    count = check(ledger, records)
    ledger.close()
    table = {name: percentiles([s for record in records for s in record.seconds[name]]) for name in REQUESTS}
    resent = sum(record.failed for record in records)
    raw = {"options": options.model_dump(), "seconds": table, "wall_s": wall_s, "resent": resent, "load": load}
    storage.write_json(work / "labels.json", raw | {"answers": count, "slow": opened})
    text = render(options, table, count, resent, wall_s, load)
    return f"{text}\n{options.slow} slow sockets: {opened['opened']} opened, {opened['closed']} closed by the server"


REQUESTS = ("next clip", "audio", "submit")


def label(options: LabelsBenchOptions, token: str, record: Record, number: int) -> None:
    """One person, from the link to the last clip."""
    rng = np.random.default_rng([options.seed, number])
    connection = HTTPConnection("127.0.0.1", options.port, timeout=30)
    connection.request("GET", f"/in/{token}")
    entered = connection.getresponse()
    entered.read()
    cookie = entered.headers["Set-Cookie"].partition(";")[0]

    def ask(name: str, method: str, path: str, body: Any = None) -> bytes:
        headers = {"Cookie": cookie, "X-Seral": "1", "Content-Type": "application/json"}
        while True:
            started = time.perf_counter()
            try:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                data = response.read()
            except (OSError, HTTPException):
                connection.close()
                record.failed += 1
                time.sleep(RETRY_S)
                continue
            if response.status in {429, 503}:
                record.failed += 1
                time.sleep(RETRY_S)
                continue
            if response.status != 200:
                raise LabelError(f"{method} {path}: {response.status} {data[:200]!r}")
            record.seconds[name].append(time.perf_counter() - started)
            return data

    played: set[str] = set()
    while clips := json.loads(ask("next clip", "POST", "/api/claim?count=2"))["clips"]:
        for clip in clips:
            if clip["utterance_id"] not in played:
                ask("audio", "GET", f"/api/audio/{clip['utterance_id']}")
                played.add(clip["utterance_id"])
        time.sleep(options.think_s * rng.exponential() if options.think_s else 0.0)
        about = {name: clips[0][name] for name in ("question", "utterance_id")}
        answer = {**about, "key": uuid.UUID(bytes=rng.bytes(16)).hex, "emotions": [str(rng.choice(CLASSES))]}
        ask("submit", "POST", "/api/answers", answer)
        record.utterance_of[answer["key"]] = answer["utterance_id"]
    connection.close()


@contextmanager
def server(options: LabelsBenchOptions, url: str) -> Iterator[Any]:
    """The server as a process; gives a function that kills it and starts it again."""
    command = [sys.executable, "-m", "seral", "labels", "serve", "--ledger", url, "--pool", options.pool]
    command += ["--port", str(options.port), "--set", "burst=10000", "--set", "requests_per_s=10000"]

    def start() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            try:
                with urlopen(f"http://127.0.0.1:{options.port}/", timeout=1):
                    return process
            except OSError:
                time.sleep(0.05)
        raise LabelError(f"the server did not start: {' '.join(command)}")

    running = [start()]

    def kill() -> None:
        running[-1].kill()
        running[-1].wait()
        say("the server was killed")
        running.append(start())

    try:
        yield kill
    finally:
        running[-1].kill()
        running[-1].wait()


@contextmanager
def slow_requests(options: LabelsBenchOptions) -> Iterator[dict[str, int]]:
    """Sockets whose requests never end, until the block does; counts those that were opened, and closed on them."""
    count, done, lock = {"opened": 0, "closed": 0}, threading.Event(), threading.Lock()

    def attack(sockets: int) -> None:
        sockets_open = list[socket.socket]()
        while not done.wait(1.0):
            for one in list(sockets_open):
                try:
                    one.send(b"a")
                except OSError:
                    sockets_open.remove(one)
                    one.close()
                    with lock:
                        count["closed"] += 1
            with suppress(OSError):  # while it is killed and started again
                while len(sockets_open) < sockets and not done.is_set():
                    sockets_open.append(socket.create_connection(("127.0.0.1", options.port), timeout=2))
                    sockets_open[-1].send(b"GET / HTTP/1.1\r\nX-Slow: ")
                    with lock:
                        count["opened"] += 1
        for one in sockets_open:
            one.close()

    threads = [threading.Thread(target=attack, args=(len(part),)) for part in np.array_split(range(options.slow), 4)]
    for thread in threads:
        thread.start()
    try:
        yield count
    finally:
        done.set()
        for thread in threads:
            thread.join()


def check(ledger: Ledger, records: list[Record]) -> int:
    """Count the ledger: every answer that was confirmed is there once, and nobody was asked in another's place."""
    rows = ledger.answers(history=True).to_pylist()
    keys = Counter(row["key"] for row in rows)
    utterance_of = {key: name for record in records for key, name in record.utterance_of.items()}
    if lost := utterance_of.keys() - keys.keys():
        raise LabelError(f"{len(lost)} of {len(utterance_of)} confirmed answers are not in the ledger")
    if strange := keys.keys() - utterance_of.keys():
        raise LabelError(f"{len(strange)} answers are in the ledger that nobody has given")
    if max(keys.values(), default=0) > 1 or any(row["supersedes"] is not None for row in rows):
        raise LabelError("an answer stands in the ledger twice")
    answers_of = Counter(row["utterance_id"] for row in rows)
    (batch,) = ledger.progress()
    if batch.questions != batch.done or len(set(answers_of.values())) != 1:
        raise LabelError(
            f"{batch.done} of {batch.questions} clips are done; answers a clip: {Counter(answers_of.values())}"
        )
    return len(rows)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Number of requests, and the median, 95th percentile and longest in milliseconds."""
    p50, p95, longest = 1000 * np.quantile(seconds, [0.5, 0.95, 1.0])
    return {"requests": len(seconds), "p50_ms": float(p50), "p95_ms": float(p95), "max_ms": float(longest)}


def render(
    options: LabelsBenchOptions,
    table: dict[str, dict[str, float]],
    count: int,
    resent: int,
    wall_s: float,
    load: dict[str, float],
) -> str:
    """The numbers as text."""
    lines = [f"{'':10}{'requests':>10}{'median ms':>11}{'95 % ms':>9}{'max ms':>8}"]
    for name, row in table.items():
        numbers = (f"{row[key]:.0f}" for key in ("requests", "p50_ms", "p95_ms", "max_ms"))
        lines.append("{:10}{:>10}{:>11}{:>9}{:>8}".format(name, *numbers))
    return "\n".join(
        [
            *lines,
            f"{options.people} people, {count} answers in {wall_s:.0f} s, {options.kills} kills, "
            f"{resent} requests sent again; in the ledger nothing lost, nothing twice",
            f"load average {load['before']:.1f} before, {load['after']:.1f} after, {os.cpu_count()} CPUs",
        ]
    )


if __name__ == "__main__":
    run_job(LabelsBenchOptions, run_labels_bench, __doc__)
