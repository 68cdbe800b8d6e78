"""Reports and tables of a large pool: seconds, memory, and how often its tables are read.

    python -m jobs.bench.table_growth pool=POOL run=RUN encoder=ENCODER

The pool and the run are those of jobs.bench.loop_growth. Every command is the command line's, in a process of its own,
watched from outside; passes are the bytes that it asked to read over those of the tables that it is about.
"""

# N utterances
from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
from pydantic import Field

from jobs.bench.growth import POLL_S, Watched, marked_processes, watch_memory
from seral import storage
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.pool.shards import TABLES, open_pool
from seral.progress import say


class TableGrowthOptions(Options):
    """Options of the benchmark of reports and tables."""

    pool: str
    """A pool."""
    run: str | None = None
    """A run of the loop on it."""
    encoder: str | None = None
    """The encoder whose features the pool has, to screen it by."""
    commands: list[str] = Field(
        default=["stats", "page", "check", "filter", "sample", "merge", "report", "screen", "erase"]
    )
    """Commands to run, of these."""
    work: str = "runs/bench-table-growth"
    """Folder for what they make, which is deleted."""


@dataclass
class WatchedCommand(Watched):
    """One command, and the bytes that its processes asked to read, in MB."""

    read_mb: float = 0.0
    failed: str = ""


def run_table_growth(options: TableGrowthOptions) -> str:
    """Run every command; returns a table and writes it to `work`/tables.json."""
    pool, work = open_pool(options.pool), Path(options.work).resolve()
    size = sum(_size(Path(pool.uri, table)) for table in TABLES)
    features = _size(Path(pool.uri, "features"))
    rows = []
    for name, words in _commands(options, pool.metadata["utterance_id"][0].as_py(), work).items():
        if name not in options.commands:
            continue
        say(f"{name}: seral {' '.join(words)}")
        watched = watch_command(words)
        about = features if name == "screen" else size
        row = {"command": name, "seconds": watched.seconds, "memory, MB": watched.all_mb}
        rows.append(row | {"passes": watched.read_mb / (about / 1e6), "failed": watched.failed})
        storage.write_json(str(work / "tables.json"), {"rows": pool.rows, "tables_mb": size / 1e6, "commands": rows})
        for made in ("filtered", "sampled", "merged"):
            storage.remove(str(work / made))
    return markdown(pd.DataFrame(rows))


def _commands(options: TableGrowthOptions, utterance: str, work: Path) -> dict[str, list[str]]:
    """Words of every command; the last one changes the pool."""
    pool, condition = options.pool, ["--where", "duration_s > 2"]
    commands = {
        "stats": ["pool", "stats", pool],
        "page": ["pool", "stats", pool, "--html", str(work / "pool.html"), "--players", "0"],
        "check": ["pool", "check", pool],
        "filter": ["pool", "filter", pool, *condition, "--out", str(work / "filtered")],
        "sample": ["pool", "sample", pool, "--count", "1000", "--out", str(work / "sampled")],
        "merge": ["pool", "merge", pool, "--out", str(work / "merged")],
    }
    if options.run is not None:
        commands["report"] = ["report", options.run]
    if options.encoder is not None:
        commands["screen"] = ["pool", "screen", pool, "--set", f"encoder={options.encoder}"]
    return commands | {"erase": ["pool", "erase", pool, "--utterance", utterance]}


def watch_command(words: Sequence[str]) -> WatchedCommand:
    """Run the command line in a process of its own and look at it while it runs."""
    watched, started = WatchedCommand(), time.perf_counter()
    with marked_processes() as environment:
        command = [sys.executable, "-m", "seral", *words]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        watchers = [
            threading.Thread(target=watch, args=(process.pid, watched), daemon=True)
            for watch in (watch_memory, _watch_reads)
        ]
        for watcher in watchers:
            watcher.start()
        _, errors = process.communicate()
        watched.seconds = time.perf_counter() - started
        for watcher in watchers:
            watcher.join()
    if process.returncode:
        watched.failed = errors.decode()[-300:]
    return watched


def _watch_reads(pid: int, watched: WatchedCommand) -> None:
    """Note the bytes that a process and all that it started ask to read, until it ends."""
    read: dict[int, int] = {}
    while psutil.pid_exists(pid):
        try:
            driver = psutil.Process(pid)
            if driver.status() == psutil.STATUS_ZOMBIE:
                return
            for process in [driver, *driver.children(recursive=True)]:
                read[process.pid] = process.io_counters().read_chars
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        finally:
            watched.read_mb = sum(read.values()) / 1e6
        time.sleep(POLL_S)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


if __name__ == "__main__":
    run_job(TableGrowthOptions, run_table_growth, __doc__)
