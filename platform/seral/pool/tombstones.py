"""Tombstones: what was erased from a pool on request, known by salted hashes alone.

POOL/erased/<hash>.json    one request: when, of what kind, how many rows of which tables, the hashes of what went

The hashes keep an erased utterance from coming back with the next import. They hold no name and no id, but they are no
secret either: whoever has the pool and a name to try can see whether it was erased.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from seral import storage

FOLDER = "erased"
KINDS = ("speaker", "utterance", "audio", "source")
"""Kinds of erased things, hashed by (corpus, speaker), utterance id, hash of the samples, (corpus, path in it)."""
ID_HASH = re.compile(r"[0-9a-f]{16}")
"""End of an utterance's id, after the corpus."""
REFERENCES = ("_of", "_id")
"""Ends of the names of columns that hold the id of another row."""


@dataclass(frozen=True)
class Erased:
    """Tombstones of a pool, to be asked whether something was erased from it."""

    tombstones: tuple[Mapping[str, Any], ...]

    def __bool__(self) -> bool:
        return bool(self.tombstones)

    def knows(self, kind: str, *words: str) -> bool:
        """Whether this utterance, audio, source or speaker was erased from the pool."""
        return any(salted(salt, kind, *words) in hashes for salt, hashes in self._hashes[kind].items())

    def mask(self, corpus: str, source: str) -> str:
        """Stand-in for the path of an erased file in the quarantine."""
        return "erased:" + salted(self.tombstones[0]["salt"], "source", corpus, source)

    def belongs(self, table: pa.Table) -> NDArray[np.bool_]:
        """Rows of any table that are about something erased, (N,). Reads its columns of text only."""
        about_erased_N = np.zeros(table.num_rows, dtype=bool)
        if not self:
            return about_erased_N
        texts = [field.name for field in table.schema if pa.types.is_string(field.type)]
        # A cache's quarantine has the id where a pool's has the path.
        about = next((name for name in ("utterance_id", "source") if name in texts), None)
        if about is not None:
            about_erased_N |= self.ids_in(table[about])
        if "pcm_hash" in texts:
            about_erased_N |= self._erased_rows("audio", table["pcm_hash"])
        if {"corpus", "speaker"} <= set(texts):
            about_erased_N |= self._erased_rows("speaker", table["corpus"], table["speaker"])
        if {"corpus", "source"} <= set(texts):
            about_erased_N |= self._erased_rows("source", table["corpus"], table["source"])
        if {"corpus", "detail"} <= set(texts):
            words = [*zip(table["corpus"].to_pylist(), table["detail"].to_pylist(), strict=True)]
            is_mentioned = {pair: self.mentions(*pair) for pair in set(words)}
            about_erased_N |= np.array([is_mentioned[pair] for pair in words], dtype=bool)
        return about_erased_N

    def without(self, table: pa.Table) -> pa.Table:
        """A table without the rows that are about something erased, and without references to it in other rows."""
        if not self:
            return table
        table = table.filter(pa.array(~self.belongs(table)))
        for name, hit in self.references(table).items():
            column = pc.if_else(pa.array(hit), pa.scalar(None, pa.string()), table[name])
            table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
        return table

    def references(self, table: pa.Table) -> dict[str, NDArray[np.bool_]]:
        """Columns in which rows about something else refer to something erased, and which rows do, (N,)."""
        names = [f.name for f in table.schema if pa.types.is_string(f.type) and f.name.endswith(REFERENCES)]
        hits = {name: self.ids_in(table[name]) for name in names if name != "utterance_id"}
        return {name: hit for name, hit in hits.items() if hit.any()}

    def ids_in(self, column: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Mask of the rows of a column of text that hold an erased id, (N,)."""
        return self._erased_rows("utterance", column)

    def mentions(self, corpus: str | None, text: str | None) -> bool:
        """Whether an erased id of this corpus stands in a text."""
        return any(self.knows("utterance", f"{corpus}-{word}") for word in ID_HASH.findall(text or ""))

    @property
    def corpora(self) -> set[str]:
        """Corpora that something was erased of."""
        return {corpus for tombstone in self.tombstones for corpus in tombstone["corpora"]}

    @cached_property
    def _hashes(self) -> dict[str, dict[str, set[str]]]:
        """Kind -> salt -> hashes of all tombstones; one salt serves a whole pool, so that a hash is made once."""
        hashes: dict[str, dict[str, set[str]]] = {kind: {} for kind in KINDS}
        for tombstone in self.tombstones:
            for kind in KINDS:
                if tombstone["hashes"][kind]:
                    hashes[kind].setdefault(tombstone["salt"], set()).update(tombstone["hashes"][kind])
        return hashes

    def _erased_rows(self, kind: str, *columns: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Rows whose words in some columns were erased, (N,); those of which one is unknown were not."""
        if not self._hashes[kind]:
            return np.zeros(len(columns[0]), dtype=bool)
        words = pc.binary_join_element_wise(*columns, "\0").combine_chunks().dictionary_encode()
        is_known: NDArray[np.bool_] = np.zeros(len(words.dictionary) + 1, dtype=bool)
        for salt, hashes in self._hashes[kind].items():
            digest = _hasher(salt, kind)
            for row, text in enumerate(words.dictionary.to_pylist()):
                (own := digest.copy()).update(text.encode())
                is_known[row] |= own.hexdigest() in hashes
        row_N: NDArray[np.int64] = np.asarray(words.indices.fill_null(-1))
        return is_known[row_N]


def tombstones_of(pool: str) -> frozenset[str]:
    """Names of all tombstones of a pool."""
    return frozenset(storage.list_names(storage.join(pool, FOLDER), ".json"))


def read_erased(pool: str) -> Erased:
    """All tombstones of a pool."""
    uris = [storage.join(pool, FOLDER, name) for name in sorted(tombstones_of(pool))]
    return Erased(tuple(storage.read_json(uri) for uri in uris))


def salted(salt: str, kind: str, *words: str) -> str:
    """Hash of one thing of a kind, 32 hex digits. One salt serves a whole pool, so that a hash is made once."""
    digest = _hasher(salt, kind)
    digest.update("\0".join(words).encode())
    return digest.hexdigest()


def _hasher(salt: str, kind: str) -> hashlib.blake2b:
    """The hash of a thing of a kind, before its words."""
    return hashlib.blake2b(f"{kind}\0".encode(), key=bytes.fromhex(salt), digest_size=16)


def salt_of(erased: Erased) -> str:
    """The salt of a pool's first tombstone, or a new one."""
    return str(erased.tombstones[0]["salt"]) if erased else secrets.token_hex(16)
