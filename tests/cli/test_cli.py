from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from seral import __version__, cli
from seral.cli import HOME, MODULES, _built
from seral.cli.corpus import FLAGS
from seral.cli.display import print_json, show, show_rows
from seral.corpora import READERS
from seral.errors import OptionError
from seral.options import describe
from seral.verbs import VERBS, Verb

MakeCorpus = Callable[..., Path]
OTHERS = [
    ["protocols"],
    ["labels", "serve"],
    ["labels", "people"],
    ["labels", "progress"],
    ["labels", "agreement"],
    ["labels", "audit"],
    ["labels", "consensus"],
    ["labels", "export"],
    ["labels", "import"],
    ["labels", "doubts"],
    ["labels", "relabel"],
    ["pool", "check"],
    ["pool", "stats"],
    ["pool", "merge"],
    ["pool", "repair"],
    ["run", "check"],
    ["runs", "ls"],
    ["pool", "filter"],
    ["pool", "sample"],
    ["pool", "snapshot"],
    ["pool", "diff"],
    ["loop", "status"],
    ["strategies"],
    ["sweep", "best"],
    ["jobs", "submit"],
    ["jobs", "manifest"],
    ["jobs", "cluster"],
    ["jobs", "service"],
    ["jobs", "status"],
    ["jobs", "logs"],
    ["jobs", "stop"],
    ["jobs", "list"],
    ["doctor"],
    ["demo"],
    ["init"],
    ["config"],
    ["serve"],
]
"""Commands that are no configured verb."""
COMMANDS = [*(verb.words for verb in VERBS.values()), *OTHERS]


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


@pytest.mark.parametrize("module", MODULES)
def test_a_module_has_the_commands_that_are_looked_for_in_it(module: str) -> None:
    assert sorted(_built(module)) == sorted(word for word, home in HOME.items() if home == module)


def test_a_command_is_built_without_those_of_other_modules() -> None:
    script = "import sys\nfrom seral.cli import main\ntry: main()\nfinally: print(*sys.modules)"
    words = [sys.executable, "-c", script, "loop", "status", "--help"]
    modules = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split()
    assert {name for name in MODULES if f"seral.cli.{name}" in modules} == {"loop"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_says_what_a_command_does(command: list[str]) -> None:
    status, text = run(*command, "--help")
    assert status == 0
    assert f"Usage: root {' '.join(command)}" in text
    summary = text.split("Usage:")[1].splitlines()[2].strip()
    assert len(summary) > 20
    assert summary[0].isupper()


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_help_of_a_verb_shows_an_example(verb: Verb) -> None:
    assert f"Example: seral {' '.join(verb.words)} " in run(*verb.words, "--help")[1].replace("`", "")


def test_help_of_the_import_lists_the_readers_and_what_they_take() -> None:
    text = " ".join(run("pool", "import", "--help")[1].replace("│", " ").split())
    for name in READERS:
        assert re.search(rf"[ ,]{name}[ ,.]", text), name
    assert "manifest (columns; corpus; pattern; maps; votes; ratings; join; audio_root)" in text
    assert "--set reader_options.NAME=VALUE" in text


@pytest.mark.parametrize("arguments", [[], ["pool"], ["loop"], ["sweep"]])
def test_a_group_alone_shows_its_commands(arguments: list[str]) -> None:
    _, text = run(*arguments)
    wanted = [c[len(arguments)] for c in COMMANDS if c[: len(arguments)] == arguments]
    for name in wanted:
        assert name in text


def test_the_version_is_told_and_a_shell_completes_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).output == f"seral {__version__}\n"
    monkeypatch.setenv("_SERAL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "seral pool sn")
    monkeypatch.setenv("COMP_CWORD", "2")
    done = CliRunner().invoke(cli.app, [], prog_name="seral")
    assert done.output.split() == ["snapshot"]


def test_an_unknown_reader_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"unknown reader 'emodbb'; known: {', '.join(sorted(READERS))}"):
        run("pool", "import", "emodbb", str(tmp_path), "--out", str(tmp_path / "pool"))


def test_an_unknown_setting_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"unknown option 'shard_mbs'; known here: reader, root, .*shard_mb"):
        run("pool", "import", "folder", str(tmp_path), "--out", str(tmp_path / "pool"), "--set", "shard_mbs=1")


def test_a_column_without_its_name_is_a_usage_error(tmp_path: Path) -> None:
    status, text = run("pool", "import", "manifest", str(tmp_path), "--out", str(tmp_path / "p"), "--column", "emotion")
    assert status == 2
    assert "expected two names or values joined by =, got 'emotion'" in text


def test_an_audit_takes_what_an_import_takes_to_read_a_corpus(tmp_path: Path) -> None:
    flags = {f"--{name.replace('_', '-')}" for name in FLAGS}
    for command in ("import", "audit"):
        assert flags <= set(re.findall(r"--[a-z-]+", run("pool", command, "--help")[1]))
    for number, code in enumerate(("W", "L", "X")):
        (tmp_path / f"s{number}{code}.wav").touch()
    words = [
        "--pattern",
        r"(?P<speaker>s\d)(?P<emotion>.)",
        "--map",
        'emotion=W:anger,"L:bored, a bit"',
        "--map",
        "gender=*:f",
    ]
    status, text = run("pool", "audit", "folder", str(tmp_path), *words, "--set", "corpus=mine")
    assert status == 0
    assert "emotion        3: X 1, anger 1, bored, a bit 1" in text
    assert "gender         1: female 3" in text
    options = {"pattern": r"(?P<speaker>s\d).", "maps": {"gender": {"*": "f"}}}
    status, text = run("pool", "audit", "folder", str(tmp_path), "--set", f"reader_options={json.dumps(options)}")
    assert "speaker        3: s0 1, s1 1, s2 1" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--map", "emotion=W"], "expected WORD:OURS, got 'W' in 'emotion=W'"),
        (["--ratings", "valence"], "expected two names or values joined by =, got 'valence'"),
        (["--votes", "rater=who,label"], "expected two names or values joined by =, got 'label'"),
    ],
)
def test_choices_that_are_half_said_are_usage_errors(tmp_path: Path, words: list[str], message: str) -> None:
    status, text = run("pool", "audit", "folder", str(tmp_path), *words)
    assert status == 2
    assert message in " ".join(text.replace("│", " ").split())


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
    status, text = run("loop", "run", "--options")
    assert status == 0
    for line in ("pool = required", "encoder = seral-tiny", "finetune.adapter = frozen", "cluster.cpus = None"):
        assert line in text


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_every_verb_lists_its_options_and_their_schema(verb: Verb, tmp_path: Path) -> None:
    """Also with a configuration given, which may still be wrong: its author is looking for what may stand in it."""
    status, text = run(*verb.words, "--options")
    assert status == 0
    assert text.strip() == describe(verb.options_model()).strip()
    (tmp_path / "broken.yaml").write_text("nonsense: 1")
    assert run(*verb.words, str(tmp_path / "broken.yaml"), "--options") == (status, text)
    status, text = run(*verb.words, "--json-schema")
    assert status == 0
    schema = json.loads(text)
    assert schema["properties"]["verb"]["const"] == verb.name
    assert set(schema["properties"]) == {"verb", *verb.options_model().model_fields}
    jsonschema.validators.validator_for(schema).check_schema(schema)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["labels", "serve"], "check_every = 0  (int, >= 0)"),
        (["jobs", "manifest"], "workers = 2  (int, >= 0)"),
    ],
)
def test_other_commands_with_settings_list_their_options_too(command: list[str], line: str) -> None:
    status, text = run(*command, "--options")
    assert status == 0
    assert line in text
    assert json.loads(run(*command, "--json-schema")[1])["type"] == "object"


def test_a_configured_command_wants_a_file_or_settings() -> None:
    status, text = run("compare")
    assert status == 2
    assert "name a YAML file, or options by --set; --options lists them" in " ".join(text.replace("│", " ").split())


def test_a_configured_command_refuses_the_file_of_another_verb(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("verb: loop\nrun: somewhere\n")
    with pytest.raises(OptionError, match=r"mine\.yaml holds options of 'loop', not of 'compare'"):
        run("compare", str(tmp_path / "mine.yaml"))


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_pool_is_imported_described_and_checked(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    corpus, pool = make_corpus(tmp_path / "calls", 4), str(tmp_path / "pool")
    (corpus / "audio" / "clip0003.flac").write_bytes(b"")
    status, text = run("pool", "import", "manifest", str(corpus), "--out", pool, "--set", "max_duration_s=9")
    assert status == 0
    assert "reasons.empty" in text
    assert f"seral pool screen {pool} (about 1 min of one CPU for 0.0 h of speech)" in text
    again = ("pool", "import", "manifest", str(corpus), "--out", pool, "--set", "max_duration_s=9")
    status, text = run(*again, "--screen")
    assert status == 0
    assert "near-duplicates among 3 utterances" in text
    assert "seral pool screen" not in run(*again)[1], "it was screened, and nothing is new"

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


@pytest.fixture
def run_of_two(tmp_path: Path) -> Path:
    """A run folder with two trajectories, whose names are longer than a line of a terminal."""
    folder = tmp_path / "run"
    folder.mkdir()
    values = {"pool": "pool", "run": str(folder), "classes": ["anger", "neutral"]}
    (folder / "config.yaml").write_text(json.dumps(values))
    for name in ("after.fold-leave-one-speaker-of-a-corpus-with-a-long-name.seed-0", "random." + "x" * 90):
        rounds = folder / "trajectories" / name / "rounds"
        (rounds / "0000").mkdir(parents=True)
        (rounds.parent / "trajectory.json").write_text(json.dumps({"schedule": [10, 20]}))
        record = {"round": 0, "labelled": 10, "dev_uar": 0.5, "stop_reason": "the plan is complete, and so is this run"}
        (rounds / "0000" / "round.json").write_text(json.dumps(record))
    return folder


def test_the_status_of_a_run_is_a_line_a_row_through_a_pipe(run_of_two: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m seral loop status {run_of_two} | cat",
        shell=True,
        env={**os.environ, "COLUMNS": "50"},
        capture_output=True,
        text=True,
        check=True,
    )
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["trajectory", "rounds", "labelled", "dev_uar", "stopped"]
    names = [path.name for path in sorted((run_of_two / "trajectories").iterdir())]
    assert [row.split()[0] for row in rows] == names, "a row was folded or cut"
    assert all(row.endswith("0.500    the plan is complete, and so is this run") for row in rows)


def test_an_empty_table_is_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    show_rows([], empty="nothing was submitted yet")
    assert capsys.readouterr().out == "nothing was submitted yet\n"
    print_json(True)
    show_rows([])
    print_json(False)
    assert json.loads(capsys.readouterr().out) == []


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
