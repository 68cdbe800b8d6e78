"""Data of a training: labelled utterances, unlabelled ones beside them, speech of another language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from seral.errors import TrainError
from seral.features.speakers import Centring
from seral.features.store import FeatureStore
from seral.task.examples import Targets, Unlabelled, Utterances
from seral.training.finetune_options import AnchorOptions


class Labelled(NamedTuple):
    """Utterances with their labels, row by row."""

    units: Utterances
    targets: Targets


@dataclass(frozen=True, kw_only=True)
class SourceModels:
    """Models of labelled speech of other corpora for a target whose labels nobody has, see seral.training.source."""

    folders: Mapping[str, str]
    """Normalisation -> folder of a model."""
    normalise: str
    """The normalisation that unlabelled speech of the target speaks for."""
    labels: Mapping[str, float]
    """Normalisation -> labels that the model's head is worth as a prior."""

    @property
    def folder(self) -> str:
        """The folder of the model to go by before there are labels."""
        return self.folders[self.normalise]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Speech of another language, some of it among the labelled."""

    units: Utterances
    anchor: AnchorOptions | None = None
    """Hold it together with the target's speech by CORAL; None = aligned and weighed only."""
    models: SourceModels | None = None
    """Models of the source alone, whose heads labels of the target have to overcome; None = none were made."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """A task, and all that a model of it may learn from."""

    train: Labelled
    dev: Labelled
    """The utterances by which the best epoch of a training of adapters is kept; without any it is the last."""
    unlabelled: Unlabelled
    """Training audio without its labels: its statistics standardise each hidden state."""
    store: FeatureStore
    classes: Sequence[str] = ()
    dimensions: Sequence[str] = ()
    source: Source | None = None
    centrings: Mapping[str, Centring] = field(default_factory=dict)
    """Means that may be taken from features, by normalisation."""

    def check(self) -> None:
        """Raise TrainError unless the training and the dev part are labelled for the task."""
        for part, labelled in (("training", self.train), ("dev", self.dev)):
            if part == "dev" and not labelled.units.ids:
                continue  # a head needs none
            targets, clips = labelled.targets, len(labelled.targets.label_N)
            if self.classes and not targets.labelled_N.any():
                raise TrainError(f"none of the {clips} {part} utterances has one of the classes {list(self.classes)}")
            if self.dimensions and (rated := int(targets.rated_N.sum())) < 2:
                raise TrainError(f"{rated} of the {clips} {part} utterances have ratings; CCC needs two or more")
