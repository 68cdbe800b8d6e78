"""Span masks and distractors: shares, bounds and independence of padding."""

from __future__ import annotations

import numpy as np
import pytest

from ser_models.objectives.masks import MASKS, sample_distractors, span_mask


def test_mask_shares_of_a_clip_of_four_and_a_half_seconds() -> None:
    rng = np.random.default_rng(0)
    after = np.array([span_mask([224], MASKS["after"], rng).mean() for _ in range(300)])
    wav2vec2 = np.array([span_mask([224], MASKS["wav2vec2"], rng).mean() for _ in range(300)])
    assert after.max() <= 0.09
    assert after.min() > 0.04
    assert wav2vec2.mean() == pytest.approx(0.49, abs=0.02)


@pytest.mark.parametrize("preset", sorted(MASKS))
def test_padding_is_never_masked_and_a_frame_stays_visible(preset: str) -> None:
    frames = [224, 50, 21, 11, 10, 3, 1]
    rng = np.random.default_rng(1)
    for _ in range(100):
        mask_BT = span_mask(frames, MASKS[preset], rng)
        for row, count in zip(mask_BT, frames, strict=True):
            assert not row[count:].any()
            assert not row[:count].all()
        assert mask_BT[:4].any(1).all()
        assert not mask_BT[4:].any()


def test_a_clips_mask_does_not_depend_on_the_padding_after_it() -> None:
    alone = span_mask([40], MASKS["wav2vec2"], np.random.default_rng(2))
    padded = span_mask([40, 200], MASKS["wav2vec2"], np.random.default_rng(2))
    np.testing.assert_array_equal(padded[0, :40], alone[0])


def test_distractors_are_other_real_frames_drawn_evenly() -> None:
    drawn = sample_distractors(np.array([0, 3, 6]), 7, 6000, np.random.default_rng(0))
    for own, row in zip([0, 3, 6], drawn, strict=True):
        counts = np.bincount(row, minlength=7)
        assert counts[own] == 0
        assert len(counts) == 7
        np.testing.assert_allclose(np.delete(counts, own), 1000, atol=120)
