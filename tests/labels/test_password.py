"""The password of a ledger's server comes from the environment or a file, and is written nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml

from seral.errors import LabelError
from seral.labels.ledger import Ledger
from seral.labels.records import Project

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "pl4nted @/:%&"
PROJECT = Project(classes=("anger", "happiness", "neutral", "sadness"))


@pytest.fixture
def guarded(postgres: str) -> Iterator[str]:
    """The URL of an empty database for a user that the server asks for a password."""
    admin = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD.replace(':', chr(92) + ':')}'"))
        connection.execute(sa.text("CREATE DATABASE guarded OWNER guarded"))
    yield sa.make_url(postgres).set(username="guarded", database="guarded").render_as_string()
    with admin.connect() as connection:
        connection.execute(sa.text("DROP DATABASE guarded WITH (FORCE)"))
        connection.execute(sa.text("DROP ROLE guarded"))
    admin.dispose()


def test_a_password_from_the_environment_or_a_file_opens_the_ledger(
    guarded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LabelError, match="password"):
        Ledger.create(guarded, PROJECT)
    monkeypatch.setenv("SERAL_LEDGER_PASSWORD", PASSWORD)
    with_variable = Ledger.create(guarded, PROJECT)
    assert PASSWORD not in repr(vars(with_variable._database))
    with_variable.close()
    monkeypatch.delenv("SERAL_LEDGER_PASSWORD")
    monkeypatch.setenv("SERAL_LEDGER_PASSWORD_FILE", str(tmp_path / "password"))
    with pytest.raises(LabelError, match=r"SERAL_LEDGER_PASSWORD_FILE names .*, which cannot be read"):
        Ledger(guarded)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    Ledger(guarded).close()
    monkeypatch.delenv("SERAL_LEDGER_PASSWORD_FILE")
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    Ledger(guarded).close()
    monkeypatch.setenv("SERAL_LEDGER_PASSWORD", "wrong pl4nted")
    with pytest.raises(LabelError, match="password authentication failed") as refusal:
        Ledger(guarded)
    assert "pl4nted" not in str(refusal.value)


def test_a_run_and_its_commands_write_and_print_none(
    guarded: str, run_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "password").write_text(PASSWORD)
    work = tmp_path / "work"
    work.mkdir()
    options = {**run_values, "run": str(work / "run"), "people": {"ledger": guarded, "evaluation": 4}}
    (work / "options.yaml").write_text(yaml.safe_dump(options))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "platform"), str(ROOT)])}
    logs = Path(tempfile.mkdtemp(prefix="sp"))  # Ray's; paths of sockets are short
    environment |= {"SERAL_LEDGER_PASSWORD_FILE": str(secrets / "password"), "RAY_TMPDIR": str(logs)}
    lines = [
        (["loop", "run", "options.yaml"], 75),
        (["labels", "people", "add", guarded, "ada"], 0),
        (["labels", "progress", guarded], 0),
        (["labels", "export", guarded, "--out", "labels.csv", "--format", "csv"], 0),
        (["loop", "status", "run"], 0),
    ]
    printed = ""
    for line, status in lines:
        command = [sys.executable, "-m", "seral", *line]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        printed += done.stdout + done.stderr
    assert "evaluation" in printed
    assert yaml.safe_load((work / "run" / "config.yaml").read_text())["people"]["ledger"] == guarded
    assert "pl4nted" not in printed
    written = [path for folder in (work, logs) for path in folder.rglob("*") if path.is_file()]
    assert {"config.yaml", "labels.csv", "raylet.out"} <= {path.name for path in written}
    assert [path for path in written if b"pl4nted" in path.read_bytes()] == []
    shutil.rmtree(logs)
