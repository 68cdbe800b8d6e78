"""What is erased is gone from every byte, whenever the erasure was killed, and does not come back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_layouts.pool_rows import put_shard, row, set_shards

from seral import storage
from seral.erase.erase import EraseOptions, erase
from seral.errors import OptionError, PoolError
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.derivations import Kind, note_derivation
from seral.pool.derive import SelectOptions, merge_pools, select_from_pool
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.revisions import read_entry
from seral.pool.shards import TABLES, open_pool, shard_uri
from seral.pool.snapshots import take_snapshot
from seral.schema import GOLD, LABEL, PICK, QUARANTINE, SCREEN, UTTERANCE, VOTES, prediction_schema
from seral.storage import files, tables
from seral.web import sounds as sounds_module
from seral.web.sounds import Sounds

ERASED = ["made-00000000000000a1", "made-00000000000000a2", "other-00000000000000c3"]
"""Two utterances of one speaker, and the first one's copy in another corpus."""
KEPT = ["made-00000000000000b1", "made-00000000000000b2", "made-00000000000000b3"]
CELLS = pa.schema([("utterance_id", pa.string()), ("mean", pa.large_binary()), ("std", pa.large_binary())])
MARTHA = {"speaker": "Martha", "text": "my name is Martha"}


def rows_by_shard() -> dict[str, list[dict[str, Any]]]:
    a1, a2 = (row(name, source=f"martha/{name[-2:]}.wav", **MARTHA) for name in ERASED[:2])
    copy = row(ERASED[2], corpus="other", audio=a1["audio"], pcm_hash=a1["pcm_hash"], duplicate_of=ERASED[0])
    b1, b2, b3 = (row(name, speaker="Bert") for name in KEPT)
    return {"made-1": [a1, b1, a2], "made-2": [b2], "other-1": [copy, b3]}


def write_tables(pool: str) -> None:
    """A pool of three shards with gold labels, votes, quarantine and two kinds of features."""
    quarantine = {
        "made-1": [{"source": "martha/bad.wav", "corpus": "made", "speaker": "Martha", "reason": "empty"}],
        "made-2": [
            {"source": "again.wav", "corpus": "made", "reason": "repeated", "detail": f"already there as {ERASED[1]}"},
            {"source": "bert.wav", "corpus": "made", "speaker": "Bert", "reason": "empty"},
        ],
    }
    entries = {}
    for shard, rows in rows_by_shard().items():
        about = [{"utterance_id": r["utterance_id"]} for r in rows]
        features = [{**a, "mean": b"m" + a["utterance_id"].encode(), "std": b"s"} for a in about]
        content: dict[str, tuple[list[dict[str, Any]], pa.Schema]] = {
            "utterances": (rows, UTTERANCE),
            "gold": ([{**a, "emotion": "anger"} for a in about], GOLD),
            "votes": ([{**a, "emotion": "anger", "count": 2} for a in about for _ in range(2)], VOTES),
            "quarantine": (quarantine.get(shard, []), QUARANTINE),
            "features/abc/pooled": (features, CELLS.with_metadata({"encoder": "abc"})),
            "features/text-x": (features[:1], CELLS),
        }
        for table, (lines, schema) in content.items():
            storage.write_table(shard_uri(pool, table, shard), pa.Table.from_pylist(lines, schema))
        entries[shard] = read_entry(pool, shard)
    screen = [{"utterance_id": KEPT[0], "nearest_id": ERASED[0]}, {"utterance_id": ERASED[0], "nearest_id": KEPT[0]}]
    for number, rows in enumerate((screen, screen[:1])):
        uri = storage.join(pool, "screen", f"{number}.parquet")
        storage.write_table(uri, pa.Table.from_pylist(rows, SCREEN))
    storage.write_json(storage.join(pool, "features", "abc", "encoder.json"), {"encoder": "abc"})
    set_shards(pool, entries)


def write_snapshot(pool: str) -> None:
    """An earlier revision, kept by its name, whose only shard the later ones do not have."""
    for table, schema in TABLES.items():
        rows = [row(ERASED[0], **MARTHA)] if table == "utterances" else []
        storage.write_table(shard_uri(pool, table, "made-0"), pa.Table.from_pylist(rows, schema))
    set_shards(pool, {"made-0": read_entry(pool, "made-0")})
    take_snapshot(pool, "first")


def write_run(run: Path) -> None:
    """A run of the loop as its rounds leave it: the second round asked about an erased utterance."""
    trajectory = run / "trajectories" / "after.fold-00.seed-0"
    storage.write_json(
        trajectory / "trajectory.json", {"test_speakers": ["Bert", "Martha"], "fold_name": "made/Martha"}
    )
    asked = [KEPT[0], ERASED[1]]
    scored = {"predicted": "anger", "p_anger": 1.0}
    for number, name in enumerate(asked):
        folder = trajectory / "rounds" / f"{number:04d}"
        label = {"utterance_id": name, "emotion": "anger", "answer": "label", "round": number}
        unasked = [{"utterance_id": n, "part": "pool", **scored} for n in (*KEPT, *ERASED) if n not in asked]
        tables = {
            "picks": pa.Table.from_pylist([{"utterance_id": name, "order": 0, "round": number}], PICK),
            "labels": pa.Table.from_pylist([label], LABEL),
            "predictions/pool/made-1": pa.Table.from_pylist(unasked, prediction_schema(["anger"])),
            "predictions/dev": pa.Table.from_pylist([], prediction_schema(["anger"])),
            "selection/made-1": pa.table({"utterance_id": KEPT[: number + 1] + ERASED[:number]}),
        }
        for table, content in tables.items():
            storage.write_table(folder / f"{table}.parquet", content)
        storage.write_bytes(folder / "model" / "model.safetensors", b"weights")
        storage.write_json(folder / "round.json", {"round": number})
    storage.write_json(run / "cells" / "one.json", {"uar": 0.5, "predicted": {ERASED[0]: [1], KEPT[0]: [2]}})
    storage.write_bytes(run / "report" / "picks.csv", "\n".join(["utterance_id", *asked]).encode())
    storage.write_bytes(run / "report" / "rounds.csv", b"round,uar\n0,0.5\n")
    storage.write_bytes(run / "tapt" / "encoder" / "model.safetensors", b"weights")
    write_ledger(str(run / "labels.sqlite"), asked)
    cache = run.parent / "cache"
    storage.write_table(cache / "abc" / "pooled" / "made-1.parquet", pa.table({"utterance_id": [ERASED[0], KEPT[0]]}))
    for killed in (cache / "abc" / "pooled" / "made-2.parquet", run / "report" / "report.html"):
        storage.write_bytes(f"{killed}.0123abcd.partial", b"half " + ERASED[0].encode())
    storage.write_bytes(run / "config.yaml", f"feature_cache: {cache}\n".encode())


def write_ledger(url: str, ids: list[str]) -> None:
    """The answers of one person, the last of them corrected."""
    with closing(Ledger.create(url, Project(classes=("anger", "joy")))) as ledger:
        ledger.add_person("Ada")
        ledger.ask("round-0", ids, purpose="round")
        for name in (*ids, ids[-1]):
            ledger.record([Answer(utterance_id=name, person="Ada", emotions=("anger",), comment=f"about {name}")])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pool and a run."""
    folder = tmp_path_factory.mktemp("original")
    write_snapshot(str(folder / "pool"))
    write_tables(str(folder / "pool"))
    write_run(folder / "run")
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "work"
    shutil.copytree(original, copy)
    (copy / "run" / "config.yaml").write_text(f"feature_cache: {copy / 'cache'}\n")
    return copy


def options(folder: Path, **values: Any) -> EraseOptions:
    wanted = values or {"speaker": "made/Martha", "also": [str(folder / "run")]}
    return parse(EraseOptions, {"pool": str(folder / "pool"), **wanted})


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file as it is on the disk, and every Parquet table once more as what stands in it."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()
            if path.suffix == ".parquet":
                yield str(path.relative_to(folder)), repr(pq.read_table(path).to_pylist()).encode()


def state(folder: Path) -> dict[str, bytes]:
    """All files but tombstones, whose times and salts differ."""
    files = (path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    bytes_of = {
        name: path.read_bytes() for name, path in names.items() if "/erased/" not in name and "config" not in name
    }
    for name in [name for name in bytes_of if name.endswith(".sqlite")]:
        with closing(Ledger(str(names[name]))) as ledger:
            bytes_of[name] = repr(ledger.answers(history=True).to_pylist()).encode()
    return bytes_of


def assert_gone(folder: Path) -> None:
    audio = rows_by_shard()["made-1"][0]["audio"]
    for name, data in contents(folder):
        for word in (*ERASED, "artha", "again.wav"):
            assert word.encode() not in data, f"{word} is in {name}"
        assert audio not in data, name
        assert repr(audio).encode() not in data, name
        assert rows_by_shard()["made-1"][0]["pcm_hash"].encode() not in data, name
    pool = open_pool(str(folder / "pool"))
    assert check_pool(pool.uri) == []
    assert sorted(pool.metadata["utterance_id"].to_pylist()) == KEPT
    snapshot = open_pool(f"{pool.uri}@first")
    assert (snapshot.rows, check_pool(f"{pool.uri}@first")) == (0, [])
    for table in ("features/abc/pooled", "features/text-x", *TABLES):
        listed = sorted({*pool.shards, *(snapshot.shards if table in TABLES else [])})
        assert [name.removesuffix(".parquet") for name in storage.list_names(f"{pool.uri}/{table}")] == listed


def test_a_speaker_is_gone_from_every_byte(folder: Path) -> None:
    summary = erase(options(folder))
    assert_gone(folder)
    assert summary["rows"] == {
        "features/abc/pooled": 3,
        "features/text-x": 2,
        "gold": 3,
        "quarantine": 2,
        "revisions": 3,
        "screen": 2,
        "utterances": 4,
        "votes": 6,
    }
    run = str(folder / "run")
    rounds = f"{run}/trajectories/after.fold-00.seed-0/rounds"
    assert summary["elsewhere"][run]["rows"] == {
        "labels": 2, "made-1": 5, "one": 1, "picks": 2, "trajectory": 1
    }  # fmt: skip
    assert summary["elsewhere"][run]["models"] == [f"{run}/tapt/encoder", f"{rounds}/0001/model"]
    assert summary["note"].startswith("weights cannot be unlearned")
    assert summary["elsewhere"][str(folder / "cache")]["rows"] == {"made-1": 1}
    (tombstone,) = (folder / "pool" / "erased").iterdir()
    assert json.loads(tombstone.read_text())["finished"]


def test_a_ledger_loses_what_was_erased_and_nothing_else(folder: Path) -> None:
    elsewhere = str(folder / "team.sqlite")
    write_ledger(elsewhere, [ERASED[0], KEPT[1]])
    (folder / "run" / "config.yaml").write_text(f"people: {{ledger: {elsewhere}}}\n")
    summary = erase(options(folder))
    assert summary["elsewhere"][elsewhere]["rows"] == {"team": 1}
    for url, left in ((elsewhere, [KEPT[1]] * 2), (str(folder / "run" / "labels.sqlite"), [KEPT[0]])):
        with closing(Ledger(url)) as ledger:
            assert ledger.answers(history=True)["utterance_id"].to_pylist() == left
    assert ERASED[0].encode() not in b"".join(path.read_bytes() for path in folder.glob("team.sqlite*"))


def test_what_is_left_is_as_it_was(folder: Path) -> None:
    before = open_pool(str(folder / "pool"))
    left_files = {
        r["utterance_id"]: r for s in before.shards for r in before.read(s).to_pylist() if r["utterance_id"] in KEPT
    }
    erase(options(folder))
    pool = open_pool(str(folder / "pool"))
    assert {r["utterance_id"]: r for s in pool.shards for r in pool.read(s).to_pylist()} == left_files
    assert "made-2" not in pool.shards, "its quarantine named an erased utterance"
    assert pool.quarantine["source"].to_pylist() == ["bert.wav"]
    table = storage.read_table(storage.join(pool.uri, "features/abc/pooled", f"{pool.shards[0]}.parquet"))
    for number in range(2):
        (line,) = storage.read_table(storage.join(pool.uri, "screen", f"{number}.parquet")).to_pylist()
        assert (line["utterance_id"], line["nearest_id"]) == (KEPT[0], None)
    assert table.schema.metadata[b"encoder"] == b"abc"
    assert table["mean"].to_pylist() == [b"m" + KEPT[0].encode()]
    trajectory = folder / "run" / "trajectories" / "after.fold-00.seed-0"
    assert storage.read_json(trajectory / "trajectory.json") == {"test_speakers": ["Bert"], "fold_name": "erased"}
    assert storage.read_table(trajectory / "rounds/0000/labels.parquet")["utterance_id"].to_pylist() == [KEPT[0]]
    for number in ("0000", "0001"):
        selected_by = pq.read_table(trajectory / "rounds" / number / "selection")["utterance_id"].to_pylist()
        assert not set(ERASED) & set(selected_by)
    assert storage.read_json(folder / "run" / "cells" / "one.json") == {"uar": 0.5, "predicted": {KEPT[0]: [2]}}
    assert storage.list_names(folder / "run" / "report") == ["rounds.csv"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs."""


@pytest.mark.slow
def test_killed_at_any_point_it_ends_in_the_same_state(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole" / "work"
    shutil.copytree(folder, whole)
    (whole / "run" / "config.yaml").write_text(f"feature_cache: {whole / 'cache'}\n")
    summary = erase(options(whole))
    expected, kills = state(whole), 0
    while True:
        again = tmp_path / f"killed-{kills}" / "work"
        shutil.copytree(folder, again)
        (again / "run" / "config.yaml").write_text(f"feature_cache: {again / 'cache'}\n")
        with monkeypatch.context() as patched:
            if not dies(patched, again, after=kills):
                break
        resumed = erase(options(again))
        assert state(again) == expected, f"killed at change {kills}"
        assert resumed["rows"] == summary["rows"]
        models = [m.removeprefix(str(again)) for m in resumed["elsewhere"][str(again / "run")]["models"]]
        assert models == [m.removeprefix(str(whole)) for m in summary["elsewhere"][str(whole / "run")]["models"]]
        kills += 2
        shutil.rmtree(again.parent)
    assert kills > 30, "every file that is written or deleted is a point to be killed at"


def dies(patched: pytest.MonkeyPatch, folder: Path, *, after: int) -> bool:
    """Run an erasure that ends before its change number `after`; False when it had no more to do than that."""
    left = after

    def counted(do: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return do(*arguments)

        return change

    for module, names in (
        (storage, ("replacing", "remove")),
        (files, ("replacing", "remove")),
        (tables, ("replacing",)),
    ):
        for name in names:
            patched.setattr(module, name, counted(getattr(module, name)))
    try:
        erase(options(folder))
    except Killed:
        return True
    return False


def test_again_changes_nothing_and_another_run_is_cleared(folder: Path, tmp_path: Path) -> None:
    first = erase(options(folder, speaker="made/Martha"))
    before = {path: path.read_bytes() for path in (folder / "pool").rglob("*") if path.is_file()}
    assert erase(options(folder, speaker="made/Martha")) == first
    assert {path: path.read_bytes() for path in (folder / "pool").rglob("*") if path.is_file()} == before
    later = erase(options(folder))
    assert later["rows"] == first["rows"]
    assert later["elsewhere"][str(folder / "run")]["rows"]["labels"] == 2
    assert_gone(folder)


def test_one_utterance_and_its_copy(folder: Path) -> None:
    predictions = str(folder / "predictions.parquet")
    storage.write_table(predictions, pa.table({"utterance_id": [*KEPT, *ERASED]}))
    summary = erase(options(folder, utterance=ERASED[2], also=[predictions]))
    assert (summary["kind"], summary["rows"]["utterances"]) == ("utterance", 3), "one of them in the snapshot"
    assert sorted(open_pool(str(folder / "pool")).metadata["utterance_id"].to_pylist()) == [ERASED[1], *KEPT]
    assert storage.read_table(predictions)["utterance_id"].to_pylist() == [*KEPT, ERASED[1]]
    assert check_pool(str(folder / "pool")) == []


def test_what_is_not_there_is_said(folder: Path) -> None:
    with pytest.raises(PoolError, match="has no speaker made/Nobody"):
        erase(options(folder, speaker="made/Nobody"))
    with pytest.raises(PoolError, match=r"there is nothing at .*nowhere"):
        erase(options(folder, speaker="made/Martha", also=[str(folder / "nowhere")]))
    assert not (folder / "pool" / "erased").exists()
    with pytest.raises(OptionError, match="one of the two"):
        options(folder, speaker="made/Martha", utterance=ERASED[0])


def test_a_list_that_still_names_it_fails_the_erasure(folder: Path) -> None:
    near = pa.table({"utterance_id": [KEPT[0]], "near": [[ERASED[0]]]})
    storage.write_table(folder / "run" / "near.parquet", near)
    with pytest.raises(PoolError, match=r"near\.parquet still speak of what was erased"):
        erase(options(folder))
    (problem,) = check_pool(str(folder / "pool"))
    assert "did not come to its end: give it again" in problem
    (folder / "run" / "near.parquet").unlink()
    erase(options(folder))
    assert_gone(folder)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_it_does_not_come_back_with_the_next_import(tmp_path: Path, make_corpus: Callable[..., Path]) -> None:
    root, pool = make_corpus(tmp_path / "calls", 8), str(tmp_path / "pool")
    wanted = parse(ImportOptions, {"reader": "manifest", "root": str(root), "out": pool})
    import_corpus(wanted)
    summary = erase(parse(EraseOptions, {"pool": pool, "speaker": "calls/s1"}))
    assert summary["rows"]["utterances"] == 2
    counts = import_corpus(wanted)
    assert (counts["files"], counts["reasons"], counts["pool_utterances"]) == (2, {"erased": 2}, 6)
    again = import_corpus(wanted)
    assert (again["files"], again["already_there"]) == (0, 8)
    # Under another name, another speaker and another path: the audio gives it away.
    shutil.copy(root / "audio" / "clip0001.flac", root / "audio" / "anon.flac")
    lines = [{"id": "anon", "audio": "audio/anon.flac", "speaker": "s9"}]
    with (root / "manifest.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    counts = import_corpus(wanted)
    assert (counts["files"], counts["reasons"], counts["pool_utterances"]) == (1, {"erased": 1}, 6)
    assert (import_corpus(wanted)["files"], check_pool(pool)) == (0, [])
    reasons = open_pool(pool).quarantine
    assert reasons["reason"].to_pylist() == ["erased"] * 3
    for name, data in contents(Path(pool)):
        for word in ("clip0001", "clip0005", "'s1'", "anon"):
            assert word.encode() not in data, f"{word} in {name}"


def test_another_version_of_an_erased_file_goes_with_all_that_is_about_it(tmp_path: Path) -> None:
    """A file that was imported again after it had changed: another id and other audio, the same path."""
    pool = str(tmp_path / "pool")
    first, second, bert = row("made-1", source="martha.wav"), row("made-2", source="martha.wav"), row("made-3")
    copy = row("other-4", corpus="other", audio=second["audio"], pcm_hash=second["pcm_hash"])
    entries = {}
    for shard, rows in {"s1": [first, bert], "s2": [second], "s3": [copy]}.items():
        about = [{"utterance_id": r["utterance_id"], "emotion": "anger"} for r in rows]
        for table, lines in {"utterances": rows, "gold": about, "votes": about, "quarantine": []}.items():
            storage.write_table(shard_uri(pool, table, shard), pa.Table.from_pylist(lines, TABLES[table]))
        entries[shard] = read_entry(pool, shard)
    set_shards(pool, entries)
    assert erase(EraseOptions(pool=pool, utterance="made-1"))["rows"]["gold"] == 3
    assert open_pool(pool).ids["utterance_id"].to_pylist() == ["made-3"]
    assert check_pool(pool) == []


def noted(folder: Path, name: str, kind: Kind) -> Path:
    """Where something was made of the pool, which the pool has noted."""
    note_derivation(str(folder / "pool"), folder / name, kind)
    return folder / name


def test_what_was_made_of_the_pool_is_cleared_without_being_named(folder: Path) -> None:
    audio_of = {line["utterance_id"]: line["audio"] for lines in rows_by_shard().values() for line in lines}
    noted(folder, "run", "run")
    clips = noted(folder, "for-another-tool/clips", "clips")
    for name, data in (ERASED[1], b""), ("renamed", audio_of[ERASED[0]]), (KEPT[0], audio_of[KEPT[0]]):
        storage.write_bytes(clips / f"{name}.flac", data)
    tasks = noted(folder, "for-another-tool/tasks.json", "labels")
    storage.write_json(tasks, [{"data": {"utterance_id": name}} for name in (*ERASED, *KEPT)])
    predictions = noted(folder, "predictions.parquet", "predictions")
    storage.write_table(predictions, pa.table({"utterance_id": [*ERASED, *KEPT]}))
    page = noted(folder, "pool.html", "page")
    storage.write_bytes(page, f"<p>{ERASED[0]}</p>".encode())
    noted(folder, "moved", "run")
    state = folder / "run" / "tune" / "basic-variant-state.json"  # Tune's, which is no JSON
    storage.write_bytes(state, b"\x80\x05" + ERASED[0].encode())
    done = erase(options(folder, speaker="made/Martha"))
    assert not state.exists()
    assert [path.name for path in clips.iterdir()] == [f"{KEPT[0]}.flac"]
    assert not page.exists()
    assert done["moved"] == [str(folder / "moved")]
    assert_gone(folder)
    assert [model for location in done["elsewhere"].values() for model in location["models"]]


def test_pools_made_of_the_pool_are_cleared_too(folder: Path) -> None:
    pool, part, whole = (str(folder / name) for name in ("pool", "part", "whole"))
    select_from_pool(SelectOptions(pool=pool, out=part, where=["duration_s > 0"]))
    merge_pools([part], whole)
    done = erase(options(folder, utterance=ERASED[1]))
    assert set(done["pools"]) == {part, whole}
    for uri in (pool, part, whole):
        assert ERASED[1] not in open_pool(uri).ids["utterance_id"].to_pylist()
        assert check_pool(uri) == []


@pytest.mark.parametrize("how", ["mark", "delete"])
def test_models_that_learnt_from_the_erased_are_marked_or_deleted(how: str, folder: Path) -> None:
    done = erase(options(folder, speaker="made/Martha", also=[str(folder / "run")], models=how))
    models = [Path(model) for location in done["elsewhere"].values() for model in location["models"]]
    assert models
    assert [model.exists() for model in models] == [how == "mark"] * len(models)
    if how == "mark":
        assert all((model / "erased.json").is_file() for model in models)


def test_a_server_that_runs_plays_nothing_erased(folder: Path) -> None:
    sounds = Sounds(str(folder / "pool"))
    before = {name: sounds.read(name) for name in (*ERASED, *KEPT)}
    erase(options(folder, speaker="made/Martha"))
    for name in ERASED:
        assert name not in sounds
        with pytest.raises(PoolError, match=f"does not hold {name}"):
            sounds.read(name)
    assert {name: sounds.read(name) for name in KEPT} == {name: before[name] for name in KEPT}


def test_a_server_that_runs_plays_what_came_and_what_was_moved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards that another command writes anew while a clip is read."""
    pool = str(folder / "pool")
    sounds = Sounds(pool)
    before = {name: sounds.read(name) for name in KEPT}
    sounds._cached.cache_clear()
    rows = [*(row for shard in rows_by_shard().values() for row in shard), row("made-new", speaker="New")]
    entry, changes, read_row = put_shard(pool, "all", rows), [], sounds_module._read_row

    def overtaken(*where: Any) -> bytes:
        if not changes:
            changes.append(set_shards(pool, {"all": entry}))
        return read_row(*where)

    monkeypatch.setattr(sounds_module, "_read_row", overtaken)
    assert {name: sounds.read(name) for name in KEPT} == before
    assert changes
    assert sounds.read("made-new") == rows[-1]["audio"]
