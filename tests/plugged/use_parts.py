"""Every kind of part of a package in the commands that take it, one after another in a process: one Ray for all.

python use_parts.py WORK CORPUS PREFIX     PREFIX: "" for the names of entry points, or "seral_parts:"
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from seral.cli import main

CLASSES = ["anger", "happiness", "neutral", "sadness"]


def run(*words: str, fails: bool = False) -> None:
    """One command, as a shell gives it."""
    sys.argv = ["seral", *words]
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    assert bool(code) == fails, f"{' '.join(words)} ended with {code}"


def named(part: str) -> str:
    """A part by its entry point, or by its module, where it is a constant in capitals or a function."""
    constants = {"read-parts": "read_parts"}
    return part if not PREFIX else PREFIX + constants.get(part, part.upper())


def use(work: Path, corpus: Path) -> None:
    """A pool by the reader, an encoder by the objective, a loop on it, and one on the package's own encoder."""
    pool, trained, cpus = str(work / "pool"), work / "trained", ("--set", "cluster.cpus=2")
    reads = ("pool", "import", named("read-parts"), str(corpus), "--out", pool, *cpus)
    run(*reads, "--set", "reader_options.labels=middle", fails=True)
    run(*reads, "--set", "reader_options.limit=40", "--set", "shard_mb=0.5")
    run(*reads, "--set", "shard_mb=0.5")  # goes on
    tapt = ("--set", f"tapt.objective={named('squared')}", "--set", "tapt.steps=2", "--set", "tapt.warmup_steps=1")
    run("pretrain", pool, "--run", str(work / "tapt"), *tapt, *cpus)
    task: dict[str, Any] = {"pool": pool, "classes": CLASSES, "seeds": [0], "folds": [0], "cluster": {"cpus": 2}}
    task |= {"split": {"scheme": "k-fold", "k": 3}}
    stable = {"adapter": named("stable"), "epochs": 1, "settings": {named("stable"): {"rank": 3}}}
    arms = {"random_arm": False, "full_arm": False, "probe": False, "strategy": "random", "budget": {"sizes": [8, 12]}}
    own = {"encoder": str(work / "tapt" / "encoder"), "finetune": stable, "run": str(work / "run")}
    (work / "loop.yaml").write_text(json.dumps(task | arms | own))
    run("loop", "run", str(work / "loop.yaml"))
    run("loop", "run", str(work / "loop.yaml"), "--set", "budget.sizes=[8,12,16]", fails=True)  # other options
    run("loop", "run", str(work / "loop.yaml"))  # nothing is left to do
    run("predict", str(work / "run"), pool, "--out", str(work / "loop.parquet"), *cpus)
    tilt = {"adapter": named("tilt"), "epochs": 1, "settings": {named("tilt"): {"strength": 0.5}}}
    encoder = "seral-tiny" if PREFIX else str(work / "encoder")  # a checkpoint names its family, and no module
    (work / "train.yaml").write_text(json.dumps(task | {"encoder": encoder, "finetune": tilt, "run": str(trained)}))
    run("train", str(work / "train.yaml"))
    run("export", str(trained), "--format", "hf", "--out", str(work / "hf"))
    run("export", str(trained), "--format", "peft", "--out", str(work / "peft"), fails=True)
    sweep(work, task | {"encoder": encoder})
    run("fit", str(trained), *cpus)
    run("predict", str(trained / "final"), pool, "--out", str(work / "final.parquet"), *cpus)


def sweep(work: Path, task: dict[str, Any]) -> None:
    """A sweep of adapters and an option, the last trial of it again, and a training by its best point."""
    tilt, folder, file = named("tilt"), work / "sweep", str(work / "sweep.yaml")
    option = f"finetune.settings.{tilt}.strength"
    values = {"run": str(folder), "training": task | {"finetune": {"epochs": 1}}, "search": "grid"}
    values |= {"early_stopping": None, "cpus_per_trial": 1}
    space = {"finetune.adapter": [tilt, "lora"], option: {"of": [0.5, 2.0], "when": {"finetune.adapter": [tilt]}}}
    Path(file).write_text(json.dumps(values | {"space": space}))
    run("sweep", "run", file)
    trials = {json.loads(path.read_text())["labels"].get(option): path for path in (folder / "trials").glob("*.json")}
    assert set(trials) == {None, 0.5, 2.0}, "a trial of lora, and one of each strength"
    before = {strength: json.loads(path.read_text()) for strength, path in trials.items()}
    assert {record["state"] for record in before.values()} == {"done"}
    trials[2.0].unlink()
    run("sweep", "run", file)
    after = {strength: json.loads(path.read_text()) for strength, path in trials.items()}
    assert after[0.5] == before[0.5], "a trial that was there is not trained again"
    assert [r["score"] for r in after[2.0]["reports"]] == [r["score"] for r in before[2.0]["reports"]]
    assert tilt in (folder / "best.yaml").read_text(), "of equals the first"
    run("train", str(folder / "best.yaml"), "--set", f"run={work / 'best'}")


if __name__ == "__main__":
    PREFIX = sys.argv[3]
    use(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
