"""Schedules, batches, the wav2vec 2.0 objective against transformers' own, and cluster prediction in every family."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import Wav2Vec2ForPreTraining

from ser_models.adapters.composition import attach_adapters
from ser_models.adapters.merge import merge_adapters
from ser_models.adapters.parameters import adapter_parameters, dead_adapters
from ser_models.encoders import FAMILIES, SpeechEncoder, load_encoder, save_encoder
from ser_models.objectives import (
    OBJECTIVES,
    ClusterObjective,
    ContrastiveObjective,
    MaskedPredictionOptions,
    Objective,
    UpdateOptions,
    assign_clusters,
    batches_by_seconds,
    check_adapter,
    find_objective,
    gumbel_temperature_at,
    held_out_scores,
    learning_rate_at,
    perplexity,
    pretraining_heads,
    random_crop,
    update,
)
from ser_models.objectives.masks import MASKS, sample_distractors, span_mask

ONE_OF_TWO = """
import sys
import numpy as np
import torch
from ser_models.encoders import load_encoder
from ser_models.objectives import ClusterObjective, MaskedPredictionOptions, average_gradients
from ser_models.objectives.local_attributes import mean_of_all_workers

folder, rank = sys.argv[1], int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
options = MaskedPredictionOptions(**given["options"])
objective = ClusterObjective(load_encoder(folder), options, torch.Generator().manual_seed(0))
objective.load_state_dict(given["objective"])
length_B = given["length_B"][rank::2]
hidden_BT = given["hidden_BT"][rank::2, : objective.encoder.frames(length_B).max()]
scalars = objective.eval()(given["wave_BS"][rank::2], length_B, np.random.default_rng(0), hidden_BT=hidden_BT)
scalars["loss"].backward()
average_gradients(list(objective.trained().values()), scalars["masked"])
torch.save({name: parameter.grad for name, parameter in objective.trained().items()}, f"{folder}/{rank}.pt")
torch.save(mean_of_all_workers(given["row_BP"][rank::2]), f"{folder}/mean-{rank}.pt")
# Left to the end of the process, gloo's threads sometimes abort it.
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""
"""What one of two workers does with its half of the clips."""

OPTIONS = MaskedPredictionOptions(steps=60, warmup_steps=5, mask="wav2vec2", distractors=20, clusters=6, lr=1e-3)


def tones(*seconds: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips of tones that change pitch every 0.1 s, zero padded, and their lengths in samples."""
    rng = np.random.default_rng(seed)
    clips = []
    for length_s in seconds:
        pitch_hz = np.repeat(rng.choice([200, 400, 800, 1600], size=int(length_s * 10) + 1), 1600)
        clips.append((0.3 * np.sin(2 * np.pi * np.cumsum(pitch_hz) / 16000))[: int(length_s * 16000)])
    length_B = torch.tensor([len(clip) for clip in clips])
    wave_BS = torch.zeros(len(clips), int(length_B.max()))
    for row, clip in zip(wave_BS, clips, strict=True):
        row[: len(clip)] = torch.from_numpy(clip)
    return wave_BS, length_B


def tapt_optimizer(objective: Objective) -> torch.optim.Adam:
    return torch.optim.Adam(objective.trained().values(), lr=objective.options.lr)


def tapt_step(
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    wave_BS: torch.Tensor,
    length_B: torch.Tensor,
    *,
    step: int,
    rng: np.random.Generator,
    names: Sequence[str] | None = None,
    bf16: bool = False,
) -> dict[str, float]:
    """One update at the rate of `step`; the objective's scalars and the rate."""
    rate = learning_rate_at(step, objective.options)
    scalars = update(
        lambda: objective(wave_BS, length_B, rng, step=step),
        optimizer,
        UpdateOptions(step=step, lr=rate, bf16=bf16),
        names=names or [f"clip {row}" for row in range(len(wave_BS))],
        input_B=wave_BS,
    )
    return scalars | {"learning_rate": rate}


def objective_on(encoder: SpeechEncoder, options: MaskedPredictionOptions = OPTIONS, seed: int = 0) -> Objective:
    """The first objective that fits the encoder's family, with clusters made of the frames of some tones."""
    objective = OBJECTIVES[find_objective(None, encoder.family)].build(
        encoder, options, torch.Generator().manual_seed(seed)
    )
    assert isinstance(objective, Objective)
    if isinstance(objective, ClusterObjective):
        hidden_BTD, mask_BT = objective.targets.hidden(*tones(0.9, 0.8, 0.7))
        objective.targets.fit(hidden_BTD[mask_BT], spread_rows(options.clusters))
    return objective


def spread_rows(clusters: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Farthest-first rows as centroids: k-means without k-means."""

    def pick(row_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        chosen = [0]
        for _ in range(clusters - 1):
            chosen.append(int(np.min([np.square(row_ND - row_ND[c]).sum(1) for c in chosen], axis=0).argmax()))
        return row_ND[chosen]

    return pick


def apart(
    wave_BS: torch.Tensor, length_B: torch.Tensor, encoder: SpeechEncoder, hidden_BT: torch.Tensor
) -> Iterator[tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]]:
    """Every clip of a batch by itself, without padding, with its mask."""
    for wave_S, length, frames, hidden_T in zip(wave_BS, length_B, encoder.frames(length_B), hidden_BT, strict=True):
        yield (wave_S[None, :length], length[None]), hidden_T[None, :frames]


def without_dropout(encoder: SpeechEncoder) -> None:
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for name in ("dropout", "activation_dropout"):
        for module in encoder.modules():
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def test_learning_rate_climbs_stays_and_falls_to_zero() -> None:
    options = MaskedPredictionOptions(steps=1000, warmup_steps=100, lr=1e-4)
    rates = [learning_rate_at(step, options) for step in range(1001)]
    assert rates[0] == pytest.approx(1e-6)
    assert rates[99:151] == pytest.approx([1e-4] * 52)
    assert rates[575] == pytest.approx(0.5e-4)
    assert rates[1000] == 0
    assert all(later <= earlier for earlier, later in pairwise(rates[150:]))
    assert gumbel_temperature_at(0, options) == 2.0
    assert gumbel_temperature_at(10**7, options) == 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask": "half"}, "unknown mask 'half'; known: after, wav2vec2"),
        ({"steps": 100}, "take 105 steps of 100"),
        ({"crop_s": 300.0}, r"300\.0 s does not fit a batch of 250\.0 s"),
        ({"distractors": 0}, "at least 1, got 0"),
        ({"clusters": 1}, "clusters must be at least 2, got 1"),
    ],
)
def test_options_say_both_numbers(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskedPredictionOptions(**wrong)  # type: ignore[arg-type]  # deliberately wrong values of any field


def test_batches_hold_at_most_the_asked_seconds_and_every_clip_once_per_epoch() -> None:
    duration_N = [3.0, 12.0, 5.0, 8.0, 2.0, 30.0]
    options = MaskedPredictionOptions(batch_s=20.0, crop_s=10.0)
    rows: list[int] = []
    for batch in batches_by_seconds(duration_N, options, np.random.default_rng(0)):
        assert sum(min(duration_N[row], 10.0) for row in batch) <= 20
        rows += batch
    assert sorted(rows) == list(range(6))


def test_crop_is_a_piece_of_the_clip() -> None:
    wave_S = np.arange(48000, dtype=np.float32)
    piece = random_crop(wave_S, 1.0, np.random.default_rng(0))
    assert len(piece) == 16000
    np.testing.assert_array_equal(np.diff(piece), 1)
    assert random_crop(wave_S, 3.0, np.random.default_rng(0)) is wave_S


@pytest.mark.parametrize("name", ["wav2vec2-group", "wav2vec2-layer"])
def test_equals_the_loss_of_transformers(
    make_encoder: Callable[[str], SpeechEncoder], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = make_encoder(name)
    objective = objective_on(encoder).eval()
    wave_BS, length_B = tones(1.0, 1.0)
    frames = encoder.frames(length_B).tolist()
    mask_BT = span_mask(frames, MASKS["wav2vec2"], np.random.default_rng(0))
    negatives = [sample_distractors(np.arange(f), f, 20, np.random.default_rng(1)) for f in frames]
    drawn = iter(negatives)
    monkeypatch.setattr("ser_models.objectives.contrastive.sample_distractors", lambda masked, *_: next(drawn)[masked])

    theirs = Wav2Vec2ForPreTraining(encoder.model.config).eval()
    theirs.wav2vec2 = encoder.model
    theirs.load_state_dict(objective.heads(), strict=False)
    encoder.model.masked_spec_embed = objective.mask_embedding
    clip_offset = np.arange(2)[:, None, None] * frames[0]
    values = wave_BS
    if getattr(encoder, "normalise", False):
        values = (wave_BS - wave_BS.mean(1, keepdim=True)) / (wave_BS.var(1, correction=0, keepdim=True) + 1e-7).sqrt()
    with torch.no_grad():
        hidden_BT = torch.from_numpy(mask_BT)
        ours = objective(wave_BS, length_B, np.random.default_rng(0), hidden_BT=hidden_BT)
        wanted = theirs(
            values,
            mask_time_indices=hidden_BT,
            sampled_negative_indices=torch.from_numpy(np.stack(negatives) + clip_offset),
        )
    assert float(ours["contrastive"]) == pytest.approx(float(wanted.contrastive_loss) / mask_BT.sum(), rel=1e-4)


def test_loss_falls_on_tones_and_every_trainable_parameter_has_a_gradient() -> None:
    objective = objective_on(load_encoder("seral-tiny")).train()
    optimizer = tapt_optimizer(objective)
    rng = np.random.default_rng(0)
    wave_BS, length_B = tones(2.0, 1.5, 1.0, 2.0)
    first = tapt_step(objective, optimizer, wave_BS, length_B, step=0, rng=rng)
    for name, parameter in objective.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or bool(parameter.grad.abs().sum() > 0), name
    history = [tapt_step(objective, optimizer, wave_BS, length_B, step=step, rng=rng) for step in range(1, 30)]
    added = {"contrastive", "diversity", "learning_rate"}
    assert set(first) == {"loss", "perplexity", "accuracy", "masked"} | added
    assert np.mean([record["loss"] for record in history[-5:]]) < 0.9 * first["loss"]
    frozen = [name for name, parameter in objective.named_parameters() if not parameter.requires_grad]
    assert frozen
    assert all(".feature_extractor." in name for name in frozen)


def test_the_front_trains_when_asked_to() -> None:
    options = MaskedPredictionOptions(steps=60, warmup_steps=5, freeze_front=False, distractors=10)
    objective = objective_on(load_encoder("seral-tiny"), options).train()
    tapt_step(objective, tapt_optimizer(objective), *tones(1.0), step=0, rng=np.random.default_rng(0))
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("training", [False, True])
def test_neither_padding_nor_company_changes_the_loss(encoder: SpeechEncoder, training: bool) -> None:
    without_dropout(encoder)
    objective = objective_on(encoder).train(training)
    for layer in encoder.layers:
        layer.eval()  # attention dropout is a number, not a module
    wave_BS, length_B = tones(0.9, 0.6)
    hidden_BT = torch.from_numpy(
        span_mask(encoder.frames(length_B).tolist(), MASKS["wav2vec2"], np.random.default_rng(3))
    )
    short = objective(wave_BS, length_B, np.random.default_rng(3), hidden_BT=hidden_BT)
    padded_BS = functional.pad(wave_BS, (0, 4000), value=9.0)
    long = objective(padded_BS, length_B, np.random.default_rng(3), hidden_BT=hidden_BT)
    for key in short:
        torch.testing.assert_close(long[key], short[key], atol=1e-4, rtol=1e-4)
    if isinstance(objective, ClusterObjective):  # distractors of the contrastive loss are drawn clip by clip
        alone = [
            objective(*one, np.random.default_rng(3), hidden_BT=m)
            for one, m in apart(wave_BS, length_B, encoder, hidden_BT)
        ]
        total = torch.stack([scalars["loss"] * scalars["masked"] for scalars in alone]).sum()
        torch.testing.assert_close(total / hidden_BT.sum(), short["loss"], atol=1e-4, rtol=1e-4)


def test_same_seed_same_bits_dropout_included_and_no_global_randomness(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    def weights() -> tuple[torch.Tensor, float]:
        objective = objective_on(make_encoder("wav2vec2-layer")).train()
        rng = np.random.default_rng(5)
        record = tapt_step(objective, tapt_optimizer(objective), *tones(1.0, 0.8), step=3, rng=rng)
        return torch.cat([parameter.detach().flatten() for parameter in objective.parameters()]), record["loss"]

    before = torch.random.get_rng_state()
    first, first_loss = weights()
    again, again_loss = weights()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert first_loss == again_loss
    assert torch.equal(first, again)


def test_heads_of_a_pretraining_checkpoint_are_found_and_used(
    tmp_path: Path, make_encoder: Callable[[str], SpeechEncoder]
) -> None:
    encoder = make_encoder("wav2vec2-layer")
    first = objective_on(encoder, seed=1)
    checkpoint = Wav2Vec2ForPreTraining(encoder.model.config)
    checkpoint.load_state_dict(first.heads(), strict=False)
    checkpoint.save_pretrained(tmp_path)
    heads = pretraining_heads(str(tmp_path))
    assert heads is not None
    second = ContrastiveObjective(encoder, OPTIONS, torch.Generator().manual_seed(2), heads=heads)
    for name, value in first.heads().items():
        assert torch.equal(second.heads()[name], value), name
    with pytest.raises(ValueError, match="pretraining heads must be"):
        ContrastiveObjective(encoder, OPTIONS, torch.Generator(), heads={"quantizer.codevectors": torch.zeros(1)})


def test_a_batch_of_clips_too_short_for_a_span_is_refused() -> None:
    objective = objective_on(load_encoder("seral-tiny"))
    with pytest.raises(ValueError, match="no clip is long enough for a mask span: the longest of 1 has"):
        objective(*tones(0.15), np.random.default_rng(0))


def test_every_family_has_an_objective() -> None:
    fitting = {family: find_objective(None, family) for family in FAMILIES}
    assert fitting == dict.fromkeys(FAMILIES, "masked_clusters") | {"wav2vec2": "contrastive"}


@pytest.mark.parametrize("mask", sorted(MASKS))
def test_every_family_learns_and_every_trained_parameter_has_a_gradient(encoder: SpeechEncoder, mask: str) -> None:
    options = MaskedPredictionOptions(steps=60, warmup_steps=2, mask=mask, distractors=20, clusters=6, lr=3e-3)
    objective = objective_on(encoder, options).train()
    optimizer = tapt_optimizer(objective)
    batch = tones(0.9, 0.9, 0.8, 0.7)
    losses = []
    for step in range(30):
        record = tapt_step(objective, optimizer, *batch, step=step, rng=np.random.default_rng([1, step % 3]))
        losses.append(record["loss"])
        if step == 0:
            dead = [name for name, p in objective.trained().items() if p.grad is None or not p.grad.isfinite().all()]
            still = [n for n, p in objective.trained().items() if not n.endswith("bias") and not p.grad.any()]
            assert (dead, still) == ([], [])
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])


def test_bfloat16_gives_nearly_the_same_loss_and_leaves_the_weights_as_they_are(encoder: SpeechEncoder) -> None:
    wave_BS, length_B = tones(1.0, 0.7)
    objective = objective_on(encoder)
    losses = []
    for bf16 in (False, True):
        learner = copy.deepcopy(objective).train()
        scalars = tapt_step(
            learner, tapt_optimizer(learner), wave_BS, length_B, step=0, rng=np.random.default_rng(0), bf16=bf16
        )
        losses.append(scalars["loss"])
        assert all(parameter.dtype == torch.float32 for parameter in learner.parameters())
    assert losses[0] != losses[1]
    # Batch norm over two clips magnifies what bf16 rounds off, by 16 % where the CPU has matrix units for it.
    assert losses[1] == pytest.approx(losses[0], rel=0.25)


def test_the_front_is_all_that_stays(encoder: SpeechEncoder) -> None:
    objective_on(encoder)
    front = {id(p) for part in encoder.front for p in part.parameters()}
    frozen = {name: id(p) for name, p in encoder.model.named_parameters() if not p.requires_grad}
    frozen.pop("embed_positions.weight", None)  # Whisper's sinusoids are no weights
    unused = {name for name in frozen if name.startswith(encoder.unused)}
    assert {frozen[name] for name in frozen.keys() - unused} == front


def test_a_frame_belongs_to_the_nearest_centroid() -> None:
    rng = np.random.default_rng(0)
    hidden_BTD = torch.from_numpy(rng.normal(3, 5, (2, 9, 4)).astype(np.float32))
    centroid_KD = hidden_BTD[1, [4, 0, 7]]
    cluster_BT = assign_clusters(hidden_BTD, centroid_KD)
    assert cluster_BT[1, [4, 0, 7]].tolist() == [0, 1, 2]
    assert torch.equal(cluster_BT, (hidden_BTD[:, :, None] - centroid_KD).square().sum(-1).argmin(-1))


def test_targets_are_the_clusters_of_the_unmasked_clip_in_the_first_encoder(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    encoder = make_encoder("hubert-group")
    wave_BS, length_B = tones(0.9)
    third_TD = encoder(wave_BS, length_B).hidden_LBTD[2, 0]
    objective = objective_on(encoder)
    assert isinstance(objective, ClusterObjective)
    assert objective.targets.layer == 2  # ⌊0.75 · 3⌋
    objective.targets.fit(third_TD, lambda row_ND: row_ND[[5, 20, 30, 0, 1, 2]])
    before_BT = objective.targets(wave_BS, length_B)
    assert before_BT[0, [5, 20, 30, 0, 1, 2]].tolist() == [0, 1, 2, 3, 4, 5]
    tapt_step(objective.train(), tapt_optimizer(objective), wave_BS, length_B, step=5, rng=np.random.default_rng(0))
    assert torch.equal(objective.targets(wave_BS, length_B), before_BT)
    old_KP = objective.code_KP.detach().clone()
    head = objective.follow(torch.Generator().manual_seed(9))
    assert {id(p) for p in head} == {id(p) for p in (*objective.projection.parameters(), objective.code_KP)}
    assert not torch.equal(objective.code_KP, old_KP)
    moved_BTD, _ = objective.targets.hidden(wave_BS, length_B)
    torch.testing.assert_close(moved_BTD[0], encoder.eval()(wave_BS, length_B).hidden_LBTD[2, 0].detach())


def test_hidden_frames_know_their_place(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    """Whisper adds positions once: masks put on after them would make all hidden frames one."""
    objective = objective_on(make_encoder("whisper")).eval()
    frame_BTD = objective.encoder.project(*tones(0.8))
    hidden_BT = torch.ones(frame_BTD.shape[:2], dtype=torch.bool)
    last_TD = objective._contextualise(frame_BTD, torch.tensor([12800]), hidden_BT)[0].detach()
    assert float((last_TD - last_TD.mean(0)).abs().max()) > 0.1


def test_perplexity_counts_what_is_in_use() -> None:
    assert float(perplexity(torch.full((8,), 1 / 8))) == pytest.approx(8)
    assert float(perplexity(torch.tensor([1.0, 0.0, 0.0]))) == pytest.approx(1)
    assert float(perplexity(torch.full((2, 5), 0.2))) == pytest.approx(10)
    assert float(perplexity(torch.tensor([0.5, 0.25, 0.25]))) == pytest.approx(2**1.5)


def test_perplexities_are_of_the_masked_frames(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    objective = objective_on(make_encoder("whisper")).eval()
    assert isinstance(objective, ClusterObjective)
    wave_BS, length_B = tones(0.8)
    target_T = objective.targets(wave_BS, length_B)[0]
    hidden_T = torch.zeros(len(target_T), dtype=torch.bool)
    hidden_T[:2] = True
    scalars = objective(wave_BS, length_B, np.random.default_rng(0), hidden_BT=hidden_T[None])
    distinct = len(set(target_T[:2].tolist()))
    assert float(scalars["target_perplexity"]) == pytest.approx(distinct)
    assert int(scalars["masked"]) == 2
    with torch.no_grad():
        objective.projection.weight.zero_()
    collapsed = objective(wave_BS, length_B, np.random.default_rng(0), hidden_BT=hidden_T[None])
    assert float(collapsed["perplexity"]) == pytest.approx(1)


@pytest.mark.parametrize("name", ["wav2vec2-layer", "wavlm-group", "whisper"])
@pytest.mark.parametrize("spec", ["lora", "bitfit", "last_block", "ia3"])
def test_with_adapters_only_they_and_the_heads_move_and_they_merge(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path, name: str, spec: str
) -> None:
    check_adapter(spec)
    encoder = attach_adapters(make_encoder(name), spec, seed=0)
    objective = objective_on(encoder).train()
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    optimizer = tapt_optimizer(objective)
    for step in range(2):
        tapt_step(objective, optimizer, *tones(0.9, 0.8), step=step, rng=np.random.default_rng(step))
        assert dead_adapters(encoder) == []
    moved = {name for name, p in objective.named_parameters() if not torch.equal(p, before[name])}
    adapters = {f"encoder.{name}" for name in adapter_parameters(encoder)}
    assert moved - adapters == {name for name in objective.trained() if not name.startswith("encoder.")}
    assert moved - adapters > {"mask_embedding"}
    assert moved & adapters
    wanted = encoder.eval()(*tones(0.5)).hidden_LBTD.detach()
    merge_adapters(encoder).save(tmp_path)
    torch.testing.assert_close(load_encoder(tmp_path)(*tones(0.5)).hidden_LBTD, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bottleneck", "'bottleneck' cannot be merged into the encoder that pretraining returns; possible: full"),
        ("lora+prefix", "'prefix' cannot be merged"),
        ("frozen", "'frozen' is not possible: it trains nothing; possible: full, last_block"),
        ("adalora", "its ranks move on a schedule"),
        ("nothing", "no adapter 'nothing'"),
    ],
)
def test_adapters_that_give_no_plain_encoder_are_refused(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_adapter(spec)


def test_held_out_scores_are_the_same_every_time_and_weigh_by_masked_frames(
    make_encoder: Callable[[str], SpeechEncoder],
) -> None:
    objective = objective_on(make_encoder("wavlm-layer")).train()
    batches = [tones(0.9, 0.8), tones(0.4)]
    first, again = (held_out_scores(objective, batches, seed=[0, 5]) for _ in range(2))
    assert first == again
    assert objective.training
    assert not objective.targets.training
    rng = np.random.default_rng([0, 5])
    objective.eval()
    with torch.no_grad():
        parts = [objective.measure(*batch, rng) for batch in batches]
    frames = np.array([int(part.masked) for part in parts])
    assert first["loss"] == pytest.approx(np.average([float(part.mean["loss"]) for part in parts], weights=frames))
    counts_NK = [part.share["target_perplexity"].numpy() * part.masked.numpy() for part in parts]
    share_K = np.sum(counts_NK, axis=0) / frames.sum()
    wanted = np.exp(-sum(share * np.log(share) for share in share_K if share > 0))
    assert first["target_perplexity"] == pytest.approx(wanted, rel=1e-5)
    assert first["masked"] == frames.sum()


def test_two_workers_have_the_gradients_and_means_of_one_batch(
    make_encoder: Callable[[str], SpeechEncoder], tmp_path: Path
) -> None:
    encoder = make_encoder("whisper")
    save_encoder(encoder, tmp_path)
    objective = objective_on(encoder)
    wave_BS, length_B = tones(0.9, 0.5, 0.8, 0.4)
    frames = encoder.frames(length_B).tolist()
    hidden_BT = torch.from_numpy(span_mask(frames, MASKS["wav2vec2"], np.random.default_rng(1)))
    assert hidden_BT[::2].sum() != hidden_BT[1::2].sum()
    options = {"steps": OPTIONS.steps, "warmup_steps": OPTIONS.warmup_steps, "clusters": OPTIONS.clusters}
    arguments = {"wave_BS": wave_BS, "length_B": length_B, "hidden_BT": hidden_BT, "options": options}
    row_BP = torch.randn(5, 7, generator=torch.Generator().manual_seed(2))  # three of one worker, two of the other
    torch.save(arguments | {"objective": objective.state_dict(), "row_BP": row_BP}, tmp_path / "given.pt")
    workers = [subprocess.Popen([sys.executable, "-c", ONE_OF_TWO, str(tmp_path), rank]) for rank in "01"]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    objective.eval()(wave_BS, length_B, np.random.default_rng(0), hidden_BT=hidden_BT)["loss"].backward()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in "01")
    for name, parameter in objective.trained().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], parameter.grad, rtol=1e-4, atol=1e-6)
    for rank in "01":
        torch.testing.assert_close(torch.load(tmp_path / f"mean-{rank}.pt"), row_BP.mean(0))


def test_bad_input_is_named_with_what_was_expected(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    encoder = make_encoder("moonshine")
    objective = objective_on(encoder)
    wave_BS, length_B = tones(0.8, 0.6)
    rng = np.random.default_rng(0)
    frames = encoder.frames(length_B).tolist()
    hidden_BT = torch.zeros(2, frames[0], dtype=torch.bool)
    with pytest.raises(ValueError, match="expected masked frames in at least one of 2 clips, got none"):
        objective(wave_BS, length_B, rng, hidden_BT=hidden_BT)
    hidden_BT[1, : frames[1]] = True
    with pytest.raises(ValueError, match=f"clip 1 is masked whole: expected at most {frames[1] - 1} .* got"):
        objective(wave_BS, length_B, rng, hidden_BT=hidden_BT)
    with pytest.raises(ValueError, match="on real frames only"):
        objective(wave_BS, length_B, rng, hidden_BT=~hidden_BT)
    with pytest.raises(ValueError, match=rf"expected a mask of \(2, {frames[0]}\) clips and frames, got \(2, 3\)"):
        objective(wave_BS, length_B, rng, hidden_BT=hidden_BT[:, :3])
    with pytest.raises(ValueError, match=r"with B > 0, got \(0, 10\)"):
        objective(torch.zeros(0, 10), torch.zeros(0, dtype=torch.long), rng)
    with pytest.raises(ValueError, match="at least one held-out batch, got none"):
        held_out_scores(objective, [], seed=[0])


def test_clusters_that_cannot_be_are_refused(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    def fresh(**values: int) -> ClusterObjective:
        return ClusterObjective(make_encoder("whisper"), MaskedPredictionOptions(**values), torch.Generator())  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="expected 100 finite centroids, got none: call fit first"):
        fresh()(*tones(0.8), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"layer must be a hidden state 0\.\.3 of this encoder, got 4"):
        fresh(layer=4)
    with pytest.raises(ValueError, match="expected at least 100 frames for 100 clusters, got 99"):
        fresh().targets.fit(torch.zeros(99, 32), lambda row_ND: row_ND)
    with pytest.raises(ValueError, match="expected finite frames to cluster, got 1 others of 100"):
        fresh().targets.fit(torch.tensor([[0.0] * 32] * 99 + [[torch.nan] * 32]), lambda row_ND: row_ND)
    with pytest.raises(ValueError, match="expects a wav2vec2 encoder, got whisper"):
        ContrastiveObjective(make_encoder("whisper"), MaskedPredictionOptions(), torch.Generator())


def test_a_loss_that_is_not_finite_names_the_clips(make_encoder: Callable[[str], SpeechEncoder]) -> None:
    objective = objective_on(make_encoder("whisper")).train()
    wave_BS, length_B = tones(0.8, 0.6, 0.7)
    wave_BS[1, 100] = torch.nan
    optimizer = tapt_optimizer(objective)
    with pytest.raises(ValueError, match=r"finite pretraining loss, got nan at step 7; .* bad audio in b$"):
        tapt_step(objective, optimizer, wave_BS, length_B, step=7, rng=np.random.default_rng(0), names=["a", "b", "c"])
    with torch.no_grad():
        objective.mask_embedding.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"bad audio in clip 0, clip 1$"):
        tapt_step(objective, optimizer, *tones(0.8, 0.6), step=7, rng=np.random.default_rng(0))
