"""Encoder features of a pool, computed once per encoder and kept: a streaming Ray Data actor pool and its cache.

    FEATURES/<fingerprint>/encoder.json             what made them
    FEATURES/<fingerprint>/pooled/<shard>.parquet   schema.pooled_schema: mean and std of every hidden state, fp16
    FEATURES/<fingerprint>/frames-<k>/<shard>...    schema.FRAMES: hidden state k frame by frame, fp16
    FEATURES/<fingerprint>/frames-<k>-of-<clips>/<shard>...    of some clips alone (seral.features.frames)

The fingerprint covers the encoder's configuration and every weight, so features of two encoders never mix. The shapes
of batches follow from each clip alone: its features are the same bytes in any shard, beside any others.
"""

# B batch · N rows · S samples · T frames · D features · L hidden states (encoder layers + 1)
from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from ser_models.encoders import PrecomputedEncoder, SpeechEncoder, fingerprint, load_encoder
from ser_models.pooling import masked_mean_std
from seral import storage
from seral.audio.decode import BadAudio, decode_flac
from seral.cluster import ClusterOptions
from seral.errors import FeatureError
from seral.features.actors import map_shards
from seral.features.batches import clip_shapes, pad_clips
from seral.features.options import FeatureOptions
from seral.features.precomputed import fill_cache, load_frozen
from seral.features.store import FeatureStore, Half, frames_table
from seral.pool.derivations import note_derivation
from seral.pool.shards import Pool
from seral.schema import ENCODER_KEY, FRAMES, QUARANTINE, SAMPLE_RATE

Samples = NDArray[np.float32]
FORMAT = 2
"""Goes up whenever features, or the form in which they are kept, change for the same encoder."""


def extract_features(
    pool: Pool,
    encoder: str,
    *,
    uri: str | None = None,
    frames_layer: int | None = None,
    options: FeatureOptions | None = None,
    on: ClusterOptions | None = None,
    corpora: Collection[str] | None = None,
) -> FeatureStore:
    """Compute what is missing of the pooled features, and of the frames of one hidden state; open them.

    Where the encoder is a folder of features these are copied, and there are no frames.

    Of shards without a clip of the `corpora` neither; None = of the whole pool. Others are added when they are asked
    for.
    """
    options, on = options or FeatureOptions(), on or ClusterOptions()
    try:
        loaded = load_frozen(encoder) if frames_layer is None else load_encoder(encoder)
    except (OSError, ValueError) as error:
        raise FeatureError(str(error)) from error
    store = open_features(pool, encoder, loaded, uri=uri, options=options, on=on, corpora=corpora)
    if uri is not None:
        note_derivation(pool.uri, uri, "features")
    if missing := missing_shards(store, frames_layer):
        _describe(store, options, on.precision)
        if isinstance(loaded, PrecomputedEncoder):
            fill_cache(store, missing)
        else:
            _run(store, missing, frames_layer, options, on)
    return store


def open_features(
    pool: Pool,
    name: str,
    encoder: SpeechEncoder,
    *,
    uri: str | None,
    options: FeatureOptions,
    on: ClusterOptions,
    corpora: Collection[str] | None = None,
) -> FeatureStore:
    """The features of a pool, or of some corpora, by an encoder, loaded under a name, as far as they are there."""
    return FeatureStore(
        uri=storage.absolute(uri or storage.join(pool.uri, "features")),
        pool=pool,
        encoder=str(name),
        fingerprint=_store_key(encoder, options, on.precision),
        num_layers=encoder.num_layers,
        width=encoder.width,
        shards=tuple(pool.shards_of(corpora)),
    )


def missing_shards(store: FeatureStore, frames_layer: int | None) -> list[str]:
    """Shards whose pooled features, or frames of one hidden state, are not there."""
    tables = ["pooled"] if frames_layer is None else ["pooled", frames_table(frames_layer)]
    return [s for s in store.shards if not all(storage.exists(store.table_uri(t, s)) for t in tables)]


def _store_key(encoder: SpeechEncoder, options: FeatureOptions, precision: str) -> str:
    """The clip limit, the precision and the shapes of batches change the features, so they are part of their key."""
    if isinstance(encoder, PrecomputedEncoder):
        return f"{fingerprint(encoder)}-v{FORMAT}"  # nothing is computed
    name = f"{fingerprint(encoder)}-{options.max_clip_s:g}s-v{FORMAT}"
    return name if precision == "fp32" else f"{name}-{precision}"


def _describe(store: FeatureStore, options: FeatureOptions, precision: str) -> None:
    facts = {"encoder": store.encoder, "num_layers": store.num_layers, "width": store.width, "dtype": "float16"}
    storage.write_json(_facts_uri(store), facts | {"max_clip_s": options.max_clip_s, "precision": precision})


def encoder_facts(store: FeatureStore) -> dict[str, Any]:
    """Facts of the encoder that made the features of a store, from encoder.json."""
    facts: dict[str, Any] = storage.read_json(_facts_uri(store))
    return facts


def _facts_uri(store: FeatureStore) -> str:
    return storage.join(store.uri, store.fingerprint, "encoder.json")


def _run(
    store: FeatureStore,
    shards: Sequence[str],
    frames_layer: int | None,
    options: FeatureOptions,
    on: ClusterOptions,
) -> None:
    arguments = {
        "store": store,
        "frames_layer": frames_layer,
        "options": options,
        "device": "cuda" if on.use_gpu else "cpu",
        "precision": on.precision,
    }
    label = f"features of {len(shards)} shards"
    map_shards(store.pool, shards, FeatureActor, arguments, on, label, into=storage.join(store.uri, store.fingerprint))


class FeatureActor:
    """One encoder in one process: a shard of audio in, a shard of features out."""

    def __init__(
        self, store: FeatureStore, frames_layer: int | None, options: FeatureOptions, device: str, precision: str
    ) -> None:
        torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
        self.store, self.frames_layer, self.options = store, frames_layer, options
        self.precision = precision
        self.encoder = load_encoder(store.encoder).to(device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        table = self.store.pool.read(row["shard"], ["utterance_id", "audio"])
        pooled, frames, unusable = [], [], []
        for clip in encode_clips(self.encoder, table, self.options, self.precision, self.frames_layer):
            if clip.problem:
                unusable.append({"source": clip.utterance_id, "reason": "features", "detail": clip.problem})
                continue
            pooled.append({"utterance_id": clip.utterance_id, "mean": clip.mean, "std": clip.std})
            frames.append({"utterance_id": clip.utterance_id, "frames": clip.frames})
        self._write("quarantine", row["shard"], unusable, QUARANTINE)
        if self.frames_layer is not None:
            self._write(frames_table(self.frames_layer), row["shard"], frames, FRAMES)
        self._write("pooled", row["shard"], pooled, self.store.schema)
        return {"rows": table.num_rows}

    def _write(self, name: str, shard: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        table = pa.Table.from_pylist(rows, schema.with_metadata({ENCODER_KEY: self.store.fingerprint}))
        storage.write_table(self.store.table_uri(name, shard), table, row_group_rows=self.store.rows_in_group)


@dataclass(frozen=True, kw_only=True)
class EncodedClip:
    """The features of one clip as fp16 bytes, or what went wrong."""

    utterance_id: str
    mean: bytes = b""
    std: bytes = b""
    frames: bytes | None = None
    problem: str = ""


def encode_clips(
    encoder: SpeechEncoder, table: pa.Table, options: FeatureOptions, precision: str, frames_layer: int | None
) -> Iterator[EncodedClip]:
    """Encode a table of (utterance_id, audio), in batches whose shapes follow from each clip alone."""
    ids, clips, damaged = _decoded(table, options.max_clip_s)
    for name, problem in damaged.items():
        yield EncodedClip(utterance_id=name, problem=problem)
    for batch in clip_shapes(encoder, options.max_clip_s).batches([len(clip) for clip in clips]):
        with _computing(encoder, precision) as device:
            wave_BS, length_B = (tensor.to(device) for tensor in pad_clips(clips, batch))
            out = encoder(wave_BS, length_B)
            mean_LBD, std_LBD = masked_mean_std(out.hidden_LBTD.float(), out.mask_BT)
        mean_BLD, std_BLD = (stat.transpose(0, 1).half().cpu().numpy() for stat in (mean_LBD, std_LBD))
        for row, index in enumerate(batch.positions):
            arrays = [mean_BLD[row], std_BLD[row]]
            if frames_layer is not None:
                arrays.append(out.hidden_LBTD[frames_layer, row][out.mask_BT[row]].half().cpu().numpy())
            if all(np.isfinite(values).all() for values in arrays):
                mean, std, *frames = (values.tobytes() for values in arrays)
                yield EncodedClip(utterance_id=ids[index], mean=mean, std=std, frames=frames[0] if frames else None)
            else:
                yield EncodedClip(utterance_id=ids[index], problem="the encoder gives NaN or infinite features in fp16")


def encode_frames(
    encoder: SpeechEncoder, table: pa.Table, layer: int, max_clip_s: float, precision: str
) -> Iterator[tuple[str, Half]]:
    """Frames (T, D) of one hidden state of a table of (utterance_id, audio), the bytes that `encode_clips` gives.

    Only the layers below are run, so adapters may stand above them. Raises FeatureError for audio that is damaged.
    """
    ids, clips, damaged = _decoded(table, max_clip_s)
    if damaged:
        name, problem = next(iter(damaged.items()))
        raise FeatureError(f"{name} has features and {problem}: delete the features of its shard, they are stale")
    for batch in clip_shapes(encoder, max_clip_s).batches([len(clip) for clip in clips]):
        with _computing(encoder, precision) as device:
            wave_BS, length_B = (tensor.to(device) for tensor in pad_clips(clips, batch))
            hidden_BTD, mask_BT = encoder.lower(wave_BS, length_B, stop=layer)
        for row, index in enumerate(batch.positions):
            yield ids[index], hidden_BTD[row][mask_BT[row]].half().cpu().numpy()


def _decoded(table: pa.Table, max_clip_s: float) -> tuple[list[str], list[Samples], dict[str, str]]:
    """Ids and samples of the clips of a table, cut to a length, and what is wrong with those that are damaged."""
    limit = int(max_clip_s * SAMPLE_RATE)
    ids, clips, damaged = list[str](), list[Samples](), dict[str, str]()
    for name, audio in zip(table["utterance_id"].to_pylist(), table["audio"], strict=True):
        try:
            clips.append(decode_flac(audio.as_py())[:limit])
            ids.append(name)
        except BadAudio as error:
            damaged[name] = f"the stored audio is damaged, {error}"
    return ids, clips, damaged


@contextmanager
def _computing(encoder: SpeechEncoder, precision: str) -> Iterator[torch.device]:
    """Inference on the device of an encoder."""
    device = next(encoder.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        yield device
