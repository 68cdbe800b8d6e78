"""Files that are small and become large, or whose headers claim what is not there: named, in bounded memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from seral.audio.decode import BadAudio, decode
from seral.corpora.options import CorpusOptions, read_corpus
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import PoolError, ReaderError

MOST_MB = 1000
"""Memory of a process that reads any of these files."""
# Not ru_maxrss: a process starts with that of the one that started it.
MEASURED = r"""
import re, sys
from pathlib import Path
from seral.audio.decode import BadAudio, decode
from seral.corpora.options import CorpusOptions, read_corpus
if sys.argv[1] == "decode":
    try:
        decode(Path(sys.argv[2]))
    except BadAudio as error:
        print(error.reason)
else:
    options = CorpusOptions(reader=sys.argv[1], root=sys.argv[2])
    print(*(getattr(item, "reason", "fine") for item in read_corpus(options)))
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1000)
"""


def measured(how: str, file: Path) -> tuple[str, int]:
    """Outcome of reading a file in a process of its own, and the memory that took, in MB."""
    done = subprocess.run([sys.executable, "-c", MEASURED, how, str(file)], capture_output=True, text=True, check=True)
    outcome, memory = done.stdout.splitlines()
    return outcome, int(memory)


def wav_header(channels: int, frames: int) -> bytes:
    size = 2 * channels * frames
    form = struct.pack("<HHIIHH", 1, channels, 16_000, 2 * channels * 16_000, 2 * channels, 16)
    chunks = [b"RIFF", struct.pack("<I", 36 + size), b"WAVEfmt ", struct.pack("<I", 16), form]
    return b"".join([*chunks, b"data", struct.pack("<I", size)])


@pytest.mark.slow
def test_a_flac_of_silence_in_eight_channels(tmp_path: Path) -> None:
    with sf.SoundFile(tmp_path / "a.flac", "w", samplerate=384_000, channels=8, subtype="PCM_16") as file:
        for _ in range(40):
            file.write(np.zeros((384_000, 8), np.int16))
    assert (tmp_path / "a.flac").stat().st_size < 1_000_000
    outcome, memory = measured("decode", tmp_path / "a.flac")
    assert outcome == "too-large"
    assert memory < MOST_MB


@pytest.mark.slow
def test_a_header_of_a_thousand_channels(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_header(1024, 16_000 * 50) + bytes(100_000))
    outcome, memory = measured("decode", tmp_path / "a.wav")
    assert outcome == "too-large"
    assert memory < MOST_MB


@pytest.mark.slow
def test_memory_grows_with_what_is_there_and_not_with_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav_header(32, 16_000 * 59) + bytes(100_000))
    outcome, memory = measured("decode", tmp_path / "a.wav")
    assert outcome == "truncated"
    assert memory < MOST_MB


@pytest.mark.slow
def test_a_sparse_member_of_a_tar(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(8 << 30)
    sf.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    pack = ["tar", "--sparse", "--directory", str(tmp_path), "-cf", str(tmp_path / "a.tar"), "a.wav", "a.json"]
    subprocess.run(pack, check=True)
    assert (tmp_path / "a.tar").stat().st_size < 100_000
    outcome, memory = measured("webdataset", tmp_path / "a.tar")
    assert outcome == "bad-text"
    assert memory < MOST_MB


def jsonl(folder: Path, line: str) -> Path:
    (folder / "manifest.jsonl").write_text(line + "\n")
    return folder / "manifest.jsonl"


MANIFESTS: dict[str, tuple[str, str]] = {
    "nested": ("manifest.jsonl", '{"audio": "a.wav", "extra": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "deep": ("manifest.jsonl", '{"audio": "a.wav", "extra": ' + "[" * 100 + "]" * 100 + "}"),
    "number": ("manifest.jsonl", '{"audio": "a.wav", "start": ' + "9" * 5000 + "}"),
    "nested json": ("manifest.json", "[" * 100_000),
    "field": ("manifest.csv", "audio,text\na.wav," + "x" * 200_000),
    "line": ("manifest.jsonl", '{"audio": "' + "x" * 17_000_000 + '"}'),
    "header": ("manifest.csv", "x" * 200_000 + "\n1"),
    "latin": ("manifest.jsonl", '{"audio": "\udcff.wav"}'),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_end_in_a_sentence_that_names_them(name: str, tmp_path: Path) -> None:
    file, text = MANIFESTS[name]
    (tmp_path / file).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ReaderError, match=file):
        list(read_corpus(CorpusOptions(reader="manifest", root=str(tmp_path / file))))


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.wav", "x/../../a.wav", "link.wav", "s3://b/a.wav"])
def test_paths_that_lead_out_are_left_out(path: str, tmp_path: Path) -> None:
    (tmp_path / "corpus/x").mkdir(parents=True)
    sf.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    (tmp_path / "corpus/link.wav").symlink_to(tmp_path / "a.wav")
    file = jsonl(tmp_path / "corpus", json.dumps({"audio": path}))
    (item,) = read_corpus(CorpusOptions(reader="manifest", root=str(file)))
    assert isinstance(item, Skipped)
    assert item.reason == "outside"
    assert "--allow-outside" in item.detail
    (item,) = read_corpus(CorpusOptions(reader="manifest", root=str(file), allow_outside=True))
    assert isinstance(item, Utterance)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_path_with_a_nul_is_none(allowed: bool, tmp_path: Path) -> None:
    file = jsonl(tmp_path, json.dumps({"audio": "a\0b.wav"}))
    (item,) = read_corpus(CorpusOptions(reader="manifest", root=str(file), allow_outside=allowed))
    assert isinstance(item, Skipped)
    assert item.reason == "unreadable-name"


@pytest.mark.parametrize("linked", [False, True])
def test_links_inside_the_folder_are_fine(linked: bool, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    sf.write(corpus / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    (corpus / "link.wav").symlink_to(corpus / "a.wav")
    (tmp_path / "way").symlink_to(corpus)
    file = jsonl(corpus, json.dumps({"audio": "link.wav"}))
    (item,) = read_corpus(
        CorpusOptions(reader="manifest", root=str(tmp_path / "way/manifest.jsonl" if linked else file))
    )
    assert isinstance(item, Utterance)


@pytest.mark.parametrize("name", ["../a", "a/b", ".a", "a\nb", "a\\b", "x" * 300, ""])
def test_corpora_with_names_that_are_paths_are_refused(name: str, tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    file = jsonl(tmp_path, json.dumps({"audio": "a.wav", "corpus": name or "/"}))
    with pytest.raises(PoolError, match="name has no"):
        list(read_corpus(CorpusOptions(reader="manifest", root=str(file))))


HEADS: dict[str, bytes] = {
    "wav": wav_header(1, 16_000),
    "flac": b"fLaC\0\0\0\x22",
    "ogg": b"OggS\0\x02" + bytes(8),
    "mp3": b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64",
    "m4a": b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0",
    "aac": b"\xff\xf1\x50\x80",
    "webm": b"\x1aE\xdf\xa3\x9fB\x86\x81\x01",
    "amr": b"#!AMR\n",
    "wma": bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_whatever_a_decoder_makes_of_noise_has_a_name(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(40):
        file = tmp_path / f"{number}.{kind}"
        file.write_bytes(HEADS[kind][: rng.integers(4, 60)] + rng.bytes(int(rng.integers(0, 5000))))
        with suppress(BadAudio):
            decode(file)
    assert "Traceback" not in capfd.readouterr().err


def test_a_header_that_sends_libsndfile_before_the_beginning_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sf.write(tmp_path / "a.aiff", np.zeros(8000), 8000)
    whole = (tmp_path / "a.aiff").read_bytes()
    (tmp_path / "a.aiff").write_bytes(whole.replace(b"SSND", b"\xff\xff\xff\x7f"))
    with suppress(BadAudio):
        decode(tmp_path / "a.aiff")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["m4a", "aac", "webm"])
def test_files_of_other_codecs_with_broken_bytes_have_a_name(
    kind: str, tmp_path: Path, speech: Callable[[float, int], np.ndarray]
) -> None:
    av = pytest.importorskip("av")
    codec = {"m4a": "aac", "aac": "aac", "webm": "libopus"}[kind]
    rate = 48_000
    with av.open(str(tmp_path / f"a.{kind}"), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.repeat(speech(1.0, 0), 3)[None], format="flt", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            out.mux(packet)
    data, rng = (tmp_path / f"a.{kind}").read_bytes(), np.random.default_rng(0)
    for number in range(60):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), int(rng.integers(1, 40))):
            broken[at] = int(rng.integers(256))
        file = tmp_path / f"{number}.{kind}"
        file.write_bytes(broken)
        with suppress(BadAudio):  # and nothing else is raised
            decode(file)
