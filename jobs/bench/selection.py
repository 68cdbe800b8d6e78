"""Strategies beside their plain definitions and beside other libraries: same data, same budget, one run.

    python -m jobs.bench.selection rows=100000

Times as ratios, larger = seral is faster, and what the picks are worth: the covering radius (the largest distance of a
row to what is picked or labelled), the mean of these distances, and the share of the groups that were met. Libraries
come with the extra `bench`; a side that would take minutes is measured on fewer rows, all sides of a line on the same.
"""

# N rows · M labelled · D features · C classes · R repeats (members of an ensemble)
from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import entropy
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from jobs.bench import plain_picks
from seral import storage
from seral.errors import OptionError
from seral.figures.markdown import markdown
from seral.options import Options, run_job
from seral.progress import say
from seral.selection.candidates import Candidates
from seral.selection.selection import select
from seral.selection.source import read_candidates, shards
from seral.selection.source_options import SourceOptions
from seral.selection.strategies import scores
from seral.vectors.index import nearest
from seral.vectors.view import unit_rows

Floats = NDArray[np.float32]
Rows = NDArray[np.intp]
GROUPS, CLASSES, MEMBERS = 30, 8, 10
NOISE = 0.3
"""Standard deviation of the noise added to a repeated row, where the features have standard deviation 1."""


class SelectionBenchOptions(Options):
    """Options of the selection benchmark."""

    source: SourceOptions | None = None
    """Real features, repeated with noise to size; None = groups of normal rows with a spectrum that falls."""
    rows: int = Field(default=100_000, ge=1000)
    """Rows for lines against a plain definition that can bear it."""
    picks: int = Field(default=1000, ge=10)
    peer_rows: int = Field(default=2000, ge=200)
    """Rows for lines against libraries, and against definitions that compare all rows with all."""
    peer_picks: int = Field(default=50, ge=2)
    width: int = Field(default=256, ge=2)
    """Features of a row."""
    labelled: int = Field(default=50, ge=10)
    seed: int = Field(default=0, ge=0)
    only: list[str] | None = None
    """Strategies to measure; None = all."""
    against: list[str] | None = None
    """Other sides to measure against, such as scikit-activeml; None = all."""
    out: str = "runs/bench-selection"
    """Folder of the tables."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Rows, what a model says of them, and what is labelled."""

    x_ND: Floats
    p_NC: Floats
    p_RNC: Floats
    group_N: NDArray[np.int64]
    labelled_MD: Floats
    labelled_group_M: NDArray[np.int64]
    picks: int
    seed: int

    @property
    def candidates(self) -> Candidates:
        """The problem as candidates for strategies."""
        return Candidates(
            ids=np.array([f"{row:09d}" for row in range(len(self.x_ND))]),
            probability_NC=self.p_NC,
            dropout_RNC=self.p_RNC,
            embedding_ND=self.x_ND,
            labelled_ids=np.array([f"k{row:09d}" for row in range(len(self.labelled_MD))]),
            labelled_embedding_MD=self.labelled_MD,
        )


Side = Callable[[Problem], Any]
"""Problem -> rows picked."""


def make_problem(options: SelectionBenchOptions, rows: int, picks: int) -> Problem:
    """Features to size, a logistic regression on the labelled rows, and an ensemble of them."""
    rng = np.random.default_rng(options.seed)
    count = rows + options.labelled
    x_ND, group_N = _features(options, count, rng)
    class_N = group_N % CLASSES
    free, labelled = np.arange(rows), np.arange(rows, count)
    models = []
    for member in range(MEMBERS + 1):
        sample = labelled if member == 0 else rng.choice(labelled, len(labelled))
        models.append(LogisticRegression(max_iter=1000).fit(x_ND[sample], class_N[sample]))
    p_RNC = np.zeros((MEMBERS + 1, rows, CLASSES), np.float32)
    for member, model in enumerate(models):
        p_RNC[member][:, model.classes_] = model.predict_proba(x_ND[free])
    return Problem(
        x_ND=x_ND[free],
        p_NC=p_RNC[0],
        p_RNC=p_RNC[1:],
        group_N=group_N[free],
        labelled_MD=x_ND[labelled],
        labelled_group_M=group_N[labelled],
        picks=picks,
        seed=options.seed,
    )


def _features(options: SelectionBenchOptions, count: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """So many rows, and the group of each: a component of the mixture, or a cluster of the real features."""
    if options.source is None:
        group_N = rng.integers(GROUPS, size=count)
        spectrum_D = np.linspace(2, 0.1, options.width) ** 2
        centre_GD = rng.normal(size=(GROUPS, options.width))
        x_ND = (centre_GD[group_N] + rng.normal(size=(count, options.width))) * spectrum_D
        return np.asarray(x_ND, dtype=np.float32), group_N
    real_XD = read_candidates(options.source, shards(options.source)).need("embedding_ND").astype(np.float64)
    real_XD = ((real_XD - real_XD.mean(0)) / np.maximum(real_XD.std(0), 1e-6))[:, : options.width]
    group_of_real = KMeans(GROUPS, n_init=1, random_state=0).fit_predict(real_XD).astype(np.int64)
    row_N = rng.integers(len(real_XD), size=count)
    x_ND = real_XD[row_N] + NOISE * rng.normal(size=(count, real_XD.shape[1]))
    return np.asarray(x_ND, dtype=np.float32), group_of_real[row_N]


def plain_k_center(problem: Problem) -> Rows:
    """The textbook with BLAS: one product of a matrix and a vector, and one minimum, a pick."""
    x_ND, square_N = problem.x_ND, np.einsum("nd,nd->n", problem.x_ND, problem.x_ND)
    bound_N, picks = np.full(len(x_ND), np.inf, np.float32), list[int]()
    for centre_D in problem.labelled_MD:
        np.minimum(bound_N, square_N - 2 * (x_ND @ centre_D) + centre_D @ centre_D, out=bound_N)
    while len(picks) < problem.picks:
        row = int(bound_N.argmax())
        picks.append(row)
        np.minimum(bound_N, square_N - 2 * (x_ND @ x_ND[row]) + square_N[row], out=bound_N)
        bound_N[picks] = -np.inf
    return np.array(picks)


def _seeding(x_ND: Floats, first: int | None, labelled_MD: Floats, picks: int, seed: int) -> Rows:
    """The textbook of k-means++: all distances for every draw."""
    rng, square_N = np.random.default_rng(seed), np.einsum("nd,nd->n", x_ND, x_ND)
    bound_N, chosen = np.full(len(x_ND), np.inf, np.float32), list[int]()
    for centre_D in labelled_MD:
        np.minimum(bound_N, square_N - 2 * (x_ND @ centre_D) + centre_D @ centre_D, out=bound_N)
    while len(chosen) < picks:
        if first is not None and not chosen:
            row = first
        else:
            weight_N = np.maximum(bound_N, 0).astype(np.float64)
            row = int(rng.choice(len(x_ND), p=weight_N / weight_N.sum()))
        chosen.append(row)
        np.minimum(bound_N, square_N - 2 * (x_ND @ x_ND[row]) + square_N[row], out=bound_N)
        bound_N[chosen] = 0
    return np.array(chosen)


def plain_k_means_plus_plus(problem: Problem) -> Rows:
    """One pass over all rows a draw."""
    return _seeding(problem.x_ND, None, problem.labelled_MD, problem.picks, problem.seed)


def plain_badge(problem: Problem) -> Rows:
    """The gradient embedding built, C·D numbers a row."""
    error_NC = problem.p_NC - np.eye(problem.p_NC.shape[1], dtype=np.float32)[problem.p_NC.argmax(axis=1)]
    gradient_NG = np.einsum("nc,nd->ncd", error_NC, problem.x_ND).reshape(len(error_NC), -1)
    largest = int(np.einsum("ng,ng->n", gradient_NG, gradient_NG).argmax())
    return _seeding(gradient_NG, largest, np.empty((0, gradient_NG.shape[1]), np.float32), problem.picks, problem.seed)


def plain_k_means(problem: Problem) -> Rows:
    """scikit-learn's k-means, and the nearest row to each centroid."""
    unit_ND = normalize(problem.x_ND)
    centre_KD = KMeans(problem.picks, n_init=1, random_state=problem.seed, max_iter=20).fit(unit_ND).cluster_centers_
    return np.unique(NearestNeighbors(n_neighbors=1).fit(unit_ND).kneighbors(centre_KD)[1])


def plain_after(problem: Problem) -> Rows:
    """The most ambiguous, five times as many as are wanted, and scikit-learn's k-means of them."""
    short = scores.top_rows(scores.margin(problem.p_NC), 5 * problem.picks)
    return short[plain_k_means(replace(problem, x_ND=problem.x_ND[short]))]


def plain_bald(problem: Problem) -> Rows:
    """All members at once, in double precision."""
    p_RNC = problem.p_RNC.astype(np.float64)
    return scores.top_rows(entropy(p_RNC.mean(axis=0), axis=1) - entropy(p_RNC, axis=2).mean(axis=0), problem.picks)


def plain_cluster_margin(problem: Problem) -> Rows:
    """Hierarchical clustering of the whole pool, average linkage, then its clusters in turn, as in the paper."""
    margin_N, unit_ND = scores.margin(problem.p_NC), normalize(problem.x_ND)
    cluster_N = AgglomerativeClustering(problem.picks, linkage="average", metric="cosine").fit_predict(unit_ND)
    short = scores.top_rows(margin_N, 10 * problem.picks)
    queues = [short[cluster_N[short] == cluster].tolist() for cluster in np.unique(cluster_N[short])]
    picks: list[int] = []
    while len(picks) < problem.picks:
        for queue in sorted(queues, key=len):
            if queue and len(picks) < problem.picks:
                picks.append(queue.pop(0))
    return np.array(picks)


def plain_batch_bald(problem: Problem) -> Rows:
    """Every candidate's joint entropy by itself, all answers while they are at most 4096."""
    p_RNC, picks, joint_JR = problem.p_RNC.astype(np.float64), list[int](), np.ones((1, len(problem.p_RNC)))
    expected_N = np.mean([scores.entropy(p_NC) for p_NC in problem.p_RNC], axis=0)
    while len(picks) < problem.picks and len(joint_JR) * p_RNC.shape[2] <= 4096:
        gain_N = np.full(p_RNC.shape[1], -np.inf)
        for row in set(range(p_RNC.shape[1])) - set(picks):
            p_JC = joint_JR @ p_RNC[:, row] / len(p_RNC)
            gain_N[row] = -(p_JC * np.log(np.maximum(p_JC, 1e-30))).sum() - expected_N[row]
        picks.append(int(gain_N.argmax()))
        joint_JR = (joint_JR[:, None] * p_RNC[:, picks[-1]].T).reshape(-1, len(p_RNC))
    return np.array(picks)


def plain_density(problem: Problem) -> Rows:
    """The similarity of all pairs."""
    similar_N = (1 + cosine_similarity(problem.x_ND).mean(axis=1)) / 2
    return scores.top_rows(scores.entropy(problem.p_NC) * similar_N, problem.picks)


def plain_max_herding(problem: Problem) -> Rows:
    """The whole matrix of kernels, and every gain for every pick."""
    weight_N = np.ones(len(problem.x_ND))
    return plain_picks.herding(problem.x_ND, problem.labelled_MD, weight_N, 1.0, problem.picks)


def plain_uncertainty_herding(problem: Problem) -> Rows:
    """The whole matrix of kernels, and every gain for every pick."""
    weight_N, width = 1 + scores.margin(problem.p_NC), plain_picks.least_distance(problem.labelled_MD)
    return plain_picks.herding(problem.x_ND, problem.labelled_MD, weight_N, width, problem.picks)


def plain_dcom(problem: Problem) -> Rows:
    """All pairs of rows, and all counts for every pick."""
    return plain_picks.dynamic_coverage(problem.x_ND, problem.p_NC, problem.labelled_MD, problem.picks)


def plain_dropquery(problem: Problem) -> Rows:
    """scikit-learn's k-means of what two of the first three members say otherwise; few of these is what they are."""
    changes_RN = problem.p_RNC[:3].argmax(axis=2) != problem.p_NC.argmax(axis=1)
    rows = np.flatnonzero(changes_RN.sum(axis=0) > 1)
    return rows[plain_k_means(replace(problem, x_ND=problem.x_ND[rows], picks=min(problem.picks, len(rows))))]


def plain_tcm(problem: Problem) -> Rows:
    """The smallest margins, sorted in Python: there are labels enough for the second phase."""
    top_NC = np.sort(problem.p_NC.astype(np.float64), axis=1).tolist()
    return np.array(sorted(range(len(top_NC)), key=lambda row: top_NC[row][-1] - top_NC[row][-2])[: problem.picks])


def _scikit_activeml(name: str, **options: Any) -> Side:
    """A strategy of scikit-activeml, on labels of the labelled rows and nothing else."""

    def run(problem: Problem) -> Rows:
        from skactiveml import pool
        from skactiveml.classifier import SklearnClassifier

        x_ND = np.concatenate([problem.x_ND, problem.labelled_MD])
        label_N = np.concatenate([np.full(len(problem.x_ND), np.nan), problem.labelled_group_M % CLASSES])
        strategy = getattr(pool, name)(random_state=problem.seed, **options)
        model: dict[str, Any] = {}
        if name in ("Badge", "UncertaintySampling"):
            fitted = SklearnClassifier(LogisticRegression(max_iter=1000), classes=list(range(CLASSES)), random_state=0)
            model = {"clf": fitted.fit(problem.labelled_MD, problem.labelled_group_M % CLASSES), "fit_clf": False}
        return np.asarray(strategy.query(X=x_ND, y=label_N, batch_size=problem.picks, **model), dtype=np.intp)

    return run


def small_text_k_center(problem: Problem) -> Rows:
    """small-text's greedy core-set."""
    from small_text.query_strategies.coresets import greedy_coreset

    x_ND, free = np.concatenate([problem.x_ND, problem.labelled_MD]), np.arange(len(problem.x_ND))
    labelled = np.arange(len(free), len(x_ND))
    picked: Rows = greedy_coreset(x_ND, free, labelled, problem.picks, distance_metric="euclidean")
    return picked


def small_text_k_means(problem: Problem) -> Rows:
    """small-text's k-means of embeddings."""
    from small_text.query_strategies import EmbeddingKMeans

    x_ND, free = np.concatenate([problem.x_ND, problem.labelled_MD]), np.arange(len(problem.x_ND))
    labelled = np.arange(len(free), len(x_ND))
    picked: Rows = EmbeddingKMeans().sample(None, x_ND, free, labelled, None, problem.picks, x_ND)
    return picked


@dataclass(frozen=True, kw_only=True)
class Line:
    """A strategy and who it is measured against."""

    strategy: str
    other: str
    side: Side
    large: bool = False
    """On `rows` rows and not on `peer_rows`."""
    picks: int | None = None
    """Fewer picks than the others, where the other side can make no more."""


LINES = [
    Line(strategy="k_center", other="plain BLAS", side=plain_k_center, large=True),
    Line(strategy="k_center", other="small-text", side=small_text_k_center),
    Line(strategy="k_center", other="scikit-activeml", side=_scikit_activeml("CoreSet")),
    Line(strategy="k_means_plus_plus", other="textbook", side=plain_k_means_plus_plus, large=True),
    Line(strategy="badge", other="materialised", side=plain_badge, large=True),
    Line(strategy="badge", other="scikit-activeml", side=_scikit_activeml("Badge")),
    Line(strategy="k_means", other="scikit-learn", side=plain_k_means),
    Line(strategy="k_means", other="small-text", side=small_text_k_means),
    Line(strategy="typiclust", other="scikit-activeml", side=_scikit_activeml("TypiClust")),
    Line(strategy="prob_cover", other="scikit-activeml", side=_scikit_activeml("ProbCover")),
    Line(strategy="cluster_margin", other="hierarchical", side=plain_cluster_margin),
    Line(strategy="batch_bald", other="one by one", side=plain_batch_bald, picks=4),
    Line(strategy="density", other="all pairs", side=plain_density),
    Line(strategy="max_herding", other="all kernels", side=plain_max_herding),
    Line(strategy="uncertainty_herding", other="all kernels", side=plain_uncertainty_herding),
    Line(strategy="dcom", other="all pairs", side=plain_dcom),
    Line(strategy="dropquery", other="scikit-learn", side=plain_dropquery),
    Line(strategy="tcm", other="sorted in Python", side=plain_tcm),
    Line(strategy="after", other="scikit-learn", side=plain_after),
    Line(strategy="bald", other="all members", side=plain_bald),
    Line(
        strategy="least_confidence",
        other="scikit-activeml",
        side=_scikit_activeml("UncertaintySampling", method="least_confident"),
    ),
    Line(strategy="random", other="scikit-activeml", side=_scikit_activeml("RandomSampling")),
    Line(strategy="entropy", other="scikit-activeml", side=_scikit_activeml("UncertaintySampling", method="entropy")),
    Line(
        strategy="margin",
        other="scikit-activeml",
        side=_scikit_activeml("UncertaintySampling", method="margin_sampling"),
    ),
]
"""A new comparison is one line here."""


def run_selection_bench(options: SelectionBenchOptions) -> str:
    """Measure every line and write the table; returns it as Markdown."""
    lines = [line for line in LINES if options.only is None or line.strategy in options.only]
    lines = [line for line in lines if options.against is None or line.other in options.against]
    if not lines:
        comparisons = ", ".join(sorted({f"{line.strategy} against {line.other}" for line in LINES}))
        raise OptionError(f"nothing to measure of {options.only} against {options.against}; there are {comparisons}")
    table = []
    unit_rows(np.zeros((1, 1), np.float32))  # imports torch, which counts on no side
    for large in (False, True):
        chosen = [line for line in lines if line.large == large]
        if not chosen:
            continue
        rows, picks = (options.rows, options.picks) if large else (options.peer_rows, options.peer_picks)
        problem = make_problem(options, rows, picks)
        for line in chosen:
            say(f"{line.strategy} against {line.other}, {rows} rows")
            try:
                table.append(_measure(line, problem))
            except ImportError as missing:
                say(f"left out: {missing.name} is not installed; `make bench-selection` installs it")
                continue
            storage.write_bytes(
                storage.join(options.out, "table.csv"), pd.DataFrame(table).to_csv(index=False).encode()
            )
    text = markdown(pd.DataFrame(table))
    storage.write_bytes(storage.join(options.out, "table.md"), text.encode())
    return text


def _measure(line: Line, problem: Problem) -> dict[str, Any]:
    picks = line.picks or problem.picks
    sized = replace(problem, picks=picks)
    candidates, rng = sized.candidates, np.random.default_rng(problem.seed)
    names, seconds = timed(lambda: select(line.strategy, candidates, picks, rng))
    own_rows = np.array([int(name) for name in names])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the other library
        other_rows, other_s = timed(lambda: line.side(sized))
    record: dict[str, Any] = {
        "strategy": line.strategy,
        "against": line.other,
        "rows": len(problem.x_ND),
        "picks": picks,
    }
    record |= {"seconds": seconds, "other_seconds": other_s, "ratio": other_s / seconds}
    record["same"] = len(set(own_rows.tolist()) & set(np.asarray(other_rows).tolist())) / picks
    for side, picked in (("", own_rows), ("other_", np.asarray(other_rows, dtype=np.intp))):
        record |= {f"{side}{name}": value for name, value in _worth(sized, picked).items()}
    return record


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call, and its wall-clock seconds."""
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started


def worth(x_ND: Floats, chosen_XD: Floats) -> tuple[float, float]:
    """The largest and the mean distance of rows to the nearest chosen row."""
    distance_N = np.sqrt(nearest(x_ND, chosen_XD, 1).distance_QK[:, 0])
    return float(distance_N.max()), float(distance_N.mean())


def _worth(problem: Problem, picked: Rows | Sequence[int]) -> dict[str, float]:
    """Covering radius, mean distance and the share of groups met, by what is picked and labelled."""
    radius, distance = worth(problem.x_ND, np.concatenate([problem.labelled_MD, problem.x_ND[picked]]))
    share_of_groups = len(set(problem.group_N[picked].tolist())) / len(set(problem.group_N.tolist()))
    return {"radius": radius, "distance": distance, "groups": share_of_groups}


if __name__ == "__main__":
    run_job(SelectionBenchOptions, run_selection_bench, __doc__)
