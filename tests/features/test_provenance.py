from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from seral.errors import OptionError
from seral.features.provenance import LEARNT, check_unheard, hand_down, learnt_from

ROW = {"utterance_id": "a", "corpus": "emodb", "speaker": "03"}


def test_what_an_encoder_has_learnt_from_goes_with_what_is_made_of_it(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    hand_down(["seral-tiny"], first, pa.Table.from_pylist([ROW], LEARNT))
    hand_down([first, "seral-tiny"], second)
    assert learnt_from(second).to_pylist() == [ROW]
    metadata = pa.Table.from_pylist([ROW, ROW | {"utterance_id": "b"}, ROW | {"utterance_id": "c", "speaker": "08"}])
    check_unheard(second, metadata, ["c"])
    with pytest.raises(OptionError, match=r"has learnt from labels of 1 of these clips or their speakers, e.g. b"):
        check_unheard(second, metadata, ["b", "c"])


@pytest.mark.parametrize("name", ["seral-tiny", "facebook/wav2vec2-base"])
def test_a_name_is_no_folder_in_a_cluster_job_either(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")  # where a relative path is refused
    assert learnt_from(name).num_rows == 0
