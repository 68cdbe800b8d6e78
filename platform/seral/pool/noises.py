"""Pools of noises, to be mixed into speech."""

from __future__ import annotations

from seral.audio.decode import decode_flac
from seral.audio.effects import Samples
from seral.errors import PoolError
from seral.pool.shards import Pool


def read_noises(pool: Pool) -> list[Samples]:
    """Every clip of a pool, which is small: all are kept in memory."""
    clips = [decode_flac(audio) for _, audio in pool.clips()]
    if not clips:
        raise PoolError(f"{pool.uri} has no clips to take noise from")
    return clips
