"""Benchmark of what a final model's card expects, against speakers that neither the model nor its run has heard.

    python -m jobs.bench.final_model config=jobs/configs/emodb-final.yaml

Speakers are dealt into groups. Each in turn is taken out of the pool; a loop runs on the others and its final model is
fitted. Then that model and every fold model of the loop predict the group that was left out: is the UAR of the final
model what its card expects, and is it level with the fold models?
"""

# G groups
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from ser_models.intervals import mean_interval
from ser_models.metrics import uar
from seral import storage
from seral.figures.markdown import markdown
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.models.fit import fit_final
from seral.models.options import FinalOptions, PredictOptions
from seral.models.prediction import model_folder, predict
from seral.options import Options, load, run_job
from seral.pool.derive import SelectOptions, select_from_pool
from seral.pool.shards import open_pool
from seral.task.cells import write_table
from seral.task.folds import codes
from seral.task.gold import Oracle


class FinalModelBenchOptions(Options):
    """Options of the benchmark of final models."""

    config: str
    """YAML file of the loop, on a pool of one corpus with gold labels; its `run` is the folder of everything."""
    settings: list[str] = Field(default=[])
    """Options of the loop that are others than in the file, as KEY=VALUE."""
    groups: int = Field(default=5, ge=2)
    """Groups of speakers that are left out in turn, by the order of their names."""


def run_final_model_bench(options: FinalModelBenchOptions) -> str:
    """Leave out what has not been left out yet, and write the table; returns it as text."""
    loop = load(LoopOptions, Path(options.config), options.settings, "loop")
    run, pool = storage.absolute(loop.run), open_pool(loop.pool)
    speakers = sorted(set(pool.metadata["speaker"].to_pylist()))
    rows = []
    for group in range(options.groups):
        folder = storage.join(run, f"group-{group:02d}")
        result = storage.join(folder, "result.json")
        if not storage.exists(result):
            storage.write_json(result, _leave_out(loop, speakers[group :: options.groups], folder))
        rows.append({"group": group, **storage.read_json(result)})
    table = pd.DataFrame(rows)
    figures = [
        _mean("final model", table["final"]),
        _mean("fold models, mean", table["folds"]),
        _mean("fold model of `seral predict`", table["best_on_dev"]),
        _mean("expected by the card", table["expected"]),
        _mean("final - fold models", table["final"] - table["folds"]),
        _mean("final - best on dev", table["final"] - table["best_on_dev"]),
        _mean("final - expected", table["final"] - table["expected"]),
    ]
    write_table(run, table, "groups")
    return f"{markdown(table)}\n\n{write_table(run, pd.DataFrame(figures), 'means')}"


def _mean(name: str, value_G: pd.Series[float]) -> dict[str, Any]:
    low, high, _ = mean_interval(value_G.to_numpy(np.float64))
    return {"what": name, "mean": 100 * float(value_G.mean()), "low": 100 * low, "high": 100 * high}


def _leave_out(loop: LoopOptions, speakers: list[str], folder: str) -> dict[str, Any]:
    """A loop and its final model without some speakers, and what its models say of these."""
    names = ", ".join(speakers)
    pools = {part: storage.join(folder, part) for part in ("others", "left")}
    for part, where in (("others", " and ".join(f"speaker != {name}" for name in speakers)), ("left", "")):
        where = where or f"speaker in ({names})"
        if not storage.exists(storage.join(pools[part], "manifest.json")):
            select_from_pool(SelectOptions(pool=loop.pool, out=pools[part], where=[where]))
    run = run_loop(loop.model_copy(update={"pool": pools["others"], "run": storage.join(folder, "loop")}))
    final = fit_final(FinalOptions(of=run, run=storage.join(run, "final")))
    trajectories = [
        name
        for name in storage.list_names(storage.join(run, "trajectories"))
        if name.startswith(f"{loop.strategy.name}.")
    ]
    score_of = {name: _score(loop, run, pools["left"], name) for name in trajectories}
    (best,) = (name for name in trajectories if f"/{name}/" in model_folder(run))
    return {
        "speakers": names,
        "labels": final["labels"],
        "expected": final["value"],
        "low": final["low"],
        "high": final["high"],
        "final": _score(loop, final["model"], pools["left"], None),
        "folds": float(np.mean(list(score_of.values()))),
        "best_on_dev": score_of[best],
    }


def _score(loop: LoopOptions, run: str, pool: str, trajectory: str | None) -> float:
    """UAR of a model on the speakers that were left out."""
    out = storage.join(run, f"left-{trajectory or 'final'}.parquet")
    predict(PredictOptions(run=run, source=[pool], out=out, trajectory=trajectory, cluster=loop.cluster))
    table = storage.read_table(out).to_pandas().dropna(subset="predicted")
    truth = Oracle(open_pool(pool), loop.classes, loop.class_map).emotions(table["utterance_id"].tolist())
    return uar(codes(truth, loop.classes), codes(table["predicted"].tolist(), loop.classes))


if __name__ == "__main__":
    run_job(FinalModelBenchOptions, run_final_model_bench, __doc__)
