"""Two commands at once on one pool: each ends well or in a sentence, the pool stays sound, and both go through again.

The second begins at a moment of the first that is drawn by a seed. A command whose pool the other has changed may end
with a sentence; afterwards each is given once more, with a folder of its own.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jobs.bench.chaos.commands import CLASSES, run_seral
from jobs.bench.chaos.results import Results
from jobs.bench.chaos.watched import End, Running
from seral.pool.check import check_pool
from seral.pool.tombstones import read_erased
from seral.progress import say
from seral.verbs.check_run import check_run

ERASED = "demo"
"""The corpus of the speaker who is erased."""
REFUSED = ("has changed since", "give the command again", "went", "was erased")
"""Words of sentences by which a command says that the other one has changed its pool."""


def _loop(folder: Path, command: str, number: int) -> list[str]:
    task: dict[str, Any] = {"pool": str(folder / "pool"), "encoder": "seral-tiny", "classes": CLASSES}
    task |= {"split": {"scheme": "k-fold", "k": 3}, "folds": [0], "finetune": {"adapter": "frozen"}}
    task |= {"cluster": {"cpus": 1}}
    if command == "loop":
        task |= {"seeds": [0], "run": str(folder / f"loop-{number}"), "full_arm": False}
        task |= {"budget": {"sizes": [8, 12, 16]}}
        words = ["loop", "run"]
    else:
        space = {"finetune.head.l2": [0.03, 0.3]}
        sweep = {"run": str(folder / f"sweep-{number}"), "training": task | {"seeds": [0]}, "space": space}
        task, words = sweep | {"search": "grid", "early_stopping": None}, ["sweep", "run"]
    config = folder / f"{command}-{number}.json"
    config.write_text(json.dumps(task))
    return [*words, str(config)]


def words_of(name: str, materials: Path, folder: Path, number: int) -> list[str]:
    """A command on FOLDER/pool; `number` counts how often it was given."""
    pool, filtered = str(folder / "pool"), str(folder / f"filtered-{number}")
    speaker = json.loads((materials / "corpus" / "manifest.jsonl").read_text().splitlines()[0])["speaker"]
    small = ["--set", "shard_mb=0.1", "--set", "cluster.cpus=1"]
    return {
        "import": ["pool", "import", "manifest", str(materials / "other-corpus"), "--out", pool, *small],
        "append": ["pool", "import", "manifest", str(materials / "more"), "--out", pool, *small],
        "erase": ["pool", "erase", pool, "--speaker", f"{ERASED}/{speaker}"],
        "merge": ["pool", "merge", str(materials / "other"), "--out", pool],
        "snapshot": ["pool", "snapshot", pool, f"march{number}"],
        "filter": ["pool", "filter", pool, "--where", f"speaker != {speaker}", "--out", filtered],
        "loop": _loop(folder, "loop", number),
        "sweep": _loop(folder, "sweep", number),
        "predict": ["predict", str(materials / "run"), pool, "--out", str(folder / f"predicted-{number}.parquet")],
        "report": ["pool", "stats", pool, "--html", str(folder / f"page-{number}.html")],
        "check": ["pool", "check", pool],
    }[name]


NAMES = ("import", "append", "erase", "merge", "snapshot", "filter", "loop", "sweep", "predict", "report", "check")
"""Commands that are paired, each with every other and, but for those that read, with itself."""


def make_pair_materials(materials: Path) -> Path:
    """Further corpora and pools, and a run to predict with, beside the corpus and the pool that are there."""
    for name, seed in (("more", 4), ("other-corpus", 5)):
        if not (materials / name).exists():
            sets = ["utterances=24", "speakers_per_language=2", "junk=0.0", f"seed={seed}"]
            run_seral(["pool", "generate", str(materials / name), *(part for one in sets for part in ("--set", one))])
    if not (materials / "other" / "manifest.json").exists():
        run_seral(["pool", "import", "manifest", str(materials / "other-corpus"), "--out", str(materials / "other")])
    if not (materials / "run" / "trajectories").exists():
        folder = materials / "for-run"
        shutil.copytree(materials / "pool", folder / "pool", dirs_exist_ok=True)
        run_seral(_loop(folder, "loop", 0))
        shutil.copytree(folder / "loop-0", materials / "run")
    return materials


def run_pairs(work: Path, materials: Path, names: Sequence[str], tries: int, seed: int) -> str:
    """All pairs of these commands, `tries` moments each; returns a table of tries, survived and the seeds of others.

    Results are written after every try, to WORK/pairs.jsonl.
    """
    results = Results(work / "pairs.jsonl", ("first", "second", "seed"))
    for one, other in itertools.combinations_with_replacement(names, 2):
        for number in range(seed, seed + tries):
            if (one, other, number) not in results:
                started = time.monotonic()
                wrong = _pair(work / "pairs" / f"{one}-{other}-{number}", materials, (one, other), number)
                facts = {"first": one, "second": other, "seed": number, "s": round(time.monotonic() - started)}
                results.add(facts | {"wrong": wrong})
                say(f"{one} beside {other}, seed {number}: {'; '.join(wrong) or 'survived'}")
    failed = results.failed()
    return "\n".join([f"{len(results.records)} tries, {len(results.records) - len(failed)} survived", *failed])


def _pair(folder: Path, materials: Path, names: tuple[str, str], seed: int) -> list[str]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(materials / "pool", folder / "pool")
    rng, wrong = np.random.default_rng([seed, *"".join(names).encode()]), list[str]()
    first = Running(words_of(names[0], materials, folder, 0), folder / "first.log")
    time.sleep(float(rng.uniform(0, 8)))
    second = Running(words_of(names[1], materials, folder, 1), folder / "second.log")
    for name, end in zip(names, (first.outcome(), second.outcome()), strict=True):
        wrong += _complaints(name, end)
    for number, name in enumerate(names, 2):
        words = words_of(name, materials, folder, number)  # in folders of their own: the pool may have changed
        end = Running(words, folder / f"again-{number}.log").outcome()
        if end.status != 0:
            wrong.append(f"{name} again: status {end.status}, {end.last_line!r}")
    wrong += check_pool(str(folder / "pool"))
    for run in sorted(folder.glob("*/config.yaml")):
        wrong += check_run(str(run.parent)).problems
    if "erase" in names:
        wrong += _left(folder)
    if not wrong:
        shutil.rmtree(folder)
    return wrong


def _complaints(name: str, end: End) -> list[str]:
    if end.status == 0 or (end.status == 1 and any(words in end.output for words in REFUSED)):
        return [] if "Traceback" not in end.output else [f"{name}: a traceback"]
    return [f"{name}: status {end.status}, {end.last_line!r}"]


def _left(folder: Path) -> list[str]:
    """Files of the pool and of what was made of it that still speak of the erased."""
    from seral.erase import traces

    erased = read_erased(str(folder / "pool"))
    names = [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and "/erased/" not in str(path)]
    made = [name for name in names if not name.endswith((".log", ".json", ".sqlite", ".png"))]
    # A pool that was filtered meanwhile is reached by the erasure or was made after it.
    return [f"{name} speaks of the erased" for name in made if traces.refers(name, erased)]
