"""Surprisal of an encoder by a clip: its pretraining loss, frame by frame, summed over the kinds of sound.

Yuan et al. 2020, ALPS, arXiv 2010.09535: clips are told apart by the losses of a self-supervised model, before any
label is there. Differs from the paper: positions in a sentence mean something in text and nothing between two clips of
speech, so losses are summed over the units that the objective predicts (clusters, codewords) instead of being laid side
by side; every frame is hidden once, instead of a random 15 %.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ser_models.encoders.encoder import check_clips
from ser_models.objectives.objective import Objective

# B clips · S samples · T frames · M hidden frames · G groups of units · K units

PASSES = 4
"""In how many parts the frames are hidden, one part at a time."""
SPAN = 10
"""Frames of a hidden span, in clips long enough."""


@torch.no_grad()
def surprisal(objective: Objective, wave_BS: Tensor, length_B: Tensor, rng: np.random.Generator) -> Tensor:
    """Share of the loss that falls on each unit, scaled to length 1, (B, S), (B,) -> (B, K).

    In evaluation mode; `rng` draws the wrong answers of contrastive objectives. A clip of a single frame gives zeros.
    """
    check_clips(wave_BS, length_B, objective.encoder.minimal_samples)
    training = objective.training
    objective.eval()
    frames_B = objective.encoder.frames(length_B)
    total_BK = torch.zeros(len(length_B), objective.units, device=wave_BS.device)
    all_frames = int(objective.encoder.frames(torch.tensor(wave_BS.shape[1])))
    for hidden_BT in complementary_spans(frames_B, all_frames):
        if not hidden_BT.any():
            continue
        loss_M, unit_MG = objective.frame_losses(wave_BS, length_B, hidden_BT, rng)
        clip_M = torch.nonzero(hidden_BT)[:, 0]
        for unit_M in unit_MG.unbind(1):
            total_BK.index_put_((clip_M, unit_M), loss_M.float(), accumulate=True)
    objective.train(training)
    return functional.normalize(total_BK, dim=1)


def complementary_spans(frames_B: Tensor, all_frames: int) -> list[Tensor]:
    """PASSES masks (B, T) that together hide every frame of a clip once, in spans; a single frame is never hidden.

    Spans are shorter in clips that would be hidden whole.
    """
    position_T = torch.arange(all_frames, device=frames_B.device)
    span_B = (frames_B // PASSES).clamp(1, SPAN)
    number_BT = position_T // span_B[:, None] % PASSES
    real_BT = (position_T < frames_B[:, None]) & (frames_B[:, None] > 1)
    return [real_BT & (number_BT == turn) for turn in range(PASSES)]
