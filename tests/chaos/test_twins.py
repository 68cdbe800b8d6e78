"""A loop that is hit again and again, or runs in other surroundings: it has the bytes of a twin nobody disturbed."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.bench.chaos import kills, signals
from jobs.bench.chaos.commands import SUBJECTS, differences, run_seral
from jobs.bench.chaos.surroundings import DAY_S, NOBODY, SURROUNDINGS, Surroundings, python_for, run_in
from jobs.bench.chaos.watched import End, Running

pytestmark = pytest.mark.slow
RAY_DIED = "error: Ray's {} was killed by SIGKILL in the middle of the work"


@dataclass(frozen=True, kw_only=True)
class Blow:
    """What befalls a command, and when."""

    number: signal.Signals
    kind: str | None = None
    """A process of Ray, None = the command itself."""
    rounds: int | None = None
    """Once there are so many more rounds than the last run has left; None = while a worker computes features."""


BLOWS = {
    "the raylet in features": Blow(number=signal.SIGKILL, kind="raylet"),
    "SIGTERM in a round": Blow(number=signal.SIGTERM, rounds=1),
    "a worker in a round": Blow(number=signal.SIGKILL, kind="worker", rounds=1),
}
"""One after the other, to one loop; jobs.bench.chaos has all others, and other commands."""


def moment(blow: Blow, folder: Path) -> Callable[[Running], bool]:
    """Whether the moment of a blow has come."""

    def rounds() -> int:
        return len(list(folder.glob("run/trajectories/*/rounds/*/round.json")))

    before = rounds()
    if blow.rounds is None:
        return lambda running: bool(running.pids("worker"))
    more = blow.rounds
    return lambda running: rounds() >= before + more and bool(running.pids("worker"))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A loop that was hit, each time in its work, and then ended by itself."""

    ends: dict[str, End]
    last: End
    differences: list[str]


@pytest.fixture(scope="module")
def twin(materials: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a loop that nobody disturbed."""
    folder = tmp_path_factory.mktemp("twin")
    run_seral(SUBJECTS["loop"].words(materials, folder))
    return folder


@pytest.fixture(scope="module")
def chain(materials: Path, twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A loop that was hit by all blows."""
    folder, ends = tmp_path_factory.mktemp("hit"), {}
    words = SUBJECTS["loop"].words(materials, folder)
    for name, blow in BLOWS.items():
        running = Running(words, folder / "log")
        assert running.wait_for(moment(blow, folder)), f"{name}: it ended before; {running.outcome()}"
        ends[name] = running.strike(blow.number, blow.kind)
    last = Running(words, folder / "log").outcome()
    wrong = differences(SUBJECTS["loop"], folder, twin)
    shutil.rmtree(folder)
    return Chain(ends=ends, last=last, differences=wrong)


def test_every_blow_hit_something_and_ended_as_it_should(chain: Chain) -> None:
    for name, end in chain.ends.items():
        assert end.hit, name
        mode = signals if name.startswith(("SIGTERM", "SIGINT")) else kills
        assert mode.complaints(end) == [], (name, end)
    ended = {name: end.status for name, end in chain.ends.items()}
    expected = {"SIGTERM": 143, "SIGINT": 130, "a worker": 0, "the raylet": 1, "the GCS": 1, "SIGKILL": -9}
    for name, status in ended.items():
        assert status == next(number for start, number in expected.items() if name.startswith(start)), chain.ends[name]


def test_nothing_is_alive_ten_seconds_later(chain: Chain) -> None:
    assert {name for name, end in chain.ends.items() if end.status != 0 and end.gone_s > 10} == set()


def test_a_sentence_says_what_died(chain: Chain) -> None:
    for name, end in chain.ends.items():
        if end.status == 1:
            assert RAY_DIED.format(name.split()[1]) in end.last_line
            assert "the same command goes on" in end.last_line
        if end.status == -signal.SIGKILL:
            assert end.last_line.startswith("error: the command was killed")


def test_the_same_command_ends_in_the_same_bytes(chain: Chain) -> None:
    assert chain.last.status == 0, chain.last
    assert chain.differences == []


def test_other_surroundings_change_nothing(materials: Path, twin: Path, tmp_path: Path) -> None:
    other = Surroundings(
        environment={"LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7"},
        umask=0o077,
        jump_s=30 * DAY_S,
        one_worker=True,
    )
    end = run_in(other, SUBJECTS["loop"], tmp_path, materials)
    assert end.status == 0, end
    assert differences(SUBJECTS["loop"], tmp_path, twin) == []
    private = [path for path in (tmp_path / "run").rglob("*") if path.stat().st_mode & 0o077]
    assert private == [], "a strict umask holds for workers, too"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="seral-open-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_another_user_works_with_a_pool_that_is_not_theirs(materials: Path, twin: Path, open_folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can run a command as somebody else")
    if python_for(NOBODY) is None:
        pytest.skip(f"{NOBODY} may not read what is installed here")
    shutil.copytree(materials, open_folder / "materials")
    folder = open_folder / "own"
    folder.mkdir()
    end = run_in(SURROUNDINGS["another user"], SUBJECTS["loop"], folder, open_folder / "materials")
    assert end.status == 0, end
    assert differences(SUBJECTS["loop"], folder, twin) == []
