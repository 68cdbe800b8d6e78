"""Pretraining through Ray Train: what is heard, that it repeats and resumes, and what it warns of."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperConfig, WhisperModel

from ser_models.encoders import fingerprint, load_encoder, save_encoder, wrap
from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import OptionError, StateError, TrainError
from seral.options import parse
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import make_folds
from seral.pretraining.crops import MAX_HELD_OUT, CropPlan
from seral.pretraining.masked_prediction import TaptSpec, collapse_warning, crop_plan
from seral.pretraining.options import TaptJobOptions, TaptRunOptions
from seral.pretraining.plans import planned_steps
from seral.pretraining.surprisal import open_objective
from seral.pretraining.tapt import adapt_encoder, pretrain

SMALL = {"steps": 3, "batch_s": 10.0, "warmup_steps": 1, "checkpoint_every": 1}
NEWER_OPTIONS = ("objective", "settings")
"""Options that pretrainings of former releases did not note."""
WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
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
def tiny_whisper(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("whisper")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_encoder(wrap(WhisperModel(WhisperConfig(**WHISPER)).get_encoder()), folder)
    return str(folder)


def first_ids(pool: Pool, count: int) -> list[str]:
    names: list[str] = pool.metadata["utterance_id"].to_pylist()
    return names[:count]


def adapt(
    pool: Pool, folder: Path, values: dict[str, Any], *, encoder: str = "seral-tiny", clips: int = 12, **cluster: Any
) -> dict[str, Any]:
    """Adapt to the first clips of the pool; what tapt.json says."""
    options, on = parse(TaptRunOptions, SMALL | values), ClusterOptions(**cluster)
    adapt_encoder(pool, first_ids(pool, clips), encoder, str(folder), options, on)
    facts: dict[str, Any] = storage.read_json(folder / "tapt.json")
    return facts


def audio_of(pool: Pool, ids: list[str], **values: Any) -> CropPlan:
    options = parse(TaptRunOptions, SMALL | values)
    spec = TaptSpec(pool=pool, ids=tuple(ids), encoder="seral-tiny", options=options, on=ClusterOptions(), state="none")
    return crop_plan(spec, load_encoder("seral-tiny"))


def test_adapts_once_and_reproducibly(speech_pool: str, tmp_path: Path) -> None:
    pool = open_pool(speech_pool)
    first, second = (adapt(pool, tmp_path / name, {}) for name in ("a", "b"))
    assert first == second
    encoders = [fingerprint(load_encoder(tmp_path / name / "encoder")) for name in ("a", "b")]
    assert encoders[0] == encoders[1] != fingerprint(load_encoder("seral-tiny"))
    before = (tmp_path / "a" / "encoder" / "model.safetensors").stat().st_mtime_ns
    adapt(pool, tmp_path / "a", {})
    assert (tmp_path / "a" / "encoder" / "model.safetensors").stat().st_mtime_ns == before
    assert [row["step"] for row in first["held_out"]] == [0, 3]
    assert (tmp_path / "a" / "tapt.png").read_bytes().startswith(b"\x89PNG")


def test_hears_its_ids_only_and_never_trains_on_those_held_out(speech_pool: str) -> None:
    pool = open_pool(speech_pool)
    ids = first_ids(pool, 40)
    audio = audio_of(pool, ids, held_out=0.1)
    long_enough = {name for rows in audio.speech.duration_s.values() for name in rows}
    trained = {name for batch in islice(audio.plan(), 200) for name in batch.ids}
    assert trained | set(audio.held_out) == long_enough
    assert long_enough <= set(ids)
    assert not trained & set(audio.held_out)
    assert len(audio.held_out) == round(0.1 * len(long_enough))
    held_out = {name for clips in audio.held_out_batches() for name, _ in clips}
    assert held_out == set(audio.held_out)
    clustered = {name for clips in audio.sample(1e6, number=0) for name, _ in clips}
    assert clustered == trained
    few = sum(len(samples) / 16000 for clips in audio.sample(8.0, number=0) for _, samples in clips)
    assert 8.0 <= few <= 18.0


def test_some_but_not_too_many_are_held_out(speech_pool: str) -> None:
    pool = open_pool(speech_pool)
    assert len(audio_of(pool, first_ids(pool, 5)).held_out) == 1
    assert audio_of(pool, first_ids(pool, 5), held_out=0.0).held_out == ()
    assert len(audio_of(pool, first_ids(pool, 96), held_out=0.99).held_out) == MAX_HELD_OUT
    with pytest.raises(TrainError, match="at least 2 utterances to hold one out, got 1; or set held_out=0"):
        _ = audio_of(pool, first_ids(pool, 1)).held_out
    with pytest.raises(TrainError, match="none of 1 utterances to train on is in the pool"):
        _ = audio_of(pool, ["absent"]).held_out


@pytest.mark.corpora
def test_whisper_is_adapted_through_lora_and_comes_back_plain(speech_pool: str, tmp_path: Path, shared: Path) -> None:
    whisper = str(shared / "encoders" / "whisper-tiny-en")
    facts = adapt(
        open_pool(speech_pool), tmp_path, {"adapter": "lora", "clusters": 8, "steps": 2}, encoder=whisper, clips=6
    )
    adapted, plain = load_encoder(tmp_path / "encoder"), load_encoder(whisper)
    assert not adapted.adapters
    now, before = adapted.model.state_dict(), plain.model.state_dict()
    changed = {name for name in before if not torch.equal(now[name], before[name])}
    linears = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    assert {name.rsplit(".", 2)[1] for name in changed} == set(linears)
    assert len(changed) == len(linears) * plain.num_layers
    assert facts["held_out"][0]["target_perplexity"] > 1


RESUMED = {"steps": 16, "clusters": 8, "refresh_every": 6, "eval_every": 8, "checkpoint_every": 4, "lr": 1e-3}


def test_an_interrupted_training_goes_on_to_the_same_weights(
    speech_pool: str, tmp_path: Path, tiny_whisper: str
) -> None:
    pool, lines = open_pool(speech_pool), []

    def stop_at_step_8(message: str) -> None:
        lines.append(message)
        if message.startswith("TAPT step 8/16, held out") and "TAPT goes on from step 4" not in lines:
            raise KeyboardInterrupt

    whole = adapt(pool, tmp_path / "whole", RESUMED | {"adapter": "lora"}, encoder=tiny_whisper)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seral.pretraining.trainer.say", stop_at_step_8)
        with pytest.raises(KeyboardInterrupt):
            adapt(pool, tmp_path / "cut", RESUMED | {"adapter": "lora"}, encoder=tiny_whisper)
        cut = adapt(pool, tmp_path / "cut", RESUMED | {"adapter": "lora"}, encoder=tiny_whisper)
    assert "TAPT goes on from step 4" in lines
    assert cut == whole
    one, two = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / "cut" / ".train").exists()


@pytest.mark.slow
def test_a_killed_worker_is_restored_and_ends_in_the_same_weights(
    speech_pool: str,
    tmp_path: Path,
    tiny_whisper: str,
    kill_ray_train_worker: Callable[[Path], AbstractContextManager[list[int]]],
) -> None:
    pool = open_pool(speech_pool)
    whole = adapt(pool, tmp_path / "whole", RESUMED, encoder=tiny_whisper)
    with kill_ray_train_worker(tmp_path / "cut" / ".train") as killed:
        cut = adapt(pool, tmp_path / "cut", RESUMED, encoder=tiny_whisper, train_workers=1, max_failures=1)
    assert killed, "training ended before a worker could be killed"
    assert cut == whole
    one, two = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_two_workers_share_the_batches_and_the_clusters(speech_pool: str, tmp_path: Path, tiny_whisper: str) -> None:
    pool, values = open_pool(speech_pool), RESUMED | {"held_out": 0.2, "batch_s": 40.0, "refresh_every": 12}
    alone = adapt(pool, tmp_path / "alone", values, encoder=tiny_whisper)
    shared = adapt(pool, tmp_path / "shared", values, encoder=tiny_whisper, train_workers=2)
    assert shared["held_out"][0] == alone["held_out"][0], "the clusters are the same"
    masked = [facts["history"][0]["masked"] for facts in (alone, shared)]
    assert 0 < masked[1] < masked[0], "each worker hears its part of a batch"
    losses = [[row["loss"] for row in facts["held_out"]] for facts in (alone, shared)]
    assert losses[1][-1] == pytest.approx(losses[0][-1], rel=0.1)
    assert losses[1][-1] != losses[0][-1]


def test_shares_of_workers_make_up_the_batch(speech_pool: str) -> None:
    pool = open_pool(speech_pool)
    audio = audio_of(pool, first_ids(pool, 12))
    whole, *parts = (
        [batch.ids for _, batch in planned_steps(audio.plan(), 0, audio.settings.steps, rank=rank, world=world)]
        for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    assert any(len(ids) > 1 for ids in whole)
    for ids, mine, yours in zip(whole, *parts, strict=True):
        assert {*mine, *yours} == set(ids)
        assert len(mine) + len(yours) == max(2, len(ids))


def test_a_collapse_is_said_while_it_runs(
    speech_pool: str, tmp_path: Path, tiny_whisper: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a rate a thousand times too high every frame gets the same prediction."""
    values = {"steps": 12, "clusters": 20, "eval_every": 4, "lr": 0.3, "held_out": 0.5, "mask": "wav2vec2"}
    facts = adapt(open_pool(speech_pool), tmp_path, values, encoder=tiny_whisper)
    assert facts["warnings"]
    assert facts["warnings"][-1]["warning"].startswith("predictions collapse: perplexity 1.")
    assert "predictions collapse" in capsys.readouterr().err


def test_collapses_are_told_apart() -> None:
    first = {"perplexity": 80.0}
    assert collapse_warning({"perplexity": 21.0}, first, 100) is None
    assert collapse_warning({"perplexity": 19.0}, first, 100) == (
        "the codebook collapses: perplexity 19.0, 80.0 at the start"
    )
    scores = {"perplexity": 5.0, "target_perplexity": 40.0, "masked": 500.0}
    assert collapse_warning(scores, first, 100) is None
    assert "predictions collapse: perplexity 3.9" in str(collapse_warning(scores | {"perplexity": 3.9}, first, 100))
    same = collapse_warning(scores | {"target_perplexity": 9.0}, first, 100)
    assert same == "nearly all targets are the same: perplexity 9.0 of 100 units; cluster another layer"
    assert collapse_warning(scores | {"target_perplexity": 9.0, "masked": 20.0}, first, 100) is None


def test_a_loss_that_is_not_finite_names_the_utterances(speech_pool: str, tmp_path: Path, tiny_whisper: str) -> None:
    with pytest.raises(TrainError, match=r"finite pretraining loss, got (nan|inf) at step \d; .*demo-"):
        adapt(open_pool(speech_pool), tmp_path, {"clusters": 8, "lr": 1e30}, encoder=tiny_whisper)


def test_an_objective_is_chosen_by_name(speech_pool: str, tmp_path: Path) -> None:
    pool, values = open_pool(speech_pool), {"clusters": 8, "steps": 2, "warmup_steps": 1}
    facts = adapt(pool, tmp_path / "clusters", {"objective": "masked_clusters", **values})
    assert "target_perplexity" in facts["held_out"][0]
    named, default = (
        adapt(pool, tmp_path / name, {"steps": 2, **chosen})
        for name, chosen in {"named": {"objective": "contrastive"}, "default": {}}.items()
    )
    own = {"options": None, "sha256": None}
    assert {**named, **own} == {**default, **own}


def test_what_does_not_fit_is_refused(speech_pool: str, tmp_path: Path, tiny_whisper: str) -> None:
    with pytest.raises(OptionError, match=r"take 50 steps of 10|warm-up and flat part"):
        parse(TaptRunOptions, {"steps": 10, "warmup_steps": 50})
    with pytest.raises(OptionError, match="'bottleneck' cannot be merged into the encoder"):
        parse(TaptRunOptions, {"adapter": "bottleneck"})
    with pytest.raises(OptionError, match=r"unknown option 'distractor' of contrastive; known here: .*distractors"):
        parse(TaptRunOptions, {"objective": "contrastive", "settings": {"contrastive": {"distractor": 3}}})
    with pytest.raises(OptionError, match=r"steps is an option of its own: set steps, not settings.contrastive.steps"):
        parse(TaptRunOptions, {"objective": "contrastive", "settings": {"contrastive": {"steps": 3}}})
    with pytest.raises(OptionError, match="settings of 'lora', which is neither the objective nor its adapter"):
        parse(TaptRunOptions, {"settings": {"lora": {"rank": 3}}})
    with pytest.raises(OptionError, match="no objective 'magic' for pretraining; known: contrastive, masked_clusters"):
        parse(TaptRunOptions, {"objective": "magic"})
    with pytest.raises(OptionError, match=r"'distillation' for pretraining \(seral distil makes small encoders\)"):
        parse(TaptRunOptions, {"objective": "distillation"})
    with pytest.raises(OptionError, match="local_attributes trains the adapter wap, got 'lora'"):
        parse(TaptRunOptions, {"objective": "local_attributes", "adapter": "lora"})
    pool = open_pool(speech_pool)
    with pytest.raises(
        OptionError,
        match="'contrastive' does not fit encoders of whisper; these do: masked_clusters, local_attributes",
    ):
        adapt(pool, tmp_path, {"objective": "contrastive"}, encoder=tiny_whisper)
    with pytest.raises(TrainError, match="refresh_every makes clusters anew; wav2vec2's objective has none"):
        adapt(pool, tmp_path, {"refresh_every": 2})
    with pytest.raises(TrainError, match=r"expected at least 100000 frames for 100000 clusters, got \d+"):
        adapt(pool, tmp_path, {"clusters": 100_000}, encoder=tiny_whisper)


def test_the_job_hears_the_training_part_of_a_fold(speech_pool: str, tmp_path: Path, tiny_whisper: str) -> None:
    values = {
        "pool": speech_pool,
        "run": str(tmp_path / "out"),
        "encoder": tiny_whisper,
        "split": {"scheme": "k-fold", "k": 3},
        "fold": 1,
        "tapt": SMALL | {"steps": 2, "clusters": 8},
        "cluster": {"train_workers": 0},
    }
    options = parse(TaptJobOptions, values)
    folder = pretrain(options)
    facts = storage.read_json(tmp_path / "out" / "tapt.json")
    assert facts["utterances"] == len(make_folds(open_pool(speech_pool).metadata, options.split)[1].train)
    assert load_encoder(folder).family == "whisper"
    assert pretrain(options) == folder
    with pytest.raises(StateError, match=r"other options \(fold: was 1, now None\); give `run` another folder"):
        pretrain(parse(TaptJobOptions, values | {"fold": None}))
    elsewhere = {"run": str(tmp_path / "other")}
    with pytest.raises(OptionError, match=r"fold 3 does not exist: the split gives 0\.\.2"):
        pretrain(parse(TaptJobOptions, values | elsewhere | {"fold": 3}))
    with pytest.raises(OptionError, match="no corpus nothing in"):
        pretrain(parse(TaptJobOptions, values | elsewhere | {"corpora": ["nothing"]}))


def test_a_pretraining_of_before_objectives_were_named_is_read_as_it_was(
    speech_pool: str, tmp_path: Path, tiny_whisper: str
) -> None:
    adapt(open_pool(speech_pool), tmp_path, {"clusters": 8}, encoder=tiny_whisper)
    before = open_objective(str(tmp_path)).state_dict()
    record = storage.read_json(tmp_path / "tapt.json")
    record["options"] = {name: record["options"][name] for name in record["options"] if name not in NEWER_OPTIONS}
    (tmp_path / "tapt.json").write_text(json.dumps(record))
    after = open_objective(str(tmp_path)).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    named = record | {"options": record["options"] | {"objective": "local_attributes"}}
    (tmp_path / "tapt.json").write_text(json.dumps(named))
    with pytest.raises(StateError, match="pretrained with local_attributes, which has no loss of clips"):
        open_objective(str(tmp_path))
    (tmp_path / "tapt.json").write_text(json.dumps(record))
    (tmp_path / "objective.safetensors").unlink()
    with pytest.raises(StateError, match="holds an encoder without its pretraining objective"):
        open_objective(str(tmp_path))
