"""Selection on a cluster of several nodes, in a process of its own: the session's Ray is one node."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SCRIPT = """
import json, sys
import ray
from ray.cluster_utils import Cluster
from seral.active.batch import BatchOptions, run_batch
from seral.options import parse

folder = sys.argv[1]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
told = {"nodes": len([node for node in ray.nodes() if node["Alive"]])}
for strategy in ("k_center", "badge"):
    source = {"features": f"{folder}/features", "predictions": f"{folder}/predictions"}
    values = {"source": source, "strategy": strategy, "count": 60, "parts": 3, "out": f"{folder}/{strategy}.parquet"}
    told[strategy] = run_batch(parse(BatchOptions, values))
print(json.dumps(told))
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_three_nodes_pick_what_one_machine_picks(tmp_path: Path) -> None:
    from seral.active.batch import BatchOptions, run_batch
    from seral.options import parse

    rng = np.random.default_rng(0)
    names = [f"u{number:04d}" for number in rng.permutation(3000)]
    for folder in ("features", "predictions"):
        (tmp_path / folder).mkdir()
    for number, ids in enumerate(np.array_split(np.array(names), 6)):
        x_ND = rng.normal(size=(len(ids), 16)).astype(np.float16)
        cells = pa.array([row.tobytes() for row in x_ND], pa.binary(32))
        table = pa.table({"utterance_id": ids.tolist(), "embedding": cells})
        pq.write_table(table, tmp_path / "features" / f"{number}.parquet")
        p_NC = rng.dirichlet(np.ones(3), size=len(ids)).astype(np.float32)
        known = {"utterance_id": ids.tolist()} | {f"p_{c}": p_NC[:, c] for c in range(3)}
        pq.write_table(pa.table(known), tmp_path / "predictions" / f"{number}.parquet")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["nodes"] == 3
    for strategy in ("k_center", "badge"):
        assert told[strategy]["exact"]
        many = pq.read_table(tmp_path / f"{strategy}.parquet")["utterance_id"].to_pylist()
        source = {"features": str(tmp_path / "features"), "predictions": str(tmp_path / "predictions")}
        out = str(tmp_path / "alone.parquet")
        run_batch(parse(BatchOptions, {"source": source, "strategy": strategy, "count": 60, "out": out}))
        assert pq.read_table(out)["utterance_id"].to_pylist() == many
