"""Exports of a pool to the formats of other tools. `FORMATS` is the whole list; `seral pool export --help` shows it.

A format is a function that writes clips, one after another, into a new folder on a disk: `(clips, out, about)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from seral.exports.audformat import write_audformat
from seral.exports.audiofolder import write_audiofolder
from seral.exports.clips import About, Clip
from seral.exports.hf import write_hf
from seral.exports.kaldi import write_kaldi
from seral.exports.lhotse import write_lhotse
from seral.exports.webdataset import write_webdataset


@dataclass(frozen=True)
class Format:
    """One format: the function that writes it, and the reader of seral that reads it back."""

    write: Callable[[Iterator[Clip], Path, About], None]
    reader: str


FORMATS: dict[str, Format] = {
    "hf": Format(write_hf, reader="hf-arrow"),
    "webdataset": Format(write_webdataset, reader="webdataset"),
    "lhotse": Format(write_lhotse, reader="lhotse"),
    "kaldi": Format(write_kaldi, reader="kaldi"),
    "audformat": Format(write_audformat, reader="audformat"),
    "audiofolder": Format(write_audiofolder, reader="audiofolder"),
}
