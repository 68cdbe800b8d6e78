"""Prediction with the model of a run: a whole pool through a Ray Data actor pool, or loose files."""

# B batch · N rows · S samples · E text features · C classes · K rated dimensions · O outputs
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import csv

from ser_models.encoders.precomputed import FEATURES_OF
from seral import storage
from seral.audio.decode import BadAudio, decode, decode_flac
from seral.audio.limits import SoundLimits
from seral.corpora.reading.tree import DECODABLE
from seral.erase.erase import MARK
from seral.errors import OptionError, PoolError, StateError
from seral.features.actors import map_shards
from seral.features.audio import extract_features
from seral.features.batches import clip_shapes, pad_clips
from seral.features.index import ShardIndex
from seral.features.precomputed import COMMAND, is_precomputed, load_frozen
from seral.features.speakers import SpeakerShifts, speaker_sums
from seral.features.store import FeatureStore
from seral.features.text import extract_text, open_text_encoder, read_texts
from seral.loop.folders import read_rounds, round_folder
from seral.loop.options import LoopOptions
from seral.models.decision import tempered
from seral.models.options import PredictOptions
from seral.pool.derivations import note_derivation
from seral.pool.shards import MANIFEST, Pool, open_pool, split_address
from seral.progress import say, track
from seral.schema import SAMPLE_RATE
from seral.task.eligibility import askable
from seral.task.examples import Utterances
from seral.task.run import read_options, verb_of
from seral.training.model import (
    load_fitted,
    load_model,
    read_encoder,
    read_normalisation,
    read_outputs,
    read_text_encoder,
)
from seral.training.scoring import Scorer
from seral.training.source import MODELS, read_source_facts
from seral.training.supervised import best_model

Wave = NDArray[np.float32]
FITTED, MODEL, FIGURES = "fitted.json", "model", "card.json"
"""Record and folder of a final model (seral.models.fit), and the figures of its card."""
FILES_AT_ONCE = 64
CLIPS_AT_ONCE = 256
"""Clips of a shard that are decoded at a time."""
TABLE, TEXTS = ".parquet", (".csv", ".jsonl")
"""Suffix of tables, and of those for other tools, which predictions of files alone may have."""


def predict(options: PredictOptions) -> dict[str, Any]:
    """Predict with one model and write a table: id or file, predicted class, probabilities, error. Returns the counts;
    without `out` also the rows, as `predictions`."""
    return predict_to(options, None if options.out is None else storage.absolute(options.out))


def predict_to(options: PredictOptions, out: str | None, *, passing: bool = False) -> dict[str, Any]:
    """Predict as `predict` does, to another table; no pool takes note of one that is there in passing."""
    folder = model_folder(storage.absolute(options.run), options.trajectory)
    if storage.exists(storage.join(folder, MARK)):
        say(f"{folder} has learnt from clips that were erased since: train it anew")
    features = features_folder(options, folder)
    if out is not None and pool_table(options) is not None:
        if not passing:
            note_derivation(options.source[0], out, "predictions")
        counts = _predict_pool(open_pool(options.source[0]), folder, out, options, features)
    else:
        counts = predict_files(audio_files(options.source), folder, out, options)
    return {"model": folder, "out": out, **counts}


def features_folder(options: PredictOptions, folder: str) -> str | None:
    """The folder of features that a model is to read; None of a model that listens.

    Raises OptionError for a folder where a model listens, for files, which have no features, and for others' features.
    """
    own = read_encoder(folder)
    wanted = storage.read_json(storage.join(folder, "model.json"))["encoder"]
    if not wanted["family"].startswith(FEATURES_OF):
        if options.encoder is not None:
            raise OptionError(f"encoder={options.encoder}: the model listens by {own}, and reads no others' features")
        return None
    name = options.encoder or own
    if pool_table(options) is None:
        raise OptionError(
            f"{folder} reads {wanted['family']}, and does not listen: import the files as a pool, compute its features "
            f"likewise, bring them in by {COMMAND}, and predict that pool with --set encoder=FOLDER"
        )
    if not is_precomputed(name):
        raise OptionError(f"encoder={name} is no folder of features: make one of these clips, by {COMMAND}")
    face = load_frozen(name)
    if wanted != {"family": face.family, "num_layers": face.num_layers, "width": face.width}:
        raise OptionError(
            f"encoder={name}: {face.num_layers + 1} x {face.width} {face.family}; the model reads "
            f"{wanted['num_layers'] + 1} x {wanted['width']} {wanted['family']}"
        )
    return name


def pool_table(options: PredictOptions) -> str | None:
    """Address that predictions of a pool go to; None where the source is files.

    Raises OptionError for several pools, and for a table that has no room for what is predicted.
    """
    source, out = options.source, options.out
    if not storage.exists(storage.join(split_address(source[0])[0], MANIFEST)):
        if out is not None and not out.endswith((TABLE, *TEXTS)):
            suffixes = ", ".join((TABLE, *TEXTS))
            raise OptionError(f"out={out}: predictions of files go to one table; its name ends in {suffixes}")
        return None
    if len(source) > 1:
        raise OptionError(f"give one pool at a time, got {len(source)} sources")
    if out is None or out.endswith(TEXTS):
        raise OptionError(f"out={out}: predictions of a pool go to a Parquet file, or to a folder of them")
    return storage.absolute(out)


def model_folder(run: str, trajectory: str | None = None) -> str:
    """The final model of a fit, the model of a transfer, or one of the fold models of a training or a loop.

    Of a loop it is that of a trajectory's last round, by default the strategy's that is best on dev.
    """
    verb = verb_of(run)
    if verb == "fit":
        if not storage.exists(storage.join(run, FITTED)):
            raise StateError(f"{run} has no final model yet: run `seral fit` again, and it goes on")
        return storage.join(run, MODEL)
    if verb == "transfer":
        folder = storage.join(run, MODELS)
        return storage.join(folder, read_source_facts(folder)["normalise"], "model")
    if trajectory is None and verb is not None:
        say(f"the model of one fold is taken, the best on dev; `seral fit {run}` makes one of all labels")
    if trajectory is None and (trained := best_model(run)):
        return trained
    root = storage.join(run, "trajectories")
    arm = read_options(LoopOptions, run, "loop", "train", "session").strategy.name
    names = storage.list_names(root)
    if trajectory is not None and trajectory not in names:
        raise OptionError(f"no trajectory {trajectory!r} in {run}; it has {', '.join(names)}")
    candidates = [trajectory] if trajectory else [name for name in names if name.startswith(f"{arm}.")]
    last_round = {name: rounds[-1] for name in candidates if (rounds := read_rounds(storage.join(root, name)))}
    if not last_round:
        raise StateError(f"{run} has no finished round yet: run the loop first")
    best = max(sorted(last_round), key=lambda name: last_round[name].dev or 0.0)
    return storage.join(round_folder(storage.join(root, best), last_round[best].round), "model")


def decision_of(run: str) -> dict[str, Any]:
    """`temperature`, by which class logits of a run's model are divided, and `abstain_below`, below which it had better
    not answer: of a final model those of its card, of a transfer's the first, else 1 and None."""
    run, decision = storage.absolute(run), dict[str, Any]()
    if verb_of(run) == "transfer":
        facts = read_source_facts(storage.join(run, MODELS))
        decision = facts["models"][facts["normalise"]]
    elif verb_of(run) == "fit" and storage.exists(card := storage.join(run, FIGURES)):
        decision = storage.read_json(card).get("decision", {})
    return {"temperature": float(decision.get("temperature", 1.0)), "abstain_below": decision.get("abstain_below")}


def output_schema(classes: Sequence[str], dimensions: Sequence[str]) -> pa.Schema:
    """Columns of a prediction file; `utterance_id` holds the path where the input was files."""
    numbers = [(name, pa.float32()) for name in (*(f"p_{name}" for name in classes), *dimensions)]
    return pa.schema([("utterance_id", pa.string()), ("predicted", pa.string()), *numbers, ("error", pa.string())])


class Predictor:
    """A model in one process: clips in, rows of predictions out, each whatever the others are."""

    def __init__(self, folder: str, options: PredictOptions) -> None:
        features, on = options.features, options.cluster
        self.temperature: float = decision_of(options.run)["temperature"]
        self.device = torch.device("cuda" if on.use_gpu else "cpu")
        self.bf16 = on.precision == "bf16"
        self.model, self.features = load_model(folder), features
        self.outputs = self.classes, self.dimensions = read_outputs(folder)
        self.model.to(self.device).eval()
        name = read_text_encoder(folder)
        self.text_encoder = None if name is None else open_text_encoder(name).to(self.device)

    def predict(
        self, names: Sequence[str], waves: Sequence[Wave], texts: Sequence[str | None] | None = None
    ) -> Iterator[dict[str, Any]]:
        """One row per clip; only its first `max_clip_s` seconds are heard, and `texts` are read if the model can."""
        text_NE = None if texts is None else self._read(texts)
        waves = [wave[: int(self.features.max_clip_s * SAMPLE_RATE)] for wave in waves]
        for batch in clip_shapes(self.model.encoder, self.features.max_clip_s).batches([len(wave) for wave in waves]):
            wave_BS, length_B = pad_clips(waves, batch)
            with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                text_BE = None if text_NE is None else text_NE[batch.filled]
                output_BO = self.model(wave_BS.to(self.device), length_B.to(self.device), text_BE).float()
            logits_BC, value_BK = self.model.split(output_BO)
            share_BC = (logits_BC / self.temperature).softmax(1)
            outputs = zip(batch.positions, share_BC.tolist(), value_BK.tolist(), strict=False)
            for index, share_C, value_K in outputs:  # the rows that fill the batch up come last
                row = {"utterance_id": names[index], **dict(zip(self.dimensions, value_K, strict=True))}
                if self.classes:
                    row["predicted"] = self.classes[int(np.argmax(share_C))]
                yield row | {f"p_{name}": share for name, share in zip(self.classes, share_C, strict=True)}

    def _read(self, texts: Sequence[str | None]) -> torch.Tensor | None:
        """Vectors (N, E) of transcripts, NaN where there is none."""
        if self.text_encoder is None:
            return None
        vectors = read_texts(self.text_encoder, dict(zip(map(str, range(len(texts))), texts, strict=True)))
        text_NE = torch.full((len(texts), self.text_encoder.width), torch.nan)
        for name, vector_E in vectors.items():
            text_NE[int(name)] = torch.from_numpy(vector_E).float()
        return text_NE.to(self.device)


class ShardPredictor:
    """A Predictor as a Ray Data actor: one shard of a pool in, one shard of predictions out."""

    def __init__(self, folder: str, options: PredictOptions, pool: Pool, parts: str) -> None:
        if not options.cluster.use_gpu:
            torch.set_num_threads(1)
        self.predictor = Predictor(folder, options)
        self.pool, self.parts = pool, parts

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Predict a shard, unless an earlier call that was interrupted already has."""
        shard, columns = row["shard"], ["utterance_id", "audio", "text"]
        uri, schema = storage.join(self.parts, f"{shard}{TABLE}"), output_schema(*self.predictor.outputs)
        if not storage.exists(uri):
            with storage.table_writer(uri, schema) as writer:
                for clips in self.pool.batches(shard, columns, rows=CLIPS_AT_ONCE):
                    waves = [decode_flac(data.as_py()) for data in clips["audio"]]
                    names, texts = (clips[name].to_pylist() for name in ("utterance_id", "text"))
                    writer.write(pa.Table.from_pylist(list(self.predictor.predict(names, waves, texts)), schema))
        return {"rows": self.pool.manifest["shards"][shard]["rows"]}


def _predict_pool(pool: Pool, folder: str, out: str, options: PredictOptions, features: str | None) -> dict[str, int]:
    """Write the predictions of a pool shard by shard, then gather them, or put the folder of them in its place."""
    if not out.endswith(TABLE) and storage.exists(out):
        raise OptionError(f"there is something at {out} already: give a new folder, or a file that ends in {TABLE}")
    made_of = f"{folder} {pool.hash} {decision_of(options.run)['temperature']}{features or ''}"
    parts = f"{out}.{hashlib.sha256(made_of.encode()).hexdigest()[:8]}.parts"
    if features is not None or read_normalisation(folder) != "none":
        _predict_cached(pool, folder, options, parts, features or read_encoder(folder))
    else:
        arguments = {"folder": folder, "options": options, "pool": pool, "parts": parts}
        map_shards(pool, pool.shards, ShardPredictor, arguments, options.cluster, "predictions", into=parts)
    schema, files = output_schema(*read_outputs(folder)), [f"{shard}{TABLE}" for shard in pool.shards]
    uris = [storage.join(parts, file) for file in files]
    errors = storage.read_tables(uris, schema, ["error"])["error"]
    counts = {"rows": pool.rows, "errors": len(errors) - errors.null_count}
    if not out.endswith(TABLE):
        with pool.publishing(lambda: [out]):
            storage.publish(parts, out, last=files[-1])
        return counts
    table = storage.read_tables(uris, schema)
    with pool.publishing(lambda: [out, parts]):
        storage.write_table(out, table.sort_by("utterance_id"))
    storage.remove(parts)
    return counts


def _predict_cached(pool: Pool, folder: str, options: PredictOptions, parts: str, encoder: str) -> None:
    """Write predictions shard by shard, from features that are in the cache first: of a model of others' features, or
    of one less means of speakers or corpora, whose clips are all heard before one of them is judged.
    """
    text, cache = read_text_encoder(folder), storage.join(parts, "features")
    store = extract_features(pool, encoder, uri=cache, options=options.features, on=options.cluster)
    if text is not None:
        store = replace(store, text=extract_text(pool, text, uri=cache, on=options.cluster))
    index = store.index()
    scorer = Scorer(folder, store, options.cluster, _shifts(folder, store, index))
    classes, dimensions = read_outputs(folder)
    temperature = decision_of(options.run)["temperature"]
    with track("predictions", len(pool.shards)) as advance:
        for shard in pool.shards:
            names = pool.read(shard, ["utterance_id"])["utterance_id"].to_pylist()
            present = list(index.present(names))
            scores = scorer(Utterances.of(store, index, present), shard=shard)
            outputs = np.concatenate([tempered(scores.probability_NC, temperature), scores.value_NK], 1)
            rows = [
                {"utterance_id": name, "predicted": classes[np.argmax(values[: len(classes)])] if classes else None}
                | dict(zip([*(f"p_{word}" for word in classes), *dimensions], values.tolist(), strict=True))
                for name, values in zip(present, outputs, strict=True)
            ]
            rows += [{"utterance_id": name, "error": "no usable features"} for name in set(names) - set(present)]
            table = pa.Table.from_pylist(rows, output_schema(classes, dimensions)).sort_by("utterance_id")
            with pool.publishing(lambda: [parts]):
                storage.write_table(storage.join(parts, f"{shard}{TABLE}"), table)
            advance(1)
    storage.remove(cache)


def _shifts(folder: str, store: FeatureStore, index: ShardIndex) -> dict[str, SpeakerShifts]:
    """The means of this pool's speakers or corpora, where a model reads features less them."""
    if (normalise := read_normalisation(folder)) == "none":
        return {}
    metadata = askable(store.pool, None)  # a clip counts once
    sums = speaker_sums(store, index, metadata, index.present(metadata["utterance_id"].to_pylist()))
    sums = sums.corpora() if normalise == "corpus" else sums
    centre = load_fitted(folder, store.encoder).pool
    return {normalise: sums.shifts(centre.centre_mean, centre.centre_std)}


def predict_files(files: Sequence[Path], folder: str, out: str | None, options: PredictOptions) -> dict[str, Any]:
    """Write the predictions of files as they come, in the order of the files; without `out` they are returned."""
    printed: list[dict[str, Any]] = []
    predictor, errors = Predictor(folder, options), 0
    if (normalise := read_normalisation(folder)) != "none":
        say(f"the model takes away the mean of a {normalise}, and files have none: import them as a pool with speakers")
    schema, limits = output_schema(*predictor.outputs), SoundLimits(seconds=options.max_duration_s)
    collected = nullcontext(lambda table: printed.extend(table.to_pylist()))
    into = collected if out is None else rows_to(out, schema)
    with into as write, track("predicting", len(files)) as advance:
        for begin in range(0, len(files), FILES_AT_ONCE):
            part = files[begin : begin + FILES_AT_ONCE]
            rows = pa.Table.from_pylist(list(_predict_some(part, predictor, limits)), schema)
            write(rows.sort_by("utterance_id"))
            errors += rows.num_rows - rows["error"].null_count
            advance(len(part))
    return {"rows": len(files), "errors": errors} | ({"predictions": printed} if out is None else {})


@contextmanager
def rows_to(out: str, schema: pa.Schema) -> Iterator[Callable[[pa.Table], object]]:
    """A function that appends rows to a table of the kind that its suffix says, whole in the end or not there."""
    if out.endswith(TABLE):
        with storage.table_writer(out, schema) as writer:
            yield writer.write
        return
    with storage.replacing(out) as file:
        if out.endswith(".csv"):
            with csv.CSVWriter(file, schema) as lines:
                yield lines.write
        else:
            yield lambda table: file.writelines(
                f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in table.to_pylist()
            )


def _predict_some(files: Iterable[Path], predictor: Predictor, limits: SoundLimits) -> Iterator[dict[str, Any]]:
    good: dict[str, Wave] = {}
    for file in files:
        try:
            good[str(file)] = decode(file, limits=limits).samples
        except BadAudio as error:
            say(f"{file}: {error}")
            yield {"utterance_id": str(file), "error": str(error)}
    yield from predictor.predict(list(good), list(good.values()))


def audio_files(sources: Sequence[str]) -> list[Path]:
    """Audio files of some files and folders, sorted. Raises PoolError where there is none."""
    files: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            files += sorted(path for path in source.rglob("*") if path.suffix.lower() in DECODABLE)
        elif source.is_file():
            files.append(source)
        else:
            raise PoolError(f"{source} is neither a pool, nor an audio file, nor a folder")
    if not files:
        raise PoolError(f"no audio in {', '.join(sources)}; suffixes looked for: {' '.join(sorted(DECODABLE))}")
    return sorted(files, key=str)
