"""seral-tiny: a speech encoder that needs no download, the same on every machine.

It is **untrained**: a wav2vec 2.0 network (Baevski et al. 2020, arXiv 2006.11477) with weights drawn from a fixed seed,
for trying seral out, for tests, and as a starting point for task-adaptive pretraining on one's own audio. Its features
say something about emotion, as random convolutions do, but far less than those of a pretrained encoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from ser_models.encoders.wav2vec2 import Wav2Vec2Encoder

SEED = 2310_00283


def seral_tiny() -> Wav2Vec2Encoder:
    """4 layers x 192 features at 50 Hz, 2.2 M parameters, about 80 times real time on one CPU core.

    Layer norm in the stem and before each block, so that padding cannot leak even through the network's own forward;
    no dropout, so that frozen layers give the same frames cached or not.
    """
    # The constructor draws from the global generator; these weights are replaced, and its state is left as it was.
    with torch.random.fork_rng(devices=[]):
        model = Wav2Vec2Model(seral_tiny_config())
    draw_weights(model, torch.Generator().manual_seed(SEED))
    return Wav2Vec2Encoder(model, normalise=True)


def seral_tiny_config() -> Wav2Vec2Config:
    """Sizes of seral-tiny, with the quantizer's for `Wav2Vec2ForPreTraining` around the same network."""
    return Wav2Vec2Config(
        hidden_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=768,
        # Four wide strides instead of seven: the first layers run at thousands of frames per second and cost the most.
        conv_dim=(64, 128, 128, 128),
        conv_kernel=(10, 8, 8, 4),
        conv_stride=(5, 4, 4, 4),
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


def _fan_in(weight: Tensor) -> int:
    return math.prod(weight.shape[1:]) if weight.ndim > 1 else weight.numel()


def _weight_norm_gain(model: nn.Module, name: str) -> float:
    """The expected norm of one kernel position of the weight-normed position convolution: sqrt(out / kernel)."""
    direction = model.get_parameter(name.removesuffix("0") + "1")
    return math.sqrt(direction.shape[0] / direction.shape[2])
