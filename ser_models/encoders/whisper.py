"""The encoder of Whisper on clips of their own length. Radford et al. 2022 (arXiv 2212.04356).

transformers pads every clip to 30 s and lets it attend to the silence. Here frames of real audio attend to each other
only, and the position table is cut to the batch's longest clip: the same weights, several times cheaper, and not the
same numbers as with 30 s of silence.

# B batch · S samples · M mel bands · T frames · D features
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ser_models.encoders.decoderless import without_decoder
from ser_models.encoders.encoder import SAMPLE_RATE_HZ, SpeechEncoder, refuse_to_standardise
from ser_models.encoders.family import Tower
from ser_models.encoders.mel import HOP_SAMPLES, at_most, log_mel, mel_filters

FRAME_SAMPLES = 2 * HOP_SAMPLES


WHISPER = Tower(network="transformers.models.whisper.modeling_whisper.WhisperEncoder", weights=r"(model\.)?encoder\.")
QWEN2_AUDIO = Tower(network="transformers.Qwen2AudioEncoder", weights=r"(model\.)?audio_tower\.", config="audio_config")
VOXTRAL = Tower(network="transformers.VoxtralEncoder", weights=r"(model\.)?audio_tower\.", config="audio_config")


class WhisperSpeechEncoder(SpeechEncoder):
    """A transformers WhisperEncoder."""

    config_fields: ClassVar[tuple[str, ...]] = ("activation_function", "encoder_attention_heads")
    depth_fields = ("encoder_layers", "num_hidden_layers")
    targets = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")

    def __init__(self, model: nn.Module, *, normalise: bool) -> None:
        refuse_to_standardise(model, normalise)
        config: Any = model.config
        super().__init__(
            model,
            width=config.d_model,
            frame_rate_hz=SAMPLE_RATE_HZ / FRAME_SAMPLES,
            equal_lengths_only=False,
        )
        self.limit_samples: int = config.max_source_positions * FRAME_SAMPLES
        self.filters_FM: Tensor
        self.register_buffer("filters_FM", mel_filters(config.num_mel_bins), persistent=False)

    @property
    def minimal_samples(self) -> int:
        return 1

    def frames(self, length_B: Tensor) -> Tensor:
        # Frame t is centred on sample 320·t: it is real while that sample is.
        return (length_B + FRAME_SAMPLES - 1).div(FRAME_SAMPLES, rounding_mode="floor")

    def checkpoint(self) -> Any:
        sizes = {"decoder_layers": 0, "vocab_size": 2, "max_target_positions": 1}
        tokens = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
        return without_decoder(self.model, {**sizes, **tokens})

    def feature_extractor(self) -> Any:
        from transformers import WhisperFeatureExtractor

        chunk_length = self.limit_samples // SAMPLE_RATE_HZ
        settings = {"feature_size": self.model.config.num_mel_bins, "chunk_length": chunk_length}
        return WhisperFeatureExtractor.from_dict(settings)

    @property
    def front(self) -> list[nn.Module]:
        return [self.model.conv1, self.model.conv2]

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        self._check_limit(length_B)
        samples = at_most(wave_BS.shape[1], self.limit_samples)
        frames = (samples + FRAME_SAMPLES - 1) // FRAME_SAMPLES
        # Four mel frames past the last pair: the window's tail and what the two convolutions see to the right.
        mel_frames = at_most(2 * frames + 4, self.limit_samples // HOP_SAMPLES)
        mel_BMT = log_mel(
            wave_BS[:, :samples].float(), self.filters_FM.float(), frames=mel_frames, limit_samples=self.limit_samples
        )
        hidden_BDT = F.gelu(self.model.conv1(mel_BMT.to(self.model.dtype)))
        hidden_BDT = F.gelu(self.model.conv2(hidden_BDT))
        return hidden_BDT[..., :frames].transpose(1, 2)

    def add_positions(self, frame_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        hidden_BTD = frame_BTD + self.model.embed_positions.weight[: frame_BTD.shape[1]]
        return F.dropout(hidden_BTD, p=self.model.dropout, training=self.training)

    def _check_limit(self, length_B: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        for index, length in enumerate(length_B.tolist()):
            if length > self.limit_samples:
                raise ValueError(
                    f"clip {index} lasts {length / SAMPLE_RATE_HZ:.2f} s; this whisper encoder has positions for "
                    f"{self.limit_samples / SAMPLE_RATE_HZ:.2f} s: cut it into shorter utterances"
                )


class WhisperTower(WhisperSpeechEncoder):
    """A transformers Qwen2AudioEncoder or VoxtralEncoder: Whisper's shape before a language model.

    The last hidden state of Qwen2-Audio's is that of its frames: it is not averaged over pairs of them.
    """

    config_fields: ClassVar[tuple[str, ...]] = (*WhisperSpeechEncoder.config_fields, "num_attention_heads")

    def checkpoint(self) -> Any:
        return self.model
