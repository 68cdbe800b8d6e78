"""Benchmark of people of known quality in the loop, and of the ways to make labels of their answers.

    python -m jobs.bench.people pool=data/pool classes=[…]

Simulated people label clips of a corpus whose gold labels are known, through the ledger, and one run of them through
the annotation page in a browser. Then: are their qualities recovered from their answers alone, how many labels are
right, and how good are models that learn the majority, the shares of votes, the posterior of Dawid and Skene, or the
raters with the classes?
"""

# C classes
from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field, model_validator

from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.errors import AwaitingLabels, StateError, unknown_name
from seral.labels.agreement import agreement, person_reports
from seral.labels.consensus import consensus, of_labels, votes_by_clip
from seral.labels.crowd import votes_of
from seral.labels.ledger import Ledger
from seral.labels.options import PeopleOptions
from seral.labels.people import ledger_url
from seral.labels.records import Project
from seral.labels.simulated import PERSONALITIES, Person, Truth, answer_all
from seral.loop.budget import BudgetOptions
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.options import Options, run_job
from seral.pool.shards import open_pool
from seral.pool.split_options import SplitOptions
from seral.pool.splits import folds_of
from seral.report.report import write_run_report
from seral.selection.selection import StrategyOptions
from seral.task.eligibility import eligible
from seral.task.examples import Targets
from seral.task.folds import codes, features_of, fold_data
from seral.task.gold import Oracle
from seral.training.data import Labelled, TrainingData
from seral.training.finetune import finetune
from seral.training.scoring import evaluate, score

if TYPE_CHECKING:
    from playwright.sync_api import Page, Response

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
QUICK_MS = 330
"""The page takes no answer sooner: nobody has heard anything by then."""
PASSES = {"skipped": "s", "unusable": "u", "other-language": "o"}
"""Keys."""
WAYS: dict[str, PeopleOptions] = {
    "majority": PeopleOptions(consensus="majority", targets="hard"),
    "soft votes": PeopleOptions(consensus="soft", targets="soft"),
    "dawid-skene": PeopleOptions(consensus="dawid-skene", targets="soft"),
    "dawid-skene, winner": PeopleOptions(consensus="dawid-skene", targets="hard"),
    "crowd": PeopleOptions(consensus="crowd"),
}
"""Name -> a way to make labels of answers, to compare."""
Answering = Callable[[str, Ledger], None]
"""(run, its ledger): let people answer all they are asked."""


class PeopleBenchOptions(Options):
    """Options of the benchmark with people."""

    pool: str
    """A pool with gold labels: the truth that people hear, well or badly."""
    classes: list[str] = Field(min_length=2)
    """The emotions to tell apart."""
    corpora: list[str] | None = None
    """Only these corpora of the pool."""
    encoder: str = "seral-tiny"
    """Of the models."""
    split: SplitOptions = SplitOptions(scheme="k-fold", k=3)
    """Split by speakers."""
    people: list[str] = Field(default=["careful", "biased", "hasty"], min_length=1)
    """People who answer, names in seral.labels.simulated.PERSONALITIES."""
    overlap: int | None = Field(default=None, ge=1)
    """People who hear each clip; None = all of them."""
    labels: int = Field(default=150, ge=4)
    """Clips to learn from, drawn at random."""
    evaluation: int = Field(default=60, ge=2)
    """Clips to choose models by."""
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    """Everything but the browser's run is done once per seed."""
    sizes: list[int] | None = Field(default=[20, 40])
    """Labels held after each round of the run through the browser; None = no such run."""
    chromium: str = "/usr/bin/chromium"
    """The browser."""
    work: str = "runs/bench-people"
    """Folder for the runs; a run that is there goes on, or is only read."""

    @model_validator(mode="after")
    def _check(self) -> PeopleBenchOptions:
        if unknown := sorted(set(self.people) - set(PERSONALITIES)):
            raise ValueError(unknown_name("personality", unknown[0], PERSONALITIES))
        return self

    def persons(self) -> list[Person]:
        """The people, each called after their habits."""
        return [PERSONALITIES[name](name, self.classes) for name in self.people]

    def loop(self, run: str, seed: int, way: PeopleOptions, sizes: Sequence[int], strategy: str) -> LoopOptions:
        """The run of a way to make labels of answers."""
        overlap = {"overlap": self.overlap or len(self.people), "evaluation": self.evaluation}
        chosen = StrategyOptions(name=strategy)
        return LoopOptions(
            pool=self.pool,
            run=storage.absolute(storage.join(self.work, run)),
            encoder=self.encoder,
            classes=self.classes,
            corpora=self.corpora,
            split=self.split,
            seeds=[seed],
            folds=[0],
            initial=chosen,
            strategy=chosen,
            budget=BudgetOptions(sizes=list(sizes)),
            people=way.model_copy(update=overlap),
        )


def run_people_bench(options: PeopleBenchOptions) -> str:
    """Run it all, or what is missing of it; returns tables as text."""
    truth = read_truth(options)
    parts = []
    if options.sizes is not None:
        loop = options.loop("browser", options.seeds[0], WAYS["soft votes"], options.sizes, "auto")
        run = label_to_the_end(loop, lambda run, ledger: answer_in_browser(run, ledger, options, truth))
        parts += [f"Through the browser: {write_run_report(run)}", describe(run, options, truth).to_string(index=False)]
    connect(ClusterOptions())
    rows = [row for seed in options.seeds for row in compare_ways(options, truth, seed)]
    table = pd.DataFrame(rows)
    Path(options.work).mkdir(parents=True, exist_ok=True)
    table.to_csv(Path(options.work) / "ways.csv", index=False)
    parts += [table.drop(columns="seed").groupby("labels are", sort=False).mean().round(3).to_string()]
    return "\n\n".join(parts)


def read_truth(options: PeopleBenchOptions) -> dict[str, Truth]:
    """Utterance -> its gold class; what has none of the classes is missing, and people find it unusable."""
    pool = open_pool(options.pool)
    oracle = Oracle(pool, options.classes)
    ids = sorted(oracle.answerable)
    return dict(zip(ids, oracle.emotions(ids), strict=True))


def label_to_the_end(loop: LoopOptions, answer: Answering) -> str:
    """Run a loop, letting people answer whenever it waits for them. Raises StateError when they leave clips open."""
    before = None
    while True:
        try:
            return run_loop(loop)
        except AwaitingLabels as waiting:
            if str(waiting) == before:
                raise StateError(f"nobody answers any more, and yet: {waiting}") from waiting
            before = str(waiting)
        with closing(Ledger(ledger_url(loop.run, loop.people or PeopleOptions()))) as ledger:
            answer(loop.run, ledger)


def describe(run: str, options: PeopleBenchOptions, truth: Mapping[str, Truth]) -> pd.DataFrame:
    """Of each person what they are, and what their answers alone say of them; and how well all agree."""
    with closing(Ledger(storage.join(run, "labels.sqlite"))) as ledger:
        answers = ledger.answers()
    report_of = {report.person: report for report in person_reports(answers, options.classes)}
    alpha = agreement(answers, options.classes)["emotion"].alpha
    rows = [
        {
            "person": person.name,
            "answers": report_of[person.name].answers,
            "planted": round(person.accuracy, 3),
            "right by gold": round(_accuracy(answers, person.name, truth), 3),
            "dawid-skene": round(report_of[person.name].accuracy or 0.0, 3),
            "with the others": round(report_of[person.name].agreement or 0.0, 3),
            "alpha of all": round(alpha or 0.0, 3),
        }
        for person in options.persons()
    ]
    return pd.DataFrame(rows)


def _accuracy(answers: pa.Table, person: str, truth: Mapping[str, Truth]) -> float:
    """Share of a person's classes that are the gold ones."""
    rows = [row for row in answers.to_pylist() if row["person"] == person and row["emotions"]]
    return float(np.mean([row["emotions"] == [truth.get(row["utterance_id"])] for row in rows]))


def compare_ways(options: PeopleBenchOptions, truth: Mapping[str, Truth], seed: int) -> Iterator[dict[str, Any]]:
    """A model for each way to make labels of the same answers about the same clips, judged by gold labels."""
    loop = options.loop("", seed, WAYS["majority"], [options.labels], "random")
    pool = open_pool(options.pool)
    metadata = eligible(loop, pool, loop.corpora)
    store = features_of(loop, pool, loop.encoder, None)
    data = fold_data(loop, store, folds_of(metadata, loop.split, loop.folds)[0], metadata)
    rng = np.random.default_rng(seed)
    train, dev = (sorted(rng.permutation(np.asarray(part))[:count].tolist()) for part, count in
                  ((data.fold.train, options.labels), (data.fold.dev, options.evaluation)))  # fmt: skip
    test = data.utterances(data.fold.test)
    test_N = codes([str(truth[name]) for name in test.ids], options.classes)
    with TemporaryDirectory() as folder, closing(_ledger(folder, options, [*train, *dev], truth, seed)) as ledger:
        for name, way in WAYS.items():
            method = way.consensus or "majority"
            rows = consensus(ledger.answers(), options.classes, of_labels(method)).to_pylist()
            target = "emotion" if way.targets == "hard" else "probability"
            labelled = {row["utterance_id"]: row for row in rows if row[target] is not None}
            decided = {name: row for name, row in labelled.items() if row["emotion"] is not None}
            utterances = [data.utterances([name for name in part if name in labelled]) for part in (train, dev)]
            targets = [_targets([labelled[name] for name in part.ids], options.classes, way) for part in utterances]
            if method == "crowd":
                votes = votes_by_clip(ledger.answers(), options.classes)
                targets[0] = replace(targets[0], votes_N=votes_of([votes.get(name, []) for name in utterances[0].ids]))
            training = TrainingData(
                train=Labelled(utterances[0], targets[0]),
                dev=Labelled(utterances[1], targets[1]),
                unlabelled=data.unlabelled,
                store=store,
                classes=options.classes,
            )
            finetune(training, loop.finetune, folder, seed=seed, on=loop.cluster)
            probability_NC = score(storage.join(folder, "model"), store, test).probability_NC
            yield {
                "labels are": name,
                "seed": seed,
                "learnt from": len(labelled) / len(rows),
                "right": float(np.mean([row["emotion"] == truth[name] for name, row in decided.items()])),
                "gold_uar": float(evaluate(test_N, probability_NC, options.classes)["uar"]),
            }


def _ledger(
    folder: str, options: PeopleBenchOptions, ids: Sequence[str], truth: Mapping[str, Truth], seed: int
) -> Ledger:
    """A ledger in which everybody has answered about all of these."""
    ledger = Ledger.create(storage.join(folder, "labels.sqlite"), Project(classes=tuple(options.classes)))
    ledger.ask("all", ids, purpose="round", overlap=options.overlap or len(options.people))
    answer_all(ledger, options.persons(), truth, seed=seed)
    return ledger


def _targets(rows: Sequence[Mapping[str, Any]], classes: Sequence[str], way: PeopleOptions) -> Targets:
    target = Targets.of_classes(codes([row["emotion"] for row in rows], classes))
    if way.targets == "hard":
        return target
    return replace(target, soft_NC=np.array([row["probability"] for row in rows], np.float32))


def answer_in_browser(run: str, ledger: Ledger, options: PeopleBenchOptions, truth: Mapping[str, Truth]) -> None:
    """Serve the annotation page of a run, and let everybody answer there by keyboard until nothing is left."""
    # Imported here: a browser is for developers.
    from playwright.sync_api import sync_playwright

    with serving(run) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=FLAGS)
        for person in options.persons():
            context = browser.new_context()
            page = context.new_page()
            answer_by_keyboard(page, f"{address}/in/{ledger.add_person(person.name)}", person, truth)
            context.close()
        browser.close()


def answer_by_keyboard(page: Page, link: str, person: Person, truth: Mapping[str, Truth]) -> None:
    """One person at the page: presses the key of what they hear until there is nothing to do."""
    queue: list[str] = []  # in the order in which the page shows them

    def note(response: Response) -> None:
        if "/api/claim" in response.url and response.ok:
            queue.extend(clip["utterance_id"] for clip in response.json()["clips"] if clip["utterance_id"] not in queue)

    page.on("response", note)
    page.goto(link)
    for number in count():
        _until(page, lambda: page.locator("#idle").is_visible() or " of " in _text(page, "time"))
        if page.locator("#idle").is_visible():
            return
        if "to begin" in _text(page, "state"):
            page.keyboard.press("Space")
        title = _text(page, "title")
        page.wait_for_timeout(QUICK_MS)
        answer = person.answer(queue[number], truth.get(queue[number]), answered=number)
        page.keyboard.press(PASSES.get(answer.kind) or str(1 + person.classes.index(answer.emotions[0])))
        _until(page, lambda: _text(page, "title") != title or page.locator("#idle").is_visible())  # noqa: B023


def _text(page: Page, name: str) -> str:
    return page.locator(f"#{name}").text_content() or ""


def _until(page: Page, done: Callable[[], bool], most_s: float = 60.0) -> None:
    """Wait; the page's policy forbids the browser's own way of waiting, which evaluates text."""
    deadline = time.monotonic() + most_s
    while not done():
        if time.monotonic() > deadline:
            raise StateError(f"the annotation page stands still: {_text(page, 'state')!r}, {_text(page, 'network')!r}")
        page.wait_for_timeout(20)


@contextmanager
def serving(run: str) -> Iterator[str]:
    """`seral labels serve` as a process of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "seral", "labels", "serve", run, "--port", str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            while not _answers(address):
                if process.poll() is not None:
                    raise StateError(f"the annotation page of {run} does not start: {' '.join(command)}")
                time.sleep(0.1)
            yield address
        finally:
            process.kill()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


if __name__ == "__main__":
    run_job(PeopleBenchOptions, run_people_bench, __doc__)
