"""Options of what makes pools."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ser_models.channels import Channel
from seral.audio.limits import SoundLimits
from seral.audio.options import CorruptionOptions
from seral.audio.quality import REASONS
from seral.cluster import ClusterOptions
from seral.corpora.options import CorpusOptions
from seral.errors import unknown_name
from seral.options import Options


class ImportOptions(CorpusOptions):
    """Options of an import of one corpus into a pool."""

    out: str
    """The pool: a folder or an object-store address; made when missing, added to when there."""
    retry: tuple[str, ...] = ()
    """Reasons whose files in quarantine are tried again, as far as this corpus has them: `[not-audio]` once PyAV is
    there, `[no-label]` with new label files."""
    max_duration_s: float = Field(default=60.0, gt=0)
    """Longer clips go to quarantine, in seconds."""
    max_channels: int = Field(default=32, ge=1)
    """Recordings of more channels go to quarantine."""
    max_decoded_mb: float = Field(default=256.0, gt=0)
    """So do clips that take more memory when decoded, all channels at the rate of the source, in MB."""
    max_bad_share: float = Field(default=0.5, ge=0, le=1)
    """The import fails when more than this share of the corpus's files is bad and new."""
    voice: bool = True
    """Listen for speech (seral.audio.listening): what tells it from other sounds, and most of an import's time."""
    channel: Channel = "auto"
    """Channel that a recording of several becomes: `mean`, `left`, `right`, `loudest`, or `auto`, the mean where that
    loses less than 1 dB to the channel of the most voice, else that channel. `channel_fault` says where they differ."""
    shard_mb: float = Field(default=128.0, gt=0)
    """Size of a shard in MB. A few files of each kind are tried to tell what theirs will take as 16 kHz FLAC."""
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for reason in self.retry:
            if reason not in REASONS:
                raise ValueError(unknown_name("reason", reason, REASONS))
        return self

    @property
    def limits(self) -> SoundLimits:
        """Limits of one clip."""
        return SoundLimits(seconds=self.max_duration_s, channels=self.max_channels, decoded_mb=self.max_decoded_mb)


class CutOptions(Options):
    """Options of cutting long recordings into utterances or clips."""

    root: str
    """Folder of recordings."""
    out: str
    """Folder to make; its name is the corpus when it is imported. By voice: `manifest.jsonl`, which says where each
    utterance lies in its recording, for the reader `manifest`. With `clip_s`: FLAC files, for the reader `folder`."""
    speakers: Literal["none", "recording", "all"] = "none"
    """Whose an utterance is, by the voice: nobody is named; speakers of a recording (`rec12#2`, the second by time); or
    of `all` recordings, where one who comes again has the first one's name."""
    voices: Literal["mfcc", "ge2e"] = "mfcc"
    """Embedding that voices are told apart by: `mfcc` is always there, `ge2e` takes a wheel of 16 MB and confuses half
    as many (docs/results/speakers.md)."""
    speaker_count: int | None = Field(default=None, ge=1, le=100)
    """Speakers in every recording, where that is known; None = as many as there seem to be."""
    max_speakers: int = Field(default=6, ge=1, le=100)
    """At most so many, where they are counted."""
    likeness: float = Field(default=0.85, gt=0, lt=1)
    """Cosine from which speakers of two recordings are one, for `speakers: all`."""
    overlaps: bool = False
    """Keep speech in which several may speak; `overlap` is its share of an utterance. Else utterances end there."""
    channel: Channel | Literal["apart"] = "auto"
    """Channel of recordings of several that is heard, as in an import; `auto` is the mean unless the channels cancel.
    With `apart` each of two channels is a party: its speech, without what leaks over from the other."""
    min_s: float = Field(default=0.5, gt=0)
    """Utterances with less speech are left out."""
    max_s: float = Field(default=15.0, gt=0)
    """Longer utterances are cut where they sound least like speech."""
    gap_s: float = Field(default=0.6, gt=0)
    """A shorter pause does not end an utterance."""
    pad_s: float = Field(default=0.3, ge=0)
    """Part of the pauses around it that an utterance keeps; the detector is right to about a fifth of a second."""
    clip_s: float | None = Field(default=None, gt=0)
    """Cut clips of so many seconds instead, whoever speaks; what is left over at the end is dropped."""
    hop_s: float | None = Field(default=None, gt=0)
    """Seconds from one clip's start to the next; None = clip_s, so that clips do not overlap."""
    cluster: ClusterOptions = ClusterOptions()

    @model_validator(mode="after")
    def _check(self) -> CutOptions:
        if self.max_s < 2 * (self.min_s + self.pad_s):
            raise ValueError(f"max_s must hold two of min_s and pad_s, got {self.max_s}, {self.min_s}, {self.pad_s}")
        if self.hop_s is not None and self.clip_s is None:
            raise ValueError("hop_s is for clips of one length: give clip_s too")
        if self.clip_s is not None and (self.speakers != "none" or self.channel != "auto"):
            raise ValueError("speakers and channel are for utterances by voice: leave out clip_s")
        if self.speakers == "all" and (self.voices != "ge2e" or self.channel == "apart"):
            raise ValueError("speakers=all takes voices=ge2e and one channel: cepstra tell lines apart, not people")
        return self


class DegradeOptions(CorruptionOptions):
    """Options of a corrupted copy of a pool."""

    pool: str
    """The pool."""
    out: str
    """The pool to make."""
    voice: bool = True
    """Listen for speech again, as an import does."""
    cluster: ClusterOptions = ClusterOptions()
