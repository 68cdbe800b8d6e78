"""Options of the folds of a pool."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from seral.options import Options


def _listed(value: Any) -> Any:
    """One table as a list of it."""
    return (value,) if isinstance(value, str) else value


class SplitOptions(Options):
    """Options of the folds of a pool."""

    scheme: Literal["leave-one-speaker", "leave-one-session", "k-fold", "column"] = "leave-one-speaker"
    """leave-one-speaker, leave-one-session, k-fold (by speaker), or column (the pool's own `split`)."""
    k: int = Field(default=5, ge=2)
    """Number of folds of k-fold."""
    dev_speakers: int = Field(default=1, ge=1)
    """Speakers in dev, for leave-one-speaker and k-fold."""
    seed: int = Field(default=0, ge=0)
    """Deals the speakers of k-fold: 0 the largest first, which makes the most even groups, others in an order of their
    own. The other schemes have no chance in them."""
    near_duplicates: Annotated[tuple[str, ...], BeforeValidator(_listed)] | None = None
    """Tables that `seral pool screen` wrote: of near-duplicates in two parts those of test stay, else those of dev.
    None = those that the pool has when a run begins, unless a protocol says what takes part; [] = none."""
    apart: tuple[Literal["session", "text"], ...] = ()
    """Further keys no two parts may share: sessions, in which speakers talk to each other, or words, which corpora of
    read sentences always share. Folds that do are refused, with the list."""
    unknown_speakers: Literal["drop", "train"] = "drop"
    """Treatment of utterances without a speaker: left out, or used for training only."""
