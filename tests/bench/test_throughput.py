import json
import math
from pathlib import Path

import pytest
from corpus_layouts.containers import write_webdataset

from jobs.bench.both_sides import Comparison
from jobs.bench.plain import Timing
from jobs.bench.throughput import BenchOptions, find_clips, run_bench
from seral.errors import OptionError


def test_ratios_count_cores_and_medians():
    comparison = Comparison(
        name="import",
        units=100,
        cores=2,
        seral_s=[4.0, 5.0, 50.0],
        plain=[Timing(wall_s=8.0), Timing(wall_s=7.0), Timing(wall_s=9.0)],
        together=[Timing(wall_s=9.0), Timing(wall_s=10.0)],
    )
    assert comparison.seral_rate == pytest.approx(20)
    assert comparison.plain_rate == pytest.approx(12.5)
    assert comparison.per_core == pytest.approx(20 / (2 * 12.5))
    assert comparison.together_per_core == pytest.approx(10 / 12.5)


def test_work_shorter_than_the_start_taken_off_has_no_rate():
    comparison = Comparison(name="x", units=1, cores=1, seral_s=[-0.2], plain=[Timing(wall_s=1.0)])
    assert math.isnan(comparison.seral_rate)


def test_clips_inside_other_files_are_refused(tmp_path: Path):
    write_webdataset(tmp_path)
    with pytest.raises(OptionError, match="the bench compares plain files"):
        find_clips(tmp_path, BenchOptions(reader="webdataset", corpus=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_table_has_both_sides_of_every_claim(tmp_path: Path):
    out = tmp_path / "bench.json"
    table = run_bench(BenchOptions(utterances=48, copies=1, repeats=1, out=str(out)))

    head, *lines = table.splitlines()
    assert head.split()[:4] == ["seral/s", "plain/s", "cores", "per"]
    for name in ("import / decode+resample+FLAC", "import / decode+resample", "scoring / PyTorch loop"):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        seral, plain, cores, per_core = (float(cell) for cell in line.removeprefix(name).split()[:4])
        assert plain > 0
        if name.startswith("import"):  # scoring so few clips may drown in the start-up that is taken off
            assert per_core == pytest.approx(seral / (cores * plain), abs=0.02)
    record = json.loads(out.read_text())
    assert {len(comparison["plain"]) for comparison in record["comparisons"]} == {1}
    assert record["comparisons"][0]["units"] == 48
    assert 0 <= record["rounds"]["share_inside_rounds"] < record["rounds"]["share_of_run"] < 1
    assert len(record["rounds"]["rounds"]) == 4
