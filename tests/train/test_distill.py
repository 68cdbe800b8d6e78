"""Distillation on a small made-up pool, with a tiny teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import Wav2Vec2Config, Wav2Vec2Model, WhisperConfig, WhisperModel

from ser_models.encoders import load_encoder, save_encoder, wrap
from seral import storage
from seral.errors import TrainError
from seral.options import parse
from seral.pool.decode import encode_flac
from seral.pool.shards import FORMAT, ID_COLUMNS, MANIFEST, pool_hash
from seral.schema import UTTERANCE
from seral.train.distill import DistilOptions, distil, learning_rate_at
from seral.train.lesson import Lesson, LessonOptions, read_clips

Speech = Callable[[float, int], NDArray[np.float32]]
TEACHER = {
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


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("teacher")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_encoder(wrap(WhisperModel(WhisperConfig(**TEACHER)).get_encoder()), folder)
    return str(folder)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, speech: Speech) -> str:
    """Eight clips of 0.4 to 1.1 s, the last one a duplicate; half of corpus `a`, half of corpus `b`."""
    folder = tmp_path_factory.mktemp("pool")
    rows = [
        {
            "utterance_id": f"clip-{number}",
            "audio": encode_flac(speech(0.4 + 0.1 * number, number)),
            "duration_s": 0.4 + 0.1 * number,
            "corpus": "ab"[number % 2],
            "duplicate_of": "clip-0" if number == 7 else None,
        }
        for number in range(8)
    ]
    storage.write_table(folder / "utterances" / "one.parquet", pa.Table.from_pylist(rows, UTTERANCE))
    data = (folder / "utterances" / "one.parquet").read_bytes()
    entry = {"rows": 8, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    ids = storage.read_table(folder / "utterances" / "one.parquet", ID_COLUMNS)
    manifest = {"format": FORMAT, "revision": 1, "shards": {"one": entry}, "pool_hash": pool_hash(ids)}
    storage.write_json(folder / MANIFEST, manifest)
    return str(folder)


def options(teacher: str, pool: str, out: Path, **changes: object) -> DistilOptions:
    lesson = {"states": [1, 2], "batch_s": 2.0, "versions": 2}
    values = {"teacher": teacher, "pools": [pool], "noise": pool, "out": str(out), "steps": 4, "warmup_steps": 1}
    return parse(DistilOptions, {**values, "lesson": lesson, **changes})


def test_a_stopped_run_goes_on_to_the_same_weights(teacher: str, pool: str, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    whole = distil(options(teacher, pool, tmp_path / "whole", save_every=2))
    first = options(teacher, pool, tmp_path / "parts", save_every=2)
    state = tmp_path / "parts" / "state.pt"
    steps = []

    def stop_half_way(message: str) -> None:
        steps.append(message)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("seral.train.distill.say", stop_half_way)
        with pytest.raises(KeyboardInterrupt):
            distil(first)
    assert torch.load(state, weights_only=True)["step"] == 2
    parts = distil(first)
    torch.set_num_threads(threads)

    one, two = (load_file(Path(folder) / "model.safetensors") for folder in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert {weight.dtype for weight in one.values()} == {torch.float16}
    learned = load_encoder(whole).model.state_dict()
    untrained = load_encoder("seral-tiny-untrained").model.state_dict()
    moved = {name for name, weight in learned.items() if not torch.allclose(weight, untrained[name], atol=1e-3)}
    assert any("feature_extractor" in name for name in moved)
    assert any("layers.3" in name for name in moved)


def test_a_teacher_with_another_frame_rate_is_refused(pool: str, tmp_path: Path) -> None:
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
    save_encoder(wrap(network), tmp_path / "teacher")
    with pytest.raises(TrainError, match="100 frames a second, the student 50"):
        distil(options(str(tmp_path / "teacher"), pool, tmp_path))


def test_clips_are_chosen_by_corpus_and_duplicates_left_out(pool: str) -> None:
    assert len(read_clips([pool])[0]) == 7
    assert read_clips([pool], ["b"])[1] == pytest.approx([0.5, 0.7, 0.9])
    with pytest.raises(TrainError, match="no utterance of c in"):
        read_clips([pool], ["c"])


def test_the_teacher_hears_each_version_once_and_never_the_noise(teacher: str, pool: str) -> None:
    clips, length_N = read_clips([pool])
    noises = [np.ones(1000, np.float32)]
    lesson = Lesson(
        clips=clips,
        length_N=length_N,
        noises=noises,
        teacher=load_encoder(teacher),
        options=LessonOptions(states=(1, 2), versions=1, noisy=1.0),
        seed=3,
    )
    wave_BS, length_B, states_LBTD, states_B = lesson.batch([4, 2], np.random.default_rng(0))
    clean_S = torch.from_numpy(lesson.hear(4, 0))
    assert length_B.tolist() == [len(clean_S), len(lesson.hear(2, 0))]
    assert not torch.equal(wave_BS[0, : len(clean_S)], clean_S)
    alone_LTD = lesson.teacher(clean_S[None], length_B[:1]).hidden_LBTD[1:, 0]
    assert states_B.tolist() == lesson.teacher.frames(length_B).tolist()
    torch.testing.assert_close(states_LBTD[:, 0, : alone_LTD.shape[1]].float(), alone_LTD, atol=2e-2, rtol=2e-3)
    kept = lesson.states(4, 0)
    assert lesson.states(4, 0) is kept


def test_an_epoch_holds_every_clip_once_in_batches_within_the_limit(teacher: str, pool: str) -> None:
    clips, length_N = read_clips([pool])
    lesson = Lesson(
        clips=clips,
        length_N=length_N,
        noises=[],
        teacher=load_encoder(teacher),
        options=LessonOptions(batch_s=3.0),
        seed=0,
    )
    seen: list[int] = []
    for batch in islice(lesson.plan(), 20):
        # Lengths are jittered by 15 %: the limit holds for the jittered ones.
        assert max(length_N[row] for row in batch) * len(batch) <= 3.0 * 1.7
        seen += batch
        if len(seen) == len(clips):
            break
    assert sorted(seen) == list(range(len(clips)))


def test_the_rate_climbs_and_falls_to_nothing(teacher: str, pool: str, tmp_path: Path) -> None:
    plan = options(teacher, pool, tmp_path, steps=100, warmup_steps=10, lr=2.0)
    rates = [learning_rate_at(step, plan) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert int(np.argmax(rates)) == 9
    assert rates[-1] == pytest.approx(0.02)
    assert all(later <= earlier for earlier, later in pairwise(rates[9:]))
