"""Commands on an object store that fails: the bytes must be those of a store that does not.

    python -m jobs.bench.chaos.stores 'kinds=[503, reset]' seeds=[0,1]

An import, an append, an erasure, statistics, features and rounds of the loop run on a real S3 server behind a door that
answers some of the requests with errors, breaks connections, cuts answers, says nothing, or dies in the middle of a
command and comes back when that has ended. Every file at the end must be that of an undisturbed twin.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.fs as pafs
from pydantic import Field

from jobs.bench.s3_door import KINDS, Door, Faults, environment, s3_server
from seral.errors import OptionError
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.progress import say
from seral.storage.stores import PATIENCE
from seral.synthesis.generate import GenerateOptions, generate

DEAD = "dead"
"""Beside the door's kinds: it dies once in the middle of every command, for longer than that is patient."""
OWN = re.compile(r"/erased/|^run/report/|^run/seconds|^run/complete\.json")
"""Files that no two runs share: tombstones with their salt, reports with their seconds, sizes of both."""
FOLDER = "s3://speech/tried"
"""All is made anew under one address, which is in records and their checksums."""
KINDS_TRIED = ("503", "500", "429", "reset", "lost", "cut", "slow", "stall", "half")
CHANGING = re.compile(
    r'"(?:sha256|finished|minutes|written|at)": [^\n]*|"seconds": \{[^}]*\}|seral sha256 "[^"]*"|# sha256: [^\n]*'
)
"""Parts of records that two runs of one command never share: times, and what is a checksum of such."""


class StoresOptions(Options):
    """Options of the tries."""

    kinds: list[str] = Field(default=[*KINDS_TRIED, "mixed", DEAD], min_length=1)
    """Faults, one after another; `mixed` is all of 503, 500, reset, lost and cut."""
    seeds: list[int] = Field(default=[0], min_length=1)
    """Each draws the requests that fail."""
    share: float = Field(default=0.1, gt=0, lt=1)
    """Of all requests; of those that say nothing a tenth of it."""
    rows: int = Field(default=48, ge=24)
    """Clips of each of the two corpora that are imported."""
    rounds: bool = True
    """Also features and two rounds of the loop."""
    patience_s: float = Field(default=30.0, gt=0)
    """Patience of the commands, SERAL_STORE_PATIENCE_S."""
    work: str = "runs/chaos-stores"
    """Folder for the corpora and what was seen."""


@dataclass
class Try:
    """One fault, by one seed."""

    kind: str
    seed: int
    seconds: float = 0.0
    requests: int = 0
    injected: int = 0
    restarts: int = 0
    """Commands that ended in one sentence and were run again."""
    failures: list[str] = field(default_factory=list)


def run(options: StoresOptions) -> list[Try]:
    """All tries; those that failed say by what."""
    if unknown := set(options.kinds) - {*KINDS, "mixed", DEAD}:
        raise OptionError(f"kinds: {', '.join(sorted(unknown))} are none of {', '.join((*KINDS, 'mixed', DEAD))}")
    work = Path(options.work).resolve()
    corpora = [work / "corpus", work / "more"]
    for seed, folder in enumerate(corpora):
        generate(GenerateOptions(out=str(folder), utterances=options.rows, seed=seed))
    manifest = corpora[1] / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"corpus": "demo"', '"corpus": "more"'))
    with s3_server() as door:
        twin = Try("none", 0)
        _commands(door, corpora, options, twin)
        if twin.failures:
            raise OptionError(f"the undisturbed twin failed: {twin.failures}")
        expected = _taken_away(door)
        tries = []
        for seed in options.seeds:
            for kind in options.kinds:
                tries.append(_try(door, Try(kind, seed), corpora, options, expected))
                say(f"{tries[-1]}")
        return [twin, *tries]


def table(tries: Sequence[Try]) -> str:
    """The tries as Markdown."""
    rows = [
        {
            "fault": one.kind,
            "seed": one.seed,
            "requests": one.requests,
            "failed requests": one.injected,
            "ended and run again": one.restarts,
            "seconds": round(one.seconds),
            "outcome": "; ".join(one.failures) or "the same bytes",
        }
        for one in tries
    ]
    return markdown(pd.DataFrame(rows))


def run_stores_bench(options: StoresOptions) -> str:
    """The tries as a table, which `work`/stores.json has too."""
    tries = run(options)
    (Path(options.work) / "stores.json").write_text(json.dumps([vars(one) for one in tries], indent=2))
    return table(tries)


def _try(door: Door, one: Try, corpora: Sequence[Path], options: StoresOptions, expected: dict[str, str]) -> Try:
    kinds = ("503", "500", "reset", "lost", "cut") if one.kind == "mixed" else (one.kind,)
    share = options.share / 10 if one.kind in ("stall", "half") else options.share
    door.faults = Faults() if one.kind == DEAD else Faults(share=share, kinds=kinds, seed=one.seed)
    try:
        _commands(door, corpora, options, one)
    finally:
        door.faults = Faults()
    files = _taken_away(door)
    different = sorted(name for name in expected.keys() | files.keys() if expected.get(name) != files.get(name))
    if different and not one.failures:
        one.failures.append(f"other files: {', '.join(different)}")
    return one


def _commands(door: Door, corpora: Sequence[Path], options: StoresOptions, one: Try) -> None:
    pool, started = f"{FOLDER}/pool", time.monotonic()
    requests, injected = door.requests, door.injected.total()
    imports = [["pool", "import", "manifest", str(corpus), "--out", pool, "--set", "voice=false"] for corpus in corpora]
    commands = [*imports, ["pool", "erase", pool, "--speaker", _speaker(corpora[0])], ["pool", "stats", pool]]
    if options.rounds:
        commands += [["features", pool, "--set", "cluster.cpus=1"], _loop(pool, corpora[0].parent)]
    commands.append(["pool", "check", pool])
    for command in commands:
        with _dying(door) if one.kind == DEAD else _living():
            done = _seral(command, door, options)
        for _ in range(3):
            if not done.returncode:
                break
            last = (done.stderr.strip() or "nothing").splitlines()[-1]
            if done.returncode != 1 or "Traceback" in done.stderr or not last.endswith("where this one ended"):
                break
            one.restarts += 1
            done = _seral(command, door, options)
        if done.returncode:
            one.failures.append(f"{' '.join(command[:2])}: status {done.returncode}: {done.stderr[-600:]}")
            break
    one.seconds = time.monotonic() - started
    one.requests, one.injected = door.requests - requests, door.injected.total() - injected


def _loop(pool: str, work: Path) -> list[str]:
    """Two rounds; JSON is YAML too."""
    values = {
        "pool": pool,
        "run": f"{FOLDER}/run",
        "encoder": "seral-tiny",
        "classes": ["anger", "happiness"],
        "split": {"scheme": "k-fold", "k": 2},
        "folds": [0],
        "seeds": [0],
        "budget": {"sizes": [6, 10]},
        "finetune": {"adapter": "frozen"},
        "cluster": {"cpus": 1},
    }
    config = work / "loop.yaml"
    config.write_text(json.dumps(values))
    return ["loop", "run", str(config)]


def _speaker(corpus: Path) -> str:
    """The first speaker of a corpus, as an erasure names one."""
    row = json.loads((corpus / "manifest.jsonl").read_text().splitlines()[0])
    return f"{row['corpus']}/{row['speaker']}"


def _seral(command: Sequence[str], door: Door, options: StoresOptions) -> subprocess.CompletedProcess[str]:
    env = os.environ | environment(door) | {PATIENCE: str(options.patience_s)}
    line = [sys.executable, "-m", "seral", *command]
    return subprocess.run(line, env=env, capture_output=True, text=True, timeout=1200, check=False)


@contextmanager
def _living() -> Iterator[None]:
    yield


@contextmanager
def _dying(door: Door) -> Iterator[None]:
    """The door dies a few requests into the block, and opens again after it."""
    ended, first = threading.Event(), door.requests

    def watch() -> None:
        while not ended.wait(0.01):
            if door.requests >= first + 4:
                door.close()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        door.close()
        door.open()


def _taken_away(door: Door) -> dict[str, str]:
    """Path -> checksum of all files, past the door, without what no two runs share; the files are deleted."""
    fs = pafs.S3FileSystem(endpoint_override=f"http://{door.behind}", access_key="someone", secret_key="secret")
    folder = FOLDER.removeprefix("s3://")
    checksums = {}
    for entry in fs.get_file_info(pafs.FileSelector(folder, recursive=True)):
        name = entry.path.removeprefix(f"{folder}/")
        if entry.type == pafs.FileType.File and not OWN.search(name):
            with fs.open_input_stream(entry.path) as stream:
                data = stream.read()
            text = b"" if name.endswith(".parquet") else CHANGING.sub("", data.decode(errors="replace")).encode()
            checksums[name] = hashlib.sha256(text or data).hexdigest()
    fs.delete_dir(folder)
    return checksums


if __name__ == "__main__":
    run_job(StoresOptions, run_stores_bench, __doc__)
