"""Traces of what was erased in files of any kind: counted, taken out, and looked for once more.

Parquet tables and ledgers of labels lose the rows, JSON files the entries. Anything else that names an erased utterance
(a report's tables and page, a round's cache of embeddings, a clip) is deleted: it can be made again from what is left,
or serves nobody any more.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa
import soundfile as sf

from seral import storage
from seral.audio.decode import pcm_hash
from seral.errors import PoolError
from seral.labels.database import is_database
from seral.labels.ledger import Ledger
from seral.pool.tombstones import Erased

TEXTS = (".csv", ".html", ".md", ".tsv", ".txt", ".jsonl", ".yaml")
AUDIO = (".flac", ".wav")
"""Clips beside answers, as `seral labels export --pool` writes them."""
SPEAKER_KEYS = frozenset({"speaker", "speakers", "test_speakers", "fold_name"})
"""Under which JSON files of a run or a pool name speakers."""
IN_PLACE_OF_A_NAME = "erased"
ROWS = 65_536
"""Rows of a table that are looked through at a time."""


def count(uri: str, erased: Erased) -> int:
    """Rows of a table that are about something erased, 1 where they only refer to it; of other files, 1 likewise.

    Of a ledger, utterances; of a file that has gone, none.
    """
    if is_database(uri):
        return len(_in_ledger(uri, erased))
    with suppress(FileNotFoundError):  # whoever wrote it has deleted it
        return _count(uri, erased)
    return 0


def _count(uri: str, erased: Erased) -> int:
    if uri.endswith(".parquet"):
        rows, refers_to = 0, False
        for part in _texts_of(uri):
            rows += int(erased.belongs(part).sum())
            refers_to = refers_to or bool(erased.references(part))
        return rows or int(refers_to)
    if uri.endswith(".json") and (content := _json(uri)) is not None:
        return int(_cleared(content, erased, None) != content)
    if uri.endswith(AUDIO):
        return int(_is_clip(uri, erased))
    if uri.endswith((*TEXTS, ".json")):
        text = storage.read_bytes(uri).decode("utf-8", errors="replace")
        return int(any(erased.mentions(corpus, text) for corpus in erased.corpora))
    return 0


def clear(uri: str, erased: Erased) -> None:
    """Take what was erased out of a file that has it."""
    if is_database(uri):
        with closing(Ledger(uri)) as ledger:
            ledger.erase(_in_ledger(uri, erased))
    elif uri.endswith(".parquet"):
        storage.write_table(uri, erased.without(storage.read_table(uri)))
    elif uri.endswith(".json") and (content := _json(uri)) is not None:
        storage.write_json(uri, _cleared(content, erased, None))
    else:
        storage.remove(uri)


def refers(uri: str, erased: Erased) -> bool:
    """True for a file that still says anything of what was erased, in whatever column; not for one that has gone."""
    if not uri.endswith(".parquet"):
        return count(uri, erased) > 0
    with suppress(FileNotFoundError):
        return any(_says(part, erased) for part in _texts_of(uri))
    return False


def _says(table: pa.Table, erased: Erased) -> bool:
    lists = [column.combine_chunks().flatten() for column in table.columns if pa.types.is_list(column.type)]
    texts = [
        table[name] for name in table.column_names if name != "utterance_id" and pa.types.is_string(table[name].type)
    ]
    return bool(
        erased.belongs(table).any()
        or any(erased.ids_in(column).any() for column in texts)
        or any(erased.ids_in(pa.chunked_array([values])).any() for values in lists)
    )


def _in_ledger(uri: str, erased: Erased) -> list[str]:
    """Erased utterances that a ledger asks about or has answers about."""
    with closing(Ledger(uri)) as ledger:
        return [name for name in ledger.utterances() if erased.knows("utterance", name)]


def _texts_of(uri: str) -> Iterator[pa.Table]:
    """The columns of a Parquet file that hold text or lists of it, so many rows at a time."""
    names = [field.name for field in storage.read_footer(uri).schema.to_arrow_schema() if _is_text(field.type)]
    return storage.read_batches(uri, names, rows=ROWS)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)))


def _json(uri: str) -> Any:
    """The content of a JSON file; None of one that is none, as Ray Tune writes them."""
    try:
        return storage.read_json(uri)
    except PoolError:
        return None


def _is_clip(uri: str, erased: Erased) -> bool:
    """Whether a file of audio has the name or the samples of an erased clip."""
    if any(erased.mentions(corpus, uri.rsplit("/", 1)[-1]) for corpus in erased.corpora):
        return True
    try:
        with sf.SoundFile(io.BytesIO(storage.read_bytes(uri))) as sound:
            samples = sound.read(dtype="int16")
    except sf.LibsndfileError:
        return False
    return erased.knows("audio", pcm_hash(samples))


def _cleared(value: Any, erased: Erased, key: str | None) -> Any:
    """A JSON value without erased ids, paths and speakers."""
    if isinstance(value, Mapping):
        return {name: _cleared(item, erased, name) for name, item in value.items() if not _names(name, erased, None)}
    if isinstance(value, list):
        return [_cleared(item, erased, key) for item in value if not _names(item, erased, key)]
    return IN_PLACE_OF_A_NAME if _names(value, erased, key) else value


def _names(value: Any, erased: Erased, key: str | None) -> bool:
    if not isinstance(value, str):
        return False
    if erased.knows("utterance", value) or any(erased.knows("source", corpus, value) for corpus in erased.corpora):
        return True
    if key not in SPEAKER_KEYS:
        return False
    of_corpus, _, name = value.partition("/")
    names = [(of_corpus, name), *((corpus, value) for corpus in erased.corpora)]
    return any(erased.knows("speaker", *words) for words in names)
