"""A job as manifests for Kubernetes: a RayJob for the KubeRay operator, the options it reads, and its NetworkPolicy.

The operator starts a cluster for the job, runs it, and takes the cluster down again. The head only holds the job's own
process, so workers may be machines that can be taken away (spot): what they were doing is done again, and a job whose
cluster is lost is started on a new one and resumes its run. What its pods may do: seral.submit.hardening.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import ray
import yaml
from pydantic import Field

from seral.cluster import WORKER_ENV
from seral.errors import JobError
from seral.options import SUBMITTED_FLAG
from seral.submit.hardening import (
    DASHBOARD_PORT,
    HTTPS,
    JOB_LABEL,
    SCRATCH,
    SecurityOptions,
    autoscaler,
    harden_pod,
    network_policy,
    ports_of,
)
from seral.submit.submit import CONFIG, FOLDERS_OR_NAMES, PATHS, JobOptions, check, submission_stem
from seral.verbs import file_of

CONFIG_FOLDER = "/etc/seral"
JOBS_FOLDER = "/opt/seral/jobs"
"""Folder of the job files in the image (jobs/cluster/Dockerfile)."""
KEEP_S = 3600


class ManifestOptions(JobOptions):
    """Options of a manifest: a job, and the cluster it gets."""

    image: str
    """The image of head and workers: see jobs/cluster/Dockerfile."""
    namespace: str | None = None
    """The namespace of job and cluster; None = the one that kubectl is set to."""
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
    queue: str | None = None
    """A queue of Kueue's: the job waits there for its quota, and its cluster does not grow or shrink."""
    retries: int = Field(default=2, ge=0)
    """New clusters after a failed attempt."""
    deadline_s: int | None = Field(default=None, ge=1)
    """The job is ended after so long, waiting included."""
    token: bool = True
    """Whoever talks to the cluster needs a token, at its dashboard and between pods (KubeRay 1.5.1 or later)."""
    token_secret: str | None = None
    """A secret of yours with the token, under `auth_token`; None = the operator makes one."""
    security: SecurityOptions = SecurityOptions()
    """Rights of the pods, and whom they reach."""


def manifest(options: ManifestOptions) -> str:
    """YAML for `kubectl apply -f -`. Raises JobError for options that the job, or its pods, could not do with."""
    resolved = check(options)
    _check_reachable(options, resolved)
    if options.max_workers is not None and options.max_workers < options.workers:
        raise JobError(f"max_workers is {options.max_workers}, below workers, {options.workers}")
    if options.queue and options.max_workers not in (None, options.workers):
        raise JobError("a cluster that waits in a queue keeps its size: leave out max_workers")
    if options.token_secret and not options.token:
        raise JobError("token_secret names a secret, but token is false: leave one of them out")
    name = submission_stem(options.job, resolved)
    namespace = {"namespace": options.namespace} if options.namespace else {}
    content = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, **namespace},
        "data": {CONFIG: content},
    }
    labels = {"labels": {"kueue.x-k8s.io/queue-name": options.queue}} if options.queue else {}
    spec: dict[str, Any] = {
        "entrypoint": f"python {JOBS_FOLDER}/{file_of(options.job)} --config {CONFIG_FOLDER}/{CONFIG} {SUBMITTED_FLAG}",
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEEP_S,
        "backoffLimit": options.retries,
        "submitterConfig": {"backoffLimit": 0},  # a second submitter would find its job id taken
    }
    spec |= {"activeDeadlineSeconds": options.deadline_s} if options.deadline_s else {}
    spec["submitterPodTemplate"] = _submitter(options, name)
    spec["rayClusterSpec"] = _cluster(options, name)
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name, **namespace, **labels},
        "spec": spec,
    }
    documents = [config, job]
    if options.security.network_policy:
        ports = ports_of([resolved, options.env]) | _hub_ports(resolved)
        policy = network_policy(name, options.security, ports, grows=_grows(options))
        policy["metadata"] |= namespace
        documents.insert(1, policy)
    return yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)


def _grows(options: ManifestOptions) -> bool:
    return (options.max_workers or options.workers) > options.workers


def _hub_ports(resolved: Mapping[str, Any]) -> set[int]:
    """The port of the model hub where an encoder is named that is no folder and does not come with seral."""
    inner = [_hub_ports(value) for value in resolved.values() if isinstance(value, Mapping)]
    names = [resolved.get(name) for name in FOLDERS_OR_NAMES]
    on_hub = any(isinstance(name, str) and not name.startswith(("/", "seral-")) for name in names)
    return set().union(*inner, {HTTPS} if on_hub else ())


def _submitter(options: ManifestOptions, name: str) -> dict[str, Any]:
    """The pod that submits the job to the head and prints its log; the operator gives it its command."""
    amounts = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "200Mi"}}
    container = {"name": "ray-job-submitter", "image": options.image, "resources": amounts}
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container]}
    harden_pod(spec, options.security)
    return {"metadata": {"labels": {JOB_LABEL: name}}, "spec": spec}


def _cluster(options: ManifestOptions, config: str) -> dict[str, Any]:
    max_workers = options.max_workers or options.workers
    head = _pod(options, config, "ray-head", cpus=options.head_cpus, memory_gb=options.head_memory_gb)
    head["spec"]["volumes"].append({"name": "options", "configMap": {"name": config}})
    head["spec"]["containers"][0]["volumeMounts"].append({"name": "options", "mountPath": CONFIG_FOLDER})
    head["spec"]["containers"][0]["ports"] = [
        {"containerPort": port, "name": name} for name, port in (("gcs-server", 6379), ("dashboard", DASHBOARD_PORT))
    ]
    worker = _pod(
        options,
        config,
        "ray-worker",
        cpus=options.worker_cpus,
        memory_gb=options.worker_memory_gb,
        gpus=options.worker_gpus,
    )
    if options.spot:
        key, _, value = options.spot.partition("=")
        worker["spec"]["nodeSelector"] = {key: value}
        worker["spec"]["tolerations"] = [{"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"}]
        expression = {"key": key, "operator": "NotIn", "values": [value]}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
        head["spec"]["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    group = {
        "groupName": "workers",
        "replicas": options.workers,
        "minReplicas": options.workers,
        "maxReplicas": max_workers,
        "rayStartParams": {},
        "template": worker,
    }
    cluster: dict[str, Any] = {"rayVersion": ray.__version__}
    if options.token:
        cluster["authOptions"] = {"mode": "token"} | (
            {"secretName": options.token_secret} if options.token_secret else {}
        )
    if _grows(options):
        cluster |= {"enableInTreeAutoscaling": True, "autoscalerOptions": autoscaler(head["spec"], options.security)}
    # No CPU of the head's is offered, so that no work is on it when a worker goes; without workers it does everything.
    start = {"num-cpus": "0"} if max_workers else {}
    # The dashboard listens at the pod's address, for submitter and operator; a ClusterIP is none outside the cluster.
    start = {"dashboard-host": "0.0.0.0", **start}
    cluster["headGroupSpec"] = {"serviceType": "ClusterIP", "rayStartParams": start, "template": head}
    return cluster | ({"workerGroupSpecs": [group]} if max_workers else {})


def _pod(options: ManifestOptions, job: str, name: str, *, cpus: int, memory_gb: int, gpus: int = 0) -> dict[str, Any]:
    """A pod template. Requests are the limits, so that nobody takes the memory away."""
    amounts = {"cpu": str(cpus), "memory": f"{memory_gb}Gi"} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    scratch = SCRATCH if options.security.read_only_root else {}
    named = {**WORKER_ENV, **scratch, **options.env}
    variables = [{"name": key, "value": value} for key, value in sorted(named.items())]
    container: dict[str, Any] = {
        "name": name,
        "image": options.image,
        "resources": {"limits": amounts, "requests": dict(amounts)},
        "env": variables,
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    container |= {"envFrom": [{"secretRef": {"name": options.secret}}]} if options.secret else {}
    # Ray's object store lives in shared memory, of which a pod has 64 MB; it counts towards the pod's memory.
    volumes: list[dict[str, Any]] = [
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{max(1, memory_gb // 3)}Gi"}}
    ]
    if options.claim:
        volumes.append({"name": "storage", "persistentVolumeClaim": {"claimName": options.claim}})
        container["volumeMounts"].append({"name": "storage", "mountPath": options.mount})
    spec = {"containers": [container], "volumes": volumes}
    harden_pod(spec, options.security)
    return {"metadata": {"labels": {JOB_LABEL: job}}, "spec": spec}


def _check_reachable(options: ManifestOptions, resolved: dict[str, Any]) -> None:
    """Raise JobError for an address that the pods do not have."""
    for name in PATHS:
        value = resolved.get(name)
        if not isinstance(value, str) or "://" in value:
            continue
        if options.claim is None:
            raise JobError(f"{name}: {value} is on no storage of the pods: name a claim, or take s3://...")
        if not PurePosixPath(value).is_relative_to(options.mount):
            raise JobError(f"{name}: {value} is not on the claim, which the pods mount at {options.mount}")
