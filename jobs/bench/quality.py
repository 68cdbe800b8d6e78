"""Benchmark of the quality measures: clean speech against the same speech with noise mixed in, and noise alone.

    python -m jobs.bench.quality speech=[CORPUS] noise=CORPUS

Speech and noise are cut in halves, speech by its speakers and noise by its files in order of their names (of ESC-50,
that keeps kinds of sound together): constants were chosen by hand on the `first` half, the `second` judges.
"""

# S samples at 16 kHz · N clips
from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.metrics import roc_auc_score

from seral import storage
from seral.audio.decode import decode, encode_flac
from seral.audio.effects import add_noise
from seral.audio.quality import measure
from seral.audio.voice import Samples, voice_probability
from seral.corpora import READERS
from seral.corpora.reading.utterance import Utterance
from seral.errors import ReaderError, unknown_name
from seral.options import Options, run_job
from seral.progress import track
from seral.schema import SAMPLE_RATE

CLEAN, NOISE = "clean", "noise"
QUANTILES, FLOORS = [0.05, 0.25, 0.5, 0.75, 0.95], (0.05, 0.1, 0.2, 0.3, 0.5)
SCORES = ("quality", "voice_ratio", "snr_db", "speech_ratio")


class QualityBenchOptions(Options):
    """Options of the quality benchmark: clean speech, noise, and the ratios to mix them at."""

    speech: list[str] = Field(min_length=1)
    """Corpora of clean speech."""
    noise: str
    """A corpus of noises without speech."""
    reader: str = "manifest"
    """Reader of all of them, a name in seral.corpora.READERS."""
    clips: int = Field(default=60, ge=2)
    """Clips of speech from each corpus."""
    snr_db: list[float] = Field(default=[20, 10, 5, 0], min_length=1)
    """Ratios to mix at: mean power of the whole clip over that of the noise."""
    half: Literal["first", "second"] = "second"
    """Half of the speakers and of the noises."""
    seed: int = Field(default=0, ge=0)
    """Draws the clips, and which noise goes with which."""
    out: str | None = None
    """A CSV file with every clip's measures; None = the table alone."""


def run_quality_bench(options: QualityBenchOptions) -> str:
    """Measure clean, mixed and pure noise clips and tell how well each measure separates them."""
    if options.reader not in READERS:
        raise ReaderError(unknown_name("reader", options.reader, READERS))
    rng = np.random.default_rng(options.seed)
    noises = [_samples(clip) for clip in _half(_read(options.noise, options.reader), options.half)]
    speech = [
        (clip.corpus, _samples(clip))
        for corpus in options.speech
        for clip in _draw(_read(corpus, options.reader), options, rng)
    ]
    with track("measuring", len(speech) * (1 + len(options.snr_db)) + len(noises)) as advance:
        rows = []
        for corpus, kind, true_snr_db, samples in _clips(speech, noises, options.snr_db, rng):
            rows.append({"corpus": corpus, "kind": kind, "true_snr_db": true_snr_db, **_measures(samples)})
            advance(1)
    frame = pd.DataFrame(rows)
    if options.out is not None:
        storage.write_bytes(options.out, frame.to_csv(index=False).encode())
    return summarise(frame)


def summarise(frame: pd.DataFrame) -> str:
    """The tables: ROC areas, the score by kind of clip, the estimated ratio against the true one, the cost."""
    kinds = [str(kind) for kind in frame["kind"].unique()]
    against_clean = [(CLEAN, kind) for kind in kinds if kind != CLEAN]
    against_noise = [(kind, NOISE) for kind in kinds if kind != NOISE]
    by_kind = frame.groupby("kind", sort=False)["quality"]
    by_corpus = {corpus: _areas(rows, against_clean, "{1}") for corpus, rows in _corpora(frame)}
    parts = [
        f"clean speech against (area under the ROC curve)\n{_areas(frame, against_clean, '{1}')}",
        f"speech against noise alone\n{_areas(frame, against_noise, '{0}')}",
        "clean speech against, by quality, within each corpus\n"
        + pd.DataFrame({corpus: table.loc["quality"] for corpus, table in by_corpus.items()}).T.to_string(),
        f"quality, quantiles\n{by_kind.describe(percentiles=QUANTILES).iloc[:, 4:-1].round(2).to_string()}",
        f"share of clips below a floor\n{_below(frame, kinds).to_string()}",
    ]
    mixed = frame.dropna(subset=["true_snr_db"])
    error_db = mixed["snr_db"] - mixed["true_snr_db"]
    bias = error_db.groupby(mixed["kind"], sort=False).agg(["mean", "std"]).round(1)
    correlation = np.corrcoef(mixed["snr_db"], mixed["true_snr_db"])[0, 1]
    parts.append(f"estimated less true ratio, dB (correlation {correlation:.2f})\n{bias.to_string()}")
    seconds = frame["duration_s"].sum()
    cost = {name: f"{seconds / frame[f'{name}_cpu_s'].sum():.0f} x real time" for name in ("measures", "voice", "flac")}
    parts.append(f"cost, CPU: {cost}")
    return "\n\n".join(parts)


def _areas(frame: pd.DataFrame, pairs: Sequence[tuple[str, str]], name: str) -> pd.DataFrame:
    """ROC areas of every score for each (good, bad) pair of kinds."""
    table = {}
    for good, bad in pairs:
        both = frame[frame["kind"].isin([good, bad])]
        table[name.format(good, bad)] = {score: roc_auc_score(both["kind"] == good, both[score]) for score in SCORES}
    return pd.DataFrame(table).round(3)


def _corpora(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each corpus of speech with all the noise."""
    for corpus in frame.loc[frame["kind"] == CLEAN, "corpus"].unique():
        yield corpus, frame[(frame["corpus"] == corpus) | (frame["kind"] == NOISE)]


def _below(frame: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    """Share of every kind of clip, and of every corpus's clean clips, whose quality is below each floor."""
    groups = {kind: frame[frame["kind"] == kind] for kind in kinds}
    clean = frame[frame["kind"] == CLEAN]
    groups |= {f"{CLEAN} {corpus}": rows for corpus, rows in clean.groupby("corpus", sort=False)}
    shares = {floor: {name: (rows["quality"] < floor).mean() for name, rows in groups.items()} for floor in FLOORS}
    return pd.DataFrame(shares).round(3)


def _read(corpus: str, reader: str) -> list[Utterance]:
    return [item for item in READERS[reader](Path(corpus).expanduser()) if isinstance(item, Utterance)]


def _half(clips: Sequence[Utterance], half: str) -> list[Utterance]:
    """The clips of the first or second half of the speakers, or of the files where no speaker is known."""
    names = sorted({clip.speaker or clip.name for clip in clips})
    if len(names) < 2:
        raise ReaderError(f"{clips[0].corpus if clips else 'the corpus'} has {len(names)} speakers or files, needs 2")
    middle = len(names) // 2
    chosen = set(names[:middle] if half == "first" else names[middle:])
    return [clip for clip in clips if (clip.speaker or clip.name) in chosen]


def _draw(clips: Sequence[Utterance], options: QualityBenchOptions, rng: np.random.Generator) -> list[Utterance]:
    half = _half(clips, options.half)
    return [half[row] for row in sorted(rng.permutation(len(half))[: options.clips])]


def _samples(clip: Utterance) -> Samples:
    return decode(clip.audio, start_s=clip.start_s, end_s=clip.end_s).samples


def _clips(
    speech: Sequence[tuple[str, Samples]],
    noises: Sequence[Samples],
    snr_db: Sequence[float],
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, float | None, Samples]]:
    """Corpus, kind, true ratio and samples of everything to measure."""
    for corpus, samples in speech:
        yield corpus, CLEAN, None, samples
        for level in snr_db:
            noise = noises[int(rng.integers(len(noises)))]
            yield corpus, f"{level:g} dB", level, add_noise(samples, noise, (level, level), rng)
    for noise in noises:
        yield "", NOISE, None, noise


def _measures(samples: Samples) -> dict[str, float | None]:
    before = time.process_time()
    voice_T = voice_probability(samples)
    after_voice = time.process_time()
    quality = measure(samples, voice_T)
    after_measures = time.process_time()
    encode_flac(samples)
    cost = {
        "voice_cpu_s": after_voice - before,
        "measures_cpu_s": after_measures - after_voice,
        "flac_cpu_s": time.process_time() - after_measures,
    }
    return {"duration_s": len(samples) / SAMPLE_RATE, **vars(quality), **cost}


if __name__ == "__main__":
    run_job(QualityBenchOptions, run_quality_bench, __doc__)
