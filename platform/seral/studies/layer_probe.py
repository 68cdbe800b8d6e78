"""A probe of encoders: the emotion that is linear in each hidden state, on unseen speakers, beside two baselines.

The best state is read off the same folds, which is slightly optimistic; so it is for every encoder in the table.

RUN/probe.csv    encoder, state, seed, uar
RUN/probe.md     the table that is printed
RUN/probe.png    UAR by hidden state
"""

# N utterances · L hidden states · D features · S samples · M mel bands · T mel frames
from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_models.encoders import SpeechEncoder, load_encoder
from ser_models.encoders.embedded import untrained_twin
from ser_models.encoders.mel import HOP_SAMPLES, log_mel, mel_filters
from seral import storage
from seral.audio.decode import decode_flac
from seral.features.audio import encode_clips
from seral.features.options import FeatureOptions
from seral.features.precomputed import need_network
from seral.features.provenance import check_unheard
from seral.figures.markdown import markdown
from seral.pool.shards import open_pool
from seral.progress import track
from seral.studies.layer_options import ProbeOptions
from seral.task.cells import write_table
from seral.task.gold import Oracle
from seral.task.run import claim

Features = Callable[[], NDArray[np.float32]]
LOG_MEL = "log-mel mean and std"


def probe_layers(options: ProbeOptions) -> str:
    """Unweighted average recall (UAR) of every hidden state, as a table; beside it, size and speed on one thread."""
    table, oracle = _labelled(options)
    for name in options.encoders:
        need_network(name, "a probe, which measures speed too,")
        check_unheard(name, table, table["utterance_id"].to_pylist())
    if options.run is not None:
        options = options.model_copy(update={"run": storage.absolute(options.run)})
        claim(options, "probe", {"run"})
    emotion_N, speaker_N = np.array(oracle.emotions(table["utterance_id"].to_pylist())), table["speaker"].to_numpy()
    subjects: dict[str, tuple[int, Features]] = {LOG_MEL: (0, partial(_log_mel_statistics, table))}
    for name in options.encoders:
        encoder = load_encoder(name)
        twins = {name: encoder} | ({f"{name}, untrained": untrained_twin(encoder)} if options.untrained else {})
        for title, model in twins.items():
            size = sum(parameter.numel() for parameter in model.parameters())
            subjects[title] = (size, partial(_pooled, model, table, options.std))
    audio_s = sum(table["duration_s"].to_pylist())
    lines, scores = [], []
    with track("probing", len(subjects)) as advance:
        for title, (size, extract) in subjects.items():
            started = time.perf_counter()
            with one_thread():
                feature_NLD = extract()
            speed = audio_s / (time.perf_counter() - started)
            uars = _scores(feature_NLD, emotion_N, speaker_N, options)
            scores.append(uars.assign(encoder=title))
            lines.append(_line(title, size, speed, uars))
            advance(1)
    text = f"{len(emotion_N)} utterances, {len(set(speaker_N))} speakers, {len(options.classes)} classes\n\n"
    text += markdown(pd.DataFrame(lines))
    if options.run is not None:
        _write(options.run, text, pd.concat(scores))
    return text


def _scores(
    feature_NLD: NDArray[np.float32], emotion_N: NDArray[np.str_], speaker_N: NDArray[Any], options: ProbeOptions
) -> pd.DataFrame:
    """UAR by state and seed."""
    rows = [
        {"state": state, "seed": seed, "uar": _uar(feature_ND, emotion_N, speaker_N, options.folds, seed)}
        for state, feature_ND in enumerate(feature_NLD.swapaxes(0, 1))
        for seed in options.seeds
    ]
    return pd.DataFrame(rows)


def _line(title: str, size: int, speed: float, uars: pd.DataFrame) -> dict[str, Any]:
    mean_L = uars.groupby("state")["uar"].mean().to_numpy()
    best = int(mean_L.argmax())
    return {
        "encoder": title,
        "parameters": f"{size:,}" if size else "",
        "fp16_mb": f"{2e-6 * size:.1f}" if size else "",
        "times_real_time": f"{speed:.0f}",
        "best_state": best,
        "uar": float(mean_L[best]),
        "uar_std": float(uars[uars["state"] == best]["uar"].std(ddof=1)),
        "by_state": " ".join(f"{100 * uar:.1f}" for uar in mean_L),
    }


def _write(run: str, text: str, scores: pd.DataFrame) -> None:
    # Imported here: drawing takes a second to load.
    from seral.figures.studies import probe_by_state

    write_table(run, scores, "probe", shown=text, figure=probe_by_state(scores))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use a single thread, so that speeds can be compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _labelled(options: ProbeOptions) -> tuple[pa.Table, Oracle]:
    pool = open_pool(options.pool)
    oracle = Oracle(pool, options.classes)
    columns = ["utterance_id", "audio", "duration_s", "corpus", "speaker", "duplicate_of"]
    table = pa.concat_tables(pool.read(shard, columns) for shard in pool.shards)
    keep = pc.and_(pc.is_null(table["duplicate_of"]), pa.array(oracle.answers(table["utterance_id"])))
    if options.corpus is not None:
        keep = pc.and_(keep, pc.equal(table["corpus"], options.corpus))
    return table.filter(pc.and_(keep, pc.is_valid(table["speaker"]))), oracle


def _pooled(encoder: SpeechEncoder, table: pa.Table, std: bool) -> NDArray[np.float32]:
    clips = {clip.utterance_id: clip for clip in encode_clips(encoder, table, FeatureOptions(), "fp32", None)}
    ordered = [clips[name] for name in table["utterance_id"].to_pylist()]
    parts = [[clip.mean for clip in ordered], [clip.std for clip in ordered]][: 1 + std]
    shape = (len(ordered), encoder.num_layers + 1, encoder.width)
    return np.concatenate([np.frombuffer(b"".join(part), np.float16).reshape(shape) for part in parts], -1)


def _log_mel_statistics(table: pa.Table) -> NDArray[np.float32]:
    rows = []
    for audio in table["audio"]:
        wave_1S = torch.from_numpy(decode_flac(audio.as_py()))[None]
        frames = wave_1S.shape[1] // HOP_SAMPLES
        level_MT = log_mel(wave_1S, mel_filters(80), frames=frames, limit_samples=wave_1S.shape[1])[0]
        rows.append(torch.cat([level_MT.mean(1), level_MT.std(1)]).numpy())
    return np.stack(rows)[:, None]


def _uar(
    feature_ND: NDArray[np.float32], emotion_N: NDArray[np.str_], speaker_N: NDArray[Any], folds: int, seed: int
) -> float:
    predicted_N = np.empty_like(emotion_N)
    for train, test in GroupKFold(folds, shuffle=True, random_state=seed).split(feature_ND, emotion_N, speaker_N):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
        predicted_N[test] = model.fit(feature_ND[train].astype(np.float32), emotion_N[train]).predict(feature_ND[test])
    return float(recall_score(emotion_N, predicted_N, average="macro"))
