"""Long recordings made into utterances that can be imported: where somebody speaks, or clips of one length."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import soundfile as sf
from numpy.typing import NDArray

from ser_models.channels import Channel
from seral import storage
from seral.audio.parties import Party, parties
from seral.audio.segments import SEVERAL, read_blocks, recording_voice, runs, speakers_utterances, utterances
from seral.audio.speakers import changes, find_speakers, link
from seral.audio.voice import FRAME_S, SPEECH
from seral.audio.voices import VOICES, embed_windows, windows
from seral.cluster import connect
from seral.corpora.reading.tree import DECODABLE, AudioFiles, audio_files
from seral.errors import ReaderError
from seral.pool.options import CutOptions
from seral.progress import track

MANIFEST, PARTS = "manifest.jsonl", "parts"
NAMED = 5
LIMITS = ("min_s", "max_s", "gap_s", "pad_s")
BRIDGED_FRAMES = 30
"""Windows of voices lie across pauses shorter than this."""
NOT_OF_A_PART = {"cluster", "root", "likeness"}
"""Options that do not change what is written about a single recording."""


def cut_recordings(options: CutOptions) -> str:
    """Cut every recording below a folder; says what came of it."""
    files = audio_files(Path(options.root), DECODABLE)
    if not files:
        raise ReaderError(f"no audio below {options.root}")
    if options.clip_s is None:
        return _cut_by_voice(files, options)
    clips = 0
    with track(f"cutting {len(files)} recordings", len(files)) as advance:
        for file in files:
            stem = Path(options.out) / Path(file.source).with_suffix("")
            clips += _cut(file.path, stem, options.clip_s, options.hop_s or options.clip_s)
            advance(1)
    return f"{clips} clips of {len(files)} recordings in {options.out}"


def _cut_by_voice(files: AudioFiles, options: CutOptions) -> str:
    options = options.model_copy(update={"out": str(Path(options.out).resolve())})
    if options.speakers != "none":
        VOICES[options.voices]()  # says what is not installed before anything is read
    connect(options.cluster)
    items = [{"path": str(file.path.resolve()), "source": file.source} for file in files]
    parts = {item["source"]: storage.join(options.out, PARTS, part_name(item, options)) for item in items}
    missing = [item | {"part": parts[item["source"]]} for item in items if not _is_done(parts[item["source"]])]
    label = f"listening to {len(files)} recordings"
    if missing and len(missing) < len(files):
        label += f", {len(files) - len(missing)} of them done before"
    if missing:
        with track(label, len(missing)) as advance:
            dataset = ray.data.from_items(missing, override_num_blocks=len(missing))
            for _ in dataset.map(cut_part, fn_kwargs={"options": options}).iter_rows():
                advance(1)
    recordings = [storage.read_json(parts[source]) for source in sorted(parts)]
    if options.speakers == "all":
        join_speakers(recordings, options.likeness)
    rows = [row for recording in recordings for row in recording["rows"]]
    manifest = storage.join(options.out, MANIFEST)
    storage.write_bytes(manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
    return _summary(recordings, rows, manifest)


def _summary(recordings: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], manifest: str) -> str:
    speech_s = sum(row["end_s"] - row["start_s"] for row in rows if "end_s" in row)
    summary = f"{len(rows)} utterances, {speech_s / 3600:.2f} of {sum(row['hours'] for row in recordings):.2f} hours, "
    summary += f"of {len(recordings)} recordings in {manifest}"
    if speakers := {row["speaker"] for row in rows if "speaker" in row}:
        summary += f"\n{len(speakers)} speakers, by their channels or voices: a guess, not knowledge"
    for problem, matches in (
        ("nobody speaks in", [row["source"] for row in recordings if not row["rows"]]),
        (
            "not readable, and listed whole for the import to say why",
            [row["source"] for row in recordings if not row["readable"]],
        ),
        (
            "without two channels that differ, and so without parties",
            [row["source"] for row in recordings if row["one_party"]],
        ),
    ):
        if matches:
            more = f" and {len(matches) - NAMED} more" if len(matches) > NAMED else ""
            summary += f"\n{problem}: {', '.join(matches[:NAMED])}{more}"
    return summary


def part_name(item: Mapping[str, str], options: CutOptions) -> str:
    """Name of the file of what a recording holds: another one for other options, or where the recording has changed."""
    path = Path(item["path"])
    status = path.stat() if path.exists() else None  # a link to nowhere is listed for the import to say so
    changed = None if status is None else [status.st_size, status.st_mtime_ns]
    facts = [item["source"], changed, options.model_dump_json(exclude=NOT_OF_A_PART)]
    return f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.json"


def _is_done(part: str) -> bool:
    """Whether a recording was listened to; one that could not be read is tried again."""
    return storage.exists(part) and bool(storage.read_json(part)["readable"])


def cut_part(row: dict[str, Any], options: CutOptions) -> dict[str, Any]:
    """Write what one recording holds, {"path", "source", "part"} -> {"source"}; there as a whole or not at all."""
    storage.write_json(row["part"], find_utterances(row, options))
    return {"source": row["source"]}


def find_utterances(row: dict[str, Any], options: CutOptions) -> dict[str, Any]:
    """The rows of the manifest about one recording and the voices in it, {"path", "source"} -> what a part holds."""
    path = Path(row["path"])
    stem = row["source"].removesuffix(path.suffix)
    metadata = {"audio": os.path.relpath(path, options.out), "session": stem}
    part: dict[str, Any] = {"source": row["source"], "stem": stem, "hours": 0.0, "centres": []}
    part |= {"readable": True, "one_party": False}
    try:
        both = parties(path) if options.channel == "apart" and sf.info(path).channels == 2 else None
        if both is not None:
            rows, frames = _of_parties(both, stem, options)
        else:
            rows, frames, part["centres"] = _of_voices(path, stem, options)
            part["one_party"] = options.channel == "apart"
    except (OSError, sf.LibsndfileError):
        return part | {"rows": [{"id": stem, **metadata}], "readable": False}
    made = [{"id": row.pop("id"), **metadata, **row} for row in rows]
    return part | {"rows": made, "hours": frames * FRAME_S / 3600}


def _of_parties(both: tuple[Party, Party], stem: str, options: CutOptions) -> tuple[list[dict[str, Any]], int]:
    """Utterances of each channel's own speech, in order, and the frames of the recording."""
    overlap_T = both[0].own_T & both[1].own_T
    rows = []
    for party in both:
        label_T = np.where(party.own_T, 0, -1).astype(np.int8)
        spans = speaker_spans(party.voice_T, label_T, overlap_T, party.own_T, options)
        for start_s, end_s, _, share in spans:
            rows.append(
                {
                    "id": f"{stem}-{start_s:08.2f}-{party.channel}",
                    "start_s": start_s,
                    "end_s": end_s,
                    "audio_channel": party.channel,
                    "speaker": f"{stem}#{party.channel}",
                    "speaker_source": "channel",
                    "overlap": share,
                }
            )
    return sorted(rows, key=lambda row: (row["start_s"], row["id"])), len(overlap_T)


def _of_voices(path: Path, stem: str, options: CutOptions) -> tuple[list[dict[str, Any]], int, list[list[float]]]:
    """Utterances of a recording taken as one channel, its frames, and the mean voice of every speaker."""
    channel: Channel = "auto" if options.channel == "apart" else options.channel
    chosen = {} if channel == "auto" else {"audio_channel": channel}
    voice_T = recording_voice(path, channel)
    if options.speakers == "none":
        limits = {name: getattr(options, name) for name in LIMITS}
        spans = utterances(voice_T, **limits)
        rows = [{"id": f"{stem}-{start:08.2f}", "start_s": start, "end_s": end, **chosen} for start, end in spans]
        return rows, len(voice_T), []
    speech_T = voice_T > SPEECH
    pieces = windows(runs(np.where(speech_T, 0, -1).astype(np.int8), BRIDGED_FRAMES))
    x_ND = embed_windows(read_blocks(path, channel), pieces, VOICES[options.voices]())
    voices = find_speakers(x_ND, pieces[: len(x_ND)], speech_T, count=options.speaker_count, most=options.max_speakers)
    label_T = voices.label_T
    rows = [
        {
            "id": f"{stem}-{start_s:08.2f}",
            "start_s": start_s,
            "end_s": end_s,
            **chosen,
            "speaker": f"{stem}#{speaker + 1}",
            "speaker_source": "voice",
            "overlap": share,
        }
        for start_s, end_s, speaker, share in speaker_spans(voice_T, label_T, changes(label_T), speech_T, options)
    ]
    return rows, len(voice_T), voices.centre_KD.tolist() if options.speakers == "all" else []


def speaker_spans(
    voice_T: NDArray[np.float32],
    label_T: NDArray[np.int8],
    overlap_T: NDArray[np.bool_],
    speech_T: NDArray[np.bool_],
    options: CutOptions,
) -> list[tuple[float, float, int, float]]:
    """Start, end, speaker and share of overlap of the utterances; without `overlaps` they end where several speak."""
    if not options.overlaps:
        label_T = np.where(overlap_T & (label_T >= 0), SEVERAL, label_T).astype(np.int8)
    barred_T = speech_T if options.overlaps else speech_T | overlap_T
    limits = {name: getattr(options, name) for name in LIMITS}
    spans = speakers_utterances(voice_T, label_T, barred_T, **limits)
    return [
        (start_s, end_s, speaker, round(float(overlap_T[round(start_s / FRAME_S) : round(end_s / FRAME_S)].mean()), 3))
        for start_s, end_s, speaker in spans
    ]


def join_speakers(recordings: Sequence[dict[str, Any]], likeness: float) -> None:
    """Give a speaker who is in several recordings the name of the first, in order of the recordings."""
    pairs = [(at, centre) for at, recording in enumerate(recordings) for centre in recording["centres"]]
    if not pairs:
        return
    names = [f"{r['stem']}#{number}" for r in recordings for number, _ in enumerate(r["centres"], start=1)]
    first_P = link(np.array([centre for _, centre in pairs], np.float32), np.array([at for at, _ in pairs]), likeness)
    name_of = {name: names[first] for name, first in zip(names, first_P.tolist(), strict=True)}
    for recording in recordings:
        for row in recording["rows"]:
            if "speaker" in row:
                row["speaker"] = name_of.get(row["speaker"], row["speaker"])


def _cut(path: Path, stem: Path, clip_s: float, hop_s: float) -> int:
    with sf.SoundFile(path) as recording:
        length, hop = round(clip_s * recording.samplerate), round(hop_s * recording.samplerate)
        starts = range(0, recording.frames - length + 1, hop)
        for number, start in enumerate(starts):
            recording.seek(start)
            target = stem.parent / f"{stem.name}-{number:03d}.flac"
            target.parent.mkdir(parents=True, exist_ok=True)
            sf.write(target, recording.read(length), recording.samplerate, subtype="PCM_16")
    return len(starts)
