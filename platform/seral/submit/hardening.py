"""The least that pods of a job need: who they run as, what they may write, whom they reach.

They meet Kubernetes' `restricted` pod security standard, write to volumes alone, have no token of a service account,
and are in a NetworkPolicy of their own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, field_validator

from seral.options import Options

TMP = "/tmp"
SCRATCH = {
    "HF_HOME": f"{TMP}/huggingface",
    "MPLCONFIGDIR": f"{TMP}/matplotlib",
    "XDG_CACHE_HOME": f"{TMP}/cache",
    "XDG_CONFIG_HOME": f"{TMP}/config",
}
"""Environment that keeps libraries out of the home folder, which cannot be written to."""
API_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Folder in which clients of Kubernetes look for their token."""
API_TOKEN_S = 3607
"""Seconds after which such a token is renewed, as Kubernetes' own."""
JOB_LABEL = "seral/job"
DASHBOARD_PORT, SERVE_PORT = 8265, 8000
DNS_PORT, HTTPS = 53, 443
API_PORTS = (HTTPS, 6443)
"""Ports of Kubernetes' API: of its service, and behind it."""
PORTS = {"http": 80, "postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433, "oracle": 1521, "hdfs": 8020}
"""Usual port of a scheme; stores, hubs and all others answer at 443."""
EVERYWHERE = ("0.0.0.0/0", "::/0")
ADDRESS = re.compile(r"([A-Za-z][\w.-]*)(?:\+\w+)?://(?:[^/@]*@)?[^/:?]*(?::(\d+))?")
CLOUD_METADATA = "169.254.169.254/32"
"""The address at which clouds give a machine's own credentials to whatever runs on it."""


class SecurityOptions(Options):
    """Options of what the pods of a job may do. Each measure can be turned off for an image that needs it."""

    non_root: bool = True
    """Pods run as `user` and `group`; false = as the image says, which may be root."""
    user: int = Field(default=1000, ge=1)
    """The user's number; 1000 is `ray` in Ray's images. A run is its user's alone: all its jobs take the same one."""
    group: int = Field(default=100, ge=1)
    """The group's number, and that of mounted volumes; 100 is `users`, the group of `ray` in Ray's images."""
    read_only_root: bool = True
    """The image's files cannot be changed; /tmp is an empty folder of each pod."""
    no_privileges: bool = True
    """No process gets more rights than its parent, and none has a capability."""
    seccomp: bool = True
    """System calls are those of the container runtime's default profile."""
    api_token: bool = False
    """Mount the service account's token for Kubernetes' API in all containers. Ray's autoscaler has one anyway."""
    network_policy: bool = True
    """A NetworkPolicy: the job's pods reach one another and `egress`; KubeRay's operator reaches the dashboard."""
    egress: list[str] | None = None
    """Networks that pods reach besides one another and DNS: CIDR:port, or CIDR for all ports. None = anywhere, at the
    ports of the addresses in the job's options and environment, such as 443 for s3://."""
    operator_namespace: str | None = None
    """The namespace of KubeRay's operator; None = whichever its pods are in."""

    @field_validator("egress")
    @classmethod
    def _check_egress(cls, egress: list[str] | None) -> list[str] | None:
        for entry in egress or []:
            try:
                _network(entry)
            except ValueError:
                raise ValueError(f"{entry!r} is no network: write CIDR:port, such as 10.0.0.0/8:5432") from None
        return egress


def harden_pod(spec: dict[str, Any], options: SecurityOptions) -> None:
    """Restrict a pod's spec, in place: user, groups, system calls, API token."""
    context: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}} if options.seccomp else {}
    if options.non_root:
        groups = {"runAsGroup": options.group, "fsGroup": options.group, "fsGroupChangePolicy": "OnRootMismatch"}
        context |= {"runAsNonRoot": True, "runAsUser": options.user, **groups}
    if context:
        spec["securityContext"] = context
    if not options.api_token:
        spec["automountServiceAccountToken"] = False
    if options.read_only_root:
        spec.setdefault("volumes", []).append({"name": "tmp", "emptyDir": {}})
    for container in spec["containers"]:
        harden_container(container, options)


def harden_container(container: dict[str, Any], options: SecurityOptions) -> None:
    """Restrict a container, in place: rights, capabilities, and where it writes."""
    context: dict[str, Any] = {}
    if options.no_privileges:
        context |= {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    if options.read_only_root:
        context["readOnlyRootFilesystem"] = True
        container.setdefault("volumeMounts", []).append({"name": "tmp", "mountPath": TMP})
    if context:
        container["securityContext"] = context


def autoscaler(head: dict[str, Any], options: SecurityOptions) -> dict[str, Any]:
    """KubeRay's options of Ray's autoscaler, the one container that asks Kubernetes' API for more pods.

    It alone mounts a token for it, from a volume that is added to the head's spec.
    """
    container: dict[str, Any] = {}
    harden_container(container, options)
    if not options.api_token:
        sources = [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": API_TOKEN_S}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        ]
        head["volumes"].append({"name": "api-token", "projected": {"sources": sources}})
        mount = {"name": "api-token", "mountPath": API_TOKEN, "readOnly": True}
        container.setdefault("volumeMounts", []).append(mount)
    return container


def network_policy(name: str, options: SecurityOptions, ports: Iterable[int], *, grows: bool) -> dict[str, Any]:
    """The NetworkPolicy of a job's pods, which carry its name under JOB_LABEL.

    `ports` are those that the job's addresses are at, for options that name no networks; `grows` = the head's
    autoscaler reaches Kubernetes' API.
    """
    names = {"kubernetes.io/metadata.name": options.operator_namespace} if options.operator_namespace else {}
    operator = {
        "namespaceSelector": {"matchLabels": names} if names else {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    egress: list[dict[str, Any]] = [
        {"to": [_pods_of(name)]},
        {"ports": [{"port": DNS_PORT, "protocol": protocol} for protocol in ("UDP", "TCP")]},
    ]
    anywhere = set(API_PORTS if grows else ()) | set(ports if options.egress is None else ())
    egress += [_anywhere(sorted(anywhere))] if anywhere else []
    egress += [
        {"to": [{"ipBlock": {"cidr": cidr}}], **({"ports": _tcp(port)} if port else {})}
        for cidr, port in map(_network, options.egress or ())
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            **_pods_of(name),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [_pods_of(name)]}, {"from": [operator], "ports": _tcp(DASHBOARD_PORT)}],
            "egress": egress,
        },
    }


def ports_of(values: object) -> set[int]:
    """Ports of all addresses in plain values: `postgresql://db/labels` is at 5432, `s3://speech` at 443."""
    if isinstance(values, Mapping):
        values = list(values.values())
    if isinstance(values, list | tuple):
        return set().union(*map(ports_of, values))
    match = ADDRESS.match(values) if isinstance(values, str) else None
    if match is None or (scheme := match[1].lower()) in ("file", "sqlite"):
        return set()
    return {int(match[2] or PORTS.get(scheme, HTTPS))}


def _pods_of(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {JOB_LABEL: name}}}


def _anywhere(ports: Iterable[int]) -> dict[str, Any]:
    four, six = EVERYWHERE
    blocks = [{"ipBlock": {"cidr": four, "except": [CLOUD_METADATA]}}, {"ipBlock": {"cidr": six}}]
    return {"to": blocks, "ports": _tcp(*ports)}


def _tcp(*ports: int) -> list[dict[str, Any]]:
    return [{"port": port, "protocol": "TCP"} for port in ports]


def _network(entry: str) -> tuple[str, int | None]:
    """A network and its port, None for all. Raises ValueError."""
    address, slash, bits = entry.partition("/")
    size, colon, port = bits.partition(":")
    network = ipaddress.ip_network(f"{address}{slash}{size}")
    if colon and not 0 < int(port) < 65_536:
        raise ValueError(f"{port} is no port")
    return str(network), int(port) if colon else None
