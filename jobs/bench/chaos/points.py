"""Commands whose every change of a file is tried, run within this process: what else they do is done without Ray."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from jobs.bench.chaos import learning
from jobs.bench.chaos.changes import HOWS, Subject, stops
from jobs.bench.chaos.learning import EMOTIONS, digest, put
from jobs.bench.chaos.results import Results
from seral import storage
from seral.errors import StateError
from seral.labels.exchange import import_labels
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.options import parse
from seral.pool import ingest
from seral.pool.check import check_pool
from seral.pool.chunks import task_block
from seral.pool.derive import SelectOptions, merge_pools, select_from_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import TABLES, read_manifest, snapshot_names
from seral.pool.snapshots import take_snapshot

CLIPS, SPEAKERS, SECONDS, RATE_HZ = 8, 2, 0.3, 16_000
SHARD_MB = 0.02


def write_corpus(folder: Path, clips: int = CLIPS, first: int = 0) -> Path:
    """Clips of noise with a manifest, `first` of them being numbered so."""
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(first, first + clips):
        noise = 0.1 * np.random.default_rng(number).standard_normal(int(SECONDS * RATE_HZ))
        sf.write(folder / "audio" / f"{number:03d}.wav", noise, RATE_HZ)
        row = {"audio": f"audio/{number:03d}.wav", "speaker": f"s{number % SPEAKERS}", "language": "en"}
        rows.append(json.dumps(row | {"emotion": EMOTIONS[number % len(EMOTIONS)]}))
    with open(folder / "manifest.jsonl", "a", encoding="utf-8") as file:
        file.write("".join(f"{row}\n" for row in rows))
    return folder


def import_here(root: Path, out: Path) -> None:
    """An import whose chunks are written in this process."""
    put(ingest, connect=lambda options=None: None, _write_shards=_write_shards)
    values = {"reader": "manifest", "root": str(root), "out": str(out), "shard_mb": SHARD_MB, "voice": False}
    import_corpus(parse(ImportOptions, values))


def _write_shards(options: ImportOptions, listing: Any, chunks: Sequence[Any], erased: Any) -> dict[str, Any]:
    entries = {}
    for row in task_block(listing, chunks).to_pylist():
        more = {"voice": options.voice, "channel": options.channel, "erased": erased}
        done = ingest.import_chunk(row, pool=options.out, limits=options.limits, **more)
        entries[done["chunk"]] = json.loads(done["entry"])
    return entries


def outcome_of_pool(pool: Path, *, tables: Sequence[str] = tuple(TABLES), names: bool = True) -> Mapping[str, Any]:
    """The bytes of a pool's tables, its problems, and what is left half-written."""
    files = sorted(file for table in tables for file in (pool / table).glob("*"))
    sums = [(f"{file.parent.name}/{file.name}" if names else "", digest(file)) for file in files]
    manifest = read_manifest(str(pool)) or {}
    facts = {"pool_hash": manifest.get("pool_hash"), "revision": manifest.get("revision")}
    facts |= {"snapshots": snapshot_names(str(pool)), "problems": check_pool(str(pool))}
    return facts | {"files": sorted(sums), "partial": storage.half_written(pool)}


def _new_pool(folder: Path, name: str = "pool", first: int = 0) -> None:
    import_here(write_corpus(folder / f"corpus-{name}", first=first), folder / name)


def _snapshot(folder: Path) -> None:
    """A snapshot, which may be there from before a kill."""
    try:
        take_snapshot(str(folder / "pool"), "march")
    except StateError:
        if "march" not in snapshot_names(str(folder / "pool")):
            raise


def _erase(folder: Path) -> None:
    from seral.erase.erase import EraseOptions, erase

    erase(EraseOptions(pool=str(folder / "pool"), speaker="corpus-pool/s1"))


def _filter(folder: Path) -> None:
    values = {"pool": str(folder / "pool"), "out": str(folder / "out"), "where": ["speaker == s1"]}
    select_from_pool(parse(SelectOptions, values))


def _answers(folder: Path) -> Path:
    """Answers of two raters as another tool gives them."""
    lines = [f"clip-{n},{rater},{EMOTIONS[n % 2]},{n}.5" for n in range(CLIPS) for rater in ("anna", "bert")]
    table = folder / "answers.csv"
    table.write_text("\n".join(["utt_id,rater,label,answered_at", *lines]) + "\n")
    return table


def _label(folder: Path) -> None:
    """A ledger is begun, a batch asked, answers read from a file, and the batch shut."""
    with closing(Ledger.create(str(folder / "labels.sqlite"), Project(classes=EMOTIONS[:2]))) as ledger:
        ledger.add_person("carl")
        ledger.ask("round-1", [f"clip-{n}" for n in range(CLIPS)], purpose="round", round=1, overlap=2)
        import_labels(ledger, folder / "answers.csv", "csv")
        ledger.shut("round-1")


def _outcome_of_ledger(folder: Path) -> object:
    with closing(Ledger(str(folder / "labels.sqlite"))) as ledger:
        answers = ledger.answers(history=True).to_pylist()
        batches = [(one.batch, one.purpose, one.round) for one in ledger.progress()]
        people = [(one.name, one.role) for one in ledger.people()]
        return answers, batches, people, ledger.asked("round-1"), ledger.database.damage()


def _loaded(*modules: str) -> None:
    """Import before a fork what each of them would import."""
    for module in modules:
        importlib.import_module(module)


def subjects(materials: Path) -> dict[str, Subject]:
    """Commands by name; `materials`: a folder with a pool of speech and its features, for rounds of the loop."""

    def grown(folder: Path) -> None:
        _new_pool(folder)
        write_corpus(folder / "corpus-pool", clips=4, first=CLIPS)

    def two_pools(folder: Path) -> None:
        _new_pool(folder, "one")
        _new_pool(folder, "two", first=CLIPS // 2)

    def copied(folder: Path) -> None:
        _loaded(
            "seral.loop.loop", "seral.loop.trajectory", "seral.sweep.report", "seral.sweep.run", "seral.verbs.check_run"
        )
        shutil.copytree(materials / "pool", folder / "pool")

    def merge(folder: Path) -> None:
        merge_pools([str(folder / "one"), str(folder / "two")], str(folder / "pool"))

    def imports(folder: Path) -> None:
        import_here(folder / "corpus-pool", folder / "pool")

    def of_pool(folder: Path) -> Mapping[str, Any]:
        return outcome_of_pool(folder / "pool")

    # Salts are drawn anew, and stand in what is put in the quarantine.
    erased = partial(outcome_of_pool, tables=("utterances", "gold", "votes"))
    return {
        "import": Subject(prepare=lambda folder: write_corpus(folder / "corpus-pool"), call=imports, outcome=of_pool),
        "append": Subject(prepare=grown, call=imports, outcome=of_pool),
        "merge": Subject(prepare=two_pools, call=merge, outcome=of_pool),
        "filter": Subject(prepare=_new_pool, call=_filter, outcome=lambda folder: outcome_of_pool(folder / "out")),
        "snapshot": Subject(prepare=_new_pool, call=_snapshot, outcome=of_pool),
        "erase": Subject(prepare=_new_pool, call=_erase, outcome=lambda folder: erased(folder / "pool")),
        "pretrain": Subject(
            prepare=lambda folder: _loaded("seral.pretraining.tapt", "peft", "ray.train.torch"),
            call=lambda folder: learning.pretrain(folder, materials / "pool"),
            outcome=learning.outcome_of_pretraining,
        ),
        "labels": Subject(prepare=_answers, call=_label, outcome=_outcome_of_ledger),
        "round": Subject(prepare=copied, call=learning.run_loop, outcome=learning.outcome_of_loop),
        "trial": Subject(prepare=copied, call=learning.run_sweep, outcome=learning.outcome_of_sweep),
    }


def run_points(work: Path, materials: Path, names: Sequence[str], every: int) -> str:
    """Every change of these commands, each way; returns a table of tries, survived and what did not.

    Results are written after every try, to WORK/changes.jsonl.
    """
    results = Results(work / "changes.jsonl", ("command", "how", "change"))
    for name in names:
        for how in HOWS:
            tried = [one["change"] for one in results.records if (one["command"], one["how"]) == (name, how)]
            first, folder = max(tried, default=1 - every) + every, work / "changes" / f"{name}-{how}"
            if 0 not in tried:  # the end
                for stop in stops(subjects(materials)[name], folder, how, first=first, every=every):
                    wrong = [stop.complaint] if stop.complaint else []
                    at = {"command": name, "how": how, "change": stop.change}
                    results.add(at | {"path": stop.path, "wrong": wrong})
                results.add({"command": name, "how": how, "change": 0, "wrong": []})
    lines = []
    for name in names:
        for how in HOWS:
            own = [one for one in results.records if (one["command"], one["how"]) == (name, how) and one["change"]]
            survived = sum(not one["wrong"] for one in own)
            lines.append(f"{name}, {how}: {len(own)} tries, {survived} survived")
    return "\n".join([*lines, *results.failed()])
