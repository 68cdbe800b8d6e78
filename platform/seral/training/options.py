"""Options of a whole supervised training: the task, the adapters, pretraining, labels of other languages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from ser_models.defaults import MEAN_STD
from seral import storage
from seral.options import Options
from seral.pretraining.options import TaptRunOptions
from seral.task.options import ProtocolOptions, ReadingOptions, TaskOptions
from seral.training.finetune_options import AnchorOptions, FinetuneOptions, HeadOptions, check_anchored, check_text

TOP_SHARE = 0.75
"""Share of the layers that learn, from the top."""


class TrainingOptions(ReadingOptions, ProtocolOptions):
    """Options of a task and of the training of its models."""

    source_corpora: list[str] | None = None
    """Corpora of other languages whose labels are there from the start and cost no budget, each brought to the target's
    mean and spread. A head on a frozen encoder has theirs as its prior, so that few labels change it little and many
    overcome it; the loop's first round picks by it. Adapters learn from both, all labels of one with as much weight as
    all of the other. None = none."""
    prior: str | None = None
    """Run of `seral transfer`: its head is the prior, in the place of one of `source_corpora`. So labels of any pools
    count, and no clip of theirs is needed any more. None = none."""
    anchor: AnchorOptions | None = None
    """Hold the source's and the target's speech together by CORAL; None = not."""
    tapt: TaptRunOptions | None = None
    """Adapt the encoder to the training audio of each fold first; None = use it as it is."""
    finetune: FinetuneOptions = FinetuneOptions()

    @property
    def corpora_read(self) -> list[str] | None:
        """The target's corpora and the source's."""
        return None if self.corpora is None else [*self.corpora, *(self.source_corpora or [])]

    @property
    def needs_network(self) -> str | None:
        """Pretraining, adapters or corrupted copies, as an option; None = heads alone."""
        return network_need(self.finetune, self.tapt)

    @field_validator("prior")
    @classmethod
    def _absolute_prior(cls, prior: str | None) -> str | None:
        return None if prior is None else storage.absolute(prior)

    @model_validator(mode="after")
    def _check_training(self) -> Self:
        check_text(self.text_encoder, [self.finetune])
        check_pretrained(self.tapt, self.finetune)
        if self.anchor is not None:
            check_anchored(self.finetune)
        if self.anchor is not None and not self.source_corpora:
            raise ValueError("anchor holds two languages together: name the source_corpora")
        if self.source_corpora and self.finetune.pooling != MEAN_STD:
            raise ValueError(
                f"source_corpora are aligned by the means and standard deviations of cached features: set "
                f"finetune.pooling={MEAN_STD}, got {self.finetune.pooling}"
            )
        if self.prior is not None and (self.source_corpora or self.finetune.head.hidden or not self.classes):
            raise ValueError("prior is the linear head of classes of other corpora: leave out source_corpora, hidden")
        if both := sorted(set(self.source_corpora or ()) & set(self.corpora or ())):
            raise ValueError(f"{both[0]} is among the corpora and among the source_corpora; choose one")
        return self


def network_need(finetune: FinetuneOptions, tapt: TaptRunOptions | None = None) -> str | None:
    """The option of a training for which features of the encoder are not enough; None = they are."""
    if tapt is not None:
        return "tapt"
    if not finetune.frozen:
        return f"finetune.adapter={finetune.adapter}"
    return None if finetune.augment is None else "finetune.augment"


def check_pretrained(tapt: TaptRunOptions | None, finetune: FinetuneOptions) -> None:
    """Raise ValueError where an adapter is pretrained and then not trained on labels."""
    adapter = None if tapt is None else tapt.trained_adapter
    if adapter is not None and adapter not in finetune.adapters():
        raise ValueError(f"tapt trains the adapter {adapter}: name it in finetune.adapter, got {finetune.adapter!r}")


class SourceOptions(Options):
    """A pool whose labels are used."""

    pool: str
    """The pool."""
    corpora: list[str] | None = None
    """Only these corpora; None = all."""
    class_map: dict[str, str] | None = None
    """A corpus's word -> one of the classes; None = the usual words."""

    @field_validator("pool")
    @classmethod
    def _absolute(cls, uri: str) -> str:
        return storage.absolute(uri)


def corpora_in(sources: Sequence[SourceOptions], uri: str) -> list[str] | None:
    """Corpora of a pool that are among the sources; None = all."""
    named = [source.corpora for source in sources if source.pool == uri]
    return None if None in named else [name for names in named for name in names or ()]


class AdaptOptions(TaskOptions):
    """Options of adapting an encoder by labels."""

    corpora: list[str] | None = None
    """Corpora of the pool whose labels are used; None = all."""
    sources: list[SourceOptions] = Field(default=[])
    """Further pools, or corpora with words of their own."""
    seeds: list[int] = Field(default=[0], min_length=1, max_length=1)
    """The seed of adapters, batches and dropout."""
    adapter: str = "lora"
    """A name in ser_models.adapters.ADAPTERS whose update can be merged into the weights, or several with +."""
    settings: dict[str, dict[str, Any]] = Field(default={})
    """Options of single kinds, such as {lora: {rank: 4}}."""
    top_layers: int | None = Field(default=None, ge=1)
    """Adapters in the top so many layers only; None = in three quarters of them."""
    epochs: int = Field(default=2, ge=1)
    """Times that every clip is learnt from; on some thousand clips more of them bring nothing."""
    batch_size: int = Field(default=24, ge=4)
    """Clips of a step, all of one corpus, over all workers."""
    lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate (AdamW, short warm-up, then linear to 0)."""
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Share of a label that is spread over the classes of its corpus."""
    left_out: bool = True
    """Train once more for each corpus, without its labels, and say what such an encoder is worth on it beside the one
    that was not adapted; as long again as there are corpora."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Steps between checkpoints."""

    @field_validator("corpora")
    @classmethod
    def _some(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and not names:
            raise ValueError("corpora: name one at least, or leave it out for all")
        return names

    @model_validator(mode="after")
    def _check(self) -> AdaptOptions:
        if len(self.classes) < 2 or self.dimensions:
            raise ValueError("an encoder is adapted to classes: name at least two, and no dimensions")
        if self.finetune(1).frozen:
            raise ValueError(f"adapter {self.adapter!r} trains nothing in the encoder: choose another, such as lora")
        return self

    @property
    def parts(self) -> list[SourceOptions]:
        """All pools whose labels are used, the run's own first."""
        return [SourceOptions(pool=self.pool, corpora=self.corpora), *self.sources]

    @property
    def corpora_read(self) -> list[str] | None:
        """The corpora of the run's own pool."""
        return corpora_in(self.parts, self.pool)

    @property
    def needs_network(self) -> str | None:
        """The adapters, as an option."""
        return f"adapter={self.adapter}"

    def finetune(self, num_layers: int) -> FinetuneOptions:
        """The adapters as options of a training, in an encoder of so many layers."""
        top = self.top_layers or max(1, round(TOP_SHARE * num_layers))
        return FinetuneOptions(adapter=self.adapter, settings=self.settings, top_layers=top)


class TransferOptions(TaskOptions):
    """Options of a transfer of labels to a pool without any."""

    corpora: list[str] | None = None
    """Corpora of the pool that are the target; None = all that are not among the sources."""
    sources: list[SourceOptions] = Field(min_length=1)
    """Pools, or corpora of them, whose labels are used; the target's own pool may be among them."""
    head: HeadOptions = HeadOptions()
    """The head: `normalise` says whether speakers' means are taken away."""

    @property
    def corpora_read(self) -> list[str] | None:
        """The target's corpora, and the sources' of the target's own pool."""
        return corpora_in([SourceOptions(pool=self.pool, corpora=self.corpora), *self.sources], self.pool)

    @model_validator(mode="after")
    def _check_head(self) -> TransferOptions:
        if len(self.classes) < 2 or self.dimensions:
            raise ValueError("a transfer learns classes: name at least two, and no dimensions")
        if self.head.hidden:
            raise ValueError(f"a transfer fits linear heads, got head.hidden={self.head.hidden}")
        return self


class SupervisedOptions(TrainingOptions):
    """A training on all labels, and where its models are tested besides."""

    variants: dict[str, str] = Field(default={})
    """Pools of the same utterances that sound otherwise (`seral pool degrade`), by name: the test clips are heard as
    they are there too, and the table has a column NAME_uar."""

    @property
    def needs_network(self) -> str | None:
        """Training in the encoder, or variants, which sound otherwise than what features are of; None = neither."""
        return super().needs_network or ("variants" if self.variants else None)

    @field_validator("variants")
    @classmethod
    def _absolute(cls, variants: dict[str, str]) -> dict[str, str]:
        return {name: storage.absolute(uri) for name, uri in variants.items()}
