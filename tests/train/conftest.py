"""What tests of training share."""

from __future__ import annotations

import pytest

from seral.options import parse
from seral.pool.ingest import ImportOptions, import_corpus
from seral.synthesis.corpus import SynthesisOptions, synthesise


@pytest.fixture(scope="session")
def two_corpora(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> str:
    """A pool with a corpus `acted` and a corpus `natural`, six speakers each."""
    root = tmp_path_factory.mktemp("two")
    for seed, corpus in enumerate(("acted", "natural")):
        options = SynthesisOptions(utterances=48, speakers_per_language=2, junk=0.0, seed=seed)
        synthesise(root / corpus, options)
        given = {"reader": "manifest", "root": str(root / corpus), "out": str(root / "pool"), "corpus": corpus}
        import_corpus(parse(ImportOptions, given))
    return str(root / "pool")
