"""An import as its pool grows, and killed again and again on its way.

    python -m jobs.bench.growth 'corpora=[~/corpora/emodb]'

Every import is `seral pool import` in a process of its own, watched from outside. The memory of a process is what it
has for itself (resident less shared): Ray's object store is shared by all and has a size of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from pydantic import Field

from jobs.bench.plain import measured_import, plain_import, run_alone
from jobs.bench.throughput import write_manifest
from seral import storage
from seral.corpora import READERS
from seral.corpora.reading.utterance import Utterance
from seral.errors import PoolError
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.pool.shards import MANIFEST, open_pool
from seral.progress import say

MARK = "SERAL_BENCH_MARK"
POLL_S = 0.3


class GrowthOptions(Options):
    """Options of the growth benchmark: imports of rising size, and one that is killed."""

    corpora: list[str] = Field(min_length=1)
    """Folders with a manifest, of real speech. Their clips are taken again, each time from 10 ms further on, until
    there are enough: other audio to every hash, the same work to every loop."""
    rows: list[int] = Field(default=[2_000, 20_000], min_length=2)
    """Sizes of the pools; rates are those of the difference between the first and the last, start-up apart."""
    kills: int = Field(default=10, ge=0)
    """Times the largest import is killed (SIGKILL, all its processes), at points drawn at random."""
    shard_mb: float = Field(default=8.0, gt=0)
    """Size of a shard."""
    voice: bool = True
    """Measure voice activity; the plain loop measures nothing, the measured one does what the import does."""
    seed: int = Field(default=0, ge=0)
    """Draws the points of the kills."""
    work: str = "runs/bench-growth"
    """Folder for the pools; what is there is replaced."""

    @property
    def settings(self) -> list[str]:
        """Settings of the import."""
        return [f"shard_mb={self.shard_mb}", f"voice={str(self.voice).lower()}"]


@dataclass
class Watched:
    """One command: seconds by the clock, and the most memory that its processes had for themselves, in MB."""

    seconds: float = 0.0
    driver_mb: float = 0.0
    worker_mb: float = 0.0
    all_mb: float = 0.0


def run_growth_bench(options: GrowthOptions) -> str:
    """Import pools of growing size, then the largest with kills; returns a table and writes `work`/growth.json."""
    work = Path(options.work).resolve()
    storage.remove(str(work))
    work.mkdir(parents=True)
    clips = [clip for folder in options.corpora for clip in READERS["manifest"](Path(folder))]
    speech = [clip for clip in clips if isinstance(clip, Utterance)]
    sizes = sorted(options.rows)
    watched: dict[int, Watched] = {}
    for rows in sizes:
        say(f"{rows} utterances")
        manifest = write_manifest(work / f"{rows}.jsonl", speech, -(-rows // len(speech)), rows)
        watched[rows] = watch_import(manifest, work / f"pool-{rows}", options)
    say("the plain loop")
    first = [item for item in READERS["manifest"](work / f"{sizes[0]}.jsonl") if isinstance(item, Utterance)]
    (plain,), (measured,) = run_alone(plain_import, first, True), run_alone(measured_import, first, options.voice)
    points = kill_points(work / f"pool-{sizes[-1]}", options)
    killed = watch_killed(work / f"{sizes[-1]}.jsonl", work / "killed", points, options)
    same = same_files(work / f"pool-{sizes[-1]}", work / "killed")
    extra_s = watched[sizes[-1]].seconds - watched[sizes[0]].seconds
    cores = os.cpu_count() or 1
    imports = {rows: vars(measures) | _shards(work / f"pool-{rows}") for rows, measures in watched.items()}
    result = {
        "imports": imports,
        "plain_per_s": len(first) / plain.wall_s,
        "measured_per_s": len(first) / measured.wall_s,
        "seral_per_s": (sizes[-1] - sizes[0]) / extra_s,
        "per_core": (sizes[-1] - sizes[0]) / extra_s / cores / (len(first) / plain.wall_s),
        "per_core_of_measured": (sizes[-1] - sizes[0]) / extra_s / cores / (len(first) / measured.wall_s),
        "cores": cores,
        "killed_at_shards": killed,
        "same_bytes": same,
        "load_average": os.getloadavg()[0],
        "options": options.model_dump(mode="json"),
    }
    storage.write_json(str(work / "growth.json"), result)
    return _table(imports, result)


def watch_import(manifest: Path, pool: Path, options: GrowthOptions) -> Watched:
    """Import in a process of its own and look at its memory, and that of all it started, while it runs."""
    usage = Watched()
    started = time.perf_counter()
    with marked_processes() as environment:
        process = start_import(manifest, pool, options.settings, environment)
        watcher = threading.Thread(target=watch_memory, args=(process.pid, usage), daemon=True)
        watcher.start()
        _, errors = process.communicate()
        usage.seconds = time.perf_counter() - started
        watcher.join()
    if process.returncode:
        raise PoolError(f"the import of {manifest} failed: {errors.decode()[-2000:]}")
    return usage


def watch_memory(pid: int, usage: Watched) -> None:
    """Look at the memory of a process and of all that it started until it ends."""
    while psutil.pid_exists(pid):
        try:
            driver = psutil.Process(pid)
            if driver.status() == psutil.STATUS_ZOMBIE:
                return
            own = [(process, _own_mb(process)) for process in [driver, *driver.children(recursive=True)]]
        except psutil.NoSuchProcess:
            return
        usage.driver_mb = max(usage.driver_mb, own[0][1])
        usage.worker_mb = max([usage.worker_mb, *(mb for process, mb in own if _is_worker(process))])
        usage.all_mb = max(usage.all_mb, sum(mb for _, mb in own))
        time.sleep(POLL_S)


def _own_mb(process: psutil.Process) -> float:
    try:
        memory = process.memory_info()
    except psutil.NoSuchProcess:
        return 0.0
    return float(memory.rss - memory.shared) / 1e6


def _is_worker(process: psutil.Process) -> bool:
    try:
        return bool(process.cmdline()) and process.cmdline()[0].startswith("ray::")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def kill_points(pool: Path, options: GrowthOptions) -> list[tuple[int, float]]:
    """Points to kill at, in rising order: a number of shards of the whole pool, and seconds after it."""
    rng = np.random.default_rng(options.seed)
    shards = len(open_pool(str(pool)).shards)
    counts = sorted(int(count) for count in rng.integers(0, shards + 1, size=options.kills))
    return [(count, float(rng.uniform(0, 1.5))) for count in counts]


def watch_killed(manifest: Path, pool: Path, points: list[tuple[int, float]], options: GrowthOptions) -> list[int]:
    """Import and kill at each point, then let it end. Returns how many shards there were at every kill."""
    shards_at = []
    for number, (count, later_s) in enumerate(points):
        say(f"kill {number + 1} of {len(points)}")
        with marked_processes() as environment:
            process = start_import(manifest, pool, options.settings, environment)
            while process.poll() is None and shard_files(pool) < count:
                time.sleep(0.01)
            time.sleep(later_s)
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            shards_at.append(shard_files(pool))
    watch_import(manifest, pool, options)
    return shards_at


def start_import(
    manifest: Path, pool: Path, settings: Sequence[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """`seral pool import` with the settings, as the leader of a process group of its own."""
    arguments = [part for setting in settings for part in ("--set", setting)]
    return subprocess.Popen(
        [sys.executable, "-m", "seral", "pool", "import", "manifest", str(manifest), "--out", str(pool), *arguments],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def shard_files(pool: Path) -> int:
    """Shards of utterances on disk, listed by a manifest or not."""
    return len(list((pool / "utterances").glob("*.parquet")))


@contextmanager
def marked_processes() -> Iterator[dict[str, str]]:
    """An environment whose processes, Ray's own included, are found by a mark; those still alive at the end are killed.

    Killing the process group ends the driver and Ray's own services; workers notice a little later. All carry the
    environment of the process that started them, so none is left behind, and nobody else's Ray is touched.
    """
    mark = uuid.uuid4().hex
    try:
        yield os.environ | {MARK: mark}
    finally:
        while pids := carriers(mark):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.05)


def carriers(mark: str) -> list[int]:
    """Processes whose environment has the mark. Linux only: it reads /proc."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # the process has ended, or is not ours
            continue
        if f"{MARK}={mark}".encode() in environment.split(b"\0"):
            pids.append(int(folder.name))
    return pids


def same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    names = [{path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()} for root in (one, other)]
    return names[0] == names[1] and all((one / name).read_bytes() == (other / name).read_bytes() for name in names[0])


def _shards(pool: Path) -> dict[str, float]:
    entries = list(open_pool(str(pool)).manifest["shards"].values())
    sizes = sorted(path.stat().st_size / 1e6 for path in (pool / "utterances").glob("*.parquet"))
    return {
        "utterances": sum(entry["rows"] for entry in entries),
        "manifest_bytes": (pool / MANIFEST).stat().st_size,
        "shards": len(sizes),
        "smallest_mb": sizes[0],
        "median_mb": sizes[len(sizes) // 2],
        "largest_mb": sizes[-1],
    }


def _table(imports: Mapping[int, Mapping[str, float]], result: Mapping[str, object]) -> str:
    table = markdown(pd.DataFrame([{"rows": rows, **measures} for rows, measures in imports.items()]))
    other_lines = [f"{name}: {value}" for name, value in result.items() if name not in {"imports", "options"}]
    return "\n".join([table, *other_lines])


if __name__ == "__main__":
    run_job(GrowthOptions, run_growth_bench, __doc__)
