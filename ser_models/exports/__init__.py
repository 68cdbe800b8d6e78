"""Trained models in formats that are loaded without seral.

`FORMATS` is the table: name -> how a model is written to a folder. `write_export` prepares a model for any of them, and
`check_export` says beforehand whether it can.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_models.adapters.merge import merge_adapters
from ser_models.audio_text import AudioTextPool
from ser_models.build import SerModel
from ser_models.exports.graph import check_onnx, write_onnx, write_torch_export
from ser_models.exports.hf import write_hf
from ser_models.exports.peft_folder import check_peft, write_peft


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format, and how a model is written in it."""

    write: Callable[..., None]
    """(model, folder) and settings by keyword; writes into a folder that is there."""
    check: Callable[[SerModel], None] = lambda model: None
    """Raises ValueError for a model that it cannot hold, and ImportError where it cannot be written on this machine."""
    merged: bool = True
    """Whether adapters are folded into the weights first, as far as they can be."""
    reads: bool = False
    """Whether a model that reads transcripts can be given them."""
    calibrated: bool = True
    """Whether a temperature of the probabilities goes along."""
    abstains: bool = False
    """Whether the probability below which a class is better not named goes along."""


FORMATS: dict[str, Format] = {
    "hf": Format(write=write_hf, reads=True, abstains=True),
    "peft": Format(write=write_peft, check=check_peft, merged=False, reads=True, calibrated=False),
    "onnx": Format(write=write_onnx, check=check_onnx),
    "torch-export": Format(write=write_torch_export),
}
"""Formats by name, as `seral export --format` takes them."""


def check_export(model: SerModel, kind: str) -> None:
    """Raise ValueError for an unknown format and for a model that it cannot hold, ImportError where a package lacks."""
    if kind not in FORMATS:
        raise ValueError(f"no format {kind!r}; known: {', '.join(FORMATS)}")
    if not FORMATS[kind].reads and isinstance(model.pool, AudioTextPool) and model.pool.text.alone:
        raise ValueError(f"this model reads transcripts alone, and {kind} takes audio: export it as hf")
    FORMATS[kind].check(model)


def write_export(
    model: SerModel,
    folder: str | Path,
    kind: str,
    *,
    temperature: float = 1.0,
    abstain_below: float | None = None,
    base: str | None = None,
    home: str | None = None,
) -> None:
    """Write a model to a folder in a format of `FORMATS`. Its adapters are merged in place, except for peft.

    `temperature`: class logits are divided by it; peft has no room for it. `abstain_below`: the probability below which
    a class is better not named, for hf alone. `base`: hub id of the encoder, and `home`:
    where the folder will lie in the end, both for peft, whose configuration names them. Raises as `check_export`.
    """
    check_export(model, kind)
    form = FORMATS[kind]
    if form.merged:
        merge_adapters(model.encoder, leave=True)
    settings: dict[str, Any] = {"temperature": temperature} if form.calibrated else {"base": base, "home": home}
    if form.abstains:
        settings["abstain_below"] = abstain_below
    Path(folder).mkdir(parents=True, exist_ok=True)
    form.write(model.eval().requires_grad_(False), Path(folder), **settings)
