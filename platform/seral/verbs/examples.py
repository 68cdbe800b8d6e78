"""Files to start from: the runs of jobs/configs, what clusters need, and a folder for a project of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from seral.errors import OptionError, room_for, unknown_name
from seral.options import read_yaml
from seral.verbs import VERBS, Verb

PACKAGED = Path(__file__).parents[1] / "jobs"
"""Folder of a wheel for what a checkout has in jobs/."""
FIRST_RUN = "first-run"
RUN, IGNORED = "run.yaml", ".gitignore"
FOLDERS = ("data", "runs")


def shipped() -> dict[str, Path]:
    """Every file to start from by its name, a run's without .yaml."""
    jobs = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[3] / "jobs"
    files = [*sorted((jobs / "configs").glob("*.yaml")), *sorted((jobs / "cluster").iterdir())]
    return {path.name.removesuffix(".yaml"): path for path in files}


def text_of(name: str) -> str:
    """A file to start from, with the comments that say how to; names of files are those of the current folder."""
    files = shipped()
    if name not in files:
        raise OptionError(unknown_name("file", name, files))
    return files[name].read_text(encoding="utf-8").replace("jobs/configs/", "").replace("jobs/cluster/", "")


def summaries() -> Iterator[dict[str, str]]:
    """Name, verb and first sentence of every file to start from."""
    for name, path in shipped().items():
        comments = [line.strip("# ") for line in path.read_text("utf-8").splitlines() if line.startswith("# ")]
        about = " ".join(comments).partition(". ")[0]
        verb = verb_of(path) if path.suffix == ".yaml" else None
        yield {"name": name, "verb": verb.name if verb else "", "about": about.rstrip(".")}


def verb_of(path: Path) -> Verb:
    """The one verb that a comment of a run's file starts it with. Raises OptionError for none, or several."""
    comments = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    starts = {name: f"seral {' '.join(verb.words)} jobs/configs/" for name, verb in VERBS.items()}
    names = [name for name, start in starts.items() if any(start in line for line in comments)]
    if len(names) != 1:
        raise OptionError(f"{path} should say in a comment how it is started, as `seral VERB jobs/configs/...`")
    return VERBS[names[0]]


def make_project(folder: Path) -> str:
    """Make a project's folder: a first run, and where data and runs go. Returns what to do next.

    Raises OptionError where a file would be written over.
    """
    for name in (RUN, IGNORED):
        if (folder / name).exists():
            raise OptionError(f"{folder / name} is there already: name another folder, or remove it")
    text = text_of(FIRST_RUN).replace(f"{FIRST_RUN}.yaml", RUN)
    with room_for(folder):
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / RUN).write_text(text, encoding="utf-8")
        (folder / IGNORED).write_text("".join(f"/{name}/\n" for name in FOLDERS), encoding="utf-8")
    values = read_yaml(folder / RUN)
    return f"""{folder}: {RUN} says what the run is about, data/ takes pools, runs/ results.

  cd {folder}
  seral pool import READER PATH --out {values["pool"]}     (seral pool guess PATH says which reader, and how)
  seral doctor {RUN}
  seral loop run {RUN}
  seral report {values["run"]}"""
