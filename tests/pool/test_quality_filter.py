from __future__ import annotations

import pyarrow as pa

from seral.audio.quality import score
from seral.pool.ids import Ids
from seral.pool.quality_filter import MEASURES, above_quality, below_quality, count_reasons
from seral.pool.splits import Fold
from seral.schema import FILTERED

GOOD = {"snr_db": 30.0, "clipping": 0.0, "bandwidth_hz": 8000.0, "voice_ratio": 0.8}
CLIPS = {
    "good": GOOD,
    "hiss": GOOD | {"snr_db": -15.0},
    "dog": GOOD | {"voice_ratio": 0.02},
    "cut": GOOD | {"clipping": 0.2},
    "dull": GOOD | {"bandwidth_hz": 100.0},
    "unheard": GOOD | {"voice_ratio": None},
}


def metadata() -> pa.Table:
    rows = [{"utterance_id": name, "quality": score(**clip), **clip} for name, clip in CLIPS.items()]
    rows.append({"utterance_id": "unmeasured", "quality": None, **dict.fromkeys(MEASURES)})
    return pa.Table.from_pylist(rows)


def test_bad_recordings_are_named_with_the_measure_that_says_so() -> None:
    filtered = below_quality([*CLIPS, "unmeasured"], metadata(), 0.1)
    assert filtered.schema.equals(FILTERED)
    reasons = dict(zip(filtered["utterance_id"].to_pylist(), filtered["reason"].to_pylist(), strict=True))
    assert reasons == {"hiss": "snr_db", "dog": "voice_ratio", "cut": "clipping", "dull": "bandwidth_hz"}
    assert count_reasons(filtered) == {"snr_db": 1, "voice_ratio": 1, "clipping": 1, "bandwidth_hz": 1}


def test_only_training_utterances_are_left_out() -> None:
    fold = Fold(name="f", train=Ids(["cut", "good", "unmeasured"]), dev=Ids(["hiss"]), test=Ids(["dog"]))
    above = above_quality(fold, metadata(), 0.1)
    assert (above.train, above.dev, above.test, above.left_out) == (("good", "unmeasured"), ("hiss",), ("dog",), 1)
    assert above_quality(fold, metadata(), 0.0) == fold
