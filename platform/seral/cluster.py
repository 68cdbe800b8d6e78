"""Ray: the one place that starts or joins a cluster and says what code the workers get.

Ray itself is imported when it is needed: options of a cluster are listed without it.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

import ser_models
from ser_models.registry import PACKAGES
from seral import storage
from seral.errors import AwaitingLabels, JobError, SeralError, TrainError, sentence
from seral.options import Options
from seral.process import ending
from seral.process.failures import explanation
from seral.process.guard import Guard
from seral.process.patience import RayletDied, patience
from seral.process.vital import Watch
from seral.progress import say, verbose

if TYPE_CHECKING:
    import ray

PACKAGE = Path(__file__).parent
"""The folder of seral itself, which workers get as it is here."""
POLL_S = 1.0
START_S = 120.0
"""Time that a local Ray's node has to come up, and its agents to answer: on a busy machine they need it."""
STARTS = 3
"""Times that a local Ray is started. Its raylet ends where an agent has not said its ports within 15 s, which no option
changes: on a machine ten times too busy, in one start of ten."""
WORKER_ENV = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "2"}
"""Environment of Ray's processes. Two arenas: with one a thread, memory that a thread freed is of no use to another."""
SIGNALS_ARE_OURS = {"RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1", "TUNE_DISABLE_SIGINT_HANDLER": "1"}
"""Environment in which neither Ray's core, which ends SIGTERM in a dump and an abort, nor Tune takes signals."""
VITAL = {"raylet": "Ray's raylet", "gcs_server": "Ray's GCS"}
"""Processes of a local Ray without which it cannot go on, and their names in a sentence."""


class ClusterOptions(Options):
    """Options of the Ray cluster that does the work."""

    address: str | None = None
    """Ray address; None starts a local Ray, `auto` joins the cluster this machine belongs to."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs a local Ray offers; None = all of this machine."""
    gpus: int | None = Field(default=None, ge=0)
    """GPUs a local Ray offers; None = all of this machine."""
    feature_actors: int | None = Field(default=None, ge=1)
    """Encoders running side by side in feature extraction; None = one per CPU, or one per GPU when `use_gpu`."""
    use_gpu: bool = False
    """Run encoders and training on GPUs."""
    precision: str = Field(default="fp32", pattern="^(fp32|bf16)$")
    """fp32, or bf16 autocast: for GPUs, and CPUs with avx512_bf16 or AMX, where training takes half the time."""
    train_workers: int = Field(default=0, ge=0)
    """Ray Train workers of one training; 0 trains inside the trajectory's own process, so that trajectories run side
    by side."""
    parts: int = Field(default=1, ge=1)
    """Processes that the pool of one trajectory of the loop is divided among, to be scored and selected from; 1 = the
    trajectory's own. The picks are the same: more of them pay where there are fewer trajectories than CPUs."""
    cpus_per_worker: int = Field(default=1, ge=1)
    """CPUs a Ray Train worker reserves."""
    max_failures: int = Field(default=2, ge=0)
    """Times that work goes on without a worker, or a node, that was lost: a training from its last checkpoint, a
    trajectory of the loop from its last round, a selection in parts, or a cell of a study, from its start."""


def connect(options: ClusterOptions | None = None) -> None:
    """Join or start Ray once per process; a Ray that already runs in this process is kept.

    Raises JobError when no cluster answers at the address, or it does not let us in, or a local Ray does not come up.
    """
    import ray

    if ray.is_initialized():
        return
    options = options or ClusterOptions()
    os.environ.update({name: os.environ.get(name, value) for name, value in SIGNALS_ARE_OURS.items()})
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # CPU tasks keep seeing what the user set
    arguments: dict[str, Any] = {"log_to_driver": verbose(), "logging_level": logging.ERROR}
    if not storage.inside_job():  # a job's own environment came with its submission, and Ray refuses to be told twice
        arguments["runtime_env"] = {"env_vars": worker_env()}
    address = options.address or os.environ.get("RAY_ADDRESS")
    if address:
        _join(arguments | {"address": address})
    else:
        _start(arguments | {"num_cpus": options.cpus, "num_gpus": options.gpus})
    ending.take_signals_back()
    quiet_ray_data()
    if options.use_gpu:
        _expect_gpus(joined=bool(address))


def _join(arguments: dict[str, Any]) -> None:
    """Join the cluster at an address."""
    import ray

    ending.end_with_the_command(close=ray.shutdown, stop=ray.shutdown)
    try:
        _init(arguments)
    except ConnectionError as error:
        raise JobError(
            f"{error}. Is its head running, and is the address right? A head that asks for a token wants "
            f"RAY_AUTH_MODE=token here, with the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error


def _start(arguments: dict[str, Any]) -> None:
    """Start a local Ray; one whose raylet dies on the way up is ended, and started anew."""
    import ray

    os.environ.setdefault("RAY_agent_register_timeout_ms", f"{START_S * 1000:.0f}")
    os.environ.setdefault("RAY_enable_metrics_collection", "0")  # core workers complain of nobody to send them to
    arguments |= {"address": "local", "include_dashboard": False}  # else it joins whatever cluster this machine has
    _bring_a_token()
    for left in reversed(range(STARTS)):
        guard = Guard(speaks=ending.active()) if sys.platform == "linux" else None
        stop: Callable[[], object] = guard.finish if guard else ray.shutdown
        ending.end_with_the_command(close=ray.shutdown, stop=stop, farewell=guard.farewell if guard else lambda: None)
        try:
            with guard.marking() if guard else nullcontext(), patience(START_S):
                _init(arguments)
        except Exception as error:  # Ray has no narrower one
            stop()
            if left and isinstance(error, RayletDied):
                say(f"Ray did not come up: {error}; it is started anew")
                continue
            reason = " ".join(str(error).split()).rstrip(".")
            raise JobError(
                f"Ray did not come up on this machine: {reason}. A process of it may have been killed, or the machine "
                "is busy, or short of memory or disk; the same command again starts it anew"
            ) from error
        if guard:
            look_after_ray(guard)
        return


def _init(arguments: dict[str, Any]) -> None:
    import ray

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own start-up deprecations concern no user of seral
        ray.init(**arguments)


def _expect_gpus(*, joined: bool) -> None:
    """Raise JobError, or say that work waits where there are nodes to come, when Ray offers no GPU."""
    if _gpus():
        return
    if not joined:
        raise JobError("cluster.use_gpu is true, and Ray sees no GPU on this machine: leave it out, or see to it")
    say("cluster.use_gpu is true, and the cluster offers no GPU yet: work waits until it does")


def _gpus() -> int:
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def _bring_a_token() -> None:
    """Give a local Ray its token by the environment where it could not keep one: it writes to ~/.ray of itself."""
    home = os.path.expanduser("~")
    keeps = os.access(home, os.W_OK) or os.path.exists(os.path.join(home, ".ray", "auth_token"))
    if not keeps and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def look_after_ray(guard: Guard) -> None:
    """End the command in a sentence when its local Ray dies, and have what Ray spills to disk deleted at the end."""
    import ray

    node, worker = ray._private.worker._global_node, ray._private.worker.global_worker
    guard.clear(node.get_session_dir_path())
    if ending.active():
        processes = {title: node.all_processes[name][0].process for name, title in VITAL.items()}
        Watch(processes, lambda: hasattr(worker, "core_worker"), node.get_logs_dir_path())  # shutdown drops it first


def quiet_ray_data() -> None:
    """Turn off Ray Data's progress bars, since seral shows its own; errors of workers arrive as what they are."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    logger = logging.getLogger("ray.data")
    logger.setLevel(logging.ERROR)
    for handler in logger.handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)  # what fails is raised, and Ray's log file has the rest


def runtime_env(jobs: str | Path = "jobs") -> dict[str, Any]:
    """Files of a submitted job on the cluster: the folder of job files as working directory, and both packages.

    The packages go as source folders: every worker runs this one version of the code, and no folder called `platform`
    is shipped. As a wheel they would not do: Ray installs a wheel with everything it depends on, gigabytes of it.
    """
    packages = [str(folder.resolve()) for folder in (PACKAGE, Path(ser_models.__path__[0]))]
    return {"working_dir": str(jobs), "py_modules": packages, "env_vars": worker_env()}


def worker_env() -> dict[str, str]:
    """Environment variables of workers: limits of their threads, and packages whose code may be named."""
    plugins = os.environ.get(PACKAGES)
    return WORKER_ENV | ({PACKAGES: plugins} if plugins else {})


def cpu_count() -> int:
    """CPUs the connected cluster offers, at least 1."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def run_side_by_side(
    tasks: Mapping[str, Callable[[], ray.ObjectRef]], on: ClusterOptions, advance: Callable[[int], None]
) -> None:
    """Start named tasks in order, as many at once as have room, and see them all to their end.

    `advance` is called now and then with how many have ended since. Raises the first failure as the SeralError it was,
    or a TrainError, with the task's name; AwaitingLabels, which is none, as it is.
    """
    import ray

    waiting, running = list(tasks), dict[ray.ObjectRef, str]()
    failures: list[tuple[str, ray.exceptions.RayError]] = []
    while waiting or running:
        limit = max(1, cpu_count() // max(1, on.parts, on.train_workers * on.cpus_per_worker))  # nodes come and go
        while waiting and len(running) < limit:
            name = waiting.pop(0)
            running[tasks[name]()] = name
        ready, _ = ray.wait(list(running), timeout=POLL_S)
        for reference in ready:
            name = running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                failures.append((name, error))
        advance(len(ready))
    if failures:
        name, failure = failures[0]
        cause = failure.cause if isinstance(failure, ray.exceptions.RayTaskError) else failure
        if isinstance(cause, AwaitingLabels):
            raise cause
        reason = (None if cause is failure else explanation(cause)) or sentence(failure)
        message = f"{len(failures)} of {len(tasks)} failed; {name}: {reason}"
        if cause is failure:
            message += f" (lost more often than cluster.max_failures, which is {on.max_failures})"
        raise (type(cause) if isinstance(cause, SeralError) else TrainError)(message) from failure


def encoder_actors(options: ClusterOptions) -> int:
    """Number of encoders that run side by side."""
    if options.feature_actors is not None:
        return options.feature_actors
    if options.use_gpu:
        return max(1, _gpus())
    if idle := _gpus():
        say(f"{idle} GPUs of the cluster are not used: cluster.use_gpu=true runs encoders and training on them")
    return cpu_count()
