"""The contracts that are offered to others: seral's own parts keep them, and each way to break one is told."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ser_models.adapters
import ser_models.metrics
import ser_models.objectives
import seral.corpora
import seral.selection.strategies
from ser_models.adapters import ADAPTERS
from ser_models.encoders import SpeechEncoder
from ser_models.metrics import METRICS, Metric
from ser_models.objectives import ContrastiveObjective
from seral.corpora.reading.reader import Reader
from seral.corpora.reading.utterance import Utterance
from seral.selection.candidates import Candidates
from seral.selection.strategies.records import Strategy
from seral.testing import (
    check_adapter,
    check_encoder,
    check_metric,
    check_objective,
    check_reader,
    check_strategy,
)
from tests.corpora.test_readers import lay_out


@pytest.mark.parametrize(("name", "options"), [("auto", {}), ("margin", {}), ("after", {"beta": 2}), ("random", {})])
def test_strategies_keep_their_contract(name: str, options: dict[str, Any]) -> None:
    check_strategy(name, **options)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_keep_their_contract(kind: str) -> None:
    check_adapter(kind)


@pytest.mark.parametrize("name", ["seral-tiny", "seral-tiny-untrained"])
def test_encoders_keep_their_contract(name: str) -> None:
    check_encoder(name)


def test_an_encoder_that_hears_its_padding_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def hears_all(self: Any, wave_BS: Any, length_B: Any) -> tuple[Any, Any]:
        hidden_BTD, mask_BT = stem(self, wave_BS, length_B)
        return hidden_BTD + hidden_BTD.mean(1, keepdim=True), mask_BT

    stem = SpeechEncoder.stem
    monkeypatch.setattr(SpeechEncoder, "stem", hears_all)
    with pytest.raises(AssertionError, match="hears a clip otherwise where it is padded"):
        check_encoder("seral-tiny")


def test_an_objective_keeps_its_contract() -> None:
    check_objective("contrastive")


def test_an_objective_that_draws_by_itself_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ser_models.objectives.OBJECTIVES["contrastive"]

    class Drawn(ContrastiveObjective):
        def forward(self, *batch: Any) -> dict[str, Any]:
            return {name: value * torch.rand(()) for name, value in super().forward(*batch).items()}

    monkeypatch.setitem(ser_models.objectives.OBJECTIVES, "mine", replace(own, build=Drawn))
    with pytest.raises(AssertionError, match="mine gives another loss for the same seeds"):
        check_objective("mine")


@pytest.mark.parametrize("name", METRICS)
def test_metrics_keep_their_contract(name: str) -> None:
    check_metric(name)


@pytest.mark.parametrize("name", ["emodb", "iemocap", "webdataset", "folder"])
def test_readers_keep_their_contract(name: str, tmp_path: Path) -> None:
    check_reader(name, lay_out(name, tmp_path / "corpus"))


def greedy(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    return [str(name) for name in candidates.ids[np.argsort(candidates.need("probability_NC")[:, 0])][:k]]


CALLS = itertools.count()


def forgetful(candidates: Candidates, k: int, rng: np.random.Generator) -> list[str]:
    return [str(name) for name in np.roll(np.sort(candidates.ids), next(CALLS))[:k]]


@pytest.mark.parametrize(
    ("function", "message"),
    [(greedy, "reads more than .*needs probability_NC"), (forgetful, "other picks for the same seed")],
)
def test_a_strategy_that_breaks_its_contract_is_told(
    monkeypatch: pytest.MonkeyPatch, function: Callable[..., list[str]], message: str
) -> None:
    monkeypatch.setitem(seral.selection.strategies.STRATEGIES, "mine", Strategy(function, {"embedding_ND"}))
    with pytest.raises(AssertionError, match=message):
        check_strategy("mine")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": True}, "prefix changes what comes out before it is trained: say identity=False"),
        ({"trains": False}, "prefix trains: say trains=True"),
    ],
)
def test_an_adapter_that_breaks_its_contract_is_told(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, bool], message: str
) -> None:
    monkeypatch.setitem(ser_models.adapters.ADAPTERS, "prefix", replace(ADAPTERS["prefix"], **change))
    with pytest.raises(AssertionError, match=message):
        check_adapter("prefix")


def test_a_metric_the_wrong_way_round_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ser_models.metrics.METRICS, "mine", Metric(ser_models.metrics.rmse, of="ratings"))
    with pytest.raises(AssertionError, match=r"mine is .* for the truth and .* better is wrong"):
        check_metric("mine")


def test_a_reader_that_breaks_its_contract_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(root: Path) -> list[Utterance]:
        files = sorted(file for file in root.rglob("*.*") if file.is_file())
        return [Utterance(audio=file.resolve(), source=file.name, name="one", corpus="mine") for file in files]

    monkeypatch.setitem(seral.corpora.READERS, "mine", Reader(read))
    with pytest.raises(AssertionError, match="mine has several utterances with the name one"):
        check_reader("mine", lay_out("folder", tmp_path / "corpus"))
    with pytest.raises(AssertionError, match="mine finds no utterance in"):
        check_reader("mine", tmp_path / "nothing")
