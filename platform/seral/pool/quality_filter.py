"""The quality filter: recordings too bad to ask anybody about, the measure that says so, and whom it leaves out."""

# N rows
from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral.audio.quality import weakest
from seral.pool.ids import Ids, one_array, positions
from seral.pool.splits import Fold
from seral.progress import say
from seral.schema import FILTERED

MEASURES = ("snr_db", "clipping", "bandwidth_hz", "voice_ratio")
DIVIDED_BY = ("corpus", "language", "gender")
"""Columns of the metadata by whose values the share of what is left out is compared."""
SIGNIFICANCE = 0.01
"""Probability, over all comparisons, from which on a difference is taken for chance."""
SLAB = 65_536
"""Rows that are objects at a time."""


def below_quality(ids: Collection[str], metadata: pa.Table, min_quality: float) -> pa.Table:
    """Utterances whose quality is below `min_quality`, schema.FILTERED; what was not measured stays out."""
    rows = metadata.filter(pc.less(metadata["quality"], min_quality))
    rows = rows.filter(pa.array(positions(one_array(rows["utterance_id"]), pa.array(Ids(ids))) >= 0))
    slabs = rows.select(MEASURES).to_batches(max_chunksize=SLAB)
    reasons = [weakest(**row) for slab in slabs for row in slab.to_pylist()]
    columns = {
        "utterance_id": rows["utterance_id"],
        "quality": rows["quality"],
        "reason": pa.array(reasons, pa.string()),
    }
    return pa.table(columns, schema=FILTERED)


def above_quality(fold: Fold, metadata: pa.Table, min_quality: float) -> Fold:
    """The fold without training utterances below `min_quality`. Dev and test judge, so they stay as they are."""
    return fold.without(set(below_quality(fold.train, metadata, min_quality)["utterance_id"].to_pylist()))


def count_reasons(filtered: pa.Table) -> dict[str, int]:
    """Number of utterances filtered out by measure, the most frequent first."""
    counts = pc.value_counts(filtered["reason"]).to_pylist()
    return {line["values"]: line["counts"] for line in sorted(counts, key=lambda line: -line["counts"])}


def say_left_out(folds: Iterable[Fold], metadata: pa.Table, min_quality: float) -> None:
    """Say what `min_quality` leaves out of the training parts of some folds, which still have it, and of whom more."""
    if min_quality == 0:
        return
    ids, is_train_N = one_array(metadata["utterance_id"]), np.zeros(metadata.num_rows, dtype=bool)
    for fold in folds:
        is_train_N |= positions(ids, pa.array(Ids(fold.train))) >= 0
    rows = metadata.select(["quality", *DIVIDED_BY]).filter(pa.array(is_train_N))
    below_N = np.asarray(pc.fill_null(pc.less(rows["quality"], min_quality), False))
    count, total = int(below_N.sum()), len(below_N)
    say(f"min_quality {min_quality:g} leaves out {count:,} of {total:,} training clips ({count / max(1, total):.1%})")
    for line in unequal_shares(below_N, {name: rows[name] for name in DIVIDED_BY}):
        say(f"min_quality {min_quality:g} {line}")


def unequal_shares(below_N: NDArray[np.bool_], columns: Mapping[str, pa.ChunkedArray]) -> list[str]:
    """Values of some columns of which more is left out than chance explains, each a sentence without its subject.

    Every value is held against the others of its column by Fisher's exact test, in one direction, with Bonferroni's
    correction for all of these tests (an error of one in a hundred over all); rows without a value do not count.
    """
    tests = [(name, *test) for name, column in columns.items() for test in _tests(below_N, column)]
    worst = sorted((p_value * len(tests), name, value, own, others) for name, value, own, others, p_value in tests)
    return [
        f"leaves out {own:.1%} of {name} {value}, and {others:.1%} of the others (p = {p_value:.1g}, Fisher's exact "
        f"test, Bonferroni over {len(tests)}): hear the lowest (`seral pool stats POOL --html FILE`) or set it lower"
        for p_value, name, value, own, others in worst
        if p_value < SIGNIFICANCE
    ]


def _tests(below_N: NDArray[np.bool_], column: pa.ChunkedArray) -> Iterator[tuple[str, float, float, float]]:
    """Value, share of it and of the others that is left out, probability of such a surplus by chance."""
    from scipy.stats import fisher_exact  # takes a second to import

    codes = one_array(column).dictionary_encode()
    code_N = np.asarray(codes.indices.fill_null(-1))
    has_value_N = code_N >= 0
    values = codes.dictionary.to_pylist()
    sizes = np.bincount(code_N[has_value_N], minlength=len(values))
    low = np.bincount(code_N[has_value_N & below_N], minlength=len(values))
    for value, size, bad in zip(values, sizes.tolist(), low.tolist(), strict=True):
        other_size, other_bad = int(sizes.sum()) - size, int(low.sum()) - bad
        if size and other_size:
            table = [[bad, size - bad], [other_bad, other_size - other_bad]]
            p_value = float(fisher_exact(table, alternative="greater").pvalue)
            yield str(value), bad / size, other_bad / other_size, p_value
