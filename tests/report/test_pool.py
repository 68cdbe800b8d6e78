"""The page of a pool: every number on it is one of the pool's, and it needs nothing beside it."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pytest
import soundfile as sf
from corpus_layouts.pool_rows import row, set_shards

from seral import storage
from seral.audio.decode import decode_flac
from seral.audio.quality import REASONS
from seral.errors import OptionError
from seral.options import parse
from seral.pool.revisions import read_entry
from seral.pool.shards import TABLES, open_pool, shard_uri
from seral.report.figures import title_of
from seral.report.pool import MEASURES, PoolReportOptions, write_pool_report


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """20 utterances in two shards and languages, the first ones the worst; one duplicate; two files left out."""
    uri = str(tmp_path_factory.mktemp("report") / "pool")
    for shard in range(2):
        rows = [
            row(f"made-{n:016x}", language="de" if shard else "pl", speaker=f"s{n % 3}", quality=n / 20, seconds=0.5)
            for n in range(10 * shard, 10 * shard + 10)
        ]
        if not shard:
            rows[0]["duplicate_of"] = rows[1]["utterance_id"]
        content: dict[str, list[dict[str, Any]]] = {
            "utterances": rows,
            "gold": [{"utterance_id": r["utterance_id"], "emotion": "anger"} for r in rows],
            "votes": [],
            "quarantine": [{"source": f"x{shard}.wav", "corpus": "made", "reason": "empty"}],
        }
        for table, lines in content.items():
            storage.write_table(shard_uri(uri, table, f"made-{shard}"), pa.Table.from_pylist(lines, TABLES[table]))
    set_shards(uri, {f"made-{n}": read_entry(uri, f"made-{n}") for n in range(2)})
    return uri


def written(pool: str, out: Path, **values: Any) -> str:
    return Path(write_pool_report(parse(PoolReportOptions, {"pool": pool, "out": str(out), **values}))).read_text()


def clips_of(html: str) -> list[tuple[str, bytes]]:
    """Id and audio of every player."""
    pattern = r'<audio controls preload="none" src="data:audio/flac;base64,([^"]+)"></audio><figcaption>(\S+)'
    return [(name, base64.b64decode(data)) for data, name in re.findall(pattern, html)]


def test_the_page_says_what_the_pool_holds(pool: str, tmp_path: Path) -> None:
    html = written(pool, tmp_path / "page.html")
    for words in ("20 utterances, 10.0 s, 3 known speakers, languages: de, pl; 1 are duplicates", REASONS["empty"]):
        assert words in html
    for name in MEASURES:
        listed = f'<th scope="row">{title_of(name)}</th>' in html
        assert listed is (name in ("duration_s", "snr_db", "quality")), "what was not measured has no row"
    assert '<th scope="row">empty</th><td>2</td>' in html
    assert open_pool(pool).hash in html
    assert html.count("data:image/png;base64,") == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html), "nothing is loaded from elsewhere"
    assert "Configuration" not in html


def test_clips_are_the_worst_and_a_seeded_draw(pool: str, tmp_path: Path) -> None:
    clips = clips_of(written(pool, tmp_path / "page.html", players=6))
    names = [name for name, _ in clips]
    assert names[:3] == [f"made-{n:016x}" for n in (1, 2, 3)], "the worst is a duplicate"
    assert len(set(names)) == 9
    audio = {r["utterance_id"]: r["audio"] for s in open_pool(pool).shards for r in open_pool(pool).read(s).to_pylist()}
    for name, flac in clips:
        assert np.array_equal(decode_flac(flac), decode_flac(audio[name]))
    assert clips_of(written(pool, tmp_path / "again.html", players=6)) == clips
    assert [n for n, _ in clips_of(written(pool, tmp_path / "other.html", players=6, seed=1))] != names


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_clips_that_a_table_names_are_heard_with_what_it_says(pool: str, tmp_path: Path, suffix: str) -> None:
    ids = [f"made-{n:016x}" for n in (7, 3, 7, 12)]
    table = pa.table({"utterance_id": ids, "quality": [0.05, 0.0125, 0.05, 0.02], "reason": ["clipping"] * 4})
    named = tmp_path / f"filtered.{suffix}"
    if suffix == "csv":
        pacsv.write_csv(table, named)
    else:
        storage.write_table(named, table)
    html = written(pool, tmp_path / "page.html", hear=str(named), players=2)
    assert [name for name, _ in clips_of(html)] == ids[:2]
    assert f"The first 2 of 3 in filtered.{suffix}:" in html
    assert "quality 0.0125 · reason clipping</figcaption>" in html


def test_a_table_that_names_no_clips_is_refused(pool: str, tmp_path: Path) -> None:
    tables = {"no": pa.table({"id": ["a"]}), "strange": pa.table({"utterance_id": ["nobody", "made-0000000000000001"]})}
    for name, table in tables.items():
        storage.write_table(tmp_path / f"{name}.parquet", table)
    (tmp_path / "text.parquet").write_text("nothing")
    for name, words in {
        "no": "has no column utterance_id; it has id",
        "strange": "names nobody, which",
        "text": "is no Parquet or CSV table",
        "missing": "is no Parquet or CSV table",
    }.items():
        with pytest.raises(OptionError, match=words):
            written(pool, tmp_path / "page.html", hear=str(tmp_path / f"{name}.parquet"))


def test_long_clips_are_cut_and_the_size_is_said(pool: str, tmp_path: Path) -> None:
    html = written(pool, tmp_path / "page.html", players=2, clip_s=0.1)
    clips = clips_of(html)
    assert len(clips) == 3
    assert all(sf.info(io.BytesIO(flac)).frames == 1600 for _, flac in clips)
    size = sum(len(base64.b64encode(flac)) for _, flac in clips) / 1e6
    assert f"The first 0.1 s of 3 clips, {size:.1f} MB" in html


def test_labels_are_counted_only_when_asked_for(pool: str, tmp_path: Path) -> None:
    assert "anger" not in written(pool, tmp_path / "page.html")
    html = written(pool, tmp_path / "gold.html", gold=True)
    assert "Bars of the gold labels: anger 20." in html
    counted = '<th scope="row">anger</th><td>20</td><td>100.0</td><td>made 20</td><td>de 10, pl 10</td>'
    assert counted in html
    assert '"class":"anger","corpus":"made","language":"de","clips":10' in html


def test_no_players_and_an_empty_pool(pool: str, tmp_path: Path) -> None:
    assert 'id="listen"' not in written(pool, tmp_path / "page.html", players=0)
    uri = str(tmp_path / "empty")
    for table, schema in TABLES.items():
        storage.write_table(shard_uri(uri, table, "made"), schema.empty_table())
    set_shards(uri, {"made": read_entry(uri, "made")})
    html = written(uri, tmp_path / "page.html")
    assert "0 utterances" in html
    assert "No file was left out." in html
    assert clips_of(html) == []


def test_another_sharding_gives_the_same_page(pool: str, tmp_path: Path) -> None:
    """All but the address of the pool, its shards and their bytes."""
    opened, other = open_pool(pool), str(tmp_path / "pool")
    for number in range(4):
        for table, schema in TABLES.items():
            rows = storage.read_tables([opened.table_uri(table, shard) for shard in opened.shards], schema)
            share = [row for row in range(rows.num_rows) if row % 4 == number]
            storage.write_table(shard_uri(other, table, f"made-{number}"), rows.take(pa.array(share, pa.int64())))
    set_shards(other, {f"made-{n}": read_entry(other, f"made-{n}") for n in range(4)})
    pages = [written(uri, tmp_path / f"{n}.html", players=6, gold=True) for n, uri in enumerate((pool, other))]
    assert clips_of(pages[0]) == clips_of(pages[1])
    pictures = [re.findall(r'src="data:image/png;base64,([^"]+)"', html) for html in pages]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 3
