"""Options of jobs on clusters, and of the manifests of jobs, clusters and services."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from seral.errors import JobError
from seral.options import Options
from seral.secrets.addresses import is_secret
from seral.submit.hardening import SecurityOptions
from seral.verbs import VERBS, file_of


class Environment(Options):
    """Options of whatever runs on a cluster."""

    env: dict[str, str] = Field(default={})
    """Environment variables of all its processes: AWS_ENDPOINT_URL, MLFLOW_TRACKING_URI, ... No secrets."""

    @field_validator("env")
    @classmethod
    def _refuse_secret_variables(cls, env: dict[str, str]) -> dict[str, str]:
        for variable in filter(is_secret, env):
            raise ValueError(
                f"{variable} is a secret, and a job's environment is stored and shown: set it where the cluster's "
                f"nodes start; on Kubernetes put it into a Secret and name that: --on secret=NAME"
            )
        return env


class JobOptions(Environment):
    """Options of a job: its verb or file, and the options that this gets."""

    job: str
    """A verb that may be a job (seral.verbs.VERBS), or the name of a file in `folder`, without .py."""
    config: str | None = None
    """YAML file of its options, on this machine: they travel along."""
    overrides: list[str] = Field(default=[])
    """`key=value` for single options."""
    folder: str | None = None
    """Job files and modules of your own: they travel along, as the working directory of the job."""

    def program(self, folder: str | None = None) -> list[str]:
        """Arguments of `python` that run the job: a file in `folder`, else the verb. Raises JobError for neither."""
        if self.folder is not None and (Path(self.folder) / file_of(self.job)).is_file():
            return [str(Path(folder or "") / file_of(self.job))]
        verb = VERBS.get(self.job.replace("_", "-"))
        if verb is not None and verb.job:
            return ["-m", "seral.verbs", verb.name]
        if verb is not None:
            raise JobError(f"{verb.name} is no cluster job: run `seral {' '.join(verb.words)}` here")
        own = [] if self.folder is None else [path.stem for path in Path(self.folder).glob("*.py")]
        names = ", ".join(sorted([verb.name for verb in VERBS.values() if verb.job] + own))
        where = "" if self.folder is None else f" in {Path(self.folder).absolute()}"
        raise JobError(f"no job {self.job!r}{where}; there are: {names}. Job files of your own: --folder FOLDER")


class SubmitOptions(JobOptions):
    """Options of a submission: a job, and what it takes of the cluster."""

    cpus: float | None = Field(default=None, ge=0)
    """CPUs that the job's own process reserves: with more than none it may start on a worker node. None = none, on the
    head. Its workers ask for theirs."""
    gpus: float | None = Field(default=None, ge=0)
    """GPUs that the job's own process reserves."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Memory that the job's own process reserves, GB."""
    python: str = "python"
    """The interpreter on the cluster; `python` is whatever PATH says on its head."""
    again: bool = False
    """Submit although the run has come to its end."""


class PodOptions(Environment):
    """Options of a Ray cluster on Kubernetes."""

    image: str
    """The image of head and workers: `seral config Dockerfile` prints its recipe."""
    namespace: str | None = None
    """The namespace of everything; None = the one that kubectl is set to."""
    workers: int = Field(default=2, ge=0)
    """Workers at the start, and at least."""
    max_workers: int | None = Field(default=None, ge=1)
    """Largest number of workers that Ray may ask for; None = no more than `workers`."""
    worker_cpus: int = Field(default=4, ge=1)
    """CPUs of each worker."""
    worker_memory_gb: int = Field(default=16, ge=1)
    """Memory of each worker, GiB."""
    worker_gpus: int = Field(default=0, ge=0)
    """GPUs of each worker."""
    head_cpus: int = Field(default=2, ge=1)
    """CPUs of the head."""
    head_memory_gb: int = Field(default=8, ge=1)
    """Memory of the head, GiB."""
    spot: str | None = Field(default=None, pattern=r"^[^=]+=[^=]+$")
    """Label of machines that may be taken away, key=value: workers go there, the head elsewhere.
    cloud.google.com/gke-spot=true, eks.amazonaws.com/capacityType=SPOT, kubernetes.azure.com/scalesetpriority=spot."""
    claim: str | None = None
    """A ReadWriteMany volume claim that all pods mount."""
    mount: str = "/mnt/seral"
    """Folder where the pods mount the claim."""
    secret: str | None = None
    """A secret whose entries become environment variables: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    SERAL_LEDGER_PASSWORD, MLFLOW_TRACKING_PASSWORD, ..."""
    service_account: str | None = None
    """The service account of all pods, which clouds give rights by; None = the namespace's default."""
    pull_secrets: list[str] = Field(default=[])
    """Secrets by which the image is pulled from a private registry."""
    queue: str | None = None
    """A queue of Kueue's: all waits there for its quota, and the cluster does not grow or shrink."""
    token: bool = True
    """Whoever talks to the cluster needs a token, at its dashboard and between pods (KubeRay 1.5.1 or later)."""
    token_secret: str | None = None
    """A secret of yours with the token, under `auth_token`; None = the operator makes one."""
    patch: str | None = None
    """YAML file of merge patches (RFC 7386), laid over the manifests of the same `kind`; entries of lists that have a
    `name` or `groupName` are merged by it."""
    security: SecurityOptions = SecurityOptions()
    """Rights of the pods, and whom they reach."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.max_workers is not None and self.max_workers < self.workers:
            raise ValueError(f"max_workers is {self.max_workers}, below workers, {self.workers}")
        if self.queue and self.max_workers not in (None, self.workers):
            raise ValueError("a cluster that waits in a queue keeps its size: leave out max_workers")
        if self.token_secret and not self.token:
            raise ValueError("token_secret names a secret, but token is false: leave one of them out")
        return self

    @property
    def grows(self) -> bool:
        """Whether Ray asks for workers beyond those at the start."""
        return (self.max_workers or self.workers) > self.workers


class ManifestOptions(JobOptions, PodOptions):
    """Options of a job's manifests: the job, and the cluster that it gets for itself."""

    retries: int = Field(default=2, ge=0)
    """New clusters after a failed attempt."""
    deadline_s: int | None = Field(default=None, ge=1)
    """The job is ended after so long, waiting included."""


class StandingOptions(PodOptions):
    """Options of a cluster that stands until it is deleted."""

    name: str = Field(default="seral", pattern=r"^[a-z]([-a-z0-9]{0,45}[a-z0-9])?$")
    """The name of all its manifests."""


class ServiceOptions(StandingOptions):
    """Options of a model that answers requests."""

    model: str
    """The model: the folder or address of a run or of an export, on storage of the pods."""
