"""What tests of every part share: one local Ray, real data where it is there, and small made-up corpora."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile as sf
import sqlalchemy as sa
from hypothesis import settings
from numpy.typing import NDArray

# Before anything imports torch: threads that wait for each other on busy cores make a test run many times longer.
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("seral", deadline=None)  # a speed is no property of the code on a busy machine
settings.load_profile("seral")

RATE_HZ = 16_000
SHARED = Path(__file__).resolve().parents[1].parent / "shared"
EMOTIONS = ("anger", "happiness", "neutral", "sadness")

Samples = NDArray[np.float32]
MakeCorpus = Callable[..., Path]
KillDriver = Callable[[Sequence[str], Callable[[], bool]], None]


SERVERS = {"browser", "chromium", "postgres", "nginx"}
"""Fixtures of programs that take long to start."""
LONG = (
    *("nodes", "sweep", "twins", "plugins", "notebooks", "disk_full", "exports", "slurm", "object_store", "stores"),
    "explore",
)
"""Files whose slow tests take minutes, the longest first: begun last, one of them would keep a worker waiting."""


@pytest.hookimpl(tryfirst=True)  # before pytest deselects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of servers are slow; `corpora` are skipped where there is no ../shared; long files come first."""
    order = {f"test_{name}.py": rank for rank, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("corpora") and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason=f"needs real speech in {SHARED}"))


@pytest.fixture(autouse=True)
def _no_flags() -> Iterator[None]:
    """What a command's `--json` or `-q` asked for ends with the test that called it."""
    yield
    if flags := sys.modules.get("seral.cli.flags"):
        flags.reset()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real speech and real encoders."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real speech in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium; skipped without it, unless everything has to run."""
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("SERAL_TEST_ALL"):
            pytest.fail("Chromium is not installed")
        pytest.skip("Chromium is not installed (Debian: chromium)")
    return program


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of our own, from the programs of Debian's package `postgresql`."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        if os.environ.get("SERAL_TEST_ALL"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    # The server refuses to run as root; Debian's package makes a user for it.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path("/tmp") / f"seral-postgres-{os.getpid()}"  # a socket's path must be short
    folder.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(folder, user, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [programs[-1] / program, "-D", folder / "data", *arguments]
        subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, timeout=60)

    run("initdb", "--auth=trust", "--username=seral", "--no-sync", "--encoding=UTF8")
    access = folder / "data" / "pg_hba.conf"
    access.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{access.read_text()}")
    run("pg_ctl", "start", "--wait", "-l", str(folder / "log"), "-o", f"-k {folder} -h 127.0.0.1 -p {port}")
    try:
        yield f"postgresql+psycopg://seral@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "--mode=immediate")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for a ledger: a file, and an empty database of a real server."""
    if request.param == "sqlite":
        yield str(tmp_path / "labels.sqlite")
        return
    server, name = request.getfixturevalue("postgres"), tmp_path.name.lower()[:60]
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    yield sa.make_url(server).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    admin.dispose()


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray with two CPUs for the whole test session."""
    # Imported here, so that a run of the other tests does not pay for importing Ray.
    import ray

    from seral.cluster import ClusterOptions, connect

    connect(ClusterOptions(cpus=2))
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def speech() -> Callable[[float, int], Samples]:
    """`speech(seconds, seed)`: syllables of a buzzing voice with pauses over faint noise, (S,) at 16 kHz."""
    return speech_like


@pytest.fixture(scope="session")
def make_corpus() -> MakeCorpus:
    """`make_corpus(folder, count, ...)` writes a corpus for the reader `manifest` and returns its folder."""
    return write_corpus


@pytest.fixture(scope="session")
def write_manifest() -> Callable[[Path, list[dict[str, Any]]], Path]:
    """`write_manifest(folder, rows)` writes manifest.jsonl and returns it."""
    return write_jsonl


def speech_like(seconds: float, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    pitch_hz = rng.uniform(90, 240)
    voice = sum(np.sin(2 * np.pi * pitch_hz * k * time_s + rng.uniform(0, 6)) / k for k in range(1, 8))
    syllables = np.clip(np.sin(2 * np.pi * rng.uniform(3, 6) * time_s + rng.uniform(0, 6)), 0, None)
    noise = 0.002 * rng.standard_normal(len(time_s))
    return (0.15 * voice * syllables + noise).astype(np.float32)


def write_corpus(
    folder: Path,
    count: int,
    *,
    seed: int = 0,
    first: int = 0,
    seconds: tuple[float, float] = (0.3, 0.8),
    suffix: str = ".flac",
    speakers: int = 4,
) -> Path:
    """Clips number `first` to `first + count - 1`: a clip depends on `seed` and its number, on nothing else."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        name = f"clip{number:04d}"
        samples = speech_like(float(rng.uniform(*seconds)), seed=int(rng.integers(2**31)))
        sf.write(folder / "audio" / f"{name}{suffix}", samples, RATE_HZ, subtype="PCM_16")
        rows.append(
            {
                "id": name,
                "audio": f"audio/{name}{suffix}",
                "speaker": f"s{number % speakers}",
                "emotion": EMOTIONS[number % len(EMOTIONS)],
                "language": "en",
                "text": f"Sentence {number}.",
            }
        )
    write_jsonl(folder, rows)
    return folder


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "manifest.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def speech_pool(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> str:
    """A pool of 96 generated clips of six speakers in three languages, some of them junk."""
    from seral.options import parse
    from seral.pool.ingest import import_corpus
    from seral.pool.options import ImportOptions
    from seral.synthesis.corpus import SynthesisOptions, synthesise

    root = tmp_path_factory.mktemp("speech")
    synthesise(root / "corpus", SynthesisOptions(utterances=96, speakers_per_language=2, junk=0.1, seed=3))
    pool = str(root / "pool")
    import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(root / "corpus"), "out": pool}))
    return pool


@pytest.fixture(scope="session")
def two_corpora(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> str:
    """A pool with a corpus `acted` and a corpus `natural`, six speakers each."""
    from seral.options import parse
    from seral.pool.ingest import import_corpus
    from seral.pool.options import ImportOptions
    from seral.synthesis.corpus import SynthesisOptions, synthesise

    root = tmp_path_factory.mktemp("two")
    for seed, corpus in enumerate(("acted", "natural")):
        options = SynthesisOptions(utterances=48, speakers_per_language=2, junk=0.0, seed=seed)
        synthesise(root / corpus, options)
        values = {"reader": "manifest", "root": str(root / corpus), "out": str(root / "pool"), "corpus": corpus}
        import_corpus(parse(ImportOptions, values))
    return str(root / "pool")


@pytest.fixture(scope="session")
def kill_ray_train_worker() -> Callable[[Path], AbstractContextManager[list[int]]]:
    """`with kill_ray_train_worker(work) as killed:` kills a training's worker once there is a checkpoint in `work`."""
    return killed_after_a_checkpoint


@pytest.fixture(scope="session")
def workers_of_ray() -> Callable[[str], list[psutil.Process]]:
    """`workers_of_ray("PoolPart")`: the processes of this session's Ray that do this now."""
    return ray_workers


@pytest.fixture(scope="session")
def kill_driver() -> KillDriver:
    """`kill_driver(["loop", "run", ...], ready)` starts a command with a Ray of its own and kills it once ready."""
    return start_and_kill


def start_and_kill(arguments: Sequence[str], ready: Callable[[], bool]) -> None:
    command = [sys.executable, "-m", "seral", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 180
    while not ready():
        assert driver.poll() is None, "the driver ended before it could be killed"
        assert time.monotonic() < deadline, "it did not come so far within three minutes"
        time.sleep(0.05)
    started = psutil.Process(driver.pid).children(recursive=True)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    # Its Ray takes a moment to see that, and a worker that still ends its task would meet whoever goes on.
    deadline = time.monotonic() + 60
    while alive := [process for process in started if works(process)]:
        assert time.monotonic() < deadline, f"these outlived the driver by a minute: {alive}"
        time.sleep(0.05)


def works(process: psutil.Process) -> bool:
    """Whether a process is there and has not ended; who has ended stays a zombie where nobody asks after him."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def killed_after_a_checkpoint(work: Path) -> Iterator[list[int]]:
    killed: list[int] = []
    watcher = threading.Thread(target=kill_worker_after_a_checkpoint, args=(work, killed))
    watcher.start()
    yield killed
    watcher.join()


def kill_worker_after_a_checkpoint(work: Path, killed: list[int]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if list(work.glob("*/checkpoint_*")):
            for worker in ray_workers("RayTrainWorker"):
                worker.kill()
                killed.append(worker.pid)
            return
        time.sleep(0.02)


def ray_workers(title: str) -> list[psutil.Process]:
    """Workers of this process's own Ray that are doing this."""
    workers = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(f"ray::{title}"):
                workers.append(process)
    return workers


@pytest.fixture
def run_values(speech_pool: str, tmp_path: Path) -> dict[str, Any]:
    """Options of a run of the loop that takes seconds."""
    return {
        "pool": speech_pool,
        "run": str(tmp_path / "run"),
        "encoder": "seral-tiny",
        "classes": list(EMOTIONS),
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "budget": {"sizes": [8, 14, 20]},
        "finetune": {"adapter": "frozen"},
    }
