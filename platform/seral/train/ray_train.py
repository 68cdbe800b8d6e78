"""Ray Train, the one way all trainings here use it: a worker function, restores after a loss, the last checkpoint."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch

from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import TrainError


@contextmanager
def last_checkpoint(
    worker: Callable[[dict[str, Any]], None],
    spec: Any,
    on: ClusterOptions,
    *,
    what: str,
    name: str,
    work: str,
) -> Iterator[Path]:
    """Train and hand out the folder of the last checkpoint; afterwards it and `work` are gone.

    `worker` is called with {"spec": spec}, in this process where there are 0 workers. `name` must change with whatever
    is trained: a run of the same name goes on from its checkpoint. What goes wrong is a TrainError about `what`.
    """
    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config={"spec": spec},
        scaling_config=ray.train.ScalingConfig(
            num_workers=on.train_workers,
            use_gpu=on.use_gpu,
            resources_per_worker={"CPU": on.cpus_per_worker} | ({"GPU": 1} if on.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=work,
            failure_config=ray.train.FailureConfig(max_failures=on.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    try:
        result = trainer.fit()
    except ValueError as error:
        raise TrainError(f"{what}: {error}") from error
    except ray.train.WorkerGroupError as error:
        raise TrainError(f"{what}: {error.worker_failures[0]}") from error
    if result.checkpoint is None:
        raise TrainError(f"{what} ended without a checkpoint; its files are in {work}")
    with result.checkpoint.as_directory() as folder:
        yield Path(folder)
    if on.train_workers == 0:
        shutil.rmtree(result.checkpoint.path)
    storage.remove(work)
