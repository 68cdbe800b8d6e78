"""The labels that an encoder, or a source's models, have learnt from: a task on any of these clips is refused.

FOLDER/labels.parquet   beside the weights: the clips, their corpora and speakers
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.errors import OptionError

LABELS = "labels.parquet"
LEARNT = pa.schema([(name, pa.string()) for name in ("utterance_id", "corpus", "speaker")])
"""Columns of the clips whose labels were learnt from."""


def learnt_from(encoder: str) -> pa.Table:
    """The clips whose labels an encoder, or a folder of models, has learnt from (LEARNT); no row where it is none."""
    if "://" not in encoder and not Path(encoder).expanduser().is_dir():
        return LEARNT.empty_table()  # a name, of the hub's or embedded: nothing lies beside it
    uri = storage.join(encoder, LABELS)
    return storage.read_table(uri) if storage.exists(uri) else LEARNT.empty_table()


def hand_down(encoders: Sequence[str], folder: str, new: pa.Table | None = None) -> None:
    """Note, with what was made from encoders, the labels that these have learnt from, and new ones."""
    tables = [learnt_from(encoder) for encoder in encoders]
    tables += [] if new is None else [new.select(LEARNT.names).cast(LEARNT)]
    table = pa.concat_tables(tables).group_by(LEARNT.names).aggregate([]).sort_by("utterance_id")
    if table.num_rows:
        storage.write_table(storage.join(folder, LABELS), table.select(LEARNT.names))


def check_unheard(encoder: str, metadata: pa.Table, ids: Iterable[str]) -> None:
    """Raise OptionError where an encoder, or a folder of models, has learnt from labels of a task's clips or speakers.

    `metadata`: of the clips `ids`, and of any others.
    """
    learnt = learnt_from(encoder)
    if not learnt.num_rows:
        return
    own = metadata.filter(pc.is_in(metadata["utterance_id"], pa.array([*ids], pa.string())))
    speaker, other = (pc.binary_join_element_wise(table["corpus"], table["speaker"], "/") for table in (own, learnt))
    both = pc.is_in(own["utterance_id"], learnt["utterance_id"].combine_chunks())
    both = pc.or_(both, pc.is_in(speaker, other.drop_null().combine_chunks()))
    if count := pc.sum(both, min_count=0).as_py():
        one = own["utterance_id"].filter(both)[0].as_py()
        raise OptionError(
            f"{encoder} has learnt from labels of {count} of these clips or their speakers, e.g. {one}: its scores on "
            "them would mean nothing; take one of other corpora"
        )
