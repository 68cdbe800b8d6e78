"""Every distributed job on a cluster of four nodes, of which one is lost in the middle of each.

The session's Ray is a single node, so the cluster lives in a process of its own: this file, run as a script.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any, TypedDict

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from seral.cluster import ClusterOptions, connect
from seral.features.audio import extract_features
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.selection.batch import run_batch
from seral.selection.options import BatchOptions
from seral.sweep.board import read_records
from seral.sweep.plan import SweepOptions
from seral.sweep.run import run_sweep
from seral.training.options import SupervisedOptions
from seral.training.supervised import run_train

CLIPS, CANDIDATES, PICKS = 96, 40_000, 8_000
CLASSES = ["anger", "happiness", "neutral", "sadness"]
LORA = {"adapter": "lora", "top_layers": 1, "epochs": 8, "patience": 8, "batch_size": 8}
ALONE, CLUSTER = "alone", "cluster"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that works in a folder, and how to see from outside how far it is."""

    run: Callable[[Path], None]
    workers: str | tuple[str, ...]
    """Beginnings of the titles of the processes that do the work."""
    signs: str
    """Files that it writes on its way."""
    middle: int
    """Number of signs when the job is in its middle."""

    def signs_in(self, folder: Path) -> int:
        """Number of signs in a folder."""
        return len(list(folder.glob(self.signs)))


class Loss(TypedDict):
    """Workers and signs of a job when it lost a node."""

    workers: list[str]
    """Titles of the processes that did the job's work."""
    signs: int
    """Files that the job had written by then."""


def training(folder: Path, **finetune: Any) -> dict[str, Any]:
    task = {"classes": CLASSES, "split": {"scheme": "k-fold", "k": 3}, "folds": [0], "seeds": [0]}
    return {"pool": str(folder / "pool"), "encoder": "seral-tiny", "finetune": finetune, **task}


def import_clips(folder: Path) -> None:
    manifest = str(folder.parent / "corpus" / "manifest.jsonl")
    values = {"reader": "manifest", "root": manifest, "out": str(folder / "pool"), "shard_mb": 0.1}
    import_corpus(parse(ImportOptions, values))


def extract(folder: Path) -> None:
    extract_features(open_pool(str(folder / "pool")), "seral-tiny", frames_layer=3)


def train_by_two(folder: Path) -> None:
    values = training(folder, **LORA) | {"cluster": {"train_workers": 2}, "run": str(folder / "train")}
    run_train(parse(SupervisedOptions, values))


def select(folder: Path) -> None:
    values = {"source": {"features": str(folder.parent / "candidates")}, "strategy": "k_center", "count": PICKS}
    values |= {"parts": 1 if folder.name == ALONE else 3, "out": str(folder / "picks.parquet")}
    run_batch(parse(BatchOptions, values))


def sweep(folder: Path) -> None:
    space = {"finetune.head.l2": [0.03, 0.3], "finetune.head.std_gain": [0.0, 0.5]}
    task = training(folder, adapter="frozen") | {"folds": [0, 1]}
    values = {"run": str(folder / "sweep"), "training": task, "space": space, "test_seeds": [0]}
    run_sweep(parse(SweepOptions, values | {"search": "grid", "early_stopping": None}))


def loop(folder: Path) -> None:
    values = training(folder, adapter="frozen") | {"run": str(folder / "loop"), "full_arm": False}
    run_loop(parse(LoopOptions, values | {"strategy": "margin", "budget": {"sizes": [8, 14, 20, 26, 32, 38]}}))


def loop_in_parts(folder: Path) -> None:
    """The loop with the pool in two parts on the cluster, and in one in the trajectory's process alone."""
    values = training(folder, adapter="frozen") | {"run": str(folder / "parts"), "full_arm": False, "random_arm": False}
    values |= {"cluster": {"parts": 1 if folder.name == ALONE else 2}, "initial": "k_center"}
    run_loop(parse(LoopOptions, values | {"strategy": "after", "budget": {"sizes": [8, 14, 20]}}))


JOBS = {
    "import": Job(run=import_clips, workers="ray::Map", signs="pool/utterances/*.parquet", middle=4),
    "features": Job(run=extract, workers="ray::Map", signs="pool/features/*/pooled/*.parquet", middle=4),
    "train": Job(
        run=train_by_two, workers="ray::RayTrainWorker", signs="train/models/*/.train/*/checkpoint_*", middle=1
    ),
    "select": Job(run=select, workers="ray::PoolPart.call", signs="picks.parquet", middle=0),
    "sweep": Job(run=sweep, workers=("ray::ImplicitFunc", "ray::run_trial"), signs="sweep/trials/*", middle=1),
    "loop": Job(run=loop, workers="ray::_run_alone", signs="loop/trajectories/*/rounds/*/round.json", middle=2),
    "parts": Job(
        run=loop_in_parts,
        workers=("ray::Map", "ray::PoolPart.call"),
        signs="parts/trajectories/*/rounds/*/round.json",
        middle=1,
    ),
}


def run_on_a_cluster(folder: Path) -> None:
    """Run all jobs, one after another, and print what each of them has lost."""
    from ray.cluster_utils import Cluster

    # A dead node is noticed after five seconds instead of fifteen.
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": {"health_check_period_ms": 1000}}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(3):
        cluster.add_node(num_cpus=1)
    connect(ClusterOptions(address=cluster.address))
    losses: dict[str, Loss] = {}
    for name, job in JOBS.items():
        watcher = Thread(target=lose_a_node, args=(cluster, job, folder, losses, name), daemon=True)
        watcher.start()
        started = time.monotonic()
        job.run(folder)
        print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr)
        watcher.join(timeout=10)
        if name not in losses:
            break  # the test will tell
        cluster.add_node(num_cpus=1)
    print(json.dumps(losses))
    ray.shutdown()
    cluster.shutdown()


def lose_a_node(cluster: Any, job: Job, folder: Path, losses: dict[str, Loss], name: str) -> None:
    """Once a job is in its middle, take a node that is at work on it away, with all its processes at once."""
    while name not in losses:
        time.sleep(0.02)
        if job.signs_in(folder) < job.middle:
            continue
        for node in list(cluster.worker_nodes):
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            processes = raylet.children()
            tell(processes, "suspend")  # so that they are still at the same when they are killed
            titles = [" ".join(words).strip() for words in tell(processes, "cmdline")]
            if at_work := [title for title in titles if title.startswith(job.workers)]:
                signs = job.signs_in(folder)
                tell([raylet, *processes], "kill")
                cluster.remove_node(node, allow_graceful=False)
                losses[name] = {"workers": at_work, "signs": signs}
                break
            tell(processes, "resume")


def tell(processes: Sequence[psutil.Process], method: str) -> list[Any]:
    """Call one method of all of some processes that still exist."""
    answers = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            answers.append(getattr(process, method)())
    return answers


@dataclass(frozen=True)
class Folders:
    """Folders of equal jobs, one run on one machine and one on the cluster."""

    alone: Path
    cluster: Path
    losses: dict[str, Loss]

    def same_files(self, pattern: str) -> list[Path]:
        """Files that a job made in both folders; there are some, and none differs."""
        names = [sorted(path.relative_to(root) for path in root.glob(pattern)) for root in (self.alone, self.cluster)]
        assert names[0] == names[1]
        for path in names[0]:
            assert (self.alone / path).read_bytes() == (self.cluster / path).read_bytes(), path
        assert names[0]
        return names[0]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, make_corpus: Callable[..., Path], ray_session: None) -> Folders:
    root = tmp_path_factory.mktemp("nodes")
    make_corpus(root / "corpus", CLIPS, seconds=(0.8, 1.6), speakers=9)
    write_candidates(root / "candidates")
    for folder in (ALONE, CLUSTER):
        (root / folder).mkdir()
    for job in JOBS.values():
        job.run(root / ALONE)
    command = [sys.executable, __file__, str(root / CLUSTER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return Folders(root / ALONE, root / CLUSTER, json.loads(done.stdout.strip().splitlines()[-1]))


def write_candidates(folder: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array([f"u{number:05d}" for number in rng.permutation(CANDIDATES)])
    folder.mkdir()
    for number, ids in enumerate(np.array_split(names, 6)):
        x_ND = rng.normal(size=(len(ids), 64)).astype(np.float16)
        cells = pa.array([x_D.tobytes() for x_D in x_ND], pa.binary(128))
        pq.write_table(pa.table({"utterance_id": ids, "embedding": cells}), folder / f"{number}.parquet")


pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_lost_a_node_that_was_at_work(folders: Folders, name: str) -> None:
    assert name in folders.losses, f"it ended before a node could be lost; seen: {folders.losses}"
    assert folders.losses[name]["workers"]


def test_an_import_ends_in_the_same_pool(folders: Folders) -> None:
    assert folders.losses["import"]["signs"] < len(folders.same_files("pool/utterances/*"))
    folders.same_files("pool/gold/*")
    folders.same_files("pool/*.json")
    assert check_pool(str(folders.cluster / "pool")) == []
    ids = open_pool(str(folders.cluster / "pool")).metadata["utterance_id"].to_pylist()
    assert len(set(ids)) == len(ids) == CLIPS


def test_features_are_the_same(folders: Folders) -> None:
    assert folders.losses["features"]["signs"] < len(folders.same_files("pool/features/*/pooled/*"))
    folders.same_files("pool/features/*/frames-3/*")
    assert not list(folders.cluster.rglob("*.partial"))


def test_two_workers_end_in_the_same_weights(folders: Folders) -> None:
    assert len(folders.same_files("train/models/*/model/**/*.safetensors")) == 2


def test_the_same_are_picked(folders: Folders) -> None:
    folders.same_files("picks.parquet")
    ids = pq.read_table(folders.cluster / "picks.parquet")["utterance_id"].to_pylist()
    assert len(set(ids)) == len(ids) == PICKS


def test_a_sweep_tries_every_point_once(folders: Folders) -> None:
    def trials(folder: Path) -> dict[str, Any]:
        records = read_records(str(folder / "sweep"))
        numbers = {name: [report["dev"] for report in record["reports"]] for name, record in records.items()}
        return {name: (record["number"], record["state"], numbers[name]) for name, record in records.items()}

    assert trials(folders.cluster) == trials(folders.alone)
    assert [(number, state) for number, state, _ in trials(folders.cluster).values()] == [(n, "done") for n in range(4)]
    folders.same_files("sweep/tested.json")


def test_a_loop_asks_for_the_same_labels_once(folders: Folders) -> None:
    picks = folders.same_files("loop/trajectories/*/rounds/*/picks.parquet")
    assert folders.losses["loop"]["signs"] < len(picks) == 2 * 6
    for trajectory in {path.parents[2] for path in picks}:
        tables = [pq.read_table(folders.cluster / path) for path in picks if trajectory in path.parents]
        ids = pa.concat_tables(tables)["utterance_id"].to_pylist()
        assert len(set(ids)) == len(ids) == 38
    folders.same_files("loop/trajectories/*/rounds/*/model/head.safetensors")


def test_a_loop_in_parts_picks_as_one_process_does(folders: Folders) -> None:
    assert len(folders.same_files("parts/trajectories/*/rounds/*/picks.parquet")) == 3
    assert folders.losses["parts"]["signs"] < 3
    folders.same_files("parts/trajectories/*/rounds/*/predictions/pool/*.parquet")
    folders.same_files("parts/trajectories/*/rounds/*/model/head.safetensors")


if __name__ == "__main__":
    run_on_a_cluster(Path(sys.argv[1]))
