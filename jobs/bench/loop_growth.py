"""The main job as its pool grows: seconds by phase, memory by process, bytes on disk.

    python -m jobs.bench.loop_growth 'rows=[10000,100000]'

The pool has no sound: ids, speakers, labels and the cached features of an encoder of the given geometry, at their real
size. Every run is `seral loop run` in a process of its own, watched from outside; the memory of a process is what it
has for itself (resident less shared). With `other`, another checkout runs the same beside it, on the same pool.
"""

# N utterances · L hidden states · D features
from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.figure import Figure
from pydantic import Field
from transformers import Wav2Vec2Config, Wav2Vec2Model

from jobs.bench.growth import Watched, marked_processes, watch_memory
from ser_models.encoders import save_encoder, wrap
from seral import storage
from seral.features.audio import extract_features
from seral.figures.axes import INK, STYLES, png, tidy
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.pool.revisions import shard_entry
from seral.pool.shards import FORMAT, MANIFEST, Pool, open_pool, pool_hash
from seral.progress import say, track
from seral.schema import ENCODER_KEY, GOLD, QUARANTINE, UTTERANCE, VOTES

CLASSES = ("anger", "happiness", "neutral", "sadness")
SPEAKERS = 60
PHASES = ("select", "train", "score", "evaluate")
BASE_ROWS = 2048
"""Rows of features that all others are made of: each with a shift of its shard."""


class LoopGrowthOptions(Options):
    """Options of the growth of the main job."""

    rows: list[int] = Field(default=[10_000, 30_000, 100_000, 300_000, 1_000_000], min_length=1)
    """Utterances of the training part, smallest first."""
    judged: int = Field(default=1000, ge=50)
    """Utterances of dev, and as many of test."""
    layers: int = Field(default=12, ge=1)
    """Layers of the encoder; it has a hidden state more."""
    width: int = Field(default=768, ge=8)
    """Features of a hidden state: 12 x 768 are those of wav2vec 2.0 base."""
    shard_rows: int = Field(default=2000, ge=10)
    rounds: int = Field(default=10, ge=1)
    per_round: int = Field(default=500, ge=1)
    settings: list[str] = Field(default=[])
    """Further settings of `seral loop run`, such as `cluster.parts=2`."""
    other: str | None = None
    """Another checkout, with a virtual environment, whose loop runs beside this one up to `other_rows`."""
    other_rows: int = 100_000
    work: str = "runs/bench-loop-growth"
    """Folder of pools and runs. Pools stay for the next time."""


@dataclass
class WatchedLoop(Watched):
    """One run of the loop; `worker_mb` is of the largest process of Ray's that does work."""

    failed: str = ""
    phases: dict[str, float] = field(default_factory=dict)


def run_loop_growth(options: LoopGrowthOptions) -> str:
    """Measure every size; returns a table and writes it as it grows to `work`/growth.json and growth.png.

    What is measured there already is not measured again.
    """
    work = Path(options.work).resolve()
    results = work / "growth.json"
    measured: list[dict[str, Any]] = storage.read_json(str(results))["measured"] if results.exists() else []
    encoder = work / "encoder"
    if not encoder.exists():
        save_encoder(wrap(_network(options)), encoder)
    for rows in options.rows:
        if any(row["rows"] == rows for row in measured):
            continue
        pool = fabricate(work / f"pool-{rows}", rows, str(encoder), options)
        features = sum(path.stat().st_size for path in Path(pool.uri, "features").rglob("*.parquet"))
        sides: list[tuple[str, str, str | None]] = [("this", sys.executable, None)]
        if options.other is not None and rows <= options.other_rows:
            sides.append(("other", str(Path(options.other, ".venv/bin/python")), options.other))
        for side, python, checkout in sides:
            say(f"{rows} utterances, {side}")
            run = work / f"run-{rows}-{side}"
            storage.remove(str(run))
            watched = watch_loop(pool, run, str(encoder), python, checkout, options)
            disk = sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) if run.exists() else 0
            facts = {"rows": rows, "side": side, "features_mb": features / 1e6, "run_mb": disk / 1e6}
            measured.append({**facts, **vars(watched)})
            storage.write_json(str(results), {"options": options.model_dump(), "measured": measured})
            storage.write_bytes(str(work / "growth.png"), png(growth_curves(measured)))
    return markdown(pd.DataFrame([{k: v for k, v in row.items() if k != "phases"} | row["phases"] for row in measured]))


def _network(options: LoopGrowthOptions) -> Wav2Vec2Model:
    """A network whose hidden states have the geometry, and hardly anything else."""
    configuration = Wav2Vec2Config(
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        intermediate_size=16,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
    )
    return Wav2Vec2Model(configuration)


def fabricate(folder: Path, rows: int, encoder: str, options: LoopGrowthOptions) -> Pool:
    """A pool of so many training utterances with cached features and no sound, made once."""
    if (folder / MANIFEST).exists():
        return open_pool(str(folder))
    shards: dict[str, Any] = {}
    ids = list[str]()
    base = _base_features(options)
    total = rows + 2 * options.judged
    names = [f"made-{number:05d}" for number in range(-(-total // options.shard_rows))]
    for number, shard in enumerate(names):
        count = min(options.shard_rows, total - number * options.shard_rows)
        rng = np.random.default_rng([number, rows])
        own_ids, shards[shard] = _write_shard(folder, shard, number * options.shard_rows, count, rng, rows, options)
        ids += own_ids
    store = extract_features(_nothing(folder), encoder, uri=str(folder / "features"))
    with track(f"features of {rows} utterances", len(names)) as advance:
        for number, shard in enumerate(names):
            own = ids[number * options.shard_rows : (number + 1) * options.shard_rows]
            schema = store.schema.with_metadata({ENCODER_KEY: store.fingerprint})
            table = pa.table(_features(own, base, np.random.default_rng([number, 1])), schema=schema)
            storage.write_table(store.table_uri("pooled", shard), table, row_group_rows=store.rows_in_group)
            storage.write_table(store.table_uri("quarantine", shard), pa.Table.from_pylist([], QUARANTINE))
            advance(1)
    hashed = pa.table({"utterance_id": ids, "duplicate_of": pa.nulls(len(ids), pa.string())})
    storage.write_json(
        folder / MANIFEST, {"format": FORMAT, "pool_hash": pool_hash(hashed), "revision": 1, "shards": shards}
    )
    return open_pool(str(folder))


def _nothing(folder: Path) -> Pool:
    """A pool without a shard at the address: its feature store is opened and nothing computed."""
    return Pool(uri=str(folder), manifest={"pool_hash": "", "shards": {}})


def _base_features(options: LoopGrowthOptions) -> np.ndarray:
    """(BASE_ROWS, 2, L·D) fp16: row n is of class n modulo the number of classes."""
    rng = np.random.default_rng(0)
    numbers = (options.layers + 1) * options.width
    base = rng.standard_normal((BASE_ROWS, 2, numbers), dtype=np.float32)
    base += 0.1 * rng.standard_normal((len(CLASSES), 2, numbers), dtype=np.float32)[np.arange(BASE_ROWS) % len(CLASSES)]
    return base.astype(np.float16)


def _write_shard(
    folder: Path, shard: str, start: int, count: int, rng: np.random.Generator, rows: int, options: LoopGrowthOptions
) -> tuple[list[str], dict[str, Any]]:
    """The tables of one shard but its features; returns the ids and the entry in the manifest."""
    ids = [f"made-{number:016x}" for number in rng.integers(0, 2**63, count).tolist()]
    judged = options.judged
    columns: dict[str, Any] = {}
    speaker, split, emotion = list[str](), list[str](), list[str]()
    for row, name in enumerate(ids):
        at = start + row
        part = "train" if at < rows else "dev" if at < rows + judged else "test"
        voice = int(name[-6:], 16) % SPEAKERS
        speaker.append(f"{part}-{voice}")
        split.append(part)
        emotion.append(CLASSES[int(name[5:], 16) % BASE_ROWS % len(CLASSES)])
    columns = {"utterance_id": ids, "speaker": speaker, "split": split, "corpus": ["made"] * count}
    columns |= {"audio": [b""] * count, "duration_s": np.float32(1) + rng.random(count, np.float32) * 5}
    columns |= {"language": ["en"] * count, "style": ["natural"] * count, "pcm_hash": ids, "source": ids}
    columns |= {name: np.full(count, value, np.float32) for name, value in MEASURES.items()}
    table = pa.table({n: columns.get(n, pa.nulls(count, UTTERANCE.field(n).type)) for n in UTTERANCE.names})
    sums = {"utterances": storage.write_table(folder / "utterances" / f"{shard}.parquet", table.cast(UTTERANCE))}
    gold = {"utterance_id": ids, "emotion": emotion}
    table = pa.table({n: gold.get(n, pa.nulls(count, GOLD.field(n).type)) for n in GOLD.names}, schema=GOLD)
    sums["gold"] = storage.write_table(folder / "gold" / f"{shard}.parquet", table)
    for name, schema in (("votes", VOTES), ("quarantine", QUARANTINE)):
        sums[name] = storage.write_table(folder / name / f"{shard}.parquet", schema.empty_table())
    return ids, shard_entry(count, sums)


MEASURES = {"snr_db": 30.0, "clipping": 0.0, "speech_ratio": 0.8, "voice_ratio": 0.8, "loudness_db": -25.0}
MEASURES |= {"bandwidth_hz": 7000.0, "quality": 0.9}


def _features(ids: list[str], base: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Columns of the features: base rows by id, so that the class is that of the label, each a little moved."""
    rows = np.array([int(name[5:], 16) % BASE_ROWS for name in ids])
    values = base[rows]
    values += (0.3 * rng.standard_normal((1, *base.shape[1:]), dtype=np.float32)).astype(np.float16)
    values *= (1 + 0.2 * rng.standard_normal((len(ids), 1, 1), dtype=np.float32)).astype(np.float16)
    return {"utterance_id": ids, **{n: [row.tobytes() for row in values[:, k]] for k, n in enumerate(("mean", "std"))}}


def watch_loop(
    pool: Pool, run: Path, encoder: str, python: str, checkout: str | None, options: LoopGrowthOptions
) -> WatchedLoop:
    """Run the loop in a process of its own and look at its memory while it runs."""
    sizes = [options.per_round * (number + 1) for number in range(options.rounds)]
    settings = {
        "pool": pool.uri,
        "run": str(run),
        "encoder": encoder,
        "classes": list(CLASSES),
        "split": {"scheme": "column"},
        "budget": {"sizes": sizes},
        "random_arm": False,
        "full_arm": False,
        "seeds": [0],
        "probe": False,
    }
    configuration = run.with_suffix(".yaml")
    storage.write_json(configuration, settings)
    watched, started = WatchedLoop(), time.perf_counter()
    with marked_processes() as environment:
        if checkout is not None:
            environment = dict(environment) | {"PYTHONPATH": f"{checkout}/platform:{checkout}"}
        command = [python, "-m", "seral", "loop", "run", str(configuration), *_set(options.settings)]
        process = subprocess.Popen(
            command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        watcher = threading.Thread(target=watch_memory, args=(process.pid, watched), daemon=True)
        watcher.start()
        _, errors = process.communicate()
        watched.seconds = time.perf_counter() - started
        watcher.join()
    if process.returncode:
        watched.failed = errors.decode()[-300:]
    watched.phases = _phases(run)
    return watched


def growth_curves(measured: Sequence[Mapping[str, Any]]) -> Figure:
    """Seconds of a round by phase, memory by process and bytes on disk against the size of the pool."""
    figure = Figure(figsize=(12.4, 3.9), layout="constrained")
    panels = figure.subplots(1, 3)
    curves_of = {
        "seconds of a round": PHASES,
        "memory, GB": ("driver", "worker", "all"),
        "disk, GB": ("features", "run"),
    }
    for axes, (title, curves) in zip(panels, curves_of.items(), strict=True):
        tidy(axes, "utterances", title)
        for side, line in (("this", "-"), ("other", "--")):
            rows = [row for row in measured if row["side"] == side and not row["failed"]]
            for name, (colour, marker, _) in zip(curves, STYLES, strict=False):
                label = name if side == "this" else f"{name}, before"
                look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line, "label": label}
                if rows and (side == "this" or name != "features"):
                    axes.plot([row["rows"] for row in rows], [_height(row, name) for row in rows], **look)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(top=axes.get_ylim()[1] * 8)  # room for the legend
        axes.legend(frameon=False, fontsize=7, labelcolor=INK, loc="upper left", ncols=2)
    return figure


def _height(row: Mapping[str, Any], name: str) -> float:
    """Seconds of a phase, or GB."""
    return float(row["phases"].get(name, np.nan) if name in PHASES else row[f"{name}_mb"] / 1e3)


def _set(settings: list[str]) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def _phases(run: Path) -> dict[str, float]:
    """Seconds of each phase, the mean of all rounds but the first and the last."""
    rounds = sorted(run.glob("trajectories/*/rounds/*/round.json"))
    seconds = pd.DataFrame([storage.read_json(path)["seconds"] for path in rounds])
    middle: Mapping[Any, float] = seconds[1:-1].mean().to_dict() if len(seconds) > 2 else seconds.mean().to_dict()
    first = {"first_select": float(seconds["select"].iloc[0])} if len(seconds) else {}
    return {str(name): round(float(value), 3) for name, value in middle.items()} | first


if __name__ == "__main__":
    run_job(LoopGrowthOptions, run_loop_growth, __doc__)
