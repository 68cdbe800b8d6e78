"""A trained model on storage, and its outputs for utterances whose features are cached.

MODEL/model.json head.safetensors   layer statistics, layer weights, classifier: see ser_models.build
MODEL/adapter/                      in the peft layout, where there are adapters
MODEL/encoder.json                  the encoder's name and fingerprint, and from which hidden state on it was trained
"""

# N rows · R repeats (dropout passes) · B batch · T frames · C classes · K rated dimensions · U embedding
# L hidden states
from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ser_models import metrics
from ser_models.adapters.parameters import adapter_parameters
from ser_models.adapters.store import load_adapter, save_adapter
from ser_models.audio_text import AudioTextPool
from ser_models.build import SerModel, adopt_head, build_model, use_pooling
from ser_models.build import load_model as load_head
from ser_models.build import save_model as save_head
from ser_models.encoders import SpeechEncoder, load_encoder
from ser_models.fitting import FitResult
from seral import storage
from seral.features.batches import Frames, frame_batches, pad_frames
from seral.features.store import FeatureStore
from seral.task.examples import Targets, Utterances

Float = NDArray[np.float32]
ROWS_IN_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Outputs of a model for N utterances: probabilities, dimensions, embeddings, stochastic passes if asked for."""

    probability_NC: Float
    value_NK: Float
    embedding_NU: Float
    dropout_RNC: Float


def model_of_head(
    fitted: FitResult, store: FeatureStore, classes: Sequence[str], dropout: float, dimensions: Sequence[str] = ()
) -> SerModel:
    """A head fitted on frozen features as a whole model."""
    hidden = 0 if fitted.head.hidden is None else fitted.head.hidden.out_features
    text = fitted.pool.text if isinstance(fitted.pool, AudioTextPool) else None
    model = build_model(
        frozen_encoder(store.encoder),
        classes,
        dimensions=dimensions,
        text=text,
        std_gain=fitted.pool.std_gain,
        hidden=hidden,
        dropout=dropout,
    )
    adopt_head(model, fitted.pool, fitted.head)
    return model


def replace_head(folder: str, fitted: FitResult, store: FeatureStore, target: str) -> None:
    """Write the model of a folder to another one, with a head fitted on what its adapters make of the frames."""
    model, layer = load_model(folder), _frozen_up_to(folder)
    adopt_head(model, fitted.pool, fitted.head)
    save_model(target, model, store, layer=layer)


def save_model(folder: str, model: SerModel, store: FeatureStore, *, layer: int) -> None:
    """Write a model; `layer` is the hidden state up to which its encoder is the frozen one."""
    with tempfile.TemporaryDirectory(prefix="seral-model-") as local:
        save_head(model, local)
        if adapter_parameters(model.encoder):
            save_adapter(model.encoder, Path(local) / "adapter")
        facts = {"encoder": store.encoder, "fingerprint": store.fingerprint, "layer": layer}
        if isinstance(model.pool, AudioTextPool) and store.text is not None:
            facts["text_encoder"] = store.text.encoder
        storage.write_json(Path(local) / "encoder.json", facts)
        storage.copy_folder(local, folder)


def load_model(folder: str) -> SerModel:
    """The whole model, encoder and adapters included, in evaluation mode."""
    facts = storage.read_json(storage.join(folder, "encoder.json"))
    with storage.local_copy(folder) as local:
        encoder = load_encoder(facts["encoder"])
        if (local / "adapter").is_dir():
            load_adapter(encoder, local / "adapter")
        else:
            encoder.requires_grad_(False)
        return load_head(local, encoder).eval()


def read_outputs(folder: str) -> tuple[list[str], list[str]]:
    """The classes of a saved model, in the order of its logits, and its dimensions, which come after them."""
    description = storage.read_json(storage.join(folder, "model.json"))
    return list(description["classes"]), list(description["dimensions"])


def read_text_encoder(folder: str) -> str | None:
    """The text encoder of a saved model that reads, else None."""
    name: str | None = storage.read_json(storage.join(folder, "encoder.json")).get("text_encoder")
    return name


@lru_cache(maxsize=1)
def frozen_encoder(name: str) -> SpeechEncoder:
    """An encoder nobody trains, loaded once a process."""
    return load_encoder(name).requires_grad_(False)


def score(folder: str, store: FeatureStore, units: Utterances, *, dropout_passes: int = 0, seed: int = 0) -> Scores:
    """Score utterances from cached features: pooled where the encoder is frozen, else from the cached frames up."""
    layer = _frozen_up_to(folder)
    with storage.local_copy(folder) as local, torch.inference_mode():
        if not (local / "adapter").is_dir():
            model = load_head(local, frozen_encoder(store.encoder)).eval()
            mean_NLD, std_NLD = units.mean_NLD, units.std_NLD
        else:
            model = load_model(folder)
            mean_NLD, std_NLD = _pooled_from_frames(model, store, units, layer)
        pieces = []
        for begin in range(0, max(1, len(units.ids)), ROWS_IN_BATCH):
            rows = slice(begin, begin + ROWS_IN_BATCH)
            mean_BLD, std_BLD = (torch.from_numpy(array[rows]) for array in (mean_NLD, std_NLD))
            pieces.append(model.embed_pooled(mean_BLD, std_BLD, units.texts(rows)))
        embedding_NU = torch.cat(pieces)
        passes = list(_dropout_passes(model, embedding_NU, dropout_passes, seed))
        logits_NC, value_NK = model.split(model.head(embedding_NU))
        return Scores(
            probability_NC=logits_NC.softmax(1).numpy(),
            value_NK=value_NK.numpy(),
            embedding_NU=embedding_NU.numpy(),
            dropout_RNC=np.stack(passes) if passes else np.empty((0, len(units.ids), len(model.classes)), np.float32),
        )


@torch.inference_mode()
def adapted_features(folder: str, store: FeatureStore, *parts: Utterances) -> tuple[Utterances, ...]:
    """Utterances with the pooled features that a model's adapters make of their cached frames."""
    model, layer = load_model(folder), _frozen_up_to(folder)
    return _with_features(model, store, layer, parts)


@torch.inference_mode()
def repooled_features(store: FeatureStore, pooling: str, layer: int, *parts: Utterances) -> tuple[Utterances, ...]:
    """Utterances with pooled features of another pooling, of the hidden states from `layer` on of a frozen encoder."""
    model = build_model(frozen_encoder(store.encoder), ["any"]).eval()
    use_pooling(model, pooling, start=layer)
    return _with_features(model, store, layer, parts)


def _with_features(
    model: SerModel, store: FeatureStore, layer: int, parts: Sequence[Utterances]
) -> tuple[Utterances, ...]:
    pooled = (_pooled_from_frames(model, store, units, layer) for units in parts)
    return tuple(
        replace(units, mean_NLD=mean_NLD, std_NLD=std_NLD)
        for units, (mean_NLD, std_NLD) in zip(parts, pooled, strict=True)
    )


def _frozen_up_to(folder: str) -> int:
    """The hidden state up to which a saved model's encoder is the frozen one."""
    return int(storage.read_json(storage.join(folder, "encoder.json"))["layer"])


def _dropout_passes(model: SerModel, embedding_NU: Tensor, passes: int, seed: int) -> Iterator[Float]:
    """Class probabilities with the head's dropout switched on, one draw a pass (Gal and Ghahramani 2016)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.head.train()
        for _ in range(passes):
            yield model.split(model.head(embedding_NU))[0].softmax(1).numpy()
        model.head.eval()


def _pooled_from_frames(model: SerModel, store: FeatureStore, units: Utterances, layer: int) -> tuple[Float, Float]:
    """Pooled statistics with the states from `layer` on recomputed, a shard of frames in memory at a time."""
    mean_NLD, std_NLD = units.mean_NLD.copy(), units.std_NLD.copy()
    row_of = {name: row for row, name in enumerate(units.ids)}
    for frames in store.frames_by_shard(layer, set(units.ids)):
        for ids in frame_batches(list(frames), frames):
            hidden_BTD, mask_BT = pad_frames([frames[name] for name in ids])
            mean_LBD, std_LBD = model.pool_frames(
                model.encoder.upper(hidden_BTD, mask_BT, start=layer), mask_BT, start=layer
            )
            rows = [row_of[name] for name in ids]
            mean_NLD[rows, layer:] = mean_LBD.transpose(0, 1).numpy()
            std_NLD[rows, layer:] = std_LBD.transpose(0, 1).numpy()
    return mean_NLD, std_NLD


@dataclass(frozen=True, kw_only=True)
class FrameBatch:
    """Cached frames of a batch, and the pooled statistics of the hidden states below them, (l, B, D)."""

    hidden_BTD: Tensor
    mask_BT: Tensor
    below_mean_LBD: Tensor
    below_std_LBD: Tensor
    text_BE: Tensor | None
    """Vectors of the transcripts, where they are read."""
    from_source_B: Tensor
    """Whether a clip is of another language than the one that is learned."""


def frame_batch(
    ids: Sequence[str],
    units: Utterances,
    frames: Frames,
    layer: int,
    device: torch.device,
    source_B: NDArray[np.bool_],
) -> FrameBatch:
    """Cached frames of some utterances as a batch on a device."""
    rows = [units.row_of[name] for name in ids]
    hidden_BTD, mask_BT = pad_frames([frames[name] for name in ids])
    below = [torch.from_numpy(a[rows, :layer]).transpose(0, 1).to(device) for a in (units.mean_NLD, units.std_NLD)]
    text_BE = units.texts(rows)
    return FrameBatch(
        hidden_BTD=hidden_BTD.to(device),
        mask_BT=mask_BT.to(device),
        below_mean_LBD=below[0],
        below_std_LBD=below[1],
        text_BE=None if text_BE is None else text_BE.to(device),
        from_source_B=torch.from_numpy(source_B).to(device),
    )


def evaluate(truth_N: NDArray[np.int64], probability_NC: Float, classes: Sequence[str]) -> dict[str, Any]:
    """Every metric of classes and of probabilities, recall of each class and the confusion (rows are the truth)."""
    predicted_N = probability_NC.argmax(1)
    recall = metrics.per_class_recall(truth_N, predicted_N, len(classes))
    return {
        **_metrics_of("classes", truth_N, predicted_N),
        "per_class_recall": {
            name: None if np.isnan(value) else float(value) for name, value in zip(classes, recall, strict=True)
        },
        "confusion": metrics.confusion_matrix(truth_N, predicted_N, len(classes)).tolist(),
        **_metrics_of("probabilities", truth_N, probability_NC),
    }


def evaluate_dimensions(truth_NK: Float, predicted_NK: Float, names: Sequence[str]) -> dict[str, float]:
    """CCC and RMSE of each dimension over the whole set, and the mean CCC."""
    ccc = metrics.ccc_by_dimension(truth_NK, predicted_NK, names)
    rmse = {f"rmse_{name}": metrics.rmse(truth_NK[:, k], predicted_NK[:, k]) for k, name in enumerate(names)}
    return {"ccc": float(np.mean(list(ccc.values()))), **{f"ccc_{name}": v for name, v in ccc.items()}, **rmse}


def _metrics_of(
    outputs: Literal["classes", "probabilities"], truth_N: NDArray[np.int64], predicted_N: NDArray[Any]
) -> dict[str, float]:
    return {
        name: entry.function(truth_N, predicted_N) for name, entry in metrics.METRICS.items() if entry.of == outputs
    }


def evaluate_model(
    folder: str,
    store: FeatureStore,
    units: Utterances,
    target: Targets,
    classes: Sequence[str],
    dimensions: Sequence[str],
) -> dict[str, Any]:
    """Metrics of a model on some clips, and under `predicted` its outputs for each: probabilities, then ratings."""
    scores = score(folder, store, units)
    outputs = np.concatenate([scores.probability_NC, scores.value_NK], 1).round(6)
    result = evaluate_scores(scores, target, classes, dimensions)
    return {**result, "predicted": dict(zip(units.ids, outputs.tolist(), strict=True))}


def evaluate_scores(
    scores: Scores, target: Targets, classes: Sequence[str], dimensions: Sequence[str]
) -> dict[str, Any]:
    """Metrics of classes, of dimensions or of both, each over the utterances that are labelled so."""
    result: dict[str, Any] = {}
    if classes:
        labelled_N = target.labelled_N
        result |= evaluate(target.label_N[labelled_N], scores.probability_NC[labelled_N], classes)
        result |= _agreement(target, scores.probability_NC)
    if dimensions:
        rated_N = target.rated_N
        result |= evaluate_dimensions(target.value_NK[rated_N], scores.value_NK[rated_N], dimensions)
    return result


def _agreement(target: Targets, probability_NC: Float) -> dict[str, float]:
    """Agreement with the annotators' votes, as `votes_*`, over the utterances that have some; nothing without any."""
    voted_N = None if target.soft_NC is None else np.isfinite(target.soft_NC).all(1)
    if target.soft_NC is None or voted_N is None or not voted_N.any():
        return {}
    agreement = metrics.soft_label_agreement(target.soft_NC[voted_N], probability_NC[voted_N])
    return {f"votes_{name}": value for name, value in agreement.items()}
