"""Picks and the reasons for them, the mistakes on test clips, and the labels to doubt: with clips to hear."""

# N clips · C classes
from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from seral import storage
from seral.labels.doubts import label_errors
from seral.loop.folders import prediction_files, round_folder
from seral.loop.reasons import in_words
from seral.loop.relabel import earlier_predictions
from seral.report import page
from seral.report.records import RunRecords
from seral.schema import FULL

TRAITS = ["speaker", "fold", "corpus", "language"]
PICKED = 300
"""Picks of an arm on the page, about."""
QUARTERS = ("lowest", "second", "third", "highest")
SHOWN = 40
"""Mistakes and doubts on the page."""
PICKS_CAPTION = (
    "The picks of the first fold and seed, of long rounds the first; picked.csv has all. Before: what the model of the "
    "round before believed of the clip, and how unsure it was (entropy, 100 % = all classes alike); a dash where no "
    "model had scored it. Rank is the order in which the strategy named them: it wanted the first most. Why: the score "
    "that the strategy goes by, and ahead of: the share of the other candidates with a lower one, of a sample where "
    "they are more than 5,000; a dash where a strategy goes by no score."
)
MISTAKES_CAPTION = (
    "{} of {:,} wrong {} clips of {} at the last round, the most confident first, seeds averaged. A confident "
    "mistake may be a wrong label, a poor recording, or something that the model does not hear."
)
DOUBTS_CAPTION = (
    "{} of {:,} labels that models which had not seen them do not believe (confident learning), the strongest first. "
    "Against: 1 - the label's probability. A doubt is no error: listen before you change anything."
)


def explained_picks(records: RunRecords, metadata: pa.Table) -> pd.DataFrame:
    """Picks of the first trajectory of every arm but the full one: arm, round, order, strategy, utterance_id, answer,
    believed and uncertainty (0 to 100) by the model of the round before, why (in words), ahead_of (0 to 100), speaker,
    corpus."""
    parts = []
    for arm in (arm for arm in records.arms if arm != FULL):
        first = min(key for key in records.last_folders if key[0] == arm)
        mine = (records.picks[["arm", "fold", "seed"]] == list(first)).all(axis=1)
        own = records.picks[mine].drop(columns=["fold", "seed"])
        trajectory = records.last_folders[first].rsplit("/rounds/", 1)[0]
        believed = [
            _believed(round_folder(trajectory, number - 1), asked["utterance_id"].tolist(), records.classes)
            for number, asked in ((int(str(number)), asked) for number, asked in own.groupby("round"))
            if number > 0
        ]
        before = pd.concat(believed) if believed else pd.DataFrame(columns=["believed", "uncertainty"])
        explained = own.join(before[~before.index.duplicated()], on="utterance_id")
        parts.append(explained.join(_reasons(records.reasons, first), on=["round", "utterance_id"]))
    if not parts:
        return pd.DataFrame()
    frame = pd.concat(parts, ignore_index=True)
    columns = ["utterance_id", "arm", "round"]
    answers = records.answers.assign(answer=records.answers["emotion"].fillna(records.answers["answer"]))
    answers = answers.drop_duplicates(columns)[[*columns, "answer"]]
    traits = metadata.select(["utterance_id", "speaker", "corpus"])
    traits = traits.filter(pc.is_in(traits["utterance_id"], pa.array(frame["utterance_id"].unique(), pa.string())))
    return frame.merge(answers, on=columns, how="left").merge(traits.to_pandas(), on="utterance_id", how="left")


def _reasons(reasons: pd.DataFrame, trajectory: tuple[str, int, int]) -> pd.DataFrame:
    """Reasons of the picks of a trajectory, by round and id: why, and ahead_of by the first measure."""
    keys = ["round", "utterance_id"]
    if reasons.empty:
        return pd.DataFrame(columns=["why", "ahead_of"], index=pd.MultiIndex.from_arrays([[], []], names=keys))
    own = reasons[(reasons[["arm", "fold", "seed"]] == list(trajectory)).all(axis=1)]
    words = [in_words(*row) for row in own[["measure", "score", "share"]].itertuples(index=False)]
    by_pick = own.assign(why=words, ahead_of=100 * own["share"]).groupby(keys, sort=False)
    return by_pick.agg(why=("why", "; ".join), ahead_of=("ahead_of", "first"))


def _believed(folder: str, ids: list[str], classes: list[str]) -> pd.DataFrame:
    """The class and the uncertainty of unlabelled clips by the model of a round, by id; of those that it scored."""
    wanted = pa.array(ids, pa.string())
    tables = [storage.read_table(uri) for uri in prediction_files(folder, "pool")] if classes else []
    tables = [table.filter(pc.is_in(table["utterance_id"], wanted)) for table in tables]
    if not tables:
        return pd.DataFrame(columns=["believed", "uncertainty"])
    frame = pa.concat_tables(tables).to_pandas().set_index("utterance_id")
    p_NC = frame[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    entropy_N = -(p_NC * np.log(np.maximum(p_NC, 1e-12))).sum(1) / np.log(len(classes))
    return pd.DataFrame({"believed": frame["predicted"], "uncertainty": 100 * entropy_N}, index=frame.index)


def last_predictions(records: RunRecords, folder: str, ids: list[str]) -> pd.Series:
    """Predicted class of some clips in the folder of a round, by id: of the unlabelled, dev and test clips.

    Without classes the quarter of the clips that the predicted rating, of the first dimension, is in.
    """
    wanted = pa.array(ids, pa.string())
    uris = [uri for part in ("pool", "dev", "test") for uri in prediction_files(folder, part) if storage.exists(uri)]
    column = "predicted" if records.classes else records.dimensions[0]
    tables = [storage.read_table(uri, ["utterance_id", column]) for uri in uris]
    frames = [table.filter(pc.is_in(table["utterance_id"], wanted)).to_pandas() for table in tables]
    joined = pd.concat(frames) if frames else pd.DataFrame(columns=["utterance_id", column])
    of_clip: pd.Series = joined.drop_duplicates("utterance_id").set_index("utterance_id")[column]
    if records.classes or of_clip.empty:
        return of_clip
    quarter_N = np.ceil(4 * of_clip.rank(method="first").to_numpy() / len(of_clip)).astype(int) - 1
    return pd.Series([f"{column}: {QUARTERS[at]} quarter" for at in quarter_N], of_clip.index)


def first_of_rounds(picks: pd.DataFrame) -> pd.DataFrame:
    """The picks of the lowest ranks, as many of each round as make some hundreds an arm."""
    return picks[picks["order"] < max(5, PICKED // (1 + int(picks["round"].max())))]


def picks_table(picks: pd.DataFrame) -> page.Table:
    """The picks as they are shown, by arm, round and rank."""
    rows = [
        [
            row["arm"],
            str(row["round"]),
            str(row["order"] + 1),
            str(row["strategy"]),
            row["believed"] if isinstance(row["believed"], str) else "–",
            page.number(row["uncertainty"], 0),
            row["why"] if isinstance(row["why"], str) else "–",
            page.number(row["ahead_of"], 1),
            str(row["answer"]),
            str(row["speaker"] or "unknown"),
            row["utterance_id"],
        ]
        for row in picks.to_dict("records")
    ]
    columns = [
        "arm",
        "round",
        "rank",
        "strategy",
        "before",
        "unsure %",
        "why",
        "ahead of %",
        "answer",
        "speaker",
        "clip",
    ]
    return page.Table(caption=PICKS_CAPTION, columns=columns, rows=rows, clips=picks["utterance_id"].tolist())


def mistakes(judged: pd.DataFrame, arm: str, classes: list[str]) -> pd.DataFrame:
    """Wrong test clips of an arm, probabilities averaged over seeds: utterance_id, truth, predicted, confidence, fold,
    speaker, corpus, language; the most confident first."""
    own = judged[judged["arm"] == arm]
    names = [f"p_{name}" for name in classes]
    facts = ["truth", *TRAITS]
    by_clip = own.groupby("utterance_id", observed=True)
    frame = by_clip[facts].first().join(by_clip[names].mean())
    frame["predicted"] = np.array(classes, object)[frame[names].to_numpy().argmax(1)]
    frame["confidence"] = frame[names].max(axis=1)
    wrong = frame[frame["predicted"] != frame["truth"]].drop(columns=names).reset_index()
    return wrong.sort_values(["confidence", "utterance_id"], ascending=[False, True], ignore_index=True)


def mistakes_table(wrong: pd.DataFrame, arm: str, judged: str = "test") -> page.Table:
    """The most confident mistakes on clips that are judged so."""
    shown = wrong.head(SHOWN)
    rows = [
        [
            row["utterance_id"],
            row["truth"],
            row["predicted"],
            page.number(100 * row["confidence"], 0),
            *("unknown" if pd.isna(row[name]) else str(row[name]) for name in TRAITS),
        ]
        for row in shown.to_dict("records")
    ]
    columns = ["clip", "truth", "predicted", "confidence %", *TRAITS]
    caption = MISTAKES_CAPTION.format(len(shown), len(wrong), judged, arm)
    return page.Table(caption=caption, columns=columns, rows=rows, clips=shown["utterance_id"].tolist())


def doubtful_labels(records: RunRecords) -> pd.DataFrame:
    """Labels that were bought and that models which had not seen them do not believe, the strongest doubt first: rows
    of schema.DOUBTS."""
    bought = records.answers[(records.answers["answer"] == "label") & (records.answers["arm"] != FULL)]
    bought = bought.dropna(subset="emotion").drop_duplicates("utterance_id", keep="last")
    label_of = dict(zip(bought["utterance_id"], bought["emotion"], strict=True))
    probability = earlier_predictions(records.run, label_of, records.classes)
    doubts = pd.DataFrame(label_errors(label_of, probability, records.classes))
    if doubts.empty:
        return pd.DataFrame(columns=["utterance_id", "score", "label", "suggested"])
    return doubts.sort_values(["score", "utterance_id"], ascending=[False, True], ignore_index=True)


def doubts_table(doubts: pd.DataFrame) -> page.Table:
    """The strongest doubts about labels."""
    shown = doubts.head(SHOWN)
    rows = [
        [row["utterance_id"], row["label"], row["suggested"], page.number(row["score"], 2)]
        for row in shown.to_dict("records")
    ]
    caption = DOUBTS_CAPTION.format(len(shown), len(doubts))
    columns = ["clip", "label", "rather", "against"]
    return page.Table(caption=caption, columns=columns, rows=rows, clips=shown["utterance_id"].tolist())
