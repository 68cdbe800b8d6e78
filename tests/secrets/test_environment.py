from __future__ import annotations

from pathlib import Path

import pytest

from seral.secrets.environment import secret

NAME = "SERAL_TEST_PASSWORD"


def test_the_variable_counts_before_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert secret(NAME) is None
    (tmp_path / "file").write_text("of the file \n")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "file"))
    assert secret(NAME) == "of the file "  # a newline is the editor's, a space may be the password's
    monkeypatch.setenv(NAME, "of the variable")
    assert secret(NAME) == "of the variable"


def test_a_file_that_is_missing_or_no_text_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=f"{NAME}_FILE names .*none, which cannot be read: No such file"):
        secret(NAME)
    (tmp_path / "none").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="it is not text"):
        secret(NAME)
