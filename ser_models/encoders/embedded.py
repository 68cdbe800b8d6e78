"""seral-tiny: a small speech encoder that comes with the package, and the untrained network it was made from.

A wav2vec 2.0 network (Baevski et al. 2020, arXiv 2006.11477) whose weights were distilled from a large encoder by
`jobs/distil.py` (Chang et al. 2022, DistilHuBERT, arXiv 2110.01900); seral-tiny/README.md says from what and how.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from ser_models.encoders.checkpoint import read_checkpoint
from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder
from ser_models.encoders.family import Family
from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder

if TYPE_CHECKING:
    from transformers import Wav2Vec2Config

EncoderT = TypeVar("EncoderT", bound=SpeechEncoder)

FOLDER = Path(__file__).parent / "seral-tiny"
SEED = 2310_00283
PHASES = 4
"""Filters per frequency, a quarter of a period apart: rectified and summed, they give the band's amplitude."""
BAND_HZ = (60.0, 7600.0)
"""Centres of the lowest and the highest filter of the first convolution."""


def seral_tiny() -> Wav2Vec2Encoder:
    """4 layers x 192 features at 50 Hz, 2.2 M parameters, about 250 times real time on one CPU core.

    Layer norm in the stem and before each block, so that padding cannot leak even through the network's own forward;
    no dropout, so that frozen layers give the same frames cached or not.
    """
    # transformers draws from the global generator before it reads the weights; its state is left as it was.
    with torch.random.fork_rng(devices=[]):
        family = Family(encoder=Wav2Vec2Encoder, licence="Apache-2.0")
        model, normalise = read_checkpoint(str(FOLDER), {"wav2vec2": family})
    return Wav2Vec2Encoder(model, normalise=normalise)


def seral_tiny_untrained() -> Wav2Vec2Encoder:
    """seral-tiny before distillation: filters on the mel scale, everything else drawn from a fixed seed."""
    from transformers import Wav2Vec2Model

    # The constructor draws from the global generator; these weights are replaced, and its state is left as it was.
    with torch.random.fork_rng(devices=[]):
        model = Wav2Vec2Model(seral_tiny_config())
    draw_weights(model, torch.Generator().manual_seed(SEED))
    front = model.get_parameter("feature_extractor.conv_layers.0.conv.weight")
    with torch.no_grad():
        front.copy_(mel_filters_in_time(front.shape[0], front.shape[2]).unsqueeze(1))
    return Wav2Vec2Encoder(model, normalise=False)


def seral_tiny_config() -> Wav2Vec2Config:
    """Sizes of seral-tiny, with the quantizer's for `Wav2Vec2ForPreTraining` around the same network."""
    from transformers import Wav2Vec2Config

    return Wav2Vec2Config(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=768,
        # One long stride of 10 ms instead of many short ones: layers at thousands of frames per second cost the most.
        conv_dim=(256, 192, 192),
        conv_kernel=(400, 1, 3),
        conv_stride=(160, 1, 2),
        conv_bias=True,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=16,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        feat_quantizer_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        # On, or the network ignores the mask indices that pretraining hands it.
        apply_spec_augment=True,
        mask_time_prob=0.65,
        mask_time_length=10,
        mask_feature_prob=0.0,
        num_codevector_groups=2,
        num_codevectors_per_group=64,
        codevector_dim=128,
        proj_codevector_dim=128,
        num_negatives=100,
        contrastive_logits_temperature=0.1,
        diversity_loss_weight=0.1,
        vocab_size=32,
    )


def mel_filters_in_time(filters: int, taps: int) -> Tensor:
    """Windowed tones with centres evenly spaced in mel, PHASES of each, louder with frequency as speech is softer.

    -> (filters, taps), for 16 kHz: a short-time spectrum as a convolution, from which training goes on.
    """
    mel_lo, mel_hi = (2595 * math.log10(1 + hertz / 700) for hertz in BAND_HZ)
    mel_F = torch.linspace(mel_lo, mel_hi, filters // PHASES, dtype=torch.float64)
    hertz_F = 700 * (10 ** (mel_F / 2595) - 1)
    time_K = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / SAMPLE_RATE_HZ
    phase_P = torch.arange(PHASES, dtype=torch.float64) * (2 * math.pi / PHASES)
    tone_FPK = torch.cos(2 * math.pi * hertz_F[:, None, None] * time_K + phase_P[:, None])
    window_K = torch.hann_window(taps, periodic=False, dtype=torch.float64) * (2 / math.sqrt(taps))
    emphasis_F = hertz_F / 1000
    return (emphasis_F[:, None, None] * window_K * tone_FPK).flatten(0, 1).float()


def untrained_twin(encoder: EncoderT) -> EncoderT:
    """A copy of any encoder whose weights have learned nothing: what its architecture alone is worth."""
    twin = copy.deepcopy(encoder)
    draw_weights(twin.model, torch.Generator().manual_seed(SEED))
    return twin


@torch.no_grad()
def draw_weights(model: nn.Module, generator: torch.Generator) -> None:
    """Fill every weight in the order of its name: norms 1, biases 0, the rest uniform with variance 1 / fan-in.

    Uniform numbers come from integer arithmetic, so they agree to the last bit across processors; normal ones go
    through logarithms and cosines that do not.
    """
    for name, weight in sorted(model.named_parameters()):
        if name.endswith("bias"):
            weight.zero_()
        elif name.endswith("weight") and weight.ndim == 1:
            weight.fill_(1.0)
        elif name.endswith("original0"):
            weight.fill_(_weight_norm_gain(model, name))
        else:
            limit = math.sqrt(3.0 / _fan_in(weight))
            weight.uniform_(-limit, limit, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.reset_running_stats()


def _fan_in(weight: Tensor) -> int:
    return math.prod(weight.shape[1:]) if weight.ndim > 1 else weight.numel()


def _weight_norm_gain(model: nn.Module, name: str) -> float:
    """The expected norm of one kernel position of the weight-normed position convolution: sqrt(out / kernel)."""
    direction = model.get_parameter(name.removesuffix("0") + "1")
    return math.sqrt(direction.shape[0] / direction.shape[2])
