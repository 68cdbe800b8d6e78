from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from seral import storage
from seral.audio.decode import decode_flac
from seral.corpora import READERS
from seral.corpora.formats.manifest import read_manifest as read_corpus_manifest
from seral.corpora.reading.reader import Reader
from seral.corpora.reading.utterance import Utterance, Vote
from seral.errors import OptionError, PoolError, ReaderError
from seral.options import parse
from seral.pool.check import check_pool
from seral.pool.chunks import plan_chunks
from seral.pool.ingest import import_corpus, import_file, utterance_id
from seral.pool.listing import Listing, Source
from seral.pool.options import ImportOptions
from seral.pool.shards import MANIFEST, Pool, open_pool
from seral.schema import GOLD, UTTERANCE

MakeCorpus = Callable[..., Path]
Samples = Any

SOURCES = st.lists(
    st.tuples(st.sampled_from(["one", "two"]), st.text("abc/", min_size=1, max_size=4), st.integers(-1, 10_000)),
    max_size=80,
)


def source(corpus: str, name: str, size: int, **facts: Any) -> Source:
    path = Path("/anywhere") / f"{name}.wav"
    return Source(utterance=Utterance(audio=path, source=f"{name}.wav", corpus=corpus, name=name, **facts), size=size)


def planned(sources: Sequence[Source], **values: Any) -> list[tuple[str, list[Source]]]:
    """Names of the chunks and their files."""
    with Listing(sources) as listing:
        chunks = plan_chunks(listing, np.arange(len(sources)), **values)
        return [(chunk.name, [*map(listing.source, chunk.rows.tolist())]) for chunk in chunks]


def options(root: Path, out: Path, **values: Any) -> ImportOptions:
    return parse(ImportOptions, {"reader": "manifest", "root": str(root), "out": str(out)} | values)


def read(pool: Pool, table: str) -> list[dict[str, Any]]:
    tables = [storage.read_table(pool.table_uri(table, shard)) for shard in pool.shards]
    return [row for table in tables for row in table.to_pylist()]


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(listing=SOURCES, shard_bytes=st.integers(1, 30_000), order=st.randoms(use_true_random=False))
def test_chunks_depend_on_the_files_and_not_on_their_order(
    listing: list[tuple[str, str, int]], shard_bytes: int, order: random.Random
) -> None:
    sources = [source(*item) for item in listing]
    chunks = planned(sources, shard_bytes=shard_bytes)
    order.shuffle(sources)
    assert planned(sources, shard_bytes=shard_bytes) == chunks
    listed = [item for _, files in chunks for item in files]
    assert sorted(map(repr, listed)) == sorted(map(repr, sources)), "every file stands in one chunk"
    for _, files in chunks:
        assert len(files) == 1 or sum(max(item.size, 0) for item in files) <= shard_bytes


def test_segments_of_one_recording_share_shards() -> None:
    segments = [source("calls", "day", 10**9, start_s=10.0 * n, end_s=10.0 * n + 5) for n in range(100)]
    chunks = planned(segments, shard_bytes=50 * 5 * 32_000)
    assert [len(files) for _, files in chunks] == [33, 33, 33, 1]


def test_a_chunk_is_named_by_what_decides_its_rows() -> None:
    def name_of(*files: Source, salt: str = "") -> str:
        ((name, _),) = planned(files, shard_bytes=10**9, salt=salt)
        return name

    plain = source("one", "a", 10)
    elsewhere = replace(plain, utterance=replace(plain.utterance, audio=Path("/other/a.wav")))
    assert name_of(plain) == name_of(elsewhere), "the folder the corpus lies in does not matter"
    others = [source("one", "a", 11), source("one", "b", 10), source("one", "a", 10, emotion="anger")]
    names = {name_of(plain), name_of(plain, salt="5"), *map(name_of, others), name_of(plain, others[1])}
    assert len(names) == 6
    assert all(name.startswith("one-") for name in names)


def test_a_small_corpus_is_still_cut_for_several_cores() -> None:
    assert len(planned([source("one", f"{n:03d}", 100) for n in range(320)], shard_bytes=10**9)) == 8
    assert len(planned([source("one", f"{n:03d}", 100) for n in range(20)], shard_bytes=10**9)) == 1


@pytest.mark.parametrize(("suffix", "rate", "form"), [("wav", 48_000, {"subtype": "PCM_24"}), ("mp3", 16_000, {})])
def test_shards_have_their_size_whatever_the_files_are_like(
    tmp_path: Path, suffix: str, rate: int, form: dict[str, str]
) -> None:
    rng = np.random.default_rng(0)
    listed = []
    for n in range(120):
        seconds = rng.uniform(0.5, 1.5)
        wave_N2 = rng.normal(scale=0.05, size=(int(seconds * rate), 1)).repeat(2, axis=1)
        sf.write(path := tmp_path / f"{n:03d}.{suffix}", wave_N2, rate, **form)
        if n % 40 == 1:
            path.write_bytes(b"")
        utterance = Utterance(audio=path, source=path.name, corpus="one", name=path.stem)
        listed.append(Source(utterance=utterance, size=path.stat().st_size))
    chunks = planned(listed, shard_bytes=200_000)
    rows = [[import_file(s.utterance, voice=False) for s in files if s.size] for _, files in chunks]
    *whole, _ = [sum(len(row["audio"]) for row in shard) for shard in rows]
    assert len(whole) > 8
    assert 160_000 < np.mean(whole) < 220_000


def test_an_id_is_the_corpus_and_a_hash_and_never_the_name() -> None:
    name = utterance_id("emodb", "03a01Wa", "00ff")
    assert name == utterance_id("emodb", "03a01Wa", "00ff")
    assert name.startswith("emodb-")
    assert "03a01Wa" not in name
    assert len({name, utterance_id("nemo", "03a01Wa", "00ff"), utterance_id("emodb", "x", "00ff")}) == 3


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"reader": "emodbb"}, f"unknown reader 'emodbb'; known: {', '.join(sorted(READERS))}"),
        ({"reader": "emodb", "columns": {"emotion": "x"}}, "the reader 'emodb' has no option 'columns'; it takes: "),
        ({"reader_options": {"label": "x"}}, "the reader 'manifest' has no option 'label'; it takes: columns, corpus"),
    ],
)
def test_a_wrong_choice_is_named(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        import_corpus(options(tmp_path, tmp_path / "pool", **values))
    assert words in str(caught.value)
    assert not (tmp_path / "pool").exists()


def test_a_corpus_name_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="corpus"):
        options(tmp_path, tmp_path, corpus="a/b")


def test_a_folder_that_is_no_corpus_leaves_no_pool(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="no manifest"):
        import_corpus(options(tmp_path, tmp_path / "pool"))
    assert not (tmp_path / "pool").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
class TestImport:
    """A corpus through Ray into a pool on disk."""

    def test_the_channel_of_a_recording_is_chosen(self, tmp_path: Path, write_manifest: Callable[..., Path]) -> None:
        caller, clerk = (np.random.default_rng(seed).normal(0, 0.1, 8000) for seed in (0, 1))
        (tmp_path / "calls").mkdir()
        sf.write(tmp_path / "calls" / "call.wav", np.stack([caller, 0.5 * clerk], axis=1), 16_000)
        write_manifest(tmp_path / "calls", [{"id": "call", "audio": "call.wav"}])
        for channel, expected in {"auto": caller, "right": 0.5 * clerk, "mean": (caller + 0.5 * clerk) / 2}.items():
            import_corpus(options(tmp_path / "calls", tmp_path / channel, channel=channel, voice=False))
            (row,) = read(open_pool(str(tmp_path / channel)), "utterances")
            np.testing.assert_allclose(decode_flac(row["audio"]), expected, atol=1e-4)
            assert row["channel_fault"] == "apart"

    def test_every_file_becomes_a_row_and_the_gold_stays_apart(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        counts = import_corpus(options(make_corpus(tmp_path / "calls", 12), tmp_path / "pool"))
        assert (counts["files"], counts["utterances"], counts["quarantined"]) == (12, 12, 0)
        pool = open_pool(str(tmp_path / "pool"))
        rows = read(pool, "utterances")
        assert check_pool(pool.uri) == []
        assert set(rows[0]) == set(UTTERANCE.names)
        assert not set(rows[0]) & (set(GOLD.names) - {"utterance_id"}), "no label lives in the pool"
        assert {row["source"] for row in rows} == {f"audio/clip{n:04d}.flac" for n in range(12)}
        for row in rows:
            assert (row["corpus"], row["language"], row["source_rate_hz"]) == ("calls", "en", 16_000)
            assert row["source_bytes"] == (tmp_path / "calls" / row["source"]).stat().st_size
            assert 0 < row["speech_ratio"] < 1
            assert row["voice_ratio"] > 0.5
            assert row["quality"] > 0.5
            assert "clip" not in row["utterance_id"]
        gold = {row["utterance_id"]: row["emotion"] for row in read(pool, "gold")}
        manifest = map(json.loads, (tmp_path / "calls" / "manifest.jsonl").read_text().splitlines())
        emotion_of = {row["audio"]: row["emotion"] for row in manifest}
        assert {row["source"]: gold[row["utterance_id"]] for row in rows} == emotion_of

    def test_again_changes_nothing(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        settings = options(make_corpus(tmp_path / "calls", 6), tmp_path / "pool")
        import_corpus(settings)
        before = files_below(tmp_path / "pool")
        counts = import_corpus(settings)
        assert (counts["files"], counts["already_there"], counts["pool_utterances"]) == (0, 6, 6)
        assert files_below(tmp_path / "pool") == before

    def test_the_pool_depends_on_the_files_alone(
        self, tmp_path: Path, make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another folder, another working directory and a relative address give the same bytes."""
        import_corpus(options(make_corpus(tmp_path / "here" / "calls", 6), tmp_path / "pool"))
        make_corpus(tmp_path / "there" / "calls", 6)
        monkeypatch.chdir(tmp_path / "there")
        import_corpus(options(Path("calls"), Path("pool")))
        assert files_below(tmp_path / "there" / "pool") == files_below(tmp_path / "pool")

    def test_two_corpora_share_a_pool(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        import_corpus(options(make_corpus(tmp_path / "calls", 5, seed=1), tmp_path / "pool"))
        first = set(open_pool(str(tmp_path / "pool")).metadata["utterance_id"].to_pylist())
        counts = import_corpus(options(make_corpus(tmp_path / "radio", 4, seed=2), tmp_path / "pool"))
        assert (counts["utterances"], counts["pool_utterances"]) == (4, 9)
        pool = open_pool(str(tmp_path / "pool"))
        assert first < set(pool.metadata["utterance_id"].to_pylist())
        assert set(pool.metadata["corpus"].to_pylist()) == {"calls", "radio"}
        assert check_pool(pool.uri) == []

    def test_files_added_later_are_the_only_ones_imported(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        import_corpus(options(make_corpus(tmp_path / "calls", 5), tmp_path / "pool"))
        before = files_below(tmp_path / "pool")
        counts = import_corpus(options(make_corpus(tmp_path / "calls", 8), tmp_path / "pool"))
        assert (counts["files"], counts["already_there"], counts["pool_utterances"]) == (3, 5, 8)
        after = files_below(tmp_path / "pool")
        assert {name: after[name] for name in before if name != MANIFEST} == {
            name: data for name, data in before.items() if name != MANIFEST
        }
        assert check_pool(str(tmp_path / "pool")) == []

    def test_files_a_reader_cannot_place_are_listed_once(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        audio = make_corpus(tmp_path / "calls", 4) / "audio"
        root = tmp_path / "emodb"
        root.mkdir()
        for number, name in enumerate(["03a01Wa", "03a02Nc", "holiday"]):
            shutil.copy(audio / f"clip{number:04d}.flac", root / f"{name}.flac")
        settings = options(root, tmp_path / "pool", reader="emodb")
        assert import_corpus(settings)["reasons"] == {"unreadable-name": 1}
        before = files_below(tmp_path / "pool")
        import_corpus(settings)
        assert files_below(tmp_path / "pool") == before
        shutil.copy(audio / "clip0003.flac", root / "birthday.flac")
        import_corpus(settings)
        pool = open_pool(str(tmp_path / "pool"))
        assert pool.quarantine["source"].to_pylist() == ["birthday.flac", "holiday.flac"]
        assert pool.rows == 2

    def test_the_same_audio_counts_once(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        """Under another name it is marked; under the same name in another folder it is set aside."""
        root = make_corpus(tmp_path / "day.1", 6)
        (root / "copy").mkdir()
        shutil.copy(root / "audio" / "clip0000.flac", root / "copy" / "renamed.flac")
        shutil.copy(root / "audio" / "clip0001.flac", root / "copy" / "clip0001.flac")
        samples, rate = sf.read(root / "audio" / "clip0002.flac", dtype="int16")
        sf.write(root / "copy" / "container.wav", samples, rate)
        rows = [json.loads(line) for line in (root / "manifest.jsonl").read_text().splitlines()]
        rows += [{"id": Path(name).stem, "audio": f"copy/{name}"} for name in sorted(os.listdir(root / "copy"))]
        (root / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = options(root, tmp_path / "pool", shard_mb=0.015)
        counts = import_corpus(settings)
        assert (counts["pool_utterances"], counts["pool_duplicates"]) == (8, 2)
        pool = open_pool(str(tmp_path / "pool"))
        assert len(pool.shards) > 2, "the copies and their originals stand in several shards"
        assert check_pool(pool.uri) == []
        stored = {row["source"]: row for row in read(pool, "utterances")}
        for one, other in (("clip0000", "renamed.flac"), ("clip0002", "container.wav")):
            pair = [stored[f"audio/{one}.flac"], stored[f"copy/{other}"]]
            counting = min(row["utterance_id"] for row in pair)
            assert [row["duplicate_of"] for row in pair if row["utterance_id"] != counting] == [counting]
        repeated = pool.quarantine.to_pylist()
        assert [(row["source"], row["reason"]) for row in repeated] == [("copy/clip0001.flac", "repeated")]
        assert stored["audio/clip0001.flac"]["utterance_id"] in repeated[0]["detail"]
        assert len(read(pool, "gold")) == 8
        before = files_below(tmp_path / "pool")
        import_corpus(settings)
        assert files_below(tmp_path / "pool") == before

    def test_a_duplicate_across_imports_is_marked(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        import_corpus(options(make_corpus(tmp_path / "calls", 3, seed=1), tmp_path / "pool"))
        counts = import_corpus(options(make_corpus(tmp_path / "radio", 3, seed=1), tmp_path / "pool"))
        assert (counts["pool_utterances"], counts["pool_duplicates"]) == (6, 3)
        pool = open_pool(str(tmp_path / "pool"))
        marks = {row["utterance_id"]: row["duplicate_of"] for row in pool.metadata.to_pylist()}
        assert all(mark is None or marks[mark] is None for mark in marks.values())
        assert check_pool(pool.uri) == []

    def test_votes_follow_their_utterance(
        self, tmp_path: Path, make_corpus: MakeCorpus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Votes stay with their utterance when a repeated row is dropped, and reach no other."""
        votes = (
            Vote(rater="w1", emotion="anger", secondary=("fear", "sad"), arousal=4.0),
            Vote(emotion="sad", count=3),
        )

        def voted(root: Path) -> list[Utterance]:
            utterances = [item for item in read_corpus_manifest(root) if isinstance(item, Utterance)]
            return [replace(item, votes=votes if number else ()) for number, item in enumerate(utterances)]

        monkeypatch.setitem(READERS, "manifest", Reader(voted))
        root = make_corpus(tmp_path / "calls", 3)
        (root / "copy").mkdir()
        shutil.copy(root / "audio" / "clip0001.flac", root / "copy" / "clip0001.flac")
        with (root / "manifest.jsonl").open("a") as file:
            file.write(json.dumps({"audio": "copy/clip0001.flac", "id": "clip0001", "speaker": "s"}) + "\n")
        import_corpus(options(root, tmp_path / "pool"))
        pool = open_pool(str(tmp_path / "pool"))
        stored = read(pool, "votes")
        ids = {row["source"]: row["utterance_id"] for row in read(pool, "utterances")}
        assert len(ids) == 3
        assert [row["reason"] for row in pool.quarantine.to_pylist()] == ["repeated"]
        assert {row["utterance_id"] for row in stored} == {ids["audio/clip0001.flac"], ids["audio/clip0002.flac"]}
        one = [row for row in stored if row["utterance_id"] == ids["audio/clip0002.flac"]]
        assert one[0]["secondary"] == ["fear", "sad"]
        assert [(row["rater"], row["emotion"], row["arousal"], row["count"]) for row in one] == [
            ("w1", "anger", 4.0, 1),
            (None, "sad", None, 3),
        ]

    def test_too_many_bad_files_stop_the_import_and_keep_the_work(
        self, tmp_path: Path, make_corpus: MakeCorpus
    ) -> None:
        root = make_corpus(tmp_path / "calls", 4)
        for number in range(3):
            (root / "audio" / f"clip{number:04d}.flac").write_bytes(b"")
        with pytest.raises(PoolError, match=r"3 of 4 files are bad.*0\.5.*clip0000\.flac: empty"):
            import_corpus(options(root, tmp_path / "pool"))
        assert not (tmp_path / "pool" / MANIFEST).exists()
        counts = import_corpus(options(root, tmp_path / "pool", max_bad_share=0.8))
        assert (counts["utterances"], counts["reasons"]) == (1, {"empty": 3})

    def test_a_second_try_with_other_columns_starts_over(self, tmp_path: Path, make_corpus: MakeCorpus) -> None:
        """Shards that an abandoned import left behind are not taken for those of other options."""
        root = make_corpus(tmp_path / "calls", 4)
        settings = {"max_bad_share": 0.0}
        (root / "audio" / "clip0003.flac").write_bytes(b"")
        with pytest.raises(PoolError, match="1 of 4"):
            import_corpus(options(root, tmp_path / "pool", columns={"emotion": ""}, **settings))
        import_corpus(options(root, tmp_path / "pool"))
        gold = read(open_pool(str(tmp_path / "pool")), "gold")
        assert sorted(row["emotion"] for row in gold) == ["anger", "happiness", "neutral"]

    def test_a_hundred_good_files_among_twenty_bad_ones(
        self, tmp_path: Path, make_corpus: MakeCorpus, speech: Callable[[float, int], Samples]
    ) -> None:
        root = make_corpus(tmp_path / "calls", 100, seconds=(0.2, 0.4))
        expected = ruin(root, speech(1.0, 7))
        assert len(expected) == 20
        assert len(set(expected.values())) >= 10
        listed = [{"id": name, "audio": name.partition("#")[0]} for name in sorted(expected)]
        listed = [row | ({"start_s": 3.0, "end_s": 4.0} if "#" in row["id"] else {}) for row in listed]
        with (root / "manifest.jsonl").open("a") as lines:
            lines.writelines(json.dumps(row) + "\n" for row in listed)
        counts = import_corpus(options(root, tmp_path / "pool", max_duration_s=5.0, shard_mb=0.1))
        assert (counts["files"], counts["utterances"], counts["quarantined"]) == (120, 100, 20)
        pool = open_pool(str(tmp_path / "pool"))
        assert pool.rows == 100
        assert {row["source"] for row in read(pool, "utterances")} == {f"audio/clip{n:04d}.flac" for n in range(100)}
        assert {row["source"]: row["reason"] for row in pool.quarantine.to_pylist()} == expected
        assert all(row["detail"] for row in pool.quarantine.to_pylist())
        assert check_pool(pool.uri) == []


def ruin(root: Path, samples: Samples) -> dict[str, str]:
    """Write bad files beside the good ones; source -> the reason expected in quarantine."""
    bad = root / "bad"
    bad.mkdir()
    sf.write(bad / "whole.wav", samples, 16_000)
    sf.write(bad / "whole.flac", samples, 16_000)
    wav, flac = (bad / "whole.wav").read_bytes(), (bad / "whole.flac").read_bytes()
    with_nan, with_inf = samples.copy(), samples.copy()
    with_nan[100], with_inf[-1] = np.nan, np.inf
    no_frames = wav[:40] + struct.pack("<I", 0)
    written = {
        "empty.wav": (b"", "empty"),
        "empty.flac": (b"", "empty"),
        "notes.wav": (b"Speaker 3 coughed twice.\n" * 20, "not-audio"),
        "page.flac": (b"<!DOCTYPE html><title>404 Not Found</title>", "not-audio"),
        "head.wav": (wav[:20], "not-audio"),
        "video.wav": (b"\0\0\0\x18ftypmp42" + bytes(400), "not-audio"),
        "cut.wav": (wav[: len(wav) // 2], "truncated"),
        "cut.flac": (flac[: len(flac) // 2], "truncated"),
        "stub.flac": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
            "lfs-stub",
        ),
        "no-frames.wav": (no_frames, "no-frames"),
    }
    for name, (data, _) in written.items():
        (bad / name).write_bytes(data)
    sounds = {
        "nan.wav": (with_nan, "not-finite"),
        "infinite.wav": (with_inf, "not-finite"),
        "integers.wav": (samples * 32768, "out-of-range"),
        "silent.wav": (np.zeros(16_000, np.float32), "silent"),
        "offset.wav": (np.full(16_000, 0.25, np.float32), "silent"),
        "tape.wav": (np.tile(samples, 6), "too-long"),
        "click.wav": (samples[:800], "too-short"),
    }
    for name, (content, _) in sounds.items():
        sf.write(bad / name, content, 16_000, subtype="FLOAT")
    (bad / "folder.wav").mkdir()
    reasons = {name: reason for name, (_, reason) in (written | sounds).items()}
    reasons |= {"folder.wav": "unreadable", "never-downloaded.wav": "missing", "whole.wav#3.000-4.000": "bad-segment"}
    return {f"bad/{name}": reason for name, reason in reasons.items()}
