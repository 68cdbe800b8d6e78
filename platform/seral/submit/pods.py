"""The pods of a Ray cluster on Kubernetes, as the part of a manifest that KubeRay makes them of.

The head only holds the job's own process, so workers may be machines that can be taken away (spot): what they were
doing is done again. What the pods may do: seral.submit.hardening.
"""

from __future__ import annotations

from typing import Any

import ray

from seral.cluster import WORKER_ENV
from seral.submit.hardening import DASHBOARD_PORT, JOB_LABEL, SCRATCH, SERVE_PORT, autoscaler, harden_pod
from seral.submit.options import PodOptions


def submitter_pod(options: PodOptions, name: str) -> dict[str, Any]:
    """The pod that submits the job to the head and prints its log; the operator gives it its command."""
    amounts = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "200Mi"}}
    container = {"name": "ray-job-submitter", "image": options.image, "resources": amounts}
    spec: dict[str, Any] = {"restartPolicy": "Never", "containers": [container]}
    return _template(options, name, spec)


def ray_cluster(options: PodOptions, name: str, *, serves: bool = False) -> dict[str, Any]:
    """KubeRay's spec of a cluster whose pods carry a name; one that `serves` answers requests at SERVE_PORT."""
    max_workers = options.max_workers or options.workers
    head = _pod(options, name, "ray-head", cpus=options.head_cpus, memory_gb=options.head_memory_gb)
    ports = {"gcs-server": 6379, "dashboard": DASHBOARD_PORT} | ({"serve": SERVE_PORT} if serves else {})
    head["spec"]["containers"][0]["ports"] = [{"containerPort": port, "name": of} for of, port in ports.items()]
    worker = _pod(
        options,
        name,
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
    if options.grows:
        cluster |= {"enableInTreeAutoscaling": True, "autoscalerOptions": autoscaler(head["spec"], options.security)}
    # No CPU of the head's is offered, so that no work is on it when a worker goes; without workers it does everything.
    start = {"num-cpus": "0"} if max_workers else {}
    # The dashboard listens at the pod's address, for submitter and operator; a ClusterIP is none outside the cluster.
    start = {"dashboard-host": "0.0.0.0", **start}
    cluster["headGroupSpec"] = {"serviceType": "ClusterIP", "rayStartParams": start, "template": head}
    return cluster | ({"workerGroupSpecs": [group]} if max_workers else {})


def _pod(options: PodOptions, of: str, name: str, *, cpus: int, memory_gb: int, gpus: int = 0) -> dict[str, Any]:
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
    return _template(options, of, spec)


def _template(options: PodOptions, of: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A pod template of a spec, restricted, with what every pod has."""
    harden_pod(spec, options.security)
    spec |= {"serviceAccountName": options.service_account} if options.service_account else {}
    spec |= {"imagePullSecrets": [{"name": secret} for secret in options.pull_secrets]} if options.pull_secrets else {}
    return {"metadata": {"labels": {JOB_LABEL: of}}, "spec": spec}
