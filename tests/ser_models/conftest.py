"""Tiny random encoders of every family, shared by the tests of encoders and of what is built on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import (
    ASTConfig,
    ASTModel,
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    MoonshineModel,
    MoonshineStreamingConfig,
    MoonshineStreamingForConditionalGeneration,
    MoonshineStreamingModel,
    Qwen2AudioConfig,
    Qwen2AudioEncoder,
    Qwen2AudioEncoderConfig,
    Qwen2AudioForConditionalGeneration,
    UniSpeechConfig,
    UniSpeechModel,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    VoxtralConfig,
    VoxtralEncoder,
    VoxtralEncoderConfig,
    VoxtralForConditionalGeneration,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from ser_models.encoders import SpeechEncoder, wrap

LANGUAGE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
LANGUAGE |= {"intermediate_size": 16, "vocab_size": 40}
TRANSFORMER = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
STEM = {
    "num_hidden_layers": 3,
    "conv_dim": (16, 24, 24),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 4,
}
GROUP = {"feat_extract_norm": "group", "num_conv_pos_embeddings": 16}
LAYER = {"feat_extract_norm": "layer", "num_conv_pos_embeddings": 16, "do_stable_layer_norm": True}
BERT = {"num_hidden_layers": 3, "conv_depthwise_kernel_size": 7, "left_max_position_embeddings": 6}
MOONSHINE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "encoder_num_hidden_layers": 3,
    "encoder_num_attention_heads": 4,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 4,
    "vocab_size": 4,
}
TOWER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "num_mel_bins": 80,
    "max_source_positions": 50,
}
VOXTRAL = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_mel_bins": 80,
    "max_source_positions": 50,
}
STREAMING = {
    **LANGUAGE,
    "encoder_config": {**TRANSFORMER, "num_hidden_layers": 3, "num_key_value_heads": 4},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
STREAMING["encoder_config"]["sliding_windows"] = ((16, 4), (16, 0), (8, 4))
WHISPER = {
    **TOWER,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "vocab_size": 4,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}

NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "wav2vec2-group": lambda: Wav2Vec2Model(Wav2Vec2Config(**TRANSFORMER, **STEM, **GROUP)),
    "wav2vec2-layer": lambda: Wav2Vec2Model(Wav2Vec2Config(**TRANSFORMER, **STEM, **LAYER)),
    "wav2vec2-adapter": lambda: Wav2Vec2Model(
        Wav2Vec2Config(**TRANSFORMER, **STEM, **LAYER, add_adapter=True, num_adapter_layers=1)
    ),
    "wav2vec2-conformer": lambda: Wav2Vec2ConformerModel(
        Wav2Vec2ConformerConfig(**TRANSFORMER, **STEM, **GROUP, conv_depthwise_kernel_size=7)
    ),
    "wav2vec2-conformer-rotary": lambda: Wav2Vec2ConformerModel(
        Wav2Vec2ConformerConfig(**TRANSFORMER, **STEM, **LAYER, position_embeddings_type="rotary")
    ),
    "wav2vec2-bert": lambda: Wav2Vec2BertModel(Wav2Vec2BertConfig(**TRANSFORMER, **BERT)),
    "wav2vec2-bert-adapter": lambda: Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            **TRANSFORMER,
            **BERT,
            position_embeddings_type="relative",
            add_adapter=True,
            use_intermediate_ffn_before_adapter=True,
        )
    ),
    "hubert-group": lambda: HubertModel(HubertConfig(**TRANSFORMER, **STEM, **GROUP)),
    "hubert-batch-norm": lambda: HubertModel(
        HubertConfig(**TRANSFORMER, **STEM, **LAYER, conv_pos_batch_norm=True, feat_proj_layer_norm=False)
    ),
    "wavlm-group": lambda: WavLMModel(WavLMConfig(**TRANSFORMER, **STEM, **GROUP)),
    "wavlm-layer": lambda: WavLMModel(WavLMConfig(**TRANSFORMER, **STEM, **LAYER)),
    "data2vec-audio": lambda: Data2VecAudioModel(
        Data2VecAudioConfig(**TRANSFORMER, **STEM, num_conv_pos_embeddings=3, conv_pos_kernel_size=5)
    ),
    "unispeech": lambda: UniSpeechModel(UniSpeechConfig(**TRANSFORMER, **STEM, **GROUP)),
    "unispeech-sat": lambda: UniSpeechSatModel(UniSpeechSatConfig(**TRANSFORMER, **STEM, **LAYER)),
    "whisper": lambda: WhisperModel(WhisperConfig(**WHISPER)).get_encoder(),
    "qwen2_audio": lambda: Qwen2AudioEncoder(Qwen2AudioEncoderConfig(**TOWER)),
    "voxtral": lambda: VoxtralEncoder(VoxtralEncoderConfig(**VOXTRAL)),
    "ast": lambda: ASTModel(ASTConfig(**TRANSFORMER, num_hidden_layers=3, num_mel_bins=32, max_length=98)),
    "moonshine_streaming": lambda: MoonshineStreamingModel(MoonshineStreamingConfig(**STREAMING)).get_encoder(),
    "moonshine": lambda: MoonshineModel(MoonshineConfig(**MOONSHINE)).get_encoder(),
}
"""Every family, and its variants that take another path through the code."""

AUDIO_IN_WORDS: dict[str, Callable[[], torch.nn.Module]] = {
    "whisper": lambda: WhisperForConditionalGeneration(WhisperConfig(**WHISPER)),
    "moonshine": lambda: MoonshineForConditionalGeneration(MoonshineConfig(**MOONSHINE)),
    "moonshine_streaming": lambda: MoonshineStreamingForConditionalGeneration(MoonshineStreamingConfig(**STREAMING)),
    "qwen2_audio": lambda: Qwen2AudioForConditionalGeneration(
        Qwen2AudioConfig(
            audio_config={**TOWER, "model_type": "qwen2_audio_encoder"},
            text_config={**LANGUAGE, "model_type": "qwen2"},
            audio_token_index=3,
        )
    ),
    "voxtral": lambda: VoxtralForConditionalGeneration(
        VoxtralConfig(
            audio_config={**VOXTRAL, "model_type": "voxtral_encoder"},
            text_config={**LANGUAGE, "model_type": "llama"},
            audio_token_id=3,
        )
    ),
}
"""Networks that write, as their checkpoints are published: an encoder is a part of them."""

STANDARDISED = {"ast", "wav2vec2-group", "hubert-batch-norm", "moonshine"}


@pytest.fixture(params=sorted(NETWORKS))
def encoder(request: pytest.FixtureRequest) -> SpeechEncoder:
    """A tiny random encoder, once for each family and variant."""
    return tiny_encoder(request.param)


@pytest.fixture
def make_encoder() -> Callable[[str], SpeechEncoder]:
    """Builds a tiny random encoder by a name in NETWORKS; the same weights every time."""
    return tiny_encoder


@pytest.fixture(params=sorted(AUDIO_IN_WORDS))
def writer(request: pytest.FixtureRequest) -> torch.nn.Module:
    """A tiny random network that writes, once for each of AUDIO_IN_WORDS."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return AUDIO_IN_WORDS[request.param]()


def tiny_encoder(name: str) -> SpeechEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = NETWORKS[name]()
        enliven(network)
    return wrap(network, normalise=name in STANDARDISED)


@torch.no_grad()
def enliven(network: torch.nn.Module) -> None:
    """Give every weight a size that shows: transformers starts biases, gates and norms at values that hide mistakes."""
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    for name, buffer in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(torch.rand(buffer.shape))
