"""Send a job file to a Ray cluster and follow it: python jobs/submit.py job=loop 'args=--config run.yaml'"""

import sys
import time
from pathlib import Path

from ray.job_submission import JobStatus, JobSubmissionClient

from seral.cluster import runtime_env
from seral.errors import OptionError
from seral.options import Options, run_job


class SubmitOptions(Options):
    """What to send where."""

    job: str
    """Name of a file in jobs/, without .py."""
    args: str | None = None
    """Its arguments."""
    address: str | None = None
    """The cluster's job server, e.g. http://head:8265; None = RAY_ADDRESS or the cluster of this machine."""


def submit(options: SubmitOptions) -> None:
    """Submit, print the logs as they come, and end with the job's own success or failure."""
    jobs = Path(__file__).parent
    if not (jobs / f"{options.job}.py").is_file():
        names = ", ".join(sorted(path.stem for path in jobs.glob("*.py")))
        raise OptionError(f"no job {options.job!r} in {jobs}; there are: {names}")
    client = JobSubmissionClient(options.address)
    entrypoint = f"python {options.job}.py {options.args or ''}".strip()
    job = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env(jobs))
    print(f"submitted {job}: {entrypoint}", file=sys.stderr)
    _follow(client, job)
    status = client.get_job_status(job)
    print(f"{job}: {status}", file=sys.stderr)
    sys.exit(0 if status == JobStatus.SUCCEEDED else 1)


def _follow(client: JobSubmissionClient, job: str) -> None:
    printed = 0
    while True:
        done = client.get_job_status(job).is_terminal()
        logs = client.get_job_logs(job)
        print(logs[printed:], end="", flush=True)
        printed = len(logs)
        if done:
            return
        time.sleep(2)


if __name__ == "__main__":
    run_job(SubmitOptions, submit, __doc__)
