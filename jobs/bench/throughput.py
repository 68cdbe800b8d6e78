"""Throughput of seral and of plain loops, measured in turns in one run on one machine, as ratios.

    python -m jobs.bench.throughput corpus=~/corpora/emodb reader=emodb

    import    seral.pool.ingest against a plain loop over soundfile and soxr
    scoring   seral.features.audio against a plain PyTorch loop over the same batches
    rounds    how much of the loop's wall-clock is neither selection nor model compute

Ratios carry over to other machines, rates do not; neither means much on a machine that is busy with something else.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.bench.both_sides import Comparison, compare_import, compare_scoring, measure_rounds, seconds_of
from jobs.bench.table import render
from seral import storage
from seral.cluster import ClusterOptions, connect, cpu_count
from seral.corpora import READERS
from seral.corpora.keywords import find_reader
from seral.corpora.reading.utterance import Utterance
from seral.errors import OptionError
from seral.features.options import FeatureOptions
from seral.loop.budget import PRESETS, BudgetOptions
from seral.loop.options import LoopOptions
from seral.options import Options, run_job
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import open_pool
from seral.pool.split_options import SplitOptions
from seral.synthesis.corpus import SynthesisOptions, synthesise
from seral.versions import versions

COPY_SHIFT_S = 0.01
"""Each further copy of a clip begins this much later: other audio to every hash, the same work to every loop."""
PACKAGES = ("seral", "ray", "torch", "transformers", "pyarrow", "numpy", "soundfile", "soxr")


class BenchOptions(Options):
    """Options of the throughput benchmark."""

    corpus: str | None = None
    """A corpus of real speech; None = a generated one."""
    reader: str = "manifest"
    """Reader of the corpus, a name in seral.corpora.READERS."""
    utterances: int = Field(default=480, ge=24)
    """Clips to generate when no corpus is given."""
    copies: int = Field(default=8, ge=1)
    """Times every clip is imported, each time from 10 ms further on, so that there is enough to measure."""
    repeats: int = Field(default=3, ge=1)
    """Times each side is measured; the median counts."""
    encoder: str = "seral-tiny"
    """A hub id, a folder, or an embedded encoder."""
    features: FeatureOptions = FeatureOptions()
    classes: list[str] = Field(default=["anger", "happiness", "neutral", "sadness"], min_length=2)
    """The emotions of the loop."""
    split: SplitOptions = SplitOptions(scheme="k-fold", k=3)
    """Split of the loop's speakers; its first fold is run."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs a local Ray offers; None = all of this machine."""
    out: str = "runs/bench.json"
    """Every raw number, the machine and the versions."""


def run_bench(options: BenchOptions) -> str:
    """Measure everything, write the raw numbers to `out` and return the table."""
    on = ClusterOptions(cpus=options.cpus)
    with tempfile.TemporaryDirectory(prefix="seral-bench-") as folder:
        work = Path(folder)
        clips = find_clips(work / "corpus", options)
        starts = {"Ray": seconds_of(lambda: connect(on))}
        # One file a shard: every worker starts, and imports what it needs, before anything is measured.
        small = write_manifest(work / "small.jsonl", clips[: cpu_count()])
        starts["first import"] = seconds_of(lambda: _import(small, work / "small", on, shard_mb=1e-6))
        load = {"before import": os.getloadavg()[0]}
        many = write_manifest(work / "many.jsonl", clips, options.copies)
        comparisons = compare_import(many, str(work / "many"), options.repeats, on)
        _import(write_manifest(work / "once.jsonl", clips), work / "once", on)
        load["before scoring"] = os.getloadavg()[0]
        pool, tiny = (open_pool(str(work / name)) for name in ("once", "small"))
        features = str(work / "features")
        scoring, starts["encoders"] = compare_scoring(
            pool, tiny, features, options.encoder, options.features, options.repeats, on
        )
        load["before rounds"] = os.getloadavg()[0]
        rounds = measure_rounds(_loop(options, work, on))
        load["at the end"] = os.getloadavg()[0]
    comparisons += scoring
    storage.write_json(options.out, _record(options, comparisons, rounds, starts, load))
    return f"{render(comparisons, rounds, starts, load)}\nraw numbers: {options.out}"


def find_clips(folder: Path, options: BenchOptions) -> list[Utterance]:
    """The utterances of the corpus; without one, it is generated in `folder`."""
    if options.corpus is not None:
        items = find_reader(options.reader)(Path(options.corpus).expanduser())
    else:
        synthesise(folder, SynthesisOptions(utterances=options.utterances, junk=0.0))
        items = READERS["manifest"](folder)
    clips = [item for item in items if isinstance(item, Utterance)]
    if any(clip.inside is not None for clip in clips):
        raise OptionError(f"the bench compares plain files; the clips of {options.corpus} lie inside others")
    return clips


def write_manifest(out: Path, clips: Sequence[Utterance], copies: int = 1, most: int | None = None) -> Path:
    """A manifest of the clips, each `copies` times, and `most` rows of that."""
    rows = [_manifest_row(clip, copy) for copy in range(copies) for clip in clips][:most]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return out


def _manifest_row(clip: Utterance, copy: int) -> dict[str, Any]:
    metadata = {name: getattr(clip, name) for name in ("corpus", "speaker", "session", "split", "end_s", "emotion")}
    start_s = (clip.start_s or 0.0) + copy * COPY_SHIFT_S
    return metadata | {"id": f"{clip.name}+{copy}", "audio": str(clip.audio.resolve()), "start_s": start_s or None}


def _import(manifest: Path, pool: Path, on: ClusterOptions, shard_mb: float = 128.0) -> None:
    import_corpus(ImportOptions(reader="manifest", root=str(manifest), out=str(pool), shard_mb=shard_mb, cluster=on))


def _loop(options: BenchOptions, work: Path, on: ClusterOptions) -> LoopOptions:
    """One arm, one fold, one seed, on the features that scoring left."""
    return LoopOptions(
        pool=str(work / "once"),
        run=str(work / "run"),
        encoder=options.encoder,
        classes=options.classes,
        split=options.split,
        folds=[0],
        seeds=[0],
        random_arm=False,
        full_arm=False,
        budget=BudgetOptions(fractions=list(PRESETS["clean"])),
        features=options.features,
        feature_cache=str(work / "features"),
        cluster=on,
    )


def _record(
    options: BenchOptions,
    comparisons: Sequence[Comparison],
    rounds: Mapping[str, Any],
    starts: Mapping[str, float],
    load: Mapping[str, float],
) -> dict[str, Any]:
    ratios = ("seral_rate", "plain_rate", "per_core", "together_per_core")
    return {
        "comparisons": [asdict(c) | {name: getattr(c, name) for name in ratios} for c in comparisons],
        "rounds": rounds,
        "start_s": starts,
        "load_average": load,
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count(), "system": platform.platform()},
        "versions": versions(PACKAGES) | {"python": platform.python_version()},
        "options": options.model_dump(mode="json"),
    }


if __name__ == "__main__":
    run_job(BenchOptions, run_bench, __doc__)
