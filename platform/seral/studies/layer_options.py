"""Options of studies of layers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ser_models.defaults import CORAL_PROJECTION, GROUP_SIZE, L2
from seral.cluster import ClusterOptions
from seral.features.options import EncoderName, FeatureOptions
from seral.options import Options
from seral.pool.split_options import SplitOptions
from seral.task.options import ProtocolOptions, TaskOptions
from seral.training.finetune_options import FinetuneOptions, check_anchored, label_free
from seral.training.options import network_need

EMOTION = "emotion"
AROUSAL = {
    "anger": 1.0,
    "fear": 1.0,
    "happiness": 1.0,
    "surprise": 1.0,
    "boredom": -1.0,
    "calm": -1.0,
    "disgust": -1.0,
    "neutral": -1.0,
    "sadness": -1.0,
}
VALENCE = {
    "calm": 1.0,
    "happiness": 1.0,
    "neutral": 1.0,
    "surprise": 1.0,
    "anger": -1.0,
    "boredom": -1.0,
    "disgust": -1.0,
    "fear": -1.0,
    "sadness": -1.0,
}
MAPS = {"arousal": AROUSAL, "valence": VALENCE}
"""Two levels for every emotion, for corpora without ratings; after the two-way mapping by which Schuller et al. 2010
(IEEE Transactions on Affective Computing 1(2), cross-corpus emotion recognition) made corpora comparable, with calm,
which they do not have, beside neutral. A stand-in: it says nothing that the emotion's name does not say."""


class ProbeOptions(Options):
    """Options of a probe of encoders: the encoders, and the labelled speech that they are judged on."""

    pool: str
    """A pool with gold labels and speakers; its labelled part is held in memory."""
    classes: tuple[str, ...]
    """Emotions to tell apart; other utterances are left out."""
    run: str | None = None
    """Folder of table and picture; None = the table is only printed."""
    corpus: str | None = None
    """Only utterances of this corpus."""
    encoders: tuple[str, ...] = ("seral-tiny",)
    """Hub ids, folders or embedded encoders."""
    untrained: bool = True
    """Also each encoder's network with untrained weights."""
    folds: int = Field(default=6, ge=2)
    """Folds of speakers; no speaker is on both sides."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1)
    """Every seed deals the speakers to other folds."""
    std: bool = True
    """Features are mean and standard deviation over time; false = the mean alone (log-mel always has both)."""


class RelevanceOptions(ProtocolOptions):
    """Options of a study of layer relevance."""

    split: SplitOptions = SplitOptions(scheme="k-fold")
    """Division of the speakers; every seed deals those of k-fold anew."""
    mapped: list[Literal["arousal", "valence"]] = Field(default=[])
    """Dimensions to read off the name of the emotion, for corpora without ratings (see MAPS)."""
    l2: float = Field(default=L2, ge=0)
    """Ridge penalty of the probes."""

    @model_validator(mode="after")
    def _check_mapped(self) -> RelevanceOptions:
        for name in self.mapped:
            if absent := sorted(set(self.classes) - set(MAPS[name])):
                raise ValueError(f"no {name} is known of the emotion {absent[0]!r}; known: {', '.join(MAPS[name])}")
            if len({MAPS[name][emotion] for emotion in self.classes}) < 2:
                raise ValueError(f"mapped {name} is the same for all of the classes {', '.join(self.classes)}")
        return self

    @property
    def targets(self) -> dict[str, str | None]:
        """Name of every target -> the dimension that is mapped, None where the labels are the pool's own."""
        mapped = {f"{name} (mapped)": name for name in self.mapped}
        return {**({EMOTION: None} if self.classes else {}), **dict.fromkeys(self.dimensions), **mapped}


class SimilarityOptions(Options):
    """Options of a study of layer similarity."""

    pool: str
    """The pool; without measures of emotions, no label of it is read."""
    run: str
    """Folder of the table and the picture."""
    encoder: EncoderName = "seral-tiny"
    """A hub id, a folder, or an embedded encoder."""
    by: Literal["language", "corpus"] = "language"
    """Groups that are compared: languages, or corpora."""
    groups: list[str] | None = None
    """Only these languages or corpora; None = all of the pool."""
    measures: list[str] = Field(default=["coral", "mmd"], min_length=1)
    """coral and mmd compare distributions and need no label; centroid_cosine and centroid_cka compare emotions."""
    classes: list[str] = Field(default=[])
    """The emotions that centroid measures compare."""
    labels: Literal["pseudo", "gold"] = "pseudo"
    """For centroid measures: the target's labels as a probe of the source tells them (pseudo), or as they are (gold),
    which is for looking and not for choosing anchors of an unlabelled language. The source's are always gold."""
    max_clips: int = Field(default=1000, ge=2)
    """So many clips of each at most, drawn at random."""
    seed: int = 0
    """Seed of the draw of utterances."""
    features: FeatureOptions = FeatureOptions()
    feature_cache: str | None = None
    """Folder of the features; None = inside the pool."""
    cluster: ClusterOptions = ClusterOptions()

    @field_validator("measures")
    @classmethod
    def _named_in_table(cls, names: list[str]) -> list[str]:
        from ser_models.similarity import SIMILARITIES

        if unknown := [name for name in names if name not in SIMILARITIES]:
            raise ValueError(f"no similarity {unknown[0]!r}; known: {', '.join(SIMILARITIES)}")
        return names

    @model_validator(mode="after")
    def _check_classes(self) -> SimilarityOptions:
        if self.of_labels and len(self.classes) < 2:
            raise ValueError(f"{self.of_labels[0]} compares emotions: name at least two classes")
        return self

    @property
    def of_labels(self) -> list[str]:
        """Measures that compare emotions."""
        from ser_models.similarity import SIMILARITIES

        return [name for name in self.measures if SIMILARITIES[name].of_labels]


class LayerTransferOptions(TaskOptions):
    """Options of a study of transfer between languages or corpora."""

    by: Literal["language", "corpus"] = "language"
    """Groups that labels are carried over between: languages, or corpora."""
    groups: list[str] | None = None
    """Only these languages or corpora; None = all of the pool."""
    split: SplitOptions = SplitOptions(scheme="k-fold", k=4)
    """Division of the speakers of each are divided; every seed deals those of k-fold anew."""
    folds: list[int] | None = None
    """Folds to run; None = all the split gives."""
    similarity: str = "coral"
    """The label-free measure by which anchors are found: coral or mmd."""
    anchors: list[str] = Field(default=["last", "single", "group", "top_k", "all"], min_length=1)
    """Anchor sets, a row of each pair for each."""
    size: int = Field(default=GROUP_SIZE, ge=1)
    """Layers of `group` and `top_k`."""
    weights: list[float] = Field(default=[1.0, 10.0, 100.0], min_length=1)
    """λ to choose from."""
    projection: int = Field(default=CORAL_PROJECTION, ge=1)
    """Directions whose covariances are brought together."""
    l2: float = Field(default=L2, ge=0)
    """Ridge penalty of every head."""
    finetune: FinetuneOptions | None = None
    """One more row: adapters in the encoder, anchored while they train as `chosen` is; None = heads on cached features
    alone."""

    @property
    def needs_network(self) -> str | None:
        """The adapters, as an option; None = heads alone."""
        return None if self.finetune is None else network_need(self.finetune)

    @field_validator("similarity")
    @classmethod
    def _label_free(cls, name: str) -> str:
        return label_free(name)

    @model_validator(mode="after")
    def _check_rows(self) -> LayerTransferOptions:
        from ser_models.similarity import ANCHOR_SETS

        if unknown := sorted(set(self.anchors) - set(ANCHOR_SETS)):
            raise ValueError(f"no anchor set {unknown[0]!r}; known: {', '.join(ANCHOR_SETS)}")
        if self.finetune is not None:
            check_anchored(self.finetune)
            if self.finetune.frozen:
                raise ValueError("finetune is for adapters; heads on frozen features are there without it")
        if len(self.classes) < 2 or self.dimensions:
            raise ValueError("anchored training learns classes: name at least two, and no dimensions")
        return self
