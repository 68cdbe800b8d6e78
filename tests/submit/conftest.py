"""Machines of their own for tests that start Ray as its documentation says, at its usual ports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Apart = Callable[[str], subprocess.CompletedProcess[str]]
SPACES = ["unshare", "--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
SET_UP = "ip link set lo up; mkdir -p /tmp/ray; mount -t tmpfs none /tmp/ray; "


@pytest.fixture
def apart(tmp_path: Path) -> Apart:
    """`apart(script)`: what bash does with it in a network and among processes of its own, at home in `tmp_path`.

    Ray's usual ports are free there, `ray stop` sees no other Ray, and all of it ends with the script.
    """
    if subprocess.run([*SPACES, "bash", "-c", SET_UP], capture_output=True).returncode:
        if os.environ.get("SERAL_TEST_ALL"):
            pytest.fail("spaces of their own (unshare, ip, mount) need root and iproute2")
        pytest.skip("spaces of their own (unshare, ip, mount) need root and iproute2")

    def run(script: str) -> subprocess.CompletedProcess[str]:
        names = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            [*SPACES, "bash", "-c", f"{SET_UP}set -e; cd; {script}"],
            env={**names, "HOME": str(tmp_path), "PATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=1100,
        )

    return run
