"""Options of the main job, and which of them a run that goes on may change."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from seral.labels.options import PeopleOptions
from seral.loop.budget import BudgetOptions
from seral.loop.stopping import StopOptions
from seral.selection.candidates import OF_CLASSES, OF_RATINGS, WITHOUT_A_MODEL
from seral.selection.selection import StrategyOptions
from seral.selection.strategies import STRATEGIES
from seral.task.tracking import TrackingOptions
from seral.training.options import TrainingOptions

MAY_CHANGE = {"run", "cluster", "folds", "seeds", "others", "track", "frames_gb", "grown"}
MAY_CHANGE |= {f"people.{name}" for name in ("ledger", "overlap", "max_skips", "enough", "deadline_h", "wait")}
"""Options that a resumed run may be given anew: where it runs, further folds, seeds and arms, how long it waits."""

WHOLE_BYTES = 500_000_000
"""Embeddings of a training part that are kept whole take no more."""
MEMBERS = 5
"""Models of an ensemble; as in Lakshminarayanan et al. 2017, arXiv 1612.01474."""
PROJECTED = 256
"""Numbers of those that are not."""


class LoopOptions(TrainingOptions):
    """Options of the main job."""

    initial: StrategyOptions = StrategyOptions(name="auto")
    """The strategy arm's way to pick its first set, before there is a model, or by the model of the source_corpora."""
    strategy: StrategyOptions = StrategyOptions(name="auto")
    """The strategy arm's way to pick afterwards."""
    others: list[StrategyOptions] = Field(default=[])
    """Strategies to compare with, each an arm of its own with the same `initial` and budget."""
    dev: Literal["cross-validated", "speakers"] = "cross-validated"
    """Labels that stopping rules, checkpoints and the choice among models go by. cross-validated: those bought so far,
    speakers left out in turn; no other label is needed. speakers: those of the split's dev speakers, which are bought
    too and counted in every figure of labels."""
    min_quality: float = Field(default=0.1, ge=0, le=1)
    """Training utterances whose recording has a lower quality (seral.audio.quality.score) are not candidates of any arm
    and nothing is pretrained on them; `filtered.parquet` names them and says why. The default leaves out 90 % of noises
    without speech and 5 of 2,401 clean clips (docs/results/quality.md), of laughter and screams perhaps more; the run
    says of whom more than of others. 0 = everything takes part."""
    random_arm: bool = True
    """Run a random arm of the same budget beside it."""
    full_arm: bool = True
    """Train once on all labels, as the ceiling."""
    budget: BudgetOptions = BudgetOptions()
    grown: bool = False
    """Go on though clips were added to the pool since the run began: labels, dev and test stay, new clips of other
    speakers become candidates, and `budget` may have further rounds. `seral loop run CONFIG --grown` says so too."""
    stop: StopOptions = StopOptions()
    dropout_passes: int = Field(default=10, ge=2)
    """Stochastic passes for strategies that ask for them (bald, batch_bald)."""
    embedding: int | None = Field(default=None, ge=8)
    """Numbers of a clip's embedding that strategies read, kept in half precision; longer ones are projected at random
    by a fixed seed. None = all of them where the training part's take no more than 0.5 GB, 256 in larger pools."""
    candidates_per_round: int | None = Field(default=None, ge=1)
    """Only so many clips of the pool are scored and may be picked in a round, drawn anew each time, in proportion from
    every corpus and speaker; None = all. For adapters on pools that take hours to encode."""
    frames_gb: float = Field(default=20.0, ge=0)
    """Frames of the whole pool, which adapters are trained and scored from, are kept where they take no more than so
    many GB; else those of what is labelled, dev and test, and each round encodes the pool anew. The picks are the same.
    """
    ensemble: int | None = Field(default=None, ge=0)
    """So many further models are trained every round, which these strategies read instead of dropout passes: the same
    options on the same labels, from other seeds and with the labels weighed anew. None: five for what goes by bald,
    since passes of a linear layer hardly disagree, and none for others. For emcm the number of ridge heads, eight."""
    proxy: bool = False
    """Select with the head on frozen features and train adapters in the last round only: a few rounds of adapter
    training saved. "Selection via proxy", Coleman et al. 2020, arXiv 1906.11829."""
    probe: bool = True
    """Fit scikit-learn's linear probe on the same labels beside every round."""
    people: PeopleOptions | None = None
    """Ask people instead of the oracle: one arm, one seed, one fold, and no gold label is opened. The run ends with
    status 75 whenever it awaits labels, and goes on when it is started again."""
    track: TrackingOptions | None = None
    """Tell MLflow of every round, a run a trajectory; None = nobody. The run folder has it all in any case."""

    @model_validator(mode="before")
    @classmethod
    def _people_serve_one_arm(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("people") is None:
            return values
        return {"random_arm": False, "full_arm": False, "seeds": [0], "folds": [0]} | values

    @model_validator(mode="after")
    def _check(self) -> LoopOptions:
        if self.people is not None:
            self._check_people()
        if self.ensemble == 1:
            raise ValueError("ensemble: one model has nobody to disagree with; give 2 or more, 5 to 10 are usual")
        self._check_outputs()
        if self.proxy and self.stop.early:
            raise ValueError(f"proxy trains adapters in the budget's last round, which {self.stop.early} may not reach")
        if self.needs_surprisal and self.tapt is None:
            raise ValueError("alps reads what surprises the encoder after TAPT: give `tapt`")
        arms = ["full", "random", self.strategy.name, *(other.name for other in self.others)]
        if self.others and (twice := {name for name in arms if arms.count(name) > 1}):
            raise ValueError(f"others: there is an arm {min(twice)!r} already; name each strategy once")
        if self.initial.needs - WITHOUT_A_MODEL and not self.source_corpora:
            wanted = ", ".join(sorted(self.initial.needs - WITHOUT_A_MODEL))
            raise ValueError(
                f"initial: {self.initial.name} reads {wanted}, and there is no model before the first round without "
                "source_corpora"
            )
        return self

    def _check_outputs(self) -> None:
        """Raise ValueError for what reads outputs that the models of the run do not have."""
        if self.dimensions and self.source_corpora:
            raise ValueError("source_corpora: labels of other corpora teach classes; leave them out with dimensions")
        wrong, instead = (
            (["target_ccc"], "target_uar") if self.classes else (["target_uar", "uncertainty"], "target_ccc")
        )
        if named := [name for name in wrong if getattr(self.stop, name) is not None]:
            learnt = "classes" if self.classes else "ratings alone"
            raise ValueError(
                f"stop.{named[0]} says nothing of a loop that learns {learnt}: take {instead}, patience, confidence or "
                "kappa"
            )
        for chosen in (self.initial, self.strategy, *self.others):
            if wrong_columns := chosen.needs & self._absent:
                learnt, absent = ("classes", "ratings") if self.classes else ("ratings", "class probabilities")
                usable = [name for name in sorted(STRATEGIES) if not StrategyOptions(name=name).needs & self._absent]
                raise ValueError(
                    f"{chosen.name} reads {', '.join(sorted(wrong_columns))}, made of {absent}, and this loop learns "
                    f"{learnt}: take one of {', '.join(usable)}"
                )

    @property
    def _absent(self) -> frozenset[str]:
        """Columns of Candidates that the models of the run do not make."""
        return (frozenset() if self.classes else OF_CLASSES) | (frozenset() if self.dimensions else OF_RATINGS)

    def _check_people(self) -> None:
        """Raise ValueError for what would need labels that nobody has given, or ask people more than once."""
        needless = ("random_arm", "full_arm", "others", "source_corpora", "votes")
        if wrong := [name for name in needless if getattr(self, name)]:
            raise ValueError(f"{wrong[0]} needs labels that nobody has given: leave it out with `people`")
        for name, values in (("seeds", self.seeds), ("folds", self.folds)):
            if values is None or len(values) != 1:
                raise ValueError(f"{name}: people label for one model at a time; name one with `people`, got {values}")

    def embedding_width(self, clips: int, whole: int) -> int:
        """Numbers that are kept of an embedding of `whole` numbers, for each clip of a training part."""
        if self.embedding is not None:
            return self.embedding
        return whole if 2 * whole * clips <= WHOLE_BYTES else PROJECTED

    @property
    def annotator(self) -> str:
        """The name in seral.loop.annotators.ANNOTATORS of who gives the labels."""
        return "gold" if self.people is None else "people"

    def ensemble_for(self, strategy: StrategyOptions) -> int:
        """Further models that are trained every round for a strategy."""
        if "dropout_RNC" not in strategy.needs:
            return 0
        if self.ensemble is not None:
            return self.ensemble
        named = [part.parameters.get("uncertainty") for part in (strategy, *strategy.wrappers)]
        return MEMBERS if "bald" in {strategy.name, *STRATEGIES[strategy.name].goes_by, *named} else 0

    @property
    def needs_surprisal(self) -> bool:
        """Whether a strategy reads pretraining losses."""
        return any("surprisal_NQ" in chosen.needs for chosen in (self.initial, self.strategy, *self.others))
