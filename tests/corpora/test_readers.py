from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from corpus_layouts import containers, crema_d, iemocap, meld, msp_improv, podcast, toolkits

from seral.audio.quality import REASONS
from seral.corpora import READERS
from seral.corpora.formats.manifest import read_manifest
from seral.corpora.reading.fields import ALIASES
from seral.corpora.reading.utterance import Skipped, Utterance, Vote
from seral.errors import ReaderError

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "corpora"


def audio(path: Path) -> Path:
    """A tenth of a second of noise, whatever the case of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.1, 1_600)
    sf.write(path, samples, 16_000, format=path.suffix[1:].upper())
    return path


def manifest_jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _only_files(root: Path) -> None:
    del root


def _nemo_sentences(root: Path) -> None:
    (root / "data.tsv").write_text("file_id\temotion\traw_text\nEB0_anger_1\tanger\tTak.\n")


def _esd_sentences(root: Path) -> None:
    (root / "0011.txt").write_bytes("0011_000351\tThe nine, the eggs.\tAngry\n".encode("utf-16"))
    (root / "0002.txt").write_bytes("0002_001750\t打远一看。\t惊喜\n".encode("gb2312"))


def _shemo_sentences(root: Path) -> None:
    rows = [{"id": "F03S02", "gender": "female", "emotion": "sad", "transcript": "\ufeffسلام."}]
    (root / "shemo.json").write_text(json.dumps(rows))


def _arctic_sentences(root: Path) -> None:
    (root / "cmuarctic.data").write_text('( arctic_a0001 "Author of the danger trail." )\n( arctic_b0001 "No." )\n')


def _jl_prompt(root: Path) -> None:
    (root / "female1_angry_10a_1.txt").write_text("Tom beats that farmer\n")


def _small_manifest(root: Path) -> None:
    rows = [
        {"id": "u1", "audio": "audio/u1.flac", "speaker": "s1", "emotion": "anger", "language": "en", "text": "Hello."},
        {"id": "u2", "audio": "audio/u2.flac", "speaker": "s2", "emotion": None, "language": "en", "text": None},
    ]
    manifest_jsonl(root / "manifest.jsonl", rows)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A tiny tree laid out like the corpus, and what its first utterance (by source) must be."""

    files: tuple[str, ...]
    first: dict[str, object]
    utterances: int
    unreadable: int = 0
    """Files whose name says nothing, and second copies of a file."""
    left_out: dict[str, int] = field(default_factory=dict)
    """Other reasons from REASONS, and how often each."""
    prepare: Callable[[Path], None] = _only_files
    """Writes what stands beside the audio, label files for example; may add audio of its own."""
    speakers: int | None = None
    """Number of speakers where the corpus names every one; None = it does not."""
    any_tree: bool = True
    """The names say where a file belongs, so that flat and nested trees are the same corpus."""


LAYOUTS: dict[str, Layout] = {
    "ravdess": Layout(
        files=(
            "Actor_01/03-01-05-02-02-01-01.wav",
            "Actor_02/03-01-01-01-01-02-02.WAV",
            "03-01-08-01-01-01-24.flac",
            "Actor_01/03-02-05-02-02-01-01.wav",  # song
            "Actor_01/01-01-05-02-02-01-01.wav",  # video
            "Actor_01/03-01-09-02-02-01-01.wav",
            "notes.wav",
        ),
        first={
            "source": "03-01-08-01-01-01-24.flac",
            "speaker": "Actor_24",
            "emotion": "surprised",
            "text": "Kids are talking by the door",
            "language": "en",
            "style": "acted",
        },
        utterances=3,
        speakers=3,
        unreadable=2,
    ),
    "emodb": Layout(
        files=("wav/03a01Fa.wav", "wav/16b10Wb.wav", "wav/08a02Ac.flac", "wav/03a01Xa.wav", "wav/._03a01Fa.wav"),
        first={
            "source": "wav/03a01Fa.wav",
            "speaker": "03",
            "emotion": "happiness",
            "text": "Der Lappen liegt auf dem Eisschrank.",
            "language": "de",
            "style": "acted",
        },
        utterances=3,
        speakers=3,
        unreadable=1,
    ),
    "nemo": Layout(
        files=("samples/MK0_sadness_23.wav", "samples/EB0_anger_1.wav", "samples/MK0_joy_23.wav"),
        first={"source": "samples/EB0_anger_1.wav", "speaker": "EB0", "emotion": "anger", "text": "Tak."},
        utterances=2,
        speakers=2,
        unreadable=1,
        prepare=_nemo_sentences,
    ),
    "urdu": Layout(
        files=("Angry/SM1_F10_A010.wav", "Sad/SF11_F1_S03.wav", "SM20_F6_N010.wav", "Angry/take2.wav"),
        first={"source": "Angry/SM1_F10_A010.wav", "speaker": "SM1", "emotion": "Angry", "style": "natural"},
        utterances=3,
        speakers=3,
        unreadable=1,
    ),
    "savee": Layout(
        files=("AudioData/DC/a01.wav", "AudioData/DC/sa15.wav", "JE_su03.wav", "AudioData/KL/x01.wav", "notes.wav"),
        first={
            "source": "AudioData/DC/a01.wav",
            "name": "DC_a01",
            "speaker": "DC",
            "gender": "male",
            "emotion": "anger",
        },
        utterances=3,
        speakers=2,
        unreadable=2,
        any_tree=False,
    ),
    "tess": Layout(
        files=(
            "OAF_Pleasant_surprise/OAF_back_ps.wav",
            "OAF_neutral/OA_bite_neutral.wav",
            "TESS/OAF_neutral/OA_bite_neutral.wav",  # the set lies in its own copy once more
            "TESS/OAF_Pleasant_surprise/OAF_back_ps.wav",
            "YAF_fear/yaf_home_fear.WAV",
            "YAF_fear/YAF_fear.wav",
        ),
        first={
            "source": "OAF_Pleasant_surprise/OAF_back_ps.wav",
            "speaker": "OAF",
            "gender": "female",
            "emotion": "surprise",
            "text": "Say the word back",
        },
        utterances=3,
        speakers=2,
        unreadable=3,
    ),
    "esd": Layout(
        files=(
            "0002/Surprise/test/0002_001750.wav",
            "0011/Angry/train/0011_000351.wav",
            "0011/Neutral/evaluation/0011_000350.wav",
            "0012/0012_000001.wav",
            "0011/Sad/train/0011_000000.wav",
            "0011/Sad/train/0011_001751.wav",
        ),
        first={
            "source": "0002/Surprise/test/0002_001750.wav",
            "speaker": "0002",
            "gender": "female",
            "language": "zh",
            "text": "打远一看。",
            "split": "test",
            "emotion": "Surprise",
        },
        utterances=4,
        speakers=3,
        unreadable=2,
        prepare=_esd_sentences,
        any_tree=False,
    ),
    "shemo": Layout(
        files=("female/F03S02.wav", "male/M02F01.wav", "male/M02X01.wav"),
        first={
            "source": "female/F03S02.wav",
            "speaker": "F03",
            "gender": "female",
            "language": "fa",
            "text": "سلام.",
            "emotion": "sadness",
        },
        utterances=2,
        speakers=2,
        unreadable=1,
        prepare=_shemo_sentences,
    ),
    "emov-db": Layout(
        files=(
            "bea/Amused/amused_1-15_0001.wav",
            "sam/Amused/amused_1-15_0001.wav",
            "josh_Sleepy/sleepiness_141_168_0141.wav",
            "sam/Angry/rage_1-15_0001.wav",
        ),
        first={
            "source": "bea/Amused/amused_1-15_0001.wav",
            "name": "bea_amused_1-15_0001",
            "speaker": "bea",
            "gender": "female",
            "text": "Author of the danger trail.",
            "emotion": "amused",
        },
        utterances=3,
        speakers=3,
        unreadable=1,
        prepare=_arctic_sentences,
        any_tree=False,
    ),
    "emovo": Layout(
        files=("EMOVO/f1/gio-f1-b1.wav", "EMOVO/m3/dis-m3-d2.wav", "EMOVO/m3/dis-m4-d2.wav"),
        first={
            "source": "EMOVO/f1/gio-f1-b1.wav",
            "speaker": "f1",
            "gender": "female",
            "language": "it",
            "text": "Gli operai si alzano presto.",
            "emotion": "joy",
        },
        utterances=2,
        speakers=2,
        unreadable=1,
    ),
    "subesco": Layout(
        files=("F_02_MONIKA_S_1_NEUTRAL_5.wav", "M_02_RASEL_S_10_ANGRY_1.wav", "M_02_RASEL_S_10_ANGER_1.wav"),
        first={
            "source": "F_02_MONIKA_S_1_NEUTRAL_5.wav",
            "speaker": "F_02",
            "gender": "female",
            "language": "bn",
            "emotion": "neutral",
        },
        utterances=2,
        speakers=2,
        unreadable=1,
    ),
    "aesdd": Layout(
        files=("anger/a06 (5)b.wav", "anger/a06 (5).wav", "disgust/d03 (01).wav", "fear/f01 (1).wav", "fear/f01.wav"),
        first={"source": "anger/a06 (5).wav", "speaker": "5", "gender": None, "language": "el", "emotion": "anger"},
        utterances=4,
        speakers=2,
        unreadable=1,
    ),
    "jl": Layout(
        files=(
            "Raw JL corpus/JL(wav+txt)/female1_angry_10a_1.wav",
            "Raw JL corpus/JL(wav+txt)/male2_encouraging_9b_2.wav",
            "raw jl corpus/JL(wav+txt)/male2_encouraging_9b_2.wav",
            "Raw JL corpus/JL(wav+txt)/male3_sad_1a_1.wav",
        ),
        first={
            "source": "Raw JL corpus/JL(wav+txt)/female1_angry_10a_1.wav",
            "speaker": "female1",
            "gender": "female",
            "session": "a",
            "text": "Tom beats that farmer",
            "emotion": "angry",
        },
        utterances=2,
        speakers=2,
        unreadable=2,
        prepare=_jl_prompt,
    ),
    "cafe": Layout(
        files=("Colère/Faible/01-C-1-1.aiff", "Neutre/02-N-1-6.wav", "Neutre/13-N-1-6.wav"),
        first={
            "source": "Colère/Faible/01-C-1-1.aiff",
            "speaker": "01",
            "gender": "male",
            "language": "fr",
            "text": "Un cheval fou dans mon jardin",
            "emotion": "anger",
        },
        utterances=2,
        speakers=2,
        unreadable=1,
    ),
    "iemocap": Layout(
        files=iemocap.AUDIO,
        first={
            "name": "Ses01F_impro01_F000",
            "speaker": "Ses01F",
            "gender": "female",
            "session": "Ses01",
            "style": "elicited",
            "text": "Excuse me.",
            "emotion": "neutral",
            "split": None,
        },
        utterances=3,
        speakers=3,
        unreadable=1,
        left_out={"no-label": 1, "no-audio": 1},
        prepare=iemocap.write,
    ),
    "crema-d": Layout(
        files=crema_d.AUDIO,
        first={
            "name": "1001_IEO_ANG_HI",
            "speaker": "1001",
            "gender": "male",
            "style": "acted",
            "text": "It's eleven o'clock.",
            "emotion": "anger",
            "votes": (Vote(emotion="anger", count=6), Vote(emotion="neutral", count=3)),
        },
        utterances=3,
        speakers=3,
        unreadable=1,
        left_out={"no-audio": 1},
        prepare=crema_d.write,
    ),
    "msp-podcast": Layout(
        files=podcast.AUDIO,
        first={
            "name": "MSP-PODCAST_0001_0008",
            "speaker": "127",
            "gender": "female",
            "session": "0001",
            "split": "train",
            "text": "So, um, yeah.",
            "emotion": "neutral",
            "valence": 4.0,
        },
        utterances=4,
        unreadable=1,
        left_out={"no-label": 1, "no-audio": 1},
        prepare=podcast.write,
    ),
    "biic-podcast": Layout(
        files=podcast.BIIC_AUDIO,
        first={
            "name": "BIIC-PODCAST_1000_0321_0003",
            "speaker": "s1",
            "session": "1000_0321",
            "language": "zh",
            "split": "train",
            "emotion": "angry",
        },
        utterances=2,
        speakers=2,
        prepare=podcast.write_biic,
    ),
    "msp-improv": Layout(
        files=msp_improv.AUDIO,
        first={
            "name": "MSP-IMPROV-S01A-F01-P-FM01",
            "speaker": "F01",
            "gender": "female",
            "session": "01",
            "style": "natural",
            "text": "How are you?",
            "emotion": "neutral",
        },
        utterances=3,
        speakers=3,
        unreadable=1,
        left_out={"no-label": 1, "no-audio": 1},
        prepare=msp_improv.write,
    ),
    "meld": Layout(
        files=meld.AUDIO,
        first={"name": "dev_dia0_utt0", "speaker": None, "session": "s10e24", "split": "dev", "emotion": "joy"},
        utterances=3,
        unreadable=1,
        left_out={"no-label": 1, "no-audio": 1, "known-bad": 1},
        prepare=meld.write,
        any_tree=False,
    ),
    "manifest": Layout(
        files=("audio/u1.flac", "audio/u2.flac"),
        first={"source": "audio/u1.flac", "name": "u1", "speaker": "s1", "emotion": "anger", "text": "Hello."},
        utterances=2,
        speakers=2,
        prepare=_small_manifest,
    ),
    "audformat": Layout(
        files=containers.CLIPS,
        first={
            "source": "audio/a.wav",
            "name": "audio/a",
            "speaker": "s1",
            "gender": "female",
            "language": "de",
            "text": "Hallo.",
            "split": "train",
            "emotion": "anger",
            "arousal": None,
            "votes": (Vote(rater="r1", emotion="anger", arousal=4.0), Vote(rater="r2", emotion="anger", arousal=5.0)),
        },
        utterances=4,
        speakers=2,
        prepare=containers.write_audformat,
    ),
    "audiofolder": Layout(
        files=("train/x/a.wav", "train/b.wav", "test/c.wav"),
        first={"source": "test/c.wav", "name": "test/c", "split": "test", "emotion": "neutral", "speaker": None},
        utterances=3,
        prepare=containers.write_audiofolder,
    ),
    "hf-parquet": Layout(
        files=(),
        first={
            "source": "data/train-00000-of-00001.parquet/00000000",
            "name": "clip0",
            "speaker": "s0",
            "gender": "female",
            "text": "Text 0.",
            "split": "train",
            "emotion": "anger",
        },
        utterances=7,
        speakers=2,
        prepare=containers.write_hf_parquet,
    ),
    "hf-arrow": Layout(
        files=(),
        first={
            "source": "test/data-00000-of-00001.arrow/00000000",
            "name": "clip0",
            "speaker": "s0",
            "gender": "female",
            "text": "Text 0.",
            "split": "test",
            "emotion": "anger",
        },
        utterances=7,
        speakers=2,
        prepare=containers.write_hf_arrow,
    ),
    "webdataset": Layout(
        files=(),
        first={
            "source": "calls-test-000.tar/a/clip0.mp3",
            "name": "a/clip0",
            "speaker": "s2",
            "split": "test",
            "emotion": None,
        },
        utterances=3,
        prepare=containers.write_webdataset,
    ),
    "kaldi": Layout(
        files=("audio/b.flac", "audio/a.wav"),
        first={
            "source": "audio/a.wav#0.010-0.050",
            "name": "s1-u1",
            "speaker": "s1",
            "gender": "female",
            "language": "en",
            "text": "Not today.",
            "split": "train",
            "emotion": "anger",
            "start_s": 0.01,
            "votes": (Vote(rater="r1", emotion="anger"), Vote(rater="r2", emotion="anger", arousal=4.0)),
        },
        utterances=4,
        left_out={"no-audio": 1},
        prepare=toolkits.write_kaldi,
    ),
    "lhotse": Layout(
        files=("audio/a.wav", "audio/b.flac"),
        first={
            "source": "audio/a.wav#0.000-0.040",
            "name": "a-1",
            "speaker": "s1",
            "gender": "female",
            "emotion": "anger",
            "text": "No.",
        },
        utterances=3,
        left_out={"missing": 1},
        prepare=toolkits.write_lhotse,
    ),
    "label-studio": Layout(
        files=("upload/1/0a1b2c3d-a.wav", "upload/1/b.wav", "upload/1/c.wav"),
        first={
            "source": "upload/1/0a1b2c3d-a.wav",
            "speaker": "s1",
            "emotion": "anger",
            "arousal": 3.5,
            "votes": (
                Vote(rater="ann@example.org", emotion="anger", secondary=("fear",), arousal=4.0),
                Vote(rater="2", emotion="anger", arousal=3.0),
            ),
        },
        utterances=4,
        prepare=toolkits.write_label_studio,
    ),
    "folder": Layout(
        files=("b/call.wav", "a/call.FLAC", "music.ogg"),
        first={"source": "a/call.FLAC", "name": "a/call", "speaker": None, "emotion": None, "language": None},
        utterances=3,
    ),
}  # fmt: skip

GENERIC = {
    "manifest",
    "kaldi",
    "lhotse",
    "label-studio",
    "audformat",
    "audiofolder",
    "hf-parquet",
    "hf-arrow",
    "webdataset",
    "folder",
}
CORPORA = sorted(set(READERS) - GENERIC)


def layout_of(name: str) -> Layout:
    if name not in LAYOUTS:
        pytest.fail(f"the reader {name!r} has no layout: add a small copy of its corpus to LAYOUTS in {__file__}")
    return LAYOUTS[name]


def lay_out(name: str, root: Path) -> Path:
    for file in layout_of(name).files:
        audio(root / file)
    layout_of(name).prepare(root)
    return root


def records(name: str, root: Path) -> tuple[list[Utterance], list[Skipped]]:
    items = list(READERS[name](root))
    return [i for i in items if isinstance(i, Utterance)], [i for i in items if isinstance(i, Skipped)]


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_a_layout(name: str) -> None:
    layout_of(name)


def test_every_layout_is_of_a_reader() -> None:
    assert set(LAYOUTS) <= set(READERS)


def test_the_docs_tell_of_every_reader() -> None:
    pages = Path(__file__).resolve().parents[2] / "docs" / "corpora.md"
    rows = re.findall(r"^\| `([^`]+)` \|", pages.read_text(), re.MULTILINE)
    assert not (missing := sorted(set(READERS) - set(rows))), f"docs/corpora.md has no row for {missing}"
    assert sorted(rows) == sorted(READERS)


@pytest.mark.parametrize("name", READERS)
def test_reader_contract(name: str, tmp_path: Path) -> None:
    layout = layout_of(name)
    root = lay_out(name, tmp_path / "corpus")
    utterances, skipped = records(name, root)
    assert len(utterances) == layout.utterances
    reasons = Counter(item.reason for item in skipped)
    assert reasons.pop("unreadable-name", 0) + reasons.pop("repeated", 0) == layout.unreadable
    assert reasons == layout.left_out
    for utterance in utterances:
        assert utterance.audio.is_absolute()
        assert utterance.audio.is_file()
        if utterance.inside is None:
            assert utterance.audio == (root / utterance.source.partition("#")[0]).resolve()
        else:
            assert utterance.source.startswith(utterance.audio.relative_to(root.resolve()).as_posix() + "/")
        assert utterance.corpus == (name if name in CORPORA else "corpus")
    for item in skipped:
        assert item.reason in REASONS
        assert item.size == ((root / item.source).stat().st_size if (root / item.source).exists() else -1)
        assert item.detail
    sources = [utterance.source for utterance in utterances]
    assert sources == sorted(sources)
    assert not any(Path(item.source).is_absolute() for item in (*utterances, *skipped))
    assert len({utterance.name for utterance in utterances}) == len(utterances)
    assert len({utterance.source for utterance in utterances}) == len(utterances)
    if layout.speakers is not None:
        assert None not in {utterance.speaker for utterance in utterances}
        assert len({utterance.speaker for utterance in utterances}) == layout.speakers
    assert {field: getattr(utterances[0], field) for field in layout.first} == layout.first


@pytest.mark.parametrize("name", READERS)
def test_readers_are_deterministic(name: str, tmp_path: Path) -> None:
    """Equal files in another folder, made in another order, give equal records."""
    layout = layout_of(name)
    first = READERS[name](lay_out(name, tmp_path / "one" / "corpus"))
    turned = tmp_path / "two" / "corpus"
    turned.mkdir(parents=True)
    layout.prepare(turned)
    for file in reversed(layout.files):
        audio(turned / file)
    moved = [replace(item, audio=Path()) if isinstance(item, Utterance) else item for item in READERS[name](turned)]
    assert [replace(item, audio=Path()) if isinstance(item, Utterance) else item for item in first] == moved


@pytest.mark.parametrize("name", READERS)
def test_reader_refuses_an_empty_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReaderError, match="empty"):
        list(READERS[name](tmp_path / "empty"))


@pytest.mark.parametrize("name", READERS)
def test_reader_says_what_it_expected(name: str, tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("no speech here")
    with pytest.raises(ReaderError, match=r"expected .* for example ") as caught:
        list(READERS[name](tmp_path))
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("name", READERS)
def test_reader_refuses_a_folder_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="nowhere"):
        list(READERS[name](tmp_path / "nowhere"))


@pytest.mark.parametrize("name", CORPORA)
def test_a_wrong_corpus_is_named_with_a_file_of_it(name: str, tmp_path: Path) -> None:
    audio(tmp_path / "other" / "take-1.wav")
    with pytest.raises(ReaderError, match=f"does not look like {name}.*1 wav and .*files, such as other/take-1.wav"):
        list(READERS[name](tmp_path))


@pytest.mark.parametrize("name", sorted(name for name in CORPORA if name not in LAYOUTS or LAYOUTS[name].any_tree))
def test_nested_and_flat_trees_agree(name: str, tmp_path: Path) -> None:
    nested, _ = records(name, lay_out(name, tmp_path / "nested"))
    for file in layout_of(name).files:
        audio(tmp_path / "flat" / Path(file).name)
    layout_of(name).prepare(tmp_path / "flat")
    flat, _ = records(name, tmp_path / "flat")
    same = {"audio": Path(), "source": ""}
    assert {u.name: replace(u, **same) for u in nested} == {u.name: replace(u, **same) for u in flat}


@pytest.mark.corpora
@pytest.mark.parametrize(
    ("name", "count", "speakers", "classes"),
    [("ravdess", 960, 16, 8), ("emodb", 535, 10, 7), ("nemo", 506, 9, 6), ("urdu", 400, 29, 4)],
)
def test_real_corpora_agree_with_their_manifest(name: str, count: int, speakers: int, classes: int) -> None:
    root = SHARED / name
    utterances, skipped = records(name, root)
    assert not skipped
    assert len(utterances) == count
    assert len({u.speaker for u in utterances}) == speakers
    assert len({u.emotion for u in utterances}) == classes
    rows = {row["id"]: row for row in map(json.loads, (root / "manifest.jsonl").read_text().splitlines())}
    for utterance in utterances:
        row = rows[utterance.name]
        for fact in ("speaker", "emotion", "language", "text"):
            assert getattr(utterance, fact) == row[fact], (utterance.name, fact)
    by_manifest, _ = records("manifest", root)
    assert sorted((u.source, u.speaker, u.emotion) for u in by_manifest) == [
        (u.source, u.speaker, u.emotion) for u in utterances
    ]


@pytest.mark.corpora
@pytest.mark.parametrize("name", ["ravdess", "emodb", "nemo", "urdu"])
def test_real_corpora_are_read_from_the_names_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / "audio").symlink_to(SHARED / name / "audio")
    for file in sorted((SHARED / name / "audio").iterdir())[::20]:
        (tmp_path / file.name).symlink_to(file)
    with_manifest = {u.name: u for u in records(name, SHARED / name)[0]}
    utterances, _ = records(name, tmp_path)
    assert len(utterances) >= 20
    for utterance in utterances:
        expected = with_manifest[utterance.name]
        assert (utterance.speaker, utterance.emotion) == (expected.speaker, expected.emotion)


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    audio(tmp_path / "real" / "a.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "real")
    (root / "round").symlink_to(root)
    assert [item.source for item in READERS["folder"](root)] == ["linked/a.wav"]


def test_manifest_formats_agree(tmp_path: Path) -> None:
    rows = [
        ("a.wav", "s1", "joy", 4.5, 0.5, 1.25, "val"),
        ("b.wav", "unknown", None, None, None, None, ""),
    ]
    names = ["file_name", "speaker", "label", "valence", "start", "end", "split"]
    rows = [dict(zip(names, values, strict=True)) for values in rows]
    for separator, suffix in ((",", "csv"), ("\t", "tsv")):
        lines = [separator.join("" if row[n] is None else str(row[n]) for n in names) for row in rows]
        (tmp_path / f"m.{suffix}").write_text("\n".join([separator.join(names), *lines]), encoding="utf-8-sig")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    manifest_jsonl(tmp_path / "m.jsonl", rows)
    for suffix in ("csv", "tsv", "jsonl"):
        (tmp_path / f"m.{suffix}.gz").write_bytes(gzip.compress((tmp_path / f"m.{suffix}").read_bytes()))
    suffixes = ("csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.gz", "jsonl.gz")
    read = {suffix: list(read_manifest(tmp_path / f"m.{suffix}", corpus="demo")) for suffix in suffixes}
    assert all(items == read["jsonl"] for items in read.values())
    first, second = read["jsonl"]
    assert isinstance(first, Utterance)
    assert isinstance(second, Utterance)
    assert (first.source, first.name) == ("a.wav#0.500-1.250", "a#0.500-1.250")
    assert (first.start_s, first.end_s, first.split, first.emotion, first.valence) == (0.5, 1.25, "dev", "joy", 4.5)
    assert (second.speaker, second.split, second.valence, second.emotion) == (None, None, None, None)


def test_manifest_columns_override_the_usual_names(tmp_path: Path) -> None:
    row = {"audio": "a.wav", "label": "angry", "voice": "happy", "subset": "fold-7", "dataset": "call-centre"}
    path = manifest_jsonl(tmp_path / "m.jsonl", [row])
    (utterance,) = read_manifest(path, columns={"emotion": "voice", "split": ""})
    assert isinstance(utterance, Utterance)
    assert (utterance.emotion, utterance.split, utterance.corpus) == ("happy", None, "call-centre")
    (renamed,) = read_manifest(path, columns={"split": ""}, corpus="calls")
    assert renamed.corpus == "calls"


def test_manifest_start_and_duration_make_a_segment(tmp_path: Path) -> None:
    path = manifest_jsonl(tmp_path / "m.jsonl", [{"audio_filepath": "tape.wav", "offset": 10, "duration": 2.5}])
    (utterance,) = read_manifest(path)
    assert isinstance(utterance, Utterance)
    assert (utterance.start_s, utterance.end_s) == (10.0, 12.5)


def test_manifest_audio_may_be_anywhere(tmp_path: Path) -> None:
    elsewhere = audio(tmp_path / "elsewhere" / "a.wav")
    path = manifest_jsonl(tmp_path / "lists" / "m.jsonl", [{"path": str(elsewhere)}, {"path": "sub/b.wav"}])
    by_source = {item.source: item for item in read_manifest(path)}
    assert set(by_source) == {elsewhere.as_posix(), "sub/b.wav"}
    inside = by_source["sub/b.wav"]
    assert isinstance(inside, Utterance)
    assert (inside.audio, inside.corpus) == (tmp_path / "lists" / "sub" / "b.wav", "lists")


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"audio": "a.wav"}, {"audio": None}], None, r"m\.jsonl, line 2, column 'audio': no path"),
        ([{"speaker": "s1", "age": 3}], None, r"no column for the audio.*it has: age, speaker"),
        ([{"audio": "a.wav", "x": 1}], {"emotion": "mood"}, r"no column 'mood' for emotion; it has: audio, x"),
        ([{"audio": "a.wav"}], {"mood": "x"}, r"unknown field to map a column to 'mood'; known: arousal, audio"),
        ([{"audio": {"bytes": "x"}}], None, r"expected a path, got dict"),
        ([{"audio": "a.wav", "start": "soon"}], None, r"line 1, column 'start': expected a number, got 'soon'"),
        ([{"audio": "a.wav", "val": "inf"}], None, r"column 'val': expected a finite number, got 'inf'"),
        ([{"audio": "a.wav", "split": "holdout"}], None, r"unknown word 'holdout'; known: dev.*--column split="),
        ([{"audio": "a.wav", "corpus": "a/b"}], None, r"a corpus name has no slash, got 'a/b'"),
        ([], None, r"has no rows"),
    ],
)
def test_manifest_errors_name_the_place(
    rows: list[dict[str, object]], columns: dict[str, str] | None, message: str, tmp_path: Path
) -> None:
    path = manifest_jsonl(tmp_path / "m.jsonl", rows)
    with pytest.raises(ReaderError, match=message):
        list(read_manifest(path, columns=columns))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", b'{"audio": "a.wav"}\n{"audio": ', r"line 2: not valid JSON"),
        ("m.json", b'{"u1": ', r"m\.json: not valid JSON"),
        ("m.json", b'{"u1": 1}', r"entry u1: expected an object .* got int"),
        ("m.jsonl", b"[1]\n", r"line 1: expected an object .* got list"),
        ("m.csv", b"audio,speaker\na.wav,s1,extra\n", r"line 2: more than the 2 fields of the header"),
        ("m.csv", "audio,text\na.wav,caf\xe9\n".encode("latin-1"), r"is not UTF-8 text.*save it as UTF-8"),
        ("m.parquet", b"not parquet at all", r"is not a Parquet file"),
        ("m.xlsx", b"", r"expected one of \.jsonl, \.json, \.csv, \.tsv, \.parquet, got '\.xlsx'"),
    ],
)
def test_damaged_tables_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReaderError, match=message):
        list(read_manifest(tmp_path / name))


def test_no_alias_means_two_things() -> None:
    names = [alias for aliases in ALIASES.values() for alias in aliases]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)
