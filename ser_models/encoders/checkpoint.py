"""Reading a Hugging Face checkpoint, and the identity of an encoder."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder, quiet_transformers
from ser_models.encoders.family import Family, Tower

FEATURE_TABLES = {".parquet", ".npz", ".npy"}
"""Suffixes of tables of features."""
FUNASR_WEIGHTS, FUNASR_CONFIGS = "model.pt", {"config.yaml", "configuration.json"}
"""Files of a checkpoint of FunASR."""


def read_checkpoint(source: str, families: Mapping[str, Family]) -> tuple[Any, bool]:
    """The encoder network of a folder or hub id in fp32, and whether its clips are to be standardised."""
    model_type = _model_type(source)
    if model_type not in families:
        raise ValueError(
            f"{source} is a {model_type!r} checkpoint, not a supported encoder; known: {', '.join(sorted(families))}"
        )
    family = families[model_type]  # a package makes its network known to transformers as its class is imported
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # what is wrong with it is said below
            encoder, missing = _read(source, family.tower)
    except OSError:
        raise
    except pickle.UnpicklingError as error:  # whose own words advise to run whatever there is
        raise ValueError(
            f"{source} cannot be read as a checkpoint: its weights are broken, or hold more than tensors, which could "
            "run code; have them saved as safetensors"
        ) from error
    except Exception as error:  # of zip, safetensors or transformers, by what is wrong with the files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{source} cannot be read as a checkpoint: {reason}") from error
    _check_complete(source, encoder, missing)
    return encoder, _standardises(source, family.preparation)


def _read(source: str, tower: Tower | None) -> tuple[Any, Collection[str]]:
    """The network of a checkpoint, or of a tower in it alone, and the names of weights that it lacks."""
    from transformers import AutoConfig, AutoModel  # takes seconds: whoever loads no encoder does without

    network: Any = AutoModel if tower is None else tower.network_class()
    options: dict[str, Any] = {}
    if tower is not None:
        options = {"key_mapping": {f"^{tower.weights}": ""}}
        if tower.config is not None:
            options["config"] = getattr(AutoConfig.from_pretrained(source), tower.config)
    model, report = network.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True, trust_remote_code=False, **options
    )
    missing: set[str] = report["missing_keys"]
    if tower is None and model.config.is_encoder_decoder:
        return model.get_encoder(), {name.removeprefix("encoder.") for name in missing}
    return model, missing


def fingerprint(encoder: SpeechEncoder) -> str:
    """16 hex digits that name an encoder's function: family, the configuration that matters and every weight.

    Weights are hashed as fp32 under sorted names, so neither the process, the device nor a half-precision copy of
    half-precision weights changes it. Adapters count: take it before attaching them to name the frozen network alone.
    """
    config = {field: getattr(encoder.model.config, field, None) for field in encoder.config_fields}
    head = {"family": encoder.family, "normalise": getattr(encoder, "normalise", False), "config": config}
    weights: dict[str, Tensor] = encoder.model.state_dict()
    for part in ("after_layers", "on_states"):
        state: dict[str, Tensor] = getattr(encoder, part).state_dict()
        weights |= {f"{part}.{name}": weight for name, weight in state.items()}
    return digest_weights(head, weights)


def digest_weights(head: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """16 hex digits of a network: what `head` says of it, and its weights as fp32 under sorted names."""
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    for name in sorted(weights):
        weight = weights[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()[:16]


def _model_type(source: str) -> str:
    from transformers import PreTrainedConfig

    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{source} holds no config.json: it is not a Hugging Face checkpoint folder{_import_hint(folder)}"
        )
    if folder.is_file():
        raise FileNotFoundError(f"{source} is a file, not a Hugging Face checkpoint folder{_import_hint(folder)}")
    if not folder.is_dir() and (folder.is_absolute() or source.startswith((".", "~")) or source.count("/") > 1):
        raise FileNotFoundError(f"encoder folder {source} does not exist")
    config, _ = PreTrainedConfig.get_config_dict(source)
    return str(config.get("model_type"))


def _import_hint(source: Path) -> str:
    """The way in for what is no checkpoint: tables of features, and networks that another library alone runs."""
    files = [source] if source.is_file() else [*source.iterdir()]
    names = {path.name for path in files}
    command = "`seral pool import-features TABLE --pool POOL --made-by NAME --out FOLDER`"
    if FUNASR_WEIGHTS in names and names.intersection(FUNASR_CONFIGS):
        return (
            f". It looks like one of FunASR, which FunASR alone runs: compute features with it, bring them in by "
            f"{command}, and give that folder as the encoder (docs/encoders.md)"
        )
    if any(path.suffix in FEATURE_TABLES for path in files):
        return f". Are these features? Bring them in by {command}, and give that folder as the encoder"
    return ""


def _check_complete(source: str, encoder: torch.nn.Module, missing: Collection[str]) -> None:
    """Weights that a checkpoint lacks are drawn at random by transformers with only a warning: refuse them."""
    # masked_spec_embed marks masked frames in pretraining; checkpoints of fine-tuned models come without it.
    needed = {name for name, _ in encoder.named_parameters()} - {"masked_spec_embed"}
    gaps = sorted(needed.intersection(missing))
    if gaps:
        raise ValueError(f"{source} lacks {len(gaps)} weights of its encoder, first {gaps[0]!r}: is it the right file?")


def _standardises(source: str, preparation: Mapping[str, float]) -> bool:
    """do_normalize of the checkpoint's feature extractor; False where it has none."""
    settings = _feature_extractor(source)
    rate = settings.get("sampling_rate", SAMPLE_RATE_HZ)
    if rate != SAMPLE_RATE_HZ:
        raise ValueError(f"{source} expects audio at {rate} Hz; encoders here are given {SAMPLE_RATE_HZ} Hz")
    for name, value in preparation.items():
        if settings.get(name, value) != value:
            raise ValueError(f"{source} prepares its input with {name} {settings[name]}; encoders here take {value}")
    # Left unsaid, transformers' waveform extractor standardises.
    unsaid = settings.get("feature_extractor_type") == "Wav2Vec2FeatureExtractor"
    return bool(settings.get("do_normalize", unsaid))


def _feature_extractor(source: str) -> dict[str, Any]:
    """Settings of the feature extractor, from either file of transformers. Raises OSError without the hub."""
    from transformers.utils.hub import cached_file

    path = cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
    if path is not None:
        settings: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return settings
    path = cached_file(source, "processor_config.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return {}
    nested: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")).get("feature_extractor", {})
    return nested
