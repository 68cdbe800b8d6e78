"""Benchmark of the quality measures: clean speech against the same speech with noise mixed in, and noise alone.

    python -m jobs.bench.quality speech=[CORPUS] noise=CORPUS

Speech and noise are cut in halves, speech by its speakers and noise by its files in order of their names (of ESC-50,
that keeps kinds of sound together): constants were chosen by hand on the `first` half, the `second` judges. What the
floor leaves out is counted on all clips of every corpus, by emotion and sex. The score that seral had before
(jobs.bench.former_quality) is measured beside it.
"""

# S samples at 16 kHz · N clips
from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from sklearn.metrics import roc_auc_score

from jobs.bench.former_quality import former_measures
from seral import storage
from seral.audio.decode import decode, encode_flac
from seral.audio.effects import add_noise
from seral.audio.listening import listen
from seral.audio.quality import measure
from seral.audio.voice import Samples
from seral.corpora import READERS
from seral.corpora.reading.utterance import Utterance
from seral.errors import ReaderError, unknown_name
from seral.options import Options, run_job
from seral.progress import track
from seral.schema import SAMPLE_RATE

CLEAN, NOISE = "clean", "noise"
QUANTILES, FLOORS = [0.05, 0.25, 0.5, 0.75, 0.95], (0.05, 0.1, 0.2, 0.3, 0.5)
SCORES = ("quality", "former_quality", "voice_ratio", "former_voice_ratio", "snr_db", "former_snr_db", "speech_ratio")
COSTS = ("measures", "voice", "former", "flac")
SEXES = {"f": "female", "m": "male"}


@dataclass(frozen=True, kw_only=True)
class Clip:
    """A clip to measure, and what is known of it."""

    corpus: str
    kind: str
    """clean, noise, or the ratio of the two."""
    half: str
    samples: Samples
    name: str = ""
    emotion: str = ""
    gender: str = ""
    true_snr_db: float | None = None
    drawn: bool = True
    """One of those that are mixed and compared; the others are only held against the floor."""


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
    genders: str | None = None
    """JSON lines with `id` and `gender` inside each corpus of speech, where its reader knows no gender."""
    floor: float = Field(default=0.1, ge=0, le=1)
    """Floor whose clips are counted by corpus, emotion and sex."""
    processes: int = Field(default=1, ge=1)
    """Clips measured side by side."""


def run_quality_bench(options: QualityBenchOptions) -> str:
    """Measure clean, mixed and pure noise clips and tell how well each measure separates them."""
    if options.reader not in READERS:
        raise ReaderError(unknown_name("reader", options.reader, READERS))
    clips = list(_clips(options, np.random.default_rng(options.seed)))
    rows = []
    context = multiprocessing.get_context("spawn")
    with track("measuring", len(clips)) as advance, ProcessPoolExecutor(options.processes, context) as pool:
        for row in pool.map(measures_of, clips, chunksize=8):
            rows.append(row)
            advance(1)
    frame = pd.DataFrame(rows)
    if options.out is not None:
        storage.write_bytes(options.out, frame.to_csv(index=False).encode())
    return f"{summarise(frame[frame['drawn']])}\n\n{_left_out(frame[frame['kind'] == CLEAN], options.floor)}"


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
    cost = {name: f"{seconds / frame[f'{name}_cpu_s'].sum():.0f} x real time" for name in COSTS}
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


def _left_out(clean: pd.DataFrame, floor: float) -> str:
    """Clips of clean speech below the floor, before and now, by half of the speakers, sex and emotion."""
    counted = clean.assign(before=clean["former_quality"] < floor, now=clean["quality"] < floor)
    parts = []
    for by in (["corpus", "half"], ["corpus", "gender"], ["corpus", "emotion", "gender"]):
        counts = counted.groupby(by, sort=False)[["before", "now"]]
        table = counts.mean().mul(100).round(1).add_suffix(" %").join(counts.sum()).join(counts.size().rename("clips"))
        parts.append(f"clean speech below {floor:g}, by {', '.join(by)}\n{table.sort_index().to_string()}")
    left_out = counted.loc[counted["now"], ["name", "emotion", "gender", "snr_db", "voice_ratio", "quality"]]
    return "\n\n".join([*parts, f"left out now\n{left_out.round(2).to_string(index=False)}"])


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


def _samples(clip: Utterance) -> Samples:
    return decode(clip.audio, start_s=clip.start_s, end_s=clip.end_s).samples


def _gender_of(corpus: str, options: QualityBenchOptions) -> dict[str, str]:
    """Gender by the name of the clip, where a file says it."""
    if options.genders is None:
        return {}
    lines = (Path(corpus).expanduser() / options.genders).read_text(encoding="utf-8").splitlines()
    return {row["id"]: SEXES.get(row["gender"], str(row["gender"])) for row in map(json.loads, lines)}


def _clips(options: QualityBenchOptions, rng: np.random.Generator) -> Iterator[Clip]:
    """Everything to measure: all clean clips, copies of some of one half in noise of that half, and the noise alone."""
    noises = [_samples(clip) for clip in _half(_read(options.noise, options.reader), options.half)]
    for corpus in options.speech:
        listed, gender_of = _read(corpus, options.reader), _gender_of(corpus, options)
        judging = _half(listed, options.half)
        own = {clip.name for clip in judging}
        drawn = {judging[row].name for row in rng.permutation(len(judging))[: options.clips].tolist()}
        other = "second" if options.half == "first" else "first"
        for utterance in listed:
            clip = Clip(
                corpus=utterance.corpus,
                kind=CLEAN,
                half=options.half if utterance.name in own else other,
                samples=_samples(utterance),
                name=utterance.name,
                emotion=(utterance.emotion or "unknown").lower(),
                gender=utterance.gender or gender_of.get(utterance.name, "unknown"),
                drawn=utterance.name in drawn,
            )
            yield clip
            for level in options.snr_db if clip.drawn else ():
                noise = noises[int(rng.integers(len(noises)))]
                mixed = add_noise(clip.samples, noise, (level, level), rng)
                yield replace(clip, kind=f"{level:g} dB", samples=mixed, true_snr_db=level)
    for noise in noises:
        yield Clip(corpus="", kind=NOISE, half=options.half, samples=noise)


def measures_of(clip: Clip) -> dict[str, object]:
    """A row of the frame: what is known of a clip, its measures by both definitions, and what they cost."""
    clock = [time.process_time()]
    voice_T = listen(clip.samples)
    clock.append(time.process_time())
    quality = measure(clip.samples, voice_T)
    clock.append(time.process_time())
    former = former_measures(clip.samples)
    clock.append(time.process_time())
    encode_flac(clip.samples)
    clock.append(time.process_time())
    spent = dict(zip(("voice", "measures", "former", "flac"), np.diff(clock).tolist(), strict=True))
    about = {name: value for name, value in vars(clip).items() if name != "samples"}
    cost = {f"{name}_cpu_s": seconds for name, seconds in spent.items()}
    return {**about, "duration_s": len(clip.samples) / SAMPLE_RATE, **vars(quality), **former, **cost}


if __name__ == "__main__":
    run_job(QualityBenchOptions, run_quality_bench, __doc__)
