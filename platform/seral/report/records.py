"""Records of a run folder, read into tidy frames. Only complete rounds count: those with a round.json."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from seral import storage
from seral.errors import StateError
from seral.loop.folders import further_metrics
from seral.schema import FULL, GROWTH, KEYS, RANDOM, SECONDS
from seral.training.history import effect_columns

SOURCE_COLUMNS = ["fold", "uar", "wa", "macro_f1", "calibration_error"]


@dataclass(frozen=True, kw_only=True)
class RunRecords:
    """A run in frames. One row per round, per pick and per answer."""

    run: str
    config: str
    """The resolved configuration, YAML."""
    part: Literal["test", "dev"]
    """The part whose scores stand in `rounds` and `confusion`: test, or of a session dev, which is its labels, each by
    a head that had not heard the speaker."""
    environment: dict[str, Any]
    """Empty for a session."""
    growths: list[dict[str, Any]]
    """Growths of the pool: utterances `before` and `after`, and `rounds` that trajectories had by then."""
    shared_seconds: dict[str, float]
    """Seconds by phase of what all trajectories share."""
    classes: list[str]
    dimensions: list[str]
    rounds: pd.DataFrame
    """arm, fold, seed, round, labelled, minutes, fraction, uar, wa, macro_f1, calibration_error, dev_uar, enrolled_uar,
    probe_uar, stop_reason, seconds_*, further metrics; with dimensions also ccc, ccc_* of each, dev_ccc, probe_ccc. NaN
    without classes in what is of classes."""
    further: list[str]
    """Columns of `rounds` with metrics of other people's, by the names that `metrics` or a package gives them."""
    trainings: pd.DataFrame
    """arm, fold, seed, round, labelled, and first_loss, last_loss, update, effect, warning of the training of adapters;
    changes, the change of each part in words. Empty where there was none."""
    picks: pd.DataFrame
    """arm, fold, seed, round, utterance_id, order, strategy."""
    reasons: pd.DataFrame
    """arm, fold, seed, round, utterance_id, measure, score, share, low, median, high (schema.REASON); empty where no
    strategy has a score, and in runs of releases that wrote none."""
    answers: pd.DataFrame
    """arm, fold, seed, round, utterance_id, emotion, answer, annotator."""
    source: pd.DataFrame
    """uar, wa, macro_f1, calibration_error of the model that begins without a label of the target, a row a fold; empty
    where a run has no source."""
    ratings: pd.DataFrame
    """arm, fold, seed, round, utterance_id, speaker, true_* and predicted_* of each dimension, of the rated test clips;
    empty without dimensions, and of a session."""
    last_folders: dict[tuple[str, int, int], str]
    """Trajectory -> the folder of its last complete round."""
    confusion: dict[str, NDArray[np.int64]]
    """Per arm, the confusion of `part` (C, C), rows are the truth, summed over the last rounds of its trajectories."""

    @property
    def metrics(self) -> list[str]:
        """The scores by which arms are compared, the first the one that stopping and models go by."""
        return [*(["uar"] if self.classes else []), *(["ccc"] if self.dimensions else [])]

    @property
    def judged(self) -> str:
        """The kind of clips and scores of `part` in a word."""
        return "test" if self.part == "test" else "cross-validated"

    @property
    def proxy(self) -> bool:
        """Whether adapters were trained in the last round only (LoopOptions.proxy)."""
        return bool(yaml.safe_load(self.config).get("proxy"))

    @property
    def candidates_per_round(self) -> int | None:
        """The clips of the pool that a round chose from, where that was not all (LoopOptions.candidates_per_round)."""
        count: int | None = yaml.safe_load(self.config).get("candidates_per_round")
        return count

    @property
    def asks_people(self) -> bool:
        """Whether the labels are those of people, in a ledger (LoopOptions.people)."""
        return yaml.safe_load(self.config).get("people") is not None

    @property
    def arms(self) -> list[str]:
        """The arms: strategies first, then random, then the full-label one."""
        return sorted(self.rounds["arm"].unique(), key=lambda arm: (arm == FULL, arm == RANDOM, arm))

    @property
    def seconds_columns(self) -> list[str]:
        """Columns of `rounds` that hold the seconds of a phase."""
        return [name for name in self.rounds.columns if name.startswith("seconds_")]


def read_run(run: str | Path) -> RunRecords:
    """Read a run folder. Raises StateError when it is none, or has no complete round."""
    if not storage.exists(storage.join(run, "config.yaml")):
        raise StateError(f"there is no run at {run}: config.yaml is missing")
    config = storage.read_bytes(storage.join(run, "config.yaml")).decode("utf-8")
    options = yaml.safe_load(config)
    part: Literal["test", "dev"] = "dev" if options.get("verb") == "session" else "test"
    rounds, trainings = list[dict[str, Any]](), list[dict[str, Any]]()
    picks, answers, optional = list[pd.DataFrame](), list[pd.DataFrame](), defaultdict[str, list[pd.DataFrame]](list)
    further: dict[str, None] = {}
    last_confusion: dict[tuple[str, int, int], list[list[int]]] = {}
    last_folders: dict[tuple[str, int, int], str] = {}
    for keys, folder in _complete_rounds(run):
        record = storage.read_json(storage.join(folder, "round.json"))
        metrics = storage.read_json(storage.join(folder, "metrics.json"))
        scores = metrics[part] or {}  # a session has none while its labels are too few
        others = further_metrics(scores)
        further |= dict.fromkeys(others)
        rounds.append({**keys, **_round_row(record, metrics, part), **others})
        trainings += _training_rows({**keys, "round": record["round"]}, metrics)
        last_folders[keys["arm"], keys["fold"], keys["seed"]] = folder
        picks.append(_table(folder, "picks", {**keys, "round": record["round"]}))
        answers.append(_table(folder, "labels", {**keys, "round": record["round"]}))
        for name in ("ratings", "reasons"):
            if storage.exists(storage.join(folder, f"{name}.parquet")):
                optional[name].append(_table(folder, name, {**keys, "round": record["round"]}))
        if "confusion" in scores:
            last_confusion[keys["arm"], keys["fold"], keys["seed"]] = scores["confusion"]
    if not rounds:
        raise StateError(f"run {run} has no complete round yet; a report needs at least one")
    environment_uri = storage.join(run, "environment.json")
    environment = storage.read_json(environment_uri) if storage.exists(environment_uri) else {}  # a session has none
    seconds_uri = storage.join(run, SECONDS)
    dimensions = list((environment or options).get("dimensions", []))
    frame = pd.DataFrame(rounds)
    if dimensions and "ccc" not in frame:  # a session that is too short to have any
        frame[["ccc", *(f"ccc_{name}" for name in dimensions), "dev_ccc", "probe_ccc"]] = np.nan
    seconds = [name for name in frame.columns if name.startswith("seconds_")]
    return RunRecords(
        run=str(run),
        config=config,
        part=part,
        environment=environment,
        growths=_growths(str(run)),
        shared_seconds=storage.read_json(seconds_uri) if storage.exists(seconds_uri) else {},
        classes=list((environment or options)["classes"]),
        dimensions=dimensions,
        further=list(further),
        rounds=frame.fillna(dict.fromkeys(seconds, 0.0)).sort_values([*KEYS, "round"], ignore_index=True),
        trainings=pd.DataFrame(trainings),
        picks=pd.concat(picks, ignore_index=True),
        reasons=pd.concat(optional["reasons"], ignore_index=True) if optional["reasons"] else pd.DataFrame(),
        answers=pd.concat(answers, ignore_index=True),
        source=_source_rows(run),
        ratings=pd.concat(optional["ratings"], ignore_index=True) if optional["ratings"] else pd.DataFrame(),
        last_folders=last_folders,
        confusion=_sum_by_arm(last_confusion),
    )


def _training_rows(keys: dict[str, Any], metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row on the adapters of a round; none without any. Runs of earlier releases have their losses alone."""
    history = metrics.get("training") or {}
    if not (columns := effect_columns(history)):
        return []
    changes = history["adapter"].get("changes", {})
    words = ", ".join(f"{tag} {change:.2g}" for tag, change in changes.items())
    return [{**keys, "labelled": metrics["labelled"], "changes": words, **columns}]


def _growths(run: str) -> list[dict[str, Any]]:
    if not storage.exists(storage.join(run, GROWTH)):
        return []
    from seral.task.run import growths  # late: it loads Ray

    return growths(run)


def _source_rows(run: str | Path) -> pd.DataFrame:
    """The metrics of the models of a source, a row a fold."""
    folder = storage.join(run, "folds")
    uris = [storage.join(folder, name, "source", "metrics.json") for name in storage.list_names(folder)]
    rows = [storage.read_json(uri) for uri in uris if storage.exists(uri)]
    return pd.DataFrame([{name: row[name] for name in SOURCE_COLUMNS} for row in rows], columns=SOURCE_COLUMNS)


def _complete_rounds(run: str | Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The trajectory's keys and the folder of every complete round, in order."""
    parent = storage.join(run, "trajectories")
    for name in storage.list_names(parent):
        description = storage.join(parent, name, "trajectory.json")
        if not storage.exists(description):
            continue  # just begun
        trajectory = storage.read_json(description)
        keys = {key: trajectory[key] for key in KEYS}
        for number in storage.list_names(storage.join(parent, name, "rounds")):
            folder = storage.join(parent, name, "rounds", number)
            if storage.exists(storage.join(folder, "round.json")):
                yield keys, folder


def _round_row(record: dict[str, Any], metrics: dict[str, Any], part: str) -> dict[str, Any]:
    """One row of the rounds frame, with the scores of a part."""
    scores = metrics[part] or {}
    return {
        "round": record["round"],
        "labelled": metrics["labelled"],
        "minutes": record.get("minutes", np.nan),  # of an annotator; runs of versions before do not have it
        "fraction": metrics["fraction"],
        **{name: scores.get(name, np.nan) for name in ("uar", "wa", "macro_f1")},
        **_ratings_of(metrics, scores),
        # Runs of versions before it was evaluated do not have it.
        "calibration_error": scores.get("calibration_error", np.nan),
        "dev_uar": (metrics.get("dev") or {}).get("uar", np.nan),
        "enrolled_uar": (metrics.get("enrolled") or {}).get("uar", np.nan),
        "probe_uar": (metrics.get("probe") or {}).get("test_uar", np.nan),
        "stop_reason": record.get("stop_reason"),
        **{f"seconds_{phase}": value for phase, value in record["seconds"].items()},
    }


def _ratings_of(metrics: dict[str, Any], scores: Mapping[str, Any]) -> dict[str, float]:
    """CCC of ratings among the scores of a round; nothing without any."""
    ccc_of = {name: value for name, value in scores.items() if name.split("_")[0] == "ccc"}
    if not ccc_of:
        return {}
    dev, probe = metrics.get("dev") or {}, metrics.get("probe") or {}
    return ccc_of | {"dev_ccc": dev.get("ccc", np.nan), "probe_ccc": probe.get("test_ccc", np.nan)}


def _table(folder: str, name: str, keys: dict[str, Any]) -> pd.DataFrame:
    """A round's Parquet table with its keys in front."""
    frame: pd.DataFrame = storage.read_table(storage.join(folder, f"{name}.parquet")).to_pandas()
    columns = [column for column in frame.columns if column not in keys]
    return frame.assign(**keys)[[*keys, *columns]]


def _sum_by_arm(last_confusion: dict[tuple[str, int, int], list[list[int]]]) -> dict[str, NDArray[np.int64]]:
    """Confusion matrices of trajectories, summed over folds and seeds."""
    total: dict[str, NDArray[np.int64]] = {}
    for (arm, _, _), matrix in last_confusion.items():
        total[arm] = total.get(arm, 0) + np.asarray(matrix, dtype=np.int64)
    return total


def adapter_warnings(trainings: pd.DataFrame) -> list[str]:
    """A sentence an arm of which adapters did nothing: in how many trainings, and the first of them."""
    if "warning" not in trainings:
        return []
    sentences = []
    for arm, own in trainings.groupby("arm"):
        warned = own["warning"].dropna()
        if len(warned):
            sentences.append(f"Warning, {arm}, {len(warned)} of {len(own)} trainings: {warned.iloc[0]}.")
    return sentences
