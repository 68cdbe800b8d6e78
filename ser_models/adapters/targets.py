"""The linear layers of each encoder family that adapters go into, by their last names."""

from __future__ import annotations

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
