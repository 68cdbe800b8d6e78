"""Broken and hostile files and requests, by seed: how many end in a name, how many in anything else, and what memory.

    python -m jobs.bench.attack count=10000 pool=POOL

Audio files of every format, manifests, Parquet tables and tars are mutated and read as an import reads them; requests
are mutated and sent to a running annotation server. Readers work in processes of their own, `batch` files in each, so
that one that dies is counted too. Outcomes are `fine`, `named` (a reason, a sentence, a status below 500), `error`
(anything else) and `died`.
"""

# S samples
from __future__ import annotations

import io
import json
import multiprocessing
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf
from pydantic import Field

from seral import storage
from seral.audio import codecs
from seral.audio.decode import BadAudio, decode, encode_flac
from seral.corpora.options import CorpusOptions, read_corpus
from seral.corpora.reading.utterance import Skipped
from seral.errors import SeralError
from seral.figures.markdown import markdown
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.options import Options, run_job
from seral.pool.shards import open_pool
from seral.progress import say, track

FORMATS = {"wav": "WAV", "flac": "FLAC", "ogg": "OGG", "mp3": "MP3", "aiff": "AIFF", "au": "AU", "caf": "CAF"}
CONTAINERS = {"m4a": "aac", "aac": "aac", "webm": "libopus"}
NASTY = ["\0", "../" * 9 + "etc/passwd", "%2e%2e/", "9" * 5000, "<script>", "'; --", "[" * 2000, "\u202e", "-1"]
NASTY += ["1e999", "{{7*7}}", "\r\nSet-Cookie: a=b"]
ROWS = 4


class AttackOptions(Options):
    """Options of the attack."""

    pool: str
    """A pool whose clips the server plays."""
    count: int = Field(default=1000, ge=1)
    """Attempts of every kind."""
    kinds: list[str] = Field(default=["audio", "manifest", "parquet", "tar", "request"], min_length=1)
    """Any of audio, manifest, parquet, tar and request."""
    batch: int = Field(default=200, ge=1)
    """Files that a process reads."""
    seed: int = Field(default=0, ge=0)
    """Draws what is broken, and how."""
    port: int = 8798
    """Port of the server."""
    work: str = "runs/bench-attack"
    """Folder of attack.json: every outcome, and examples of errors; what is there is replaced."""


@dataclass
class Outcome:
    """Outcomes of some attempts."""

    counts: Counter[str]
    examples: list[str]
    """Attempts that ended in an error, with it."""
    memory_mb: int
    """Most memory of a process that read them."""


def run_attack(options: AttackOptions) -> str:
    """Attack; returns a table of attempts and outcomes, and writes `work`/attack.json."""
    work = Path(options.work).resolve()
    storage.remove(str(work))
    work.mkdir(parents=True)
    outcomes = {kind: _attack(kind, options) for kind in options.kinds}
    facts = {kind: {**vars(one), "counts": dict(one.counts)} for kind, one in outcomes.items()}
    storage.write_json(str(work / "attack.json"), {"options": options.model_dump(), "outcomes": facts})
    rows = [
        {"kind": kind, "tried": one.counts.total(), **{name: one.counts[name] for name in ENDS}, "MB": one.memory_mb}
        for kind, one in outcomes.items()
    ]
    examples = [f"- {kind}: {text}" for kind, one in outcomes.items() for text in one.examples[:5]]
    return "\n".join([markdown(pd.DataFrame(rows)), "", *examples])


ENDS = ("fine", "named", "error", "died")


def _attack(kind: str, options: AttackOptions) -> Outcome:
    if kind == "request":
        return _requests(options)
    total = Outcome(Counter(), [], 0)
    context = multiprocessing.get_context("spawn")
    with track(kind, options.count) as advance:
        for first in range(0, options.count, options.batch):
            size = min(options.batch, options.count - first)
            queue = context.Queue()
            process = context.Process(target=_read_batch, args=(kind, options.seed, first, size, queue))
            process.start()
            part = _answer(process, queue)
            if part is None:
                total.counts["died"] += size
                total.examples.append(f"{kind} {first} to {first + size}: exit status {process.exitcode}")
            else:
                total.counts += part.counts
                total.examples += part.examples
                total.memory_mb = max(total.memory_mb, part.memory_mb)
            process.join()
            advance(size)
    return total


def _answer(process: Any, queue: Any) -> Outcome | None:
    """Outcome of a process; None where it died."""
    while True:
        alive = process.is_alive()
        with suppress(Empty):
            outcome: Outcome = queue.get(timeout=0.5)
            return outcome
        if not alive:
            return None


def _read_batch(kind: str, seed: int, first: int, size: int, queue: Any) -> None:
    counts, examples = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        write, read = KINDS[kind]
        for number in range(first, first + size):
            file = write(Path(folder), np.random.default_rng([seed, number]))
            try:
                counts["fine" if read(file) else "named"] += 1
            except SeralError:
                counts["named"] += 1
            except Exception as error:  # the very thing that is looked for
                counts["error"] += 1
                examples.append(f"{kind} {number}: {type(error).__name__}: {str(error)[:120]}")
            file.unlink()
    queue.put(Outcome(counts, examples, _peak_mb()))


def _peak_mb() -> int:
    """Memory that this process has taken at most; `ru_maxrss` starts with that of the process that started it."""
    (peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(peak.split()[1]) // 1000


def _mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some flipped, cut off, doubled, taken out, or put in."""
    broken = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        at, length = int(rng.integers(len(broken) + 1)), int(rng.integers(1, 64))
        way = rng.integers(6)
        if way == 0:
            for byte in rng.integers(0, max(1, len(broken)), length):
                broken[byte : byte + 1] = rng.bytes(1)
        elif way == 1:  # the header
            at = int(rng.integers(0, min(64, len(broken)) + 1))
            broken[at : at + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", rng.bytes(4)][rng.integers(4)]
        elif way == 2:
            del broken[at:]
        elif way == 3:
            broken[at:at] = broken[at : at + length * 16]
        elif way == 4:
            del broken[at : at + length]
        else:
            broken[at:at] = rng.bytes(length)
    return bytes(broken)


def _samples() -> np.ndarray:
    rng = np.random.default_rng(0)
    return (0.3 * np.sin(np.arange(8000) / 7) + rng.normal(0, 0.02, 8000)).astype(np.float32)


def _clip(kind: str) -> bytes:
    """Half a second of sound in a format."""
    if kind in FORMATS:
        buffer = io.BytesIO()
        sf.write(buffer, _samples(), 16_000, format=FORMATS[kind])
        return buffer.getvalue()
    import av

    with tempfile.NamedTemporaryFile(suffix=f".{kind}") as file:
        with av.open(file.name, "w") as out:
            stream: Any = out.add_stream(CONTAINERS[kind], rate=48_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.repeat(_samples(), 3)[None], format="flt", layout="mono")
            frame.sample_rate = 48_000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                out.mux(packet)
        return Path(file.name).read_bytes()


_clips: dict[str, bytes] = {}


def _write_audio(folder: Path, rng: np.random.Generator) -> Path:
    kinds = [*FORMATS, *(CONTAINERS if codecs.installed() else ())]
    kind = kinds[rng.integers(len(kinds))]
    if kind not in _clips:
        _clips[kind] = _clip(kind)
    file = folder / f"a.{kind}"
    file.write_bytes(_mutated(_clips[kind], rng))
    return file


def _read_audio(file: Path) -> bool:
    with suppress(BadAudio):
        decode(file)
        return True
    return False


def _nasty(rng: np.random.Generator) -> str:
    return NASTY[rng.integers(len(NASTY))]


def _write_manifest(folder: Path, rng: np.random.Generator) -> Path:
    rows: list[dict[str, Any]] = [
        {"audio": f"a{number}.wav", "speaker": "s", "emotion": "anger", "start": 0.0, "text": "x"}
        for number in range(ROWS)
    ]
    for _ in range(int(rng.integers(0, 3))):
        values: list[Any] = [None, 1, [], {}, [[1]], True, _nasty(rng), float("nan")]
        rows[rng.integers(ROWS)][list(rows[0])[rng.integers(5)]] = values[rng.integers(len(values))]
    suffix = ("jsonl", "json", "csv", "tsv")[rng.integers(4)]
    if suffix in ("csv", "tsv"):
        text = pd.DataFrame(rows).to_csv(index=False, sep="," if suffix == "csv" else "\t")
    else:
        text = "\n".join(map(json.dumps, rows)) if suffix == "jsonl" else json.dumps(rows)
    file = folder / f"manifest.{suffix}"
    data = text.encode()
    file.write_bytes(_mutated(data, rng) if rng.random() < 0.7 else data)
    return file


def _write_parquet(folder: Path, rng: np.random.Generator) -> Path:
    """A table whose schema is drawn: nested, of extension types, with odd names, or broken in its bytes."""
    kinds: list[pa.DataType] = [pa.string(), pa.int64(), pa.large_binary(), pa.list_(pa.string()), pa.null()]
    kinds += [pa.struct([("bytes", pa.binary()), ("path", pa.string())]), pa.dictionary(pa.int8(), pa.string())]
    audio = [{"bytes": encode_flac(_samples()), "path": "a.flac"}] * ROWS
    columns: dict[str, tuple[pa.Array, pa.Field]] = {}
    for name in ("audio", "emotion", "speaker", _nasty(rng)[:50])[: int(rng.integers(1, 5))]:
        kind = kinds[rng.integers(len(kinds))] if rng.random() < 0.5 else pa.string()
        extension = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": b""}
        metadata = extension if kind == pa.large_binary() and rng.random() < 0.5 else None
        array = pa.array(audio) if name == "audio" and rng.random() < 0.7 else pa.nulls(ROWS, kind)
        columns[name] = (array, pa.field(name, array.type, metadata=metadata))
    fields = [field for _, field in columns.values()]
    table = pa.table([array for array, _ in columns.values()], schema=pa.schema(fields))
    file = folder / "train.parquet"
    pq.write_table(table, file)
    if rng.random() < 0.6:
        file.write_bytes(_mutated(file.read_bytes(), rng))
    return file


def _write_tar(folder: Path, rng: np.random.Generator) -> Path:
    file = folder / "a.tar"
    with tarfile.open(file, "w") as tar:
        for number in range(ROWS):
            texts = ['{"emotion": "anger"}', "[" * 3000, "{", _nasty(rng), '{"start": ' + "9" * 5000 + "}"]
            members = {"wav": _clips.setdefault("wav", _clip("wav")), "json": texts[rng.integers(len(texts))].encode()}
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{'../' * int(rng.integers(3))}{number}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    if rng.random() < 0.7:
        file.write_bytes(_mutated(file.read_bytes(), rng))
    return file


def _reads(reader: str) -> Callable[[Path], bool]:
    def read(file: Path) -> bool:
        """Whether nothing of a corpus was left out."""
        fine = True
        for item in read_corpus(CorpusOptions(reader=reader, root=str(file))):
            fine = fine and not isinstance(item, Skipped)
            if not isinstance(item, Skipped) and item.inside is not None:
                with suppress(BadAudio):
                    decode(item.audio, inside=item.inside)
        return fine

    return read


KINDS: dict[str, tuple[Callable[[Path, np.random.Generator], Path], Callable[[Path], bool]]] = {
    "audio": (_write_audio, _read_audio),
    "manifest": (_write_manifest, _reads("manifest")),
    "parquet": (_write_parquet, _reads("hf-parquet")),
    "tar": (_write_tar, _reads("webdataset")),
}
GETS = ("/", "/lead", "/in/x", "/api/me", "/api/latest", "/api/audio/x", "/api/lead/progress", "/api/lead/disputed")
POSTS = ("/api/claim", "/api/answers", "/api/let-go", "/api/played", "/api/lead/decide", "/api/lead/people")


def _requests(options: AttackOptions) -> Outcome:
    counts, examples = Counter[str](), list[str]()
    url = str(Path(options.work).resolve() / "labels.sqlite")
    ledger = Ledger.create(url, Project(classes=("anger", "neutral")))
    ids = sorted(open_pool(options.pool).ids["utterance_id"].to_pylist())[:10]
    ledger.ask("attack", ids, purpose="round", round=0)
    token = ledger.add_person("ada", role="lead")
    ledger.close()
    with _server(options, url) as memory_mb, track("request", options.count) as advance:
        cookie = _signed_in(token, options.port)
        for number in range(options.count):
            request = _request(np.random.default_rng([options.seed, number]), cookie, ids, options.port)
            status = _send(request, options.port)
            end = "named" if status is None or 400 <= status < 500 else "fine" if status < 400 else "error"
            counts[end] += 1
            if end == "error":
                examples.append(f"request {number}: {status} to {request[:80]!r}")
            advance(1)
        memory = memory_mb()
    return Outcome(counts, examples, memory)


def _signed_in(token: str, port: int) -> str:
    """The cookie of a session of who has this link."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", f"/in/{token}")
    answer = connection.getresponse()
    answer.read()
    return str(answer.headers["Set-Cookie"]).partition(";")[0]


def _request(rng: np.random.Generator, cookie: str, ids: list[str], port: int) -> bytes:
    def drawn(*usual: str, nasty: float = 0.3) -> str:
        return _nasty(rng) if rng.random() < nasty else usual[rng.integers(len(usual))]

    method = drawn("GET", "POST", "HEAD", "OPTIONS", nasty=0.02)
    path = drawn(*(POSTS if method == "POST" else (*GETS, f"/api/audio/{ids[rng.integers(len(ids))]}")), nasty=0.05)
    path += drawn("", "?count=1", "?count=" + _nasty(rng), "/" + _nasty(rng), nasty=0)
    headers = {"Host": f"127.0.0.1:{port}", "Connection": "close", "Cookie": drawn(cookie, nasty=0.1)}
    for name in ("Range", "Origin", "X-Forwarded-For", "Accept", "If-None-Match"):
        if rng.random() < 0.15:
            headers[name] = f"bytes={drawn('0')}-" if name == "Range" else drawn("*/*")
    fields = {"key": drawn("k"), "utterance_id": drawn(*ids), "emotions": [drawn("anger")], "question": drawn("1")}
    values: list[Any] = [2**63, -1, None, [], {}, True, 1e300]
    for name in fields:
        fields[name] = values[rng.integers(len(values))] if rng.random() < 0.1 else fields[name]
    body = json.dumps(fields).encode() if method == "POST" else b""
    headers |= {"Content-Type": "application/json", "Content-Length": drawn(str(len(body)), nasty=0.05)}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    raw = "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body
    return _mutated(raw, rng) if rng.random() < 0.1 else raw


def _send(request: bytes, port: int) -> int | None:
    """Status of the answer; None where there is none within a second, or the connection is closed without."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection, suppress(OSError):
        connection.sendall(request)
        line = connection.recv(4096).split(b" ", 2)
        return int(line[1]) if len(line) > 2 and line[1].isdigit() else None
    return None


@contextmanager
def _server(options: AttackOptions, url: str) -> Iterator[Callable[[], int]]:
    """An annotation server that runs; yields what its memory is, in MB."""
    command = [sys.executable, "-m", "seral", "labels", "serve", "--port", str(options.port), "--ledger", url]
    command += ["--pool", options.pool]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with suppress(OSError), socket.create_connection(("127.0.0.1", options.port), timeout=1):
                break
            time.sleep(0.1)
        yield lambda: _memory_mb(process.pid)
        if process.poll() is not None:
            say(f"the server ended with status {process.returncode}")
    finally:
        process.terminate()
        process.wait()


def _memory_mb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1000


if __name__ == "__main__":
    run_job(AttackOptions, run_attack, __doc__)
