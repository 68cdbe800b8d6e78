"""The demonstration: a generated pool, the main job on the embedded encoder, a report. Minutes on two cores.

The speech is synthetic and the encoder is small: it shows how seral works, and proves nothing about emotion.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from seral import storage
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import parse, read_yaml
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.progress import say
from seral.report.report import write_run_report
from seral.synthesis.generate import GenerateOptions, generate

NEXT_STEPS = """
The report: {report}

Three commands to try next on your own data:
  seral pool import folder PATH/TO/YOUR/AUDIO --out data/pool     (or: manifest FILE.csv, emodb, ravdess, ...)
  seral pool stats data/pool
  seral predict {run} PATH/TO/YOUR/AUDIO --out predictions.parquet
Then `seral loop run` with a copy of {run}/config.yaml that names your pool and your classes."""


def run_demo(out: Path) -> str:
    """Generate, import, run the loop and report under `out`; a second call resumes the first."""
    corpus, pool, run = out / "corpus", str(out / "pool"), str(out / "run")
    if not storage.exists(corpus / "manifest.jsonl"):
        say("1/4 generating speech in several languages, with noise and junk")
        generate(GenerateOptions(out=str(corpus)))
    say("2/4 importing it into a pool")
    imported = import_corpus(parse(ImportOptions, {"reader": "manifest", "root": str(corpus), "out": pool}))
    say(f"    {imported['pool_utterances']} utterances, {imported['quarantined']} files in quarantine")
    say("3/4 the active-learning loop: TAPT, features, AFTER beside random selection")
    values = read_yaml(str(files("seral.verbs") / "demo.yaml"))
    run_loop(parse(LoopOptions, values | {"pool": pool, "run": run}))
    say("4/4 the report")
    return NEXT_STEPS.format(report=write_run_report(run), run=run)
