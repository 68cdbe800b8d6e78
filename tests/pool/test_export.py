"""Exports of a pool: the libraries of the formats open them, and seral reads them back."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from s3_server import s3_server, use

from seral import storage
from seral.erase.erase import EraseOptions, erase
from seral.errors import LabelError, OptionError, StateError
from seral.exports import FORMATS
from seral.exports.export import export_pool
from seral.exports.options import ExportOptions
from seral.options import parse
from seral.pool.guess import GuessOptions, guess_corpus
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import Pool, open_pool
from seral.schema import GOLD, VOTES

MakeCorpus = Callable[..., Path]
SPLITS = ("train", "dev", "test", None)
METADATA = ("speaker", "gender", "session", "language", "style", "text", "split", "corpus")


def import_as(reader: str, root: Path, out: Path, **options: Any) -> Pool:
    import_corpus(parse(ImportOptions, {"reader": reader, "root": str(root), "out": str(out), **options}))
    return open_pool(str(out))


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, make_corpus: MakeCorpus) -> Pool:
    """Twelve clips in all splits and in none, with ratings, and votes of two raters on half of them."""
    folder = tmp_path_factory.mktemp("export")
    corpus = make_corpus(folder / "calls", 12, seconds=(1.0, 1.5))
    rows = [json.loads(line) for line in (corpus / "manifest.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {
            "split": SPLITS[number % 4],
            "valence": 1.0 + number / 4,
            "text": f'Satz "{number}", ä.',
            "style": "acted",
        }
        row |= {"gender": "female" if number % 2 else "male", "session": f"Ses {number % 2}"}
        if number % 2:
            first = {"rater": "ann", "emotion": row["emotion"], "secondary": ["fear"], "arousal": 2.0}
            row |= {"votes": [first, {"rater": "ben", "emotion": "joy", "count": 1}]}
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return import_as("manifest", corpus, folder / "pool", corpus="calls")


def export(pool: Pool, format: str, out: Path, **options: Any) -> Path:
    values = {"pool": pool.uri, "format": format, "out": str(out), **options}
    assert export_pool(parse(ExportOptions, values))["clips"] > 0
    return out


def facts(pool: Pool, *left_out: str) -> dict[str, dict[str, Any]]:
    """Hash of the samples -> all that a pool says of the clip, but for its id."""
    columns = ["utterance_id", "pcm_hash", *METADATA]
    rows = {row["utterance_id"]: row for shard in pool.shards for row in pool.read(shard, columns).to_pylist()}
    for table, schema in (("gold", GOLD), ("votes", VOTES)):
        for row in storage.read_tables([pool.table_uri(table, s) for s in pool.shards], schema).to_pylist():
            about = rows[row.pop("utterance_id")]
            if table == "votes":
                about.setdefault("votes", []).append(row)
            else:
                about |= row
    for row in rows.values():
        for name in ("utterance_id", *left_out):
            row.pop(name, None)
    return {row.pop("pcm_hash"): row for row in rows.values()}


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_comes_back(pool: Pool, tmp_path: Path, format: str) -> None:
    out = export(pool, format, tmp_path / "out")
    back = import_as(FORMATS[format].reader, out, tmp_path / "back")
    assert back.rows == 12
    before, after = facts(pool), facts(back)
    for rows in (before, after) if format == "audformat" else ():  # which has no column for further emotions
        for row in rows.values():
            row["votes"] = [vote | {"secondary": None} for vote in row.get("votes", [])]
    assert after == before


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_is_known_for_what_it_is(pool: Pool, tmp_path: Path, format: str) -> None:
    guessed = guess_corpus(GuessOptions(root=str(export(pool, format, tmp_path / "out"))))
    assert (guessed["reader"], guessed["audit"]["utterances"]) == (FORMATS[format].reader, 12)


def test_a_store_gets_what_a_disk_gets(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_disk = export(pool, "lhotse", tmp_path / "out")
    storage.copy_folder(pool.uri, tmp_path / "pool")  # a pool notes where it was exported to
    with s3_server() as door:
        use(door, monkeypatch)
        values = {"pool": str(tmp_path / "pool"), "format": "lhotse", "out": "s3://speech/export"}
        assert export_pool(parse(ExportOptions, values))["clips"] == 12
        storage.copy_folder("s3://speech/export", tmp_path / "down")
    assert tree(tmp_path / "down") == tree(on_disk)


@pytest.mark.parametrize("format", FORMATS)
def test_equal_pools_give_equal_bytes(pool: Pool, tmp_path: Path, format: str) -> None:
    first, second = export(pool, format, tmp_path / "1"), export(pool, format, tmp_path / "2")
    assert tree(first) == tree(second)
    export(pool, format, tmp_path / "2")
    with pytest.raises(StateError, match=r"something else at .*give another folder"):
        export(pool, format, tmp_path / "2", licence="CC0-1.0")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def read_hf(out: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    import datasets

    loaded = datasets.load_from_disk(str(out)).cast_column("audio", datasets.Audio(decode=False))
    assert set(loaded) == {"train", "validation", "test", "unsplit"}
    for split in loaded.values():
        for row in split:
            yield row["id"], row["audio"]["bytes"], row


def read_audiofolder(out: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Rows by the library; the audio by the paths, before the library would ask torchcodec and FFmpeg for it."""
    import datasets

    loaded = datasets.load_dataset(str(out), cache_dir=str(out.parent / "cache"), streaming=True)
    assert set(loaded) == {"train", "validation", "test", "unsplit"}
    for split in loaded.values():
        for _, row in split._ex_iterable:
            yield row["id"], Path(row["audio"]).read_bytes(), row


def read_webdataset(out: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    import webdataset

    for file in sorted(out.glob("*.tar")):
        with file.open("rb") as stream:
            for row in webdataset.tariterators.group_by_keys(
                webdataset.tariterators.tar_file_expander([{"url": str(file), "stream": stream}])
            ):
                yield row["__key__"], row["flac"], json.loads(row["json"])


def read_lhotse(out: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    from lhotse import CutSet

    for cut in CutSet.from_file(out / "cuts.jsonl.gz").with_recording_path_prefix(out):
        (supervision,) = cut.supervisions
        assert cut.load_audio().shape == (1, cut.recording.num_samples)
        about = supervision.custom | {"speaker": supervision.speaker, "text": supervision.text}
        yield cut.id, (out / cut.recording.sources[0].source).read_bytes(), about


def read_kaldi(out: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    import kaldiio

    for folder in sorted((out / "data").iterdir()):
        tables = {
            table: dict(line.split(maxsplit=1) for line in (folder / table).read_text().splitlines())
            for table in ("wav.scp", "utt2spk", "utt2emo", "text")
        }
        names = list(tables["wav.scp"])
        assert names == sorted(names) == list(tables["utt2spk"])
        for name, path in tables["wav.scp"].items():
            rate_hz, samples = kaldiio.load_mat(str(out / path))
            sf.write(buffer := io.BytesIO(), samples, rate_hz, format="FLAC")
            assert name.startswith(f"{tables['utt2spk'][name]}-")
            about = {
                "speaker": tables["utt2spk"][name],
                "emotion": tables["utt2emo"][name],
                "text": tables["text"][name],
            }
            yield name.removeprefix(f"{about['speaker']}-"), buffer.getvalue(), about


def read_audformat(out: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    import audformat

    database = audformat.Database.load(str(out))
    assert {"ann", "ben"} == set(database.raters)
    assert {"train", "dev", "test"} == set(database.splits)
    for table in database.tables:
        for file, row in database[table].get().iterrows():
            assert row.isna()["emotion.ben"] or row["emotion.ben"] == "joy"
            yield Path(str(file)).stem, (out / str(file)).read_bytes(), dict(row)


LIBRARIES = {
    "hf": read_hf,
    "audiofolder": read_audiofolder,
    "webdataset": read_webdataset,
    "lhotse": read_lhotse,
    "kaldi": read_kaldi,
    "audformat": read_audformat,
}


@pytest.mark.slow  # datasets and lhotse take many seconds to import
@pytest.mark.filterwarnings("ignore")  # of libraries, about their own
@pytest.mark.parametrize("format", FORMATS)
def test_the_library_opens_what_is_exported(pool: Pool, tmp_path: Path, format: str) -> None:
    stored = dict(pool.clips())
    gold = storage.read_tables([pool.table_uri("gold", s) for s in pool.shards], GOLD).to_pylist()
    emotion_of = {row["utterance_id"]: row["emotion"] for row in gold}
    speaker_of = dict(zip(*(pool.metadata[name].to_pylist() for name in ("utterance_id", "speaker")), strict=True))
    rows = [*LIBRARIES[format](export(pool, format, tmp_path / "out"))]
    assert sorted(name for name, _, _ in rows) == sorted(stored)
    for name, audio, about in rows:
        samples = [sf.read(io.BytesIO(data), dtype="int16")[0].tolist() for data in (audio, stored[name])]
        assert samples[0] == samples[1]
        assert (about["emotion"], about["speaker"]) == (emotion_of[name], speaker_of[name])


def test_labels_of_a_run_take_the_place_of_gold(pool: Pool, tmp_path: Path) -> None:
    ids = sorted(pool.ids["utterance_id"].to_pylist())
    for number, (name, emotion) in enumerate([(ids[0], "joy"), (ids[1], "fear"), (ids[0], "anger")]):
        table = pa.table({"utterance_id": [name], "emotion": [emotion], "answer": ["label"]})
        storage.write_table(tmp_path / f"run/round-{number}/labels.parquet", table)
    out = export(pool, "lhotse", tmp_path / "out", labels=str(tmp_path / "run"))
    lines = gzip.decompress((out / "supervisions.jsonl.gz").read_bytes()).splitlines()
    customs = {row["id"]: row["custom"] for row in map(json.loads, lines)}
    assert {name: about["emotion"] for name, about in customs.items() if "emotion" in about} == {
        ids[0]: "anger",
        ids[1]: "fear",
    }
    assert not any("votes" in about or "valence" in about for about in customs.values())
    with pytest.raises(LabelError, match="no labels at"):
        export(pool, "lhotse", tmp_path / "none", labels=str(tmp_path / "nothing"))
    with pytest.raises(OptionError, match="unknown format 'huggingface'; known: audformat, audiofolder, hf"):
        export(pool, "huggingface", tmp_path / "none")


@pytest.mark.parametrize("format", ["hf", "webdataset"])
def test_large_files_are_divided(pool: Pool, tmp_path: Path, format: str) -> None:
    out = export(pool, format, tmp_path / "out", shard_mb=0.05)
    files = [*out.rglob("*.arrow"), *out.rglob("*.tar")]
    assert len(files) > 4
    assert import_as(FORMATS[format].reader, out, tmp_path / "back").rows == 12


def test_what_was_erased_is_in_no_export(pool: Pool, tmp_path: Path) -> None:
    copy = tmp_path / "pool"
    storage.copy_folder(pool.uri, copy)
    speaker = sorted(pool.metadata["speaker"].unique().to_pylist())[0]
    erase(parse(EraseOptions, {"pool": str(copy), "speaker": f"calls/{speaker}"}))
    out = export(open_pool(str(copy)), "audiofolder", tmp_path / "out")
    rows = [row for table in sorted(out.rglob("*.parquet")) for row in pq.read_table(table).to_pylist()]
    assert 0 < len(rows) < 12
    assert speaker not in {row["speaker"] for row in rows}
    assert len([*out.rglob("*.flac")]) == len(rows)
