"""Corpora that lie in object stores: a real S3 server, and a file system of fsspec's."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from s3_server import Door, environment, s3_server, upload, use

from seral.audio.address import StorePath, path_of
from seral.audio.decode import BadAudio
from seral.corpora import READERS
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import OptionError, StoreError
from seral.pool.ingest import import_file

EMODB = ["03a01Fa", "03a01Wa", "08a02Na", "14b10Tb"]


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    """The server, to which this process is led."""
    use(door, monkeypatch)
    yield door
    door.refuse.clear()
    door.refused.clear()


@pytest.fixture(scope="module")
def corpus(make_corpus: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same clips as a manifest with files, named like EmoDB's, in a tar with labels, in Parquet and in Arrow."""
    root = tmp_path_factory.mktemp("store") / "corpus"
    make_corpus(root, len(EMODB), suffix=".wav")
    clips = sorted((root / "audio").iterdir())
    (root / "emo" / "wav, all").mkdir(parents=True)
    for name, clip in zip(EMODB, clips, strict=True):
        (root / "emo" / "wav, all" / f"{name}.wav").write_bytes(clip.read_bytes())
    (root / "emo" / "wav, all" / "._03a01Fa.wav").write_bytes(b"what macOS leaves")
    (root / "tars" / "train").mkdir(parents=True)
    with tarfile.open(root / "tars" / "train" / "000.tar", "w") as tar:
        for clip in clips:
            for name, data in ((clip.name, clip.read_bytes()), (f"{clip.stem}.json", b'{"emotion": "anger"}')):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    rows = [{"audio": {"bytes": clip.read_bytes(), "path": clip.name}, "emotion": "joy"} for clip in clips]
    (root / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), root / "parquet" / "train-0.parquet", row_group_size=2)
    (root / "arrow").mkdir()
    with pa.ipc.new_stream(root / "arrow" / "train.arrow", (arrow := pa.Table.from_pylist(rows)).schema) as stream:
        stream.write_table(arrow, max_chunksize=3)
    (root / "folder" / "täglich #1").mkdir(parents=True)
    (root / "folder" / "täglich #1" / "ruf 1%.wav").write_bytes(clips[0].read_bytes())
    return root


PLACES = [
    ("manifest", "."),
    ("manifest", "manifest.jsonl"),
    ("emodb", "emo"),
    ("audiofolder", "audio"),
    ("folder", "folder"),
    ("webdataset", "tars"),
    ("webdataset", "tars/train/000.tar"),
    ("hf-parquet", "parquet"),
    ("hf-parquet", "parquet/train-0.parquet"),
    ("hf-arrow", "arrow"),
]


def records(reader: str, root: Path) -> list[dict[str, Any]]:
    """What a reader lists, without where it lies."""
    return [{name: value for name, value in vars(item).items() if name != "audio"} for item in READERS[reader](root)]


def sounds(reader: str, root: Path) -> list[dict[str, Any]]:
    """The rows of the pool that its clips become."""
    items = list(READERS[reader](root))
    assert not [item for item in items if isinstance(item, Skipped)]
    return [import_file(item, voice=False) for item in items if isinstance(item, Utterance)]


@pytest.mark.parametrize(("reader", "subtree"), PLACES)
def test_a_corpus_in_a_store_is_the_corpus_on_a_disk(corpus: Path, s3: Door, reader: str, subtree: str) -> None:
    upload(corpus, "corpus", s3)
    in_store = path_of(f"s3://speech/corpus/{subtree}")
    listed = records(reader, in_store)
    assert listed == records(reader, corpus / subtree)
    assert len(listed) >= (1 if reader == "folder" else len(EMODB))
    assert sounds(reader, in_store) == sounds(reader, corpus / subtree)


def test_any_file_system_of_fsspec_will_do(corpus: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(str(corpus / "emo"), "/shelf/emo", recursive=True)
    listed = records("emodb", path_of("memory://shelf/emo"))
    assert listed == records("emodb", corpus / "emo")
    assert sounds("emodb", path_of("memory://shelf/emo")) == sounds("emodb", corpus / "emo")
    with pytest.raises(OptionError, match=r"neither Arrow .* nor fsspec .* reads such addresses"):
        path_of("nowhere://shelf/emo").exists()


def test_a_manifest_may_name_clips_in_a_store(corpus: Path, s3: Door, tmp_path: Path) -> None:
    upload(corpus / "audio", "clips", s3)
    rows = [{"audio": f"s3://speech/clips/{clip.name}", "id": clip.stem} for clip in (corpus / "audio").iterdir()]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    hashes = {row["pcm_hash"] for row in sounds("manifest", manifest)}
    assert hashes == {row["pcm_hash"] for row in sounds("audiofolder", corpus / "audio")}
    assert {item.source for item in READERS["manifest"](manifest)} == {row["audio"] for row in rows}


def test_a_path_in_a_store_is_taken_apart_like_any(s3: Door, corpus: Path) -> None:
    upload(corpus / "audio", "paths", s3)
    clip = path_of("s3://speech/paths") / "clip0000.wav"
    assert str(clip) == "s3://speech/paths/clip0000.wav" == os.fspath(clip)
    assert (clip.name, clip.stem, clip.suffix, str(clip.parent)) == (
        "clip0000.wav",
        "clip0000",
        ".wav",
        "s3://speech/paths",
    )
    assert str(clip.with_suffix(".flac")) == "s3://speech/paths/clip0000.flac"
    assert clip.relative_to(path_of("s3://speech")).as_posix() == "paths/clip0000.wav"
    again = pickle.loads(pickle.dumps(clip))
    assert again == clip
    assert isinstance(again, StorePath)
    data = (corpus / "audio" / "clip0000.wav").read_bytes()
    assert clip.stat().st_size == len(data)
    assert (clip.is_file(), clip.is_dir(), clip.parent.is_dir()) == (True, False, True)
    assert not (clip.parent / "none.wav").exists()
    with again.open("rb") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
        assert file.seek(100) == 100
        assert file.read(7) == data[100:107]
    with pytest.raises(ValueError, match="can be read and not written"):
        clip.open("wb")
    with pytest.raises(FileNotFoundError):
        (clip.parent / "none.wav").stat()


def test_a_busy_store_is_asked_again(corpus: Path, s3: Door) -> None:
    upload(corpus / "emo", "busy", s3)
    clip = next(item for item in READERS["emodb"](path_of("s3://speech/busy")) if isinstance(item, Utterance))
    s3.refuse[clip.audio.name] = 8
    whole = import_file(clip, voice=False)
    assert s3.refused[clip.audio.name] == 8
    assert whole in sounds("emodb", corpus / "emo")


def test_a_store_that_does_not_answer_is_named_and_no_clip_is_blamed(
    corpus: Path, s3: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(corpus / "emo", "closed", s3)
    monkeypatch.setenv("SERAL_STORE_PATIENCE_S", "3")
    clip = next(item for item in READERS["emodb"](path_of("s3://speech/closed")) if isinstance(item, Utterance))
    s3.refuse[clip.audio.name] = 10_000
    with pytest.raises(
        StoreError, match=r"03a01Fa\.wav: the store does not do this, asked \d times in .*The same command goes on"
    ):
        import_file(clip, voice=False)


def test_a_clip_that_is_gone_since_it_was_listed_is_the_clips_fault(corpus: Path, s3: Door) -> None:
    upload(corpus / "emo", "gone", s3)
    clip = next(item for item in READERS["emodb"](path_of("s3://speech/gone")) if isinstance(item, Utterance))
    missing = Utterance(**{**vars(clip), "audio": clip.audio.with_suffix(".nix")})
    with pytest.raises(BadAudio) as error:
        import_file(missing, voice=False)
    assert error.value.reason == "missing"


IMPORT = """
import sys
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions

print(import_corpus(parse(ImportOptions, {"reader": "manifest", "root": sys.argv[1], "out": sys.argv[2]})))
"""


@pytest.mark.slow
def test_an_import_from_a_store_is_the_pool_of_the_disk_though_it_broke_off(
    make_corpus: Callable[..., Path], s3: Door, tmp_path: Path
) -> None:
    corpus = make_corpus(tmp_path / "calls", 80)
    upload(corpus, "calls", s3)

    def run(root: str, pool: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", IMPORT, root, str(tmp_path / pool)]
        return subprocess.run(
            command,
            env=os.environ | environment(s3) | {"SERAL_STORE_PATIENCE_S": "5"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    s3.refuse["clip0070.flac"] = 10_000
    broken = run("s3://speech/calls", "store")
    assert broken.returncode
    assert "s3://speech/calls/audio/clip0070.flac: the store does not do this" in broken.stderr
    shards = set((tmp_path / "store" / "utterances").glob("*.parquet"))
    s3.refuse.clear()
    done = run("s3://speech/calls", "store")
    assert not done.returncode, done.stderr[-2000:]
    assert not run(str(corpus), "disk").returncode
    files = {path.relative_to(tmp_path / "disk") for path in (tmp_path / "disk").rglob("*.parquet")}
    assert files == {path.relative_to(tmp_path / "store") for path in (tmp_path / "store").rglob("*.parquet")}
    assert all((tmp_path / "disk" / name).read_bytes() == (tmp_path / "store" / name).read_bytes() for name in files)
    assert shards <= set((tmp_path / "store" / "utterances").glob("*.parquet"))


def test_a_made_up_corpus_is_written_to_a_store_and_read_there(s3: Door) -> None:
    pytest.importorskip("espeakng_loader")
    from seral.synthesis.corpus import SynthesisOptions, synthesise

    out = synthesise("s3://speech/made-up/", SynthesisOptions(utterances=3, junk=0))
    assert out == "s3://speech/made-up"
    items = [*READERS["manifest"](path_of(out))]
    assert [item.name for item in items if isinstance(item, Utterance)] == ["demo-0", "demo-1", "demo-2"]
    assert all(item.audio.is_file() for item in items if isinstance(item, Utterance))
