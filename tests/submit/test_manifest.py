"""Manifests against what KubeRay's RayJob v1 and Kubernetes' pods have for fields.

No package carries KubeRay's schema. The names and kinds below are those of `RayJobSpec`, `RayClusterSpec` and what they
hold in its sources (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go), less what seral does not write.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from seral.cli import app
from seral.errors import JobError
from seral.options import parse
from seral.submit.manifest import CONFIG_FOLDER, ManifestOptions, manifest

ROOT = Path(__file__).resolve().parents[2]


def closed(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNTS = {"type": "object", "additionalProperties": {"type": "string", "pattern": r"^[0-9.]+([kMGT]i?)?$"}}


def several(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


VOLUME = closed(
    ["name"],
    name=TEXT,
    emptyDir=closed([], medium=TEXT, sizeLimit=TEXT),
    persistentVolumeClaim=closed(["claimName"], claimName=TEXT),
    configMap=closed(["name"], name=TEXT),
)
CONTAINER = closed(
    ["name", "image"],
    name=TEXT,
    image=TEXT,
    resources=closed(["limits", "requests"], limits=AMOUNTS, requests=AMOUNTS),
    env=several(closed(["name", "value"], name=TEXT, value=TEXT)),
    envFrom=several(closed([], secretRef=closed(["name"], name=TEXT))),
    ports=several(closed(["containerPort"], containerPort=WHOLE, name={"type": "string", "maxLength": 15})),
    volumeMounts=several(closed(["name", "mountPath"], name=TEXT, mountPath=TEXT)),
)
POD = closed(
    ["containers"],
    containers=several(CONTAINER),
    volumes=several(VOLUME),
    nodeSelector=TEXTS,
    tolerations=several(closed(["key"], key=TEXT, operator={"enum": ["Equal", "Exists"]}, value=TEXT, effect=TEXT)),
    affinity={"type": "object"},
)
TEMPLATE = closed(["spec"], spec=POD)
CLUSTER = closed(
    ["headGroupSpec"],
    rayVersion=TEXT,
    enableInTreeAutoscaling=FLAG,
    authOptions=closed(["mode"], mode={"enum": ["disabled", "token"]}),
    headGroupSpec=closed(["template"], rayStartParams=TEXTS, template=TEMPLATE),
    workerGroupSpecs=several(
        closed(
            ["groupName", "template"],
            groupName=TEXT,
            replicas=WHOLE,
            minReplicas=WHOLE,
            maxReplicas=WHOLE,
            rayStartParams=TEXTS,
            template=TEMPLATE,
        )
    ),
)
RAY_JOB = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    # KubeRay derives names of pods from it, which leaves 47 letters.
    metadata=closed(["name"], name={"type": "string", "maxLength": 47}, namespace=TEXT, labels=TEXTS),
    spec=closed(
        ["entrypoint", "rayClusterSpec"],
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=WHOLE,
        activeDeadlineSeconds=WHOLE,
        backoffLimit=WHOLE,
        submitterConfig=closed([], backoffLimit=WHOLE),
        rayClusterSpec=CLUSTER,
    ),
)

LOOP = ["pool=/mnt/seral/pool", "run=/mnt/seral/runs/mine", "classes=[anger, neutral]", "encoder=seral-tiny"]
LIGHT = """
from seral.options import Options, run_job

class LightOptions(Options):
    pool: str
    run: str
    classes: list[str]
    encoder: str

if __name__ == "__main__":
    run_job(LightOptions, print, "Nothing to do.")
"""
VARIANTS = {
    "cpu": ["claim=speech"],
    "gpu": ["claim=speech", "worker_gpus=1", "workers=1"],
    "spot": ["claim=speech", "spot=cloud.google.com/gke-spot=true", "max_workers=8", "token=true"],
    "queue": ["claim=speech", "queue=team-a", "namespace=speech", "deadline_s=3600"],
    "alone": ["claim=speech", "workers=0"],
}


Manifests = tuple[dict[str, Any], dict[str, Any]]


@pytest.fixture
def rendered(tmp_path: Path) -> Callable[..., Manifests]:
    """`rendered("workers=4")`: the manifests of a job that is quick to import."""
    (tmp_path / "light.py").write_text(LIGHT)

    def render(*on: str, overrides: list[str] | None = None) -> Manifests:
        values = {"job": "light", "folder": str(tmp_path), "overrides": LOOP if overrides is None else overrides}
        config, job = yaml.safe_load_all(manifest(parse(ManifestOptions, {**values, "image": "me/seral:1"}, on)))
        return config, job

    return render


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_fields_that_the_operator_knows(variant: str, rendered: Callable[..., Manifests]) -> None:
    config, job = rendered(*VARIANTS[variant])
    jsonschema.validate(job, RAY_JOB)
    cluster = job["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
    for pod in pods:
        spec = pod["template"]["spec"]
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}
        limits = spec["containers"][0]["resources"]
        assert limits["limits"] == limits["requests"]
    # What the job reads is there under the name that its entrypoint says.
    options = yaml.safe_load(config["data"]["config.yaml"])
    assert options["run"] == "/mnt/seral/runs/mine"
    assert job["spec"]["entrypoint"].endswith(f"jobs/light.py --config {CONFIG_FOLDER}/config.yaml --submitted")
    volumes = {volume["name"]: volume for volume in pods[0]["template"]["spec"]["volumes"]}
    assert volumes["options"]["configMap"]["name"] == config["metadata"]["name"]


def test_variants_differ_where_they_should(rendered: Callable[..., Manifests]) -> None:
    gpu = rendered(*VARIANTS["gpu"])[1]["spec"]["rayClusterSpec"]
    worker = gpu["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in gpu["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    spot = rendered(*VARIANTS["spot"])[1]["spec"]["rayClusterSpec"]
    assert spot["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
    assert "NotIn" in str(spot["headGroupSpec"]["template"]["spec"]["affinity"])
    assert spot["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spot["enableInTreeAutoscaling"]
    queue = rendered(*VARIANTS["queue"])[1]
    assert queue["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-a"}
    assert "enableInTreeAutoscaling" not in queue["spec"]["rayClusterSpec"]
    alone = rendered(*VARIANTS["alone"])[1]["spec"]["rayClusterSpec"]
    assert "num-cpus" not in alone["headGroupSpec"]["rayStartParams"]


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ([], r"run: /mnt/seral/runs/mine is on no storage of the pods: name a claim, or take s3://"),
        (
            ["claim=speech", "mount=/data"],
            r"run: /mnt/seral/runs/mine is not on the claim, which the pods mount at /data",
        ),
        (["claim=speech", "max_workers=1"], r"max_workers is 1, below workers, 2"),
        (["claim=speech", "queue=a", "max_workers=5"], "keeps its size"),
    ],
)
def test_what_pods_could_not_do_with_is_refused(
    on: list[str], message: str, rendered: Callable[..., Manifests]
) -> None:
    with pytest.raises(JobError, match=message):
        rendered(*on)


def test_an_object_store_needs_no_claim(rendered: Callable[..., Manifests]) -> None:
    remote = [line.replace("/mnt/seral/", "s3://speech/") for line in LOOP]
    _, job = rendered("secret=s3", overrides=remote)
    jsonschema.validate(job, RAY_JOB)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == [{"secretRef": {"name": "s3"}}]


def test_the_command_line_prints_what_kubectl_takes() -> None:
    from typer.testing import CliRunner

    # The real job, whose options are checked as it would.
    on = [part for item in ("image=me/seral:1", "claim=speech") for part in ("--on", item)]
    settings = [part for item in LOOP for part in ("--set", item)]
    done = CliRunner().invoke(app, ["jobs", "manifest", "loop", *settings, *on, "--on", f"folder={ROOT / 'jobs'}"])
    assert done.exit_code == 0
    assert [part["kind"] for part in yaml.safe_load_all(done.stdout)] == ["ConfigMap", "RayJob"]


def test_the_image_has_what_the_job_starts() -> None:
    recipe = (ROOT / "jobs" / "cluster" / "Dockerfile").read_text()
    for line in recipe.splitlines():
        if line.startswith("COPY"):
            assert all((ROOT / source).exists() for source in line.split()[2:-1])
    assert "COPY --chown=ray:users jobs /opt/seral/jobs" in recipe
