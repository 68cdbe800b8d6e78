"""Active learning for speech emotion recognition, on Ray.

The names below are the whole public API; they are loaded when first used, since Ray and torch take seconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from seral.versions import __version__

if TYPE_CHECKING:
    from seral.errors import SeralError
    from seral.features.audio import extract_features
    from seral.loop.loop import run_loop
    from seral.loop.options import LoopOptions
    from seral.loop.session import Session
    from seral.loop.status import loop_status
    from seral.models.options import PredictOptions
    from seral.models.predict import predict
    from seral.pool.check import check_pool
    from seral.pool.ingest import import_corpus
    from seral.pool.options import ImportOptions
    from seral.pool.shards import Pool, open_pool
    from seral.pool.stats import pool_stats
    from seral.report.report import write_run_report

__all__ = [
    "ImportOptions",
    "LoopOptions",
    "Pool",
    "PredictOptions",
    "SeralError",
    "Session",
    "__version__",
    "check_pool",
    "extract_features",
    "import_corpus",
    "loop_status",
    "open_pool",
    "pool_stats",
    "predict",
    "run_loop",
    "write_run_report",
]

_HOME = {
    "LoopOptions": "loop.options",
    "loop_status": "loop.status",
    "Session": "loop.session",
    "run_loop": "loop.loop",
    "SeralError": "errors",
    "extract_features": "features.audio",
    "PredictOptions": "models.options",
    "predict": "models.predict",
    "ImportOptions": "pool.options",
    "import_corpus": "pool.ingest",
    "Pool": "pool.shards",
    "check_pool": "pool.check",
    "open_pool": "pool.shards",
    "pool_stats": "pool.stats",
    "write_run_report": "report.report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'seral' has no attribute {name!r}")
    return getattr(importlib.import_module(f"seral.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
