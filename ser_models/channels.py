"""From the channels of a recording to one: which of them is the voice."""

# T frames of the source · C channels · F frequency bins; G blocks of frames, O octaves
from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Channel = Literal["mean", "left", "right", "loudest", "auto"]
"""Channel of a recording that becomes the clip; a recording of one channel is taken as it is."""
MOST_LOSS_DB = 1.0
"""`auto` takes the mean of the channels where it loses less than this to the best of them."""
BLOCK_FRAMES = 1024
OCTAVES_HZ = (250, 500, 1000, 2000, 4000)
"""Edges of the octaves by which channels are compared: speech without hum, and each octave as much as the next."""
FAINT_DB = 40.0
"""Octaves so much fainter than the strongest one are not compared."""
LARGEST_LOSS_DB = 60.0
STEADY_DB = 3.0
"""A sound whose louder half is so little above its quietest tenth has no pauses, and no background to take away."""
STEADY_SHARE = 0.01
"""So much of a channel's power counts though it is steady: the louder one of two hums."""


def mix_down(
    frames_TC: NDArray[np.float32], rate_hz: int, channel: Channel = "auto", *, most_loss_db: float = MOST_LOSS_DB
) -> NDArray[np.float32]:
    """One channel of a recording, (T, C) -> (T,).

    `auto` is the mean where that loses less than `most_loss_db` to the best channel (see `mean_loss_db`), else the best
    channel: the mean of two microphones is a comb filter, and a channel without the voice only adds its noise.
    `loudest` has the greatest power; `left` and `right` are the first and the second.
    """
    if frames_TC.shape[1] == 1:
        return frames_TC[:, 0]
    if channel == "auto":
        best, loss_db = mean_loss_db(frames_TC, rate_hz)
        chosen = None if loss_db < most_loss_db else best
    else:
        loudest = int(np.argmax(np.einsum("tc,tc->c", frames_TC, frames_TC)))
        chosen = {"mean": None, "left": 0, "right": 1, "loudest": loudest}[channel]
    if chosen is None:
        return np.asarray(frames_TC.mean(axis=1), dtype=np.float32)
    return np.ascontiguousarray(frames_TC[:, chosen])


def mean_loss_db(frames_TC: NDArray[np.float32], rate_hz: int) -> tuple[int, float]:
    """The best channel, and what the mean of all loses of its level, in dB, every octave of speech alike; (T, C).

    The best channel has the most power above its own background: the voice, and not the loudest hiss. The mean
    of equal channels loses 0 dB, that of two unrelated ones of equal power 3 dB, of one beside a silent one 6 dB.
    """
    signals = [*frames_TC.T, frames_TC.mean(axis=1)]
    octave_CGO = np.stack([_octave_power(signal_T, rate_hz) for signal_T in signals])
    total_CG = octave_CGO[:-1].sum(axis=2)
    best = int(
        np.argmax([_voice(total_G, total_G) * (STEADY_SHARE if _is_steady(total_G) else 1) for total_G in total_CG])
    )
    voice_O, mean_O = (_voice(octave_CGO[row], total_CG[best]) for row in (best, -1))
    compared_O = (voice_O > voice_O.max() * 10 ** (-FAINT_DB / 10)) & (voice_O > 0)
    if not compared_O.any():
        return best, 0.0
    share_O = np.clip(mean_O[compared_O] / voice_O[compared_O], 0, 1)
    return best, float(-10 * np.log10(max(share_O.mean(), 10 ** (-LARGEST_LOSS_DB / 10))))


def _voice(power_GO: NDArray[np.float64], by_G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power in the louder half of the blocks less that in the quietest tenth, (G, O) -> (O,); all of a steady sound.

    Which blocks these are `by_G` says, so that what goes on beside the voice is in both alike and drops out.
    """
    quiet_G, loud_G = _quiet_and_loud(by_G)
    loud_O = power_GO[loud_G].mean(axis=0)
    return np.asarray(loud_O if _is_steady(by_G) else loud_O - power_GO[quiet_G].mean(axis=0))


def _is_steady(power_G: NDArray[np.float64]) -> bool:
    quiet_G, loud_G = _quiet_and_loud(power_G)
    return bool(power_G[loud_G].mean() < 10 ** (STEADY_DB / 10) * power_G[quiet_G].mean())


def _quiet_and_loud(power_G: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The quietest tenth and the louder half of the blocks."""
    order_G = np.argsort(power_G)
    return order_G[: max(1, len(order_G) // 10)], order_G[len(order_G) // 2 :]


def _octave_power(signal_T: NDArray[np.float32], rate_hz: int) -> NDArray[np.float64]:
    """Power of one channel in every block and octave, (T,) -> (G, O); a channel shorter than a block is repeated."""
    blocks = max(1, len(signal_T) // BLOCK_FRAMES)
    block_GT = np.resize(signal_T, (blocks, BLOCK_FRAMES))
    bins_GF = np.fft.rfft(block_GT * np.hanning(BLOCK_FRAMES).astype(np.float32), axis=1)
    power_GF = bins_GF.real.astype(np.float64) ** 2 + bins_GF.imag.astype(np.float64) ** 2
    octave_F = np.digitize(np.fft.rfftfreq(BLOCK_FRAMES, 1 / rate_hz), OCTAVES_HZ)
    return np.stack([power_GF[:, octave_F == number].sum(axis=1) for number in range(1, len(OCTAVES_HZ))], axis=1)
