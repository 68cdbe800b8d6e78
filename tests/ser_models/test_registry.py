"""Tables of parts: one's own, those of packages by entry points, and by module, whose package has to be allowed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ser_models import registry
from ser_models.registry import PACKAGES, PluginError, Registry, allow, did_you_mean, only, with_options

GROUP = "seral.numbers"
ENTRIES = """[seral.numbers]
three = plugged_numbers:THREE
four = plugged_numbers:FOUR
one = plugged_numbers:THREE
broken = plugged_numbers_that_nobody_wrote:FIVE
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[int]:
    """Two numbers of one's own, beside a package that brings more of them."""
    (tmp_path / "plugged_numbers.py").write_text("THREE = 3\nFOUR = 'four'\ndef five(): return 5\n")
    facts = tmp_path / "plugged_numbers-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-numbers\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv(PACKAGES, "")
    registry._entries.cache_clear()
    monkeypatch.delitem(sys.modules, "plugged_numbers", raising=False)
    return Registry({"one": 1, "two": 2}, GROUP, only(int))


def test_a_package_adds_names_and_replaces_none(table: Registry[int]) -> None:
    with (
        pytest.warns(UserWarning, match=r"broken of plugged-numbers .* cannot be imported: ModuleNotFoundError"),
        pytest.warns(
            UserWarning, match=r"four is no part for seral\.numbers: 'four' is no builtins\.int; it is left out"
        ),
    ):
        assert list(table) == ["one", "two", "three"]
    assert table["three"] == 3
    assert table["one"] == 1
    assert table.get("six") is None
    assert "six" not in table


def test_a_part_that_is_none_is_named_with_its_package(table: Registry[int]) -> None:
    with pytest.raises(PluginError, match=r"four is no part for seral\.numbers: 'four' is no builtins\.int"):
        table["four"]
    with pytest.raises(PluginError, match=r"seral\.numbers broken of plugged-numbers \(plugged_numbers_that"):
        table["broken"]


def test_code_is_imported_only_if_its_package_is_allowed(table: Registry[int]) -> None:
    with pytest.raises(PluginError, match="set SERAL_PLUGINS=plugged_numbers if it may run"):
        table["plugged_numbers:THREE"]
    assert "plugged_numbers" not in sys.modules
    allow({"strategy": ["lora+plugged_numbers:THREE"]})
    assert table["plugged_numbers:THREE"] == 3
    assert os.environ[PACKAGES] == "plugged_numbers"
    with pytest.raises(PluginError, match="plugged_numbers:SIX cannot be imported: AttributeError"):
        table["plugged_numbers:SIX"]


def test_a_name_that_is_near_is_asked_for() -> None:
    assert did_you_mean("batch_badl", ["badge", "batch_bald"]) == "; did you mean 'batch_bald'?"
    assert did_you_mean("entropie", ["badge", "batch_bald"]) == ""


def test_options_of_a_function_need_types_and_defaults() -> None:
    def good(x: int, *, power: float = 1.0) -> float:
        return x**power

    def untyped(x: int, *, power=1.0) -> float:  # type: ignore[no-untyped-def]
        return float(x**power)

    assert with_options(good) is good
    with pytest.raises(ValueError, match="its option power needs a type and a default"):
        with_options(untyped)
    with pytest.raises(ValueError, match="a int is no function"):
        with_options(3)  # type: ignore[arg-type]
