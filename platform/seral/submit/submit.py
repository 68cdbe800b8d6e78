"""Jobs on a Ray cluster, through its job server: submit, follow, stop.

A submission is named after the run that it works on, so that submitting twice is harmless: a run that is being worked
on is followed, one that has ended well is left alone, and one that failed or was stopped is taken up again, which
resumes it. `seral-loop-1a2b3c4d-2` is the second submission of that run.

Ray knows a good end and a bad one. A run that awaits labels of people comes to the good one; here it is PAUSED, which
its log tells, and it is taken up again like one that was stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests
import yaml
from ray.exceptions import AuthenticationError, RpcError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import ser_models
from seral.cluster import PACKAGE, runtime_env
from seral.errors import AwaitingLabels, JobError
from seral.options import CHECK_FLAG, PAUSED, SUBMITTED_FLAG, secrets_in
from seral.progress import say
from seral.submit.options import JobOptions, SubmitOptions

try:
    import aiohttp
except ImportError:
    raise JobError("jobs are submitted with Ray's dashboard client: pip install 'seral[submit]'") from None

CONFIG = "config.yaml"
WORKED_ON = "seral_run"
OPTIONS = "seral_options"
PAUSE = "PAUSED"
"""The state of a submission that awaits labels."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0
MOST_AT_FIRST_S = 60.0
"""A server that never answered is rather a wrong address."""
PATHS = ("run", "out", "pool", "features", "feature_cache")
"""Options that are addresses in every job that has them."""
CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""Loggers of Ray's that report every upload."""
IDLE_GPUS = "the options of the job leave them idle: add --set cluster.use_gpu=true"
SERVER_ERRORS = 500
"""Status codes from which on a server may think better of it."""
FOLDERS_OR_NAMES = ("encoder", "text_encoder", "teacher")

Value = TypeVar("Value")


@dataclass(frozen=True)
class Submission:
    """A job on the cluster."""

    name: str
    is_new: bool
    state: str


class Jobs:
    """The job server of a cluster, tried again while it cannot be reached."""

    def __init__(self, address: str | None = None, patience_s: float = 600) -> None:
        if address is not None and address != "auto" and "://" not in address:
            raise JobError(f"{address} is no address of a job server: write http://{address}")
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._patience_s = min(patience_s, MOST_AT_FIRST_S)
        self._client = self._insist(lambda: JobSubmissionClient(address, headers=_headers()))
        self._patience_s = patience_s

    def submit(self, options: SubmitOptions) -> Submission:
        """Send a job, unless a submission of its run is in hand. Raises JobError for options that it would not take."""
        resolved = check(options)
        if options.gpus and not uses_gpus(resolved):
            raise JobError(f"{options.gpus:g} GPUs are asked for, and {IDLE_GPUS}, or leave out --gpus")
        run, digest = _run_of(resolved), _digest(yaml.safe_dump(resolved))
        stem = submission_stem(options.job, resolved)
        number, latest = self._latest(stem)
        if latest is not None:
            if not latest.status.is_terminal():
                if (latest.metadata or {}).get(OPTIONS) != digest:
                    raise JobError(
                        f"{run} is being worked on by {stem}-{number}, with other options; wait for it, or end it with "
                        f"`seral jobs stop {stem}-{number}`"
                    )
                return Submission(f"{stem}-{number}", False, str(latest.status))
            same = (latest.metadata or {}).get(OPTIONS) == digest
            if same and not options.again and self._row_at_end(latest)["state"] == JobStatus.SUCCEEDED:
                return Submission(f"{stem}-{number}", False, str(latest.status))
        name = f"{stem}-{number + 1}"
        with _staged(options.folder, resolved) as folder:
            shipped = runtime_env(folder)
            shipped["env_vars"] = {**shipped["env_vars"], **options.env}
            memory = None if options.memory_gb is None else int(options.memory_gb * 1e9)
            entrypoint = shlex.join([options.python, *options.program(), "--config", CONFIG, SUBMITTED_FLAG])

            def send() -> None:
                try:
                    self._client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=name,
                        runtime_env=shipped,
                        metadata={WORKED_ON: run, OPTIONS: digest, "job": options.job},
                        entrypoint_num_cpus=options.cpus,
                        entrypoint_num_gpus=options.gpus,
                        entrypoint_memory=memory,
                    )
                except RuntimeError as error:
                    if "already exists" not in str(error):  # an answer that got lost, or somebody else, just now
                        raise

            self._insist(send)
        return Submission(name, True, str(JobStatus.PENDING))

    def all(self) -> list[dict[str, Any]]:
        """Every submission, the newest first."""
        jobs = [job for job in self._insist(self._client.list_jobs) if job.submission_id]
        return [_row(job) for job in sorted(jobs, key=lambda job: -(job.start_time or 0))]

    def status(self, name: str) -> dict[str, Any]:
        """State, run, times and message of a submission; the state is PAUSED if it awaits labels."""
        return self._row_at_end(self._details(name))

    def stop(self, name: str, wait_s: float = 60) -> str:
        """End a submission and its workers; its run can be resumed. Returns the state it came to."""
        if not self._details(name).status.is_terminal():
            self._insist(lambda: self._client.stop_job(name))
        until = time.monotonic() + wait_s
        while not (status := self._details(name).status).is_terminal() and time.monotonic() < until:
            time.sleep(0.5)
        return str(status)

    def logs(self, name: str) -> str:
        """Everything a submission has printed so far."""
        self._details(name)
        return str(self._insist(lambda: self._client.get_job_logs(name)))

    def follow(self, name: str, write: Callable[[str], object]) -> dict[str, Any]:
        """Pass on what a submission prints until it has ended; a lost connection is made again. Returns its status."""
        self._details(name)
        printed = 0

        async def tail() -> None:
            nonlocal printed
            received = 0
            async for text in self._client.tail_job_logs(name):  # from the start, at every connection
                fresh = text[max(0, printed - received) :]
                received += len(text)
                if fresh:
                    write(fresh)
                    printed = max(printed, received)

        while True:
            self._insist(lambda: asyncio.run(tail()))
            # The stream ends quietly when a connection does, so its end alone means nothing.
            if (details := self._details(name)).status.is_terminal():
                unprinted = self.logs(name)[printed:]
                if unprinted:
                    write(unprinted)
                return self._row_at_end(details)
            time.sleep(FIRST_WAIT_S)

    def _row_at_end(self, job: JobDetails) -> dict[str, Any]:
        """The row of a job, with the state and the message of one that awaits labels."""
        row = _row(job)
        if job.status == JobStatus.SUCCEEDED:
            for line in self.logs(row["name"]).splitlines():
                if line.startswith(PAUSED):
                    return row | {"state": PAUSE, "message": line.removeprefix(PAUSED)}
        return row

    def _latest(self, stem: str) -> tuple[int, JobDetails | None]:
        submissions = {}
        for job in self._insist(self._client.list_jobs):
            head, dash, number = (job.submission_id or "").rpartition("-")
            if dash and head == stem and number.isdigit():
                submissions[int(number)] = job
        last = max(submissions, default=0)
        return last, submissions.get(last)

    def _details(self, name: str) -> JobDetails:
        def ask() -> JobDetails:
            try:
                return self._client.get_job_info(name)
            except RuntimeError as error:
                if "404" in str(error):
                    names = ", ".join(str(job["name"]) for job in self.all()[:5]) or "none"
                    raise JobError(f"the cluster knows no job {name!r}; the latest are: {names}") from None
                raise

        return self._insist(ask)

    def _insist(self, call: Callable[[], Value]) -> Value:
        """The value of a call, tried again while the server does not answer."""
        until, wait_s = time.monotonic() + self._patience_s, FIRST_WAIT_S
        while True:
            try:
                return call()
            except AuthenticationError as error:
                raise JobError(
                    f"the cluster wants a token: put the one of its head (~/.ray/auth_token there, or `ray "
                    f"get-auth-token`) into ~/.ray/auth_token or RAY_AUTH_TOKEN here; {str(error).splitlines()[0]}"
                ) from None
            except (ConnectionError, requests.RequestException, aiohttp.ClientError, RpcError, RuntimeError) as error:
                if not _may_pass(error):
                    raise JobError(f"the job server refused: {error}") from None
                if time.monotonic() + wait_s > until:
                    raise JobError(
                        f"no job server answers after {self._patience_s:g} s: {error}\n"
                        "Name it with --address or RAY_ADDRESS (http://HEAD:8265), or start one here: ray start --head"
                    ) from None
                say(f"the job server does not answer ({_first_line(error)}); again in {wait_s:g} s")
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def submission_stem(job: str, resolved: Mapping[str, Any]) -> str:
    """The name of all submissions of a run, `seral-loop-1a2b3c4d`."""
    return f"seral-{job.replace('_', '-')}-{_digest(_run_of(resolved) or yaml.safe_dump(dict(resolved)))[:8]}"


def check(options: JobOptions) -> dict[str, Any]:
    """The resolved options of a job, as the job itself understands them here. Raises OptionError or JobError."""
    command = [sys.executable, *options.program(options.folder), CHECK_FLAG]
    command += ["--config", options.config] if options.config else []
    roots = {str(folder.resolve().parent) for folder in (PACKAGE, Path(ser_models.__path__[0]))}
    own = [] if options.folder is None else [str(Path(options.folder).resolve())]
    paths = os.pathsep.join([*own, *sorted(roots), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, *options.overrides],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    if done.returncode:
        message = (done.stderr.strip() or done.stdout.strip()).removeprefix("error: ")
        raise JobError(f"{options.job} does not take these options: {message}")
    resolved = yaml.safe_load(done.stdout)
    for option, reason in secrets_in(resolved):
        raise JobError(f"{option}: {reason}")
    for name in PATHS + FOLDERS_OR_NAMES:
        value = resolved.get(name)
        if not isinstance(value, str) or "://" in value or os.path.isabs(os.path.expanduser(value)):
            continue
        if name in PATHS or value.startswith(".") or os.path.isdir(value):
            raise JobError(
                f"{name}: {value!r} must be absolute, or an address such as s3://..., on storage of all nodes"
            )
    return dict(resolved)


@contextmanager
def _staged(folder: str | None, resolved: Mapping[str, Any]) -> Iterator[Path]:
    """The options and, where there is a folder of job files, a copy of it, in a folder to upload."""
    with tempfile.TemporaryDirectory(prefix="seral-job-") as parent:
        stage = Path(parent) / "jobs"
        stage.mkdir()
        if folder is not None:
            left_out = shutil.ignore_patterns("__pycache__", "configs", "runs", "data", ".*")
            shutil.copytree(folder, stage, ignore=left_out, dirs_exist_ok=True)
        (stage / CONFIG).write_text(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True), encoding="utf-8")
        yield stage


def exit_code(status: Mapping[str, Any]) -> int:
    """Exit status for a shell of a job that has ended."""
    codes = {str(JobStatus.SUCCEEDED): 0, PAUSE: AwaitingLabels.status}
    return codes.get(status["state"], 1)


def uses_gpus(values: Any) -> bool:
    """Whether `use_gpu` is true anywhere in the options of a job, or there is no such option."""
    named = list(_values_of("use_gpu", values))
    return not named or any(named)


def _values_of(name: str, values: Any) -> Iterator[Any]:
    if isinstance(values, Mapping) and name in values:
        yield values[name]
    for inner in values.values() if isinstance(values, Mapping) else values if isinstance(values, list) else ():
        yield from _values_of(name, inner)


def _run_of(resolved: Mapping[str, Any]) -> str:
    return str(resolved.get("run") or resolved.get("out") or "")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _row(job: JobDetails) -> dict[str, Any]:
    """Plain values of a submission, as tables and JSON show them."""
    metadata = job.metadata or {}
    seconds = None if job.start_time is None else ((job.end_time or time.time() * 1000) - job.start_time) / 1000
    return {
        "name": job.submission_id,
        "state": str(job.status),
        "run": metadata.get(WORKED_ON, ""),
        "started": job.start_time and time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.start_time / 1000)),
        "seconds": seconds and round(seconds, 1),
        "message": job.message or "",
    }


def _headers() -> dict[str, str]:
    """Headers of every request: RAY_JOB_HEADERS (JSON), and the token where there is one, whatever RAY_AUTH_MODE."""
    headers: dict[str, str] = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
    token = os.environ.get("RAY_AUTH_TOKEN")
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    if token is None and file.is_file():
        token = file.read_text(encoding="utf-8")
    return {"Authorization": f"Bearer {token.strip()}", **headers} if token and token.strip() else headers


def _may_pass(error: Exception) -> bool:
    """True for an error that may be of the moment: a server that is starting, or a connection that broke.

    An answer that refuses (4xx), and an address that is none, stay as they are.
    """
    if isinstance(error, aiohttp.ClientResponseError):
        return error.status >= SERVER_ERRORS
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= SERVER_ERRORS
    if isinstance(error, RuntimeError):
        code = re.search(r"status code (\d+)", str(error))
        return "WebSocket" in str(error) or (code is not None and int(code[1]) >= SERVER_ERRORS)
    return not isinstance(error, ValueError)  # as requests calls an address without http://


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
