"""Options of labels: how votes and answers become one, and how people are asked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, FiniteFloat, model_validator

from seral.options import Options

Method = Literal["majority", "soft", "dawid-skene"]
TargetMethod = Literal["majority", "soft", "dawid-skene", "crowd"]
"""A way to put votes together, or `crowd`: shares at first, which training weighs by how each rater confuses classes
(seral.labels.crowd)."""
SECONDARY = 0.5
"""Weight of a secondary emotion beside a primary one."""


class VoteOptions(Options):
    """Options of making labels of the votes of a corpus's raters."""

    method: TargetMethod | None = None
    """soft: training learns the shares of the votes, and clips on which they are tied as well. majority: the class that
    most raters named; a tie has no label. dawid-skene: shares by how each rater confuses classes. crowd: the same,
    with what the model says of the clip beside it, for raters known by name. None = by the median
    number of a clip's raters in the pool: majority for one or two, soft for more. Models are judged by the class that
    won, and by the shares."""
    secondary: float = Field(default=SECONDARY, ge=0, le=1)
    """Weight of a further emotion that a rater named, beside 1 for the first; 0 = they do not count."""
    least: int = Field(default=1, ge=1)
    """Raters who must have named a class; clips with fewer have no label."""
    answer: Literal["all", "one"] = "all"
    """The answer to a question of the loop: the votes of all raters, or that of one, drawn by chance. Asked again (the
    wrapper `relabel`), a clip has another one's beside it. Dev and test are judged by all of them."""

    @model_validator(mode="after")
    def _check(self) -> VoteOptions:
        if self.answer == "one" and self.method in ("dawid-skene", "crowd"):
            raise ValueError(f"answer=one does not say whose votes they are, for {self.method}: take soft or majority")
        return self


class PeopleOptions(Options):
    """Options of asking people, and of making labels of their answers."""

    ledger: str | None = None
    """A file or the URL of a database; None = labels.sqlite in the run folder."""
    overlap: int = Field(default=1, ge=1)
    """People who hear each clip."""
    max_skips: int = Field(default=2, ge=0)
    """People who pass on a clip and are replaced by others, at most."""
    consensus: TargetMethod | None = None
    """The way answers become one label (seral.labels.consensus): the most votes, the shares of votes, or shares weighed
    by how well each person knows each class; crowd: these, learnt with what the model says of the clip
    (seral.labels.crowd). None = by `overlap`: majority for one person a clip or two, soft for more. Which is best when:
    docs/people.md, "What answers are worth"."""
    targets: Literal["soft", "hard"] = "soft"
    """The target of training: the shares of the consensus, or its winner alone."""
    evaluation: int = Field(default=100, ge=2)
    """Clips drawn at random and labelled first: one half of the dev speakers', the other of the test speakers', as far
    as there are so many. Models are chosen and judged by them."""
    enough: FiniteFloat = Field(default=1.0, gt=0, le=1)
    """Share of a batch's clips about which everybody has answered who was to, from which on the loop goes on. What is
    open then is not asked any more."""
    deadline_h: FiniteFloat | None = Field(default=None, gt=0)
    """Hours after which a batch goes on with the answers there are, if there is one; None = never."""
    wait: bool = False
    """Wait for the answers instead of ending with status 75."""

    @model_validator(mode="after")
    def _check(self) -> PeopleOptions:
        if self.consensus == "crowd" and self.targets == "hard":
            raise ValueError("consensus=crowd learns shares: leave targets at soft, or take another consensus")
        return self
