"""Planted passwords: nothing that commands write or print holds one, wherever an address may be given."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from seral import cli
from seral.errors import LabelError, OptionError, SeralError
from seral.labels.ledger import Ledger
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import every_option, parse, put, run_job
from seral.report.report import write_run_report
from seral.submit.submit import SubmitOptions
from seral.task.tracking import TrackingOptions
from seral.verbs import VERBS, Verb

ROOT = Path(__file__).resolve().parents[2]
SECRET = "pl4nted"
STORE, DATABASE = f"s3://AKIA:{SECRET}@speech/x", f"postgresql+psycopg://seral:{SECRET}@db/labels"
WEB, SIGNED = f"http://user:{SECRET}@mlflow:5000", f"https://store/x?sig={SECRET}"
ADDRESSES = (STORE, DATABASE, WEB, SIGNED)
CONFIG = "options.yaml"

Command = Callable[..., str]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """`command("pool", "stats", ...)`: what a command line prints, in an empty folder, that ends with an error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str, status: int = 1) -> str:
        monkeypatch.setattr(sys, "argv", ["seral", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        printed = capfd.readouterr()
        assert end.value.code == status, printed
        return re.sub(r"\s+", " ", printed.out + printed.err)

    return call


def files_with(secret: str, folder: Path) -> list[str]:
    """Files below a folder that hold these bytes, or have them in their name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if secret in path.name or secret.encode() in path.read_bytes()]


def text_options(verb: Verb) -> list[str]:
    """Paths of the options of a verb that take text, those inside lists and mappings with an entry."""
    paths = [path for path, field in every_option(verb.options_model()) if "str" in str(field.annotation)]
    return [path.replace(".KEY", ".x") for path in paths if "[]" not in path]


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_no_option_of_any_verb_takes_an_address_with_a_password(verb: Verb, tmp_path: Path, command: Command) -> None:
    paths = text_options(verb)
    assert paths
    for number, path in enumerate(paths):
        address = ADDRESSES[number % len(ADDRESSES)]
        refusals = [command(*verb.words, "--set", f"{path}={address}")]
        for value in (address, [address], {"a": {"b": address}}, {address: 1}):
            values: dict[str, Any] = {}
            put(values, path, value)
            with pytest.raises(OptionError) as refusal:
                parse(verb.options_model(), values)
            refusals += [str(refusal.value), repr(refusal.value)]
            assert str(refusal.value).startswith(f"{path}")
        assert all("holds a secret" in text and SECRET not in text for text in refusals), path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", [verb for verb in VERBS.values() if verb.job], ids=lambda verb: verb.name)
def test_no_job_file_takes_one(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / CONFIG
    for path in text_options(verb)[:3]:
        values: dict[str, Any] = {"verb": verb.name}
        put(values, path, DATABASE)
        file.write_text(yaml.safe_dump(values))
        for arguments in (["--config", str(file)], [f"{path}={WEB}"], [f"--unknown={STORE}"], ["--check", STORE]):
            monkeypatch.setattr(sys, "argv", ["job", *arguments])
            with pytest.raises(SystemExit) as end:
                run_job(verb.options_model(), verb.call, verb.help, verb.name)
            printed = f"{end.value.code} {capfd.readouterr()}"
            assert "holds a secret" in printed
            assert SECRET not in printed
    assert list(tmp_path.iterdir()) == [file]


LINES = [
    ["labels", "progress", DATABASE],
    ["labels", "agreement", DATABASE],
    ["labels", "consensus", DATABASE, "--out", "labels.parquet"],
    ["labels", "export", DATABASE, "--out", "labels.csv", "--format", "csv"],
    ["labels", "import", DATABASE, "labels.csv", "--format", "csv"],
    ["labels", "doubts", DATABASE],
    ["labels", "relabel", DATABASE],
    ["labels", "serve", "--ledger", DATABASE, "--pool", "pool"],
    ["labels", "serve", "--ledger", "labels.sqlite", "--pool", STORE],
    ["labels", "serve", "--url", WEB],
    ["labels", "people", "add", DATABASE, "ada"],
    ["labels", "people", "list", DATABASE],
    ["labels", "people", "revoke", DATABASE, "ada"],
    ["pool", "import", "folder", STORE, "--out", "pool"],
    ["pool", "import", "folder", "corpus", "--out", STORE],
    ["pool", "stats", STORE],
    ["pool", "check", STORE],
    ["pool", "merge", STORE, "--out", "pool"],
    ["pool", "erase", "pool", "--run", DATABASE],
    ["loop", "run", STORE],
    ["loop", "status", STORE],
    ["predict", STORE, "pool", "--out", "predictions.parquet"],
    ["predict", "run", SIGNED, "--out", "predictions.parquet"],
    ["report", STORE],
    ["select", STORE, "--count", "1", "--out", "picks.parquet"],
    ["sweep", "best", STORE],
    ["doctor", STORE],
    ["jobs", "list", "--address", WEB],
    ["jobs", "submit", "loop", "--env", f"MLFLOW_TRACKING_URI={WEB}"],
    ["jobs", "manifest", "loop", "--on", f"env.MLFLOW_TRACKING_URI={WEB}"],
    ["jobs", "manifest", "loop", "--on", f"mount={STORE}"],
    # Usage errors, which would print what they do not understand.
    ["pool", "stats", f"--unknown={STORE}"],
    ["labels", "relabel", "labels.sqlite", "--count", DATABASE],
    [DATABASE],
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line).replace(SECRET, "..."))
def test_no_command_takes_one_on_its_line(line: list[str], tmp_path: Path, command: Command) -> None:
    printed = command(*line)
    assert "holds a secret" in printed
    assert SECRET not in printed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [SECRET, "40404"])
@pytest.mark.parametrize("variable", ["SERAL_LEDGER_PASSWORD", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN"])
def test_secrets_are_no_environment_of_a_submission(
    variable: str, value: str, tmp_path: Path, command: Command
) -> None:
    job, cluster = ["--env", f"{variable}={value}"], ["--on", "image=x", "--on", f"env.{variable}={value}"]
    for line in (["submit", "loop", *job], ["manifest", "loop", *cluster]):
        printed = command("jobs", *line)
        assert variable in printed
        assert value not in printed
    assert "put it into a Secret and name that: --on secret=NAME" in command("jobs", "submit", "loop", *job)
    assert list(tmp_path.iterdir()) == []


def test_classes_of_the_library_take_none() -> None:
    with pytest.raises(LabelError, match=r"seral:\*\*\*@db/labels holds a secret"):
        Ledger(DATABASE)
    for make in (lambda: TrackingOptions(uri=WEB), lambda: SubmitOptions(job="loop", env={"PGPASSWORD": SECRET})):
        with pytest.raises(ValidationError) as refusal:
            make()
        assert SECRET not in f"{refusal.value} {refusal.value!r}"


def test_a_manifest_of_audio_takes_none(tmp_path: Path, command: Command) -> None:
    table = tmp_path / "manifest.csv"
    table.write_text(f"audio,emotion\n{STORE}.wav,anger\n")
    printed = command("pool", "import", "manifest", str(table), "--out", "pool")
    assert "holds a secret" in printed
    assert SECRET not in printed
    assert files_with(SECRET, tmp_path) == [str(table)]


def test_a_manifest_for_kubernetes_names_the_secret_and_holds_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for variable in ("SERAL_LEDGER_PASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(variable, SECRET)
    options = ["pool=s3://speech/pool", "run=s3://speech/runs/a", "classes=[anger, neutral]", "encoder=seral-tiny"]
    options += ["people.ledger=postgresql+psycopg://seral@db/labels", "track.uri=http://mlflow:5000"]
    line = [part for option in options for part in ("--set", option)]
    line += ["--on", "image=me/seral:1", "--on", "secret=speech", "--on", f"folder={ROOT / 'jobs'}"]
    monkeypatch.setattr(sys, "argv", ["seral", "jobs", "manifest", "loop", *line])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capfd.readouterr()
    assert not end.value.code, printed
    assert SECRET not in printed.out + printed.err
    documents = {document["kind"]: document for document in yaml.safe_load_all(printed.out)}
    stored = yaml.safe_load(documents["ConfigMap"]["data"]["config.yaml"])
    assert stored["people"]["ledger"] == "postgresql+psycopg://seral@db/labels"
    cluster = documents["RayJob"]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "speech"}}]


@pytest.mark.ray
def test_a_run_of_before_shows_its_password_nowhere_else(
    run_values: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    folder = tmp_path / "team"
    folder.mkdir(mode=0o755)
    umask = os.umask(0o022)
    try:
        values = run_values | {"run": str(folder / "run"), "budget": {"sizes": [8, 14]}, "full_arm": False}
        run = Path(run_loop(parse(LoopOptions, values)))
        modes = {path.stat().st_mode & 0o777 for path in (run, *run.rglob("*"))}
    finally:
        os.umask(umask)
    assert modes == {0o700, 0o600}  # whatever the umask, and that others may enter the folder above
    config = run / "config.yaml"
    stored = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump(stored | {"track": {"uri": WEB, "experiment": "seral"}}, sort_keys=False))
    write_run_report(run)
    assert "http://***@mlflow:5000" in (run / "report" / "index.html").read_text()
    assert files_with(SECRET, tmp_path) == [str(config)]
    copy = tmp_path / CONFIG
    copy.write_text(yaml.safe_dump(values))
    for line in (["loop", "run", str(copy)], ["loop", "run", str(config)]):
        printed = command(*line)
        assert "track.uri: http://***@mlflow:5000 holds a secret" in printed
        assert SECRET not in printed
    assert files_with(SECRET, tmp_path) == [str(config)]


def test_errors_of_seral_are_masked_as_they_are_made() -> None:
    for kind in (SeralError, *SeralError.__subclasses__()):
        assert SECRET not in str(kind(f"cannot reach {DATABASE}: {WEB}"))


def test_a_process_of_its_own_prints_none(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])}
    line = [sys.executable, "-m", "seral", "labels", "progress", DATABASE]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: postgresql+psycopg://seral:***@db/labels holds a secret, which would be")
    assert SECRET not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
