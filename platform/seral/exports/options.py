"""Options of exports of pools."""

from __future__ import annotations

from pydantic import Field

from seral.options import Options


class ExportOptions(Options):
    """Options of an export."""

    pool: str
    """The pool: a folder, an address, or POOL@NAME for a snapshot."""
    format: str
    """One of seral.exports.FORMATS."""
    out: str
    """The folder to make; nothing may be there yet."""
    labels: str | None = None
    """Labels instead of the pool's gold labels and votes: those of a run, a folder, or a Parquet table."""
    licence: str | None = None
    """The licence of the speech, such as CC-BY-4.0, where the format has a field for it."""
    duplicates: bool = False
    """Clips that are marked as duplicates of others too."""
    shard_mb: float = Field(default=500.0, gt=0)
    """Size of a file that holds many clips, in MB."""
