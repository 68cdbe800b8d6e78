"""How much emotion is linear in an encoder: each hidden state under a leave-speakers-out probe, beside two baselines.

The best state is read off the same folds, which is slightly optimistic; so it is for every encoder in the table.
"""

# N utterances · L encoder layers (L+1 hidden states) · D features · S samples · M mel bands · T mel frames
from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_models.encoders import SpeechEncoder, load_encoder
from ser_models.encoders.embedded import untrained_twin
from ser_models.encoders.mel import HOP_SAMPLES, log_mel, mel_filters
from seral.annotate.oracle import Oracle
from seral.features import FeatureOptions, encode_clips
from seral.options import Options
from seral.pool.decode import decode_flac
from seral.pool.shards import open_pool


class ProbeOptions(Options):
    """What is judged on what."""

    pool: str
    """A pool with gold labels and speakers; its labelled part is held in memory."""
    classes: tuple[str, ...]
    """Emotions to tell apart; other utterances are left out."""
    corpus: str | None = None
    """Only utterances of this corpus."""
    encoders: tuple[str, ...] = ("seral-tiny",)
    """Hub ids, folders or embedded encoders."""
    untrained: bool = True
    """Also each encoder's network with untrained weights."""
    folds: int = Field(default=6, ge=2)
    """Folds of speakers; no speaker is on both sides."""
    std: bool = True
    """Features are mean and standard deviation over time; false = the mean alone (log-mel always has both)."""


def probe_layers(options: ProbeOptions) -> str:
    """Unweighted average recall (UAR) of every hidden state, a line of text per encoder."""
    table, oracle = _labelled(options)
    emotion_N, speaker_N = np.array(oracle.emotions(table["utterance_id"].to_pylist())), table["speaker"].to_numpy()
    features = {"log-mel": _log_mel_statistics(table)}
    for name in options.encoders:
        encoder = load_encoder(name)
        features[name] = _pooled(encoder, table, options.std)
        if options.untrained:
            features[f"{name}, untrained"] = _pooled(untrained_twin(encoder), table, options.std)
    lines = [f"{len(emotion_N)} utterances, {len(set(speaker_N))} speakers, {len(options.classes)} classes"]
    for name, feature_NLD in features.items():
        scores = [_uar(feature_ND, emotion_N, speaker_N, options.folds) for feature_ND in feature_NLD.swapaxes(0, 1)]
        lines.append(f"{name}: best {max(scores):.3f} of " + " ".join(f"{score:.3f}" for score in scores))
    return "\n".join(lines)


def _labelled(options: ProbeOptions) -> tuple[pa.Table, Oracle]:
    pool = open_pool(options.pool)
    oracle = Oracle(pool, options.classes)
    columns = ["utterance_id", "audio", "corpus", "speaker", "duplicate_of"]
    table = pa.concat_tables(pool.read(shard, columns) for shard in pool.shards)
    keep = pc.and_(pc.is_null(table["duplicate_of"]), pc.is_in(table["utterance_id"], pa.array(oracle.answerable)))
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


def _uar(feature_ND: NDArray[np.float32], emotion_N: NDArray[np.str_], speaker_N: NDArray[Any], folds: int) -> float:
    predicted_N = np.empty_like(emotion_N)
    for train, test in GroupKFold(folds).split(feature_ND, emotion_N, speaker_N):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
        predicted_N[test] = model.fit(feature_ND[train].astype(np.float32), emotion_N[train]).predict(feature_ND[test])
    return float(recall_score(emotion_N, predicted_N, average="macro"))
