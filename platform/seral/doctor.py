"""Checks that tell what would go wrong before it does."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import ray
import soundfile
import torch

from ser_models.adapters import LoraOptions, attach_lora, dead_adapters
from ser_models.encoders import load_encoder
from seral import cluster, storage
from seral.active.loop import LoopOptions
from seral.errors import SeralError
from seral.options import load
from seral.pool.shards import open_pool
from seral.text_features import open_text_encoder
from seral.versions import versions

PACKAGES = ("seral", "ray", "torch", "transformers", "peft", "faiss-cpu", "pyarrow", "soundfile", "soxr")
LOW_DISK_GB = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    ok: bool
    subject: str
    detail: str


def examine(config: Path | None = None) -> Iterator[Finding]:
    """Check this machine, and what a run's configuration needs when one is given."""
    options = None if config is None else load(LoopOptions, config)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", lambda: sys.version.split()[0]),
        ("packages", _packages),
        ("ray", lambda: _ray(options)),
        ("devices", _devices),
        ("codecs", _codecs),
    ]
    encoder = "seral-tiny" if options is None else options.encoder
    checks.append((f"encoder {Path(encoder).name}", lambda: _encoder(encoder)))
    checks.append(("adapter liveness", lambda: _adapters(encoder)))
    if options is not None and (reader := options.text_encoder) is not None:
        checks.append((f"text encoder {Path(reader).name}", lambda: _text_encoder(reader)))
    folders = [("working folder", ".")]
    if options is not None:
        checks.append(("pool", lambda: _pool(options.pool)))
        folders = [("run folder", options.run), ("feature cache", options.feature_cache or options.pool)]
    checks += [(name, partial(_storage, folder)) for name, folder in folders]
    for subject, check in checks:
        try:
            yield Finding(True, subject, check())
        except (SeralError, OSError, ValueError, RuntimeError, ImportError) as error:
            yield Finding(False, subject, str(error))


def _packages() -> str:
    return ", ".join(f"{name} {number}" for name, number in versions(PACKAGES).items())


def _ray(options: LoopOptions | None) -> str:
    cluster.connect(None if options is None else options.cluster)
    resources = ray.cluster_resources()
    gib = resources.get("memory", 0) / 2**30
    return f"{len(ray.nodes())} node, {resources.get('CPU', 0):g} CPU, {resources.get('GPU', 0):g} GPU, {gib:.1f} GiB"


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
    return f"WAV FLAC Vorbis Opus MP3 ({soundfile.__libsndfile_version__})"


def _encoder(name: str) -> str:
    encoder = load_encoder(name)
    size = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    return f"{encoder.family}, {encoder.num_layers} layers x {encoder.width}, {size:.1f} M parameters"


def _text_encoder(name: str) -> str:
    encoder = open_text_encoder(name)
    size = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    encoder(["One two three."])
    return f"{encoder.model.config.model_type}, {encoder.width} features, {size:.1f} M parameters"


def _adapters(name: str) -> str:
    """One real backward pass: every LoRA module must get a gradient."""
    encoder = attach_lora(load_encoder(name), LoraOptions(), seed=0)
    wave_BS = torch.randn(1, 16000, generator=torch.Generator().manual_seed(0)) * 0.1
    out = encoder(wave_BS, torch.tensor([16000]))
    out.hidden_LBTD[-1].float().square().mean().backward()
    if dead := dead_adapters(encoder):
        raise ValueError(f"{len(dead)} adapters get no gradient, e.g. {dead[0]}")
    return "every LoRA module gets a gradient"


def _pool(uri: str) -> str:
    pool = open_pool(uri)
    return f"{pool.rows} utterances in {len(pool.shards)} shards"


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
