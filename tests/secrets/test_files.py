from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from seral import storage
from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.secrets import files


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Path]:
    """A folder that others may enter, with the usual umask."""
    folder = tmp_path / "team"
    folder.mkdir()
    folder.chmod(0o755)
    umask = os.umask(0o022)
    yield folder
    os.umask(umask)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_written_into_a_private_folder_is_private(team: Path) -> None:
    storage.make_folder(team / "runs" / "mine", private=True)
    assert (mode(team / "runs"), mode(team / "runs" / "mine")) == (0o755, 0o700)
    storage.write_json(team / "runs" / "mine" / "rounds" / "0001" / "a.json", {})
    assert mode(team / "runs" / "mine" / "rounds") == mode(team / "runs" / "mine" / "rounds" / "0001") == 0o700
    assert mode(team / "runs" / "mine" / "rounds" / "0001" / "a.json") == 0o600


def test_anything_else_follows_the_umask(team: Path) -> None:
    storage.write_json(team / "pool" / "utterances" / "a.json", {})
    assert mode(team / "pool") == mode(team / "pool" / "utterances") == 0o755
    assert mode(team / "pool" / "utterances" / "a.json") == 0o644
    os.umask(0o002)
    storage.write_json(team / "pool" / "b.json", {})
    assert mode(team / "pool" / "b.json") == 0o664


def test_a_folder_that_is_there_stays_as_it_is(team: Path) -> None:
    (team / "run").mkdir(mode=0o750)
    storage.make_folder(team / "run", private=True)
    assert mode(team / "run") == 0o750
    storage.write_bytes(team / "run" / "a", b"")
    assert mode(team / "run" / "a") == 0o644


def test_a_copied_folder_is_as_private_as_the_one_it_lies_in(team: Path) -> None:
    storage.write_json(team / "encoder" / "inner" / "a.json", {})
    storage.make_folder(team / "run", private=True)
    storage.copy_folder(team / "encoder", team / "run" / "encoder")
    copied = list((team / "run").rglob("*"))
    assert len(copied) == 3
    assert {mode(path) for path in copied if path.is_dir()} == {0o700}
    assert {mode(path) for path in copied if path.is_file()} == {0o600}
    storage.copy_folder(team / "run" / "encoder", team / "shared")
    assert mode(team / "shared") == 0o755


def test_what_others_write_is_as_private_as_the_folder(team: Path) -> None:
    storage.make_folder(team / "run", private=True)
    for name, modes in (("run", (0o700, 0o600)), (".", (0o755, 0o644)), ("none", (0o755, 0o644))):
        with files.as_private_as(team / name):
            (team / f"folder of {name}").mkdir()
            (team / f"file of {name}").touch()
        assert (mode(team / f"folder of {name}"), mode(team / f"file of {name}")) == modes
    assert os.umask(0o022) == 0o022


def test_a_file_in_the_way_of_a_folder_is_an_error(team: Path) -> None:
    (team / "file").touch()
    with pytest.raises(OSError, match="file"):
        files.make_folder(team / "file" / "inner")


def test_a_ledger_is_its_owners_alone_with_all_that_sqlite_writes_beside_it(team: Path) -> None:
    file = team / "labels" / "labels.sqlite"
    ledger = Ledger.create(str(file), Project(classes=("anger", "neutral")))
    ledger.add_person("ada")
    names = {path.name for path in file.parent.iterdir()}
    assert {"labels.sqlite", "labels.sqlite-wal", "labels.sqlite-shm"} <= names
    assert {mode(path) for path in file.parent.iterdir()} == {0o600}
    ledger.close()


def test_a_ledger_of_a_group_stays_the_groups(team: Path) -> None:
    file = team / "labels.sqlite"
    Ledger.create(str(file), Project(classes=("anger", "neutral"))).close()
    file.chmod(0o660)
    Ledger.create(str(file), Project(classes=("anger", "neutral"))).close()
    assert mode(file) == 0o660
