"""The linear layers of each encoder family that adapters go into, by their last names."""

from __future__ import annotations

from ser_models.encoders import SpeechEncoder

ATTENTION_AND_FEEDFORWARD: dict[str, tuple[str, ...]] = {
    "wav2vec2": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "hubert": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "wavlm": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "data2vec-audio": ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"),
    "whisper": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "moonshine": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
}
"""The four attention projections and both feed-forward linears of every family, the second of them last."""
KEY_VALUE_FEEDFORWARD: dict[str, tuple[str, ...]] = {
    family: ("k_proj", "v_proj", names[-1]) for family, names in ATTENTION_AND_FEEDFORWARD.items()
}
"""Keys, values, and the second feed-forward linear."""


def default_targets(encoder: SpeechEncoder) -> tuple[str, ...]:
    """The attention projections and feed-forward linears of an encoder, as its family or its class names them."""
    names = ATTENTION_AND_FEEDFORWARD.get(encoder.family, encoder.targets)
    if not names:
        raise ValueError(
            f"where adapters go into a {encoder.family} encoder is not known: say it in `targets` of its class "
            f"{type(encoder).__name__}, such as ('q_proj', 'v_proj')"
        )
    return names
