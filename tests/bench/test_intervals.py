from __future__ import annotations

from jobs.bench.intervals import IntervalOptions, run_intervals


def test_both_kinds_of_interval_stand_side_by_side_and_percentiles_of_three_are_too_narrow() -> None:
    options = IntervalOptions(units=[3], repetitions=300, resamples=200)
    lines = run_intervals(options).splitlines()
    assert len(lines) == 3
    shares = [float(cell) for cell in lines[2].strip("| ").split(" | ")]
    assert shares[0] == 3
    by_t, by_percentiles = shares[1::2], shares[2::2]
    assert min(by_t) > 90 > max(by_percentiles)
    assert run_intervals(options).splitlines() == lines
