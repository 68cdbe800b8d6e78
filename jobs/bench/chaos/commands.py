"""Commands that bad luck is tried on: what they need, what they are called with, which of their files must agree."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CLASSES = ["anger", "happiness", "neutral", "sadness"]
ROUNDS = "run/trajectories/*/rounds/*"
LORA = {"adapter": "lora", "top_layers": 1, "epochs": 3, "patience": 3, "batch_size": 8}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A command that works in a folder of its own."""

    words: Callable[[Path, Path], list[str]]
    """The command, from the folder of materials and its own."""
    compared: tuple[str, ...]
    """Files that must have the same bytes as those of a command that nobody disturbed, as patterns in its folder."""
    one_worker: str | None = "cluster.cpus=1"
    """Setting by which it works in one process; None = it has none."""
    with_ray: bool = True
    """Whether it starts a local Ray, whose processes can be hit."""
    prepare: Callable[[Path, Path], object] = lambda materials, folder: None
    """Called once, with both folders, before the first try."""


def run_seral(words: Sequence[str]) -> str:
    """Run a command to its end, undisturbed; returns its output. Raises CalledProcessError."""
    command = [sys.executable, "-m", "seral", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_materials(folder: Path, clips: int = 96) -> Path:
    """A corpus of generated speech and the pool of it, made once."""
    if not (folder / "pool" / "manifest.json").exists():
        settings = [f"utterances={clips}", "speakers_per_language=2", "junk=0.1", "seed=3"]
        run_seral(["pool", "generate", str(folder / "corpus"), *_sets(settings)])
        run_seral(["pool", "import", "manifest", str(folder / "corpus"), "--out", str(folder / "pool")])
    return folder


def with_features(folder: Path) -> Path:
    """Materials whose pool has features."""
    if not (folder / "pool" / "features").exists():
        run_seral(["features", str(folder / "pool")])
    return folder


def _sets(settings: Sequence[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def _training(materials: Path, folder: Path, **more: Any) -> dict[str, Any]:
    task = {"classes": CLASSES, "split": {"scheme": "k-fold", "k": 3}, "folds": [0], "seeds": [0]}
    own = {"pool": str(materials / "pool"), "feature_cache": str(folder / "cache"), "encoder": "seral-tiny"}
    return task | own | more


def _configured(command: str, folder: Path, options: dict[str, Any]) -> list[str]:
    """The words of a configured command whose options lie in a file in its folder."""
    config = folder / "config.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(options))
    return [*command.split(), str(config)]


def _generate(materials: Path, folder: Path) -> list[str]:
    return ["pool", "generate", str(folder / "corpus"), *_sets(["utterances=480", "speakers_per_language=2"])]


def _import(materials: Path, folder: Path) -> list[str]:
    settings = _sets(["shard_mb=0.1", "cluster.cpus=2"])
    return ["pool", "import", "manifest", str(materials / "corpus"), "--out", str(folder / "pool"), *settings]


def _loop(materials: Path, folder: Path) -> list[str]:
    loop = {"run": str(folder / "run"), "strategy": "margin", "full_arm": False, "finetune": {"adapter": "frozen"}}
    more = {"budget": {"sizes": list(range(8, 29, 4))}, "cluster": {"cpus": 2}}
    return _configured("loop run", folder, _training(materials, folder, **loop, **more))


def _train(materials: Path, folder: Path) -> list[str]:
    options = _training(materials, folder, run=str(folder / "run"), finetune=LORA, cluster={"cpus": 2})
    return _configured("train", folder, options | {"seeds": [0, 1, 2]})


def _sweep(materials: Path, folder: Path) -> list[str]:
    training = _training(materials, folder, finetune={"adapter": "frozen"}, cluster={"cpus": 2})
    space = {"finetune.head.l2": [0.003, 0.03, 0.3, 3.0], "finetune.head.std_gain": [0.0, 0.5]}
    sweep = {"run": str(folder / "run"), "training": training, "space": space, "search": "grid", "early_stopping": None}
    return _configured("sweep run", folder, sweep)


def _pretrain(materials: Path, folder: Path) -> list[str]:
    tapt = ["steps=30", "batch_s=20", "warmup_steps=2", "checkpoint_every=3", "eval_every=10"]
    settings = _sets(["encoder=seral-tiny", "cluster.cpus=2", *(f"tapt.{setting}" for setting in tapt)])
    return ["pretrain", str(materials / "pool"), "--run", str(folder / "run"), *settings]


def _copy_pool(materials: Path, folder: Path) -> None:
    """A pool that knows of nothing made of the one it is copied from: an erasure would reach the twins of others."""
    shutil.copytree(materials / "pool", folder / "pool", ignore=shutil.ignore_patterns("derived"))


def _erase(materials: Path, folder: Path) -> list[str]:
    speaker = json.loads((materials / "corpus" / "manifest.jsonl").read_text().splitlines()[0])["speaker"]
    return ["pool", "erase", str(folder / "pool"), "--speaker", f"demo/{speaker}"]


POOL = ("pool/utterances/*", "pool/gold/*", "pool/votes/*")
SUBJECTS = {
    "generate": Subject(words=_generate, compared=("corpus/**/*",), one_worker=None, with_ray=False),
    "import": Subject(words=_import, compared=(*POOL, "pool/quarantine/*", "pool/manifest.json")),
    "loop": Subject(
        words=_loop,
        compared=(
            *("cache/*/pooled/*", f"{ROUNDS}/picks.parquet", f"{ROUNDS}/labels.parquet", f"{ROUNDS}/metrics.json"),
            *(f"{ROUNDS}/model/*", f"{ROUNDS}/predictions/**/*"),
        ),
    ),
    "train": Subject(words=_train, compared=("cache/*/pooled/*", "run/models/*/model/**/*.safetensors")),
    "sweep": Subject(words=_sweep, compared=("run/tested.json",), one_worker="training.cluster.cpus=1"),
    "pretrain": Subject(words=_pretrain, compared=("run/encoder/**/*.safetensors",)),
    "erase": Subject(words=_erase, compared=POOL, one_worker=None, with_ray=False, prepare=_copy_pool),
}
"""Commands by name."""


def differences(subject: Subject, folder: Path, twin: Path) -> list[str]:
    """Compared files that one of two folders lacks, or that differ; a pattern that no file matches is one, too."""
    wrong = []
    for pattern in subject.compared:
        names = [
            {str(path.relative_to(root)) for path in root.glob(pattern) if path.is_file()} for root in (folder, twin)
        ]
        if not names[1] and pattern not in POOL:
            wrong.append(f"no {pattern}")
        wrong += sorted(names[0] ^ names[1])
        wrong += [
            name for name in sorted(names[0] & names[1]) if (folder / name).read_bytes() != (twin / name).read_bytes()
        ]
    return wrong


def run_twin(name: str, materials: Path, work: Path) -> float:
    """Run a command undisturbed, once; returns the seconds that it took."""
    folder, clock = work / "twins" / name, work / "twins" / f"{name}.json"
    if not clock.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        SUBJECTS[name].prepare(materials, folder)
        started = time.monotonic()
        run_seral(SUBJECTS[name].words(materials, folder))
        clock.write_text(json.dumps(time.monotonic() - started))
    return float(json.loads(clock.read_text()))
