"""Distillation through Ray Train on generated speech: what is heard, that it repeats and resumes, any depth."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Wav2Vec2Config, Wav2Vec2Model, WhisperConfig, WhisperModel

from ser_models.encoders import load_encoder, save_encoder, wrap
from ser_models.objectives.distillation import teacher_parameters
from seral import storage
from seral.errors import OptionError, StateError, TrainError
from seral.features.speech import Speech
from seral.options import parse
from seral.pool.shards import open_pool
from seral.pretraining.distillation import distil, learning_rate_at, speech_of
from seral.pretraining.options import DistillationDataOptions, DistilOptions
from seral.pretraining.teacher_targets import DistillationData, View
from seral.pretraining.trainer import Trainer

TEACHER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "vocab_size": 4,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_encoder(wrap(WhisperModel(WhisperConfig(**TEACHER)).get_encoder()), folder)
    return str(folder)


@pytest.fixture(autouse=True)
def same_threads() -> Any:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def options(teacher: str, pool: str, out: Path, **changes: object) -> DistilOptions:
    data = {"batch_s": 10.0, "views": 2}
    values = {"teacher": teacher, "pools": [pool], "noise": pool, "run": str(out), "steps": 6, "warmup_steps": 1}
    return parse(DistilOptions, {**values, "layers": 1, "checkpoint_every": 2, "data": data, **changes})


def weights_of(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def data_of(teacher: str, pool: str, **values: Any) -> DistillationData:
    opened = open_pool(pool)
    return DistillationData(
        speech=Speech(parts=speech_of([opened])),
        noises=[np.ones(1000, np.float32)],
        teacher=load_encoder(teacher),
        states=(1, 2),
        options=DistillationDataOptions(**{"batch_s": 10.0, **values}),
        seed=3,
    )


def test_a_stopped_run_goes_on_to_the_same_weights(teacher: str, speech_pool: str, tmp_path: Path) -> None:
    whole = distil(options(teacher, speech_pool, tmp_path / "whole"))
    lines = []

    def stop_half_way(message: str) -> None:
        lines.append(message)
        if message.startswith("distillation step 4/6") and "distillation goes on from step 2" not in lines:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seral.pretraining.trainer.say", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            distil(options(teacher, speech_pool, tmp_path / "cut"))
        cut = distil(options(teacher, speech_pool, tmp_path / "cut"))
    assert "distillation goes on from step 2" in lines
    one, two = weights_of(whole), weights_of(cut)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {weight.dtype for weight in one.values()} == {torch.float16}
    facts = [storage.read_json(tmp_path / name / "distil.json") for name in ("whole", "cut")]
    assert facts[0] == facts[1]
    assert [row["step"] for row in facts[0]["history"]] == [2, 4, 6]
    assert facts[0]["states"] == [1, 2, 3]
    assert facts[0]["student_parameters"] < facts[0]["teacher_parameters"]
    assert (tmp_path / "whole" / "distil.png").stat().st_size > 1000
    assert not (tmp_path / "cut" / ".train").exists()
    assert distil(options(teacher, speech_pool, tmp_path / "cut")) == cut
    with pytest.raises(StateError, match=r"holds a run with other options \(lr: was"):
        distil(options(teacher, speech_pool, tmp_path / "cut", lr=0.5))


def fails(*_: object, **__: object) -> None:
    raise AssertionError("a step is done again")


def test_stopped_between_its_last_step_and_its_record_it_repeats_no_step(
    teacher: str, speech_pool: str, tmp_path: Path
) -> None:
    distil(options(teacher, speech_pool, tmp_path / "whole"))
    for number, name in enumerate(("encoder", "distil.png", "distil.json")):
        run = tmp_path / f"cut-{number}"
        with pytest.MonkeyPatch.context() as patch:
            for step in ("copy_folder", "write_bytes", "write_json"):
                patch.setattr(storage, step, stopped_at(f"{run}/{name}", getattr(storage, step)))
            with pytest.raises(KeyboardInterrupt):
                distil(options(teacher, speech_pool, run))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_step", fails)
            distil(options(teacher, speech_pool, run))
        for file in ("distil.json", "encoder/model.safetensors"):
            assert (run / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
        assert not (run / ".train").exists()


def stopped_at(uri: str, do: Callable[..., None]) -> Callable[..., None]:
    def write(*arguments: Any) -> None:
        if any(str(argument) == uri for argument in arguments):
            raise KeyboardInterrupt
        do(*arguments)

    return write


@pytest.mark.slow
def test_a_killed_worker_is_restored_and_ends_in_the_same_weights(
    teacher: str,
    speech_pool: str,
    tmp_path: Path,
    kill_ray_train_worker: Callable[[Path], AbstractContextManager[list[int]]],
) -> None:
    values: dict[str, Any] = {"steps": 28, "checkpoint_every": 4}
    whole = distil(options(teacher, speech_pool, tmp_path / "whole", **values))
    with kill_ray_train_worker(tmp_path / "cut" / ".train") as killed:
        workers = {"train_workers": 1, "max_failures": 1}
        cut = distil(options(teacher, speech_pool, tmp_path / "cut", cluster=workers, **values))
    assert killed, "training ended before a worker could be killed"
    one, two = weights_of(whole), weights_of(cut)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_two_workers_share_the_batches(teacher: str, speech_pool: str, tmp_path: Path) -> None:
    alone = distil(options(teacher, speech_pool, tmp_path / "alone", steps=12))
    shared = distil(options(teacher, speech_pool, tmp_path / "shared", steps=12, cluster={"train_workers": 2}))
    one, two = (storage.read_json(Path(folder).parent / "distil.json")["history"] for folder in (alone, shared))
    assert two[-1]["loss"] == pytest.approx(one[-1]["loss"], rel=0.1)
    assert two[-1]["loss"] != one[-1]["loss"]


def test_a_student_starts_as_the_bottom_of_its_teacher_and_moves(
    teacher: str, speech_pool: str, tmp_path: Path
) -> None:
    start, learned = load_encoder(teacher).model.state_dict(), distil(options(teacher, speech_pool, tmp_path, layers=2))
    student = load_encoder(learned)
    assert student.num_layers == 2
    assert teacher_parameters(learned) == sum(p.numel() for p in load_encoder(teacher).parameters())
    assert teacher_parameters(teacher) is None
    far = distil(options(teacher, speech_pool, tmp_path / "far", layers=2, lr=1e-7))
    for name, weight in load_encoder(far).model.state_dict().items():
        torch.testing.assert_close(weight, start[name], atol=1e-3, rtol=1e-3)
    moved = {n for n, weight in student.model.state_dict().items() if not torch.allclose(weight, start[n], atol=1e-3)}
    assert any(name.startswith("conv1") for name in moved)
    assert any(name.startswith("layers.1") for name in moved)


def test_another_network_learns_from_its_own_weights(teacher: str, speech_pool: str, tmp_path: Path) -> None:
    learned = load_encoder(distil(options(teacher, speech_pool, tmp_path, student="seral-tiny-untrained", steps=2)))
    untrained = load_encoder("seral-tiny-untrained")
    assert learned.num_layers == untrained.num_layers
    before = untrained.model.state_dict()
    assert any(not torch.allclose(w, before[name], atol=1e-3) for name, w in learned.model.state_dict().items())


def test_what_cannot_be_learned_is_refused(speech_pool: str, teacher: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        network = Wav2Vec2Model(
            Wav2Vec2Config(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=32,
                conv_dim=(8, 8),
                conv_kernel=(400, 2),
                conv_stride=(160, 1),
                feat_extract_norm="layer",
                num_conv_pos_embedding_groups=4,
            )
        )
    save_encoder(wrap(network), tmp_path / "fast")
    with pytest.raises(TrainError, match="100 frames a second, the student 50"):
        distil(options(str(tmp_path / "fast"), speech_pool, tmp_path / "a", student="seral-tiny-untrained"))
    with pytest.raises(TrainError, match="expected 1 to 3 layers to keep, as many as there are, got 7"):
        distil(options(teacher, speech_pool, tmp_path / "b", layers=7))
    with pytest.raises(TrainError, match=r"has the hidden states 0\.\.3, not 9"):
        distil(options(teacher, speech_pool, tmp_path / "c", data={"states": [1, 9]}))
    with pytest.raises(OptionError, match="no corpus mars in"):
        distil(options(teacher, speech_pool, tmp_path / "d", corpora=["mars"]))
    with pytest.raises(OptionError, match="layers"):
        options(teacher, speech_pool, tmp_path, layers=0)


def test_the_teacher_sees_each_view_once_alone_and_never_the_noise(teacher: str, speech_pool: str) -> None:
    data = data_of(teacher, speech_pool, views=1, noisy=1.0)
    batch = next(data.plan())
    shard, ids = batch.shard, batch.ids
    wave_BS, length_B, states_LBTD, states_B = data.batch(shard, ids, np.random.default_rng(0))
    clean_S = torch.from_numpy(data.samples(View(shard, ids[0], 0)))
    assert length_B[0] == len(clean_S)
    assert not torch.equal(wave_BS[0, : len(clean_S)], clean_S)
    with torch.inference_mode():
        alone_LTD = data.teacher(clean_S[None], length_B[:1]).hidden_LBTD[1:3, 0]
    assert states_B.tolist() == data.teacher.frames(length_B).tolist()
    torch.testing.assert_close(states_LBTD[:, 0, : alone_LTD.shape[1]].float(), alone_LTD, atol=2e-2, rtol=2e-3)
    cached = data.cached_states[View(shard, ids[0], 0)]
    data.batch(shard, ids, np.random.default_rng(1))
    assert data.cached_states[View(shard, ids[0], 0)] is cached


@pytest.mark.parametrize("effect", ["noisy", "reverberant", "coded"])
def test_the_student_hears_worse_than_the_teacher(teacher: str, speech_pool: str, effect: str) -> None:
    plain = data_of(teacher, speech_pool, **(dict.fromkeys(("noisy", "reverberant", "coded"), 0.0)))
    worse = data_of(teacher, speech_pool, **(dict.fromkeys(("noisy", "reverberant", "coded"), 0.0) | {effect: 1.0}))
    batch = next(plain.plan())
    shard, ids = batch.shard, batch.ids
    one, other = (data.batch(shard, ids, np.random.default_rng(0)) for data in (plain, worse))
    assert one[1].tolist() == other[1].tolist()
    assert torch.equal(one[2], other[2])
    assert not torch.isclose(one[0], other[0], atol=1e-4).all(dim=1).any()


def test_without_numbered_views_nothing_is_kept(teacher: str, speech_pool: str) -> None:
    data = data_of(teacher, speech_pool, views=None)
    batch = next(data.plan())
    shard, ids = batch.shard, batch.ids
    one, two = (data.batch(shard, ids, np.random.default_rng(seed)) for seed in (0, 1))
    assert not data.cached_states
    assert one[1].tolist() != two[1].tolist()


def test_an_epoch_holds_every_clip_once_in_batches_within_the_limit(teacher: str, speech_pool: str) -> None:
    data = data_of(teacher, speech_pool, batch_s=8.0)
    heard_s = {name: length_s for rows in data.length_s.values() for name, length_s in rows.items()}
    read_ids: list[str] = []
    for batch in islice(data.plan(), 1000):
        ids = batch.ids
        # Lengths are jittered by 15 %: the limit holds for the jittered ones.
        assert max(heard_s[name] for name in ids) * len(ids) <= 8.0 * 1.7
        read_ids += ids
        if len(read_ids) == len(heard_s):
            break
    assert sorted(read_ids) == sorted(heard_s)


def test_shards_of_several_pools_are_told_apart(two_corpora: str, speech_pool: str) -> None:
    pools = [open_pool(uri) for uri in (two_corpora, speech_pool)]
    speech = Speech(parts=speech_of(pools))
    names = {name for rows in speech.duration_s.values() for name in rows}
    every = [set(ids) for _, ids in speech_of(pools)]
    assert names == every[0] | every[1]
    (_, acted), (_, nothing) = speech_of(pools, ["acted"])
    assert not nothing
    assert 0 < len(acted) < len(every[0])
    for shard, rows in speech.duration_s.items():
        name, length_s = next(iter(rows.items()))
        assert len(speech.clip(shard, name)) == pytest.approx(16_000 * length_s, abs=1)
    with pytest.raises(TrainError, match="none of 0 utterances to train on"):
        _ = replace(speech, parts=((pools[0], frozenset()),)).duration_s


def test_the_rate_climbs_and_falls_to_nothing(teacher: str, speech_pool: str, tmp_path: Path) -> None:
    plan = options(teacher, speech_pool, tmp_path, steps=100, warmup_steps=10, lr=2.0)
    rates = [learning_rate_at(step, plan) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert int(np.argmax(rates)) == 9
    assert rates[-1] == pytest.approx(0.02)
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))
