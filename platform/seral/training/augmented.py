"""Corrupted copies of labelled clips, for a model to learn from beside the clips themselves.

    FEATURES/<fingerprint>/copies-<effects>/<clips>.parquet    schema.COPY

A copy depends on the effects, their seed, its number and its clip: it is the same whoever hears it
first. Only clips that are learned from get copies; dev and test stay as they are.
"""

# N clips · M copies of clips · L hidden states · D features
from __future__ import annotations

import hashlib
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from ser_models.encoders import load_encoder
from seral import storage
from seral.audio.decode import decode_flac, encode_flac
from seral.audio.effects import Samples, corrupt
from seral.cluster import ClusterOptions
from seral.errors import SplitError
from seral.features.audio import encode_clips, encoder_facts
from seral.features.options import FeatureOptions
from seral.features.store import FeatureStore, Half, stack_vectors
from seral.pool.noises import read_noises
from seral.pool.shards import Pool, open_pool
from seral.pool.splits import check_apart
from seral.schema import COPY
from seral.task.examples import Targets, Utterances
from seral.training.finetune_options import AugmentOptions
from seral.training.model import frozen_encoder

Copies = Mapping[str, tuple[str, int]]
"""Ids of copies -> of which utterance they are, and their number."""


@dataclass(frozen=True, kw_only=True)
class StoreWithCopies(FeatureStore):
    """The cached features of a pool, and of copies of some of its clips, whose ids are `<utterance>#<number>`."""

    folder: str
    """Folder of the copies."""

    def copies(self, ids: Collection[str], columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of the copies of these ids, a file at a time; `copy` is their id."""
        chosen_ids: set[str] = set()
        for name in storage.list_names(self.folder, ".parquet"):
            table = storage.read_table(storage.join(self.folder, name), ["utterance_id", "copy", *columns])
            named = [
                copy_id(*pair) for pair in zip(*(table[c].to_pylist() for c in table.column_names[:2]), strict=True)
            ]
            keep = [name in ids and name not in chosen_ids for name in named]
            chosen_ids |= {name for name, chosen in zip(named, keep, strict=True) if chosen}
            yield table.set_column(1, "copy", pa.array(named, pa.string())).filter(pa.array(keep, pa.bool_()))

    def frames_by_table(self, layer: int, ids: Collection[str]) -> Iterator[dict[str, Half]]:
        """Frames of the pool's clips, then of the copies."""
        yield from super().frames_by_table(layer, ids)
        for table in self.copies(ids, [f"frames_{layer}"]):
            frames = (np.frombuffer(data.as_buffer(), np.float16) for data in table[f"frames_{layer}"])
            yield dict(zip(table["copy"].to_pylist(), (f.reshape(-1, self.width) for f in frames), strict=True))


def check_noises(options: AugmentOptions | None, pool: Pool, metadata: pa.Table) -> None:
    """Raise before anything is computed: PoolError where the noises are not there, SplitError where they leak.

    A clip or a voice of what is learnt or judged, whose metadata is given, would be heard on both sides of the split.
    """
    if options is None or options.noise is None:
        return
    noises = open_pool(options.noise)
    check_apart({"the noises": noises.metadata, "what is learnt and judged": metadata})
    sounds = set(pool.audio_hashes(metadata["utterance_id"]).values())
    if both := sorted(name for name, sound in noises.audio_hashes().items() if sound in sounds):
        raise SplitError(
            f"{len(both)} clips of {options.noise} are among what is learnt and judged, e.g. {both[0]}: a model would "
            "hear its test. Give other noises, or leave them out by `corpora`"
        )


def with_copies(
    store: FeatureStore,
    train: Utterances,
    target: Targets,
    options: AugmentOptions,
    *,
    besides: Collection[str] = (),
    frames_layer: int | None,
    on: ClusterOptions,
) -> tuple[FeatureStore, Utterances, Targets]:
    """The clips and their labels with copies after them, and a store that knows the copies' frames.

    Clips `besides` get none, nor do copies of which the encoder makes NaN. Reads audio and no label.
    """
    ids = [name for name in train.ids if name not in besides]
    clip_of = {copy_id(name, number): (name, number) for number in range(options.copies) for name in ids}
    extended = _with_encoded(store, clip_of, options, frames_layer, on)
    tables = [table for table in extended.copies(clip_of, ["mean", "std"]) if table.num_rows]
    if not tables:
        return extended, train, target
    table = pa.concat_tables(tables).sort_by([("copy", "ascending")])
    of = [train.row_of[name] for name in table["utterance_id"].to_pylist()]
    shape = (table.num_rows, store.num_layers + 1, store.width)
    mean_MLD, std_MLD = (stack_vectors(table[name], shape).astype(np.float32) for name in ("mean", "std"))
    text_ME = None if train.text_NE is None else train.text_NE[of]
    copies = Utterances(ids=table["copy"].to_pylist(), mean_NLD=mean_MLD, std_NLD=std_MLD, text_NE=text_ME)
    return extended, train.with_others(copies), target.rows([*range(len(train.ids)), *of])


def copy_id(utterance_id: str, number: int) -> str:
    """The id of a copy."""
    return f"{utterance_id}#{number}"


def _with_encoded(
    store: FeatureStore, clip_of: Copies, options: AugmentOptions, layer: int | None, on: ClusterOptions
) -> StoreWithCopies:
    """The store with every wanted copy that the encoder can make something of."""
    extended = StoreWithCopies(
        **vars(store), folder=storage.join(store.uri, store.fingerprint, _folder(options, layer))
    )
    present = {name for table in extended.copies(clip_of, []) for name in table["copy"].to_pylist()}
    missing = sorted(clip_of.keys() - present)
    if missing:
        rows = list(_encode(store, [clip_of[copy] for copy in missing], options, layer, on))
        name = hashlib.sha256(repr(missing).encode()).hexdigest()[:16]
        schema = COPY if layer is None else COPY.append(pa.field(f"frames_{layer}", pa.large_binary()))
        storage.write_table(storage.join(extended.folder, f"{name}.parquet"), pa.Table.from_pylist(rows, schema))
    return extended


def _folder(options: AugmentOptions, layer: int | None) -> str:
    """Another one for whatever sounds otherwise: how many copies there are does not matter."""
    facts = options.model_dump(mode="json", exclude={"copies"}) | {"layer": layer}
    if options.noise is not None:
        facts["noise"] = open_pool(options.noise).hash
    return f"copies-{hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()[:12]}"


def _encode(
    store: FeatureStore,
    copies: Sequence[tuple[str, int]],
    options: AugmentOptions,
    layer: int | None,
    on: ClusterOptions,
) -> Iterator[dict[str, object]]:
    """Rows of copies, given as utterances and numbers."""
    noises = [] if options.noise is None else read_noises(open_pool(options.noise))
    numbers: dict[str, list[int]] = {}
    for name, number in copies:
        numbers.setdefault(name, []).append(number)
    features = FeatureOptions(max_clip_s=encoder_facts(store)["max_clip_s"])
    gpu = on.use_gpu and torch.cuda.is_available()
    encoder = load_encoder(store.encoder).to("cuda") if gpu else frozen_encoder(store.encoder)
    for name, audio in store.pool.clips(numbers):
        samples = decode_flac(audio)
        for number in numbers[name]:
            flac = encode_flac(_one_copy(samples, name, number, noises, options))
            table = pa.table({"utterance_id": [name], "audio": pa.array([flac], pa.large_binary())})
            for clip in encode_clips(encoder, table, features, on.precision, layer):
                row = {"utterance_id": name, "copy": number, "mean": clip.mean, "std": clip.std}
                if not clip.problem:
                    yield row if layer is None else row | {f"frames_{layer}": clip.frames}


def _one_copy(samples: Samples, name: str, number: int, noises: Sequence[Samples], options: AugmentOptions) -> Samples:
    """Copy `number` of a clip, (S,) -> (S,)."""
    rng = np.random.default_rng([options.seed, number, zlib.crc32(name.encode())])
    drawn = [effect for effect in options.effects if rng.random() < options.chance]
    return corrupt(samples, noises, options, rng, drawn or [str(rng.choice(options.effects))])
