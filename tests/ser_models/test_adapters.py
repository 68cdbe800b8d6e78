"""Adapters in every family: they change nothing at first, all of them learn, and they survive the disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import is_dataclass
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from ser_models.adapters import ADAPTERS
from ser_models.adapters.adalora import AdaloraOptions, RankSchedule
from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.cost import measure_adapters, render_costs
from ser_models.adapters.frozen import FrozenOptions, attach_frozen
from ser_models.adapters.gate import GateOptions
from ser_models.adapters.injection import PeftOptions
from ser_models.adapters.lora import LoraOptions, attach_lora
from ser_models.adapters.merge import adapters_disabled, merge_adapters
from ser_models.adapters.parameters import (
    adapter_modules,
    adapter_parameters,
    adapter_tags,
    count_parameters,
    dead_adapters,
    freeze_above,
    freeze_all_but_adapters,
    lowest_trainable_layer,
    set_trainable,
)
from ser_models.adapters.partial import FullOptions
from ser_models.adapters.prefix import PrefixOptions
from ser_models.adapters.store import load_adapter, save_adapter
from ser_models.encoders import SpeechEncoder, fingerprint, load_encoder, wrap

ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
COMPOSED = ["lora+bottleneck+gate", "lora+wap", "bitfit+ia3"]
SPECS = [*(kind for kind, adapter in ADAPTERS.items() if adapter.trains), *COMPOSED]
MERGEABLE = [kind for kind, adapter in ADAPTERS.items() if adapter.trains and adapter.mergeable]
SWITCHABLE = [kind for kind, adapter in ADAPTERS.items() if adapter.trains and adapter.switchable]
WORKING = LoraOptions(rank=4, alpha=8.0)
# PeftModel itself reads a property that transformers 5.23 has renamed; seral does not build one.
peft_warns = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def clips() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    length_B = torch.tensor([9_000, 6_000])
    wave_BS = 0.2 * torch.randn(2, 9_000, generator=generator)
    wave_BS[1, 6_000:] = 0.0
    return wave_BS, length_B


def train_a_little(encoder: SpeechEncoder, steps: int = 2) -> None:
    """Move every adapter away from zero by plain gradient descent on an arbitrary target."""
    optimiser = torch.optim.SGD([p for p in adapter_parameters(encoder).values() if p.requires_grad], lr=0.05)
    for _ in range(steps):
        optimiser.zero_grad()
        (encoder(*clips()).hidden_LBTD[-1] - 1.0).square().mean().backward()
        optimiser.step()


def test_the_docs_tell_of_every_adapter() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    missing = [kind for kind in ADAPTERS if f"\n| `{kind}` |" not in page]
    assert not missing, f"docs/training.md has no row for {missing} in its table of adapters"


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_entry_of_the_table_is_complete(kind: str) -> None:
    adapter = ADAPTERS[kind]
    assert is_dataclass(adapter.options), f"options of {kind!r} must be a dataclass: it is saved and loaded by fields"
    assert adapter.options() == adapter.options(), f"options of {kind!r} must be usable without arguments"
    assert adapter.attach.__doc__, f"attach of {kind!r} has no docstring that says what it does"
    assert adapter.lr > 0, f"{kind!r} has no learning rate that suits it"
    by_peft = issubclass(adapter.options, PeftOptions)
    assert (adapter.peft is not None) == by_peft, f"{kind!r}: `peft` goes with PeftOptions, and with those only"
    trained = count_parameters(attach_adapters(geometry(64, 2), kind, seed=0))[0] > 0
    assert adapter.trains == trained, f"{kind!r}: `trains` says {adapter.trains}, and its parameters say {trained}"
    assert adapter.pretrainable <= adapter.trains, f"{kind!r} trains nothing: say in `not_pretrained` why it is unfit"


@torch.no_grad()
@pytest.mark.parametrize("kind", sorted(kind for kind, adapter in ADAPTERS.items() if adapter.identity))
def test_a_fresh_adapter_leaves_the_output_bit_for_bit_unchanged(encoder: SpeechEncoder, kind: str) -> None:
    before = encoder(*clips()).hidden_LBTD
    adapter = ADAPTERS[kind]
    same = adapter.attach(encoder, adapter.options(), seed=0)
    assert same is encoder
    assert torch.equal(encoder(*clips()).hidden_LBTD, before)


@pytest.mark.parametrize("spec", SPECS)
def test_every_adapter_learns_and_nothing_else_does(encoder: SpeechEncoder, spec: str) -> None:
    attach_adapters(encoder, spec, seed=0)
    train_a_little(encoder)
    encoder.zero_grad()
    encoder(*clips()).hidden_LBTD[-1].square().mean().backward()
    assert dead_adapters(encoder) == []
    learning = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert learning == set(adapter_parameters(encoder)), f"{spec}: end attach with register(), which freezes the rest"
    trained = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert trained == learning
    lowest = {"last_block": encoder.num_layers - 1, "wap": encoder.num_layers}.get(spec, 0)
    assert lowest_trainable_layer(encoder) == lowest


@pytest.mark.parametrize("spec", SPECS)
def test_every_adapter_survives_the_disk(
    encoder: SpeechEncoder, spec: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_encoder = request.getfixturevalue("make_encoder")
    fresh: SpeechEncoder = make_encoder(request.node.callspec.params["encoder"])
    attach_adapters(encoder, spec, seed=3)
    train_a_little(encoder)
    save_adapter(encoder, tmp_path)
    load_adapter(fresh, tmp_path)
    with torch.no_grad():
        assert torch.equal(fresh(*clips()).hidden_LBTD, encoder(*clips()).hidden_LBTD)
    assert fingerprint(fresh) == fingerprint(encoder)
    assert count_parameters(fresh) == count_parameters(encoder)
    assert list(adapter_tags(fresh)) == list(adapter_tags(encoder))


@pytest.mark.parametrize("spec", [*MERGEABLE, "bitfit+dora"])
def test_merged_adapters_are_the_same_function_in_a_plain_encoder(
    encoder: SpeechEncoder, spec: str, tmp_path: Path
) -> None:
    names = [name for name, _ in encoder.named_parameters()]
    attach_adapters(encoder, spec, seed=0)
    train_a_little(encoder)
    with torch.no_grad():
        before = encoder(*clips()).hidden_LBTD
        merge_adapters(encoder)
        after = encoder(*clips()).hidden_LBTD
    torch.testing.assert_close(after, before, atol=2e-5, rtol=1e-4)
    left = [name for name, _ in encoder.named_parameters()]
    assert left == names, f"merge_adapters leaves {sorted(set(left) - set(names))} of {spec}: say mergeable=False"
    assert count_parameters(encoder)[0] == 0
    assert adapter_parameters(encoder) == {}
    encoder.save(tmp_path)
    assert fingerprint(load_encoder(tmp_path)) == fingerprint(encoder)


@pytest.mark.parametrize("spec", [*SWITCHABLE, "lora+prefix+bottleneck+gate+wap"])
def test_adapters_can_be_switched_off_for_a_while(encoder: SpeechEncoder, spec: str) -> None:
    with torch.no_grad():
        plain = encoder(*clips()).hidden_LBTD
    attach_adapters(encoder, spec, seed=0)
    train_a_little(encoder)
    set_trainable(encoder, [next(iter(adapter_tags(encoder)))], False)
    trained = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    with torch.no_grad():
        adapted = encoder(*clips()).hidden_LBTD
        with adapters_disabled(encoder):
            assert torch.equal(encoder(*clips()).hidden_LBTD, plain)
        assert torch.equal(encoder(*clips()).hidden_LBTD, adapted)
    assert [name for name, parameter in encoder.named_parameters() if parameter.requires_grad] == trained


@torch.no_grad()
def test_a_prefix_reaches_every_clip_alike_whatever_its_padding(encoder: SpeechEncoder) -> None:
    plain = encoder(*clips()).hidden_LBTD
    attach_adapters(encoder, {"prefix": PrefixOptions(length=3)}, seed=0)
    for parameter in adapter_parameters(encoder).values():
        parameter.mul_(50)
    assert not torch.allclose(encoder(*clips()).hidden_LBTD[-1], plain[-1], atol=1e-3)
    assert alike_beside_a_longer_clip(encoder)


@pytest.mark.parametrize("spec", SPECS)
def test_an_adapter_reaches_every_clip_alike_whatever_its_padding(encoder: SpeechEncoder, spec: str) -> None:
    with torch.no_grad():
        plain = encoder(*clips()).hidden_LBTD
    attach_adapters(encoder, spec, seed=0)
    train_a_little(encoder)
    with torch.no_grad():
        assert not torch.equal(encoder(*clips()).hidden_LBTD[-1], plain[-1])
        alike = alike_beside_a_longer_clip(encoder)
    assert alike, f"{spec} gives a clip other frames beside a longer one: work frame by frame, or by the mask"


def alike_beside_a_longer_clip(encoder: SpeechEncoder) -> bool:
    """Whether the second of the clips has the frames in the batch that it has alone, without padding."""
    wave_BS, length_B = clips()
    together, alone = encoder(wave_BS, length_B), encoder(wave_BS[1:, : int(length_B[1])], length_B[1:])
    padded_LTD, alone_LTD = together.hidden_LBTD[:, 1, together.mask_BT[1]], alone.hidden_LBTD[:, 0, alone.mask_BT[0]]
    return torch.allclose(padded_LTD, alone_LTD, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("hidden", [0, 5])
def test_a_prefix_is_attended_to_like_frames(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path, hidden: int
) -> None:
    options = {"prefix": PrefixOptions(length=3, hidden=hidden)}
    encoder = attach_adapters(make_encoder("hubert-group"), options, seed=0)
    attention = encoder.layers[0].attention
    hidden_BTD = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(1))
    query, key, value = (
        getattr(attention, name)(hidden_BTD).unflatten(-1, (4, 8)).transpose(1, 2)
        for name in ("q_proj", "k_proj", "v_proj")
    )
    assert attention.prefix.drawn()[0].shape == (4, 3, 8)
    key, value = (
        torch.cat([own.expand(2, -1, -1, -1), frames], 2)
        for own, frames in zip(attention.prefix.drawn(), (key, value), strict=True)
    )
    weight = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(8), -1)
    expected = attention.out_proj((weight @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(hidden_BTD)[0], expected)
    of_layer = sum(parameter.numel() for parameter in attention.prefix.parameters())
    assert of_layer == (3 * 32 + 5 * 32 + 2 * 32 * 5 if hidden else 2 * 3 * 32)
    save_adapter(encoder, tmp_path)
    again = load_adapter(make_encoder("hubert-group"), tmp_path)
    assert torch.equal(again.layers[0].attention(hidden_BTD)[0], attention(hidden_BTD)[0])


def test_adalora_moves_its_ranks_to_the_budget_and_keeps_them(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = attach_adapters(make_encoder("whisper"), {"adalora": AdaloraOptions(start_rank=6, rank=2)}, seed=0)
    schedule = RankSchedule(encoder, steps=20)
    optimiser = torch.optim.Adam(adapter_parameters(encoder).values(), lr=0.02)
    used, penalties = [], []
    for step in range(1, 21):
        optimiser.zero_grad()
        penalties.append(schedule.penalty())
        ((encoder(*clips()).hidden_LBTD[-1] - 1.0).square().mean() + penalties[-1]).backward()
        optimiser.step()
        schedule.after_step(step)
        used.append(sum(schedule.ranks.values()))
    assert used[1] == 18 * 6
    assert used[14:] == [18 * 2] * 6
    assert all(later <= earlier for earlier, later in pairwise(used))
    assert len(set(schedule.ranks.values())) > 1
    assert penalties[-1].item() < 0.5 * penalties[0].item()
    with pytest.raises(ValueError, match="more than 1 steps"):
        RankSchedule(encoder, steps=1)
    with pytest.raises(ValueError, match="no adalora"):
        RankSchedule(make_encoder("whisper"), steps=20)


def test_adalora_goes_on_from_a_saved_state_as_if_it_had_not_stopped(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    ends = []
    for cut in (None, 13, 15):
        encoder = attach_adapters(make_encoder("whisper"), {"adalora": AdaloraOptions(start_rank=6, rank=2)}, seed=0)
        schedule = RankSchedule(encoder, steps=20)
        for step in range(1, 21):
            encoder.zero_grad()
            # Other features every step, so that what was learnt before the cut differs from what comes after.
            last_BTD = encoder(*clips()).hidden_LBTD[-1][..., step % 8 :: 8]
            ((last_BTD - 1.0).square().mean() + schedule.penalty()).backward()
            with torch.no_grad():
                for parameter in adapter_parameters(encoder).values():
                    parameter.sub_(0.05 * parameter.grad)
            schedule.after_step(step)
            if step == cut:
                state = schedule.state_dict()
                schedule = RankSchedule(encoder, steps=20)
                schedule.load_state_dict(state)
        ends.append((schedule.ranks, {n: p.detach().clone() for n, p in adapter_parameters(encoder).items()}))
    (ranks, weights), *restored = ends
    for ranks_too, weights_too in restored:
        assert ranks_too == ranks
        assert all(torch.equal(weights_too[name], weights[name]) for name in weights)


def test_parts_of_a_method_can_be_frozen_by_tag(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = attach_adapters(make_encoder("hubert-group"), "bitfit+lora+bottleneck+gate", seed=0)
    assert set(adapter_tags(encoder)) == {"bitfit", "lora_A", "lora_B", "bottleneck", "gate"}
    everything = count_parameters(encoder)[0]
    set_trainable(encoder, ["bottleneck", "lora_A"], False)
    frozen = sum(p.numel() for tag in ("bottleneck", "lora_A") for p in adapter_tags(encoder)[tag].values())
    assert count_parameters(encoder)[0] == everything - frozen
    set_trainable(encoder, ["bottleneck", "lora_A"], True)
    assert count_parameters(encoder)[0] == everything
    with pytest.raises(ValueError, match=r"tagged 'prefix'; there are: bitfit, bottleneck, gate, lora_A, lora_B"):
        set_trainable(encoder, ["prefix"], False)


def test_the_order_of_kinds_means_nothing(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    one, other = (
        attach_adapters(make_encoder("whisper"), spec, seed=1)
        for spec in ("gate+bottleneck+lora", "lora+bottleneck+gate")
    )
    for encoder in (one, other):
        train_a_little(encoder)
    with torch.no_grad():
        assert torch.equal(one(*clips()).hidden_LBTD, other(*clips()).hidden_LBTD)


def test_a_frozen_encoder_is_still_a_plain_one(make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path) -> None:
    encoder = attach_adapters(make_encoder("whisper"), "frozen", seed=0)
    assert count_parameters(encoder)[0] == 0
    encoder.save(tmp_path)
    assert fingerprint(load_encoder(tmp_path)) == fingerprint(encoder)


@pytest.mark.parametrize("kind", [kind for kind, adapter in ADAPTERS.items() if adapter.trains])
def test_an_encoder_that_was_frozen_before_trains_as_much(
    kind: str, make_encoder: Callable[[str], SpeechEncoder]
) -> None:
    fresh = attach_adapters(make_encoder("wav2vec2-layer"), kind, seed=0)
    frozen = attach_adapters(make_encoder("wav2vec2-layer").requires_grad_(False), kind, seed=0)
    assert count_parameters(frozen) == count_parameters(fresh)
    assert count_parameters(frozen)[0] > 0


def test_wrong_compositions_are_refused(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    for spec, message in (
        ("lora+gates", "no adapter 'gates'.*known: frozen, layer_sum, full"),
        ("lora+lora", "named twice"),
        ("", "no adapter ''"),
        ("lora+ia3", "already carries lora"),
    ):
        with pytest.raises(ValueError, match=message):
            attach_adapters(make_encoder("whisper"), spec, seed=0)
    with pytest.raises(ValueError, match="gate cannot be merged"):
        merge_adapters(attach_adapters(make_encoder("whisper"), "lora+gate", seed=0))
    with (
        pytest.raises(ValueError, match="bitfit trains the encoder's own weights"),
        adapters_disabled(attach_adapters(make_encoder("whisper"), "bitfit", seed=0)),
    ):
        pass


def test_the_papers_gate_scales_every_layer_at_first(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = make_encoder("whisper")
    with torch.no_grad():
        before = encoder(*clips()).hidden_LBTD
        attach_adapters(encoder, {"gate": GateOptions(start="paper")}, seed=0)
        after = encoder(*clips()).hidden_LBTD
    torch.testing.assert_close(after[1], 0.731059 * before[1])


def test_all_that_a_hidden_state_needs_can_be_trained(encoder: SpeechEncoder) -> None:
    attach_adapters(encoder, {"full": FullOptions(stem=True)}, seed=0)
    encoder(*clips()).hidden_LBTD[-1].square().mean().backward()
    still = [name for name, p in encoder.model.named_parameters() if p.requires_grad != (p.grad is not None)]
    still = [name for name in still if name != "embed_positions.weight"]  # Whisper's sinusoids are no weights
    assert (still, dead_adapters(encoder)) == ([], [])


def test_every_lora_learns_and_nothing_else_does(encoder: SpeechEncoder) -> None:
    linears = [name for name, module in encoder.layers.named_modules() if isinstance(module, nn.Linear)]
    attach_lora(encoder, WORKING, seed=0)
    modules = adapter_modules(encoder)
    assert len(modules) == sum(name.rpartition(".")[2] in encoder.targets for name in linears) >= 6 * encoder.num_layers

    encoder(*clips()).hidden_LBTD[-1].square().mean().backward()

    assert dead_adapters(encoder) == []
    learning = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert learning == set(adapter_parameters(encoder))
    train_a_little(encoder)
    encoder(*clips()).hidden_LBTD[-1].square().mean().backward()
    assert all(parameter.grad.any() for parameter in adapter_parameters(encoder).values())


def test_the_networks_own_forward_leaves_wavlm_adapters_dead(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = attach_lora(make_encoder("wavlm-layer"), WORKING, seed=0)
    encoder.model(clips()[0][:1]).last_hidden_state.square().mean().backward()
    dead = dead_adapters(encoder)
    assert {name.rpartition(".")[2] for name in dead} == set(ATTENTION)
    assert len(dead) == 4 * encoder.num_layers


def test_a_dead_adapter_is_named_and_a_frozen_one_is_not(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = attach_lora(make_encoder("whisper"), WORKING, seed=0)
    layer = encoder.layers[1]
    # The update of layer 1's fc1 is cut off, as if the network had gone around it.
    layer.fc1.forward = layer.fc1.base_layer.forward
    for parameter in adapter_modules(encoder)["model.layers.2.fc2"].values():
        parameter.requires_grad_(False)
    encoder(*clips()).hidden_LBTD[-1].square().mean().backward()
    assert dead_adapters(encoder) == ["model.layers.1.fc1"]


@pytest.mark.parametrize("spec", ["lora", "bottleneck+gate", "full", "bitfit", "prefix"])
def test_nothing_trains_above_what_is_heard(spec: str, encoder: SpeechEncoder) -> None:
    """Whoever hears hidden state 1 at most has no use for what comes after it, and nothing that is left is dead."""
    attach_adapters(encoder, spec, seed=0)
    before, _ = count_parameters(encoder)
    frozen = freeze_above(encoder, 1)
    after, _ = count_parameters(encoder)
    assert before - after == frozen > 0
    encoder(*clips()).hidden_LBTD[:2].square().mean().backward()
    assert not dead_adapters(encoder)
    above = [p for part in (*encoder.layers[1:], *encoder.after_layers[1:]) for p in part.parameters()]
    assert not any(p.requires_grad or p.grad is not None for p in above)
    assert freeze_above(encoder, encoder.num_layers) == 0


@pytest.mark.parametrize(("spec", "top_layers"), [("lora", 1), ("adalora", None)])
def test_adapters_that_nobody_hears_are_refused(spec: str, top_layers: int | None, encoder: SpeechEncoder) -> None:
    options = ADAPTERS[spec].options(top_layers=top_layers)
    attach_adapters(encoder, {spec: options}, seed=0)
    with pytest.raises(ValueError, match=rf"heard up to 1 of {encoder.num_layers}, and {spec} would train above it"):
        freeze_above(encoder, 1)


def test_upper_runs_through_the_adapters(encoder: SpeechEncoder) -> None:
    with torch.no_grad():
        before = encoder(*clips())
    attach_lora(encoder, LoraOptions(rank=4, alpha=8.0, top_layers=1), seed=0)
    train_a_little(encoder)
    with torch.no_grad():
        after = encoder(*clips())
        start = lowest_trainable_layer(encoder)
        resumed = encoder.upper(before.hidden_LBTD[start], before.mask_BT, start=start)
    assert start == encoder.num_layers - 1
    assert torch.equal(after.hidden_LBTD[: start + 1, after.mask_BT], before.hidden_LBTD[: start + 1, after.mask_BT])
    assert not torch.allclose(after.hidden_LBTD[-1], before.hidden_LBTD[-1], atol=1e-4)
    torch.testing.assert_close(resumed[-1, after.mask_BT], after.hidden_LBTD[-1, after.mask_BT])


def test_lora_computes_its_formula(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = attach_lora(make_encoder("moonshine"), WORKING, seed=0)
    train_a_little(encoder)
    linear = encoder.layers[0].mlp.fc1
    x_BD = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    low, high = linear.lora_A["default"].weight, linear.lora_B["default"].weight
    expected = linear.base_layer(x_BD) + (8.0 / 4) * x_BD @ low.T @ high.T
    torch.testing.assert_close(linear(x_BD), expected)


def geometry(width: int, layers: int) -> SpeechEncoder:
    """An encoder of a published size whose weights take no memory."""
    config = Wav2Vec2Config(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, intermediate_size=4 * width
    )
    with torch.device("meta"):
        return wrap(Wav2Vec2Model(config))


@pytest.mark.parametrize(
    ("width", "layers", "attention", "feed_forward", "bottleneck"),
    [(768, 12, 589_824, 737_280, 1_189_632), (1024, 24, 1_572_864, 1_966_080, 3_171_840)],
)
def test_sizes_in_the_published_geometries(
    width: int, layers: int, attention: int, feed_forward: int, bottleneck: int
) -> None:
    narrow = attach_lora(geometry(width, layers), LoraOptions(targets=ATTENTION), seed=0)
    assert count_parameters(narrow)[0] == attention
    assert count_parameters(attach_adapters(geometry(width, layers), "bottleneck", seed=0))[0] == bottleneck
    assert count_parameters(attach_adapters(geometry(width, layers), "gate", seed=0))[0] == width * layers
    full = geometry(width, layers)
    frozen = count_parameters(full)[1]
    attach_lora(full, LoraOptions(), seed=0)
    assert count_parameters(full) == (attention + feed_forward, frozen + attention + feed_forward)


@pytest.mark.parametrize("kind", sorted(kind for kind, adapter in ADAPTERS.items() if adapter.trains))
def test_the_seed_decides_an_adapter_and_nothing_global(
    kind: str, make_encoder: Callable[[str], SpeechEncoder]
) -> None:
    before = torch.random.get_rng_state()
    first, again = (adapter_parameters(attach_adapters(make_encoder("whisper"), kind, seed=4)) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before), f"attach of {kind!r} draws from the global generator"
    assert all(torch.equal(value, again[name]) for name, value in first.items()), f"{kind!r} does not repeat itself"


def test_the_seed_decides_lora_and_every_matrix_has_its_own_draw(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    before = torch.random.get_rng_state()
    drawn = [
        {
            name: p.detach()
            for name, p in adapter_parameters(attach_lora(make_encoder("whisper"), WORKING, seed=seed)).items()
        }
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(drawn[0][name], drawn[1][name]) for name in drawn[0])
    first = next(name for name in drawn[0] if ".lora_A." in name)
    assert not torch.equal(drawn[0][first], drawn[2][first])
    assert len({tuple(weight.flatten()[:4].tolist()) for name, weight in drawn[0].items() if ".lora_A." in name}) == 18


@pytest.mark.parametrize(("top_layers", "lowest"), [(None, 0), (3, 0), (2, 1), (1, 2)])
def test_only_the_top_layers_are_adapted(
    make_encoder: Callable[[str], SpeechEncoder], top_layers: int | None, lowest: int
) -> None:
    encoder = attach_lora(make_encoder("data2vec-audio"), LoraOptions(top_layers=top_layers), seed=0)
    assert lowest_trainable_layer(encoder) == lowest
    assert len(adapter_modules(encoder)) == 6 * (3 - lowest)


def test_the_lowest_trainable_layer_decides_what_may_be_cached(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = make_encoder("whisper")
    assert lowest_trainable_layer(encoder) == -1
    attach_frozen(encoder, FrozenOptions(), seed=0)
    assert lowest_trainable_layer(encoder) == 3
    encoder.model.layer_norm.requires_grad_(True)
    assert lowest_trainable_layer(encoder) == 2
    encoder.layers[1].fc1.requires_grad_(True)
    assert lowest_trainable_layer(encoder) == 1
    encoder.model.conv1.requires_grad_(True)
    assert lowest_trainable_layer(encoder) == -1


def test_a_saved_adapter_comes_back_the_same(
    encoder: SpeechEncoder, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make_encoder = request.getfixturevalue("make_encoder")
    fresh: SpeechEncoder = make_encoder(request.node.callspec.params["encoder"])
    attach_lora(encoder, LoraOptions(rank=4, alpha=8.0, top_layers=2), seed=3)
    train_a_little(encoder)
    save_adapter(encoder, tmp_path)

    load_adapter(fresh, tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    with torch.no_grad():
        assert torch.equal(fresh(*clips()).hidden_LBTD, encoder(*clips()).hidden_LBTD)
    assert fingerprint(fresh) == fingerprint(encoder)
    assert count_parameters(fresh) == count_parameters(encoder)
    assert lowest_trainable_layer(fresh) == 1


def test_an_encoder_with_the_same_adapter_takes_over_saved_weights(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    trained = attach_lora(make_encoder("moonshine"), WORKING, seed=3)
    train_a_little(trained)
    save_adapter(trained, tmp_path)
    other = attach_lora(make_encoder("moonshine"), WORKING, seed=4)
    assert fingerprint(load_adapter(other, tmp_path)) == fingerprint(trained)


@peft_warns
@torch.no_grad()
def test_a_saved_adapter_is_one_for_peft(make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path) -> None:
    encoder = attach_lora(make_encoder("hubert-group"), WORKING, seed=3)
    with torch.enable_grad():
        train_a_little(encoder)
    save_adapter(encoder, tmp_path)
    wave_BS = clips()[0][:1]
    peft_model = PeftModel.from_pretrained(make_encoder("hubert-group").model, str(tmp_path)).eval()
    assert torch.equal(peft_model(wave_BS).last_hidden_state, encoder.model(wave_BS).last_hidden_state)


@peft_warns
@torch.no_grad()
def test_an_adapter_made_by_peft_loads(make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path) -> None:
    theirs = get_peft_model(make_encoder("hubert-group").model, LoraConfig(r=3, target_modules=["q_proj", "v_proj"]))
    for name, parameter in theirs.named_parameters():
        if ".lora_B." in name:
            parameter.fill_(0.01)
    theirs.eval().save_pretrained(str(tmp_path))
    encoder = load_adapter(make_encoder("hubert-group"), tmp_path)
    assert lowest_trainable_layer(encoder) == 0
    wave_BS = clips()[0][:1]
    assert torch.equal(encoder.model(wave_BS).last_hidden_state, theirs(wave_BS).last_hidden_state)


def test_an_adapter_of_another_shape_is_refused(make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path) -> None:
    save_adapter(attach_lora(make_encoder("whisper"), LoraOptions(rank=2), seed=0), tmp_path)
    other = attach_lora(make_encoder("whisper"), LoraOptions(rank=4), seed=0)
    with pytest.raises(ValueError, match=r"36 weights differ.*lora_A.*is \(2, 32\), expected \(4, 32\)"):
        load_adapter(other, tmp_path)


def test_there_must_be_an_adapter_to_save_and_to_load(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no adapter"):
        save_adapter(make_encoder("whisper"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no adapter_config\.json"):
        load_adapter(make_encoder("whisper"), tmp_path)


def test_an_adapted_encoder_is_not_saved_as_a_plain_one(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    encoder = attach_lora(make_encoder("whisper"), LoraOptions(), seed=0)
    with pytest.raises(ValueError, match="save_adapter"):
        encoder.save(tmp_path)
    with pytest.raises(ValueError, match="already carries lora"):
        attach_lora(encoder, LoraOptions(), seed=0)


def test_wrong_options_are_told_with_both_values(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    for wrong, message in (
        ({"rank": 0}, "got 0"),
        ({"alpha": 0.0}, r"got 0\.0"),
        ({"dropout": 1.0}, r"got 1\.0"),
        ({"targets": ()}, "at least one"),
        ({"top_layers": 0}, "got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            LoraOptions(**wrong)
    with pytest.raises(ValueError, match=r"top_layers must be 1\.\.3 for this encoder, got 9"):
        attach_lora(make_encoder("whisper"), LoraOptions(top_layers=9), seed=0)
    with pytest.raises(ValueError, match=r"'query'.*known: fc1, fc2, k_proj, out_proj, q_proj, v_proj"):
        attach_lora(make_encoder("whisper"), LoraOptions(targets=("query",)), seed=0)


class Gate(nn.Module):
    """An adapter of our own kind: it names its parameters itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))
        self.frozen = nn.Parameter(torch.ones(width))

    def adapter_params(self) -> list[str]:
        return ["scale"]

    def forward(self, x_BD: Tensor) -> Tensor:
        return x_BD * self.scale * self.frozen


def test_modules_that_name_their_own_parameters_are_adapters() -> None:
    model = nn.Sequential(nn.Linear(3, 3), Gate(3), Gate(3))
    freeze_all_but_adapters(model)
    assert list(adapter_parameters(model)) == ["1.scale", "2.scale"]
    assert count_parameters(model) == (6, 24)
    model[1](torch.ones(1, 3)).sum().backward()
    assert dead_adapters(model) == ["2"]


@pytest.mark.slow
def test_costs_are_measured_in_processes_of_their_own() -> None:
    costs = measure_adapters(["gate", "full"], batch=1, seconds=0.5, steps=2)
    gate, full = costs
    assert gate.trained == 768 * 12
    assert full.trained > 80e6
    assert full.memory_mb > gate.memory_mb > 0
    assert min(gate.step_s, full.step_s) > 0
    lines = render_costs(costs).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[:2] == ["gate", "9,216"]
    with pytest.raises(ValueError, match="no geometry 'huge'; known: base, large"):
        measure_adapters(["gate"], geometry="huge")
