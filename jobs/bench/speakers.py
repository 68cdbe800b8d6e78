"""Benchmark of who speaks when: conversations composed of clips whose speakers are known.

    python -m jobs.bench.speakers root=../shared/corpora

For each corpus, number of speakers and noise: the diarization error rate (DER), with a collar of 0.25 s around every
true boundary and without, utterances that have one speaker, the share of the speech that is in utterances, and what it
costs. Constants of seral were chosen on `chosen_on`, the others judge. Beside it: calls with a party in each channel.
"""

# T frames of 10 ms · K clusters, the speakers of a conversation · J joint answers, speakers that were made out
from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import soundfile as sf
from numpy.typing import NDArray
from pydantic import Field
from scipy.optimize import linear_sum_assignment

from jobs.bench.conversations import Conversation, compose, telephone
from seral import storage
from seral.audio.decode import decode
from seral.audio.segments import read_blocks, recording_voice, runs
from seral.audio.speakers import changes, find_speakers
from seral.audio.voice import FRAME_S, SPEECH, Samples
from seral.audio.voices import VOICES, embed_windows, windows
from seral.corpora.formats.manifest import read_manifest
from seral.corpora.reading.utterance import Utterance
from seral.options import Options, run_job
from seral.pool.cut import BRIDGED_FRAMES, find_utterances, speaker_spans
from seral.pool.options import CutOptions
from seral.progress import track
from seral.schema import SAMPLE_RATE

COLLAR_FRAMES = 25
ONE_SPEAKER = 0.95
"""An utterance has one speaker if he has so much of the speech in it, everybody's counted."""
LEAST_CLIPS, MOST_CLIPS = 10, 30
"""Clips of a speaker who is taken, and those that are taken of one."""
STEADY = ("Rain", "Sea waves", "Helicopter", "Fire crackling", "Chainsaw")
"""Kinds of noise that go on."""


class SpeakerBenchOptions(Options):
    """Options of the benchmark of speakers."""

    root: str
    """Folder of the corpora, each for the reader `manifest`."""
    corpora: list[str] = Field(default=["ravdess", "nemo", "emodb", "urdu"], min_length=1)
    """Folders of corpora of speech."""
    chosen_on: list[str] = Field(default=["ravdess", "nemo"], min_length=1)
    """Corpora that constants were chosen on."""
    noise: str = "esc50_subset"
    """Folder of noises."""
    speakers: list[int] = Field(default=[1, 2, 3, 4], min_length=1)
    """Speakers of a conversation."""
    snr_db: list[float | None] = Field(default=[None, 10], min_length=1)
    """Noise; null = none."""
    voices: list[Literal["mfcc", "ge2e"]] = Field(default=["mfcc"], min_length=1)
    """Embeddings to compare."""
    conversations: int = Field(default=2, ge=1)
    """Of each kind."""
    minutes: float = Field(default=1.5, gt=0)
    """Length of a conversation."""
    leak_db: list[float] = Field(default=[-30, -20, -10], min_length=1)
    """Level at which a party leaks into the other's channel."""
    seed: int = Field(default=0, ge=0)
    """Draws speakers, clips, turns and noise."""
    out: str | None = None
    """A CSV file of all conversations."""


def errors(truth_TK: NDArray[np.bool_], answer_TJ: NDArray[np.bool_], counted_T: NDArray[np.bool_]) -> dict[str, float]:
    """Shares of the true speech, everybody's added up: missed, false and confused, whose sum is the DER.

    Speakers are matched one to one so that they agree most.
    """
    truth_TK, answer_TJ = truth_TK[counted_T], answer_TJ[counted_T]
    together_KJ = truth_TK.T.astype(np.int64) @ answer_TJ.astype(np.int64)
    true_K, answer_J = linear_sum_assignment(-together_KJ)
    correct_T = (truth_TK[:, true_K] & answer_TJ[:, answer_J]).sum(axis=1)
    true_T, answer_T = truth_TK.sum(axis=1), answer_TJ.sum(axis=1)
    total = max(1, int(true_T.sum()))
    parts = {
        "missed": np.maximum(true_T - answer_T, 0).sum() / total,
        "false": np.maximum(answer_T - true_T, 0).sum() / total,
        "confused": (np.minimum(true_T, answer_T) - correct_T).sum() / total,
    }
    return {"der": float(sum(parts.values())), **{name: float(value) for name, value in parts.items()}}


def outside_collars(truth_TK: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Frames farther than the collar from where anybody begins or ends, (T,)."""
    counted_T = np.ones(len(truth_TK), bool)
    for at in np.flatnonzero((np.diff(truth_TK.astype(np.int8), axis=0) != 0).any(axis=1)) + 1:
        counted_T[max(0, at - COLLAR_FRAMES) : at + COLLAR_FRAMES] = False
    return counted_T


def of_utterances(truth_TK: NDArray[np.bool_], spans: list[tuple[float, float]]) -> dict[str, float]:
    """Share of the utterances that have one speaker, and of speech by one alone that is in utterances."""
    covered_T, single = np.zeros(len(truth_TK), bool), list[bool]()
    for start_s, end_s in spans:
        first, last = round(start_s / FRAME_S), round(end_s / FRAME_S)
        own_K = truth_TK[first:last].sum(axis=0)
        single.append(bool(own_K.sum() and own_K.max() >= ONE_SPEAKER * own_K.sum()))
        covered_T[first:last] = True
    alone_T = truth_TK.sum(axis=1) == 1
    return {
        "utterances": len(spans),
        "one_speaker": float(np.mean(single)) if single else float("nan"),
        "speech_found": float((covered_T & alone_T).sum() / max(1, alone_T.sum())),
    }


def judge(conversation: Conversation, voices: list[Literal["mfcc", "ge2e"]]) -> Iterator[dict[str, Any]]:
    """Rows of measures of a conversation, one for each way of cutting it."""
    truth_TK, counted_T = conversation.speech_TK, outside_collars(conversation.speech_TK)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conversation.flac"
        peak = float(np.abs(conversation.samples).max())
        sf.write(path, conversation.samples / max(1.0, peak), SAMPLE_RATE, subtype="PCM_16")
        begin = time.process_time()
        voice_T = recording_voice(path)[: len(truth_TK)]
        listening_s = time.process_time() - begin
        speech_T = voice_T > SPEECH
        label_T = np.where(speech_T, 0, -1).astype(np.int8)
        plain = CutOptions(root=folder, out=folder)
        nobody_T = np.zeros(len(voice_T), bool)
        spans = speaker_spans(voice_T, label_T, nobody_T, nobody_T, plain)
        yield _row("none", None, truth_TK, counted_T, label_T, spans) | {"cpu_s": listening_s}
        pieces = windows(runs(label_T, BRIDGED_FRAMES))
        for name in voices:
            embed = VOICES[name]()
            begin = time.process_time()
            x_ND = embed_windows(read_blocks(path), pieces, embed)
            embedding_s = time.process_time() - begin
            for count in (None, truth_TK.shape[1]):
                begin = time.process_time()
                label_T = find_speakers(x_ND, pieces[: len(x_ND)], speech_T, count=count, most=6).label_T
                clustering_s = time.process_time() - begin
                overlap_T = changes(label_T)
                for overlaps in (False, True):
                    options = plain.model_copy(update={"overlaps": overlaps})
                    spans = speaker_spans(voice_T, label_T, overlap_T, speech_T, options)
                    row = _row(name, count, truth_TK, counted_T, label_T, spans)
                    both_T = truth_TK.sum(axis=1) > 1
                    flagged = {
                        "overlap_caught": float((overlap_T & both_T).sum() / max(1, both_T.sum())),
                        "flagged_right": float((overlap_T & both_T).sum() / max(1, overlap_T.sum())),
                        "flagged": float(overlap_T.sum() / max(1, speech_T.sum())),
                    }
                    yield row | flagged | {"overlaps": overlaps, "cpu_s": listening_s + embedding_s + clustering_s}


def _row(
    voices: str,
    count: int | None,
    truth_TK: NDArray[np.bool_],
    counted_T: NDArray[np.bool_],
    label_T: NDArray[np.int8],
    spans: list[tuple[float, float, int, float]],
) -> dict[str, Any]:
    answer_TJ = np.zeros((len(truth_TK), max(1, int(label_T.max(initial=0)) + 1)), bool)
    for start, end in runs(label_T, BRIDGED_FRAMES):
        answer_TJ[start:end, label_T[start]] = True
    return {
        "voices": voices,
        "count": "as asked" if count else "counted",
        "overlaps": True,
        "made_out": answer_TJ.shape[1],
        **errors(truth_TK, answer_TJ, np.ones(len(truth_TK), bool)),
        "der_collar": errors(truth_TK, answer_TJ, counted_T)["der"],
        **of_utterances(truth_TK, [(start_s, end_s) for start_s, end_s, *_ in spans]),
    }


def judge_parties(conversation: Conversation, leak_db: float, noise: Samples) -> dict[str, Any]:
    """Measures of `channel: apart` on a call of two speakers, and how much of it is the other's."""
    truth_TK = conversation.speech_TK
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "call.wav"
        call_SC = telephone(conversation, leak_db, noise, 20.0)
        sf.write(path, call_SC / max(1.0, float(np.abs(call_SC).max())), SAMPLE_RATE, subtype="PCM_16")
        options = CutOptions(root=folder, out=folder, channel="apart")
        begin = time.process_time()
        rows = find_utterances({"path": str(path), "source": "call.wav"}, options)["rows"]
        cpu_s = time.process_time() - begin
    answer_TJ, right = np.zeros((len(truth_TK), 2), bool), list[bool]()
    for row in rows:
        number = ("left", "right").index(row["audio_channel"])
        span = slice(round(row["start_s"] / FRAME_S), round(row["end_s"] / FRAME_S))
        answer_TJ[span, number] = True
        right.append(bool(truth_TK[span, number].sum() > truth_TK[span, 1 - number].sum()))
    alone_TK = truth_TK & (truth_TK.sum(axis=1, keepdims=True) == 1)
    return {
        "utterances": len(rows),
        "right_party": float(np.mean(right)) if right else float("nan"),
        "speech_found": float((answer_TJ & alone_TK).sum() / alone_TK.sum()),
        "other_taken": float((answer_TJ & alone_TK[:, ::-1]).sum() / alone_TK.sum()),
        "cpu_s": cpu_s,
    }


def run_speaker_bench(options: SpeakerBenchOptions) -> str:
    """Compose, cut and judge, and tell the means."""
    root = Path(options.root).expanduser()
    noise_files = _noises(root / options.noise)
    rows, calls = list[dict[str, Any]](), list[dict[str, Any]]()
    kinds = [(c, k, s, n) for c in range(len(options.corpora)) for k in options.speakers for s in options.snr_db
             for n in range(options.conversations)]  # fmt: skip
    clips = [_by_speaker(root / corpus) for corpus in options.corpora]
    with track("conversations", len(kinds) + len(clips) * len(options.leak_db)) as advance:
        for at, count, snr_db, number in kinds:
            rng = _generator(options.seed, options.corpora[at], count, snr_db, number)
            clips_of, noise = _drawn(clips[at], count, rng), decode(noise_files[rng.integers(len(noise_files))]).samples
            talk = compose(clips_of, None if snr_db is None else noise, snr_db or 0.0, options.minutes, rng)
            facts = {"corpus": options.corpora[at], "speakers": count, "snr_db": snr_db}
            facts |= {"seconds": len(talk.samples) / SAMPLE_RATE}
            rows += [facts | row for row in judge(talk, options.voices)]
            if options.out is not None:
                storage.write_bytes(options.out, pd.DataFrame(rows).to_csv(index=False).encode())
            advance(1)
        for at, corpus in enumerate(options.corpora):
            for leak_db in options.leak_db:
                rng = _generator(options.seed, corpus, leak_db)
                clips_of, noise = _drawn(clips[at], 2, rng), decode(noise_files[rng.integers(len(noise_files))]).samples
                talk = compose(clips_of, None, 0.0, options.minutes, rng)
                calls.append({"corpus": corpus, "leak_db": leak_db} | judge_parties(talk, leak_db, noise))
                advance(1)
    return summarise(pd.DataFrame(rows), pd.DataFrame(calls), options.chosen_on)


def summarise(rows: pd.DataFrame, calls: pd.DataFrame, chosen_on: list[str]) -> str:
    """The tables: by corpus, by speakers and noise, and calls."""
    rows = rows.assign(
        off_by=(rows["made_out"] - rows["speakers"]).abs(),
        chosen=np.where(rows["corpus"].isin(chosen_on), "chosen on", "judged on"),
        noise=np.where(rows["snr_db"].isna(), "none", rows["snr_db"].astype(str) + " dB"),
        speed=rows["seconds"] / rows["cpu_s"],
    )
    way = ["voices", "count"]
    several = rows["speakers"] > 1
    diarized = rows[rows["overlaps"]]
    measures = ["der", "der_collar", "missed", "false", "confused", "off_by", "speed"]
    tables = {
        "who speaks when, two and more speakers, by corpus": diarized[diarized["speakers"] > 1].groupby(
            [*way, "chosen", "corpus"]
        )[measures],
        "by speakers": diarized.groupby([*way, "speakers"])[measures],
        "by noise": diarized[diarized["speakers"] > 1].groupby([*way, "noise"])[measures],
        "utterances": rows[several].groupby([*way, "overlaps", "chosen", "corpus"])[
            ["utterances", "one_speaker", "speech_found"]
        ],
        "calls": calls.groupby(["leak_db", "corpus"])[calls.columns.drop(["leak_db", "corpus"]).tolist()],
    }
    if "flagged" in rows:
        tables["overlaps"] = diarized[diarized["speakers"] > 1].groupby([*way, "chosen", "corpus"])[
            ["overlap_caught", "flagged_right", "flagged"]
        ]
    return "\n\n".join(f"{title}\n{group.mean().round(3).to_string()}" for title, group in tables.items())


def _generator(*facts: object) -> np.random.Generator:
    """A generator for each conversation, whatever others there are."""
    facts = tuple(float(fact) if isinstance(fact, int) else fact for fact in facts)
    return np.random.default_rng(list(hashlib.sha256(repr(facts).encode()).digest()))


def _noises(folder: Path) -> list[Path]:
    rows = map(json.loads, (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return [folder / row["audio"] for row in rows if row["category"] in STEADY]


def _by_speaker(folder: Path) -> dict[str, list[Utterance]]:
    clips = dict[str, list[Utterance]]()
    for item in read_manifest(folder):
        if isinstance(item, Utterance):
            clips.setdefault(str(item.speaker), []).append(item)
    return {name: own for name, own in sorted(clips.items()) if len(own) >= LEAST_CLIPS}


def _drawn(clips: dict[str, list[Utterance]], count: int, rng: np.random.Generator) -> dict[str, list[Samples]]:
    """Clips of some speakers by chance."""
    names = [sorted(clips)[at] for at in rng.permutation(len(clips))[:count]]
    order = {name: rng.permutation(len(clips[name]))[:MOST_CLIPS] for name in names}
    return {name: [decode(clips[name][at].audio).samples for at in order[name].tolist()] for name in names}


if __name__ == "__main__":
    run_job(SpeakerBenchOptions, run_speaker_bench, __doc__)
