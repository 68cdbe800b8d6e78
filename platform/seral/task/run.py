"""Result folders: every run keeps its options and what it stood on beside its results.

RUN/config.yaml            `verb: NAME`, the kind of run, then the resolved options; a run is resumed with equal ones
RUN/environment.json       versions, host, pool hash, protocol, classes
"""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import yaml

from ser_models import registry
from seral import storage
from seral.errors import OptionError, StateError
from seral.options import Options, OptionsT, deep_copy, parse
from seral.schema import GROWTH
from seral.versions import versions

if TYPE_CHECKING:
    from seral.pool.shards import Pool
    from seral.task.options import TaskOptions

PACKAGES = ("seral", "ray", "torch", "transformers", "peft", "faiss-cpu", "pyarrow", "numpy", "scikit-learn")
CONFIG, ENVIRONMENT = "config.yaml", "environment.json"
VERB = "verb"
"""First key of a run's options file: the name of the verb that made it."""
KINDS = {
    "loop": "a loop",
    "session": "a session",
    "train": "a training",
    "pretrain": "a pretraining",
    "distil": "a distillation",
    "adapt": "an adaptation by labels",
    "fit": "a final model",
    "ensemble": "an ensemble",
    "sweep": "a sweep",
    "compare": "a comparison of trainings",
    "two-stage": "a two-stage adaptation",
    "transfer": "a transfer of labels",
    "layer-transfer": "a study of layers that carry over",
    "label-study": "a study of labels",
    "relevance": "a study of layer relevance",
    "similarity": "a study of layer similarity",
    "probe": "a probe of encoders",
    "compare-strategies": "a comparison of strategies",
    "strategy-survey": "a survey of strategies",
}
"""Verb -> a run of it, in words."""
OF_ROUNDS = ("loop", "session")
"""Verbs whose folders hold rounds of asking and learning."""


def claim(
    options: Options, verb: str, may_change: Collection[str] = (), *, pool: Pool | None = None, grown: bool = False
) -> None:
    """Write the options of a new run to the folder `options.run`, which is its owner's alone (0700) where it is made
    here; refuse to resume one that was made otherwise.

    That is a run of another verb, with other options, or of a pool that has changed since. `may_change` names options
    that may differ, options inside others by path, such as people.wait. A pool is what its hash says, wherever it lies;
    with `grown` it may have changed.
    """
    from seral.pool.derivations import note_derivation, pools_in  # late: who reads a run opens no pool

    new = options.model_dump(mode="json")
    run = new["run"]
    if storage.exists(storage.join(run, CONFIG)):
        if (made_by := verb_of(run)) not in (None, verb):
            raise StateError(f"{run} holds {_kind(made_by)}, not {_words(verb)}; give `run` another folder")
        old = read_options(type(options), run).model_dump(mode="json")
        facts = storage.join(run, ENVIRONMENT)
        changed_pool = False
        if pool is not None and storage.exists(facts):
            changed_pool = storage.read_json(facts)["pool_hash"] != pool.hash
            may_change = {*may_change, "pool", "feature_cache"}
        before, after = (_without(values, may_change) for values in (old, new))
        if changed := [name for name in after if before.get(name) != after[name]]:
            differences = "; ".join(f"{name}: was {old[name]!r}, now {new[name]!r}" for name in changed)
            hint = "" if set(storage.list_names(run)) - {CONFIG, storage.WRITERS} else ", or remove this, still empty"
            raise StateError(f"{run} holds a run with other options ({differences}); give `run` another folder{hint}")
        if pool is not None and changed_pool and not grown:
            hint = ", or say --grown if clips were added" if verb == "loop" else ""
            raise StateError(f"the pool {pool.uri} has changed since {run} began; give `run` another folder{hint}")
    for named in dict.fromkeys(pools_in(new)):
        note_derivation(named, run, "run")
    text = yaml.safe_dump({VERB: verb, **new}, sort_keys=False, allow_unicode=True)
    storage.make_folder(run, private=True)
    storage.write_yaml(storage.join(run, CONFIG), text)


def read_config(run: str, *verbs: str) -> dict[str, Any]:
    """The options of a run as plain values.

    Raises StateError where there is no run, and for a run of another verb than `verbs`, where any are named.
    """
    path = storage.join(run, CONFIG)
    if not storage.exists(path):
        raise StateError(f"there is no run at {run}: {path} is missing")
    values: dict[str, Any] = yaml.safe_load(storage.read_yaml(path))
    verb = values.pop(VERB, None)
    if verbs and verb is not None and verb not in verbs:
        wanted = " or ".join(_words(name) for name in verbs)
        raise StateError(f"{run} holds {_kind(verb)}, not {wanted}: name the folder of {wanted}")
    return values


def earlier_option(run: str, path: str) -> Any:
    """An option of a run that began before, by its path, such as votes.method; None where it has none, or is no run."""
    value: Any = read_config(run) if storage.exists(storage.join(run, CONFIG)) else None
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def verb_of(run: str) -> str | None:
    """The verb that made a run; None for a run of a release that did not note it, and where there is none."""
    path = storage.join(run, CONFIG)
    return yaml.safe_load(storage.read_yaml(path)).get(VERB) if storage.exists(path) else None


def read_options(model: type[OptionsT], run: str, *verbs: str) -> OptionsT:
    """The resolved options of a run. Raises StateError for a run of another verb than `verbs`, where any are named, and
    OptionError for options that this one does not know."""
    values = read_config(run, *verbs)
    try:
        return parse(model, values)
    except OptionError as error:
        path = storage.join(run, CONFIG)
        if registry.PACKAGES in str(error):  # which has to be allowed, whatever release it is
            raise OptionError(f"{path}: {error}") from error
        raise OptionError(f"{path} is of another release or kind of run; give another folder: {error}") from error


def growths(run: str) -> list[dict[str, Any]]:
    """Every growth of a run's pool: `before` and `after`, utterances, and `rounds`, complete ones by trajectory."""
    path = storage.join(run, GROWTH)
    content = storage.read_json(path) if storage.exists(path) else []
    # Older releases wrote the list alone.
    entries: list[dict[str, Any]] = content["growths"] if isinstance(content, dict) else content
    return entries


def write_environment(options: TaskOptions, pool: Pool, protocol: str, facts: Mapping[str, Any]) -> None:
    """Write environment.json: versions, host, pool and task of a run."""
    import ray

    path = storage.join(options.run, "environment.json")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    gpus = int(ray.cluster_resources().get("GPU", 0))
    storage.write_json(
        path,
        {
            "versions": versions(PACKAGES),
            "python": platform.python_version(),
            "host": {"machine": platform.machine(), "cpus": os.cpu_count(), "gpus": gpus},
            "pool": pool.uri,
            "pool_hash": pool.hash,
            "pool_rows": pool.rows,
            "protocol": protocol,
            "classes": options.classes,
            "dimensions": options.dimensions,
            **facts,
            "created": storage.read_json(path)["created"] if storage.exists(path) else now,
        },
    )


def _words(verb: str) -> str:
    return KINDS.get(verb, f"a run of seral {verb}")


def _kind(verb: str | None) -> str:
    return f"{KINDS.get(str(verb), 'a run')} (seral {verb})"


def _without(values: Mapping[str, Any], paths: Collection[str]) -> dict[str, Any]:
    left = deep_copy(values)
    for path in paths:
        *outer, name = path.split(".")
        inner: Any = left
        for step in outer:
            inner = inner.get(step) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.pop(name, None)
    return left
