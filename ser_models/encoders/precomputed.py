"""The face of an encoder that ran elsewhere: its pooled states are there as features, and no audio goes in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

from torch import Tensor, nn

from ser_models.encoders.encoder import SpeechEncoder

# B batch · S samples · T frames · D features · L hidden states

FACTS = "features.json"
"""File of a folder of features that says what they are (seral.features.precomputed writes it)."""
FEATURES_OF = "features of "
"""Beginning of the family of such an encoder; the name of what computed the features follows."""
NETWORK_NEEDED = (
    "holds features that were computed elsewhere, and no network: heads on them can be trained "
    "(finetune.adapter=frozen), but adapters, pretraining, augmentation, audio, exports and serving need a checkpoint"
)
"""Words after a name, wherever a network is asked for."""


class PrecomputedEncoder(SpeechEncoder):
    """Stands wherever an encoder does whose pooled states are cached: heads are fitted to them, and nothing runs.

    `made_by` names what computed the features, and is the family: a head on those of one maker fits no other's.
    `digest` is that of their content, and decides the fingerprint. Raises ValueError wherever it is to listen.
    """

    config_fields = ("digest", "num_hidden_layers", "hidden_size")

    def __init__(self, made_by: str, *, states: int, width: int, digest: str) -> None:
        if states < 1 or width < 1:
            raise ValueError(f"features of {made_by} need at least 1 state of 1 number, got {states} of {width}")
        network: Any = nn.Module()
        network.config = SimpleNamespace(
            model_type=f"{FEATURES_OF}{made_by}", digest=digest, num_hidden_layers=states - 1, hidden_size=width
        )
        network.layers = nn.ModuleList(nn.Identity() for _ in range(states - 1))
        super().__init__(network, width=width, frame_rate_hz=0.0, equal_lengths_only=False)

    def _refuse(self) -> NoReturn:
        raise ValueError(f"{self.family.removeprefix(FEATURES_OF)} {NETWORK_NEEDED}")

    @property
    def final_norm(self) -> nn.Module | None:
        """None: there is no network."""
        return None

    @property
    def minimal_samples(self) -> int:
        """Raise ValueError: no audio goes in."""
        self._refuse()

    @property
    def front(self) -> list[nn.Module]:
        """Raise ValueError: there are no convolutions."""
        self._refuse()

    def frames(self, length_B: Tensor) -> Tensor:
        """Raise ValueError: no audio goes in."""
        self._refuse()

    def project(self, wave_BS: Tensor, length_B: Tensor) -> Tensor:
        """Raise ValueError: no audio goes in."""
        self._refuse()

    def upper(self, hidden_BTD: Tensor, mask_BT: Tensor, *, start: int) -> Tensor:
        """Raise ValueError: no layer is there."""
        self._refuse()

    def checkpoint(self) -> Any:
        """Raise ValueError: there are no weights to save."""
        self._refuse()

    def feature_extractor(self) -> Any:
        """Raise ValueError: no audio goes in."""
        self._refuse()
