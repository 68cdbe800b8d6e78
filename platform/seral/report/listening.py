"""Clips to hear on a page, inside it or from files beside it, as far as a budget of megabytes goes."""

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
    beside: bool = False
    """Whether the audio is a file beside the page."""

    @property
    def file(self) -> str:
        """Path of the file beside the page."""
        return f"audio/{self.name}.flac"

    @property
    def source(self) -> str:
        """Address of the audio: the file, or the audio itself."""
        return self.file if self.beside else "data:audio/flac;base64," + base64.b64encode(self.flac).decode("ascii")

    @property
    def size(self) -> int:
        """Bytes that the clip takes, in the page or beside it."""
        return len(self.flac if self.beside else self.source)


def read_clips(pool: Pool, caption_of: Mapping[str, str], clip_s: float, *, beside: bool = False) -> Iterable[Player]:
    """The first `clip_s` seconds of some clips of a pool, in the order of their captions."""
    audio = dict(pool.clips(caption_of)) if caption_of else {}
    length = int(clip_s * SAMPLE_RATE)
    for name, caption in caption_of.items():
        if name in audio:
            flac = encode_flac(decode_flac(audio[name])[:length])
            yield Player(name=name, flac=flac, caption=caption, beside=beside)


def within(players: Iterable[Player], megabytes: float) -> list[Player]:
    """The first clips that fit so many megabytes, each at its size in the page or beside it."""
    left, chosen = 1e6 * megabytes, list[Player]()
    for player in players:
        left -= player.size
        if left < 0:
            break
        chosen.append(player)
    return chosen


def players_of(
    pool: Pool, caption_of: Mapping[str, str], megabytes: float, clip_s: float, *, beside: bool = False
) -> list[Player]:
    """The first clips that a budget has room for; none of a budget of 0, for which nothing is read."""
    if megabytes <= 0:
        return []
    clips = read_clips(pool, dict(islice(caption_of.items(), MOST)), clip_s, beside=beside)
    return within(clips, megabytes)
