"""Manifests for Kubernetes with the KubeRay operator: of a job, of a cluster that stands, of a model that serves.

For a job the operator starts a cluster, runs it, and takes the cluster down again; a job whose cluster is lost is
started on a new one and resumes its run. The pods: seral.submit.pods; what they may do: seral.submit.hardening.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

from seral.errors import JobError
from seral.options import SUBMITTED_FLAG
from seral.submit.hardening import HTTPS, SERVE_PORT, network_policy, ports_of
from seral.submit.options import ManifestOptions, PodOptions, ServiceOptions, StandingOptions
from seral.submit.patch import patched
from seral.submit.pods import ray_cluster, submitter_pod
from seral.submit.submit import CONFIG, FOLDERS_OR_NAMES, IDLE_GPUS, PATHS, check, submission_stem, uses_gpus

CONFIG_FOLDER = "/etc/seral"
JOBS_FOLDER = "/opt/seral/jobs"
"""Folder in an image of yours that has job files of your own."""
KEEP_S = 3600
APPLICATION = "seral.models.serve:app"
"""Import path of the builder that makes Ray Serve's application of `model`, an address."""


def job_manifest(options: ManifestOptions) -> str:
    """YAML of a RayJob for `kubectl apply -f -`. Raises JobError for what the job, or its pods, could not do with."""
    resolved = check(options)
    _check_reachable(options, {name: resolved.get(name) for name in PATHS})
    if options.worker_gpus and not uses_gpus(resolved):
        raise JobError(f"worker_gpus is {options.worker_gpus}, and {IDLE_GPUS}, or leave out worker_gpus")
    name = submission_stem(options.job, resolved)
    program = ["python", *options.program(JOBS_FOLDER), "--config", f"{CONFIG_FOLDER}/{CONFIG}", SUBMITTED_FLAG]
    cluster = ray_cluster(options, name)
    head = cluster["headGroupSpec"]["template"]["spec"]
    head["volumes"].append({"name": "options", "configMap": {"name": name}})
    head["containers"][0]["volumeMounts"].append({"name": "options", "mountPath": CONFIG_FOLDER})
    spec: dict[str, Any] = {
        "entrypoint": shlex.join(program),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": KEEP_S,
        "backoffLimit": options.retries,
        "submitterConfig": {"backoffLimit": 0},  # a second submitter would find its job id taken
    }
    spec |= {"activeDeadlineSeconds": options.deadline_s} if options.deadline_s else {}
    spec |= {"submitterPodTemplate": submitter_pod(options, name), "rayClusterSpec": cluster}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {CONFIG: _yaml([resolved])}}
    ports = ports_of([resolved, options.env]) | _hub_ports(resolved)
    return _manifests(options, [config, *_policy(options, name, ports), _document(options, "RayJob", name, spec)])


def cluster_manifest(options: StandingOptions) -> str:
    """YAML of a RayCluster, for jobs that are submitted to it."""
    policy = _policy(options, options.name, ports_of(options.env) | {HTTPS})
    spec = ray_cluster(options, options.name)
    return _manifests(options, [*policy, _document(options, "RayCluster", options.name, spec)])


def service_manifest(options: ServiceOptions) -> str:
    """YAML of a RayService, by which a model answers requests. Raises JobError for a model that pods do not have."""
    _check_reachable(options, {"model": options.model})
    application = {
        "name": "seral",
        "route_prefix": "/",
        "import_path": APPLICATION,
        "args": {"model": options.model},
    }
    spec = {
        "serveConfigV2": _yaml([{"applications": [application]}]),
        "rayClusterConfig": ray_cluster(options, options.name, serves=True),
    }
    ports = ports_of([options.model, options.env])
    policy = _policy(options, options.name, ports)
    for document in policy:  # whoever asks the model, in the namespace
        client = {"from": [{"podSelector": {}}], "ports": [{"port": SERVE_PORT, "protocol": "TCP"}]}
        document["spec"]["ingress"].append(client)
    return _manifests(options, [*policy, _document(options, "RayService", options.name, spec)])


def _document(options: PodOptions, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {"labels": {"kueue.x-k8s.io/queue-name": options.queue}} if options.queue else {}
    return {"apiVersion": "ray.io/v1", "kind": kind, "metadata": {"name": name, **labels}, "spec": spec}


def _policy(options: PodOptions, name: str, ports: set[int]) -> list[dict[str, Any]]:
    """The NetworkPolicy of the pods, unless there is to be none."""
    security = options.security
    return [network_policy(name, security, ports, grows=options.grows)] if security.network_policy else []


def _manifests(options: PodOptions, documents: list[dict[str, Any]]) -> str:
    for document in documents:
        document["metadata"] |= {"namespace": options.namespace} if options.namespace else {}
    return _yaml(documents if options.patch is None else patched(documents, options.patch))


class _Readable(yaml.SafeDumper):
    """Text of several lines as a block, so that options are read and compared line by line."""


_Readable.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _yaml(documents: list[Any]) -> str:
    return yaml.dump_all(documents, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=10_000)


def _hub_ports(resolved: Mapping[str, Any]) -> set[int]:
    """The port of the model hub where an encoder is named that is no folder and does not come with seral."""
    inner = [_hub_ports(value) for value in resolved.values() if isinstance(value, Mapping)]
    names = [resolved.get(name) for name in FOLDERS_OR_NAMES]
    on_hub = any(isinstance(name, str) and not name.startswith(("/", "seral-")) for name in names)
    return set().union(*inner, {HTTPS} if on_hub else ())


def _check_reachable(options: PodOptions, addresses: Mapping[str, Any]) -> None:
    """Raise JobError for an address that the pods do not have."""
    for name, value in addresses.items():
        if not isinstance(value, str) or "://" in value:
            continue
        if options.claim is None:
            raise JobError(f"{name}: {value} is on no storage of the pods: name a claim, or take s3://...")
        if not PurePosixPath(value).is_relative_to(options.mount):
            raise JobError(f"{name}: {value} is not on the claim, which the pods mount at {options.mount}")
