"""A synthetic demonstration corpus: several languages and speakers, four emotions, noise, unusable files, wrong labels.

For trying seral out and for its tests, never for claims: a formant synthesiser that moves pitch, rate and loudness by
rules is not a person who feels something, and a figure measured on it says nothing about people. What it does have is
the shape of the problem: speakers that differ more than emotions do, classes that overlap, a few sentences whose words
lean one way, and a share of clips that are worth nothing.

    OUT/audio/demo-0000.flac   22,050 Hz mono, as the synthesiser makes them
    OUT/truth.jsonl            how each clip was made: provenance that the importer never reads
    OUT/manifest.jsonl         what the reader `manifest` takes; written last
"""

# S samples at espeak-ng's rate
from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import soundfile as sf
from pydantic import Field, model_validator

from seral import storage
from seral.errors import unknown_name
from seral.options import Options
from seral.progress import Advance
from seral.synthesis.espeak import RATE_HZ, Espeak
from seral.synthesis.prosody import EMOTIONS, VARIANTS, Samples, Speaker, draw_prosody, draw_speakers, speak
from seral.synthesis.sentences import SENTENCES

UnusableKind = Literal["noisy", "clipped", "silence", "noise", "duplicate"]

MANIFEST = "manifest.jsonl"
STRENGTH = (0.6, 1.3)
"""Weakest and strongest expression of an emotion."""
WORDS_FOLLOW_EMOTION = 0.8
"""Weight of how well a sentence's words fit the emotion when it is chosen; 0 = the words play no part."""
DIMENSION_SPREAD = 0.4
BACKGROUND_SNR_DB = (25.0, 45.0)
"""Ordinary clips: no room is silent."""
MARGIN_S = (0.05, 0.35)
"""Background before and after the speech."""
OVERDRIVE_DB = (16.0, 28.0)
"""Gain of clipped clips over a peak at full scale."""


class SynthesisOptions(Options):
    """Options of the demonstration corpus."""

    utterances: int = Field(default=480, ge=1)
    """Files in all, unusable ones included."""
    speakers_per_language: int = Field(default=4, ge=1, le=len(VARIANTS))
    """Speakers of each language, male and female voices in turn."""
    languages: tuple[str, ...] = ("en", "de", "es")
    """ISO 639-1 codes; the known ones are in seral.synthesis.sentences."""
    junk: float = Field(default=0.15, ge=0, le=0.9)
    """Share of the files that are unusable, 0..0.9, dealt evenly to the kinds."""
    junk_kinds: tuple[UnusableKind, ...] = ("noisy", "clipped", "silence", "noise", "duplicate")
    """noisy speech, clipped speech, silence, nothing but noise, another clip's file under a new name."""
    noisy_snr_db: tuple[float, float] = (-5.0, 10.0)
    """Lowest and highest signal-to-noise ratio of noisy clips, dB."""
    mislabelled: float = Field(default=0.05, ge=0, le=1)
    """Share of the usable clips whose gold label is wrong, 0..1."""
    seed: int = Field(default=0, ge=0)
    """Seed of all draws: equal seeds give equal files, byte for byte, on the same machine."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for language in self.languages:
            if language not in SENTENCES:
                raise ValueError(unknown_name("language", language, SENTENCES))
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise ValueError(f"languages must be at least one and distinct, got {self.languages}")
        if self.junk > 0 and not self.junk_kinds:
            raise ValueError(f"junk is {self.junk:g} but there are no junk_kinds")
        if self.noisy_snr_db[0] > self.noisy_snr_db[1]:
            raise ValueError(f"noisy_snr_db is (lowest, highest), got {self.noisy_snr_db}")
        return self


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The plan of one file."""

    id: str
    speaker: Speaker
    emotion: str
    """The emotion that the voice expresses."""
    label: str
    """The gold label; in mislabelled clips not the emotion."""
    strength: float
    text: str
    junk: UnusableKind | None = None
    duplicate_of: str | None = None


def synthesise(out: str | Path, options: SynthesisOptions, progress: Advance | None = None) -> str:
    """Generate the corpus in a folder or at an address of an object store, and return that as a text.

    Raises SeralError when espeak-ng is not installed.
    """
    address = storage.absolute(out)
    if "://" not in address:
        _write_corpus(Path(address), options, progress)
        return address
    storage.remove(storage.join(address, MANIFEST))  # of a corpus before this one
    with tempfile.TemporaryDirectory(prefix="seral-") as folder:
        _write_corpus(Path(folder), options, progress)
        for name in sorted(storage.list_files(folder), key=lambda name: name == MANIFEST):
            storage.copy_file(storage.join(folder, name), storage.join(address, name))
    return address


def _write_corpus(out: Path, options: SynthesisOptions, progress: Advance | None) -> None:
    clips = plan_clips(options)
    manifest = out / MANIFEST
    with Espeak() as espeak:
        (out / "audio").mkdir(parents=True, exist_ok=True)
        # A run killed half-way must not leave an old manifest beside new audio.
        manifest.unlink(missing_ok=True)
        files: dict[str, dict[str, Any]] = {}
        for number, clip in sorted(enumerate(clips), key=lambda item: item[1].junk == "duplicate"):
            rng = np.random.default_rng([options.seed, 1, number])
            files[clip.id] = _make(out, clip, files, espeak, options, rng)
            if progress is not None:
                progress()
    _write_jsonl(out / "truth.jsonl", (files[clip.id]["truth"] for clip in clips))
    _write_jsonl(manifest, (files[clip.id]["row"] for clip in clips))


def plan_clips(options: SynthesisOptions) -> list[Clip]:
    """Plan speaker, emotion and text of every file; speakers and emotions are balanced, names say nothing."""
    rng = np.random.default_rng([options.seed, 0])
    speakers = draw_speakers(options.languages, options.speakers_per_language, rng)
    total, emotions = options.utterances, list(EMOTIONS)
    clips = []
    for number, slot in enumerate(rng.permutation(total)):
        speaker = speakers[slot % len(speakers)]
        emotion = emotions[slot // len(speakers) % len(emotions)]
        clips.append(
            Clip(
                id=f"demo-{number:0{len(str(total - 1))}d}",
                speaker=speaker,
                emotion=emotion,
                label=emotion,
                strength=float(rng.uniform(*STRENGTH)),
                text=_choose_sentence(speaker.language, emotion, rng),
            )
        )
    return _spoil(clips, options, rng)


def _choose_sentence(language: str, emotion: str, rng: np.random.Generator) -> str:
    sentences = SENTENCES[language]
    neutral = EMOTIONS["neutral"].valence
    fit = np.array([valence for _, valence in sentences]) * (EMOTIONS[emotion].valence - neutral) / 2
    weight = np.exp(WORDS_FOLLOW_EMOTION * fit)
    return sentences[rng.choice(len(sentences), p=weight / weight.sum())][0]


def _spoil(clips: Sequence[Clip], options: SynthesisOptions, rng: np.random.Generator) -> list[Clip]:
    """Make a share of the plans unusable and give another share wrong labels; at least one clip stays good."""
    spoilt = list(clips)
    order = [int(number) for number in rng.permutation(len(clips))]
    unusable_count = min(round(options.junk * len(clips)), len(clips) - 1)
    unusable, good = order[:unusable_count], order[unusable_count:]
    for number in good[: round(options.mislabelled * len(good))]:
        others = [name for name in EMOTIONS if name != clips[number].emotion]
        spoilt[number] = replace(clips[number], label=others[rng.integers(len(others))])
    for turn, number in enumerate(unusable):
        kind = options.junk_kinds[turn % len(options.junk_kinds)]
        spoilt[number] = replace(clips[number], junk=kind)
        if kind == "duplicate":
            original = spoilt[good[rng.integers(len(good))]]
            spoilt[number] = replace(original, id=clips[number].id, junk=kind, duplicate_of=original.id)
    return spoilt


def _make(
    out: Path,
    clip: Clip,
    files: Mapping[str, dict[str, Any]],
    espeak: Espeak,
    options: SynthesisOptions,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Write the file of one clip; its manifest row and the truth about it."""
    file = out / "audio" / f"{clip.id}.flac"
    if clip.duplicate_of is not None:
        original = files[clip.duplicate_of]
        shutil.copyfile(out / original["row"]["audio"], file)
        renamed = {"id": clip.id, "audio": f"audio/{file.name}"}
        truth = {**original["truth"], "id": clip.id, "junk": clip.junk, "duplicate_of": clip.duplicate_of}
        return {"row": original["row"] | renamed, "truth": truth}
    samples, snr_db = render(clip, espeak, options, rng)
    sf.write(file, samples, RATE_HZ, subtype="PCM_16")
    truth = {
        "id": clip.id,
        "intended": None if clip.junk in {"silence", "noise"} else clip.emotion,
        "mislabelled": clip.label != clip.emotion,
        "strength": round(clip.strength, 3),
        "junk": clip.junk,
        "duplicate_of": None,
        "snr_db": None if snr_db is None else round(snr_db, 1),
    }
    return {"row": _row(clip, file, len(samples), rng), "truth": truth}


def render(
    clip: Clip, espeak: Espeak, options: SynthesisOptions, rng: np.random.Generator
) -> tuple[Samples, float | None]:
    """The samples of a clip at RATE_HZ, and the signal-to-noise ratio they were given (None without a signal)."""
    prosody = draw_prosody(clip.speaker, clip.emotion, clip.strength, rng)
    voice = speak(espeak, clip.speaker, clip.text, prosody, seed=int(rng.integers(2**31)))
    before, after = (np.zeros(int(rng.uniform(*MARGIN_S) * RATE_HZ), dtype=np.float32) for _ in range(2))
    noise = coloured_noise(len(before) + len(voice) + len(after), rng)
    power = float(np.mean(np.square(voice)))
    if clip.junk == "silence":
        return np.zeros_like(noise), None
    if clip.junk == "noise":
        return noise * np.float32(np.sqrt(power)), None
    snr_db = float(rng.uniform(*(options.noisy_snr_db if clip.junk == "noisy" else BACKGROUND_SNR_DB)))
    samples = np.concatenate([before, voice, after]) + noise * np.float32(np.sqrt(power * 10 ** (-snr_db / 10)))
    if clip.junk == "clipped":
        samples = samples * np.float32(10 ** (rng.uniform(*OVERDRIVE_DB) / 20) / np.max(np.abs(samples)))
    return np.clip(samples, -1.0, 1.0), snr_db


def coloured_noise(count: int, rng: np.random.Generator) -> Samples:
    """Stationary noise of power 1 whose spectrum falls by 0 (hiss) to 3 dB (room) an octave, (S,)."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    bins = np.maximum(np.arange(len(spectrum)), count / RATE_HZ * 50)
    noise = np.fft.irfft(spectrum * bins ** -rng.uniform(0, 0.5), count)
    return np.asarray(noise / np.sqrt(np.mean(np.square(noise))), dtype=np.float32)


def _row(clip: Clip, file: Path, length: int, rng: np.random.Generator) -> dict[str, Any]:
    """The manifest row. Without speech there is no text and no label."""
    speech = clip.junk not in {"silence", "noise"}
    row = {
        "id": clip.id,
        "audio": f"audio/{file.name}",
        "corpus": "demo",
        "speaker": clip.speaker.name,
        "language": clip.speaker.language,
        "style": "acted",
        "text": clip.text if speech else None,
        "duration_s": round(length / RATE_HZ, 4),
        "emotion": clip.label if speech else None,
    }
    for dimension in ("valence", "arousal", "dominance"):
        neutral = getattr(EMOTIONS["neutral"], dimension)
        value = neutral + clip.strength * (getattr(EMOTIONS[clip.label], dimension) - neutral)
        value += DIMENSION_SPREAD * rng.standard_normal()
        row[dimension] = round(float(np.clip(value, 1, 7)), 2) if speech else None
    return row


def _write_jsonl(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file whole or not at all."""
    unfinished = file.with_suffix(".partial")
    unfinished.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(unfinished, file)
