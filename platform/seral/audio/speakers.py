"""Speakers of a recording by the voices of its windows: how many there are, who speaks when, and who is who elsewhere.

Voices are compared within a recording: each feature less its mean, by its spread, so that the room and the line drop
out. The number of speakers is the largest gap among the eigenvalues of the graph of similar windows (von Luxburg 2007,
A tutorial on spectral clustering, section 8.3); k-means finds them, and every frame is the speaker's whose centre the
windows over it are nearest to.
"""

# N clips, the windows · T frames of 10 ms · D features · K clusters, the speakers · P pairs, a speaker in a recording
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.cluster import KMeans

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

MOST_WINDOWS = 1_500
"""Of a longer recording so many windows, evenly, are clustered; the others go to the nearest centre."""
NEIGHBOURS, LEAST_NEIGHBOURS = 8, 6
"""A window is like one in eight of the others."""
LOOKED_AT = 6
"""The gap is looked for among so many eigenvalues, though fewer speakers may be allowed."""
CHANGE_FRAMES = 30
"""So many frames before and after a change of speaker without a pause may be both of them."""
PAUSE_FRAMES = 15
"""A shorter pause between two speakers is none."""
APART = 9.0
"""Farther than any two speakers can be: speakers of one recording are never one."""


@dataclass(frozen=True, kw_only=True)
class Speakers:
    """Speakers of a recording, those who speak most first."""

    label_T: NDArray[np.int8]
    """Speaker of every frame, -1 where nobody speaks."""
    centre_KD: Floats
    """Mean voice of each, of length 1, as it is: to be compared with other recordings."""


def standardised(x_ND: Floats) -> Floats:
    """Features less their means, by their spreads, every window of length 1."""
    return _unit((x_ND - x_ND.mean(axis=0)) / (x_ND.std(axis=0) + 1e-5))


def count_speakers(x_ND: Floats, most: int) -> int:
    """Number of speakers, 1 to `most`, of unit vectors of windows: the largest gap of the graph's eigenvalues."""
    if len(x_ND) <= LEAST_NEIGHBOURS:
        return 1
    similarity_NN = x_ND @ x_ND.T
    neighbours = max(LEAST_NEIGHBOURS, len(x_ND) // NEIGHBOURS)
    least_N = np.partition(similarity_NN, -neighbours, axis=1)[:, -neighbours]
    graph_NN = np.where(similarity_NN >= least_N[:, None], np.maximum(similarity_NN, 0), 0)
    graph_NN = (graph_NN + graph_NN.T) / 2
    degree_N = graph_NN.sum(axis=1)
    value_N = np.linalg.eigvalsh(graph_NN / np.sqrt(np.outer(degree_N, degree_N)))[::-1]
    looked_at = min(max(most, LOOKED_AT), len(value_N) - 1)
    return min(most, int(np.argmax(value_N[:looked_at] - value_N[1 : looked_at + 1])) + 1)


def find_speakers(
    x_ND: Floats, spans: Sequence[tuple[int, int]], speech_T: NDArray[np.bool_], *, count: int | None, most: int
) -> Speakers:
    """Speaker of every frame of speech, by the embeddings of windows; `count` speakers, or as many as there seem."""
    if not len(spans):
        return Speakers(label_T=np.full(len(speech_T), -1, np.int8), centre_KD=np.empty((0, 0), np.float32))
    voice_ND = standardised(x_ND)
    drawn = np.unique(np.linspace(0, len(spans) - 1, min(len(spans), MOST_WINDOWS)).astype(int))
    speakers = min(count or count_speakers(voice_ND[drawn], most), len(drawn))
    cluster_N = np.zeros(len(drawn), np.int64)
    if speakers > 1:
        cluster_N = KMeans(speakers, n_init=4, random_state=0).fit_predict(voice_ND[drawn])
    centre_KD = _unit(np.stack([voice_ND[drawn][cluster_N == k].mean(axis=0) for k in np.unique(cluster_N)]))
    likeness_NK = voice_ND @ centre_KD.T
    label_T = _nearest(likeness_NK, spans, len(speech_T))
    label_T[~speech_T] = -1
    used = np.bincount(label_T[label_T >= 0], minlength=len(centre_KD))
    order_K = np.argsort(-used, kind="stable")[: np.count_nonzero(used)]
    rank_K = np.full(len(centre_KD) + 1, -1, np.int8)
    rank_K[order_K] = np.arange(len(order_K))
    nearest_N, unit_ND = likeness_NK.argmax(axis=1), _unit(x_ND)
    means = [unit_ND[nearest_N == k].mean(axis=0) if (nearest_N == k).any() else unit_ND.mean(axis=0) for k in order_K]
    return Speakers(label_T=rank_K[label_T], centre_KD=_unit(np.stack(means)))


def _nearest(likeness_NK: Floats, spans: Sequence[tuple[int, int]], frames: int) -> NDArray[np.int8]:
    """The speaker whom the windows over each frame are most like, added up, (T,); -1 where there is no window."""
    start_N, end_N = np.minimum(np.array(spans), frames).T
    at_N, sign_N = np.concatenate([start_N, end_N]), np.repeat([1.0, -1.0], len(spans))
    label_T, most_T = np.zeros(frames, np.int8), np.full(frames, -np.inf)
    for k, likeness_N in enumerate(likeness_NK.T):  # one at a time: all would take eight times the room
        total_T = np.cumsum(np.bincount(at_N, sign_N * np.tile(likeness_N, 2), frames + 1))[:-1]
        label_T[total_T > most_T] = k
        np.maximum(most_T, total_T, out=most_T)
    covered_T = np.cumsum(np.bincount(at_N, sign_N, frames + 1))[:-1]
    label_T[covered_T < 0.5] = -1
    return label_T


def changes(label_T: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Frames around a change of speaker without a pause, (T,): speech that overlaps lies there, if anywhere."""
    spoken = np.flatnonzero(label_T >= 0)
    new = (np.diff(label_T[spoken]) != 0) & (np.diff(spoken) <= PAUSE_FRAMES)
    around_T = np.zeros(len(label_T), bool)
    for before, after in zip(spoken[:-1][new].tolist(), spoken[1:][new].tolist(), strict=True):
        around_T[max(0, before + 1 - CHANGE_FRAMES) : after + CHANGE_FRAMES] = True
    return around_T


def link(centre_PD: Floats, recording_P: Rows, likeness: float) -> Rows:
    """The first of the speakers, in their order, that each one is, (P,): average linkage by cosine, down to `likeness`.

    Speakers of one recording stay apart.
    """
    first_P = np.arange(len(centre_PD))
    if len(centre_PD) < 2:
        return first_P
    distance_PP = np.clip(1 - centre_PD @ centre_PD.T, 0, 2).astype(np.float64)
    distance_PP[recording_P[:, None] == recording_P[None]] = APART * len(centre_PD)
    np.fill_diagonal(distance_PP, 0)
    group_P = fcluster(linkage(squareform(distance_PP, checks=False), "average"), 1 - likeness, "distance")
    return np.array([int(np.flatnonzero(group_P == group)[0]) for group in group_P])


def _unit(x_ND: Floats) -> Floats:
    return np.asarray(x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-9), np.float32)
