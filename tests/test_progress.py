from __future__ import annotations

import pytest

from seral import progress
from seral.progress import say, track


def test_a_log_gets_a_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with track("counting", 10) as advance:
        advance(3)
        advance()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("counting: 4/10 in ")


def test_a_log_gets_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with track("counting", 2) as advance:
        advance()
        advance()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" after")[0].split(" in")[0] for line in lines] == [
        "counting: 1/2",
        "counting: 2/2",
        "counting: 2/2",
    ]


def test_an_error_passes_through_and_is_not_reported_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="stop"), track("counting", 2):
        raise ValueError("stop")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with track("counting", 4) as advance:
        advance(4)
    err = capsys.readouterr().err
    assert "counting" in err
    assert "4/4" in err


def test_messages_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")
