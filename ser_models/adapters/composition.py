"""Several adapters on one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ser_models.adapters import ADAPTERS
from ser_models.adapters.parameters import refuse_second
from ser_models.encoders import SpeechEncoder
from ser_models.registry import did_you_mean


def parse_adapters(spec: str) -> dict[str, Any]:
    """`"lora+gate"` -> the kinds with their default options. Raises ValueError for an unknown or repeated kind."""
    kinds = [kind.strip() for kind in spec.split("+")]
    for kind in kinds:
        if kind not in ADAPTERS:
            raise ValueError(
                f"no adapter {kind!r} in {spec!r}; known: {', '.join(ADAPTERS)}{did_you_mean(kind, ADAPTERS)}"
            )
    if len(set(kinds)) < len(kinds):
        raise ValueError(f"an adapter is named twice in {spec!r}")
    return {kind: ADAPTERS[kind].options() for kind in kinds}


def attach_adapters(encoder: SpeechEncoder, spec: str | Mapping[str, Any], *, seed: int) -> SpeechEncoder:
    """Put one adapter or several on an encoder in place, and freeze everything else.

    `spec` is `"lora+gate"`, or kind -> options. The order in which kinds are named means nothing: weights of the
    encoder come first, then what replaces its linears, then what joins its attention or follows a layer.
    """
    options = parse_adapters(spec) if isinstance(spec, str) else dict(spec)
    if unknown := [kind for kind in options if kind not in ADAPTERS]:
        raise ValueError(f"no adapter {unknown[0]!r}; known: {', '.join(ADAPTERS)}")
    for kind in ADAPTERS.own_first(options):
        attach_one(encoder, kind, options[kind], seed=seed)
    return encoder


def attach_one(encoder: SpeechEncoder, kind: str, options: Any, *, seed: int) -> None:
    """Put an adapter on an encoder in place, noted by its name in the table: named by module it has two."""
    refuse_second(encoder, kind)
    before = set(encoder.adapters)
    ADAPTERS[kind].attach(encoder, options, seed=seed)
    for own_name in encoder.adapters.keys() - before:
        encoder.adapters[kind] = encoder.adapters.pop(own_name)
