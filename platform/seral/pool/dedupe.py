"""Exact duplicates: the same decoded audio twice, whatever the file it came in."""

from __future__ import annotations

from collections.abc import Iterable


def exact_duplicates(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map each (utterance_id, pcm_hash) row that repeats another's audio to the id that counts, the smallest one.

    The outcome does not depend on the order of the rows.
    """
    keeper: dict[str, str] = {}
    rows = list(rows)
    for utterance_id, pcm_hash in rows:
        keeper[pcm_hash] = min(utterance_id, keeper.get(pcm_hash, utterance_id))
    return {utterance_id: keeper[pcm_hash] for utterance_id, pcm_hash in rows if keeper[pcm_hash] != utterance_id}
