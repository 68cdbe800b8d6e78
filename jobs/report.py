"""Write the report of a run: python jobs/report.py run=runs/emodb"""

from seral.options import Options, run_job
from seral.report import write_run_report


class ReportOptions(Options):
    """Which run."""

    run: str
    """The run folder."""


if __name__ == "__main__":
    run_job(ReportOptions, lambda options: write_run_report(options.run), __doc__)
