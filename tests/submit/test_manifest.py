"""Manifests against the schema of KubeRay's RayJob, and against what pods must not be able to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from seral.cli import app
from seral.errors import JobError, OptionError, SeralError
from seral.options import parse
from seral.submit.hardening import API_TOKEN, JOB_LABEL, ports_of
from seral.submit.manifest import CONFIG_FOLDER, cluster_manifest, job_manifest, service_manifest
from seral.submit.options import ManifestOptions, ServiceOptions, StandingOptions

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT.parent / "shared" / "kuberay" / "ray.io_rayjobs.yaml"

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
    "accounts": ["claim=speech", "service_account=speech", "pull_secrets=[registry, mirror]"],
}


Manifest = dict[str, Any]
Render = Callable[..., dict[str, Manifest]]


@pytest.fixture
def rendered(tmp_path: Path) -> Render:
    """`rendered("workers=4")`: the manifests, by kind, of a job that is quick to import."""
    (tmp_path / "light.py").write_text(LIGHT)

    def render(*on: str, overrides: list[str] | None = None) -> dict[str, Manifest]:
        values = {"job": "light", "folder": str(tmp_path), "overrides": LOOP if overrides is None else overrides}
        text = job_manifest(parse(ManifestOptions, {**values, "image": "me/seral:1"}, on))
        assert "&id" not in text
        return {document["kind"]: document for document in yaml.safe_load_all(text)}

    return render


@pytest.fixture(scope="module")
def ray_job() -> Manifest:
    """The schema of a RayJob, in which a field that the operator does not know is an error, as it is for kubectl."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    versions = yaml.load(SCHEMA.read_text(), Loader=loader)["spec"]["versions"]
    (version,) = (version for version in versions if version["name"] == "v1")
    schema: Manifest = version["schema"]["openAPIV3Schema"]
    close(schema)
    schema["properties"]["metadata"] = METADATA
    return schema


def close(schema: Any) -> None:
    """Let objects with named properties have no others, in place."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            close(inner)


TEXT, TEXTS = {"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    # KubeRay derives names of pods from it, which leaves 47 letters.
    "properties": {"name": {"type": "string", "maxLength": 47}, "namespace": TEXT, "labels": TEXTS},
}


def pods_of(job: Manifest) -> dict[str, Manifest]:
    """Templates of the submitter, the head and the workers."""
    cluster = job["spec"]["rayClusterSpec"]
    groups = {group["groupName"]: group["template"] for group in cluster.get("workerGroupSpecs", [])}
    return {"submitter": job["spec"]["submitterPodTemplate"], "head": cluster["headGroupSpec"]["template"], **groups}


def containers_of(job: Manifest) -> Iterator[tuple[str, Manifest]]:
    """All containers of a job, the autoscaler's, which the operator adds, among them."""
    for name, pod in pods_of(job).items():
        yield from ((name, container) for container in pod["spec"]["containers"])
    if (scaler := job["spec"]["rayClusterSpec"].get("autoscalerOptions")) is not None:
        yield "autoscaler", scaler


@pytest.mark.corpora
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_has_fields_that_the_operator_knows(variant: str, rendered: Render, ray_job: Manifest) -> None:
    jsonschema.validate(rendered(*VARIANTS[variant])["RayJob"], ray_job)


@pytest.mark.corpora
@pytest.mark.parametrize("variant", VARIANTS)
def test_clusters_and_services_have_the_pods_of_a_job(variant: str, ray_job: Manifest) -> None:
    schema = ray_job["properties"]["spec"]["properties"]["rayClusterSpec"]
    on = ["image=me/seral:1", "name=team-a", *(item for item in VARIANTS[variant] if not item.startswith("deadline"))]
    (policy, cluster) = yaml.safe_load_all(cluster_manifest(parse(StandingOptions, {}, on)))
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert policy["metadata"]["name"] == cluster["metadata"]["name"] == "team-a"
    jsonschema.validate(cluster["spec"], schema)
    text = service_manifest(parse(ServiceOptions, {"model": "/mnt/seral/models/emodb"}, on))
    (policy, service) = yaml.safe_load_all(text)
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    assert set(service["spec"]) == {"serveConfigV2", "rayClusterConfig"}
    jsonschema.validate(service["spec"]["rayClusterConfig"], schema)
    (application,) = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"]
    ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    assert application["import_path"] == "seral.models.serve:app"
    assert application["args"] == {"model": "/mnt/seral/models/emodb"}
    assert {"port": 8000, "protocol": "TCP"} in policy["spec"]["ingress"][-1]["ports"]
    assert "serveConfigV2: |\n    applications:\n" in text


def test_the_options_of_a_job_can_be_read_line_by_line(tmp_path: Path) -> None:
    values = {"job": "loop", "image": "me/seral:1", "overrides": LOOP}
    text = job_manifest(parse(ManifestOptions, values, ["claim=speech"]))
    assert "\n  config.yaml: |" in text
    assert "\n    pool: /mnt/seral/pool\n" in text


def test_pods_have_the_account_and_the_image_its_secrets(rendered: Render) -> None:
    for pod in pods_of(rendered(*VARIANTS["accounts"])["RayJob"]).values():
        assert pod["spec"]["serviceAccountName"] == "speech"
        assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}, {"name": "mirror"}]
    assert "serviceAccountName" not in json.dumps(rendered("claim=speech"))


def test_patches_are_laid_over_what_they_name(rendered: Render, tmp_path: Path) -> None:
    patch = tmp_path / "patch.yaml"
    container = {"name": "ray-head", "env": [{"name": "OMP_NUM_THREADS", "value": "4"}, {"name": "MINE", "value": "1"}]}
    head = {"template": {"spec": {"hostAliases": [{"ip": "10.0.0.1"}], "containers": [container]}}}
    spec = {"backoffLimit": None, "rayClusterSpec": {"headGroupSpec": head}}
    patch.write_text(yaml.safe_dump_all([{"kind": "RayJob", "spec": spec}, {"kind": "ConfigMap", "immutable": True}]))
    plain, changed = rendered("claim=speech"), rendered("claim=speech", f"patch={patch}")
    assert changed["ConfigMap"] == plain["ConfigMap"] | {"immutable": True}
    assert "backoffLimit" not in changed["RayJob"]["spec"]
    before, after = (pods_of(documents["RayJob"])["head"]["spec"] for documents in (plain, changed))
    assert after["hostAliases"] == [{"ip": "10.0.0.1"}]
    (was,), (is_now,) = before["containers"], after["containers"]
    variables = {entry["name"]: entry["value"] for entry in is_now["env"]}
    assert variables == {entry["name"]: entry["value"] for entry in was["env"]} | {"OMP_NUM_THREADS": "4", "MINE": "1"}
    assert {key: value for key, value in was.items() if key != "env"} == {k: v for k, v in is_now.items() if k != "env"}
    patch.write_text("kind: RayCluster\n")
    with pytest.raises(JobError, match="needs the `kind` of what it changes, one of ConfigMap, NetworkPolicy, RayJob"):
        rendered("claim=speech", f"patch={patch}")


def test_gpus_that_nothing_would_use_are_refused() -> None:
    values = {"job": "loop", "image": "me/seral:1", "overrides": LOOP}
    on = ["claim=speech", "worker_gpus=2"]
    with pytest.raises(JobError, match=r"worker_gpus is 2, and the options of the job leave them idle: add --set clus"):
        job_manifest(parse(ManifestOptions, values, on))
    values["overrides"] = [*LOOP, "cluster.use_gpu=true"]
    assert "nvidia.com/gpu: '2'" in job_manifest(parse(ManifestOptions, values, on))


@pytest.mark.corpora
def test_a_field_that_the_operator_does_not_know_fails(rendered: Render, ray_job: Manifest) -> None:
    job = rendered("claim=speech")["RayJob"]
    for path in ((), ("submitterPodTemplate", "spec"), ("rayClusterSpec", "headGroupSpec", "template", "metadata")):
        wrong = inner = json.loads(json.dumps(job))
        for step in ("spec", *path):
            inner = inner[step]
        inner["runAsRoot"] = "yes"
        with pytest.raises(jsonschema.ValidationError, match="runAsRoot"):
            jsonschema.validate(wrong, ray_job)


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_pod_can_do_more_than_it_needs(variant: str, rendered: Render) -> None:
    documents = rendered(*VARIANTS[variant])
    job = documents["RayJob"]
    assert set(pods_of(job)) == {"submitter", "head"} | ({"workers"} if variant != "alone" else set())
    for pod in pods_of(job).values():
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (1000, 100, 100)
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod["spec"])
        kinds = {kind for volume in pod["spec"]["volumes"] for kind in volume if kind != "name"}
        assert kinds <= {"emptyDir", "configMap", "persistentVolumeClaim", "projected"}
        assert pod["metadata"]["labels"] == {JOB_LABEL: job["metadata"]["name"]}
    names = [name for name, _ in containers_of(job)]
    assert ("autoscaler" in names) == (variant == "spot")
    for name, container in containers_of(job):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
        mounts_token = API_TOKEN in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounts_token == (name == "autoscaler")
        # Whatever writes somewhere by itself is sent to /tmp.
        folders = {entry["name"]: entry["value"] for entry in container.get("env", [])}
        if name in ("head", "workers"):
            assert all(folders[key].startswith("/tmp/") for key in ("HF_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_only_the_jobs_own_pods_and_the_operator_reach_its_pods(variant: str, rendered: Render) -> None:
    documents = rendered(*VARIANTS[variant])
    policy, job = documents["NetworkPolicy"], documents["RayJob"]
    assert policy["metadata"] == {key: value for key, value in job["metadata"].items() if key != "labels"}
    spec, own = policy["spec"], {"podSelector": {"matchLabels": {JOB_LABEL: job["metadata"]["name"]}}}
    assert spec["podSelector"] == own["podSelector"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    pods, operator = spec["ingress"]
    assert pods == {"from": [own]}
    (source,) = operator["from"]
    assert source["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    assert operator["ports"] == [{"port": 8265, "protocol": "TCP"}]
    to_pods, dns, *others = spec["egress"]
    assert to_pods == {"to": [own]}
    assert {entry["port"] for entry in dns["ports"]} == {53}
    ports = {entry["port"] for rule in others for entry in rule["ports"]}
    assert ports == ({443, 6443} if variant == "spot" else set())  # Kubernetes' API, for the autoscaler


def test_the_dashboard_stays_in_the_cluster_and_asks_for_a_token(rendered: Render) -> None:
    cluster = rendered("claim=speech")["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    own = rendered("claim=speech", "token_secret=ray")["RayJob"]["spec"]["rayClusterSpec"]
    assert own["authOptions"] == {"mode": "token", "secretName": "ray"}
    assert "authOptions" not in rendered("claim=speech", "token=false")["RayJob"]["spec"]["rayClusterSpec"]


def test_pods_reach_what_the_options_name(rendered: Render) -> None:
    remote = [line.replace("/mnt/seral/", "s3://speech/") for line in LOOP]

    def egress(*on: str, overrides: list[str] = remote) -> list[Manifest]:
        rules: list[Manifest] = rendered(*on, overrides=overrides)["NetworkPolicy"]["spec"]["egress"][2:]
        return rules

    (store,) = egress("env.AWS_ENDPOINT_URL=http://store:9000")
    assert [entry["port"] for entry in store["ports"]] == [443, 9000]
    assert store["to"][0]["ipBlock"]["except"] == ["169.254.169.254/32"]  # the machine's own credentials
    (hub,) = egress("claim=speech", overrides=[*LOOP[:-1], "encoder=facebook/wav2vec2-base"])
    assert [entry["port"] for entry in hub["ports"]] == [443]
    network, all_ports = egress("security.egress=[10.1.0.0/16:5432, 'fd00::/8']")
    assert network == {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 5432, "protocol": "TCP"}]}
    assert all_ports == {"to": [{"ipBlock": {"cidr": "fd00::/8"}}]}
    assert egress("security.egress=[]") == []
    with pytest.raises(OptionError, match=r"security.egress: 'db:5432' is no network: write CIDR:port"):
        egress("security.egress=['db:5432']")


def test_ports_of_addresses() -> None:
    values = {"track": {"uri": "http://mlflow:5000"}, "people": {"ledger": "postgresql+psycopg://u@db/labels"}}
    assert ports_of(values) == {5000, 5432}
    others = ["s3://speech", "https://hub", "hdfs://name:9820/x", "/mnt/seral", "file:///tmp", "sqlite:////a.sqlite", 5]
    assert ports_of(others) == {443, 9820}
    assert ports_of([]) == set()


@pytest.mark.parametrize(
    ("off", "gone"),
    [
        ("non_root", "runAsNonRoot"),
        ("read_only_root", "readOnlyRootFilesystem"),
        ("no_privileges", "allowPrivilegeEscalation"),
        ("seccomp", "seccompProfile"),
        ("network_policy", "NetworkPolicy"),
        ("api_token=true", "automountServiceAccountToken"),
    ],
)
def test_single_measures_can_be_turned_off(off: str, gone: str, rendered: Render) -> None:
    setting = f"security.{off if '=' in off else off + '=false'}"
    before, after = (json.dumps(rendered("claim=speech", "max_workers=4", *on)) for on in ((), (setting,)))
    assert gone in before
    assert gone not in after
    measures = ("runAsNonRoot", "readOnlyRootFilesystem", "allowPrivilegeEscalation", "seccompProfile", "NetworkPolicy")
    assert all(measure in after for measure in measures if measure != gone)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_mount_what_they_have_and_the_job_reads_its_options(variant: str, rendered: Render) -> None:
    documents = rendered(*VARIANTS[variant])
    config, job = documents["ConfigMap"], documents["RayJob"]
    scaler = job["spec"]["rayClusterSpec"].get("autoscalerOptions", {})
    for name, pod in pods_of(job).items():
        containers = [*pod["spec"]["containers"], *([scaler] if name == "head" else [])]
        mounted = {mount["name"] for container in containers for mount in container.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
        if name != "submitter":
            limits = pod["spec"]["containers"][0]["resources"]
            assert limits["limits"] == limits["requests"]
    # What the job reads is there under the name that its entrypoint says.
    options = yaml.safe_load(config["data"]["config.yaml"])
    assert options["run"] == "/mnt/seral/runs/mine"
    assert job["spec"]["entrypoint"].endswith(f"jobs/light.py --config {CONFIG_FOLDER}/config.yaml --submitted")
    volumes = {volume["name"]: volume for volume in pods_of(job)["head"]["spec"]["volumes"]}
    assert volumes["options"]["configMap"]["name"] == config["metadata"]["name"]


def test_variants_differ_where_they_should(rendered: Render) -> None:
    gpu = rendered(*VARIANTS["gpu"])["RayJob"]["spec"]["rayClusterSpec"]
    worker = gpu["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in gpu["headGroupSpec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    spot = rendered(*VARIANTS["spot"])["RayJob"]["spec"]["rayClusterSpec"]
    assert spot["workerGroupSpecs"][0]["template"]["spec"]["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
    assert "NotIn" in str(spot["headGroupSpec"]["template"]["spec"]["affinity"])
    assert spot["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spot["enableInTreeAutoscaling"]
    queue = rendered(*VARIANTS["queue"])["RayJob"]
    assert queue["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-a"}
    assert "enableInTreeAutoscaling" not in queue["spec"]["rayClusterSpec"]
    alone = rendered(*VARIANTS["alone"])["RayJob"]["spec"]["rayClusterSpec"]
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
        (["claim=speech", "token=false", "token_secret=a"], "token_secret names a secret, but token is false"),
    ],
)
def test_what_pods_could_not_do_with_is_refused(on: list[str], message: str, rendered: Render) -> None:
    with pytest.raises(SeralError, match=message):
        rendered(*on)


def test_an_object_store_needs_no_claim(rendered: Render) -> None:
    remote = [line.replace("/mnt/seral/", "s3://speech/") for line in LOOP]
    job = rendered("secret=s3", overrides=remote)["RayJob"]
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["envFrom"] == [{"secretRef": {"name": "s3"}}]


def test_the_command_line_prints_what_kubectl_takes() -> None:
    from typer.testing import CliRunner

    # The real job, whose options are checked as it would.
    on = [part for item in ("image=me/seral:1", "claim=speech") for part in ("--on", item)]
    settings = [part for item in LOOP for part in ("--set", item)]
    done = CliRunner().invoke(app, ["jobs", "manifest", "loop", *settings, *on])
    assert done.exit_code == 0
    assert [part["kind"] for part in yaml.safe_load_all(done.stdout)] == ["ConfigMap", "NetworkPolicy", "RayJob"]


def test_the_image_has_what_the_job_starts() -> None:
    recipe = (ROOT / "jobs" / "cluster" / "Dockerfile").read_text()
    for line in recipe.splitlines():
        if line.startswith("COPY"):
            assert line == "COPY --chown=ray:users requirements.txt seral-*.whl /opt/seral/"  # both printed, or built
    assert "pip install --no-cache-dir --no-deps /opt/seral/seral-*.whl" in recipe
    (torch,) = re.findall(r"^torch==.+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert f"ARG TORCH={torch}\n" in recipe


def test_the_image_does_not_run_as_root() -> None:
    lines = (ROOT / "jobs" / "cluster" / "Dockerfile").read_text().splitlines()
    # By number: Kubernetes cannot tell whether a name is root's.
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000:100"
    options = ManifestOptions(job="loop", image="me/seral:1").security
    assert (options.user, options.group) == (1000, 100)
