"""Tables that claim more than they hold, or hold more than they weigh: named, in bounded memory."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seral.corpora.options import CorpusOptions, read_corpus
from seral.errors import PoolError
from seral.security.memory import STATM, room
from seral.security.tables import open_parquet

pytestmark = pytest.mark.skipif(not STATM.exists(), reason="Linux bounds a process's memory")
AUDIO = pa.array([{"bytes": b"RIFF", "path": "a.wav"}])
MEASURED = """
import json, re, sys
from pathlib import Path
from seral.corpora.options import CorpusOptions, read_corpus
from seral.errors import PoolError
outcomes = {}
for file in sys.argv[1:]:
    try:
        outcomes[file] = len([*read_corpus(CorpusOptions(reader=f"hf-{file.rsplit('.')[-1]}", root=file))])
    except PoolError as error:
        outcomes[file] = str(error)
memory = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1000
print(json.dumps({"memory_mb": memory, "outcomes": outcomes}))
"""


def varint(number: int) -> bytes:
    """A number as Thrift's compact protocol writes it: zigzag, seven bits a byte."""
    number, out = number << 1, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def page_that_claims(file: Path, *, packed: int, unpacked: int) -> None:
    """The last column's first page claims such sizes."""
    pq.write_table(pa.table({"audio": AUDIO, "text": ["word" * 100]}), file, use_dictionary=False)
    footer = pq.read_metadata(file).row_group(0)
    at = footer.column(footer.num_columns - 1).data_page_offset
    data = file.read_bytes()
    assert data[at : at + 3] == b"\x15\x00\x15"  # field 1: a data page; field 2: its size
    end = at + 3
    for _ in range(2):
        while data[end] & 128:
            end += 1
        end += 2  # past the last byte, and the next field's head
    file.write_bytes(data[: at + 3] + varint(unpacked) + b"\x15" + varint(packed) + data[end - 1 :])


def page_of_two_gigabytes(file: Path) -> None:
    page_that_claims(file, packed=2**31 - 3, unpacked=2**31 - 3)


def unpacked_of_two_gigabytes(file: Path) -> None:
    page_that_claims(file, packed=30, unpacked=2**31 - 3)


def zeros(file: Path) -> None:
    text = pa.array(["0" * 700_000_000], pa.large_string())
    pq.write_table(pa.table({"audio": AUDIO, "text": text}), file, compression="zstd", use_dictionary=False)


def one_text_many_times(file: Path) -> None:
    """Arrow has it once; Python's values have it twenty thousand times."""
    text = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), pa.array(["word" * 250_000]))
    audio = pa.concat_arrays([AUDIO] * 20_000)
    pq.write_table(pa.table({"audio": audio, "text": text}), file, compression="zstd")


def packed_arrow(file: Path) -> None:
    table = pa.table({"audio": AUDIO, "text": pa.array(["0" * 700_000_000], pa.large_string())})
    with pa.ipc.new_stream(str(file), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table)


BOMBS: dict[Callable[[Path], None], str] = {
    page_of_two_gigabytes: "parquet",
    unpacked_of_two_gigabytes: "parquet",
    zeros: "parquet",
    one_text_many_times: "parquet",
    packed_arrow: "arrow",
}


@pytest.mark.slow
def test_bombs_are_named_in_bounded_memory(tmp_path: Path) -> None:
    files = []
    for write, kind in BOMBS.items():
        files.append(tmp_path / f"{write.__name__}.{kind}")
        write(files[-1])
        assert files[-1].stat().st_size < 200_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, files)], capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    for file in files:
        assert file.name in str(result["outcomes"][str(file)])
    assert result["memory_mb"] < 1100


@pytest.mark.parametrize("write", [page_of_two_gigabytes, unpacked_of_two_gigabytes])
def test_a_page_that_claims_two_gigabytes(write: Callable[[Path], None], tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    write(file)
    usual = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(PoolError, match=r"train\.parquet"):
        list(read_corpus(CorpusOptions(reader="hf-parquet", root=str(file))))
    with pytest.raises(PoolError, match=r"train\.parquet: a file of [0-9,]+ bytes that wants more than 537 MB"):
        list(open_parquet(file, file, pre_buffer=False, buffer_size=65_536).iter_batches(16))
    assert resource.getrlimit(resource.RLIMIT_DATA) == usual


def test_a_room_ends_with_its_block() -> None:
    usual = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(MemoryError), room(10**8):
        bytearray(2 * 10**8)
    assert len(bytearray(2 * 10**8)) == 2 * 10**8
    assert resource.getrlimit(resource.RLIMIT_DATA) == usual


def test_rooms_that_meet_are_added() -> None:
    usual = resource.getrlimit(resource.RLIMIT_DATA)
    with room(2 * 10**8):
        with room(10**8):
            assert len(bytearray(2 * 10**8)) == 2 * 10**8
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(_in_a_room, range(200))) == 200
    assert resource.getrlimit(resource.RLIMIT_DATA) == usual


def _in_a_room(_: int) -> bool:
    with room(10**6):
        return bool(bytearray(1000))
