"""Speech encoders, adapters, heads, losses and metrics for speech emotion recognition, without Ray and storage.

The names below are the whole public API; they are loaded when first used, since torch takes seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ser_models.adapters import ADAPTERS
    from ser_models.adapters.composition import attach_adapters
    from ser_models.adapters.merge import adapters_disabled, merge_adapters
    from ser_models.adapters.store import load_adapter, save_adapter
    from ser_models.build import SerModel, build_model, load_model, save_model
    from ser_models.encoders import SpeechEncoder, load_encoder, save_encoder
    from ser_models.exports import FORMATS, write_export
    from ser_models.fitting import FitOptions, fit_dimensions, fit_head, predict_pooled
    from ser_models.inference import Model
    from ser_models.intervals import paired_difference
    from ser_models.losses import LOSSES, multitask_loss
    from ser_models.metrics import METRICS, ccc, uar
    from ser_models.objectives import OBJECTIVES
    from ser_models.pooling import POOLINGS, masked_mean_std

__all__ = [
    "ADAPTERS",
    "FORMATS",
    "LOSSES",
    "METRICS",
    "OBJECTIVES",
    "POOLINGS",
    "FitOptions",
    "Model",
    "SerModel",
    "SpeechEncoder",
    "adapters_disabled",
    "attach_adapters",
    "build_model",
    "ccc",
    "fit_dimensions",
    "fit_head",
    "load_adapter",
    "load_encoder",
    "load_model",
    "masked_mean_std",
    "merge_adapters",
    "multitask_loss",
    "paired_difference",
    "predict_pooled",
    "save_adapter",
    "save_encoder",
    "save_model",
    "uar",
    "write_export",
]

_HOME = {
    "ADAPTERS": "adapters",
    "FORMATS": "exports",
    "LOSSES": "losses",
    "METRICS": "metrics",
    "OBJECTIVES": "objectives",
    "POOLINGS": "pooling",
    "FitOptions": "fitting",
    "Model": "inference",
    "SerModel": "build",
    "SpeechEncoder": "encoders",
    "adapters_disabled": "adapters.merge",
    "attach_adapters": "adapters.composition",
    "build_model": "build",
    "ccc": "metrics",
    "fit_dimensions": "fitting",
    "fit_head": "fitting",
    "load_adapter": "adapters.store",
    "load_encoder": "encoders",
    "load_model": "build",
    "masked_mean_std": "pooling",
    "merge_adapters": "adapters.merge",
    "multitask_loss": "losses",
    "paired_difference": "intervals",
    "predict_pooled": "fitting",
    "save_adapter": "adapters.store",
    "save_encoder": "encoders",
    "save_model": "build",
    "uar": "metrics",
    "write_export": "exports",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ser_models' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ser_models.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
