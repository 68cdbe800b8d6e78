"""Checks of a machine, a cluster and a configuration that name what would go wrong before it does."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import soundfile
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.parameters import dead_adapters
from ser_models.encoders import PrecomputedEncoder, load_encoder
from seral import cluster, storage
from seral.audio import codecs
from seral.errors import SeralError
from seral.features.precomputed import is_precomputed, load_frozen
from seral.features.text import open_text_encoder
from seral.labels.database import SUFFIX, Database
from seral.labels.ledger import Ledger
from seral.labels.options import PeopleOptions
from seral.labels.people import ledger_url
from seral.labels.records import Project
from seral.loop.annotators import ANNOTATORS
from seral.loop.growth import first_folds
from seral.loop.loop import foresee
from seral.loop.options import LoopOptions
from seral.options import load
from seral.pool.shards import open_pool
from seral.secrets.addresses import mask
from seral.task.options import with_absolute_paths
from seral.versions import versions

PACKAGES = ("seral", "ray", "torch", "transformers", "peft", "faiss-cpu", "pyarrow", "soundfile", "soxr")
LOW_DISK_GB = 5
NODES_S = 120
STATE_S = 10


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    ok: bool
    subject: str
    detail: str


def examine(config: Path | None = None) -> Iterator[Finding]:
    """Check this machine, and what a run's configuration needs when one is given."""
    options = None if config is None else load(LoopOptions, config, verb="loop")
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", lambda: sys.version.split()[0]),
        ("packages", _packages),
        ("ray", lambda: _ray(options)),
        ("state API", lambda: _state_api(options)),
        ("nodes", lambda: _nodes(None if options is None else options.run)),
        ("devices", _devices),
        ("codecs", _codecs),
    ]
    encoder = "seral-tiny" if options is None else options.encoder
    checks.append((f"encoder {Path(encoder).name}", lambda: _encoder(encoder)))
    checks.append(("adapter liveness", lambda: _adapters(encoder, options)))
    if options is not None and (reader := options.text_encoder) is not None:
        checks.append((f"text encoder {Path(reader).name}", lambda: _text_encoder(reader)))
    folders = [("working folder", ".")]
    if options is not None:
        checks.append(("pool", lambda: _pool(options.pool)))
        if (people := options.people) is not None:
            checks.append(("ledger", lambda: _ledger(options, people)))
        folders = [("run folder", options.run), ("feature cache", options.feature_cache or options.pool)]
    checks += [(name, partial(_storage, folder)) for name, folder in folders]
    sound = True
    for subject, check in checks:
        yield (finding := _finding(subject, check))
        sound &= finding.ok or subject not in {"pool", f"encoder {Path(encoder).name}"}
    if options is not None and sound:
        yield _finding("room and time", lambda: _room(options))


def _finding(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(True, subject, check())
    except (SeralError, OSError, ValueError, RuntimeError, ImportError, ray.exceptions.RayError) as error:
        return Finding(False, subject, mask(str(error)))


def _ledger(options: LoopOptions, people: PeopleOptions) -> str:
    """Check that a round can reach the ledger from anywhere, that it asks what the run asks, and has people enough."""
    url = ledger_url(options.run, people)
    if url.endswith(SUFFIX) and len(ray.nodes()) > 1:
        raise ValueError(f"{url} is a file, and the cluster has several nodes: name a server in people.ledger")
    if url.endswith(SUFFIX) and not Path(url).exists():
        return f"none yet; the run makes {url}"
    with closing(Database(url)) as database:
        if not database.exists():
            return "the server answers; the run makes the ledger there"
    with closing(Ledger.create(url, Project(classes=tuple(options.classes)))) as ledger:
        present = [row.name for row in ledger.people() if row.token_hash is not None]
    if len(present) < people.overlap:
        raise ValueError(
            f"{len(present)} people have a link, {people.overlap} are to hear each clip: seral labels people"
        )
    return f"{len(present)} people have a link"


def _packages() -> str:
    return ", ".join(f"{name} {number}" for name, number in versions(PACKAGES).items())


def _ray(options: LoopOptions | None) -> str:
    cluster.connect(None if options is None else options.cluster)
    resources = ray.cluster_resources()
    gib = resources.get("memory", 0) / 2**30
    return f"{len(ray.nodes())} node, {resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU, {gib:.1f} GiB"


def _state_api(options: LoopOptions | None) -> str:
    """Check that the cluster's dashboard answers, without which `ray list`, `ray logs` and submitted jobs fail."""
    if not (os.environ.get("RAY_ADDRESS") or (options is not None and options.cluster.address)):
        return "not asked: a local Ray has no dashboard, and needs none"
    try:
        return f"answers, and lists {len(list_nodes(timeout=STATE_S))} nodes"
    except RayStateApiException as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"no answer: start the head with its dashboard (ray[default]); {reason}") from error


def _nodes(run: str | None) -> str:
    """Check that every node has the versions of this one, room on its disk, and the run's storage."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    with _mark(run) as (mark, word):
        tasks = [
            ray.remote(_examine_node)
            .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(mark, word)
            for node in alive
        ]
        reports = ray.get(tasks, timeout=NODES_S)
    local, problems = versions(PACKAGES) | {"python": sys.version.split()[0]}, list[str]()
    for node in reports:
        other = {name: number for name, number in node["versions"].items() if local[name] != number}
        problems += [f"{node['name']} has {name} {number}, {local[name]} is here" for name, number in other.items()]
        problems += [f"{node['name']}: {node['storage']}"] if node["storage"] else []
        problems += [f"{node['name']} has {node['free_gb']:.1f} GB left"] if node["free_gb"] < LOW_DISK_GB else []
    if problems:
        raise ValueError("; ".join(problems))
    least = min(node["free_gb"] for node in reports)
    folder = "" if run is None else ", the run folder from each"
    return f"{len(reports)}, the same versions{folder}, {least:.0f} GB free or more"


@contextmanager
def _mark(run: str | None) -> Iterator[tuple[str | None, str]]:
    """A file in the run folder with a word that nobody can know who does not see it."""
    word = uuid.uuid4().hex
    if run is None:
        yield None, word
        return
    mark = storage.join(storage.absolute(run), f".seral-doctor-{word[:8]}")
    storage.write_bytes(mark, word.encode())
    try:
        yield mark, word
    finally:
        storage.remove(mark)


def _examine_node(mark: str | None, word: str) -> dict[str, Any]:
    """Versions, storage and free disk of the node that this runs on."""
    problem = ""
    if mark is not None:
        folder = mark.rpartition("/")[0]
        try:
            if not storage.exists(mark) or storage.read_bytes(mark).decode() != word:
                problem = f"{folder} there is not {folder} here: the run needs storage that all nodes share"
        except OSError as error:
            problem = f"{folder} cannot be read: {error}"
    return {
        "name": socket.gethostname(),
        "versions": versions(PACKAGES) | {"python": sys.version.split()[0]},
        "storage": problem,
        "free_gb": shutil.disk_usage(tempfile.gettempdir()).free / 1e9,
    }


def _devices() -> str:
    if not torch.cuda.is_available():
        return f"CPU only, {torch.get_num_threads()} threads"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{', '.join(names)}; bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"


def _codecs() -> str:
    """Write and read a tone in each format, since a codec can be listed and still not work."""
    tone = np.sin(np.arange(16000) / 20).astype(np.float32) / 2
    for name, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)):
        buffer = io.BytesIO()
        soundfile.write(buffer, tone, 16000, format=name, subtype=subtype)
        buffer.seek(0)
        read, _ = soundfile.read(buffer)
        if abs(len(read) - len(tone)) > 4000:
            raise ValueError(f"{name}/{subtype} gives {len(read)} of {len(tone)} samples")
    containers = "mp4 m4a webm (PyAV)" if codecs.installed() else "no mp4 m4a webm: pip install 'seral[codecs]'"
    return f"WAV FLAC Vorbis Opus MP3 ({soundfile.__libsndfile_version__}); {containers}"


def _encoder(name: str) -> str:
    encoder = load_frozen(name)
    if isinstance(encoder, PrecomputedEncoder):
        return f"{encoder.family}, {encoder.num_layers + 1} states x {encoder.width}, no network"
    size = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    return f"{encoder.family}, {encoder.num_layers} layers x {encoder.width}, {size:.1f} M parameters"


def _text_encoder(name: str) -> str:
    encoder = open_text_encoder(name)
    size = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    encoder(["One two three."])
    return f"{encoder.model.config.model_type}, {encoder.width} features, {size:.1f} M parameters"


def _adapters(name: str, options: LoopOptions | None) -> str:
    """Run one real backward pass: every module of the configured adapters, or LoRA, must get a gradient."""
    if is_precomputed(name) and (options is None or options.needs_network is None):
        return "none: features were computed elsewhere, and heads alone are trained"
    configured = {} if options is None or options.finetune.frozen else options.finetune.adapters()
    adapters = {kind: spec for kind, spec in configured.items() if kind != "layer_sum"}  # the head's, rather
    encoder = attach_adapters(load_encoder(name), adapters or "lora", seed=0)
    wave_BS = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    out = encoder(wave_BS, torch.tensor([16000]))
    out.hidden_LBTD[-1].float().square().mean().backward()
    if dead := dead_adapters(encoder):
        raise ValueError(f"{len(dead)} adapters get no gradient, e.g. {dead[0]}")
    return f"every module of {'+'.join(adapters) or 'lora'} gets a gradient"


def _pool(uri: str) -> str:
    pool = open_pool(uri)
    return f"{pool.rows} utterances in {len(pool.shards)} shards"


def _room(options: LoopOptions) -> str:
    """Estimate what the run will take: disk, memory, hours."""
    options = with_absolute_paths(options)
    pool = open_pool(options.pool)
    metadata, _ = ANNOTATORS[options.annotator].candidates(options, pool)
    return "; ".join(foresee(options, pool, first_folds(options, metadata)).sentences())


def _storage(uri: str) -> str:
    mark = storage.join(uri, ".seral-doctor")
    storage.write_bytes(mark, b"ok")
    storage.remove(mark)
    if "://" in uri:
        return f"{uri} is writable"
    free_gb = shutil.disk_usage(uri).free / 1e9
    if free_gb < LOW_DISK_GB:
        raise OSError(f"{uri} has {free_gb:.1f} GB left, less than {LOW_DISK_GB} GB")
    return f"{uri} is writable, {free_gb:.0f} GB free"
