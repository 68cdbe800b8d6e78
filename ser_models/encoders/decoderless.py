"""Saving the encoder half of a sequence-to-sequence checkpoint in a layout that every transformers user can load."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch


def without_decoder(encoder: Any, decoder_settings: Mapping[str, Any], config: Any = None) -> Any:
    """The full model around an encoder, its decoder shrunk to zero layers and zero weights.

    `config`: of the full model, where it is not the encoder's.

    An encoder saved by itself has other weight names than its checkpoint: `AutoModel` would take it for one, find none
    of its weights and start from random ones with only a warning.
    """
    from transformers import AutoModel

    auto: Any = AutoModel
    config = copy.deepcopy(encoder.config if config is None else config)
    config.update(dict(decoder_settings))
    config.architectures = None
    with torch.device("meta"):
        model = auto.from_config(config)
    model.decoder.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.decoder.to(encoder.dtype).parameters():
            parameter.zero_()
    model.encoder = encoder
    return model
