"""Options of a report."""

from __future__ import annotations

from pydantic import Field

from seral.options import Options


class ReportOptions(Options):
    """Options of a report: the run that it is about, what is on its page, and runs to compare it with."""

    run: str
    """The run folder."""
    audio_mb: float = Field(default=3.0, ge=0)
    """Megabytes for clips to hear: mistakes, doubtful labels, picks, the map. 0 = none: whoever has a page
    with clips has these voices."""
    audio_beside: bool = False
    """Put these clips into files in a folder `audio` beside the page, not into it: it is smaller, and opens faster."""
    clip_s: float = Field(default=6.0, gt=0)
    """Only the first so many seconds of a clip are put on the page."""
    map_points: int = Field(default=1500, ge=0, le=5000)
    """Clips on the map of the pool at most, those that were picked among them; 0 = no map."""
    price_per_label: float = Field(default=0.0, ge=0)
    """Price of a label, in any currency, for curves of scores against money."""
    price_per_hour: float = Field(default=0.0, ge=0)
    """Price of an hour of an annotator, in the same currency; both prices add up."""
    svg: bool = False
    """Write every figure as SVG beside the page, in a folder `svg`, too."""
    against: list[str] = Field(default=[])
    """Folders of runs to compare with, on a page `comparison.html`: same folds and seeds, paired differences."""
