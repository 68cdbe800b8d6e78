"""A run that is complete says so at once; whatever has changed sends the command its usual way. Plans write nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from seral import cli, storage
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.task.complete import COMPLETE, outcome_of
from seral.verbs import VERBS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def config(speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The file of a run that was run to its end by its command."""
    folder = tmp_path_factory.mktemp("complete")
    values: dict[str, Any] = {"pool": speech_pool, "run": str(folder / "run"), "classes": ["anger", "neutral"]}
    values |= {"folds": [0], "seeds": [0], "budget": {"sizes": [4, 6]}, "probe": False, "min_quality": 0}
    values |= {"split": {"scheme": "leave-one-speaker", "dev_speakers": 1}}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def seral(*words: str) -> tuple[str, str]:
    """Standard output and standard error of a command that ends well."""
    done = CliRunner().invoke(cli.app, list(words), env={"NO_COLOR": "1", "TERM": "dumb"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def first(config: Path) -> tuple[str, str]:
    """The words of the first call, which does the work."""
    return seral("loop", "run", str(config))


def test_a_round_is_a_line_and_the_end_a_table(first: tuple[str, str]) -> None:
    out, err = first
    rounds = [line for line in err.splitlines() if "random.fold-00.seed-0: round" in line]
    assert [line.split(": ")[1].split(",")[0] for line in rounds] == ["round 1 of 2", "round 2 of 2"]
    assert "6 labels, dev UAR" in rounds[1]
    assert "since the last" in rounds[1]
    assert "\x1b" not in out + err
    assert "\r" not in out + err
    assert out.splitlines()[0].split()[:2] == ["arm", "labels"]
    assert {line.split()[0] for line in out.splitlines()[1:-1]} == {"auto", "random", "full"}
    assert out.splitlines()[-1].endswith("report/index.html")


def test_a_complete_run_says_the_same_without_ray_or_torch(config: Path, first: tuple[str, str]) -> None:
    script = (
        "import sys; from seral.cli import main; sys.argv = ['seral', 'loop', 'run', sys.argv[1]]\n"
        "try: main()\nfinally: print(*{'ray', 'torch', 'transformers'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(config)], capture_output=True, text=True, check=True)
    assert done.stdout == first[0]
    assert done.stderr.strip() == "", "the usual way was gone, or heavy modules were loaded"
    rows = json.loads(seral("loop", "run", str(config), "--json")[0])["arms"]
    assert {row["arm"] for row in rows} == {"auto", "random", "full"}


def test_whatever_has_changed_is_no_complete_run(config: Path, first: tuple[str, str]) -> None:
    values = yaml.safe_load(config.read_text())
    options = parse(LoopOptions, values)
    assert outcome_of("loop", options) == values["run"]
    assert outcome_of("train", options) is None
    assert outcome_of("loop", parse(LoopOptions, values, ["budget.sizes=[4,6,8]"])) is None
    assert outcome_of("loop", parse(LoopOptions, values, ["seeds=[0,1]"])) is None
    assert outcome_of("loop", parse(LoopOptions, values, ["cluster.cpus=1"])) == values["run"]
    name = next(name for name in storage.list_files(values["run"]) if name.endswith("round.json"))
    path = Path(values["run"]) / name
    path.rename(path.with_suffix(".gone"))
    assert outcome_of("loop", options) is None, "a round has gone"
    path.with_suffix(".gone").rename(path)
    assert outcome_of("loop", options) == values["run"]
    record = storage.read_json(storage.join(values["run"], COMPLETE))
    assert not [name for name in record["files"] if name.startswith("report/")]


@pytest.mark.parametrize("verb", [verb for verb in VERBS.values() if verb.plan], ids=lambda verb: verb.name)
def test_a_dry_run_plans_and_writes_nothing(verb: Any, config: Path, first: tuple[str, str], tmp_path: Path) -> None:
    values, out = yaml.safe_load(config.read_text()), str(tmp_path / "out")
    train = {name: values[name] for name in ("pool", "classes", "split", "folds", "seeds")}
    sweep = {"run": out, "training": train, "space": {"finetune.head.l2": [0.1, 1.0]}, "search": "grid"}
    files = {"loop": values | {"run": out}, "train": train | {"run": out}, "sweep": sweep}
    if verb.name in files:
        (tmp_path / "x.yaml").write_text(yaml.safe_dump(files[verb.name]))
        words = [*verb.words, str(tmp_path / "x.yaml")]
    elif verb.name in ("fit", "export", "predict"):
        words = [*verb.words, values["run"], *([values["pool"]] if verb.name == "predict" else []), "--out", out]
    elif verb.name == "pretrain":
        words = ["pretrain", values["pool"], "--run", out, "--set", "tapt.steps=500"]
    else:
        words = [*verb.words, "manifest", str(Path(values["pool"]).parent / "corpus"), "--out", out]
    before = storage.file_sizes(values["pool"]) | storage.file_sizes(values["run"])
    plan = json.loads(seral(*words, "--dry-run", "--json")[0])
    assert {"reads", "computes", "writes", "takes", "rests on"} <= plan.keys()
    assert out in plan["writes"]
    assert not os.path.exists(out)
    assert storage.file_sizes(values["pool"]) | storage.file_sizes(values["run"]) == before


def in_bytes(words: str) -> list[float]:
    """Sizes that are in words, in bytes."""
    units = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
    return [float(number) * units[unit] for number, unit in re.findall(r"(\d[\d.]*) ([kMG]B)", words)]


def test_sizes_of_a_plan_are_those_of_what_is_written(config: Path, first: tuple[str, str], tmp_path: Path) -> None:
    run, out = yaml.safe_load(config.read_text())["run"], tmp_path / "out"
    plan = json.loads(seral("loop", "run", str(config), "--dry-run", "--json")[0])["writes"]
    sizes = storage.file_sizes(run)
    report = sum(count for name, count in sizes.items() if name.startswith("report/"))
    for foreseen, written in zip(in_bytes(plan), (sum(sizes.values()) - report, report), strict=False):
        assert written / 2 < foreseen < 2 * written, plan
    words = {"fit": ["fit", run], "export": ["export", run]}
    for name, command in words.items():
        command = [*command, "--out", str(out / name)]
        (foreseen,) = in_bytes(json.loads(seral(*command, "--dry-run", "--json")[0])["writes"].partition(";")[0])
        seral(*command)
        written = sum(storage.file_sizes(out / name).values())
        assert written / 2 < foreseen < 2 * written, (name, foreseen, written)


def test_quiet_prints_the_result_alone_and_verbose_the_traceback(tmp_path: Path, config: Path) -> None:
    pool = yaml.safe_load(config.read_text())["pool"]
    assert seral("pool", "check", pool, "-q")[1] == ""
    assert json.loads(seral("pool", "check", pool, "--json", "-q")[0]) == {"pool": pool, "problems": []}
    command = [sys.executable, "-m", "seral", "pool", "check", str(tmp_path / "nowhere")]
    usual = subprocess.run(command, capture_output=True, text=True, check=False)
    more = subprocess.run([*command, "-v"], capture_output=True, text=True, check=False)
    assert (usual.returncode, more.returncode) == (1, 1)
    assert "Traceback" not in usual.stderr
    assert "Traceback" in more.stderr
