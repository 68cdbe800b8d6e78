"""Similarity of layers between the languages of a pool: without labels, with a probe's, with gold ones."""

from __future__ import annotations

from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from seral import storage
from seral.errors import OptionError
from seral.options import parse
from seral.pool.shards import open_pool
from seral.studies.layer_options import SimilarityOptions
from seral.studies.layer_similarity import compare_layers

pytestmark = pytest.mark.ray
CLASSES = ["anger", "happiness", "neutral", "sadness"]
STATES = 5
"""Hidden states of seral-tiny."""


def compare(pool: str, out: Path, **values: Any) -> pd.DataFrame:
    text = compare_layers(parse(SimilarityOptions, {"pool": pool, "run": str(out)} | values))
    table = pd.read_csv(out / "similarity.csv")
    assert len(text.splitlines()) == 2 + len(table) / STATES
    assert (out / "similarity.png").read_bytes().startswith(b"\x89PNG")
    return table


def test_no_label_is_read_by_default(speech_pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_gold(uris: list[str], *arguments: Any) -> Any:
        assert not any("gold" in uri for uri in uris)
        return read(uris, *arguments)

    read = storage.read_tables
    monkeypatch.setattr(storage, "read_tables", no_gold)
    languages = sorted(set(open_pool(speech_pool).metadata["language"].to_pylist()) - {None})
    assert len(languages) == 3
    table = compare(speech_pool, tmp_path)
    pairs = list(table[["measure", "source", "target"]].drop_duplicates().itertuples(index=False, name=None))
    assert pairs == [(measure, *pair) for measure in ("coral", "mmd") for pair in combinations(languages, 2)]
    assert np.isfinite(table["similarity"]).all()
    assert (table.loc[table["measure"] == "coral", "similarity"] < 0).all()


@pytest.mark.parametrize("labels", ["gold", "pseudo"])
def test_emotions_are_compared_by_labels_of_either_kind(speech_pool: str, tmp_path: Path, labels: str) -> None:
    chosen = {"measures": ["centroid_cka", "centroid_cosine"], "classes": CLASSES, "labels": labels}
    table = compare(speech_pool, tmp_path, groups=["de", "en"], **chosen)
    pairs = list(table[["source", "target"]].drop_duplicates().itertuples(index=False, name=None))
    assert pairs == list((permutations if labels == "pseudo" else combinations)(["de", "en"], 2))
    assert table["similarity"].between(-1, 1).all()
    # The generated languages say emotions alike, by pitch and tempo.
    assert table.loc[table["measure"] == "centroid_cka", "similarity"].max() > 0.7


def test_what_cannot_be_compared_is_refused(speech_pool: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no similarity 'cka'; known: coral, mmd"):
        compare(speech_pool, tmp_path, measures=["cka"])
    with pytest.raises(OptionError, match="centroid_cka compares emotions: name at least two classes"):
        compare(speech_pool, tmp_path, measures=["centroid_cka"])
    with pytest.raises(OptionError, match="no language 'xx' in"):
        compare(speech_pool, tmp_path, groups=["xx", "de"])
    with pytest.raises(OptionError, match="has one corpus only, demo: there is nothing to compare"):
        compare(speech_pool, tmp_path, by="corpus")
