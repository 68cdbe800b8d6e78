"""Options of a whole supervised training: the task, the adapters, pretraining, labels of other languages."""

from __future__ import annotations

from typing import Self

import pyarrow as pa
from pydantic import field_validator, model_validator

from ser_models.pooling import MEAN_STD
from seral import storage
from seral.pool.shards import Pool
from seral.pretraining.options import TaptRunOptions
from seral.task.eligibility import eligible
from seral.task.options import ProtocolOptions, ReadingOptions
from seral.training.alignment import AnchorOptions
from seral.training.finetune_options import FinetuneOptions, check_anchored, check_text
from seral.training.pretrained import check_pretrained


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


def sides(options: TrainingOptions, pool: Pool) -> tuple[pa.Table, pa.Table]:
    """Metadata of the target's utterances, and of the source's: other corpora, so other speakers."""
    if not options.source_corpora:
        target = eligible(options, pool, options.corpora)
        return target, target.slice(0, 0)
    source = eligible(options, pool, options.source_corpora)
    present = sorted(set(pool.column("corpus").unique().to_pylist()) - set(options.source_corpora))
    target = eligible(options, pool, options.corpora or present)
    return target, source
