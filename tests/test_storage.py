from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from seral import storage
from seral.errors import DiskError, OptionError

SCHEMA = pa.schema([("name", pa.string()), ("size", pa.int32())])


def table(*names: str) -> pa.Table:
    return pa.Table.from_pylist([{"name": name, "size": len(name)} for name in names], SCHEMA)


@pytest.fixture(params=["path", "uri"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One folder as a plain path and as an address with a scheme."""
    return str(tmp_path) if request.param == "path" else tmp_path.as_uri()


def test_what_is_written_is_read(address: str) -> None:
    file = storage.join(address, "deep", "er", "x.bin")
    assert not storage.exists(file)
    storage.write_bytes(file, b"\0one")
    storage.write_bytes(file, b"two")
    assert storage.exists(file)
    assert storage.exists(storage.join(address, "deep"))
    assert storage.read_bytes(file) == b"two"


def test_equal_values_are_equal_json_files(address: str) -> None:
    one, two = storage.join(address, "1.json"), storage.join(address, "2.json")
    storage.write_json(one, {"b": [1, None], "a": "ä"})
    storage.write_json(two, {"a": "ä", "b": [1, None]})
    assert storage.read_bytes(one) == storage.read_bytes(two)
    assert storage.read_json(one) == {"a": "ä", "b": [1, None]}


def test_tables_come_back_whole_or_by_column(address: str) -> None:
    files = [storage.join(address, f"{n}.parquet") for n in range(2)]
    storage.write_table(files[0], table("a", "bb"))
    storage.write_table(files[1], table("ccc"))
    assert storage.read_table(files[0]).to_pylist() == [{"name": "a", "size": 1}, {"name": "bb", "size": 2}]
    assert storage.read_tables(files, SCHEMA)["name"].to_pylist() == ["a", "bb", "ccc"]
    assert storage.read_tables(files[::-1], SCHEMA, ["size"]).to_pydict() == {"size": [3, 1, 2]}


def test_no_files_are_an_empty_table_of_the_schema() -> None:
    assert storage.read_tables([], SCHEMA).schema == SCHEMA
    assert storage.read_tables([], SCHEMA, ["size"]).schema.names == ["size"]


def test_the_same_table_is_the_same_file(tmp_path: Path) -> None:
    for name in ("1", "2"):
        storage.write_table(tmp_path / name, table("a", "b"))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "x"
    storage.write_bytes(file, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(DiskError, match=r"x cannot be written: No space left on device. Make room; the same command"):
        storage.write_bytes(file, b"new")
    monkeypatch.undo()
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_what_killed_processes_left_is_tidied_once_the_whole_file_is_there(tmp_path: Path) -> None:
    partials = [tmp_path / "deep" / f"{name}.0123abcd.partial" for name in ("a.json", "b.json")]
    for path in (*partials, tmp_path / "deep" / "a.json", tmp_path / "mine.partial"):
        storage.write_bytes(path, b"x")
    assert storage.half_written(tmp_path) == [(str(path), str(path)[: -len(".0123abcd.partial")]) for path in partials]
    assert storage.half_written(tmp_path / "deep" / "a.json") == storage.half_written(tmp_path)[:1]
    storage.tidy(tmp_path)
    assert storage.list_files(tmp_path) == ["deep/a.json", "deep/b.json.0123abcd.partial", "mine.partial"]
    storage.tidy(tmp_path / "nowhere")


WRITER = """
import sys
from seral import storage
from seral.storage import addresses, files, tables
with storage.replacing(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print(file.name, flush=True)
    sys.stdin.readline()
"""


def test_what_a_living_process_writes_is_left_to_it(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    storage.write_bytes(file, b"old")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    start = [sys.executable, "-c", WRITER, str(file)]
    pipe = subprocess.PIPE
    for ends_well in (True, False):
        with subprocess.Popen(start, env=environment, stdin=pipe, stdout=pipe, text=True) as writer:
            assert writer.stdout is not None
            partial = writer.stdout.readline().strip()
            assert storage.half_written(tmp_path) == []
            storage.tidy(tmp_path)
            if ends_well:
                writer.communicate("go\n")
                assert file.read_bytes() == b"half"
            else:
                writer.kill()
                writer.wait()
                assert storage.half_written(tmp_path) == [(partial, str(file))]
                storage.tidy(tmp_path)
    assert os.listdir(tmp_path) == ["a.json"]


def test_whoever_still_writes_a_file_that_is_tidied_away_counts_as_second(tmp_path: Path) -> None:
    with storage.replacing(tmp_path / "a") as file:
        file.write(b"slow")
        storage.write_bytes(tmp_path / "a", b"fast")
        storage.remove(file.name)
    assert storage.read_bytes(tmp_path / "a") == b"fast"
    with pytest.raises(FileNotFoundError), storage.replacing(tmp_path / "b") as file:
        storage.remove(file.name)
    assert os.listdir(tmp_path) == ["a"]


def test_names_are_sorted_and_filtered(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", "c.json"):
        storage.write_bytes(tmp_path / name, b"")
    assert storage.list_names(tmp_path, ".parquet") == ["a.parquet", "b.parquet"]
    assert storage.list_names(tmp_path) == ["a.parquet", "b.parquet", "c.json"]
    assert storage.list_names(tmp_path / "nowhere") == []


def test_remove_takes_files_and_folders_and_minds_nothing_missing(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "folder" / "file", b"x")
    for name in ("folder/file", "folder", "folder"):
        storage.remove(tmp_path / name)
        assert not storage.exists(tmp_path / name)


def test_move_renames(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "a", b"x")
    storage.move(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path) == ["b"]


def test_a_copied_folder_replaces_what_was_there(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "from" / "sub" / "x", b"1")
    storage.write_bytes(tmp_path / "to" / "stale", b"2")
    storage.copy_folder(tmp_path / "from", tmp_path / "to")
    assert sorted(p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*")) == ["sub", "sub/x"]


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("s3://bucket/pool/", "s3://bucket/pool"), ("/a/b/", "/a/b"), ("/", "/"), ("/a/../b", "/b")],
)
def test_an_absolute_address_stays_what_it_is(uri: str, expected: str) -> None:
    assert storage.absolute(uri) == expected
    assert storage.absolute(storage.absolute(uri)) == expected


def test_a_relative_path_starts_at_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("pool") == str(tmp_path / "pool")
    assert storage.absolute("~") == os.path.expanduser("~")
    storage.write_bytes("x", b"1")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_a_local_folder_is_its_own_local_copy(tmp_path: Path) -> None:
    with storage.local_copy(tmp_path) as local:
        assert local == tmp_path


@pytest.mark.parametrize("read", [storage.read_bytes, storage.read_json, storage.read_table])
def test_a_missing_file_is_a_missing_file(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.parquet"):
        read(tmp_path / "nowhere.parquet")


def test_publish_puts_a_folder_in_place_once(tmp_path: Path) -> None:
    for name, text in (("first", "1"), ("second", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "done").write_text(text)
    target = tmp_path / "rounds" / "0000"
    target.mkdir(parents=True)
    (target / "half").write_text("cut off before its end")
    for name in ("first", "second"):
        storage.publish(tmp_path / name, target, last="done")
    assert [path.name for path in target.iterdir()] == ["done"]
    assert (target / "done").read_text() == "1"
    assert not (tmp_path / "second").exists()


def test_relative_paths_are_refused_where_the_working_folder_is_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.absolute("data/pool") == str(Path("data/pool").absolute())
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert storage.absolute("s3://bucket/pool") == "s3://bucket/pool"
    assert storage.absolute("/data/pool") == "/data/pool"
    with pytest.raises(OptionError, match="data/pool: a cluster job needs an absolute path"):
        storage.absolute("data/pool")


def test_a_folder_that_another_process_is_emptying_is_removed_without_complaint(tmp_path: Path) -> None:
    folder = tmp_path / "attempts"
    for number in range(40):
        (folder / f"{number:02d}").mkdir(parents=True)
        for name in range(50):
            (folder / f"{number:02d}" / f"{name}").touch()
    files = [path for path in folder.rglob("*") if path.is_file()]
    thread = threading.Thread(target=lambda: [path.unlink(missing_ok=True) for path in reversed(files)])
    thread.start()
    storage.remove(folder)
    thread.join()
    assert not folder.exists()
