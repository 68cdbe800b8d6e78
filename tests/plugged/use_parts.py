"""Every kind of part of a package in the commands that take it, one after another in a process: one Ray for all.

    python use_parts.py WORK CORPUS PREFIX     PREFIX: "" for the names of entry points, or "seral_parts:"
"""

from __future__ import annotations

import sys
from pathlib import Path

from seral.cli import main

CLASSES = "[anger,happiness,neutral,sadness]"


def run(*words: str, fails: bool = False) -> None:
    """One command, as a shell gives it."""
    sys.argv = ["seral", *words]
    try:
        main()
    except SystemExit as end:
        assert bool(end.code) == fails, f"{' '.join(words)} ended with {end.code}"


def named(part: str) -> str:
    """A part by its entry point, or by its module, where it is a constant in capitals or a function."""
    constants = {"read-parts": "read_parts"}
    return part if not PREFIX else PREFIX + constants.get(part, part.upper())


def use(work: Path, corpus: Path) -> None:
    """A pool by the reader, an encoder by the objective, a loop on it, and one on the package's own encoder."""
    pool, cpus = str(work / "pool"), ("--set", "cluster.cpus=2")
    reads = ("pool", "import", named("read-parts"), str(corpus), "--out", pool, *cpus)
    run(*reads, "--set", "reader_options.labels=middle", fails=True)
    run(*reads, "--set", "reader_options.limit=40", "--set", "shard_mb=0.5")
    run(*reads, "--set", "shard_mb=0.5")  # goes on
    tapt = ("--set", f"tapt.objective={named('squared')}", "--set", "tapt.steps=2", "--set", "tapt.warmup_steps=1")
    run("pretrain", pool, "--run", str(work / "tapt"), *tapt, *cpus)
    task = ("--set", f"pool={pool}", "--set", f"classes={CLASSES}", "--set", "split={scheme: k-fold, k: 3}", *cpus)
    task += ("--set", "seeds=[0]", "--set", "folds=[0]", "--set", "finetune.epochs=1")
    arms = ("--set", "random_arm=false", "--set", "full_arm=false", "--set", "probe=false", "--set", "strategy=random")
    of_peft = ("--set", f"finetune.adapter={named('stable')}", "--set", f"encoder={work / 'tapt' / 'encoder'}")
    loop = ("loop", "run", *task, *arms, *of_peft, "--set", f"run={work / 'run'}")
    run(*loop, "--set", "budget.sizes=[8,12]", "--set", "strategy.name=random")
    run("predict", str(work / "run"), pool, "--out", str(work / "loop.parquet"), *cpus)
    own = ("--set", f"finetune.adapter={named('tilt')}", "--set", f"encoder={work / 'encoder'}")
    own += ("--set", f"finetune.settings={{{named('tilt')}: {{strength: 0.5}}}}")
    run("train", *task, *own, "--set", f"run={work / 'trained'}")
    run("fit", str(work / "trained"), *cpus)
    run("predict", str(work / "trained" / "final"), pool, "--out", str(work / "final.parquet"), *cpus)
    run("export", str(work / "trained" / "final"), "--format", "hf", "--out", str(work / "hf"))
    run("export", str(work / "trained" / "final"), "--format", "peft", "--out", str(work / "peft"), fails=True)


if __name__ == "__main__":
    PREFIX = sys.argv[3]
    use(Path(sys.argv[1]), Path(sys.argv[2]))
