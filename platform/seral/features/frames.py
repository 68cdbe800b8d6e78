"""Frames of one hidden state: kept for what is trained on and judged by, made from audio again for a large pool."""

# T frames · D features · N rows (frames of all clips)
from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from ser_models.encoders import SpeechEncoder, load_encoder
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.features.actors import each_item
from seral.features.audio import encode_frames, encoder_facts
from seral.features.options import FeatureOptions
from seral.features.store import CLIPS_AT_ONCE, FeatureStore, Half, frames_table
from seral.pool.shards import Pool
from seral.schema import ENCODER_KEY, FRAMES


class FrameReader:
    """Frames of a hidden state of any clips: read where they are kept, else made from audio, some clips at a time.

    The bytes are the same either way. The encoder is the one that made the features; adapters may stand above the
    hidden state.
    """

    def __init__(self, store: FeatureStore, layer: int, encoder: SpeechEncoder) -> None:
        self.store, self.layer, self.encoder = store, layer, encoder
        self._facts = encoder_facts(store)
        self._audio: tuple[str, pa.Table] | None = None

    def pieces(self, ids: Sequence[str]) -> Iterator[dict[str, Half]]:
        """Frames (T, D) by id of clips anywhere in the pool."""
        missing = dict.fromkeys(ids)
        for frames in self.store.frames_by_table(self.layer, ids):
            missing = {name: None for name in missing if name not in frames}
            yield frames
        for shard in self.store.shards if missing else ():
            yield from self._made(shard, list(missing))

    def of_shard(self, shard: str, ids: Sequence[str]) -> Iterator[dict[str, Half]]:
        """Frames (T, D) by id of clips of one shard."""
        uri = self.store.table_uri(frames_table(self.layer), shard)
        yield from self.store.read_frames(uri, ids) if storage.exists(uri) else self._made(shard, ids)

    def _made(self, shard: str, ids: Sequence[str]) -> Iterator[dict[str, Half]]:
        """Frames of those of the clips that lie in a shard, from its audio."""
        if self._audio is None or self._audio[0] != shard:
            self._audio = shard, self.store.pool.read(shard, ["utterance_id", "audio"])
        audio = self._audio[1]
        rows = pc.index_in(pa.array(ids, pa.string()), audio["utterance_id"].combine_chunks()).drop_null()
        for at in range(0, len(rows), CLIPS_AT_ONCE):
            clips = audio.take(rows[at : at + CLIPS_AT_ONCE])
            max_clip_s, precision = self._facts["max_clip_s"], self._facts["precision"]
            yield dict(encode_frames(self.encoder, clips, self.layer, max_clip_s, precision))


def frame_bytes(pool: Pool, encoder: str, options: FeatureOptions, corpora: Collection[str] | None = None) -> int:
    """Size of the frames of one hidden state of a pool, or of the shards of some corpora, in bytes."""
    model = load_encoder(encoder)
    duration_s = np.minimum(
        np.asarray(pool.column("duration_s", pool.shards_of(corpora)), np.float64), options.max_clip_s
    )
    return int(2 * model.width * model.frame_rate_hz * duration_s.sum())


def keep_frames(store: FeatureStore, layer: int, ids: Collection[str], on: ClusterOptions, processes: int = 1) -> None:
    """Compute and keep the frames of a hidden state of those of the clips that have none, by so many processes.

    They go to tables of their own, named after the clips: trainings side by side do not disturb each other.
    """
    names = pa.chunked_array([_names(store, uri) for uri in store.frame_tables(layer)], pa.string())
    asked = pa.array(sorted(ids), pa.string())
    missing = asked.filter(pc.invert(pc.is_in(asked, names))).to_pylist()
    if not missing:
        return
    name = hashlib.sha256("\n".join(missing).encode()).hexdigest()[:12]
    arguments = {"store": store, "layer": layer, "name": name, "device": "cuda" if on.use_gpu else "cpu"}
    rows_of = store.index().rows_by_shard(missing)
    items = [{"shard": shard, "positions": rows.tobytes()} for shard, rows in rows_of.items()]
    each_item(items, FrameActor, arguments, on, processes, f"frames of {len(missing)} clips")


def _names(store: FeatureStore, uri: str) -> pa.Array:
    return storage.read_table(uri, ["utterance_id"])["utterance_id"].combine_chunks()


class FrameActor:
    """One encoder in one process: some clips of a shard in, a table of their frames out."""

    def __init__(self, store: FeatureStore, layer: int, name: str, device: str) -> None:
        torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
        self.store, self.table = store, f"{frames_table(layer)}-of-{name}"
        self.reader = FrameReader(store, layer, load_encoder(store.encoder).to(device))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Encode the rows of a shard of features, given as int32 bytes."""
        table = storage.read_rows(
            self.store.table_uri("pooled", row["shard"]), np.frombuffer(row["positions"], np.int32), ["utterance_id"]
        )
        schema = FRAMES.with_metadata({ENCODER_KEY: self.store.fingerprint})
        uri = self.store.table_uri(self.table, row["shard"])
        with storage.table_writer(uri, schema, row_group_rows=self.store.rows_in_group) as writer:
            for frames in self.reader.of_shard(row["shard"], table["utterance_id"].to_pylist()):
                for name, frames_TD in frames.items():
                    writer.append({"utterance_id": name, "frames": frames_TD.tobytes()})
        return {"rows": table.num_rows}


@dataclass(frozen=True, kw_only=True)
class FrameSource:
    """The cached frames of a hidden state, averaged in groups."""

    store: FeatureStore
    layer: int
    """The hidden state."""
    stride: int
    """So many frames in a row are averaged to one."""

    def shard(self, shard: str, ids: Iterable[str]) -> dict[str, Half]:
        """Frames (T, D) of the ids that lie in a shard."""
        frames = self.store.shard_frames(self.layer, shard, set(ids))
        return {name: averaged(frames_TD, self.stride) for name, frames_TD in frames.items()}

    def frames(self, ids: Iterable[str]) -> dict[str, Half]:
        """Frames of all of them in one piece: for the labelled part, not for a pool."""
        wanted = set(ids)
        return {name: f.copy() for shard in self.store.shards for name, f in self.shard(shard, wanted).items()}


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Lengths and feature statistics of the clips that a training learns from."""

    length: dict[str, dict[str, int]]
    """Shard -> id -> frames."""
    mean_D: NDArray[np.float64]
    std_D: NDArray[np.float64]
    """Of every feature, over all frames."""

    @property
    def total(self) -> int:
        """Frames N of all clips."""
        return sum(frames for shard in self.length.values() for frames in shard.values())


def averaged(frames_TD: Half, stride: int) -> Half:
    """Means of `stride` frames in a row, (T, D) -> (⌈T / stride⌉, D); the last group may be smaller."""
    if stride == 1:
        return frames_TD
    starts = np.arange(0, len(frames_TD), stride)
    count_T1 = np.diff(starts, append=len(frames_TD))[:, None]
    return (np.add.reduceat(frames_TD.astype(np.float32), starts) / count_T1).astype(np.float16)


def survey(source: FrameSource, ids: Iterable[str], minimal_frames: int = 1) -> Survey:
    """Lengths and feature statistics of some utterances; those of fewer frames are left out."""
    wanted, length = set(ids), dict[str, dict[str, int]]()
    width = source.store.width
    total, sum_D, square_D = 0, np.zeros(width), np.zeros(width)
    for shard in source.store.shards:
        clips = {n: f for n, f in sorted(source.shard(shard, wanted).items()) if len(f) >= minimal_frames}
        if not clips:
            continue
        length[shard] = {name: len(frames_TD) for name, frames_TD in clips.items()}
        frames_ND = np.concatenate(list(clips.values())).astype(np.float64)
        total, sum_D, square_D = total + len(frames_ND), sum_D + frames_ND.sum(0), square_D + (frames_ND**2).sum(0)
    if not total:
        raise TrainError(f"none of {len(wanted)} utterances has {minimal_frames} frames to learn from")
    # In float64 the difference of squares keeps its digits: what comes in has eleven bits.
    variance_D = np.maximum(square_D / total - (sum_D / total) ** 2, 0)
    return Survey(length=length, mean_D=sum_D / total, std_D=np.sqrt(variance_D))
