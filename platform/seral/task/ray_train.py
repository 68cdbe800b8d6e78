"""Ray Train, the one way all trainings here use it: a worker function, restores after a loss, the last checkpoint."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seral import storage
from seral.cluster import ClusterOptions
from seral.errors import TrainError, is_lasting

STATE, WORK = "state.pt", ".train"
OnReport = Callable[[Mapping[str, Any]], None]


@contextmanager
def last_checkpoint(
    worker: Callable[[dict[str, Any]], None],
    spec: Any,
    on: ClusterOptions,
    *,
    what: str,
    name: str,
    work: str,
    on_report: OnReport | None = None,
) -> Iterator[Path]:
    """Train and hand out the folder of the last checkpoint; afterwards it and `work` are gone.

    What says that the training is done has to be written in the block: after it there is nothing left to go on from.

    `worker` is called with {"spec": spec, "on_report": callback of reports}, in this process where there are 0
    workers; only there anybody may hear. `name` must change with whatever is trained: a run of the same name goes on
    from its checkpoint. What goes wrong is a TrainError about `what`.
    """
    import ray.train.torch  # a second of imports, for whoever trains adapters

    trainer = ray.train.torch.TorchTrainer(
        worker,
        train_loop_config={"spec": spec, "on_report": on_report},
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
            callbacks=[_no_second_try()],
        ),
    )
    try:
        result = trainer.fit()
    except ValueError as error:
        raise TrainError(f"{what}: {error}") from error
    except ray.train.WorkerGroupError as error:
        failed = TrainError(f"{what}: {error.worker_failures[0]}")
        failed.lasting = False
        raise failed from error
    except ray.train.ControllerError as error:
        raise TrainError(f"{what}: {error.controller_failure}") from error
    if result.checkpoint is None:
        raise TrainError(f"{what} ended without a checkpoint; its files are in {work}")
    with result.checkpoint.as_directory() as folder:
        yield Path(folder)
    if on.train_workers == 0:
        shutil.rmtree(result.checkpoint.path)
    storage.remove(work)


def _no_second_try() -> Any:
    """A callback of Ray Train's: an error that lasts ends the training, without the tries of a lost worker."""
    import ray.train

    class NoSecondTry(ray.train.UserCallback):  # type: ignore[misc]  # Ray leaves it untyped
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for exception in worker_exceptions.values():
                cause = getattr(exception, "_base_exc", exception)
                if is_lasting(cause):
                    raise cause

    return NoSecondTry()


class StepState:
    """State of a training that counts its steps, kept where it outlives the training.

    Ray Train's workers persist what they report. In this process no report outlives a kill of it, so the states go to
    `uri` without Ray.
    """

    def __init__(self, uri: str, on: ClusterOptions) -> None:
        self._uri, self._on = uri, on

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None at the start."""
        import ray.train

        if (checkpoint := ray.train.get_checkpoint()) is not None:
            with checkpoint.as_directory() as folder:
                return read_state(Path(folder) / STATE)
        return read_state(self._uri) if storage.exists(self._uri) else None

    def save(
        self,
        state: Callable[[], dict[str, Any]],
        scalars: Mapping[str, float],
        *,
        result: Callable[[Path], None] | None = None,
    ) -> None:
        """Keep the state; with `result`, the last one, which writes what the training has made beside it.

        All workers call it and the first one's counts. The folder that is handed out at the end holds the last state.
        """
        import ray.train

        if ray.train.get_context().get_world_rank() != 0:
            ray.train.report(dict(scalars))
            return
        data = state_bytes(state())
        if not self._on.train_workers:
            storage.write_bytes(self._uri, data)
            if result is None:
                return
        folder = Path(tempfile.mkdtemp(prefix="seral-checkpoint-"))
        (folder / STATE).write_bytes(data)
        if result is not None:
            result(folder)
        ray.train.report(dict(scalars), checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
        if self._on.train_workers:
            shutil.rmtree(folder)


def state_bytes(state: dict[str, Any]) -> bytes:
    """The state to go on from as a file, with its checksum."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return storage.seal(buffer.getvalue())


def read_state(uri: str | Path) -> dict[str, Any]:
    """The state to go on from. Raises DamagedError where the file is not the one that was written."""
    state: dict[str, Any] = torch.load(io.BytesIO(storage.read_sealed(uri)), weights_only=True)
    return state
