"""Files of a submitted job, and tasks side by side."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import ray

from seral.cluster import ClusterOptions, run_side_by_side, runtime_env
from seral.errors import TrainError

ROOT = Path(__file__).resolve().parents[1]


def test_a_job_ships_both_packages_as_source_and_no_folder_called_platform() -> None:
    shipped = [Path(folder) for folder in runtime_env(ROOT / "jobs")["py_modules"]]
    assert [folder.name for folder in shipped] == ["seral", "ser_models"]
    assert all((folder / "__init__.py").is_file() for folder in shipped)


def test_everything_a_worker_needs_fits_into_one_upload() -> None:
    files = [path for folder in runtime_env()["py_modules"] for path in Path(folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6


def test_a_ray_that_does_not_come_up_is_a_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "a-file"
    blocked.touch()
    code = "from seral.cluster import *\ntry:\n    connect()\nexcept JobError as error:\n    print(error)"
    environment = os.environ | {"RAY_TMPDIR": str(blocked / "ray")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Ray did not come up on this machine: [Errno 20] Not a directory"), done
    assert "the same command again" in done.stdout


@pytest.mark.slow
def test_ray_comes_up_on_a_machine_so_busy_that_its_raylet_is_slow() -> None:
    code = """
import threading, time, psutil, ray
from seral.cluster import *

def hold_up() -> None:
    raylets: list[psutil.Process] = []
    while not raylets:
        raylets = [child for child in psutil.Process().children(recursive=True) if child.name() == "raylet"]
    raylets[0].suspend()
    time.sleep(35)
    raylets[0].resume()

threading.Thread(target=hold_up, daemon=True).start()
start = time.monotonic()
connect(ClusterOptions(cpus=1))
print(time.monotonic() - start > 35, ray.is_initialized())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "True True\n", done.stderr


def test_a_ray_whose_raylet_dies_on_the_way_up_is_started_anew() -> None:
    code = """
import sys, threading, time, psutil, ray
from contextlib import suppress
from seral.cluster import *

def kill(times: int) -> None:
    killed: set[int] = set()
    while len(killed) < times:
        time.sleep(0.1)
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                if child.name() == "raylet" and child.pid not in killed:
                    child.kill()
                    killed.add(child.pid)

threading.Thread(target=kill, args=(int(sys.argv[1]),), daemon=True).start()
try:
    connect(ClusterOptions(cpus=1))
except JobError as error:
    print(error)
else:
    print(ray.get(ray.remote(lambda: "up").remote()))
"""
    words = "Ray did not come up: its raylet was killed by SIGKILL; it is started anew"
    for times, outcome in ((1, "up"), (3, "Ray did not come up on this machine: its raylet was killed by SIGKILL.")):
        done = subprocess.run([sys.executable, "-c", code, str(times)], capture_output=True, text=True, check=True)
        assert done.stdout.startswith(outcome), done
        assert done.stderr.count(words) == min(times, 2)


def test_gpus_that_are_not_there_or_not_used_are_named() -> None:
    code = """
import ray
from seral.cluster import *
try:
    connect(ClusterOptions(cpus=1, gpus=0, use_gpu=True))
except JobError as error:
    print(error)
ray.shutdown()
connect(ClusterOptions(cpus=1, gpus=2))  # so many are offered, whether they are there or not
print(encoder_actors(ClusterOptions()), encoder_actors(ClusterOptions(use_gpu=True)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "cluster.use_gpu is true, and Ray sees no GPU on this machine: leave it out, or see to it",
        "1 2",
    ]
    assert "2 GPUs of the cluster are not used: cluster.use_gpu=true runs encoders" in done.stderr


@pytest.mark.ray
def test_a_task_whose_worker_is_lost_too_often_is_named(tmp_path: Path, ray_session: None) -> None:
    on, done = ClusterOptions(max_failures=1), list[int]()

    @ray.remote(max_retries=on.max_failures)
    def lose_workers(name: str, times: int) -> None:
        tries = tmp_path / name
        tries.write_text(tries.read_text() + "." if tries.exists() else ".")
        if len(tries.read_text()) <= times:
            os.kill(os.getpid(), signal.SIGKILL)

    tasks = {name: partial(lose_workers.remote, name, times) for name, times in {"once": 1, "always": 9}.items()}
    with pytest.raises(TrainError, match=r"^1 of 2 failed; always: .*cluster\.max_failures, which is 1"):
        run_side_by_side(tasks, on, done.append)
    assert sum(done) == 2
    assert {name: len((tmp_path / name).read_text()) for name in tasks} == {"once": 2, "always": 2}
