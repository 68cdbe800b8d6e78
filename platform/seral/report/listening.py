"""Clips to hear inside a page, as far as a budget of megabytes goes."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

from seral.audio.decode import decode_flac, encode_flac
from seral.pool.shards import Pool
from seral.schema import SAMPLE_RATE

MOST = 400
"""Clips that are read at most to fill a budget."""


@dataclass(frozen=True, kw_only=True)
class Player:
    """A clip as it is heard."""

    name: str
    """Id of the utterance."""
    flac: bytes
    caption: str

    @property
    def source(self) -> str:
        """The audio inside the page."""
        return "data:audio/flac;base64," + base64.b64encode(self.flac).decode("ascii")


def read_clips(pool: Pool, caption_of: Mapping[str, str], clip_s: float) -> Iterable[Player]:
    """The first `clip_s` seconds of some clips of a pool, in the order of their captions."""
    audio = dict(pool.clips(caption_of)) if caption_of else {}
    length = int(clip_s * SAMPLE_RATE)
    for name, caption in caption_of.items():
        if name in audio:
            yield Player(name=name, flac=encode_flac(decode_flac(audio[name])[:length]), caption=caption)


def within(players: Iterable[Player], megabytes: float) -> list[Player]:
    """The first clips that fit a page by so many megabytes, each at its size inside the page."""
    left, chosen = 1e6 * megabytes, list[Player]()
    for player in players:
        left -= len(player.source)
        if left < 0:
            break
        chosen.append(player)
    return chosen


def players_of(pool: Pool, caption_of: Mapping[str, str], megabytes: float, clip_s: float) -> list[Player]:
    """The first clips that a budget has room for; none of a budget of 0, for which nothing is read."""
    if megabytes <= 0:
        return []
    return within(read_clips(pool, dict(islice(caption_of.items(), MOST)), clip_s), megabytes)
