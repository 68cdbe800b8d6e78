from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pytest
import soundfile as sf

from jobs.bench.labels import LabelsBenchOptions, Record, check, run_labels_bench
from seral import storage
from seral.errors import LabelError
from seral.labels.ledger import Ledger
from seral.labels.records import Answer, Project
from seral.pool.shards import FORMAT, MANIFEST
from seral.schema import UTTERANCE


def test_people_label_before_a_server_that_is_killed_and_all_is_counted(
    tmp_path: Path, speech: Callable[..., object]
) -> None:
    sink = BytesIO()
    sf.write(sink, speech(0.2, 0), 16_000, format="FLAC")
    rows = [{"utterance_id": f"calls-{number}", "audio": sink.getvalue()} for number in range(12)]
    pool = str(tmp_path / "pool")
    storage.write_table(f"{pool}/utterances/one.parquet", pa.Table.from_pylist(rows, UTTERANCE))
    storage.write_json(f"{pool}/{MANIFEST}", {"format": FORMAT, "pool_hash": "", "shards": {"one": {"rows": 12}}})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    work = tmp_path / "work"
    options = LabelsBenchOptions(pool=pool, people=6, clips=4, think_s=0.02, port=port, work=str(work))
    table = run_labels_bench(options)
    assert re.search(r"6 people, 24 answers .* 1 kills, \d+ requests sent again", table)
    raw = json.loads((work / "labels.json").read_text())
    assert raw["seconds"]["submit"]["requests"] == raw["answers"] == 24


def test_losses_are_told(tmp_path: Path) -> None:
    ledger = Ledger.create(str(tmp_path / "labels.sqlite"), Project(classes=("anger", "joy")))
    ledger.ask("bench", ["a", "b"], purpose="round")
    ledger.record([Answer(utterance_id="a", person="ada", emotions=("joy",), key="k")])
    with pytest.raises(LabelError, match="1 of 2 confirmed answers are not in the ledger"):
        check(ledger, [Record(utterance_of={"k": "a", "other": "b"})])
    with pytest.raises(LabelError, match="1 answers are in the ledger that nobody has given"):
        check(ledger, [Record()])
    with pytest.raises(LabelError, match="1 of 2 clips are done"):
        check(ledger, [Record(utterance_of={"k": "a"})])
    ledger.close()
