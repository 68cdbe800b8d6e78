"""Disk that the report of a run takes: charts' library, figures, tables, and the clips that it has room for."""

from __future__ import annotations

from importlib import resources

from seral.pool.shards import Pool
from seral.report.options import ReportOptions

FIGURES_BYTES = 1_600_000
"""Figures as files and inside the page, with the tables: 1.2 to 2.2 MB in the reports that were looked at."""
RATINGS_BYTES = 850_000
"""A report of ratings alone, which has no charts and no clips."""
INSIDE = 4 / 3
"""Characters of base64 for a byte of audio inside a page."""


def report_bytes(options: ReportOptions, pool: Pool, *, classes: bool) -> float:
    """Bytes of the report of a run on a pool."""
    if not classes:
        return RATINGS_BYTES
    library = len(resources.files("seral.report").joinpath("static", "charts", "vega.min.js").read_bytes())
    speech: int = sum(shard["bytes"] for shard in pool.manifest["shards"].values())
    inside = 1 if options.audio_beside else INSIDE
    return FIGURES_BYTES + library + min(1e6 * options.audio_mb, inside * speech)
