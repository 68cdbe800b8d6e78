"""Every run in jobs/configs says how it is started, and its options are those of that verb."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from seral.options import json_schema, load, read_yaml
from seral.verbs import VERBS, Verb

CONFIGS = Path(__file__).resolve().parents[1] / "jobs" / "configs"


def verb_of(path: Path) -> Verb:
    """The one verb that a comment of the file starts it with."""
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    starts = {name: f"seral {' '.join(verb.words)} jobs/configs/" for name, verb in VERBS.items()}
    names = [name for name, start in starts.items() if any(start in line for line in header)]
    assert len(names) == 1, f"{path.name} should say in its comment how it is started, as `seral VERB jobs/configs/...`"
    return VERBS[names[0]]


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_a_config_fits_the_verb_it_names(path: Path) -> None:
    verb = verb_of(path)
    load(verb.options_model(), path, verb=verb.name)
    jsonschema.validate(read_yaml(path), json.loads(json_schema(verb.options_model(), verb.name)))
