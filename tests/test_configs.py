"""Every run in jobs/configs says how it is started, and its options are those of that verb."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from seral.options import json_schema, load, read_yaml
from seral.verbs.examples import verb_of

CONFIGS = Path(__file__).resolve().parents[1] / "jobs" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_a_config_fits_the_verb_it_names(path: Path) -> None:
    verb = verb_of(path)
    load(verb.options_model(), path, verb=verb.name)
    jsonschema.validate(read_yaml(path), json.loads(json_schema(verb.options_model(), verb.name)))
