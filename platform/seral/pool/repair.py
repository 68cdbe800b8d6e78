"""Repair of a pool: what can be restored from its revisions, its caches and other pools, and what is gone, by name.

Nothing is deleted: what cannot be read, or is not what the manifest says, is moved to POOL/damaged/. The next erasure
deletes that, since it cannot tell what is in it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from seral import storage
from seral.errors import PoolError, StoreError
from seral.pool.dedupe import marked
from seral.pool.derivations import derivations
from seral.pool.revisions import Change, commit, holds
from seral.pool.shards import (
    EMPTY,
    FORMAT,
    MANIFEST,
    REVISIONS,
    REWRITTEN,
    SNAPSHOTS,
    TABLES,
    read_manifest,
    renamed,
    shard_uri,
)
from seral.pool.tombstones import read_erased
from seral.progress import track

DAMAGED = "damaged"
FEATURES = "features"
EXAMPLES = 5
UNREADABLE = (OSError, pa.ArrowException, PoolError, UnicodeDecodeError)


def repair_pool(pool: str, sources: Sequence[str] = (), *, dry_run: bool = False) -> dict[str, Any]:
    """Make a pool sound again; returns what was wrong, what was restored, and what is gone.

    A damaged table is taken from `sources`, other pools such as a backup, or from a pool that was made of this one, if
    any has the same bytes. A shard that is gone leaves the pool: the same import again brings its files back. Raises
    PoolError where there is nothing of a pool.
    """
    pool = storage.absolute(pool)
    readable, unreadable = _manifests(pool)
    manifest = max(readable.values(), key=lambda one: one["revision"], default=EMPTY)
    on_disk = _complete(pool)
    if manifest is EMPTY and not on_disk and not unreadable:
        raise PoolError(f"there is no pool at {pool}, and nothing to make one of")
    damage = _damage(pool, manifest)
    restored, lost = list[dict[str, str]](), dict[str, list[str]]()
    for shard, tables in damage.items():
        for table in tables:
            sha256 = manifest["shards"][shard]["sha256"][table]
            if (copy := _copy_of(pool, sources, table, sha256)) is None:
                lost.setdefault(shard, []).append(table)
                continue
            restored.append({"shard": shard, "table": table, "from": copy})
            if not dry_run:
                _put_away(pool, f"{table}/{shard}.parquet")
                storage.copy_file(copy, shard_uri(pool, table, shard))
    unlisted = set(on_disk).difference(*(one["shards"] for one in readable.values()))
    stems = {REWRITTEN.sub("", shard) for shard in lost}
    alike = {shard for shard in on_disk if shard not in manifest["shards"] and REWRITTEN.sub("", shard) in stems}
    erased = read_erased(pool)
    candidates = alike | (unlisted if _is_behind(manifest, readable, unreadable) else set())
    adopted = sorted(shard for shard in candidates if not holds(pool, shard, erased))
    gone = [
        {"shard": shard, "tables": tables, "rows": manifest["shards"][shard]["rows"], "ids": _ids_of(pool, shard)}
        for shard, tables in lost.items()
    ]
    if not dry_run and (unreadable or lost or adopted):
        _rewrite(pool, manifest, unreadable, lost, adopted)
    return {
        "pool": pool,
        "revision": (manifest if dry_run else read_manifest(pool) or EMPTY)["revision"],
        "unreadable": unreadable,
        "restored": restored,
        "adopted": adopted,
        "gone": gone,
    }


def in_words(report: Mapping[str, Any], *, dry_run: bool) -> Iterator[str]:
    """Lines that tell what `repair_pool` returns."""
    would = "would be " if dry_run else ""
    for name in report["unreadable"]:
        yield f"{name} cannot be read: {would}moved to {DAMAGED}/"
    for one in report["restored"]:
        yield f"shard {one['shard']}: its table `{one['table']}` {would}restored from {one['from']}"
    for shard in report["adopted"]:
        yield f"shard {shard}, which no readable manifest lists, {would}taken into the pool"
    for one in report["gone"]:
        names = f", such as {', '.join(one['ids'][:EXAMPLES])}" if one["ids"] else ""
        if "utterances" in one["tables"]:
            yield f"shard {one['shard']} is gone, {one['rows']} utterances{names}: import its corpus again"
        else:
            tables = " and ".join(f"`{table}`" for table in one["tables"])
            yield f"shard {one['shard']}: {tables} of {one['rows']} utterances is gone{names}"
    if not any(report[name] for name in ("unreadable", "restored", "adopted", "gone")):
        yield f"{report['pool']}: nothing to repair"
    elif not dry_run:
        yield f"{report['pool']}: revision {report['revision']}; seral pool check reads all of it"


def _manifests(pool: str) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The manifests that can be read, by their names in the pool, and the names of those that cannot."""
    names = [MANIFEST]
    for folder in (SNAPSHOTS, REVISIONS):
        names += [f"{folder}/{name}" for name in storage.list_names(storage.join(pool, folder), ".json")]
    readable, unreadable = dict[str, dict[str, Any]](), list[str]()
    for name in names:
        try:
            manifest = storage.read_json(storage.join(pool, name))
            is_one = manifest["format"] == FORMAT and isinstance(manifest["shards"], dict) and manifest["revision"] >= 0
        except FileNotFoundError:
            continue
        except StoreError:
            raise
        except (*UNREADABLE, KeyError, TypeError):
            is_one = False
        if is_one:
            readable[name] = manifest
        else:
            unreadable.append(name)
    return readable, unreadable


def _is_behind(manifest: Mapping[str, Any], readable: Container[str], unreadable: Sequence[str]) -> bool:
    """Whether there was a newer manifest, which cannot be read."""
    newest = f"{REVISIONS}/{manifest['revision']:06d}.json"
    if any(name.startswith(REVISIONS) and name > newest for name in unreadable):
        return True
    return MANIFEST not in readable and newest not in readable


def _complete(pool: str) -> list[str]:
    """Shards of which all tables can be opened."""
    names = (storage.list_names(storage.join(pool, table), ".parquet") for table in TABLES)
    shards = sorted(name.removesuffix(".parquet") for name in set.intersection(*map(set, names)))
    return [shard for shard in shards if all(_opens(shard_uri(pool, table, shard), table) for table in TABLES)]


def _opens(uri: str, table: str) -> bool:
    try:
        storage.read_footer(uri, TABLES[table])
    except StoreError:
        raise
    except UNREADABLE:
        return False
    return True


def _damage(pool: str, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
    """Shard -> its tables that are missing, or not those of the manifest."""
    damage: dict[str, list[str]] = {}
    with track("reading", len(manifest["shards"])) as advance:
        for shard, entry in sorted(manifest["shards"].items()):
            for table in TABLES:
                if _sha256(shard_uri(pool, table, shard)) != entry["sha256"][table]:
                    damage.setdefault(shard, []).append(table)
            advance()
    return damage


def _sha256(uri: str) -> str | None:
    try:
        return storage.checksum(uri).sha256
    except OSError:
        return None


def _copy_of(pool: str, sources: Sequence[str], table: str, sha256: str) -> str | None:
    """A table with these bytes in other pools."""
    made = [one.at for one in derivations(pool) if one.kind == "pool"]
    for other in (*map(storage.absolute, sources), *made):
        try:
            shards = (read_manifest(other) or EMPTY)["shards"]
        except PoolError:
            continue
        for shard, entry in shards.items():
            uri = shard_uri(other, table, shard)
            if entry["sha256"][table] == sha256 == _sha256(uri):
                return uri
    return None


def _ids_of(pool: str, shard: str) -> list[str]:
    """Ids of the utterances of a shard, by what is left of it or by features that were computed of it."""
    for uri in _traces(pool, shard):
        try:
            ids: list[str] = storage.read_table(uri, ["utterance_id"])["utterance_id"].to_pylist()
        except StoreError:
            raise
        except (*UNREADABLE, KeyError):
            continue
        if ids:
            return ids
    return []


def _traces(pool: str, shard: str) -> Iterator[str]:
    yield from (shard_uri(pool, table, shard) for table in ("utterances", "gold"))
    for name in storage.list_files(storage.join(pool, FEATURES)):
        if name.endswith(f"/{shard}.parquet"):
            yield storage.join(pool, FEATURES, name)


def _rewrite(
    pool: str, manifest: Mapping[str, Any], unreadable: Sequence[str], lost: Mapping[str, list[str]], adopted: list[str]
) -> None:
    """Put away what is damaged, and make what is left the newest revision."""
    for name in unreadable:
        _put_away(pool, name)
    for name in storage.list_names(storage.join(pool, REVISIONS)):
        number = name.partition(".")[0]
        if unreadable and number.isdecimal() and int(number) > manifest["revision"]:
            _put_away(pool, f"{REVISIONS}/{name}")  # the journal of a revision that is not there any more
    if unreadable and manifest is not EMPTY:
        storage.write_json(storage.join(pool, MANIFEST), manifest)
    replaced = {shard: _without(pool, shard, tables) for shard, tables in lost.items() if "utterances" not in tables}
    for shard, tables in lost.items():
        for table in tables:
            _put_away(pool, f"{table}/{shard}.parquet")

    def change(newest: Mapping[str, Any]) -> Change:
        remaining = [replaced.get(shard, shard) for shard in sorted(newest["shards"]) if shard not in lost]
        shards = [*remaining, *replaced.values(), *adopted]
        return marked(pool, list(dict.fromkeys(shards)), newest["shards"])

    commit(pool, change)


def _without(pool: str, shard: str, tables: Sequence[str]) -> str:
    """Write a shard whose lost tables are empty, under a new name; returns it."""
    name = renamed(shard, ["without", *tables])
    for table in reversed(TABLES):
        if table in tables:
            storage.write_table(shard_uri(pool, table, name), TABLES[table].empty_table())
        else:
            storage.copy_file(shard_uri(pool, table, shard), shard_uri(pool, table, name))
    return name


def _put_away(pool: str, name: str) -> None:
    source, target = storage.join(pool, name), storage.join(pool, DAMAGED, name)
    if storage.exists(source):
        storage.make_folder(target.rpartition("/")[0])
        storage.remove(target)
        storage.move(source, target)
