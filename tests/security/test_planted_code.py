"""Code planted in every kind of file that a command reads: none of it runs, and the command says which file it was."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import sqlite3
import tarfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from seral.cli import app
from seral.errors import SeralError
from seral.pool.shards import open_pool
from seral.schema import GOLD

pytestmark = [pytest.mark.slow, pytest.mark.ray]

PICKLED = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": b""}
NAMED = "ray.data.arrow_pickled_object"


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.makedirs, (str(self.target),)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """A folder that is there once planted code has run."""
    target = tmp_path / "trap"
    yield target
    assert not target.exists(), "planted code has run"


def pickled(trap: Path) -> bytes:
    return pickle.dumps(Payload(trap))


def with_payload(table: pa.Table, trap: Path, name: str = "extra") -> pa.Table:
    """The table with a column of pickles that Ray's type would load."""
    field = pa.field(name, pa.large_binary(), metadata=PICKLED)
    column = pa.array([pickled(trap)] * len(table), pa.large_binary())
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), field, column)
    return table.append_column(field, column)


def command(*arguments: str) -> str:
    """Run a command that has to end in a sentence; returns it."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code != 0, result.output
    error = getattr(result.exception, "cause", None) or result.exception
    assert isinstance(error, SeralError), result.exception
    return str(error)


def test_the_payload_works_where_it_is_loaded(tmp_path: Path) -> None:
    pickle.loads(pickled(tmp_path / "trap"))
    assert (tmp_path / "trap").is_dir()
    import ray.data

    with suppress(pa.ArrowKeyError):  # known by now
        pa.register_extension_type(ray.data._internal.object_extensions.arrow.ArrowPythonObjectType())
    pq.write_table(with_payload(pa.table({"a": [1]}), tmp_path / "loaded"), tmp_path / "a.parquet")
    pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert (tmp_path / "loaded").is_dir()


def clips(folder: Path, make_corpus: Any, suffix: str = ".wav") -> pa.Table:
    """Four clips as `datasets` lays them out: a struct of bytes and path, and an emotion."""
    make_corpus(folder, 4, suffix=suffix)
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    audio = [{"bytes": (folder / row["audio"]).read_bytes(), "path": row["audio"]} for row in rows]
    return pa.table({"audio": audio, "emotion": [row["emotion"] for row in rows]})


def hf_parquet(folder: Path, trap: Path, make_corpus: Any) -> Path:
    table = clips(folder / "clips", make_corpus)
    pq.write_table(with_payload(table, trap), folder / "train-0.parquet")
    return folder / "train-0.parquet"


def hf_arrow(folder: Path, trap: Path, make_corpus: Any) -> Path:
    table = with_payload(clips(folder / "clips", make_corpus), trap)
    with pa.ipc.new_stream(folder / "data-0.arrow", table.schema) as stream:
        stream.write_table(table)
    return folder / "data-0.arrow"


def manifest(folder: Path, trap: Path, make_corpus: Any) -> Path:
    make_corpus(folder, 4)
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    pq.write_table(with_payload(pa.Table.from_pylist(rows), trap, "emotion"), folder / "manifest.parquet")
    return folder / "manifest.parquet"


def audiofolder(folder: Path, trap: Path, make_corpus: Any) -> Path:
    make_corpus(folder, 4)
    (folder / "manifest.jsonl").unlink()
    table = pa.table({"file_name": [f"audio/clip{number:04d}.flac" for number in range(4)]})
    pq.write_table(with_payload(table, trap), folder / "metadata.parquet")
    return folder


def audformat(folder: Path, trap: Path, make_corpus: Any) -> Path:
    make_corpus(folder, 4)
    (folder / "db.yaml").write_text(f"name: !!python/object/apply:os.makedirs ['{trap}']\n")
    return folder


@pytest.mark.parametrize(
    ("reader", "write"),
    [
        ("hf-parquet", hf_parquet),
        ("hf-arrow", hf_arrow),
        ("manifest", manifest),
        ("audiofolder", audiofolder),
        ("audformat", audformat),
    ],
)
@pytest.mark.usefixtures("ray_session")
def test_corpora(reader: str, write: Callable[..., Path], tmp_path: Path, trap: Path, make_corpus: Any) -> None:
    (tmp_path / "corpus").mkdir()
    root = write(tmp_path / "corpus", trap, make_corpus)
    error = command("pool", "import", reader, str(root), "--out", str(tmp_path / "pool"))
    assert str(tmp_path / "corpus") in error
    assert NAMED in error or reader == "audformat"
    command("pool", "audit", reader, str(root))
    assert not (tmp_path / "pool/manifest.json").exists()


@pytest.fixture
def strange_pool(speech_pool: str, tmp_path: Path) -> Path:
    """A copy of a pool, to plant code in."""
    shutil.copytree(speech_pool, tmp_path / "pool", ignore=shutil.ignore_patterns("features"))
    return tmp_path / "pool"


def plant(pool: Path, table: str, trap: Path, column: str = "extra") -> str:
    """Plant pickles in one table of every shard; returns the name of one of its files."""
    files = sorted((pool / table).glob("*.parquet"))
    for file in files:
        pq.write_table(with_payload(pq.read_table(file), trap, column), file)
    return files[0].name


def commands_on(pool: Path, run: Path) -> dict[str, list[str]]:
    """Commands that read a stranger's pool."""
    values = {
        "pool": str(pool),
        "run": str(run),
        "encoder": "seral-tiny",
        "classes": ["anger", "happiness", "neutral", "sadness"],
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
    }
    run.with_suffix(".json").write_text(json.dumps(values | {"budget": {"sizes": [8, 14]}}))
    other = str(pool.parent / "other")
    return {
        "loop": ["loop", "run", str(run.with_suffix(".json"))],
        "stats": ["pool", "stats", str(pool)],
        "filter": ["pool", "filter", str(pool), "--out", other, "--where", "duration_s > 0.1"],
        "merge": ["pool", "merge", str(pool), "--out", other],
    }


@pytest.mark.parametrize("name", ["loop", "stats", "filter", "merge"])
@pytest.mark.parametrize(("table", "column"), [("utterances", "extra"), ("utterances", "speaker")])
def test_pools(name: str, table: str, column: str, strange_pool: Path, tmp_path: Path, trap: Path) -> None:
    plant(strange_pool, table, trap, column)
    error = command(*commands_on(strange_pool, tmp_path / "run")[name])
    assert NAMED in error
    assert f"{table}/" in error


@pytest.mark.parametrize("name", ["loop", "merge", "filter"])
def test_gold_labels_of_a_pool(name: str, strange_pool: Path, tmp_path: Path, trap: Path) -> None:
    plant(strange_pool, "gold", trap, "emotion")
    assert NAMED in command(*commands_on(strange_pool, tmp_path / "run")[name])


def test_a_column_that_is_no_code_is_not_carried_on(strange_pool: Path, tmp_path: Path) -> None:
    for file in (strange_pool / "gold").glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.append_column("comment", pa.nulls(len(table), pa.string())), file)
    for name in ("filter", "merge"):
        error = command(*commands_on(strange_pool, tmp_path / "run")[name])
        assert "a column 'comment' that such a table does not have" in error
    for file in (strange_pool / "gold").glob("*.parquet"):
        table = pq.read_table(file).drop_columns("comment")
        numbers = pa.array([1] * len(table), pa.int64())
        pq.write_table(table.set_column(table.column_names.index("emotion"), "emotion", numbers), file)
    error = command(*commands_on(strange_pool, tmp_path / "run")["merge"])
    assert f"'emotion' is of type int64, expected {GOLD.field('emotion').type}" in error


def test_check_lists_the_tables(strange_pool: Path, trap: Path) -> None:
    name = plant(strange_pool, "votes", trap)
    result = CliRunner().invoke(app, ["pool", "check", str(strange_pool)])
    assert result.exit_code != 0
    assert name.removesuffix(".parquet") in result.output


@pytest.fixture(scope="module")
def finished(speech_pool: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of the loop, whose pool has features."""
    folder = tmp_path_factory.mktemp("finished")
    result = CliRunner().invoke(app, commands_on(Path(speech_pool), folder / "run")["loop"])
    assert result.exit_code == 0, result.output
    return folder


def test_features_of_a_stranger(finished: Path, speech_pool: str, tmp_path: Path, trap: Path) -> None:
    shutil.copytree(speech_pool, tmp_path / "pool")
    files = sorted((tmp_path / "pool/features").rglob("*.parquet"))
    assert files
    for file in files:
        pq.write_table(with_payload(pq.read_table(file), trap), file)
    assert NAMED in command(*commands_on(tmp_path / "pool", tmp_path / "run")["loop"])


def test_predictions_for_a_pool_of_a_stranger(
    finished: Path, strange_pool: Path, tmp_path: Path, trap: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plant(strange_pool, "utterances", trap)
    out = str(tmp_path / "out.parquet")
    assert NAMED in command("predict", str(finished / "run"), str(strange_pool), "--out", out)
    assert "Traceback" not in capfd.readouterr().err, "a sentence, and nothing of Ray's"


def test_a_run_of_a_stranger(finished: Path, tmp_path: Path, trap: Path) -> None:
    """Reported, and gone on with."""
    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    tables = sorted(run.rglob("*.parquet"))
    assert tables
    for file in tables:
        pq.write_table(with_payload(pq.read_table(file), trap), file)
    for state in sorted(run.rglob("*.pt")):
        torch.save(Payload(trap), state)
    assert NAMED in command("report", str(run))
    values = json.loads((finished / "run.json").read_text()) | {"run": str(run), "budget": {"sizes": [8, 14, 20]}}
    (tmp_path / "more.json").write_text(json.dumps(values))
    assert CliRunner().invoke(app, ["loop", "run", str(tmp_path / "more.json")]).exit_code != 0


def test_answers_of_another_tool(tmp_path: Path, trap: Path) -> None:
    from seral.labels.ledger import Ledger
    from seral.labels.records import Project

    Ledger.create(str(tmp_path / "labels.sqlite"), Project(classes=("anger", "neutral"))).close()
    table = pa.table({"utterance_id": ["a-1"], "person": ["ada"]})
    pq.write_table(with_payload(table, trap), tmp_path / "answers.parquet")
    arguments = ["labels", "import", str(tmp_path / "labels.sqlite"), str(tmp_path / "answers.parquet")]
    assert NAMED in command(*arguments, "--format", "parquet")


def test_a_sweep_of_a_stranger(speech_pool: str, tmp_path: Path, trap: Path) -> None:
    """Tune leaves pickles in it, and a sweep that goes on reads none of them."""
    training = json.loads(Path(commands_on(Path(speech_pool), tmp_path / "run")["loop"][-1]).read_text())
    training = {name: value for name, value in training.items() if name not in ("run", "budget")}
    values = {"run": str(tmp_path / "sweep"), "training": training, "search": "random", "trials": 1}
    values["space"] = {"finetune.head.l2": [0.1, 0.3]}
    (tmp_path / "sweep.json").write_text(json.dumps(values))
    assert CliRunner().invoke(app, ["sweep", "run", str(tmp_path / "sweep.json")]).exit_code == 0
    pickles = sorted((tmp_path / "sweep").rglob("*.pkl"))
    assert pickles
    for file in pickles:
        file.write_bytes(pickled(trap))
    (tmp_path / "sweep.json").write_text(json.dumps(values | {"trials": 2}))
    result = CliRunner().invoke(app, ["sweep", "run", str(tmp_path / "sweep.json")])
    assert result.exit_code == 0, result.output
    for file in (tmp_path / "sweep").rglob("*.json"):
        file.write_bytes(pickled(trap))
    assert str(tmp_path / "sweep") in command("sweep", "run", str(tmp_path / "sweep.json"))


def test_a_study_of_a_stranger(speech_pool: str, tmp_path: Path, trap: Path) -> None:
    values = {
        "pool": speech_pool,
        "run": str(tmp_path / "study"),
        "classes": ["anger", "happiness", "neutral", "sadness"],
        "split": {"scheme": "k-fold", "k": 3},
        "folds": [0],
        "seeds": [0],
        "rows": [{"name": "one"}, {"name": "other", "finetune": {"head": {"l2": 0.1}}}],
    }
    (tmp_path / "study.json").write_text(json.dumps(values))
    assert CliRunner().invoke(app, ["compare", str(tmp_path / "study.json")]).exit_code == 0
    for file in (tmp_path / "study").rglob("*.json"):
        file.write_bytes(pickled(trap))
    assert str(tmp_path / "study") in command("compare", str(tmp_path / "study.json"))


def test_a_ledger_of_a_stranger(speech_pool: str, tmp_path: Path, trap: Path) -> None:
    """Pickles in every cell, and a trigger that would load a library."""
    from seral.labels.ledger import Ledger
    from seral.labels.records import Project

    file = tmp_path / "labels.sqlite"
    ledger = Ledger.create(str(file), Project(classes=("anger", "neutral")))
    ledger.ask("round-0", sorted(open_pool(speech_pool).ids["utterance_id"].to_pylist())[:2], purpose="round")
    ledger.add_person("ada")
    ledger.close()
    with closing(sqlite3.connect(file)) as database, database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            columns = [
                row[1]
                for row in database.execute(f"PRAGMA table_info({table})")
                if "CHAR" in row[2] or row[2] in ("TEXT", "JSON")
            ]
            for column in columns:
                with suppress(sqlite3.IntegrityError):  # a key
                    database.execute(f"UPDATE {table} SET {column} = ?", (pickled(trap),))
        body = f"SELECT load_extension('{trap}')"
        database.execute(f"CREATE TRIGGER t AFTER INSERT ON person BEGIN {body}; END")
    for arguments in (["progress", str(file)], ["people", "add", str(file), "bob"], ["agreement", str(file)]):
        assert str(file) in command("labels", *arguments)


def test_encoders(speech_pool: str, tmp_path: Path, trap: Path) -> None:
    from ser_models.encoders import load_encoder, save_encoder

    folder = tmp_path / "encoder"
    save_encoder(load_encoder("seral-tiny"), folder)
    (folder / "model.safetensors").unlink()
    (folder / "SHA256SUMS").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(trap))
    error = command("features", speech_pool, "--encoder", str(folder))
    assert str(folder) in error
    assert "saved as safetensors" in error
    assert "weights_only" not in error, "no advice to run it"
    torch.save({"weight": Payload(trap)}, folder / "pytorch_model.bin")
    assert str(folder) in command("features", speech_pool, "--encoder", str(folder))
    (folder / "pytorch_model.bin").unlink()
    (folder / "model.safetensors").write_bytes(b"\xff" * 64)
    assert str(folder) in command("features", speech_pool, "--encoder", str(folder))


def test_configurations(tmp_path: Path, trap: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"pool: !!python/object/apply:os.makedirs ['{trap}']\n")
    assert "run.yaml" in command("loop", "run", str(tmp_path / "run.yaml"))


def test_members_of_a_tar_stay_in_it(tmp_path: Path, make_corpus: Any, ray_session: None) -> None:
    make_corpus(tmp_path / "corpus", 1)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in ("../../outside/a.flac", "/outside/b.flac"):
            data = next((tmp_path / "corpus/audio").iterdir()).read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    before = {path for path in tmp_path.parent.rglob("*") if "pool" not in path.parts}
    CliRunner().invoke(app, ["pool", "import", "webdataset", str(tmp_path / "a.tar"), "--out", str(tmp_path / "pool")])
    assert {path for path in tmp_path.parent.rglob("*") if "pool" not in path.parts} == before
    ids = open_pool(str(tmp_path / "pool")).ids["utterance_id"].to_pylist()
    assert np.all([".." not in name and "/" not in name for name in ids])
