"""Every run in jobs/configs says how it is started, and its options are those of that command."""

from __future__ import annotations

from pathlib import Path

import pytest

from seral.loop.options import LoopOptions
from seral.options import Options, load
from seral.studies.compare import CompareOptions
from seral.studies.layer_relevance import RelevanceOptions
from seral.studies.strategies import StrategyStudyOptions
from seral.studies.survey import StrategySurveyOptions
from seral.studies.transfer import TransferOptions
from seral.studies.two_stage import TwoStageOptions
from seral.sweep.plan import SweepOptions
from seral.training.supervised import SupervisedOptions

CONFIGS = Path(__file__).resolve().parents[1] / "jobs" / "configs"
COMMANDS: dict[str, type[Options]] = {
    "seral loop run": LoopOptions,
    "seral train": SupervisedOptions,
    "seral compare": CompareOptions,
    "seral compare-strategies": StrategyStudyOptions,
    "seral two-stage": TwoStageOptions,
    "seral layers relevance": RelevanceOptions,
    "seral layers anchor": TransferOptions,
    "seral sweep run": SweepOptions,
    "python jobs/strategy_survey.py --config": StrategySurveyOptions,
}


@pytest.mark.parametrize("path", sorted(CONFIGS.iterdir()), ids=lambda path: path.name)
def test_a_config_fits_the_command_it_names(path: Path) -> None:
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    named = [model for command, model in COMMANDS.items() if any(f"{command} jobs/configs/" in line for line in header)]
    assert len(named) == 1, f"{path.name} should say how it is started, in its comment"
    load(named[0], path)
