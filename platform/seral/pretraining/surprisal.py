"""Surprisal of every clip to a pretrained encoder, for the strategy `alps`: computed once a pretraining, and kept.

TAPT/surprisal/<shard>.parquet    utterance_id, embedding (fp16, K): the loss by kinds of sound, length 1
"""

# B clips · S samples · K units
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from ser_models.encoders import load_encoder
from ser_models.objectives import OBJECTIVES, Objective, find_objective, load_objective, surprisal
from seral import storage
from seral.audio.decode import BadAudio, decode_flac
from seral.cluster import ClusterOptions
from seral.errors import StateError
from seral.features.actors import map_shards
from seral.features.batches import clip_shapes, pad_clips
from seral.features.options import FeatureOptions
from seral.pool.shards import Pool
from seral.pretraining.layout import ENCODER, OBJECTIVE, OBJECTIVE_SUM
from seral.pretraining.options import TaptRunOptions
from seral.pretraining.tapt import DONE
from seral.schema import SAMPLE_RATE

FOLDER = "surprisal"


def extract_surprisal(pool: Pool, ids: Sequence[str], tapt: str, options: FeatureOptions, on: ClusterOptions) -> str:
    """Compute what is missing for these utterances; returns the folder of the tables."""
    folder = storage.join(tapt, FOLDER)
    missing = [shard for shard in pool.shards if not storage.exists(storage.join(folder, f"{shard}.parquet"))]
    if missing:
        arguments: dict[str, Any] = {"pool": pool, "ids": frozenset(ids), "tapt": tapt, "options": options}
        arguments["device"] = "cuda" if on.use_gpu else "cpu"
        map_shards(pool, missing, SurprisalActor, arguments, on, f"surprisal of {len(missing)} shards", into=folder)
    return folder


def open_objective(tapt: str) -> Objective:
    """The objective of a finished pretraining, ready to measure."""
    record = storage.read_json(storage.join(tapt, DONE))
    if (kind := record["options"].get("objective")) is not None and OBJECTIVES[kind].reads != "waves":
        raise StateError(f"{tapt} was pretrained with {kind}, which has no loss of clips: alps needs masked prediction")
    if not storage.exists(storage.join(tapt, OBJECTIVE)):
        raise StateError(f"{tapt} holds an encoder without its pretraining objective: remove it and pretrain again")
    with storage.local_copy(storage.join(tapt, ENCODER)) as local:
        encoder = load_encoder(str(local))
    options, teacher = TaptRunOptions.model_validate(record["options"]), None
    if options.refresh_every is None:
        teacher = load_encoder(record["encoder"])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / OBJECTIVE
        storage.copy_file(storage.join(tapt, OBJECTIVE), file)
        if storage.checksum(file).sha256 != record.get(OBJECTIVE_SUM, storage.checksum(file).sha256):
            raise storage.damaged(storage.join(tapt, OBJECTIVE))
        kind = find_objective(options.objective, encoder.family)
        return load_objective(OBJECTIVES[kind].build, encoder, options.objective_options(kind), file, teacher=teacher)


class SurprisalActor:
    """One objective in one process: a shard of audio in, a shard of surprisals out."""

    def __init__(self, pool: Pool, ids: frozenset[str], tapt: str, options: FeatureOptions, device: str) -> None:
        torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())
        self.pool, self.ids, self.tapt, self.options, self.device = pool, ids, tapt, options, device
        self.objective = open_objective(tapt).to(device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        table = self.pool.read(row["shard"], ["utterance_id", "audio"])
        names, clips = [], []
        options, shortest = self.options, self.objective.encoder.minimal_samples
        for name, audio in zip(table["utterance_id"].to_pylist(), table["audio"], strict=True):
            if name not in self.ids:
                continue
            try:
                clip = decode_flac(audio.as_py())[: int(options.max_clip_s * SAMPLE_RATE)]
            except BadAudio:
                continue  # it has no features either
            if len(clip) >= shortest:
                names.append(name)
                clips.append(clip)
        embeddings: dict[str, bytes] = {}
        # One by one: the wrong answers of contrastive objectives are drawn from all frames of a batch.
        shapes = replace(clip_shapes(self.objective.encoder, options.max_clip_s), rows=1)
        for batch in shapes.batches([len(clip) for clip in clips]):
            wave_BS, length_B = pad_clips(clips, batch)
            rng = np.random.default_rng(0)
            value_BK = surprisal(self.objective, wave_BS.to(self.device), length_B.to(self.device), rng)
            half_BK = value_BK.half().cpu().numpy()
            embeddings |= {names[index]: half_BK[row].tobytes() for row, index in enumerate(batch.positions)}
        ids = sorted(embeddings)
        rows = pa.table({"utterance_id": ids, "embedding": pa.array([embeddings[n] for n in ids], pa.binary())})
        storage.write_table(storage.join(self.tapt, FOLDER, f"{row['shard']}.parquet"), rows)
        return {"rows": table.num_rows}
