"""Named protocols on real corpora, and as options of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from seral.corpora import READERS
from seral.errors import OptionError
from seral.loop.options import LoopOptions
from seral.options import parse
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.protocols import PROTOCOLS, find_protocol
from seral.pool.shards import open_pool
from seral.pool.split_options import SplitOptions
from seral.task.eligibility import eligible
from seral.task.options import protocol_name
from seral.training.options import TrainingOptions

GIVEN = {"pool": "p", "run": "r"}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_is_what_its_name_says(name: str) -> None:
    protocol = find_protocol(name)
    (corpus,) = protocol.corpora
    assert name.startswith(f"{corpus}-")
    assert corpus in READERS
    what = name.removeprefix(f"{corpus}-").split("-")[0]
    assert what == (f"{len(protocol.classes)}c" if protocol.classes else "vad")
    assert list(protocol.classes) == sorted(set(protocol.classes))
    assert set((protocol.class_map or {}).values()) <= set(protocol.classes)
    scheme = SplitOptions(**protocol.split).scheme
    assert {"official": "column", "5fold": "k-fold", "6fold": "k-fold"}.get(
        name.split("-", 2)[-1].split("@")[0].split("-")[-1], scheme
    ) == scheme
    assert (protocol.utterances or 0) <= max(READERS[corpus].totals.values())


@pytest.mark.parametrize("model", [LoopOptions, TrainingOptions])
def test_a_run_takes_everything_from_its_protocol(model: Any) -> None:
    options = parse(model, GIVEN | {"protocol": "emodb-4c-loso@v1"})
    assert options.corpora == ["emodb"]
    assert options.classes == ["anger", "happiness", "neutral", "sadness"]
    assert options.split.scheme == "leave-one-speaker"
    assert parse(model, options.model_dump(mode="json")) == options, "a resolved configuration can be read again"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"protocol": "emodb-4c-loso@v2"}, "unknown protocol 'emodb-4c-loso@v2'.*emodb-4c-loso@v1"),
        ({"protocol": "emodb-4c-loso@v1", "classes": ["anger", "sadness"]}, "classes: emodb-4c-loso@v1 says"),
        ({"protocol": "emodb-4c-loso@v1", "split": {"scheme": "k-fold"}}, "split: emodb-4c-loso@v1 says"),
    ],
)
def test_what_contradicts_a_protocol_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse(LoopOptions, GIVEN | values)


@pytest.mark.ray
@pytest.mark.corpora
@pytest.mark.usefixtures("ray_session")
def test_real_corpora_have_as_many_utterances_as_protocols_say(
    tmp_path: Path, shared: Path, capsys: pytest.CaptureFixture[str]
) -> None:

    values = {
        "reader": "emodb",
        "root": str(shared / "corpora" / "emodb"),
        "out": str(tmp_path / "pool"),
        "voice": False,
    }
    import_corpus(parse(ImportOptions, values))
    pool = open_pool(str(tmp_path / "pool"))
    for name in ("emodb-4c-loso@v1", "emodb-7c-loso@v1"):
        options = parse(LoopOptions, GIVEN | {"pool": pool.uri, "protocol": name})
        assert eligible(options, pool, options.corpora).num_rows == find_protocol(name).utterances
        assert protocol_name(options, pool) == name
    assert "is about" not in capsys.readouterr().err
