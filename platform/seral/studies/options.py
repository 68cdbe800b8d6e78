"""Options of studies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, field_validator, model_validator

from seral import storage
from seral.cluster import ClusterOptions
from seral.features.options import EncoderName
from seral.loop.options import LoopOptions
from seral.options import Options, parse
from seral.pool.split_options import SplitOptions
from seral.pretraining.options import TaptRunOptions
from seral.schema import RANDOM
from seral.selection.selection import StrategyOptions
from seral.task.options import CorpusOptions, ProtocolOptions, ReadingOptions
from seral.training.finetune_options import FinetuneOptions, check_text
from seral.training.options import check_pretrained, network_need

WAYS = {
    "alone": ("alone", "none"),
    "alone, normalised": ("alone", "auto"),
    "source": ("source", "none"),
    "source, normalised": ("source", "auto"),
}
"""Way of learning -> without or with a source, and the normalisation of the head; `alone` is the reference."""
REFERENCE = 0.2
"""Share of the labels whose UAR by random picks, alone, is what others are measured by."""
BASELINE = "random"


class Variant(Options):
    """One row of the table."""

    name: str
    """Name of the row."""
    finetune: FinetuneOptions = FinetuneOptions()
    tapt: TaptRunOptions | None = None
    """Adapt the encoder to the training audio of each fold first; None = use it as it is."""


class CompareOptions(ReadingOptions, ProtocolOptions):
    """Variants of training on one task."""

    rows: list[Variant] = Field(min_length=1)
    """The rows that are compared, each with a name of its own."""
    baseline: str | None = None
    """The row whose UAR the others' gain is measured from; None = the first."""
    fractions: list[float] = Field(default=[1.0], min_length=1)
    """Shares of the training labels; smaller ones lie inside larger ones."""

    @property
    def needs_network(self) -> str | None:
        """The first row that trains the encoder, or listens."""
        needs = ((row.name, network_need(row.finetune, row.tapt)) for row in self.rows)
        return next((f"{what} of the row {name!r}" for name, what in needs if what is not None), None)

    @model_validator(mode="after")
    def _check_rows(self) -> CompareOptions:
        from seral.task.cells import file_name

        names = [row.name for row in self.rows]
        if len({file_name(name) for name in names}) < len(names):
            raise ValueError(f"rows need names of their own, as files too, got {', '.join(names)}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"the baseline {self.baseline!r} is none of the rows {', '.join(names)}")
        check_text(self.text_encoder, [row.finetune for row in self.rows])
        for row in self.rows:
            check_pretrained(row.tapt, row.finetune)
        if wrong := [share for share in self.fractions if not 0 < share <= 1]:
            raise ValueError(f"fractions must lie in (0, 1], got {wrong[0]}")
        return self


class TwoStageOptions(ReadingOptions):
    """Options of a two-stage adaptation: the domain of each stage, and the training."""

    source: CorpusOptions
    """Acted speech, labelled: stage 1. Its first fold meets every fold of the target."""
    target: CorpusOptions
    """Natural speech, labelled: stage 2."""
    target_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the target's training labels that may be used."""
    freeze: list[list[str]] = Field(default=[["bottleneck"], []], min_length=1)
    """Parts that stay as stage 1 left them, a row of the table for each list: tags of the adapters (lora_A, lora_B,
    bottleneck, gate, ...), layer_sum or head."""
    refit_head: bool = True
    """One more row: nothing frozen, and stage 2 starts from a head fitted anew to the target, as target only does."""
    finetune: FinetuneOptions = Field(default_factory=lambda: FinetuneOptions(adapter="lora+bottleneck+gate+layer_sum"))
    """Options of every training; `steps` counts instead of its epochs and patience."""
    steps: int = Field(default=400, ge=2)
    """Optimiser steps of both stages together, and of each training beside them."""
    first_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of the steps that stage 1 takes."""

    @property
    def corpora_read(self) -> list[str] | None:
        """The corpora of both domains."""
        parts = (self.source.corpora, self.target.corpora)
        return None if None in parts else [name for names in parts for name in names or ()]

    @property
    def needs_network(self) -> str | None:
        """The adapters, as an option."""
        return network_need(self.finetune)

    @model_validator(mode="after")
    def _check(self) -> TwoStageOptions:
        check_text(self.text_encoder, [self.finetune])
        if self.finetune.frozen:
            raise ValueError("two-stage adaptation needs adapters to hand over: set finetune.adapter")
        return self


class PartOptions(Options):
    """Clips that make one pool of the survey."""

    corpora: list[str] = Field(min_length=1)
    """Corpora of the pool."""
    classes: list[str] = Field(min_length=2)
    """The emotions to tell apart."""


class Row(NamedTuple):
    """One line of the summary."""

    encoder: str
    target: str
    source: str
    normalise: str
    arm: str

    @property
    def reference(self) -> Row:
        """Random picks alone, of features as they are."""
        return self._replace(source="alone", normalise="none", arm=RANDOM)

    @property
    def by_chance(self) -> Row:
        """Random picks with all else the same."""
        return self._replace(arm=RANDOM)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One loop of a study."""

    encoder: str
    target: str
    source: str
    normalise: str
    deal: int

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"{Path(self.encoder).name}.{self.target}.{self.source}.{self.normalise}.deal-{self.deal:02d}"

    def row(self, arm: str) -> Row:
        """The row of the summary that an arm belongs to."""
        return Row(Path(self.encoder).name, self.target, self.source, self.normalise, arm)


class LabelStudyOptions(Options):
    """Options of a study of labels."""

    pool: str
    """The pool of all targets."""
    run: str
    """The folder of all loops: made when missing, resumed when there."""
    encoders: list[EncoderName] = Field(min_length=1)
    """Hub ids or folders."""
    targets: dict[str, PartOptions] = Field(min_length=2)
    """Corpora and classes of each target, by name; each is learnt with the labels of all others as its source."""
    strategy: StrategyOptions = StrategyOptions(name="auto")
    """The strategy beside random."""
    others: list[StrategyOptions] = Field(default=[])
    """Further strategies, each an arm of its own."""
    ways: list[str] = Field(default=list(WAYS), min_length=1)
    """Ways of learning: alone or with the labels of the other targets, features as they are or normalised."""
    finetune: FinetuneOptions = FinetuneOptions()
    """The training of every round: a frozen head, or adapters."""
    fractions: list[float] = Field(default=[0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0], min_length=2)
    """Labels held after each round, as shares of the training part."""
    k: int = Field(default=3, ge=2)
    """Groups of speakers, each tested on in turn."""
    deals: list[int] = Field(default=list(range(10)), min_length=1)
    """Seeds by which speakers are dealt to groups anew."""
    feature_cache: str | None = None
    """Folder of the features; None = inside the pool."""
    cluster: ClusterOptions = ClusterOptions()

    @field_validator("pool", "run")
    @classmethod
    def _absolute(cls, uri: str) -> str:
        return storage.absolute(uri)

    @field_validator("ways")
    @classmethod
    def _named_in_table(cls, names: list[str]) -> list[str]:
        if unknown := [name for name in names if name not in WAYS]:
            raise ValueError(f"no way {unknown[0]!r}; known: {', '.join(WAYS)}")
        return names

    @model_validator(mode="after")
    def _check(self) -> LabelStudyOptions:
        if REFERENCE not in self.fractions:
            raise ValueError(f"fractions must have {REFERENCE}, at which random picks are the reference")
        names = [Path(encoder).name for encoder in self.encoders]
        if len(set(names)) < len(names):
            raise ValueError(f"two of the encoders {self.encoders} have the same last name, which names their folders")
        return self

    def settings(self) -> Iterator[Setting]:
        """Every setting, deal after deal."""
        for encoder, deal, target, way in product(self.encoders, self.deals, self.targets, self.ways):
            source, normalise = WAYS[way]
            yield Setting(encoder=encoder, target=target, source=source, normalise=normalise, deal=deal)

    def loop(self, setting: Setting) -> LoopOptions:
        """The loop of a setting."""
        part, parts = self.targets[setting.target], self.targets.items()
        others = sorted({name for target, other in parts if target != setting.target for name in other.corpora})
        values: dict[str, Any] = {
            "pool": self.pool,
            "run": storage.join(self.run, setting.name),
            "encoder": setting.encoder,
            **part.model_dump(),
            "source_corpora": others if setting.source == "source" else None,
            "strategy": self.strategy.model_dump(),
            "others": [other.model_dump() for other in self.others],
            "full_arm": False,
            "split": {"scheme": "k-fold", "k": self.k, "seed": setting.deal},
            "seeds": [setting.deal],
            "budget": {"fractions": self.fractions},
            "finetune": self.finetune.model_dump(),
            "feature_cache": self.feature_cache,
            "cluster": self.cluster.model_dump(),
        }
        values["finetune"]["head"]["normalise"] = setting.normalise
        return parse(LoopOptions, values)


class StrategyRow(StrategyOptions):
    """A strategy with its wrappers, under a name of its own."""

    label: str | None = None
    """Name of the row; None = that of the strategy."""

    @property
    def row(self) -> str:
        """The row's name."""
        return self.label or self.name


class StrategyStudyOptions(ProtocolOptions):
    """Strategies on one pool and one encoder."""

    rows: list[StrategyRow] = Field(min_length=1)
    """Strategies; `random`, which all are compared with, is added when it is not among them."""
    split: SplitOptions = SplitOptions(scheme="k-fold", k=3)
    """Division of the speakers; every seed deals those of k-fold anew."""
    budgets: list[float] = Field(default=[0.02, 0.05, 0.1, 0.2, 0.35, 0.5], min_length=2)
    """Labels after each round, as shares of the training part (junk not counted)."""
    state: int | None = Field(default=None, ge=0)
    """Hidden state whose mean over time describes a clip; None = the middle one."""
    junk: str | None = None
    """Corpus of the pool that is mixed into what may be picked: recordings without speech; None = none."""
    junk_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of junk in what may be picked, as far as there is enough."""

    @property
    def corpora_read(self) -> list[str] | None:
        """The corpora of the task, and the junk."""
        return None if self.corpora is None else [*self.corpora, *([] if self.junk is None else [self.junk])]

    @field_validator("budgets")
    @classmethod
    def _increasing(cls, shares: list[float]) -> list[float]:
        if shares != sorted(set(shares)) or not shares[0] > 0 or shares[-1] > 1:
            raise ValueError(f"budgets are shares that increase within (0, 1], got {shares}")
        return shares

    @field_validator("rows")
    @classmethod
    def _with_baseline(cls, rows: list[StrategyRow]) -> list[StrategyRow]:
        return rows if BASELINE in [row.row for row in rows] else [*rows, StrategyRow(name=BASELINE)]

    @model_validator(mode="after")
    def _check_rows(self) -> StrategyStudyOptions:
        names = [row.row for row in self.rows]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two rows are called {min(twice)}; give one a `label`")
        if not self.classes or self.dimensions:
            raise ValueError("strategies choose by class probabilities: name classes, and no dimensions")
        return self


class StrategySurveyOptions(Options):
    """Options of a survey: every encoder on every pool, clean and with junk."""

    run: str
    """The folder of all studies: made when missing, resumed when there."""
    encoders: list[EncoderName] = Field(min_length=1)
    """Hub ids or folders."""
    pools: dict[str, PartOptions] = Field(min_length=1)
    """Pools by name."""
    junk: str | None = None
    """Corpus that is mixed in for a second study of every encoder and pool; None = clean ones only."""
    study: dict[str, Any]
    """Options of every study: those of `seral compare-strategies`, without those above."""

    @model_validator(mode="after")
    def _check_studies(self) -> StrategySurveyOptions:
        for taken in ("run", "encoder", "corpora", "classes", "junk"):
            if taken in self.study:
                raise ValueError(f"study.{taken} is set by the survey; leave it out")
        if len({encoder for encoder, _, _ in self.studies()}) < len(self.encoders):
            raise ValueError(f"two of the encoders {self.encoders} have the same last name, which names their folders")
        return self

    def studies(self) -> dict[tuple[str, str, bool], StrategyStudyOptions]:
        """(encoder, pool, with junk) -> the study."""
        options = {}
        for encoder in self.encoders:
            for name, part in self.pools.items():
                for noisy in (False, True) if self.junk else (False,):
                    short = Path(encoder).name
                    run = storage.join(self.run, f"{short}.{name}.{'junk' if noisy else 'clean'}")
                    own = {"run": run, "encoder": encoder, "junk": self.junk if noisy else None, **part.model_dump()}
                    options[short, name, noisy] = parse(StrategyStudyOptions, {**self.study, **own})
        return options
