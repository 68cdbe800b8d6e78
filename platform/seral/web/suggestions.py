"""Suggestions: the class by the newest model of a run, shown beside a clip where the policy is to show it."""

from __future__ import annotations

import time

from seral import storage

LOOK_EVERY_S = 60.0


class Suggestions:
    """Predictions of the newest complete round, read again when there is a newer one."""

    def __init__(self, run: str) -> None:
        self._trajectories = storage.join(run, "trajectories")
        self._looked_at = float("-inf")
        self._round: str | None = None
        self._predicted: dict[str, str] = {}

    def __call__(self, utterance_id: str) -> str | None:
        """The class that the model predicts; None while no round is complete."""
        if time.monotonic() - self._looked_at > LOOK_EVERY_S:
            self._looked_at = time.monotonic()
            newest = self._newest()
            if newest is not None and newest != self._round:
                uris = storage.list_files(storage.join(newest, "predictions"))
                for uri in uris:
                    table = storage.read_table(storage.join(newest, "predictions", uri), ["utterance_id", "predicted"])
                    self._predicted |= dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
                self._round = newest
        return self._predicted.get(utterance_id)

    def _newest(self) -> str | None:
        """Folder of the complete round with the highest number, in whatever trajectory."""
        rounds = [
            (number, storage.join(self._trajectories, name, "rounds", number))
            for name in storage.list_names(self._trajectories)
            for number in storage.list_names(storage.join(self._trajectories, name, "rounds"))
        ]
        complete = (folder for _, folder in sorted(rounds, reverse=True) if storage.exists(f"{folder}/round.json"))
        return next(complete, None)


def no_suggestions(_: str) -> None:
    """The policy unless told otherwise: people hear for themselves."""
