"""Files of a pretraining, and the adapters that it may have left beside its encoder.

FOLDER/encoder/                the encoder, as any other
FOLDER/encoder/adapter/        with the objective local_attributes: the adapter that fine-tuning starts from
FOLDER/encoder/labels.parquet  where it has learnt from labels, see seral.features.provenance
FOLDER/objective.safetensors   heads and clusters of the pretraining loss
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ser_models.adapters.store import read_kinds

ENCODER, OBJECTIVE, ADAPTER = "encoder", "objective.safetensors", "adapter"
OBJECTIVE_SUM = "objective_sha256"
"""The checksum of its objective in the record of a pretraining."""


def pretrained_adapters(encoder: str) -> dict[str, Any]:
    """Kinds and options of the adapters that were pretrained on an encoder; empty where there are none."""
    folder = Path(encoder) / ADAPTER
    return read_kinds(folder) if folder.is_dir() else {}
