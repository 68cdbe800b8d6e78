"""The listing of an import is the reader's, lies on disk, and takes little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seral.audio.containers import Cell, Span
from seral.corpora.reading.utterance import Skipped, Utterance, Vote
from seral.errors import ReaderError
from seral.pool.chunks import plan_chunks, task_block
from seral.pool.listing import BATCH_ROWS, Known, Listing, Source
from seral.schema import QUARANTINE

ROWS = (5_000, 25_000)
MOST_BYTES = 600
"""A file that is listed may take so many bytes: 25 to 250 here, with the names of its folder; as objects 1,800."""


def utterance(number: int = 0, **values: Any) -> Utterance:
    name = f"call-{number:06d}"
    return Utterance(audio=Path(f"/calls/{name}.wav"), source=f"{name}.wav", corpus="calls", name=name, **values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"inside": Span(offset=3, size=7, packed="gzip"), "speaker": "s1", "start_s": 0.5, "end_s": 2.0},
        {"inside": Cell(row_group=1, row=2, column="audio", size=9), "text": "„Tschüss“, \0\n", "valence": 2.5},
        {"votes": (Vote(rater="a", emotion="joy", secondary=("hope", "awe")), Vote(arousal=1.0, count=3))},
    ],
)
def test_a_source_comes_back_as_it_was(values: dict[str, Any]) -> None:
    source = Source(utterance=utterance(**values), size=123)
    with Listing([source]) as listing:
        assert listing.source(0) == source
        (row,) = task_block(listing, plan_chunks(listing, np.array([0]), shard_bytes=1)).to_pylist()
        assert [*map(Source.of, row["facts"], row["audio"])] == [source]


def test_paths_need_not_be_text() -> None:
    path = Path("/calls/caf\udce9.wav")
    source = Source(utterance=Utterance(audio=path, source="caf\\xe9.wav", corpus="calls", name="x"), size=-1)
    with Listing([source]) as listing:
        assert listing.source(0).utterance.audio == path


def test_rows_beyond_a_batch_are_found() -> None:
    count = 2 * BATCH_ROWS + 3
    with Listing(Source(utterance=utterance(n), size=n) for n in range(count)) as listing:
        assert [listing.source(row).size for row in (0, BATCH_ROWS - 1, BATCH_ROWS, count - 1)] == [
            0,
            BATCH_ROWS - 1,
            BATCH_ROWS,
            count - 1,
        ]
        files = Known.of(
            [pa.table({"corpus": ["calls"] * 2, "source": ["call-000007.wav"] * 2, "source_bytes": [7, 8]})]
        )
        assert np.flatnonzero(files.rows(listing.sources, "size")).tolist() == [7]
        assert [files.has("calls", "call-000007.wav", size) for size in (7, 9, None)] == [True, False, False]
        assert listing.files.has("calls", "call-000009.wav", None)


@given(
    imported=st.lists(st.tuples(st.sampled_from("ab"), st.text("/é", max_size=2), st.integers(-1, 1)), max_size=30),
    asked=st.lists(st.tuples(st.sampled_from("ab"), st.text("/é", max_size=2), st.integers(-1, 1)), max_size=30),
)
def test_known_files_are_a_set_of_them(imported: list[tuple[str, str, int]], asked: list[tuple[str, str, int]]) -> None:
    names = ("corpus", "source", "source_bytes")
    tables = [
        pa.table(
            {name: pa.array([row[at] for row in rows], QUARANTINE.field(name).type) for at, name in enumerate(names)}
        )
        for rows in (imported, asked)
    ]
    files, expected = Known.of(tables[:1]), [row in imported for row in asked]
    assert files.rows(tables[1], "source_bytes").tolist() == expected
    assert [files.has(*row) for row in asked] == expected


def test_nothing_stays_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def failing() -> Iterator[Source | Skipped]:
        yield Source(utterance=utterance(), size=1)
        raise ReaderError("no more")

    with Listing([Skipped(source="a", corpus="calls", detail="what is it", size=3)]) as listing:
        assert listing.skipped["reason"].to_pylist() == ["unreadable-name"]
        assert listing.sources.num_rows == 0
        assert [*tmp_path.iterdir()]
    with pytest.raises(ReaderError, match="no more"):
        Listing(failing())
    assert [*tmp_path.iterdir()] == []


def a_table(root: Path, count: int) -> None:
    root.mkdir()
    lines = (f"call-{number:07d}.wav,s{number % 97},what is said in call {number}" for number in range(count))
    (root / "manifest.csv").write_text("\n".join(["audio,speaker,text", *lines]))


def a_folder(root: Path, count: int) -> None:
    for day in range(count // 1000):
        (root / f"day-{day:03d}").mkdir(parents=True)
        for number in range(1000):
            (root / f"day-{day:03d}" / f"call-{number:04d}.wav").touch()


def a_corpus(root: Path, count: int) -> None:
    """Files that are named like those of nEMO, whose names are looked through for copies."""
    root.mkdir()
    for number in range(count):
        letters = (chr(ord("A") + number // step % 26) for step in (100, 2600))
        (root / f"{''.join(letters)}0_anger_{number % 100}.wav").touch()


MEASURE = """
import sys, tracemalloc
from pathlib import Path
import numpy as np
import pyarrow as pa
from seral.corpora import READERS
from seral.pool.chunks import plan_chunks
from seral.pool.listing import Listing, Source

for root in sys.argv[2:]:
    tracemalloc.start()
    with Listing(map(Source.listed, READERS[sys.argv[1]](Path(root)))) as listing:
        plan_chunks(listing, np.arange(listing.sources.num_rows), shard_bytes=10**6)
        print(listing.sources.num_rows, tracemalloc.get_traced_memory()[1] + pa.total_allocated_bytes())
    tracemalloc.stop()
"""


@pytest.mark.parametrize(("reader", "make"), [("manifest", a_table), ("folder", a_folder), ("nemo", a_corpus)])
def test_a_file_takes_little_memory(reader: str, make: Callable[[Path, int], None], tmp_path: Path) -> None:
    """In a process of its own, where nobody else takes memory."""
    roots = [tmp_path / str(count) for count in ROWS]
    for root, count in zip(roots, ROWS, strict=True):
        make(root, count)
    path = [str(Path(__file__).resolve().parents[2] / part) for part in ("platform", "")]
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path[:0] = {path}{MEASURE}",
        reader,
        *map(str, [roots[0], *roots]),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()[1:]  # the first time is for imports
    counts, peaks = zip(*(map(int, line.split()) for line in lines), strict=True)
    assert counts == ROWS
    assert (peaks[1] - peaks[0]) / (ROWS[1] - ROWS[0]) < MOST_BYTES
