"""A folder that peft loads by itself: `AutoPeftModelForFeatureExtraction`, `PeftModel.from_pretrained(base, FOLDER)`.

adapter_config.json adapter_model.safetensors    the adapters, by the names that the base has in `AutoModel`
encoder/                                         the base, where it has no hub id
model.json head.safetensors                      layer statistics and head, which peft has no room for
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ser_models.adapters import ADAPTERS
from ser_models.adapters.merge import unload_peft
from ser_models.adapters.store import CONFIG, WEIGHTS, save_adapter
from ser_models.build import SerModel, save_model
from ser_models.encoders import SpeechEncoder, save_encoder

PREFIX = "base_model.model."


def check_peft(model: SerModel) -> None:
    """Raise ValueError where an adapter is not peft's, and where there is none."""
    encoder = model.encoder
    if not encoder.adapters or any(ADAPTERS[kind].peft is None for kind in encoder.adapters):
        raise ValueError(
            f"peft has no layers of {'+'.join(encoder.adapters) or 'a model without adapters'}: it reads "
            f"{', '.join(kind for kind, adapter in ADAPTERS.items() if adapter.peft)}; take hf, onnx or torch-export"
        )


def write_peft(model: SerModel, folder: Path, *, base: str | None = None, home: str | None = None) -> None:
    """Write the adapters that peft made, the head beside them, and the encoder where it has no hub id (`base`).

    `home`: where the folder will lie, if it is moved afterwards; the configuration names its encoder by it.
    """
    encoder = model.encoder
    save_adapter(encoder, folder)
    save_model(model, folder)
    if base is None:
        base = f"{home or folder.resolve()}/encoder"
        save_encoder(unload_peft(copy.deepcopy(encoder)), folder / "encoder")
    _rename(encoder, folder, base)


def _rename(encoder: SpeechEncoder, folder: Path, base: str) -> None:
    """Give the saved adapters the base's address, and the names that its layers have there."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config |= {"base_model_name_or_path": base, "task_type": "FEATURE_EXTRACTION"}
    # Of a sequence-to-sequence checkpoint AutoModel gives both halves, whose layers have the same names.
    inner = "" if encoder.checkpoint() is encoder.model else "encoder."
    if inner:
        for field in ("target_modules", "feedforward_modules"):
            if config.get(field):
                config[field] = _below(config[field], inner)
        weights = {
            name.replace(PREFIX, PREFIX + inner, 1): tensor for name, tensor in load_file(folder / WEIGHTS).items()
        }
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _below(pattern: str, inner: str) -> str:
    """A pattern of `injection.target_pattern` for layers of the encoder alone."""
    return pattern.replace(r"(.*\.)?layers", rf"{inner.rstrip('.')}\.layers", 1)
