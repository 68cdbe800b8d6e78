"""Outputs of a trained model for utterances whose features are cached, and what they are worth.

Rows are computed in batches of one shape, filled up with zeros, so that the outputs of a clip follow from the clip.
"""

# N rows · R repeats (dropout passes) · B batch · T frames · C classes · K rated dimensions · U embedding
# L hidden states · D features
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models import metrics
from ser_models.build import SerModel, build_model, use_pooling
from ser_models.build import load_model as load_head
from ser_models.encoders import load_encoder
from seral.cluster import ClusterOptions
from seral.errors import TrainError
from seral.features.batches import Frames, frame_shapes, pad_frames
from seral.features.frames import FrameReader
from seral.features.speakers import SpeakerShifts
from seral.features.store import FeatureStore
from seral.task.examples import Targets, Utterances
from seral.task.folds import FoldData
from seral.training.model import checked_copy, frozen_encoder, frozen_up_to, load_model, read_normalisation
from seral.training.waves import reader_of

Float = NDArray[np.float32]
ROWS_IN_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Outputs of a model for N utterances: probabilities of classes, values of dimensions; C or K may be 0."""

    probability_NC: Float
    value_NK: Float


@dataclass(frozen=True, kw_only=True)
class Scores(Outputs):
    """Outputs of a model for N utterances, their embeddings, and stochastic passes if asked for."""

    embedding_NU: Float
    dropout_RNC: Float

    def only(self, asked_N: NDArray[np.bool_]) -> Scores:
        """The outputs for some of the utterances."""
        return Scores(
            probability_NC=self.probability_NC[asked_N],
            value_NK=self.value_NK[asked_N],
            embedding_NU=self.embedding_NU[asked_N],
            dropout_RNC=self.dropout_RNC[:, asked_N],
        )


class Scorer:
    """A trained model, loaded once, that scores utterances from their cached features.

    Pooled ones where the encoder is frozen, else from frames up, kept ones or made from audio, on a GPU if there is to
    be one.
    """

    def __init__(
        self,
        folder: str,
        store: FeatureStore,
        on: ClusterOptions | None = None,
        shifts: Mapping[str, SpeakerShifts] | None = None,
    ) -> None:
        self.frames: FrameReader | None = None
        self.normalise, self.shifts = read_normalisation(folder), dict(shifts or {}).get(read_normalisation(folder))
        if self.normalise != "none" and self.shifts is None:
            raise TrainError(
                f"the model {folder} was trained on features less the means of a {self.normalise}: give them"
            )
        with checked_copy(folder) as local:
            if (local / "adapter").is_dir():
                self.model = load_model(folder)
                for part in (self.model.encoder, self.model.pooling):  # the head's features are in memory
                    if part is not None:
                        part.to("cuda" if on is not None and on.use_gpu else "cpu")
                self.frames = reader_of(store, frozen_up_to(folder), self.model.encoder)
            else:
                self.model = load_head(local, frozen_encoder(store.encoder)).eval()

    @torch.inference_mode()
    def __call__(
        self, units: Utterances, *, shard: str | None = None, dropout_passes: int = 0, seed: int = 0
    ) -> Scores:
        """Outputs for utterances, whose features may be fp16 as they are kept; `shard` if all of them lie in one."""
        if self.frames is not None:
            frames = self.frames.pieces(units.ids) if shard is None else self.frames.of_shard(shard, units.ids)
            mean_NLD, std_NLD = pooled_from_frames(self.model, frames, units, self.frames.layer)
            units = replace(units, mean_NLD=mean_NLD, std_NLD=std_NLD)
        units = units if self.shifts is None else units.less(self.shifts)
        audio_NU = self._weigh(torch.from_numpy(units.mean_NLD), torch.from_numpy(units.std_NLD))
        pieces = [self._score(audio_NU, units, at, dropout_passes, seed) for at in _batches(len(units.ids))]
        columns = [torch.cat(column, -2).numpy() for column in zip(*pieces, strict=True)]
        return Scores(**dict(zip(("embedding_NU", "probability_NC", "value_NK", "dropout_RNC"), columns, strict=True)))

    def _weigh(self, mean_NLD: Tensor, std_NLD: Tensor) -> Tensor:
        """The weighted states of all rows, (N, U): whole batches at once, and the rest as one that is filled up."""
        whole = len(mean_NLD) - len(mean_NLD) % ROWS_IN_BATCH
        parts = [self.model.pool.weigh(mean_NLD[:whole], std_NLD[:whole])] if whole else []
        if whole < len(mean_NLD) or not whole:
            last_BU = self.model.pool.weigh(_filled(mean_NLD[whole:]), _filled(std_NLD[whole:]))
            parts.append(last_BU[: len(mean_NLD) - whole])
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def _score(
        self, audio_NU: Tensor, units: Utterances, at: int, passes: int, seed: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embedding, probabilities, dimensions and dropout passes of a batch."""
        model, rows = self.model, slice(at, at + ROWS_IN_BATCH)
        count = len(audio_NU[rows])
        text_BE = units.texts(rows)
        text_BE = None if text_BE is None else _filled(text_BE.float())
        embedding_BU = model.pool.join(_filled(audio_NU[rows]), text_BE)
        logits_BC, value_BK = model.split(model.head(embedding_BU))
        dropout_RBC = torch.empty(0, ROWS_IN_BATCH, len(model.classes))
        if passes:
            generators = (torch.Generator().manual_seed(seed + number) for number in range(passes))
            outputs = (model.head.dropped(embedding_BU, generator) for generator in generators)
            dropout_RBC = torch.stack([model.split(output_BO)[0].softmax(1) for output_BO in outputs])
        return embedding_BU[:count], logits_BC.softmax(1)[:count], value_BK[:count], dropout_RBC[:, :count]


def _batches(count: int) -> range:
    """The first row of each batch; one, of zeros, where there is nothing."""
    return range(0, max(1, count), ROWS_IN_BATCH)


def _filled(rows: Tensor) -> Tensor:
    """A batch of ROWS_IN_BATCH rows, the last of them zeros."""
    missing = ROWS_IN_BATCH - len(rows)
    return rows if not missing else torch.cat([rows, rows.new_zeros(missing, *rows.shape[1:])])


def score(
    folder: str, store: FeatureStore, units: Utterances, shifts: Mapping[str, SpeakerShifts] | None = None
) -> Scores:
    """Outputs of the model of a folder for some utterances."""
    return Scorer(folder, store, shifts=shifts)(units)


@torch.inference_mode()
def adapted_features(folder: str, store: FeatureStore, *parts: Utterances) -> tuple[Utterances, ...]:
    """Utterances with the pooled features that a model's adapters make of their cached frames."""
    return _with_features(load_model(folder), store, frozen_up_to(folder), parts)


@torch.inference_mode()
def repooled_features(store: FeatureStore, pooling: str, layer: int, *parts: Utterances) -> tuple[Utterances, ...]:
    """Utterances with pooled features of another pooling, of the hidden states from `layer` on of a frozen encoder."""
    model = build_model(frozen_encoder(store.encoder), ["any"]).eval()
    use_pooling(model, pooling, start=layer)
    return _with_features(model, store, layer, parts)


@torch.inference_mode()
def features_from_frames(encoder: str, store: FeatureStore, layer: int, *parts: Utterances) -> tuple[Utterances, ...]:
    """Utterances with pooled features of an encoder that is the store's up to hidden state `layer`."""
    return _with_features(build_model(load_encoder(encoder), ["any"]).eval(), store, layer, parts)


def _with_features(
    model: SerModel, store: FeatureStore, layer: int, parts: Sequence[Utterances]
) -> tuple[Utterances, ...]:
    reader = reader_of(store, layer, model.encoder)
    pooled = (pooled_from_frames(model, reader.pieces(units.ids), units, reader.layer) for units in parts)
    return tuple(
        replace(units, mean_NLD=mean_NLD, std_NLD=std_NLD)
        for units, (mean_NLD, std_NLD) in zip(parts, pooled, strict=True)
    )


def pooled_from_frames(model: SerModel, pieces: Iterable[Frames], units: Utterances, layer: int) -> tuple[Float, Float]:
    """Pooled statistics with the states from `layer` on recomputed from its frames, some clips in memory at a time."""
    mean_NLD, std_NLD = units.mean_NLD.astype(np.float32), units.std_NLD.astype(np.float32)
    row_of, device = {name: row for row, name in enumerate(units.ids)}, next(model.encoder.parameters()).device
    for frames in pieces:
        ids, clips = list(frames), list(frames.values())
        for batch in frame_shapes(model.encoder).batches([len(clip) for clip in clips]):
            hidden_BTD, mask_BT = (tensor.to(device) for tensor in pad_frames(clips, batch))
            mean_LBD, std_LBD = model.pool_frames(
                model.encoder.upper(hidden_BTD, mask_BT, start=layer), mask_BT, start=layer
            )
            rows = [row_of[ids[position]] for position in batch.positions]
            mean_NLD[rows, layer:] = mean_LBD.transpose(0, 1)[: len(rows)].float().cpu().numpy()
            std_NLD[rows, layer:] = std_LBD.transpose(0, 1)[: len(rows)].float().cpu().numpy()
    return mean_NLD, std_NLD


def evaluate(
    truth_N: NDArray[np.int64], probability_NC: Float, classes: Sequence[str], further: Sequence[str] = ()
) -> dict[str, Any]:
    """Every metric of classes and of probabilities, recall of each class and the confusion (rows are the truth).

    `further` names metrics that are no package's: `package.module:name`.
    """
    predicted_N = probability_NC.argmax(1)
    recall = metrics.per_class_recall(truth_N, predicted_N, len(classes))
    return {
        **_metrics_of("classes", truth_N, predicted_N, further),
        "per_class_recall": {
            name: None if np.isnan(value) else float(value) for name, value in zip(classes, recall, strict=True)
        },
        "confusion": metrics.confusion_matrix(truth_N, predicted_N, len(classes)).tolist(),
        **_metrics_of("probabilities", truth_N, probability_NC, further),
    }


def evaluate_dimensions(
    truth_NK: Float, predicted_NK: Float, names: Sequence[str], further: Sequence[str] = ()
) -> dict[str, float]:
    """Every metric of ratings, of each dimension over the whole set, and the mean CCC."""
    ccc = metrics.ccc_by_dimension(truth_NK, predicted_NK, names)
    result = {"ccc": float(np.mean(list(ccc.values())))}
    for k, dimension in enumerate(names):
        values = _metrics_of("ratings", truth_NK[:, k], predicted_NK[:, k], further)
        result |= {f"{name}_{dimension}": value for name, value in values.items()}
    return result


def _metrics_of(
    outputs: Literal["classes", "probabilities", "ratings"],
    truth_N: NDArray[Any],
    predicted_N: NDArray[Any],
    further: Sequence[str],
) -> dict[str, float]:
    usual = [name for name in metrics.METRICS if ":" not in name]  # those of other runs in this process aside
    table = {name: metrics.METRICS[name] for name in (*usual, *further)}
    return {name: entry.function(truth_N, predicted_N) for name, entry in table.items() if entry.of == outputs}


def evaluate_model(
    folder: str, data: FoldData, units: Utterances, target: Targets, shifts: Mapping[str, SpeakerShifts] | None = None
) -> dict[str, Any]:
    """Metrics of a model on some clips of a fold, and under `predicted` its outputs for each: probabilities, then
    ratings."""
    scores = score(folder, data.store, units, shifts)
    outputs = np.concatenate([scores.probability_NC, scores.value_NK], 1).round(6)
    result = evaluate_scores(scores, target, data.classes, data.dimensions, data.metrics)
    return {**result, "predicted": dict(zip(units.ids, outputs.tolist(), strict=True))}


def evaluate_scores(
    scores: Outputs,
    target: Targets,
    classes: Sequence[str],
    dimensions: Sequence[str],
    further: Sequence[str] = (),
) -> dict[str, Any]:
    """Metrics of classes, of dimensions or of both, each over the utterances that are labelled so."""
    result: dict[str, Any] = {}
    if classes:
        decided_N = target.decided_N
        result |= evaluate(target.label_N[decided_N], scores.probability_NC[decided_N], classes, further)
        result |= votes_metrics(target.soft_NC, scores.probability_NC)
    if dimensions:
        rated_N = target.rated_N
        result |= evaluate_dimensions(target.value_NK[rated_N], scores.value_NK[rated_N], dimensions, further)
    return result


def votes_metrics(share_NC: Float | None, probability_NC: Float) -> dict[str, float]:
    """Agreement with raters' votes, as `votes_*`, over the utterances that have some; nothing without any."""
    voted_N = None if share_NC is None else np.isfinite(share_NC).all(1)
    if share_NC is None or voted_N is None or not voted_N.any():
        return {}
    agreement = metrics.soft_label_agreement(share_NC[voted_N], probability_NC[voted_N])
    return {f"votes_{name}": value for name, value in agreement.items()}
