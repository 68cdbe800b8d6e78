"""Completion by its protocol, as bash, zsh and fish speak it, and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seral.cli.completion import TABLES, table_names

COMMAND = [str(Path(sys.executable).parent / "seral")]


def completed(**variables: str) -> list[str]:
    """Lines that a shell would offer."""
    done = subprocess.run(COMMAND, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    return done.stdout.splitlines()


def bash(line: str) -> list[str]:
    """Words that bash is given at the end of a line; bash ends words at an equals sign."""
    words = line.replace("=", " = ").split() + ([""] if line.endswith((" ", "=")) else [])
    return completed(_SERAL_COMPLETE="complete_bash", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1))


@pytest.mark.parametrize(
    ("line", "first", "others"),
    [
        ("seral loop run x.yaml --set finetune.he", "finetune.head.l2=", "finetune.head_lr="),
        ("seral loop run x.yaml --set finetune.adapter=", "frozen", "bottleneck"),
        ("seral loop run x.yaml --set finetune.adapter=lora+bot", "lora+bottleneck", "lora+bottleneck"),
        ("seral loop run --set dev=", "cross-validated", "speakers"),
        ("seral loop run --set cluster.precision=", "fp32", "bf16"),
        ("seral loop run --set seeds=[0] --set probe=", "true", "false"),
        ("seral loop run --set finetune.epochs", "finetune.epochs=", "finetune.epochs=1"),
        ("seral pool import emod", "emodb", "emodb"),
        ("seral select features --strategy bat", "batch_bald", "batch_bald"),
    ],
)
def test_bash_is_offered_keys_and_values(line: str, first: str, others: str) -> None:
    offered = bash(line)
    assert offered[0] == first
    assert others in offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_see_the_whole_word(shell: str) -> None:
    offered = completed(
        _SERAL_COMPLETE=f"complete_{shell}",
        _TYPER_COMPLETE_ARGS="seral loop run x.yaml --set finetune.adapter=lo",
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert any("finetune.adapter=lora" in line for line in offered)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes_an_option() -> None:
    """The function that `--install-completion` installs, called as bash calls it on a TAB."""
    script = subprocess.run(
        COMMAND, env={**os.environ, "_SERAL_COMPLETE": "source_bash"}, capture_output=True, text=True, check=True
    ).stdout
    words = "COMP_WORDS=(seral loop run x.yaml --set dev = sp); COMP_CWORD=7"
    done = subprocess.run(
        ["bash", "--norc", "-c", f"{script}\n{words}; _seral_completion {COMMAND[0]}; echo ${{COMPREPLY[*]}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["speakers"], done.stderr


@pytest.mark.parametrize("name", TABLES)
def test_names_read_from_the_source_are_those_of_the_table(name: str) -> None:
    """Each table is imported here, as nobody who presses TAB waits for."""
    from importlib import import_module

    module, table, group = TABLES[name]
    assert set(getattr(import_module(module), table)) <= set(table_names(module, table, group))
    assert table_names(module, table)
