"""Benchmark of second opinions: is an answer worth more about a clip that has one, or about a new clip?

    python -m jobs.bench.second_opinions corpus=ravdess root=RAVDESS votes=../shared/corpora/crema_d_votes

Speech with single raters' votes is rarely free. The votes here are real ones of other speech, a stand-in: every clip
of a corpus has all votes of a clip of CREMA-D that was meant to be the same emotion, drawn by chance. So raters confuse
classes, and agree or not about a clip, as people did who heard real voices; that they hear this very clip is not so.
The loop buys one rater's answer after the other. Arms with the wrapper `relabel` spend some on clips that have one.

Then: labels of the first few raters of each clip, made in every way, and models of them, judged by all raters of
other speakers' clips.
"""

# N clips · M clips to learn from · C classes
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import Field

from ser_models.fitting import PooledSet, fit_head, middle_layers, predict_pooled
from ser_models.heads import LayerPool
from ser_models.intervals import mean_interval
from ser_models.metrics import soft_label_agreement, uar
from seral import storage
from seral.cluster import ClusterOptions, connect
from seral.corpora.crema_d import CONVENTION, EMOTIONS, read_votes
from seral.corpora.options import CorpusOptions, read_corpus
from seral.corpora.reading.utterance import Utterance, Vote
from seral.errors import StateError
from seral.figures.markdown import markdown
from seral.labels.options import VoteOptions
from seral.labels.votes import VoteMethod, voted_labels
from seral.loop.budget import BudgetOptions
from seral.loop.loop import run_loop
from seral.loop.options import LoopOptions
from seral.loop.pool_scores import probabilities
from seral.options import Options, run_job
from seral.pool.ingest import import_corpus
from seral.pool.options import ImportOptions
from seral.pool.shards import Pool, open_pool
from seral.pool.split_options import SplitOptions
from seral.progress import say, track
from seral.selection.selection import StrategyOptions
from seral.task.eligibility import eligible
from seral.task.folds import FoldData, features_of, fold_data, folds_by_seed
from seral.task.gold import CLASS_MAP, Oracle
from seral.task.gold import read_votes as votes_of

VOICE = "1"
"""Raters of CREMA-D who were given the voice alone."""
WAYS: dict[str, tuple[VoteMethod, bool]] = {
    "majority": ("majority", False),
    "soft": ("soft", True),
    "soft, without ties": ("soft", False),
    "dawid-skene": ("dawid-skene", True),
    "dawid-skene, winner": ("dawid-skene", False),
}
"""Name -> method, and whether ties are learnt from; without shares a tie is left out."""
MEASURES = ("uar_majority", "uar_intended", "cross_entropy")


class SecondOpinionOptions(Options):
    """Options of the benchmark of second opinions."""

    corpus: str = "ravdess"
    """Reader of the corpus whose clips are labelled."""
    root: str
    """The folder of that corpus."""
    votes: str
    """The folder of CREMA-D's votes; its sound is not needed."""
    encoder: str = "seral-tiny"
    """Of the models."""
    classes: list[str] = Field(default=["anger", "disgust", "fear", "happiness", "neutral", "sadness"], min_length=2)
    """The emotions, of those that CREMA-D has."""
    split: SplitOptions = SplitOptions(scheme="k-fold", k=3)
    """Split by speakers, dealt anew by every seed."""
    seeds: list[int] = Field(default=[0, 1, 2, 3, 4, 5, 6, 7], min_length=2)
    """Everything is done once per seed."""
    sizes: list[int] = Field(default=[60, 120, 180, 240, 300], min_length=2)
    """Answers paid for after each round."""
    methods: list[VoteMethod] = Field(default=["soft", "majority"])
    """Labels of the answers so far; dawid-skene takes no single answers."""
    strategies: list[str] = Field(default=["random", "auto"])
    """Ways to choose new clips."""
    shares: list[float] = Field(default=[0.25])
    """Share of a round that may go to second opinions."""
    doubt: float = 0.5
    """The least doubt about a label that is asked about again."""
    raters: list[int] = Field(default=[1, 2, 3, 5])
    """Raters of each clip whose votes are learnt, in the comparison of ways to make labels."""
    draw: int = 0
    """Seed of the clips whose votes stand in."""
    work: str = "runs/bench-second-opinions"
    """Folder of the pool and of the runs; what is there is not done again."""

    def loop(self, method: VoteMethod, strategy: str, share: float) -> LoopOptions:
        """The run of an arm."""
        wrappers = [{"name": "relabel", "share": share, "doubt": self.doubt}] if share else []
        return LoopOptions(
            pool=storage.join(self.work, "pool"),
            run=storage.join(self.work, f"{method}-{strategy}-{share:g}"),
            encoder=self.encoder,
            classes=self.classes,
            votes=VoteOptions(method=method, answer="one"),
            split=self.split,
            seeds=self.seeds,
            strategy=StrategyOptions.model_validate({"name": strategy, "wrappers": wrappers}),
            initial=StrategyOptions(name="random"),
            random_arm=False,
            full_arm=False,
            probe=False,
            budget=BudgetOptions(sizes=self.sizes),
        )


def run_second_opinions(options: SecondOpinionOptions) -> str:
    """Run it all, or what is missing of it; returns tables as text."""
    options = options.model_copy(update={"work": storage.absolute(options.work)})
    pool = make_pool(options)
    judge = Judge(pool, options)
    connect(ClusterOptions())
    rows = list[dict[str, Any]]()
    for method in options.methods:
        for strategy in options.strategies:
            for share in (0.0, *options.shares):
                loop = options.loop(method, strategy, share)
                say(f"{method}, {strategy}, {share:g} second opinions")
                run_loop(loop)
                rows += [
                    {"method": method, "strategy": strategy, "share": share} | row for row in judge.curves(loop.run)
                ]
    tables = list[str]()
    if rows:
        curves = pd.DataFrame(rows)
        curves.to_csv(Path(options.work) / "curves.csv", index=False)
        tables.append(markdown(gains(curves, options)))
    if options.raters:
        ways = pd.DataFrame(compare_ways(options, pool, judge))
        ways.to_csv(Path(options.work) / "ways.csv", index=False)
        tables.append(markdown(way_table(ways)))
    text = "\n\n".join(tables)
    storage.write_bytes(storage.join(options.work, "tables.md"), text.encode())
    return text


# The stand-in


def make_pool(options: SecondOpinionOptions) -> Pool:
    """The pool of the corpus with votes that stand in, made where it is missing."""
    uri, table = storage.join(options.work, "pool"), Path(options.work) / "manifest.jsonl"
    if not storage.exists(storage.join(uri, "manifest.json")):
        rows, columns = stand_in_rows(options)
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
        import_corpus(
            ImportOptions(
                reader="manifest",
                root=str(table),
                reader_options={"votes": columns},
                corpus=options.corpus,
                out=uri,
                voice=False,
            )
        )
    return open_pool(uri)


def stand_in_rows(options: SecondOpinionOptions) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of a manifest, one a clip of the classes, and the columns of its votes, in an order drawn by chance.

    A column is a place in that order and no person: the table of CREMA-D does not say who voted.
    """
    items = read_corpus(CorpusOptions(reader=options.corpus, root=options.root))
    clips = sorted((item for item in items if isinstance(item, Utterance)), key=lambda clip: clip.source)
    votes_by_emotion: dict[str, list[tuple[Vote, ...]]] = {name: [] for name in options.classes}
    for name, votes in sorted(read_votes(Path(options.votes), VOICE).items()):
        match = CONVENTION.pattern.fullmatch(name)
        meant = None if match is None else CLASS_MAP[EMOTIONS[match["emotion"]]]
        if meant in votes_by_emotion:
            votes_by_emotion[meant].append(votes)
    if empty := sorted(name for name, votes in votes_by_emotion.items() if not votes):
        raise StateError(f"nobody in {options.votes} was meant to sound like {', '.join(empty)}: leave the class out")
    rng, rows, most = np.random.default_rng(options.draw), list[dict[str, Any]](), 0
    for clip in clips:
        meant = CLASS_MAP.get((clip.emotion or "").lower())
        if meant in votes_by_emotion:
            others = votes_by_emotion[meant]
            words = [[str(vote.emotion)] * vote.count for vote in others[rng.integers(len(others))]]
            ordered = rng.permutation(list(chain.from_iterable(words))).tolist()
            most = max(most, len(ordered))
            row = {"audio": str(clip.audio), "speaker": clip.speaker, "emotion": meant}
            rows.append(row | {_column(number): word for number, word in enumerate(ordered)})
    return rows, [_column(number) for number in range(most)]


def _column(number: int) -> str:
    return f"vote_{number:02d}"


# The loop


class Judge:
    """The two truths of test clips: the class of most raters, and the one that the speaker meant."""

    def __init__(self, pool: Pool, options: SecondOpinionOptions) -> None:
        self._classes = options.classes
        self._voted = Oracle(pool, options.classes, votes=VoteOptions(method="soft"), complete=False)
        self._meant = Oracle(pool, options.classes)

    def measures(self, ids: Sequence[str], probability_NC: NDArray[np.floating]) -> dict[str, float]:
        """UAR by the majority of all raters, ties left out, and by what was meant; cross-entropy to raters' shares."""
        voted, share_NC = self._voted.targets(ids), self._voted.shares(ids)
        predicted_N, decided_N = probability_NC.argmax(1), voted.label_N >= 0
        if share_NC is None:
            raise StateError("the pool has no votes")
        return {
            "uar_majority": uar(voted.label_N[decided_N], predicted_N[decided_N]),
            "uar_intended": uar(self._meant.targets(ids).label_N, predicted_N),
            "cross_entropy": soft_label_agreement(share_NC, probability_NC)["cross_entropy"],
        }

    def curves(self, run: str) -> Iterator[dict[str, Any]]:
        """A row for each round of each trajectory of a run: answers paid for, clips with a label, what it is worth."""
        for folder in sorted(Path(run, "trajectories").iterdir()):
            facts, paid = json.loads((folder / "trajectory.json").read_text()), 0
            asked = set[str]()
            for number, path in enumerate(sorted((folder / "rounds").iterdir())):
                picks = storage.read_table(str(path / "picks.parquet"))["utterance_id"].to_pylist()
                paid += len(picks)
                asked.update(picks)
                test = storage.read_table(str(path / "predictions/test.parquet"))
                probability_NC = probabilities(test, self._classes)
                yield {
                    **{name: facts[name] for name in ("seed", "fold")},
                    "round": number,
                    "paid": paid,
                    "clips": len(asked),
                    "labelled": json.loads((path / "round.json").read_text())["labelled"],
                    **self.measures(test["utterance_id"].to_pylist(), probability_NC),
                }


def gains(curves: pd.DataFrame, options: SecondOpinionOptions) -> pd.DataFrame:
    """Each arm with second opinions beside the one without, at equal numbers of paid answers.

    A clip whose two answers differ has no majority, so its budget comes back and the arm pays for more: metrics are
    interpolated between rounds. Differences are means over the sizes after the first; intervals over seeds.
    """
    sizes, lines = np.array(options.sizes[1:], np.float64), list[dict[str, Any]]()
    for keys, arms in curves.groupby(["method", "strategy"], sort=False):
        value_of = {
            share: {name: _at_sizes(arm, name, sizes) for name in MEASURES} for share, arm in arms.groupby("share")
        }
        for share, values in value_of.items():
            last = arms[(arms["share"] == share) & (arms["round"] == arms["round"].max())]
            line = {"labels": keys[0], "new clips": keys[1], "second opinions": f"{float(str(share)):.0%}"}
            line |= {"clips": round(last["clips"].mean()), "of these with a label": round(last["labelled"].mean())}
            for name in MEASURES:
                line[name] = f"{values[name].mean():.3f}"
                if share:
                    difference_G = (values[name] - value_of[0.0][name]).mean(1)
                    low, high, _ = mean_interval(difference_G)
                    line[f"{name}, gain"] = f"{difference_G.mean():+.3f} ({low:+.3f} to {high:+.3f})"
            lines.append(line)
    return pd.DataFrame(lines).fillna("")


def _at_sizes(arm: pd.DataFrame, name: str, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """A metric at some numbers of paid answers, the mean of the folds, a row a seed."""
    rows = []
    for _, of_seed in arm.groupby("seed"):
        folds = [np.interp(sizes, fold["paid"], fold[name]) for _, fold in of_seed.groupby("fold")]
        rows.append(np.mean(folds, axis=0))
    return np.array(rows)


# Ways to make labels


def compare_ways(options: SecondOpinionOptions, pool: Pool, judge: Judge) -> Iterator[dict[str, Any]]:
    """A head for each way to make labels of the first raters' votes on all clips to learn from."""
    loop = options.loop("soft", "random", 0.0)
    metadata = eligible(loop, pool, None)
    store = features_of(loop, pool, loop.encoder, None)
    learnt = {
        (raters, name): labels_of(first_votes(votes_of(pool), raters), name, options.classes)
        for raters in options.raters
        for name in WAYS
        if raters > 1 or name == "majority"
    }
    torch.set_num_threads(1)  # small problems: threads would wait for each other
    folds = folds_by_seed(metadata, loop.split, None, options.seeds, store)
    with track("heads", len(folds) * len(learnt)) as advance:
        for (number, seed), fold in folds.items():
            data = fold_data(loop, store, fold.without_dev(), metadata)
            for (raters, name), labels in learnt.items():
                probability_NC, clips = _fitted(data, labels)
                row = {"raters": raters, "labels are": name, "seed": seed, "fold": number, "clips": clips}
                yield row | judge.measures(data.fold.test, probability_NC)
                advance(1)


def first_votes(votes: pa.Table, raters: int) -> pa.Table:
    """The votes of the first so many raters of each clip."""
    columns = [_column(number) for number in range(raters)]
    names = {name.removeprefix("vote_") for name in columns} | set(columns)
    return votes.filter(pa.array([rater in names for rater in votes["rater"].to_pylist()]))


Labels = dict[str, tuple[int, NDArray[np.float64] | None]]
"""Utterance -> its class, -1 for none, and its shares, where these are learnt."""


def labels_of(votes: pa.Table, way: str, classes: Sequence[str]) -> Labels:
    """The labels that a way makes of votes: of clips with a class, and with ties of those with shares alone."""
    method, ties = WAYS[way]
    labels = voted_labels(votes, classes, CLASS_MAP, method)
    shares = method != "majority" and "winner" not in way
    return {
        name: (label, share_C if shares else None)
        for name, label, share_C in zip(labels.ids, labels.label_N.tolist(), labels.share_NC, strict=True)
        if label >= 0 or (ties and np.isfinite(share_C).all())
    }


def _fitted(data: FoldData, labels: Labels) -> tuple[NDArray[np.float32], int]:
    """Probabilities of the test clips by a head of the labels of the training part, and how many these were."""
    train = data.utterances([name for name in data.fold.train if name in labels])
    chosen = [labels[name] for name in train.ids]
    mean, std = (np.asarray(part, np.float32) for part in (train.mean_NLD, train.std_NLD))
    soft = None if chosen[0][1] is None else torch.tensor(np.array([share for _, share in chosen]), dtype=torch.float32)
    rows = PooledSet(
        mean_NLD=torch.from_numpy(mean),
        std_NLD=torch.from_numpy(std),
        label_N=torch.tensor([label for label, _ in chosen]),
        soft_NC=soft,
    )
    pool = LayerPool(mean.shape[1], mean.shape[2])
    pool.fit(rows.mean_NLD, rows.std_NLD)
    pool.lean_to(middle_layers(mean.shape[1]))
    fitted = fit_head(rows, len(data.classes), pool=pool)
    test = data.utterances(data.fold.test)
    parts = (torch.from_numpy(np.asarray(part, np.float32)) for part in (test.mean_NLD, test.std_NLD))
    return predict_pooled(fitted, *parts).softmax(1).numpy(), len(chosen)


def way_table(ways: pd.DataFrame) -> pd.DataFrame:
    """Metrics of models of each way's labels, and the difference to those of the winner; intervals over seeds."""
    by_seed = ways.groupby(["raters", "labels are", "seed"], sort=False)[["clips", *MEASURES]].mean()
    lines = list[dict[str, Any]]()
    for raters, name in dict.fromkeys(zip(ways["raters"], ways["labels are"], strict=True)):
        mean, beside = by_seed.loc[raters, name], by_seed.loc[raters, "majority"]
        line = {"raters": str(raters), "labels are": name, "clips": f"{mean['clips'].mean():.0f}"}
        for measure in MEASURES:
            line[measure] = f"{mean[measure].mean():.3f}"
            if name != "majority":
                difference_G = (mean[measure] - beside[measure]).to_numpy()
                low, high, _ = mean_interval(difference_G)
                line[measure] += f", {difference_G.mean():+.3f} ({low:+.3f} to {high:+.3f})"
        lines.append(line)
    return pd.DataFrame(lines)


if __name__ == "__main__":
    run_job(SecondOpinionOptions, run_second_opinions, __doc__)
