"""Speakers' means: who speaks is known before what is felt, and can be taken away without a label.

`x - n / (n + 3) · (mean of the speaker - mean of the training part)` for mean and standard deviation of every hidden
state, n unlabelled clips of the speaker: an unknown speaker, and one of few clips, stays near what he is.
"""

# N clips · G groups (speakers, or corpora; the last row is that of nobody) · L hidden states · D features
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models.moments import Moments, PooledMoments
from seral.errors import FeatureError
from seral.features.index import ShardIndex
from seral.features.store import FeatureStore, Half, PooledShard
from seral.pool.ids import one_array, positions
from seral.progress import track

SHRINK = 3.0
"""Clips of a speaker of whose mean half is believed."""
Floats = NDArray[np.float32]
ENROLLED = 10
"""Clips of a speaker by which he is enrolled."""
LONG = 20_000
"""Clips whose sums take a while: progress is shown."""
MOST_BYTES = 4e9
"""Memory that the sums of all speakers may take."""


@dataclass(frozen=True, kw_only=True)
class Speakers:
    """The row of the speaker of every clip, in arrays with a row for each speaker and a last one for nobody.

    Clips are known by 64 bits of their ids: a thousand are looked up among a million in a millisecond.
    """

    hash_N: NDArray[np.uint64]
    """Sorted."""
    row_N: NDArray[np.int32]
    nobody: int
    """The last row."""

    @staticmethod
    def of(ids: Sequence[str], row_N: NDArray[np.int32], nobody: int) -> Speakers:
        """The speakers of some clips. Raises FeatureError where two ids have the same hash: one in 10⁷ pools of 10⁶."""
        hash_N = _hashes(ids)
        order = np.argsort(hash_N, kind="stable")
        if len(twice := np.flatnonzero(np.diff(hash_N[order]) == 0)):
            pair = [ids[int(order[at])] for at in (twice[0], twice[0] + 1)]
            raise FeatureError(f"the ids {pair[0]} and {pair[1]} have one hash: rename one of them")
        return Speakers(hash_N=hash_N[order], row_N=row_N[order], nobody=nobody)

    def rows(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row of the speaker of each of some clips, (N,)."""
        hash_N = _hashes(ids)
        at = np.minimum(np.searchsorted(self.hash_N, hash_N), len(self.hash_N) - 1)
        return np.where(self.hash_N[at] == hash_N, self.row_N[at], self.nobody).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class SpeakerSums:
    """Sums of the pooled features of every speaker, of which means, moments and shifts follow for any fold."""

    speakers: Speakers
    count_G: NDArray[np.int64]
    mean_GLD: Floats
    """Sums of the pooled means."""
    std_GLD: Floats
    """Sums of the pooled standard deviations."""
    corpus_G: NDArray[np.int32]
    """The corpus of each row. The last rows are those of nobody: of clips without a speaker in each of so many corpora,
    if there are any, and of all else."""

    @property
    def voices(self) -> int:
        """Rows that are somebody's."""
        return len(self.count_G) - 1 - int(self.corpus_G.max(initial=-1) + 1)

    def corpora(self) -> SpeakerSums:
        """The sums of corpora in the place of speakers."""
        count = len(self.count_G) - 1 - self.voices
        row_G = np.where(self.corpus_G < 0, count, self.corpus_G)
        mean_GLD, std_GLD = (
            np.zeros((count + 1, *part.shape[1:]), np.float64) for part in (self.mean_GLD, self.std_GLD)
        )
        np.add.at(mean_GLD, row_G, self.mean_GLD)
        np.add.at(std_GLD, row_G, self.std_GLD)
        return SpeakerSums(
            speakers=replace(self.speakers, row_N=row_G[self.speakers.row_N].astype(np.int32), nobody=count),
            count_G=np.bincount(row_G, self.count_G, count + 1).astype(np.int64),
            mean_GLD=mean_GLD.astype(np.float32),
            std_GLD=std_GLD.astype(np.float32),
            corpus_G=np.full(count + 1, -1, np.int32),
        )

    def shifts(self, mean_LD: Tensor, std_LD: Tensor, shrink: float = SHRINK) -> SpeakerShifts:
        """Shifts of all speakers towards the means of the training part, (L, D) each; of a corpus' nobody, its own."""
        voices, shifts = self.voices, self._own_shifts(mean_LD, std_LD, shrink)
        if self.count_G[voices:-1].any():  # corpora are summed up only for clips of nobody
            corpora = self.corpora()._own_shifts(mean_LD, std_LD, shrink)
            shifts.mean_GLD[voices:-1], shifts.std_GLD[voices:-1] = corpora.mean_GLD[:-1], corpora.std_GLD[:-1]
        return shifts

    def _own_shifts(self, mean_LD: Tensor, std_LD: Tensor, shrink: float) -> SpeakerShifts:
        share_G = self.count_G / (self.count_G + shrink)
        share_G[self.voices :] = 0
        parts = []
        for sum_GLD, middle_LD in ((self.mean_GLD, mean_LD.numpy()), (self.std_GLD, std_LD.numpy())):
            shift_GLD = np.empty(sum_GLD.shape, np.float16)
            for row, count in enumerate(self.count_G.tolist()):  # one at a time: all would take twice the room
                shift_GLD[row] = share_G[row] * (sum_GLD[row] / max(count, 1) - middle_LD)
            parts.append(shift_GLD)
        return SpeakerShifts(speakers=self.speakers, mean_GLD=parts[0], std_GLD=parts[1])

    def moments(self, shifts: SpeakerShifts, ids: Sequence[str], before: PooledMoments) -> PooledMoments:
        """Moments with the spread of clips less their shifts and the means of before: no clip is read again.

        The means stay, so that whoever has a model's standardisation has what its shifts lead to. Exact where all clips
        of their speakers are among them, as in the training part of a fold.
        """
        among_G = np.bincount(self.speakers.rows(ids), minlength=len(self.count_G))
        mean = self._moments(among_G, self.mean_GLD, shifts.mean_GLD, before.mean)
        return PooledMoments(mean, self._moments(among_G, self.std_GLD, shifts.std_GLD, before.std), before.text)

    def _moments(self, among_G: NDArray[np.int64], sum_GLD: Floats, shift_GLD: Half, before: Moments) -> Moments:
        total, squares = before.total.clone(), before.squares.clone()
        for row in np.flatnonzero(among_G).tolist():
            shift_LD = torch.from_numpy(shift_GLD[row].astype(np.float64))
            own_LD = torch.from_numpy(sum_GLD[row].astype(np.float64)) * (among_G[row] / self.count_G[row])
            total -= among_G[row] * shift_LD
            squares += among_G[row] * shift_LD.square() - 2 * shift_LD * own_LD
        squares += (before.total.square() - total.square()) / before.count
        return Moments(before.count, before.total, squares)


@dataclass(frozen=True, kw_only=True)
class SpeakerShifts:
    """Differences that are taken from the pooled features of every speaker's clips, fp16; those of nobody are 0."""

    speakers: Speakers
    mean_GLD: Half
    std_GLD: Half

    def only(self, ids: Sequence[str]) -> SpeakerShifts:
        """The shifts of the speakers of some clips, which are known by no other."""
        rows, row_N = np.unique(self.speakers.rows(ids), return_inverse=True)
        rows = np.append(rows, self.speakers.nobody)
        speakers = Speakers.of(ids, row_N.astype(np.int32), len(rows) - 1)
        return SpeakerShifts(speakers=speakers, mean_GLD=self.mean_GLD[rows], std_GLD=self.std_GLD[rows])

    def of(self, ids: Sequence[str]) -> tuple[Half, Half]:
        """The shifts of some clips' means and standard deviations, (N, L, D) each."""
        row_N = self.speakers.rows(ids)
        return self.mean_GLD[row_N], self.std_GLD[row_N]

    def centred(self, ids: Sequence[str], mean_NLD: Half, std_NLD: Half) -> tuple[Half, Half]:
        """Pooled features of some clips less their speakers' shifts, in half precision."""
        row_N = torch.from_numpy(self.speakers.rows(ids))
        parts = []
        for part_NLD, shift_GLD in ((mean_NLD, self.mean_GLD), (std_NLD, self.std_GLD)):
            part = torch.from_numpy(np.asarray(part_NLD, np.float16))
            parts.append((part - torch.from_numpy(shift_GLD)[row_N]).numpy())
        return parts[0], parts[1]


def enrol(
    ids: Sequence[str], voices: Sequence[str], mean_NLD: Half, std_NLD: Half, clips: int = ENROLLED
) -> tuple[SpeakerSums, NDArray[np.bool_]]:
    """The sums of some clips of every speaker, and which these are: `clips` of each by chance, at most half of his.

    Of a speaker that a model will meet, so many may be there before he is judged. The choice follows from the ids.
    """
    names, row_N = np.unique(np.asarray(voices), return_inverse=True)
    enrolled_N, hash_N = np.zeros(len(row_N), dtype=bool), _hashes(ids)
    for row in range(len(names)):
        own = np.flatnonzero(row_N == row)
        enrolled_N[own[np.argsort(hash_N[own])][: min(clips, len(own) // 2)]] = True
    groups = [np.flatnonzero(enrolled_N & (row_N == row)) for row in range(len(names))]
    nobody = np.zeros((1, *mean_NLD.shape[1:]), np.float32)
    sums = SpeakerSums(
        speakers=Speakers.of(ids, row_N.astype(np.int32), len(names)),
        count_G=np.array([*map(len, groups), 0]),
        mean_GLD=np.concatenate([*(_sum(mean_NLD[rows])[None] for rows in groups), nobody]),
        std_GLD=np.concatenate([*(_sum(std_NLD[rows])[None] for rows in groups), nobody]),
        corpus_G=np.full(len(groups) + 1, -1, np.int32),
    )
    return sums, enrolled_N


def speaker_sums(store: FeatureStore, index: ShardIndex, metadata: pa.Table, ids: Sequence[str]) -> SpeakerSums:
    """The sums of some clips' features by speaker, in one pass over them; `metadata` says who speaks.

    A speaker's name means somebody within a corpus only. Raises FeatureError where there are more than fit the memory.
    """
    metadata = metadata.take(positions(pa.array(ids, pa.string()), one_array(metadata["utterance_id"])))
    voice = pc.binary_join_element_wise(metadata["corpus"], metadata["speaker"], "/")
    names = voice.unique().drop_null().sort()
    corpora = metadata["corpus"].unique().sort()
    corpus_N = pc.index_in(metadata["corpus"], corpora).to_numpy().astype(np.int32)
    row_N = pc.fill_null(pc.index_in(voice, names), -1).to_numpy().astype(np.int32)
    row_N = np.where(row_N < 0, len(names) + corpus_N, row_N)
    groups = len(names) + len(corpora)
    shape = (groups + 1, store.num_layers + 1, store.width)
    if 8 * math.prod(shape) > MOST_BYTES:
        raise FeatureError(
            f"means of {len(names)} speakers take {8 * math.prod(shape) / 1e9:.1f} GB of memory, more than "
            f"{MOST_BYTES / 1e9:.0f}: set finetune.head.normalise=none"
        )
    mean_GLD, std_GLD = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    speakers = Speakers.of(metadata["utterance_id"].to_pylist(), row_N, groups)
    corpus_G = np.full(groups + 1, -1, np.int32)
    corpus_G[row_N], corpus_G[len(names) : -1] = corpus_N, np.arange(len(corpora))

    def add_up(shard: str, part: PooledShard, asked_N: NDArray[np.bool_]) -> list[tuple[int, Floats, Floats]]:
        row_N = np.where(asked_N, speakers.rows(part.ids), -1)
        return [
            (row, *(_sum(a[row_N == row]) for a in (part.mean_NLD, part.std_NLD)))
            for row in sorted({*row_N.tolist()} - {-1})
        ]

    rows_of = index.rows_by_shard(ids)
    pieces = sum(len(store.pieces(rows)) for rows in rows_of.values())
    with track("means of the speakers" if len(ids) > LONG else None, pieces) as advance:
        for _, parts in store.read_ahead(rows_of, add_up):
            for row, mean_LD, std_LD in parts:
                mean_GLD[row] += mean_LD
                std_GLD[row] += std_LD
            advance(1)
    count_G = np.bincount(row_N, minlength=groups + 1)
    return SpeakerSums(speakers=speakers, count_G=count_G, mean_GLD=mean_GLD, std_GLD=std_GLD, corpus_G=corpus_G)


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    values: NDArray[np.uint64] = pd.util.hash_array(np.array(ids, dtype=object), categorize=False)
    return values


def _sum(part_NLD: Half) -> Floats:
    total: Floats = torch.from_numpy(part_NLD).sum(0, dtype=torch.float64).float().numpy()
    return total


@dataclass(frozen=True, kw_only=True)
class Centring:
    """Speakers' shifts in a fold, and the moments of its training part less them."""

    shifts: SpeakerShifts
    moments: PooledMoments

    @staticmethod
    def of(sums: SpeakerSums, train: Sequence[str], before: PooledMoments) -> Centring:
        """The centring of a fold, from the moments of its training part."""
        shifts = sums.shifts(before.mean.mean, before.std.mean)
        return Centring(shifts=shifts, moments=sums.moments(shifts, train, before))


def centrings(sums: SpeakerSums, train: Sequence[str], before: PooledMoments, normalise: str) -> dict[str, Centring]:
    """Means that may be taken from features under an option `normalise`, by name: of speakers, or of corpora.

    With auto whatever there is: speakers, and corpora where the training part has several. Raises FeatureError where
    speakers are asked for and none is known.
    """
    made = dict[str, Centring]()
    if normalise == "speaker" and not sums.voices:
        raise FeatureError("no clip has a speaker")
    several = len(np.unique(sums.corpus_G[sums.speakers.rows(train)])) > 1
    if normalise == "corpus" or (normalise == "auto" and several):
        made["corpus"] = Centring.of(sums.corpora(), train, before)
    if normalise == "speaker" or (normalise == "auto" and sums.voices):
        made["speaker"] = Centring.of(sums, train, before)
    return made
