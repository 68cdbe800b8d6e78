"""Adapters of a run: training loss, change of weights, effect on the encoder, and warnings."""

from __future__ import annotations

from seral.report import page
from seral.report.records import RunRecords

MEASURES = ("first_loss", "last_loss", "update", "effect")
CAPTION = (
    "Adapters by round, means over folds and seeds. Loss: of training, first and last epoch. Update: norm of the "
    "merged update over that of the weights it changes. Effect: distance of pooled states with and without adapters, "
    "in their spread over clips. Change: root mean square change of each part, in the first training."
)


def adapter_section(records: RunRecords) -> page.Section:
    """The trainings of adapters as a table of the page and a CSV beside it; there is one at least."""
    frame = records.trainings
    frame = frame.reindex(columns=[*frame.columns, *(name for name in MEASURES if name not in frame)])
    rows = []
    for (arm, number), own in frame.groupby(["arm", "round"]):
        first, last, update, effect = (page.number(own[name].mean(), 3) for name in MEASURES)
        labels = page.number(own["labelled"].mean(), 0)
        rows.append([str(arm), str(number), labels, f"{first} to {last}", update, effect, own["changes"].iloc[0]])
    columns = ["arm", "round", "labels", "loss", "update", "effect", "change"]
    return page.Section(
        frames={"adapters": frame}, tables={"adapters": page.Table(caption=CAPTION, columns=columns, rows=rows)}
    )
