"""Options of a sweep: a training or a loop, the space of what may change in it, and the search for the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from seral.loop.options import LoopOptions
from seral.options import Options, keys_of, parse
from seral.sweep.space import (
    Number,
    OneOf,
    Plain,
    check_space,
    grid,
    label,
    leading_to,
    point_of,
    random_points,
    with_point,
)
from seral.task.tracking import TrackingOptions
from seral.training.options import TrainingOptions

TASK = {
    "pool",
    "run",
    "classes",
    "class_map",
    "dimensions",
    "corpora",
    "split",
    "folds",
    "seeds",
    "source_corpora",
    "prior",
}
"""Options that say what is learnt and on whom it is judged: points that differ in them could not be compared."""
BUDGET = {"budget", "stop", "others", "random_arm", "full_arm", "probe", "track"}
"""Options of a loop that are fixed likewise: its budget, and the runs beside its strategy."""
SURROUNDINGS = {"cluster", "features", "feature_cache"}
FEATURE_OPTIONS = (
    "encoder",
    "text_encoder",
    "tapt",
    "finetune.adapter",
    "finetune.top_layers",
    "finetune.augment.noise",
)
"""Options that features depend on, or noises to check; that is done before the first trial."""
FRAME_SETTINGS = ("top_layers", "blocks", "stem", "layer")
"""Settings of adapters that decide at which hidden state training starts, whose frames are cached."""


class AshaOptions(Options):
    """Stop the worse trials early. Li et al. 2020, ASHA, arXiv 1810.05934."""

    method: Literal["asha"] = "asha"
    """The method; ASHA is the one there is."""
    grace: int = Field(default=1, ge=1)
    """Reports of every trial before it may be stopped."""
    reduction: int = Field(default=3, ge=2)
    """Of so many trials that have come as far, one goes on."""

    @field_validator("method", mode="before")
    @classmethod
    def _explain(cls, method: Any) -> Any:
        if str(method).lower() in ("pbt", "pb2", "hyperband", "bohb"):
            raise ValueError(f"{method} pauses trials by checkpoints of Tune's, which Ray Train's workers do not write")
        return method


class SweepOptions(Options):
    """A sweep, whole."""

    run: str
    """The folder of the sweep: made when missing, resumed when there."""
    training: dict[str, Any] | None = None
    """The training of every trial on all labels: a task and its learning, as for `seral loop`. Its seeds and folds are
    those of every trial; one fold and one seed make a trial of adapters report every epoch."""
    loop: dict[str, Any] | None = None
    """Instead of a training: every trial runs a loop of `seral loop`, its strategy alone, and its score the
    mean of its rounds, that is the area under the learning curve. One fold and one seed: it reports every round."""
    space: dict[str, OneOf | Number] = Field(min_length=1)
    """Path of an option of the training -> values to try."""
    search: Literal["grid", "random", "tpe"] = "tpe"
    """Every point; points at random; or where former points did well (Bergstra et al. 2011, Optuna's TPE)."""
    trials: int = Field(default=50, ge=1)
    """Points to try; a grid tries all it has."""
    seed: int = Field(default=0, ge=0)
    """Seed of the search."""
    early_stopping: AshaOptions | None = AshaOptions()
    """Rule by which trials end early; None = none does."""
    cpus_per_trial: float = Field(default=1, gt=0)
    """CPUs that each trial reserves."""
    gpus_per_trial: float = Field(default=1, ge=0)
    """With `training.cluster.use_gpu`; trials may share one (0.5)."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials at once; None = as many as the cluster has room for."""
    retries: int = Field(default=1, ge=0)
    """Further attempts at a failed trial."""
    track: TrackingOptions | None = None
    """Tell MLflow of every trial; None = nobody. Leader board and TensorBoard's events are there in any case."""
    test_seeds: list[int] | None = None
    """Seeds with which the best point and the training as given are tested; None = those of the training."""

    @field_validator("space", mode="before")
    @classmethod
    def _lists(cls, space: Any) -> Any:
        if not isinstance(space, Mapping):
            return space
        return {path: {"of": values} if isinstance(values, list) else values for path, values in space.items()}

    @model_validator(mode="after")
    def _check(self) -> SweepOptions:
        if (self.training is None) == (self.loop is None):
            raise ValueError("give a training or a loop, one of the two: what every trial is")
        if "run" in self.values:
            raise ValueError("the run folder of what is tried is the sweep's own; leave it out of training or loop")
        for path, of in self.space.items():
            if path.split(".")[0] in TASK | SURROUNDINGS | BUDGET:
                raise ValueError(f"space: {path} says what is learnt, or where; it is the same for all trials")
            if isinstance(of, Number) and _shapes_features(path):
                raise ValueError(f"space: {path} decides about features, which are computed beforehand: give it a list")
        check_space(self.space)
        if self.search == "grid":
            grid(self.space)
        for path, of in self.space.items():
            for value in of.of if isinstance(of, OneOf) else (of.low, of.high):
                labels = leading_to(self.space, {path: label(value)})
                if path not in labels:
                    raise ValueError(f"space: {path} never applies: its conditions exclude one another")
                self._check_loop(self.at(labels))
        return self

    @staticmethod
    def _check_loop(options: TrainingOptions) -> None:
        if not isinstance(options, LoopOptions):
            return
        if options.others:
            raise ValueError("loop.others: a trial has one strategy; name several in the space, under strategy")
        if options.stop.early:
            raise ValueError(f"loop.stop: loops are compared round by round; leave out {options.stop.early}")
        if options.needs_surprisal:
            raise ValueError("alps reads pretraining losses, which a sweep does not compute; see seral loop")

    @property
    def values(self) -> dict[str, Any]:
        """Options of the training or the loop, as plain values. Points are judged by dev speakers, in loops too."""
        return (self.training or {}) if self.loop is None else {"dev": "speakers", **self.loop}

    @property
    def base(self) -> TrainingOptions:
        """The training or the loop as given, which points are compared with."""
        return self._parsed(self.values)

    @property
    def metric(self) -> str:
        """The metric by which points are judged on dev speakers: uar, or ccc."""
        return "uar" if self.base.classes else "ccc"

    def at(self, labels: Mapping[str, Plain]) -> TrainingOptions:
        """The training or the loop at a point."""
        return self._parsed(with_point(self.values, point_of(self.space, labels)))

    def _parsed(self, values: Mapping[str, Any]) -> TrainingOptions:
        return parse(TrainingOptions if self.loop is None else LoopOptions, {**values, "run": self.run})

    def points(self) -> list[dict[str, Plain]] | None:
        """All points where they are known beforehand, else None."""
        if self.search == "grid":
            return grid(self.space)
        return random_points(self.space, self.trials, self.seed) if self.search == "random" else None

    def feature_points(self) -> list[dict[str, Plain]]:
        """Points that between them have every combination of what features depend on."""
        shaping, left = set[str](), [path for path in self.space if _shapes_features(path)]
        while left:
            shaping.add(path := left.pop())
            left += [other for other in self.space[path].when if other not in shaping]
        part = {path: of for path, of in self.space.items() if path in shaping}
        return [leading_to(self.space, labels) for labels in grid(part)]


def _shapes_features(path: str) -> bool:
    parts = keys_of(path)
    if parts[:2] == ["finetune", "settings"]:
        return len(parts) < 4 or parts[3] in FRAME_SETTINGS
    return path.startswith(FEATURE_OPTIONS) or path in ("finetune", "finetune.augment")
