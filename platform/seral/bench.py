"""Both sides of the throughput claims, measured in turns in one run on one machine and given as ratios.

    import    seral.pool.ingest against a plain loop over soundfile and soxr
    scoring   seral.features against a plain PyTorch loop over the same batches
    rounds    how much of the loop's wall-clock is neither selection nor model compute

Ratios carry over to other machines, rates do not; neither means much on a machine that is busy with something else.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import ray
from pydantic import Field

from seral import storage
from seral.active.budget import PRESETS, BudgetOptions
from seral.active.loop import LoopOptions, run_loop
from seral.cluster import ClusterOptions, connect, cpu_count
from seral.errors import OptionError, unknown_name
from seral.features import FeatureOptions, extract_features
from seral.options import Options
from seral.plain_loops import Timing, plain_import, plain_scoring, run_alone
from seral.pool.ingest import ImportOptions, import_corpus
from seral.pool.readers import READERS
from seral.pool.readers.utterance import Utterance
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import SplitOptions
from seral.pool.synthesis import SynthesisOptions, synthesise
from seral.progress import say

COPY_SHIFT_S = 0.01
"""Each further copy of a clip begins this much later: other audio to every hash, the same work to every loop."""
COMPUTE_PHASES = ("select", "train", "evaluate", "score", "probe")
"""The phases of a round that are selection or model compute."""
LONG_ROUND_S = 600.0
PACKAGES = ("seral", "ray", "torch", "transformers", "pyarrow", "numpy", "soundfile", "soxr")


class BenchOptions(Options):
    """What to measure, and on what."""

    corpus: str | None = None
    """A corpus of real speech; None = a generated one."""
    reader: str = "manifest"
    """Which reader takes it, a name in seral.pool.readers.READERS."""
    utterances: int = Field(default=480, ge=24)
    """Clips to generate when no corpus is given."""
    copies: int = Field(default=4, ge=1)
    """How often every clip is taken, each time from 10 ms further on, so that the measured part is long enough."""
    repeats: int = Field(default=3, ge=1)
    """Times each side is measured; the median counts."""
    encoder: str = "seral-tiny"
    """A hub id, a folder, or an embedded encoder."""
    features: FeatureOptions = FeatureOptions()
    classes: list[str] = ["anger", "happiness", "neutral", "sadness"]
    """The emotions of the loop."""
    split: SplitOptions = SplitOptions(scheme="k-fold", k=3)
    """How the loop divides the speakers; its first fold is run."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs a local Ray offers; None = all of this machine."""
    out: str = "runs/bench.json"
    """Every raw number, the machine and the versions."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One claim, both sides: the same units of work by seral on `cores` cores and by one plain process."""

    name: str
    units: int
    cores: int
    seral_s: list[float]
    plain: list[Timing]
    together: list[Timing] = field(default_factory=list)
    """As many plain processes as cores at once, each doing all the units."""
    target: float | None = None

    @property
    def seral_rate(self) -> float:
        """Units per second, all cores together."""
        return self.units / median(self.seral_s)

    @property
    def plain_rate(self) -> float:
        """Units per second of one process."""
        return self.units / median(timing.wall_s for timing in self.plain)

    @property
    def per_core(self) -> float:
        """seral's rate over cores x the rate of one plain process that has the machine to itself."""
        return self.seral_rate / (self.cores * self.plain_rate)

    @property
    def together_per_core(self) -> float | None:
        """The same ratio for plain processes side by side: what the machine leaves to anybody."""
        slowest_s = max((timing.wall_s for timing in self.together), default=None)
        return None if slowest_s is None else self.units / slowest_s / self.plain_rate


def run_bench(options: BenchOptions) -> str:
    """Measure everything, write the raw numbers to `out` and return the table."""
    on = ClusterOptions(cpus=options.cpus)
    with tempfile.TemporaryDirectory(prefix="seral-bench-") as folder:
        manifest = make_manifest(Path(folder) / "corpus", options)
        starts = {"ray_init": _seconds(lambda: connect(on))}
        small = Path(folder) / "small.jsonl"
        with manifest.open(encoding="utf-8") as lines:
            small.write_text("".join(islice(lines, cpu_count())), encoding="utf-8")
        # One file a shard: every worker starts, and imports what it needs, before anything is measured.
        warm_up = _import_options(small, f"{folder}/small", on, shard_mb=1e-6)
        starts["first_import"] = _seconds(lambda: import_corpus(warm_up))
        load = {"before import": os.getloadavg()[0]}
        comparisons = compare_import(manifest, f"{folder}/pool", options.repeats, on)
        load["before scoring"] = os.getloadavg()[0]
        pools = (open_pool(f"{folder}/pool"), open_pool(f"{folder}/small"))
        scoring, starts["encoder_actors"] = compare_scoring(*pools, f"{folder}/features", options, on)
        load["before rounds"] = os.getloadavg()[0]
        rounds = measure_rounds(f"{folder}/pool", f"{folder}/features", f"{folder}/run", options, on)
        load["at the end"] = os.getloadavg()[0]
    comparisons += scoring
    storage.write_json(options.out, _record(options, comparisons, rounds, starts, load))
    return f"{render(comparisons, rounds, starts, load)}\nraw numbers: {options.out}"


def make_manifest(folder: Path, options: BenchOptions) -> Path:
    """The corpus as a manifest, every clip `copies` times."""
    if options.reader not in READERS:
        raise OptionError(unknown_name("reader", options.reader, READERS))
    if options.corpus is None:
        found = READERS["manifest"](synthesise(folder, SynthesisOptions(utterances=options.utterances, junk=0.0)))
    else:
        found = READERS[options.reader](Path(options.corpus))
    clips = [item for item in found if isinstance(item, Utterance)]
    rows = [_manifest_row(clip, copy) for copy in range(options.copies) for clip in clips]
    storage.write_bytes(folder / "copies.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return folder / "copies.jsonl"


def _manifest_row(clip: Utterance, copy: int) -> dict[str, Any]:
    kept = {name: getattr(clip, name) for name in ("corpus", "speaker", "session", "split", "end_s", "emotion")}
    start_s = (clip.start_s or 0.0) + copy * COPY_SHIFT_S
    return kept | {"id": f"{clip.name}+{copy}", "audio": str(clip.audio.resolve()), "start_s": start_s or None}


def _import_options(manifest: Path, pool: str, on: ClusterOptions, shard_mb: float = 128.0) -> ImportOptions:
    return ImportOptions(reader="manifest", root=str(manifest), out=pool, shard_mb=shard_mb, cluster=on)


def compare_import(manifest: Path, pool: str, repeats: int, on: ClusterOptions) -> list[Comparison]:
    """Import a manifest, leaving the pool, against plain loops with and without FLAC encoding."""
    clips = [item for item in READERS["manifest"](manifest) if isinstance(item, Utterance)]
    niceness = _worker_niceness()
    seral_s, full, without_flac = [], [], []
    for number in range(repeats):
        say(f"import, repeat {number + 1} of {repeats}")
        full += run_alone(plain_import, clips, True, niceness=niceness)
        without_flac += run_alone(plain_import, clips, False, niceness=niceness)
        storage.remove(pool)
        seral_s.append(_seconds(lambda: import_corpus(_import_options(manifest, pool, on))))
    cores = min(cpu_count(), len(open_pool(pool).shards))
    together = run_alone(plain_import, clips, True, niceness=niceness, processes=cores)
    same: dict[str, Any] = {"units": len(clips), "cores": cores, "seral_s": seral_s}
    return [
        Comparison(name="import / decode+resample+FLAC", **same, plain=full, together=together, target=0.8),
        Comparison(name="import / decode+resample", **same, plain=without_flac),
    ]


def compare_scoring(
    pool: Pool, small: Pool, features: str, options: BenchOptions, on: ClusterOptions
) -> tuple[list[Comparison], float]:
    """Extract features, leaving them, against a plain loop; also the seconds until the encoders run.

    That start is what the same call takes on a pool of one clip for each encoder.
    """
    loop = (plain_scoring, pool.uri, options.encoder, options.features)
    niceness = _worker_niceness()
    start_s, whole_s, plain = [], [], []
    for number in range(options.repeats):
        say(f"scoring, repeat {number + 1} of {options.repeats}")
        plain += run_alone(*loop, niceness=niceness)
        for opened, seconds in ((small, start_s), (pool, whole_s)):
            storage.remove(features)
            extract = partial(extract_features, opened, options.encoder, uri=features, options=options.features, on=on)
            seconds.append(_seconds(extract))
    cores = min(cpu_count(), len(pool.shards))
    together = run_alone(*loop, niceness=niceness, processes=cores)
    start = median(start_s)
    same: dict[str, Any] = {"units": pool.rows, "cores": cores, "plain": plain}
    steady_s = [seconds - start for seconds in whole_s]
    return [
        Comparison(name="scoring / PyTorch loop", **same, seral_s=steady_s, together=together, target=0.9),
        Comparison(name="scoring with actor start", **same, seral_s=whole_s),
    ], start


def measure_rounds(pool: str, features: str, run: str, options: BenchOptions, on: ClusterOptions) -> dict[str, Any]:
    """Run the loop on cached features, one fold and one seed; what of its wall-clock is not compute."""
    loop = LoopOptions(
        pool=pool,
        run=run,
        encoder=options.encoder,
        classes=options.classes,
        split=options.split,
        folds=[0],
        seeds=[0],
        random_arm=False,
        full_arm=False,
        budget=BudgetOptions(fractions=list(PRESETS["clean"])),
        features=options.features,
        feature_cache=features,
        cluster=on,
    )
    wall_s = _seconds(lambda: run_loop(loop))
    (trajectory,) = storage.list_names(f"{run}/trajectories")
    folder = f"{run}/trajectories/{trajectory}/rounds"
    rounds = [storage.read_json(f"{folder}/{name}/round.json")["seconds"] for name in storage.list_names(folder)]
    compute_s = sum(seconds[phase] for seconds in rounds for phase in COMPUTE_PHASES if phase in seconds)
    inside_s = sum(sum(seconds.values()) for seconds in rounds)
    return {
        "rounds": rounds,
        "wall_s": wall_s,
        "compute_s": compute_s,
        "share_inside_rounds": 1 - compute_s / inside_s,
        "share_of_run": 1 - compute_s / wall_s,
        "overhead_per_round_s": (wall_s - compute_s) / len(rounds),
        "share_of_long_rounds": (wall_s - compute_s) / len(rounds) / LONG_ROUND_S,
    }


def render(
    comparisons: Sequence[Comparison],
    rounds: Mapping[str, Any],
    starts: Mapping[str, float],
    load: Mapping[str, float],
) -> str:
    """The numbers as plain aligned text."""
    head = ("", "seral/s", "plain/s", "cores", "per core", "target", "plain together", "seral s", "plain s", "CPU")
    rows = [head, *(_cells(comparison) for comparison in comparisons)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(w) if not i else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    count = len(rounds["rounds"])
    return "\n".join(
        [
            *lines,
            "",
            "per core        seral/s over cores x plain/s",
            "plain together  the same ratio for as many plain processes as cores at once: what the machine leaves",
            "CPU             share of its wall-clock for which the plain process had a CPU; well below 1: busy machine",
            "",
            f"rounds: {count} in {rounds['wall_s']:.1f} s, of which compute {rounds['compute_s']:.1f} s; "
            f"not compute: {rounds['share_inside_rounds']:.1%} inside rounds, {rounds['share_of_run']:.1%} of the run",
            f"        {rounds['overhead_per_round_s']:.2f} s a round = {rounds['share_of_long_rounds']:.1%} of a round "
            f"of {LONG_ROUND_S / 60:.0f} min (target 10%)",
            "not counted above: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in starts.items()),
            "load average: " + ", ".join(f"{value:.1f} {when}" for when, value in load.items()),
        ]
    )


def _cells(comparison: Comparison) -> tuple[str, ...]:
    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.2f}"

    wall_s, cpu_s = (median(getattr(timing, name) for timing in comparison.plain) for name in ("wall_s", "cpu_s"))
    return (
        comparison.name,
        f"{comparison.seral_rate:.1f}",
        f"{comparison.plain_rate:.1f}",
        str(comparison.cores),
        ratio(comparison.per_core),
        ratio(comparison.target),
        ratio(comparison.together_per_core),
        f"{median(comparison.seral_s):.1f}",
        f"{wall_s:.1f}",
        ratio(cpu_s / wall_s),
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
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "options": options.model_dump(mode="json"),
    }


def _worker_niceness() -> int:
    """Priority of Ray's workers: they are nicer than an ordinary process, and on a busy machine that shows."""
    return int(ray.get(ray.remote(lambda: os.nice(0)).options(num_cpus=0).remote()))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
