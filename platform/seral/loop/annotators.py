"""The loop's way to whoever answers: the gold labels of a benchmark, or people through the label ledger."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import pyarrow as pa

from seral import storage
from seral.errors import AwaitingLabels, SplitError
from seral.labels.annotator import Annotator
from seral.labels.options import PeopleOptions
from seral.labels.people import People, awaited
from seral.loop.options import LoopOptions
from seral.pool.shards import Pool
from seral.progress import say
from seral.task.eligibility import askable
from seral.task.gold import Oracle
from seral.training.sources import sides


@dataclass(frozen=True, kw_only=True)
class AnnotatorKind:
    """One kind of annotator: how it is made from the options of a run, and what holds before it is made."""

    summary: str
    """One sentence."""
    open: Callable[[LoopOptions, Pool], Annotator]
    """Make the annotator; who opens it closes it."""
    candidates: Callable[[LoopOptions, Pool], tuple[pa.Table, pa.Table]]
    """Metadata of the utterances that it can be asked about, and of the source, whose labels cost nothing."""
    check: Callable[[LoopOptions], None]
    """Raise AwaitingLabels before anything is started, when a round that was asked lacks answers."""
    pending: Callable[[LoopOptions], list[str]]
    """The batches that lack answers, in words."""
    wait: Callable[[LoopOptions, AwaitingLabels], bool]
    """Wait until everything is answered; False where the run is to end instead."""
    more_evaluation: str
    """The option that brings more labels to choose models by."""


# Gold labels: there without being asked for


def open_gold(options: LoopOptions, pool: Pool) -> Oracle:
    """The gold labels of the pool, in the classes of the run."""
    return Oracle(pool, options.classes, options.class_map, options.dimensions, votes=options.votes)


def never_lacking(options: LoopOptions) -> None:
    """Nothing to check: answers come at once."""


def nothing_pending(options: LoopOptions) -> list[str]:
    """An empty list: answers come at once."""
    return []


def no_wait(options: LoopOptions, pause: AwaitingLabels) -> bool:
    """False: answers come at once."""
    return False


# People: asked through the ledger, heard when they answer


def open_people(options: LoopOptions, pool: Pool | None = None) -> People:
    """The people of a run, through its ledger."""
    return People(options.run, options.people or PeopleOptions(), options.classes, options.dimensions)


def with_known_speakers(options: LoopOptions, pool: Pool) -> tuple[pa.Table, pa.Table]:
    """Metadata of what people can be asked about, and no source. Raises SplitError where no speaker is known."""
    table = askable(pool, options.corpora)
    if table["speaker"].null_count == table.num_rows:
        raise SplitError(
            f"no clip of {pool.uri} has a speaker, and models must be judged by others than those they learnt from: "
            "import it with speakers; where voices are not known, name the call or the recording instead"
        )
    return table, table.slice(0, 0)


def check_people(options: LoopOptions) -> None:
    """Raise AwaitingLabels when people have not answered what a round asks."""
    if storage.exists(storage.join(options.run, "evaluation.parquet")):
        with closing(open_people(options)) as people:
            people.check_rounds()


def pending_batches(options: LoopOptions) -> list[str]:
    """The progress of each batch that people have not answered."""
    with closing(open_people(options)) as people:
        return [awaited(batch) for batch in people.pending()]


def wait_for_people(options: LoopOptions, pause: AwaitingLabels) -> bool:
    """Wait for the answers of people, where the run is to wait for them."""
    if options.people is None or not options.people.wait:
        return False
    say(str(pause))
    with closing(open_people(options)) as people:
        people.wait()
    return True


ANNOTATORS: dict[str, AnnotatorKind] = {
    "gold": AnnotatorKind(
        summary="The gold labels of a benchmark corpus answer everything at once.",
        open=open_gold,
        candidates=sides,
        check=never_lacking,
        pending=nothing_pending,
        wait=no_wait,
        more_evaluation="split.dev_speakers",
    ),
    "people": AnnotatorKind(
        summary="People answer at the annotation page, and the run goes on when they have.",
        open=open_people,
        candidates=with_known_speakers,
        check=check_people,
        pending=pending_batches,
        wait=wait_for_people,
        more_evaluation="people.evaluation",
    ),
}
"""Annotators of a run by the name in `LoopOptions.annotator`; the contract test runs over this table."""
