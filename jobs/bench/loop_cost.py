"""Machines, hours and money of the main job on pools that do not fit here, from unit costs measured here.

    python -m jobs.bench.loop_cost 'growth=runs/bench-loop-growth/growth.json'

Unit costs are one core's: a second of audio through the encoder, a clip's features from the disk to an embedding.
Networks have the size of the published ones and random weights, which cost the same. With `growth`, the figures that
jobs.bench.loop_growth measured stand beside what is foreseen for the same sizes.
"""

# N clips · L hidden states · D features
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field
from transformers import PreTrainedModel, Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel

from ser_models.encoders import wrap
from seral.figures.markdown import markdown
from seral.loop.estimate import CLIP_BYTES, PROCESS_BYTES, UnitCosts, unit_costs
from seral.options import Options, run_job

BASE = "base (wav2vec 2.0, 12 x 768)"
LARGE = "large (WavLM, 24 x 1024)"


class LoopCostOptions(Options):
    """Options of the cost model: the pools, the machines, their price."""

    rows: list[int] = Field(default=[10**6, 10**7, 10**8], min_length=1)
    """Utterances."""
    seconds: float = Field(default=4.0, gt=0)
    """Mean length of an utterance."""
    rounds: int = Field(default=10, ge=1)
    cores: int = Field(default=32, ge=1)
    """Cores of a machine."""
    memory_gb: float = Field(default=128.0, gt=0)
    """Memory of a machine."""
    most_hours: float = Field(default=24.0, gt=0)
    """So many machines are taken that features are there after so long."""
    core_hour: float = Field(default=0.04, ge=0)
    """Price of a core for an hour, in whatever money; 0.04 USD is usual for rented general-purpose cores."""
    embedding: int = Field(default=256, ge=8)
    growth: Path | None = None
    """Results of jobs.bench.loop_growth, to stand beside what is foreseen."""


def run_loop_cost(options: LoopCostOptions) -> str:
    """Tables of what pools cost, and of what was foreseen and measured."""
    tables = []
    for name, network in _networks():
        costs, states, width = _measure(network, options)
        encode_ms, weigh_us = 1000 * costs.encode_s, 1e6 * costs.weigh_s
        unit = (
            f"{name}: {encode_ms:.0f} ms of a core for a second of audio, {weigh_us:.0f} µs for the features of a clip"
        )
        rows = [_costs(count, states, width, costs, options) for count in options.rows]
        tables.append(f"{unit}\n\n{markdown(pd.DataFrame(rows))}")
    if options.growth is not None:
        tables.append(_checked(json.loads(options.growth.read_text()), options))
    return "\n\n".join(tables)


def _networks() -> Iterator[tuple[str, PreTrainedModel]]:
    """Networks by name, one in memory at a time."""
    yield BASE, Wav2Vec2Model(Wav2Vec2Config())
    size: dict[str, Any] = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    }
    yield LARGE, WavLMModel(WavLMConfig(**size, do_stable_layer_norm=True, feat_extract_norm="layer"))


def _measure(network: PreTrainedModel, options: LoopCostOptions) -> tuple[UnitCosts, int, int]:
    """Unit costs of a network, its hidden states and their width."""
    encoder = wrap(network)
    return unit_costs(encoder, options.seconds, 30.0), encoder.num_layers + 1, encoder.width


def _costs(count: int, states: int, width: int, costs: UnitCosts, options: LoopCostOptions) -> dict[str, Any]:
    """A row of the table: what one trajectory on a pool of that size takes."""
    encoding_h, round_h = (count * cost / 3600 for cost in (options.seconds * costs.encode_s, costs.weigh_s))
    # Who selects holds what is selected by; it may be in parts on several machines.
    memory = PROCESS_BYTES + count * (CLIP_BYTES + 2 * options.embedding)
    for_memory = -(-memory // (0.7e9 * options.memory_gb))
    machines = int(max(1, -(-encoding_h // (options.cores * options.most_hours)), for_memory))
    at_once = machines * options.cores
    return {
        "utterances": f"{count:.0e}",
        "features, TB": count * 4 * states * width / 1e12,
        "memory to select, GB": memory / 1e9,
        "machines": machines,
        "features, h": encoding_h / at_once,
        "features, money": encoding_h * options.core_hour,
        "round of a frozen head, min": 60 * round_h / at_once,
        "rounds of a frozen head, money": options.rounds * round_h * options.core_hour,
        "round of adapters, h": (encoding_h + round_h) / at_once,
        "rounds of adapters, money": options.rounds * (encoding_h + round_h) * options.core_hour,
    }


def _checked(growth: dict[str, Any], options: LoopCostOptions) -> str:
    """Cost that was foreseen for the sizes that were measured, beside what it was."""
    shape = growth["options"]
    configuration = Wav2Vec2Config(hidden_size=shape["width"], num_hidden_layers=shape["layers"])
    costs, states, width = _measure(Wav2Vec2Model(configuration), options)
    rows = []
    for measured in growth["measured"]:
        if measured["side"] == "this" and not measured["failed"]:
            clips = measured["rows"]
            rows.append(
                {
                    "utterances": clips,
                    "features, GB, foreseen": clips * 4 * states * width / 1e9,
                    "measured": measured["features_mb"] / 1e3,
                    "scoring a round, s, foreseen": clips * costs.weigh_s,
                    "measured ": measured["phases"]["score"],
                    "driver, GB, at most": (PROCESS_BYTES + clips * CLIP_BYTES) / 1e9,
                    "measured  ": measured["driver_mb"] / 1e3,
                }
            )
    return markdown(pd.DataFrame(rows))


if __name__ == "__main__":
    run_job(LoopCostOptions, run_loop_cost, __doc__)
