"""A folder that transformers loads by itself: `AutoModelForAudioClassification`, `pipeline("audio-classification")`.

config.json model.safetensors preprocessor_config.json    as of any model; id2label has the classes
modeling_seral.py                                          the code, which needs torch and transformers alone

No class of transformers holds a model exactly. `Wav2Vec2ForSequenceClassification` and its like weigh layers and then
average over time; ours standardises every feature of every layer before the sum, reads deviations, which are not linear
in the frames, and bounds both. Padding also reaches real frames in their encoders with group norm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from ser_models.adapters import ADAPTERS
from ser_models.audio_text import AudioTextPool
from ser_models.build import SerModel, describe_model
from ser_models.encoders import FAMILIES
from ser_models.encoders.encoder import quiet_transformers
from ser_models.exports.bundle import bundle
from ser_models.exports.modeling import SerConfig, SerForAudioClassification

CODE = "modeling_seral"
ABOUT = """A model for speech emotion recognition, exported by seral.

It is loaded by `AutoModelForAudioClassification.from_pretrained(FOLDER, trust_remote_code=True)`."""
FOOTER = '''
{network_import}


class SeralForAudioClassification(SerForAudioClassification):
    """The exported model."""

    network_class = {network}
    encoder_class = {encoder}
    adapter_classes = {{{adapters}}}
'''


def write_hf(model: SerModel, folder: Path, *, temperature: float = 1.0, abstain_below: float | None = None) -> None:
    """Write a model as it is; adapters that cannot be folded into the weights go along with their code."""
    exported = as_transformers(model, temperature=temperature, abstain_below=abstain_below)
    exported.config.auto_map = {
        "AutoConfig": f"{CODE}.SerConfig",
        "AutoModelForAudioClassification": f"{CODE}.SeralForAudioClassification",
    }
    exported.config.architectures = ["SeralForAudioClassification"]
    from transformers import Wav2Vec2FeatureExtractor

    extractor: Any = Wav2Vec2FeatureExtractor
    with quiet_transformers():
        exported.save_pretrained(folder)
        extractor.from_dict({"do_normalize": False, "return_attention_mask": True}).save_pretrained(folder)
    (folder / f"{CODE}.py").write_text(code_of(model), encoding="utf-8")


def code_of(model: SerModel) -> str:
    """The source of the file beside the configuration."""
    network, encoder = type(model.encoder.model), type(model.encoder)
    carried = {kind: ADAPTERS[kind] for kind in model.encoder.adapters}
    of_transformers = network.__module__.partition(".")[0] == "transformers"
    roots: list[Any] = [SerForAudioClassification, encoder, *([] if of_transformers else [network])]
    for adapter in carried.values():
        roots += [adapter.options, adapter.attach]
    pairs = [f'"{kind}": ({part.options.__name__}, {part.attach.__name__})' for kind, part in carried.items()]
    footer = FOOTER.format(
        network_import=f"from {network.__module__} import {network.__name__}" if of_transformers else "",
        network=network.__name__,
        encoder=encoder.__name__,
        adapters=", ".join(pairs),
    )
    return bundle(roots, footer, ABOUT)


def as_transformers(
    model: SerModel, *, temperature: float = 1.0, abstain_below: float | None = None
) -> SerForAudioClassification:
    """A model as a class of transformers, with copies of its weights."""
    encoder, kinds = model.encoder, list(model.encoder.adapters)

    exported_class = _class_of(type(encoder.model), type(encoder), kinds)
    exported = exported_class(config_of(model, temperature=temperature, abstain_below=abstain_below))
    exported.model.load_state_dict(model.state_dict(), strict=False)
    exported.train(False)
    return exported


def read_hf(folder: str | Path) -> tuple[SerModel, dict[str, Any]]:
    """The model of a folder that `write_hf` wrote, its `temperature` and `abstain_below`; no code of it is run.

    Raises ValueError where it is another folder's.
    """
    config = SerConfig.from_pretrained(folder)
    family = config.encoder.get("model_type")
    if config.model_type != SerConfig.model_type or family not in FAMILIES:
        raise ValueError(f"{folder} is no export of seral: its config.json says {config.model_type!r} on {family!r}")
    kinds, encoder = ADAPTERS.own_first(config.adapters), FAMILIES[str(family)].encoder
    exported_class = _class_of(_network_class(config.encoder), encoder, kinds)
    with quiet_transformers():
        exported = exported_class.from_pretrained(folder, config=config, dtype=torch.float32)
    return exported.model, {name: config.head.get(name) for name in ("temperature", "abstain_below")}


def _class_of(network: Any, encoder: Any, kinds: Sequence[str]) -> type[SerForAudioClassification]:
    """The class that an export's file of code defines, made of the code that is imported."""
    adapters = {kind: (ADAPTERS[kind].options, ADAPTERS[kind].attach) for kind in kinds}
    own = {"network_class": network, "encoder_class": encoder, "adapter_classes": adapters}
    return type("Exported", (SerForAudioClassification,), own)


def _network_class(config: Mapping[str, Any]) -> Any:
    """transformers' class of an encoder network by its configuration: of Whisper's and its like, the encoder alone."""
    if tower := FAMILIES[str(config["model_type"])].tower:
        return tower.network_class()
    auto: Any = AutoModel
    with torch.device("meta"):
        network = auto.from_config(AutoConfig.for_model(**config))
    return type(network.get_encoder() if network.config.is_encoder_decoder else network)


def config_of(model: SerModel, *, temperature: float = 1.0, abstain_below: float | None = None) -> SerConfig:
    """The configuration that builds a model again."""
    encoder, facts = model.encoder, describe_model(model)
    names = model.classes or model.dimensions
    return SerConfig(
        encoder=encoder.model.config.to_dict(),
        head={
            "options": facts["options"],
            "text": asdict(model.pool.text) if isinstance(model.pool, AudioTextPool) else None,
            "pooling": facts.get("pooling"),
            "normalise": getattr(encoder, "normalise", False),
            "temperature": temperature,
            "abstain_below": abstain_below,
        },
        adapters={kind: asdict(options) for kind, options in encoder.adapters.items()},
        dimensions=model.dimensions,
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
        problem_type="single_label_classification" if model.classes else "regression",
        dtype=torch.float32,
    )
