"""The unlabelled pool by the model of a round, a shard at a time: nobody ever has the whole of it in memory.

    ROUND/predictions/pool/<shard>.parquet   probabilities, for whoever reads the round
    ROUND/selection/<shard>.parquet          what the next round selects by, in the form of `seral select`: no labels
    ROUND/selection/labelled/rows.parquet    the same of what has an answer already

A shard's numbers are those of its clips, whatever process computes them; sums over the pool are taken in the order of
the shards.
"""

# N rows · C classes · K rated dimensions · U embedding · R repeats (dropout passes, members of an ensemble)
from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import compress, groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from ser_models.metrics import confusion_matrix, sums_of_pairs
from seral import storage
from seral.cluster import ClusterOptions
from seral.features.actors import each_item
from seral.features.speakers import SpeakerShifts
from seral.features.store import READERS, FeatureStore, PooledShard
from seral.loop.rounds import LoopFold
from seral.schema import prediction_schema
from seral.selection.strategies.scores import entropy
from seral.task.examples import Utterances
from seral.training.data import SourceModels
from seral.training.ridge_heads import RidgeHeads
from seral.training.scoring import ROWS_IN_BATCH, Float, Outputs, Scorer, Scores

POOL, SELECTION = "predictions/pool", "selection"
LABELLED = "selection/labelled/rows.parquet"
FIGURES = ("rows", "entropy", "change", "moved")
"""Figures of a shard: its clips, the sum of their entropies, and the changes as bytes, see PoolSummary."""
TASKS_EACH = 8
"""Tasks that each of several processes gets: Ray Data leaves a tenth of a second between two of them."""


@dataclass(frozen=True, kw_only=True)
class ScoringPlan:
    """All that a process needs to score shards of the pool for a round; small enough to send."""

    store: FeatureStore
    model: str
    """Folder of the round's model."""
    members: tuple[str, ...]
    """Folders of further models, an ensemble."""
    path: str
    """The folder that the round is written to."""
    before: str | None
    """The folder of the round before, if its predictions are compared with these."""
    classes: tuple[str, ...]
    dimensions: tuple[str, ...]
    needs: frozenset[str]
    """Columns that the next round's strategy reads."""
    dropout_passes: int
    seed: int
    width: int
    """Numbers of an embedding that are written: longer ones are projected."""
    on: ClusterOptions
    ridges: RidgeHeads | None = None
    """An ensemble of heads for ratings on the embedding of the model; None = nobody reads it."""
    shifts: Mapping[str, SpeakerShifts] = field(default_factory=dict)
    """Shifts that are taken from features, by normalisation."""


@dataclass(frozen=True, kw_only=True)
class PoolSummary:
    """Figures of the predictions for the whole unlabelled pool."""

    clips: int
    entropy: float
    """Sum over the clips."""
    change_CC: NDArray[np.int64]
    """Clips by the class predicted in the round before and by that of this one; zeros where none was before."""
    change_6K: NDArray[np.float64]
    """Sums of pairs (ser_models.metrics) of the values predicted in the round before and in this one; likewise."""


class Scored(NamedTuple):
    """Some clips by the models of a round."""

    scores: Scores
    member_RNC: Float | None
    """Probabilities by every member of an ensemble."""
    member_RNK: Float | None
    """Values by every member of an ensemble of ridge heads."""
    ids: list[str]

    def only(self, asked_N: NDArray[np.bool_]) -> Scored:
        """Outputs for some of the clips."""
        members, rated = (None if part is None else part[:, asked_N] for part in (self.member_RNC, self.member_RNK))
        return Scored(self.scores.only(asked_N), members, rated, [*compress(self.ids, asked_N)])


class ShardScorer:
    """The models of a round in one process: shards of pooled features in, their part of the round out."""

    def __init__(self, plan: ScoringPlan) -> None:
        torch.set_num_threads(1)
        self.plan = plan
        self.model, *self.members = (
            Scorer(folder, plan.store, plan.on, plan.shifts) for folder in (plan.model, *plan.members)
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Score rows of some shards, given as int32 bytes; the figures of each shard."""
        rows_of = zip(row["shards"], (np.frombuffer(rows, np.int32) for rows in row["positions"]), strict=True)
        threads = READERS if self.model.frames is None else 1  # adapters compute, and take memory for it
        figures = list[Future[dict[str, Any]]]()
        with ThreadPoolExecutor(1) as writer:
            pieces = self.plan.store.read_ahead(dict(rows_of), self._score, threads)
            for shard, own in groupby(pieces, key=itemgetter(0)):
                scored = [piece for _, piece in own]
                if figures:
                    figures[-1].result()  # no more than one shard waits to be written
                figures.append(writer.submit(self._write, shard, scored))
        return {name: [shard.result()[name] for shard in figures] for name in FIGURES}

    def _score(self, shard: str, part: PooledShard, asked_N: NDArray[np.bool_]) -> Scored:
        if self.model.frames is not None:  # what is computed from sound is not computed in vain
            part, asked_N = part.only(asked_N), asked_N[asked_N]
        units = Utterances(ids=part.ids, mean_NLD=part.mean_NLD, std_NLD=part.std_NLD, text_NE=part.text_NE)
        scores = self.model(units, shard=shard, dropout_passes=self.plan.dropout_passes, seed=self.plan.seed)
        rated = None if self.plan.ridges is None else self.plan.ridges(scores.embedding_NU)
        whole = Scored(scores, self._ensemble(units, shard), rated, part.ids)
        return whole if asked_N.all() else whole.only(asked_N)

    def _write(self, shard: str, scored: Sequence[Scored]) -> dict[str, Any]:
        """Write what the models say of a shard; its figures."""
        parts = [piece._replace(scores=_slim(piece.scores, self.plan)) for piece in scored]
        ids = [name for piece in parts for name in piece.ids]
        probability_NC, value_NK = (
            np.concatenate([getattr(piece.scores, name) for piece in parts]) for name in ("probability_NC", "value_NK")
        )
        outputs = Outputs(probability_NC=probability_NC, value_NK=value_NK)
        table = prediction_table("pool", ids, outputs, self.plan.classes, self.plan.dimensions)
        storage.write_table(storage.join(self.plan.path, POOL, f"{shard}.parquet"), table)
        if self.plan.needs:
            self._write_selection(shard, table, parts)
        change_CC, change_6K = self._change(shard, table, outputs)
        return {
            "rows": len(ids),
            "entropy": float(entropy(probability_NC).sum(dtype=np.float64)),
            "change": change_CC.tobytes(),
            "moved": change_6K.tobytes(),
        }

    def _ensemble(self, units: Utterances, shard: str) -> Float | None:
        """Probabilities by every member, (R, N, C)."""
        if not self.members:
            return None
        return np.stack([member(units, shard=shard).probability_NC for member in self.members])

    def _write_selection(self, shard: str, table: pa.Table, parts: Sequence[Scored]) -> None:
        columns: dict[str, Any] = dict(zip(table.column_names, table.columns, strict=True))
        del columns["part"], columns["predicted"]
        if rated := [piece.member_RNK for piece in parts if piece.member_RNK is not None]:
            for number, value_NK in enumerate(np.concatenate(rated, axis=1), start=1):
                columns |= {f"{name}_{number}": value_NK[:, k] for k, name in enumerate(self.plan.dimensions)}
        if "dropout_RNC" in self.plan.needs:
            passes = [p.scores.dropout_RNC if p.member_RNC is None else p.member_RNC for p in parts]
            for number, share_NC in enumerate(np.concatenate(passes, axis=1), start=1):
                columns |= {f"p{number}_{name}": share_NC[:, index] for index, name in enumerate(self.plan.classes)}
        if "embedding_ND" in self.plan.needs:
            columns["embedding"] = vector_column(np.concatenate([piece.scores.embedding_NU for piece in parts]))
        storage.write_table(storage.join(self.plan.path, SELECTION, f"{shard}.parquet"), pa.table(columns))

    def _change(self, shard: str, table: pa.Table, outputs: Outputs) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The changes of a shard's predictions since the round before, as in PoolSummary."""
        classes, dimensions = self.plan.classes, self.plan.dimensions
        change_CC = np.zeros((len(classes), len(classes)), np.int64)
        change_6K = np.zeros((6, len(dimensions)))
        if self.plan.before is None:
            return change_CC, change_6K
        uri = storage.join(self.plan.before, POOL, f"{shard}.parquet")
        before = storage.read_table(uri) if storage.exists(uri) else table.slice(0, 0)
        rows = pc.index_in(table["utterance_id"], before["utterance_id"].combine_chunks())
        both_N = rows.is_valid().to_numpy(zero_copy_only=False)
        if not both_N.any():  # candidates are drawn anew each round
            return change_CC, change_6K
        before = before.take(rows.drop_null())
        if classes:
            before_N = probabilities(before, classes).argmax(1)
            change_CC += confusion_matrix(before_N, outputs.probability_NC[both_N].argmax(1), len(classes))
        if dimensions:
            change_6K += sums_of_pairs(columns_of(before, dimensions), outputs.value_NK[both_N])
        return change_CC, change_6K


def score_shards(
    plan: ScoringPlan, rows_of: Mapping[str, NDArray[np.int32]], processes: int, on: ClusterOptions
) -> PoolSummary:
    """Score some rows of the shards by so many processes and write the round's part of each shard."""
    groups = np.array_split(list(rows_of), 1 if processes == 1 else min(len(rows_of), TASKS_EACH * processes))
    items = [{"shards": g.tolist(), "positions": [rows_of[shard].tobytes() for shard in g.tolist()]} for g in groups]
    answers = each_item(items, ShardScorer, {"plan": plan}, on, processes)
    done = {name: [value for answer in answers for value in answer[name]] for name in FIGURES}
    count, rated = len(plan.classes), len(plan.dimensions)
    changes = [np.frombuffer(change, np.int64).reshape(count, count) for change in done["change"]]
    moves = [np.frombuffer(moved, np.float64).reshape(6, rated) for moved in done["moved"]]
    return PoolSummary(
        clips=int(sum(done["rows"])),
        entropy=float(sum(done["entropy"])),
        change_CC=sum(changes, start=np.zeros((count, count), np.int64)),
        change_6K=sum(moves, start=np.zeros((6, rated))),
    )


def write_source_scores(fold: LoopFold, models: SourceModels, needs: frozenset[str]) -> str:
    """Write, where it is missing, what the model of a source says of the pool, which the first round selects by.

    Returns the folder, which is the same for all arms and seeds that read these columns.
    """
    options, columns = fold.options, needs | {"probability_NC", "embedding_ND"}
    path = storage.join(fold.folder, "source", f"scores-{zlib.crc32(' '.join(sorted(columns)).encode()):08x}")
    uri = storage.join(path, "scores.json")
    if storage.exists(uri):
        return path
    plan = ScoringPlan(
        store=fold.data.store,
        model=models.folder,
        members=(),
        path=path,
        before=None,
        classes=fold.data.classes,
        dimensions=fold.data.dimensions,
        needs=columns,
        dropout_passes=options.dropout_passes if "dropout_RNC" in columns else 0,
        seed=0,
        width=fold.embedding_width,
        on=options.cluster,
        shifts=fold.data.shifts,
    )
    rows_of = fold.data.index.rows_by_shard(fold.data.fold.train)
    summary = score_shards(plan, rows_of, fold.processes, options.cluster)
    storage.write_json(uri, {"rows": summary.clips})
    return path


def prediction_table(
    part: str, ids: Sequence[str], outputs: Outputs, classes: Sequence[str], dimensions: Sequence[str] = ()
) -> pa.Table:
    """Rows of schema.prediction_schema."""
    columns: dict[str, Any] = {
        "utterance_id": ids,
        "part": [part] * len(ids),
        "predicted": [classes[index] for index in outputs.probability_NC.argmax(1)] if classes else [None] * len(ids),
    }
    columns |= {f"p_{name}": outputs.probability_NC[:, index] for index, name in enumerate(classes)}
    columns |= {name: outputs.value_NK[:, index] for index, name in enumerate(dimensions)}
    return pa.table(columns, schema=prediction_schema(classes, dimensions))


def probabilities(table: pa.Table, classes: Sequence[str]) -> Float:
    """The probabilities (N, C) of a table of predictions."""
    return columns_of(table, [f"p_{name}" for name in classes])


def columns_of(table: pa.Table, names: Sequence[str]) -> Float:
    """Some columns of numbers as a matrix, (N, names)."""
    columns = np.empty((table.num_rows, len(names)), np.float32)
    for at, name in enumerate(names):
        columns[:, at] = table[name]
    return columns


def vector_column(embedding_ND: NDArray[Any]) -> pa.Array:
    """Vectors as a column of binary fp16."""
    half_ND = np.ascontiguousarray(embedding_ND, np.float16)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(2 * half_ND.shape[1]), len(half_ND), [None, pa.py_buffer(half_ND)]
    )


@dataclass(frozen=True)
class Projection:
    """A fixed random projection of long vectors: distances stay what they are within a few per cent.

    Gaussian directions from a seed of their own, scaled so that lengths stay the same on average. Johnson and
    Lindenstrauss 1984.
    """

    width: int

    def __call__(self, embedding_NU: NDArray[Any]) -> Float:
        """The vectors (N, U), as they are where they are no longer than `width`, else (N, width)."""
        if embedding_NU.shape[1] <= self.width:
            return np.asarray(embedding_NU, np.float32)
        matrix = torch.from_numpy(_directions(embedding_NU.shape[1], self.width))
        projected = np.empty((len(embedding_NU), self.width), np.float32)
        batch_BU = torch.zeros(ROWS_IN_BATCH, embedding_NU.shape[1])
        for at in range(0, len(embedding_NU), ROWS_IN_BATCH):  # of one shape, as in scoring
            rows_BU = embedding_NU[at : at + ROWS_IN_BATCH]
            batch_BU[: len(rows_BU)] = torch.from_numpy(rows_BU)
            projected[at : at + len(rows_BU)] = (batch_BU @ matrix)[: len(rows_BU)].numpy()
        return projected


@lru_cache(maxsize=2)
def _directions(length: int, width: int) -> Float:
    """Random directions (length, width), the same in every process."""
    rng = np.random.default_rng([length, width])
    return rng.standard_normal((length, width), dtype=np.float32) / np.float32(np.sqrt(width))


def _slim(scores: Scores, plan: ScoringPlan) -> Scores:
    """The scores with the embedding no longer than it is written, or none."""
    embedding_NU = np.empty((len(scores.embedding_NU), 0), np.float32)
    if "embedding_ND" in plan.needs:
        embedding_NU = Projection(plan.width)(scores.embedding_NU)
    return replace(scores, embedding_NU=embedding_NU)
