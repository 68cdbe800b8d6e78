"""Speakers' means: sums of all clips in one pass, shifts and moments beside those of the features themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from ser_models.moments import PooledMoments
from seral.errors import FeatureError
from seral.features import speakers as module
from seral.features.audio import extract_features
from seral.features.speakers import SHRINK, Centring, SpeakerSums, centrings, enrol, speaker_sums
from seral.features.store import FeatureStore
from seral.pool.shards import open_pool

pytestmark = pytest.mark.ray


def sums_of(pool_uri: str) -> tuple[SpeakerSums, FeatureStore, pa.Table, list[str]]:
    pool = open_pool(pool_uri)
    store = extract_features(pool, "seral-tiny")
    index = store.index()
    return speaker_sums(store, index, pool.metadata, index.names()), store, pool.metadata, list(index.names())


def corpora_of(metadata: pa.Table) -> dict[str, str]:
    return dict(zip(metadata["utterance_id"].to_pylist(), metadata["corpus"].to_pylist(), strict=True))


def by_hand(store: FeatureStore, metadata: pa.Table, ids: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voice, means and standard deviations of clips, in double precision."""
    rows = {row["utterance_id"]: row for row in metadata.to_pylist()}
    voice_N = np.array([f"{rows[name]['corpus']}/{rows[name]['speaker']}" for name in ids])
    mean_NLD, std_NLD, _ = store.read(store.index(), ids)
    return voice_N, mean_NLD.astype(np.float64), std_NLD.astype(np.float64)


def test_a_clip_loses_the_mean_of_its_speaker_by_its_number_of_clips(two_corpora: str) -> None:
    sums, store, metadata, ids = sums_of(two_corpora)
    train = ids[::2] + ids[1::4]
    voice_N, mean_NLD, std_NLD = by_hand(store, metadata, ids)
    before = PooledMoments.of(*(torch.from_numpy(part[np.isin(ids, train)]) for part in (mean_NLD, std_NLD)))
    centring = Centring.of(sums, train, before)
    some = ids[5::7][::-1]
    got = centring.shifts.centred(some, *store.read(store.index(), some)[:2])
    at = [ids.index(name) for name in some]
    for part, all_NLD, centre in zip(got, (mean_NLD, std_NLD), (before.mean, before.std), strict=True):
        for row, position in zip(part, at, strict=True):
            own_NLD = all_NLD[voice_N == voice_N[position]]
            share = len(own_NLD) / (len(own_NLD) + SHRINK)
            expected_LD = all_NLD[position] - share * (own_NLD.mean(0) - centre.mean.numpy())
            np.testing.assert_allclose(row, expected_LD, atol=0.02 * np.abs(all_NLD).max())
            assert not np.allclose(row, all_NLD[position], atol=1e-3)


def test_moments_of_whole_speakers_have_the_spread_of_their_centred_clips_and_the_means_of_before(
    two_corpora: str,
) -> None:
    sums, store, metadata, ids = sums_of(two_corpora)
    voice_N, mean_NLD, std_NLD = by_hand(store, metadata, ids)
    is_train_N = np.isin(voice_N, np.unique(voice_N)[::2])
    train = [name for name, own in zip(ids, is_train_N, strict=True) if own]
    before = PooledMoments.of(*(torch.from_numpy(part[is_train_N]) for part in (mean_NLD, std_NLD)))
    centring = Centring.of(sums, train, before)
    centred = centring.shifts.centred(train, *store.read(store.index(), train)[:2])
    expected = PooledMoments.of(*(torch.from_numpy(part) for part in centred))
    for name in ("mean", "std"):
        actual, oracle, plain = (getattr(part, name) for part in (centring.moments, expected, before))
        torch.testing.assert_close(actual.scale(), oracle.scale(), rtol=2e-2, atol=1e-4)
        torch.testing.assert_close(actual.mean, plain.mean)
        assert float(actual.scale().mean()) < float(plain.scale().mean())


def test_shifts_of_some_clips_are_those_of_all(two_corpora: str) -> None:
    sums, store, _, ids = sums_of(two_corpora)
    mean_LD, std_LD = torch.zeros(sums.mean_GLD.shape[1:]), torch.zeros(sums.std_GLD.shape[1:])
    shifts, some = sums.shifts(mean_LD, std_LD), ids[3::7]
    few, features = shifts.only(some), store.read(store.index(), some)[:2]
    assert len(few.mean_GLD) < len(shifts.mean_GLD)
    for part, own, centred in zip(features, few.of(some), shifts.centred(some, *features), strict=True):
        np.testing.assert_array_equal(part - own, centred)
    assert not any(part.any() for part in few.of(["nobody"]))


def test_clips_of_nobody_lose_the_mean_of_their_corpus_and_others_stay_as_they_are(two_corpora: str) -> None:
    pool = open_pool(two_corpora)
    store = extract_features(pool, "seral-tiny")
    index, metadata = store.index(), pool.metadata
    ids = list(index.names())
    unknown = set(ids[:10])
    column = [None if name in unknown else "a" for name in metadata["utterance_id"].to_pylist()]
    table = metadata.set_column(metadata.column_names.index("speaker"), "speaker", pa.array(column, pa.string()))
    sums = speaker_sums(store, index, table, ids[:-5])
    shifts = sums.shifts(torch.zeros(sums.mean_GLD.shape[1:]), torch.zeros(sums.std_GLD.shape[1:]))
    features = store.read(index, ids)[:2]
    centred_NLD = shifts.centred(ids, *features)[0]
    same_N = [bool((new == old).all()) for new, old in zip(centred_NLD, features[0], strict=True)]
    assert [name for name, same in zip(ids, same_N, strict=True) if same] == ids[-5:]
    corpus_of = corpora_of(table)
    own = [at for at, name in enumerate(ids[:-5]) if corpus_of[name] == corpus_of[ids[0]]]
    mean_LD = features[0][own].astype(np.float64).mean(0) * len(own) / (len(own) + SHRINK)
    np.testing.assert_allclose(centred_NLD[0], features[0][0] - mean_LD, atol=0.02 * np.abs(features[0]).max())


def test_means_of_corpora_are_those_of_all_their_clips(two_corpora: str) -> None:
    sums, store, metadata, ids = sums_of(two_corpora)
    corpora, corpus_of = sums.corpora(), corpora_of(metadata)
    mean_NLD = store.read(store.index(), ids)[0].astype(np.float64)
    row_N = corpora.speakers.rows(ids)
    assert corpora.speakers.rows(["nobody"]).tolist() == [2]
    for row, name in enumerate(("acted", "natural")):
        own_N = np.array([corpus_of[name_] == name for name_ in ids])
        assert set(row_N[own_N].tolist()) == {row}
        assert corpora.count_G[row] == own_N.sum()
        np.testing.assert_allclose(corpora.mean_GLD[row], mean_NLD[own_N].sum(0), rtol=1e-3, atol=1e-2)
    assert (sums.voices, corpora.voices) == (12, 2)


@pytest.mark.parametrize(
    ("normalise", "of", "expected"),
    [
        ("none", "both", []),
        ("corpus", "both", ["corpus"]),
        ("speaker", "both", ["speaker"]),
        ("auto", "both", ["corpus", "speaker"]),
        ("auto", "acted", ["speaker"]),
        ("corpus", "acted", ["corpus"]),
    ],
)
def test_auto_has_the_means_of_corpora_where_there_are_several(
    two_corpora: str, normalise: str, of: str, expected: list[str]
) -> None:
    sums, store, metadata, ids = sums_of(two_corpora)
    corpus_of = corpora_of(metadata)
    train = [name for name in ids if of == "both" or corpus_of[name] == of]
    mean_NLD, std_NLD = (torch.from_numpy(part) for part in store.read(store.index(), train)[:2])
    assert list(centrings(sums, train, PooledMoments.of(mean_NLD, std_NLD), normalise)) == expected


def test_speakers_that_nobody_knows_are_told() -> None:
    sums, _ = enrol(["a"], ["x"], *np.zeros((2, 1, 2, 3), np.float16))
    unknown = replace(sums, count_G=np.zeros(2, np.int64), corpus_G=np.array([0, -1], np.int32))
    with pytest.raises(FeatureError, match="no clip has a speaker"):
        centrings(unknown, ["a"], PooledMoments.of(*torch.zeros(2, 2, 2, 3)), "speaker")


def test_more_speakers_than_fit_the_memory_are_refused(two_corpora: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(FeatureError, match=r"means of 12 speakers take .* set finetune.head.normalise=none"):
        sums_of(two_corpora)


def test_enrolment_is_of_ten_clips_or_half_and_follows_from_the_ids() -> None:
    rng = np.random.default_rng(0)
    ids = [f"u{number}" for number in range(40)]
    voices = ["a"] * 30 + ["b"] * 9 + ["c"]
    mean_NLD, std_NLD = (rng.normal(size=(40, 2, 3)).astype(np.float16) for _ in range(2))
    sums, enrolled_N = enrol(ids, voices, mean_NLD, std_NLD)
    assert [int(enrolled_N[np.array(voices) == name].sum()) for name in "abc"] == [10, 4, 0]
    for row, name in enumerate("ab"):
        own_N = enrolled_N & (np.array(voices) == name)
        np.testing.assert_allclose(sums.mean_GLD[row], mean_NLD[own_N].astype(np.float64).sum(0), rtol=1e-3)
    order = rng.permutation(40)
    _, again_N = enrol([ids[at] for at in order], [voices[at] for at in order], mean_NLD[order], std_NLD[order])
    assert (again_N == enrolled_N[order]).all()
    shifts = sums.shifts(torch.zeros(2, 3), torch.zeros(2, 3))
    alone = shifts.centred(["u39"], mean_NLD[39:], std_NLD[39:])
    assert (alone[0] == mean_NLD[39:]).all(), "nobody was enrolled for c"
