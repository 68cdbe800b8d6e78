from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seral.audio.decode import BadAudio, decode
from seral.audio.quality import frame_power, measure
from seral.corpora.formats.manifest import read_manifest
from seral.corpora.reading.utterance import Utterance
from seral.errors import OptionError, SeralError
from seral.options import parse
from seral.synthesis.corpus import SynthesisOptions, coloured_noise, plan_clips, synthesise
from seral.synthesis.espeak import RATE_HZ, Delivery, Espeak
from seral.synthesis.prosody import EMOTIONS, VARIANTS
from seral.synthesis.sentences import SENTENCES

Corpus = tuple[Path, list[dict[str, Any]], dict[str, dict[str, Any]]]


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def generate(out: Path, **options: object) -> Corpus:
    """Folder, manifest rows, truth by id."""
    pytest.importorskip("espeakng_loader")
    synthesise(out, parse(SynthesisOptions, options))
    return out, rows_of(out / "manifest.jsonl"), {row["id"]: row for row in rows_of(out / "truth.jsonl")}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of 120 clips, a third of them junk."""
    return generate(tmp_path_factory.mktemp("demo"), utterances=120, junk=0.33, mislabelled=0.1)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A corpus of 240 clips without junk: every speaker five times in every emotion."""
    return generate(tmp_path_factory.mktemp("clean"), utterances=240, junk=0, mislabelled=0)


def test_the_importer_reads_what_is_written(demo: Corpus) -> None:
    out, rows, _ = demo
    utterances = list(read_manifest(out))
    assert len(utterances) == len(rows) == 120
    for utterance, row in zip(utterances, rows, strict=True):
        assert isinstance(utterance, Utterance)
        assert utterance.audio == (out / row["audio"]).resolve()
        for field in ("speaker", "language", "style", "text", "emotion", "valence", "arousal", "dominance", "corpus"):
            assert getattr(utterance, field) == row[field]
        assert sf.info(utterance.audio).samplerate == RATE_HZ
        assert sf.info(utterance.audio).duration == pytest.approx(row["duration_s"], abs=1e-3)
    assert {utterance.corpus for utterance in utterances} == {"demo"}


def test_three_languages_twelve_speakers_four_emotions(demo: Corpus) -> None:
    _, rows, _ = demo
    assert {row["language"] for row in rows} == {"en", "de", "es"}
    assert len({row["speaker"] for row in rows}) == 12
    assert {row["emotion"] for row in rows} - {None} == set(EMOTIONS)
    for row in rows:
        assert row["text"] is None or row["text"] in {text for text, _ in SENTENCES[row["language"]]}


def test_truth_stays_out_of_the_manifest(demo: Corpus) -> None:
    _, rows, truth = demo
    assert set(truth) == {row["id"] for row in rows}
    assert not {"intended", "mislabelled", "strength", "junk", "duplicate_of"} & set(rows[0])
    assert all(emotion not in row["audio"] for row in rows for emotion in EMOTIONS)


def test_shares_of_junk_and_of_wrong_labels(demo: Corpus) -> None:
    _, rows, truth = demo
    kinds = Counter(item["junk"] for item in truth.values())
    assert kinds.pop(None) == 80
    assert kinds == {"noisy": 8, "clipped": 8, "silence": 8, "noise": 8, "duplicate": 8}
    wrong = [row for row in rows if truth[row["id"]]["mislabelled"] and truth[row["id"]]["junk"] is None]
    assert len(wrong) == 8
    assert all(row["emotion"] != truth[row["id"]]["intended"] for row in wrong)


def test_each_kind_of_junk_is_what_it_says(demo: Corpus) -> None:
    out, rows, truth = demo
    files = {row["id"]: out / row["audio"] for row in rows}
    for name, item in truth.items():
        if item["junk"] == "silence":
            with pytest.raises(BadAudio, match="silent"):
                decode(files[name])
            continue
        quality = measure(decode(files[name]).samples)
        match item["junk"]:
            case "noise":
                assert quality.snr_db < 3
                assert quality.speech_ratio < 0.1
            case "clipped":
                assert quality.clipping > 0.005
            case "duplicate":
                assert files[name].read_bytes() == files[item["duplicate_of"]].read_bytes()
            case "noisy":
                assert quality.snr_db < 22
            case None:
                assert quality.clipping == 0
                assert quality.snr_db > 15


def test_junk_without_speech_has_no_label_and_no_text(demo: Corpus) -> None:
    _, rows, truth = demo
    for row in rows:
        speech = truth[row["id"]]["junk"] not in {"silence", "noise"}
        assert all((row[field] is not None) == speech for field in ("emotion", "text", "valence", "arousal"))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    first, again, other = (
        generate(tmp_path / name, utterances=30, seed=seed, junk=0.3)[0]
        for name, seed in (("first", 3), ("again", 3), ("other", 4))
    )
    contents = {
        root: {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}
        for root in (first, again, other)
    }
    assert contents[first] == contents[again]
    assert len(contents[first]) == 32
    assert contents[first].keys() == contents[other].keys()
    same = [path for path in contents[first] if contents[first][path] == contents[other][path]]
    assert not same or all(path.suffix == ".flac" for path in same)
    assert len(same) < 3


def test_a_killed_run_leaves_no_manifest(tmp_path: Path) -> None:
    generate(tmp_path, utterances=6)
    done: list[float] = []

    def stop_after_three(units: float = 1, /) -> None:
        done.append(units)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path, SynthesisOptions(utterances=6), stop_after_three)
    assert not (tmp_path / "manifest.jsonl").exists()


def _by_emotion(corpus: Corpus, of_clip: Any) -> dict[str, float]:
    """Mean over clips of a measure, relative to the same speaker's mean, by emotion."""
    out, rows, truth = corpus
    values = np.array([of_clip(decode(out / row["audio"]).samples, row) for row in rows])
    speakers = np.array([row["speaker"] for row in rows])
    emotions = np.array([truth[row["id"]]["intended"] for row in rows])
    for speaker in set(speakers):
        values[speakers == speaker] -= values[speakers == speaker].mean()
    return {emotion: float(values[emotions == emotion].mean()) for emotion in EMOTIONS}


def _pitch_semitones(samples: np.ndarray, row: dict[str, Any]) -> float:
    """Median pitch of the louder half of the 40 ms frames, by the peak of the autocorrelation in 60-400 Hz."""
    del row
    frames = np.lib.stride_tricks.sliding_window_view(samples, 640)[::320]
    power = np.square(frames).mean(1)
    frames = frames[power > np.median(power)] * np.hanning(640)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)[:, 40:267]
    return float(np.median(12 * np.log2(16_000 / (correlation.argmax(1) + 40))))


def test_pitch_rate_and_loudness_follow_the_emotion(clean: Corpus) -> None:
    pitch = _by_emotion(clean, _pitch_semitones)
    assert pitch["happiness"] > pitch["neutral"] + 1 > pitch["sadness"] + 2
    loudness = _by_emotion(clean, lambda samples, row: 10 * np.log10(np.quantile(frame_power(samples), 0.8)))
    assert loudness["anger"] > loudness["neutral"] + 3 > loudness["sadness"] + 6
    rate = _by_emotion(clean, lambda samples, row: np.log(len(row["text"]) / row["duration_s"]))
    assert rate["anger"] > rate["neutral"] > rate["sadness"] + 0.1


def test_the_words_lean_towards_the_emotion() -> None:
    clips = plan_clips(SynthesisOptions(utterances=2000, junk=0, mislabelled=0))
    valence = {text: value for sentences in SENTENCES.values() for text, value in sentences}
    mean = {e: np.mean([valence[clip.text] for clip in clips if clip.emotion == e]) for e in EMOTIONS}
    assert mean["happiness"] > mean["neutral"] + 0.1 > mean["anger"] + 0.2
    # Most sentences say nothing, so that words alone cannot solve the task.
    assert np.mean([valence[clip.text] == 0 for clip in clips]) > 0.4


@pytest.mark.slow
def test_classes_overlap_about_as_much_as_in_acted_corpora(tmp_path: Path) -> None:
    out, rows, _ = generate(tmp_path, junk=0, mislabelled=0)
    features = np.stack([_log_spectrum_statistics(decode(out / row["audio"]).samples) for row in rows])
    labels, speakers = (np.array([row[field] for row in rows]) for field in ("emotion", "speaker"))
    predicted = np.empty_like(labels)
    for speaker in sorted(set(speakers)):
        test = speakers == speaker
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))
        predicted[test] = probe.fit(features[~test], labels[~test]).predict(features[test])
    assert 0.6 < balanced_accuracy_score(labels, predicted) < 0.85


def _log_spectrum_statistics(samples: np.ndarray) -> np.ndarray:
    """Mean and deviation over time of 40 log bands that widen with frequency like mel bands."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160] * np.hanning(400)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    edges = np.unique(np.round(700 * (10 ** (np.linspace(28, 2840, 42) / 2595) - 1) / 8000 * 256).astype(int))
    bands = np.log(np.add.reduceat(power, edges[:-1], axis=1) + 1e-8)
    return np.concatenate([bands.mean(0), bands.std(0)])


def test_every_language_and_every_voice_speaks() -> None:
    pytest.importorskip("espeakng_loader")
    with Espeak() as espeak:
        for language, sentences in SENTENCES.items():
            for variant in VARIANTS:
                delivery = Delivery(
                    voice=f"{language}+{variant}", rate_wpm=170, pitch=50, pitch_range=50, word_gap_10ms=0
                )
                samples = espeak.say(sentences[0][0], delivery)
                assert 1 < len(samples) / RATE_HZ < 5
                assert np.sqrt(np.mean(samples**2)) > 0.01


def test_an_unknown_voice_is_refused() -> None:
    pytest.importorskip("espeakng_loader")
    with Espeak() as espeak, pytest.raises(SeralError, match="refused voice 'xx'"):
        espeak.say("hello", Delivery(voice="xx", rate_wpm=170, pitch=50, pitch_range=50, word_gap_10ms=0))


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(SeralError, match=r"pip install 'seral\[demo\]'"):
        synthesise(tmp_path / "demo", SynthesisOptions())
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"languages": ["en", "tlh"]}, "unknown language 'tlh'; known: de, en, es"),
        ({"languages": ["en", "en"]}, "at least one and distinct"),
        ({"junk_kinds": []}, "there are no junk_kinds"),
        ({"noisy_snr_db": [5, 0]}, r"noisy_snr_db is \(lowest, highest\), got \(5\.0, 0\.0\)"),
        ({"junk": 1.5}, "junk: expected at most 0.9"),
        ({"speakers": 3}, "unknown option 'speakers'; known here: utterances, speakers_per_language"),
    ],
)
def test_options_name_what_is_wrong(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse(SynthesisOptions, options)


@pytest.mark.parametrize("utterances", [1, 2, 7])
def test_small_corpora_keep_a_good_clip(utterances: int) -> None:
    clips = plan_clips(SynthesisOptions(utterances=utterances, junk=0.9))
    assert len({clip.id for clip in clips}) == utterances
    good = {clip.id for clip in clips if clip.junk is None}
    assert good
    assert all(clip.duplicate_of in good for clip in clips if clip.junk == "duplicate")


def test_plans_are_balanced_over_speakers_and_emotions() -> None:
    clips = plan_clips(SynthesisOptions(utterances=480, junk=0))
    assert set(Counter((clip.speaker.name, clip.emotion) for clip in clips).values()) == {10}


def test_coloured_noise_has_power_one() -> None:
    noise = coloured_noise(RATE_HZ, np.random.default_rng(0))
    assert np.mean(noise**2) == pytest.approx(1, abs=1e-4)
    assert noise.dtype == np.float32
