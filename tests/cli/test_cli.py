from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from seral import cli
from seral.cli.display import show, show_rows
from seral.corpora import READERS
from seral.errors import OptionError

MakeCorpus = Callable[..., Path]
COMMANDS = [
    ["protocols"],
    ["labels", "serve"],
    ["labels", "people"],
    ["labels", "progress"],
    ["labels", "agreement"],
    ["labels", "consensus"],
    ["labels", "export"],
    ["labels", "import"],
    ["labels", "doubts"],
    ["labels", "relabel"],
    ["pool", "import"],
    ["pool", "cut"],
    ["pool", "audit"],
    ["pool", "check"],
    ["pool", "stats"],
    ["pool", "erase"],
    ["pool", "merge"],
    ["pool", "filter"],
    ["pool", "sample"],
    ["pool", "snapshot"],
    ["pool", "diff"],
    ["pool", "screen"],
    ["pool", "degrade"],
    ["pool", "generate"],
    ["loop", "run"],
    ["loop", "options"],
    ["loop", "status"],
    ["pretrain"],
    ["train"],
    ["compare"],
    ["select"],
    ["compare-strategies"],
    ["strategies"],
    ["two-stage"],
    ["sweep", "run"],
    ["sweep", "best"],
    ["jobs", "submit"],
    ["jobs", "manifest"],
    ["jobs", "status"],
    ["jobs", "logs"],
    ["jobs", "stop"],
    ["jobs", "list"],
    ["layers", "relevance"],
    ["layers", "similarity"],
    ["layers", "anchor"],
    ["layers", "probe"],
    ["distil"],
    ["report"],
    ["predict"],
    ["doctor"],
    ["demo"],
]


def run(*arguments: str) -> tuple[int, str]:
    """Exit status and output of a command that ends without a seral error."""
    done = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def test_every_command_is_tested_here() -> None:
    tree = get_command(cli.app).commands  # type: ignore[attr-defined]  # a group, since it has sub-commands
    leaves = [[name, *([inner] if inner else [])] for name, c in tree.items() for inner in getattr(c, "commands", [""])]
    assert sorted(leaves) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_says_what_a_command_does(command: list[str]) -> None:
    status, text = run(*command, "--help")
    assert status == 0
    assert f"Usage: root {' '.join(command)}" in text
    summary = text.split("Usage:")[1].splitlines()[2].strip()
    assert len(summary) > 20
    assert summary[0].isupper()


@pytest.mark.parametrize(
    "command",
    [
        ["pool", "import"],
        ["pool", "audit"],
        ["loop", "run"],
        ["pretrain"],
        ["train"],
        ["compare"],
        ["two-stage"],
        ["sweep", "run"],
    ],
    ids=" ".join,
)
def test_help_of_the_main_commands_shows_an_example(command: list[str]) -> None:
    assert f"Example: seral {' '.join(command)} " in run(*command, "--help")[1].replace("`", "")


def test_help_of_the_import_lists_the_readers_and_what_they_take() -> None:
    text = " ".join(run("pool", "import", "--help")[1].replace("│", " ").split())
    for name in READERS:
        assert re.search(rf"[ ,]{name}[ ,.]", text), name
    assert "manifest (columns; corpus)" in text
    assert "--set reader_options.NAME=VALUE" in text


@pytest.mark.parametrize("arguments", [[], ["pool"], ["loop"], ["sweep"]])
def test_a_group_alone_shows_its_commands(arguments: list[str]) -> None:
    _, text = run(*arguments)
    wanted = [c[len(arguments)] for c in COMMANDS if c[: len(arguments)] == arguments]
    for name in wanted:
        assert name in text


def test_an_unknown_reader_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"unknown reader 'emodbb'; known: {', '.join(sorted(READERS))}"):
        run("pool", "import", "emodbb", str(tmp_path), "--out", str(tmp_path / "pool"))


def test_an_unknown_setting_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown option 'shard_mbs'; known here: reader, root, out.*shard_mb"):
        run("pool", "import", "folder", str(tmp_path), "--out", str(tmp_path / "pool"), "--set", "shard_mbs=1")


def test_a_column_without_its_name_is_a_usage_error(tmp_path: Path) -> None:
    status, text = run("pool", "import", "manifest", str(tmp_path), "--out", str(tmp_path / "p"), "--column", "emotion")
    assert status == 2
    assert "expected two names or values joined by =, got 'emotion'" in text


def test_an_error_is_one_line_and_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets in a path are text, not colours."""
    nowhere = tmp_path / "[bold]nowhere[/]"
    monkeypatch.setattr(sys, "argv", ["seral", "pool", "stats", str(nowhere)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: there is no pool at {nowhere} (make one: seral pool import)")
    assert "Traceback" not in err


def test_the_options_of_the_loop_are_listed() -> None:
    status, text = run("loop", "options")
    assert status == 0
    for line in ("pool = required", "encoder = seral-tiny", "finetune.adapter = frozen", "cluster.cpus = None"):
        assert line in text


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_pool_is_imported_described_and_checked(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    corpus, pool = make_corpus(tmp_path / "calls", 4), str(tmp_path / "pool")
    (corpus / "audio" / "clip0003.flac").write_bytes(b"")
    status, text = run("pool", "import", "manifest", str(corpus), "--out", pool, "--set", "max_duration_s=9")
    assert status == 0
    assert "reasons.empty" in text

    status, text = run("pool", "stats", pool, "--json")
    stats = json.loads(text)
    assert (status, stats["utterances"], stats["quarantined"]) == (0, 3, {"empty": 1})
    assert stats["corpora"]["calls"]["languages"] == ["en"]
    assert "corpora.calls.utterances" in run("pool", "stats", pool)[1]

    status, text = run("pool", "check", pool)
    assert status == 0
    assert text.endswith(f"{pool}: sound\n")
    (shard,) = (tmp_path / "pool" / "utterances").iterdir()
    shard.write_bytes(shard.read_bytes() + b"\0")
    status, text = run("pool", "check", pool)
    assert status == 1
    assert f"shard {shard.stem}: the bytes of its table `utterances` are not those of the manifest" in text
    assert text.endswith(f"{pool}: 1 problems\n")


def test_a_wide_table_loses_nothing_outside_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{f"a rather long name {column}": "x" * 40 + str(row) for column in range(12)} for row in range(3)]
    show_rows(rows)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert [name.strip() for name in lines[0].split("  ") if name] == list(rows[0])
    assert lines[2].split() == list(rows[1].values())
    show({"models": ["m" * 60] * 300, "note": "short"})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["models", "note"]
    assert lines[1] == "note    short", "nothing is filled up to the longest entry"
    show({"found": {"a" * 90: "b" * 90}})
    assert capsys.readouterr().out.split() == ["found." + "a" * 90, "b" * 90]
