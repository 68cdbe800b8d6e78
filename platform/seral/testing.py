"""Contracts of parts, tried on small made-up data, for the tests of whoever writes parts of their own.

Strategies, readers, adapters, objectives, encoders and metrics have one; a check raises AssertionError with a sentence.

    from seral.testing import check_strategy
    def test_outskirts(): check_strategy("outskirts", power=2.0)
"""

# N candidates · M labelled · R repeats (passes) · C classes · D features · K rated dimensions · Q queries
# B clips · S samples · T frames · L hidden states
from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seral.audio.quality import REASONS
from seral.corpora import READERS
from seral.corpora.reading.utterance import Skipped, Utterance
from seral.errors import ReaderError, SelectionError
from seral.selection.candidates import Candidates
from seral.selection.selection import StrategyOptions, select

if TYPE_CHECKING:
    from ser_models.encoders import SpeechEncoder

SIZES = ((1, 0), (7, 0), (12, 3), (40, 4))
"""Candidates and labelled clips of the pools that a strategy is tried on."""
WRONG_SHARES = (0.0, 0.5)


def made_up_columns(count: int, labelled: int, seed: int, *, copies: bool = False) -> dict[str, Any]:
    """Every column that a strategy can read, for a pool of so many candidates; with copies, few different ones."""
    rng = np.random.default_rng(seed)
    different = max(1, count // 4) if copies else count
    rows = rng.integers(different, size=count) if copies else np.arange(count)
    return {
        "ids": np.array([f"u{number:03d}" for number in rng.permutation(900)[:count]], dtype=np.str_),
        "probability_NC": rng.dirichlet(np.ones(4), size=different).reshape(-1, 4)[rows],
        "dropout_RNC": rng.dirichlet(np.ones(4), size=(3, different))[:, rows],
        "embedding_ND": rng.normal(size=(different, 5))[rows],
        "value_NK": rng.normal(size=(different, 2))[rows],
        "member_RNK": rng.normal(size=(3, different, 2))[:, rows],
        "surprisal_NQ": rng.uniform(size=(different, 6))[rows],
        "speaker": rng.choice(["", "a", "b", "c"], size=count),
        "labelled_ids": np.array([f"v{number}" for number in range(labelled)], dtype=np.str_),
        "labelled_embedding_MD": rng.normal(size=(labelled, 5)),
        "labelled_value_MK": rng.normal(size=(labelled, 2)),
    }


def permuted(columns: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A pool with its rows in another order."""
    rng = np.random.default_rng(seed)
    order, labelled = rng.permutation(len(columns["ids"])), rng.permutation(len(columns["labelled_ids"]))
    moved = {
        name: value[labelled if "labelled" in name else order] for name, value in columns.items() if value.ndim < 3
    }
    return moved | {name: columns[name][:, order] for name in ("dropout_RNC", "member_RNK")}


def check_strategy(name: str, **options: Any) -> None:
    """A strategy gives k different candidates, the same for a seed whatever the order of the rows, and reads no column
    that it does not say it reads. `name` stands in STRATEGIES; `module:function` has to be allowed."""
    strategy = StrategyOptions.model_validate({"name": name, **options})
    for count, labelled in SIZES:
        for copies in (False, True):
            columns = made_up_columns(count, labelled, seed=count, copies=copies)
            for k in sorted({0, 1, count // 2, count}):
                check_picks_of(strategy, columns, k, seed=k)
    columns = made_up_columns(9, 0, seed=0)
    needed = {"ids": columns["ids"]} | {field: columns[field] for field in strategy.needs}
    try:
        _picks(strategy, needed, 3, seed=0)
    except SelectionError as error:
        raise AssertionError(f"{name} reads more than {sorted(strategy.needs) or 'nothing'}: {error}") from error


def check_picks_of(strategy: StrategyOptions, columns: Mapping[str, Any], k: int, seed: int) -> None:
    """The contract on one pool: k different candidates, for a seed and not for an order."""
    name, candidates = strategy.name, set(columns["ids"].tolist())
    picks = _picks(strategy, columns, k, seed)
    assert len(picks) == len(set(picks)) == k, f"{name}: {len(set(picks))} different picks of {len(picks)}, not {k}"
    assert set(picks) <= candidates, f"{name} picks {min(set(picks) - candidates)}, which is no candidate"
    assert _picks(strategy, columns, k, seed) == picks, f"{name} gives other picks for the same seed"
    moved = _picks(strategy, permuted(columns, seed), k, seed)
    assert moved == picks, f"{name} gives other picks where the rows come in another order: break ties by id"


def _picks(strategy: StrategyOptions, columns: Mapping[str, Any], k: int, seed: int) -> list[str]:
    return select(strategy, Candidates(**columns), k, np.random.default_rng(seed))


def check_reader(name: str, root: str | Path, **arguments: Any) -> None:
    """A reader gives the same records of a small corpus twice, each once, in order, of files that are there.

    It refuses a folder without any.
    """
    first, second = ([*READERS[name](Path(root), **arguments)] for _ in range(2))
    assert first == second, f"{name} gives other records the second time"
    utterances = [item for item in first if isinstance(item, Utterance)]
    skipped = [item for item in first if isinstance(item, Skipped)]
    assert utterances, f"{name} finds no utterance in {root}"
    assert len(utterances) + len(skipped) == len(first), f"{name} gives what is neither Utterance nor Skipped"
    for item in utterances:
        there = item.audio.is_absolute() and item.audio.is_file()
        assert there, f"{name}: {item.source} has no audio at {item.audio}"
    for field in ("name", "source"):
        values = [getattr(item, field) for item in utterances]
        twice = sorted({value for value in values if values.count(value) > 1})
        assert not twice, f"{name} has several utterances with the {field} {twice[0]}"
    sources = [item.source for item in utterances]
    assert sources == sorted(sources), f"{name} gives utterances in no order: sort them by source"
    assert not any(Path(item.source).is_absolute() for item in first), f"{name}: a source is a path below the folder"
    unknown = sorted({item.reason for item in skipped} - set(REASONS))
    assert not unknown, f"{name} skips for {unknown}; reasons are {', '.join(REASONS)}"
    with tempfile.TemporaryDirectory() as empty:
        try:
            records = [*READERS[name](Path(empty), **arguments)]
        except ReaderError:
            return
        raise AssertionError(f"{name} gives {len(records)} records of an empty folder, and no ReaderError")


def check_adapter(kind: str) -> None:
    """An adapter changes nothing before it is trained (`identity`), learns alone, survives the disk, and can be merged
    (`mergeable`)."""
    import torch

    from ser_models.adapters import ADAPTERS
    from ser_models.adapters.composition import attach_adapters
    from ser_models.adapters.merge import merge_adapters
    from ser_models.adapters.parameters import adapter_parameters, dead_adapters
    from ser_models.adapters.store import load_adapter, save_adapter
    from ser_models.encoders import load_encoder

    adapter, encoder = ADAPTERS[kind], load_encoder("seral-tiny")
    assert is_dataclass(adapter.options), f"options of {kind} are no dataclass: they are saved and loaded by fields"
    with torch.no_grad():
        plain = _states(encoder)
        attach_adapters(encoder, kind, seed=0)
        same = torch.equal(_states(encoder), plain)
    assert same or not adapter.identity, f"{kind} changes what comes out before it is trained: say identity=False"
    trained = adapter_parameters(encoder)
    if not adapter.trains:
        assert not any(parameter.requires_grad for parameter in trained.values()), f"{kind} trains: say trains=True"
        return
    optimiser = torch.optim.SGD([parameter for parameter in trained.values() if parameter.requires_grad], lr=0.05)
    for _ in range(2):
        optimiser.zero_grad()
        (_states(encoder) - 1.0).square().mean().backward()
        optimiser.step()
    assert not dead_adapters(encoder), f"{kind} gives no gradient to {dead_adapters(encoder)}"
    learning = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    stray = sorted(learning - set(trained))
    assert not stray, f"{kind}: {stray[0]} learns too; end attach with register(), which freezes the rest"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        adapted = _states(encoder)
        assert not torch.equal(adapted, plain), f"{kind} changes nothing after two steps"
        save_adapter(encoder, folder)
        loaded = _states(load_adapter(load_encoder("seral-tiny"), folder))
        assert torch.equal(loaded, adapted), f"{kind} does not come back from the disk as it was"
        if adapter.mergeable:
            merged = _states(merge_adapters(encoder))
            assert torch.allclose(merged, adapted, atol=1e-4, rtol=1e-3), f"{kind} is another function when merged"


def _states(encoder: SpeechEncoder) -> Any:
    """The last hidden state of two clips, of which one is padded."""
    return encoder(*_two_clips()).hidden_LBTD[-1]


def _two_clips() -> tuple[Any, Any]:
    """Noise, (B, S), whose second clip is padded, and the lengths, (B,)."""
    import torch

    wave_BS = 0.2 * torch.randn(2, 9_000, generator=torch.Generator().manual_seed(2))
    wave_BS[1, 6_000:] = 0.0
    return wave_BS, torch.tensor([9_000, 6_000])


def check_encoder(name: str | Path) -> None:
    """An encoder hears a clip alone as in a padded batch, says how many frames it gives, goes on from any of its hidden
    states, and comes back from the disk. `name` is what `load_encoder` takes, such as the folder of a checkpoint."""
    import torch

    from ser_models.encoders import load_encoder, save_encoder

    encoder = load_encoder(name)
    wave_BS, length_B = _two_clips()
    with torch.no_grad():
        output = encoder(wave_BS, length_B)
        hidden_LBTD, frames_B = output.hidden_LBTD, encoder.frames(length_B)
        expected = (encoder.num_layers + 1, 2, encoder.width)
        shape = (hidden_LBTD.shape[0], hidden_LBTD.shape[1], hidden_LBTD.shape[3])
        assert shape == expected, f"{name} gives states (L, B, D) = {shape}, and says {expected}"
        counted = output.mask_BT.sum(1).tolist()
        assert counted == frames_B.tolist(), f"{name} gives {counted} frames, and frames() says {frames_B.tolist()}"
        assert torch.isfinite(hidden_LBTD[:, output.mask_BT]).all(), f"{name} gives numbers that are not finite"
        alone_LTD = encoder(wave_BS[1:, :6_000], length_B[1:]).hidden_LBTD[:, 0, : counted[1]]
        same = torch.allclose(alone_LTD, hidden_LBTD[:, 1, : counted[1]], atol=1e-3, rtol=1e-3)
        assert same, f"{name} hears a clip otherwise where it is padded: mask what is behind its end"
        for start in range(encoder.num_layers + 1):
            upper_LBTD = encoder.upper(hidden_LBTD[start], output.mask_BT, start=start)
            same = torch.allclose(upper_LBTD[-1, 1, : counted[1]], hidden_LBTD[-1, 1, : counted[1]], atol=1e-3)
            assert same, f"{name} ends otherwise from its hidden state {start} on"
        with tempfile.TemporaryDirectory() as folder:
            save_encoder(encoder, folder)
            again_LBTD = load_encoder(folder)(wave_BS, length_B).hidden_LBTD
        assert torch.equal(again_LBTD, hidden_LBTD), f"{name} does not come back from the disk as it was"


def check_objective(kind: str, encoder: str | Path = "seral-tiny") -> None:
    """An objective that reads waves has a finite loss, a gradient for all that it trains, no chance but that of its
    generators, and comes back from the disk. `encoder` is one that it fits."""
    import torch

    from ser_models.adapters.composition import attach_adapters
    from ser_models.encoders import load_encoder
    from ser_models.objectives import OBJECTIVES, ClusterObjective, restore_objective, save_objective

    entry = OBJECTIVES[kind]
    assert entry.reads == "waves", f"{kind} reads {entry.reads}, and an objective of a package reads waves"

    def made(seed: int) -> Any:
        network = load_encoder(encoder)
        assert entry.fits(network.family), f"{kind} does not fit {encoder}, which is a {network.family}"
        if entry.adapter is not None:
            attach_adapters(network, entry.adapter, seed=0)
        objective = entry.build(network, entry.options(), torch.Generator().manual_seed(seed))
        assert not isinstance(objective, ClusterObjective), f"{kind} needs targets that are fitted to a pool first"
        return objective

    def loss(objective: Any) -> Any:
        measured = objective(*_two_clips(), np.random.default_rng(0))
        assert "masked" in measured or "compared" in measured, f"{kind} does not say of how many frames its loss is"
        return measured["loss"]

    before = torch.random.get_rng_state()
    objective, again, other = (made(seed).train() for seed in (0, 0, 1))
    first = loss(objective)
    assert torch.isfinite(first), f"the loss of {kind} is {first}"
    assert torch.equal(first, loss(again)), f"{kind} gives another loss for the same seeds"
    assert torch.equal(torch.random.get_rng_state(), before), f"{kind} draws from the global generator"
    trained = {name: weight for name, weight in objective.named_parameters() if weight.requires_grad}
    optimiser = torch.optim.Adam(trained.values(), lr=1e-3)
    for _ in range(2):  # what starts at zero hides what is behind it from the first step
        optimiser.zero_grad()
        loss(objective).backward()
        optimiser.step()
    dead = [name for name, weight in trained.items() if weight.grad is None or not weight.grad.isfinite().all()]
    assert not dead, f"{kind} gives no gradient to {dead[0]}"
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save_objective(again.eval(), Path(folder) / "objective.safetensors")
        restore_objective(other.eval(), Path(folder) / "objective.safetensors")
        assert torch.equal(loss(other), loss(again)), f"{kind} does not save all that it has drawn"


def check_metric(name: str) -> None:
    """A metric is a finite number, and best where the outputs are the truth."""
    from ser_models.metrics import METRICS

    metric, rng = METRICS[name], np.random.default_rng(0)
    truth_N = rng.normal(size=200) if metric.of == "ratings" else rng.integers(4, size=200)
    values = []
    for share in WRONG_SHARES:
        wrong_N = rng.random(200) < share
        predicted_N = np.where(wrong_N, rng.permutation(truth_N), truth_N)
        output = np.eye(4)[predicted_N] if metric.of == "probabilities" else predicted_N
        values.append(float(metric.function(truth_N, output)))
    assert np.isfinite(values).all(), f"{name} is {values}"
    best, worse = values if metric.better == "higher" else [-value for value in values]
    assert best > worse, f"{name} is {values[0]:.3g} for the truth and {values[1]:.3g} for half of it: better is wrong"
