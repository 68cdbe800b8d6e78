import time
from typing import Any

import pytest

from seral.features import actors


class Encoder:
    """Numbers the shards that it was given."""

    made = 0

    def __init__(self, start: int) -> None:
        type(self).made += 1
        self.rows = start

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["shard"] == "damaged":
            raise ValueError("damaged")
        self.rows += 1
        return {"rows": self.rows, "shard": row["shard"]}


def test_a_process_makes_one_encoder_a_call_and_lets_it_go_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "made", 0)
    monkeypatch.setattr(actors, "IDLE_S", 60.0)
    first = [actors._on_shard({"shard": name}, "one", Encoder, {"start": 10}) for name in "ab"]
    assert first == [{"rows": 11, "shard": "a"}, {"rows": 12, "shard": "b"}]
    assert actors._on_shard({"shard": "a"}, "two", Encoder, {"start": 0})["rows"] == 1, "of another call"
    assert Encoder.made == 2
    assert list(actors._encoder_of) == ["two"], "never two encoders in a process"
    monkeypatch.setattr(actors, "IDLE_S", 0.01)
    with pytest.raises(ValueError, match="damaged"):
        actors._on_shard({"shard": "damaged"}, "two", Encoder, {"start": 0})
    deadline = time.monotonic() + 10
    while actors._encoder_of and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not actors._encoder_of
