"""Kaldi data folders: `data/SPLIT/` with `wav.scp`, `text`, `utt2spk`, `utt2emo`, ..., and the clips as WAV.

Paths start in the folder of the export. An utterance's name begins with its speaker's, as Kaldi sorts them; one whose
speaker is not known is its own speaker. Speakers of several corpora have the corpus before their name.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import soundfile as sf

from seral.exports.clips import KNOWN, About, Clip, write_clip
from seral.schema import RATED

FILES = {"text": "text", "emotion": "utt2emo", "language": "utt2lang", "votes": "utt2votes"}
FILES |= {name: f"utt2{name}" for name in (*KNOWN, *RATED) if name not in {*FILES, "speaker", "gender", "split"}}
"""Field -> the file that tells it."""
GENDERS = {"female": "f", "male": "m"}


def write_kaldi(clips: Iterator[Clip], out: Path, about: About) -> None:
    """Write the clips, and for every split its tables, sorted as `LC_ALL=C sort` does."""
    tables: dict[str, dict[str, dict[str, str]]] = {split: defaultdict(dict) for split in about.splits}
    for clip in clips:
        samples, rate_hz = sf.read(io.BytesIO(clip.flac), dtype="int16")
        sf.write(buffer := io.BytesIO(), samples, rate_hz, format="WAV", subtype="PCM_16")
        table, speaker = tables[clip.split], _speaker(clip, about)
        name = clip.id if speaker is None else f"{speaker}-{clip.id}"
        table["wav.scp"][name] = write_clip(out, clip, data=buffer.getvalue(), suffix=".wav")
        table["utt2spk"][name] = speaker or name
        table["utt2dur"][name] = f"{len(samples) / rate_hz:.4f}"
        if gender := GENDERS.get(clip.values.get("gender", "")):
            table["spk2gender"][speaker or name] = gender
        for field in FILES.keys() & clip.values.keys():
            table[FILES[field]][name] = " ".join(str(clip.values[field]).split())
    for split, table in tables.items():
        of_speaker = defaultdict(list)
        for name in sorted(table["utt2spk"], key=str.encode):
            of_speaker[table["utt2spk"][name]].append(name)
        table["spk2utt"] = {speaker: " ".join(names) for speaker, names in of_speaker.items()}
        for file, rows in table.items():
            lines = (f"{key} {rows[key]}\n" for key in sorted(rows, key=str.encode))
            (out / "data" / split).mkdir(parents=True, exist_ok=True)
            (out / "data" / split / file).write_text("".join(lines), encoding="utf-8")


def _speaker(clip: Clip, about: About) -> str | None:
    if (speaker := clip.values.get("speaker")) is None:
        return None
    prefix = f"{clip.values['corpus']}-" if len(about.corpora) > 1 else ""
    return re.sub(r"\s+", "_", f"{prefix}{speaker}")
