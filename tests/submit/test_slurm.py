"""The script for SLURM, run to the end of a loop by a stand-in for the scheduler, on two nodes of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from seral.verbs.examples import text_of

NODES = """
export RAY_gcs_rpc_server_reconnect_timeout_s=5  # in which the other node notices that the first has ended
mkdir -p /run/netns && mount -t tmpfs none /run/netns
ip netns add one && ip netns add two
ip link add first netns one type veth peer name second netns two
for node in one:10.9.8.1:first two:10.9.8.2:second; do
  IFS=: read name address link <<< "$node"
  ip -n $name link set lo up && ip -n $name address add $address/24 dev $link && ip -n $name link set $link up
done
"""
"""Two hosts, each with a network of its own, and a wire between them."""
SBATCH = """#!/bin/bash
# sbatch --nodes=N SCRIPT ...: runs a copy of the script on the first node, as SLURM does, and writes its log.
nodes=${1#--nodes=}
script=$2
shift 2
cp "$script" "$HOME/spooled"
export SLURM_JOB_ID=4711 SLURM_JOB_NODELIST="node[1-$nodes]" SLURM_JOB_NUM_NODES=$nodes
export SLURM_CPUS_PER_TASK=1 SLURM_SUBMIT_DIR=$PWD
exec ip netns exec one bash "$HOME/spooled" "$@" > seral-4711.log 2>&1
"""
SRUN = """#!/bin/bash
# srun COMMAND ...: on every node, among processes and in a /tmp/ray of its own; ends as the worst of them.
status=0
for node in one two; do
  ip netns exec $node unshare --pid --mount --fork --kill-child --mount-proc bash -c \
    'mount -t tmpfs none /tmp/ray; exec "$@"' bash "$@" &
done
for job in $(jobs -p); do wait $job || { status=$?; echo "a node ended with $status"; }; done
exit $status
"""
SCONTROL = """#!/bin/bash
# scontrol show hostnames LIST: one a line.
printf '%s\\n' 10.9.8.1 10.9.8.2
"""


@pytest.mark.slow
def test_a_loop_comes_to_its_end_on_two_nodes_of_an_allocation(
    apart: Callable[[str], CompletedProcess[str]], tmp_path: Path, run_values: dict[str, Any]
) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "slurm.sh").write_text(text_of("slurm.sh"))
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run_values))
    done = apart(f"{NODES}sbatch --nodes=2 slurm.sh loop --config run.yaml")
    log = tmp_path / "seral-4711.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.is_file() else "")
    assert not list(tmp_path.glob(".seral-*.status"))
    assert "Connecting to Ray cluster at 10.9.8.1" in log.read_text()
    assert len(list(Path(run_values["run"], "trajectories").iterdir())) == 3  # an arm each
