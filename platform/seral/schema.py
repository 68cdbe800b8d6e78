"""The Arrow schemas of everything seral stores, and the names that its writers and readers share. No logic.

A pool is four tables side by side: `utterances` (audio and what is known without listening), `gold` (labels that came
with a benchmark corpus) and `votes` (what each of its raters said), of which only `seral.task.gold` opens the
first and nothing the second, and `quarantine` (files that did not become rows, and why). Ids never carry a corpus's own
file name, because such names often spell the label.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

SAMPLE_RATE = 16_000
"""Samples per second of every clip in a pool (mono)."""
ENCODER_KEY = "encoder"
"""Metadata key of a Parquet file of features: the fingerprint of their encoder."""
CLASSES_KEY = "classes"
"""Metadata key of a table with a list of probabilities: the classes they belong to, as JSON."""
KEYS = ["arm", "fold", "seed"]
"""Columns that name a trajectory; every frame starts with them."""
GROWTH = "growth.json"
"""Name of the file of a run that tells when its pool grew."""
SECONDS = "seconds.json"
"""In a run: what all trajectories share took so long, by phase."""
RATED = ("valence", "arousal", "dominance")
"""Dimensions that may be rated, in the order of columns."""
FULL = "full"
"""The arm that trains once on all labels: a level to compare with, not a curve."""
RANDOM = "random"
"""The arm every strategy is compared with."""

UTTERANCE = pa.schema(
    [
        ("utterance_id", pa.string()),  # corpus + hash of the decoded audio and of the name in the corpus
        ("audio", pa.large_binary()),  # FLAC bytes, 16 kHz mono, 16 bit
        ("duration_s", pa.float32()),
        ("corpus", pa.string()),
        ("speaker", pa.string()),  # unique within the corpus; null = unknown
        ("gender", pa.string()),  # of the speaker: female | male | other; null = unknown
        ("session", pa.string()),
        ("language", pa.string()),  # ISO 639-1
        ("style", pa.string()),  # acted | elicited | natural
        ("text", pa.string()),
        ("split", pa.string()),  # train | dev | test where the corpus or the user fixes it, else null
        ("snr_db", pa.float32()),
        ("clipping", pa.float32()),  # share of samples at full scale, 0..1
        ("speech_ratio", pa.float32()),  # share of 20 ms frames above the noise floor, 0..1
        ("voice_ratio", pa.float32()),  # share of the former that sound like speech, 0..1; null = nobody listened
        ("loudness_db", pa.float32()),  # RMS of the whole clip, dBFS
        ("bandwidth_hz", pa.float32()),  # highest frequency that carries anything
        ("silence_start_s", pa.float32()),  # before the first frame above the noise floor
        ("silence_end_s", pa.float32()),  # after the last one
        ("channel_fault", pa.string()),  # dead | anti-phase | many | apart | offset; null = nothing was wrong
        ("quality", pa.float32()),  # one number from the measures, 0..1: seral.audio.quality.score
        ("duplicate_of", pa.string()),  # id of the row with the same audio that counts; null = this one counts
        ("pcm_hash", pa.string()),  # hash of the decoded 16 kHz int16 samples
        ("source", pa.string()),  # path inside the corpus folder; provenance, never a feature: it may spell the label
        ("source_bytes", pa.int64()),
        ("source_rate_hz", pa.int32()),
        ("start_s", pa.float64()),  # where the utterance begins and ends in its source; null = the whole of it
        ("end_s", pa.float64()),
    ]
)

PROVENANCE = ("source", "source_bytes", "source_rate_hz", "start_s", "end_s", "pcm_hash")
"""Columns that say where an utterance comes from."""
ENDS = ("silence_start_s", "silence_end_s", "channel_fault")
"""Columns that describe the recording and that nothing is chosen by."""
METADATA_COLUMNS = [name for name in UTTERANCE.names if name not in {"audio", *PROVENANCE, *ENDS}]
"""Columns of an utterance, without its audio, that the loop and the strategies' callers may read."""

GOLD = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("emotion", pa.string()),  # the corpus's own word
        ("valence", pa.float32()),
        ("arousal", pa.float32()),
        ("dominance", pa.float32()),
    ]
)

VOTES = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("rater", pa.string()),  # null = the corpus only tells how many said so
        ("emotion", pa.string()),  # the corpus's own word; null = this rater gave numbers only
        ("secondary", pa.list_(pa.string())),  # further emotions that the rater also heard
        ("valence", pa.float32()),
        ("arousal", pa.float32()),
        ("dominance", pa.float32()),
        ("count", pa.int32()),  # raters who said so: 1 when the rater is known
    ]
)

QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("corpus", pa.string()),
        ("speaker", pa.string()),  # where the reader knew; null = unknown
        ("reason", pa.string()),  # one word from seral.audio.quality.REASONS
        ("detail", pa.string()),  # what was measured or what the decoder said
        ("source_bytes", pa.int64()),
    ]
)

CHANGE = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("change", pa.string()),  # came | went | marked: whether and of what it is a duplicate has changed
    ]
)

FRAMES = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("frames", pa.large_binary()),  # fp16, T·D of one hidden state, for training above frozen layers
    ]
)

COPY = pa.schema(
    [
        ("utterance_id", pa.string()),  # of which it is a corrupted copy
        ("copy", pa.int32()),  # its number
        ("mean", pa.binary()),  # as in `pooled_schema`
        ("std", pa.binary()),
    ]
)
"""Features of corrupted copies; frames of hidden state k, where kept too, are a further column, frames_<k>."""

TEXT_VECTOR = pa.schema(
    [
        ("utterance_id", pa.string()),  # of those that have a transcript
        ("vector", pa.binary()),  # fp16, E: mean of the tokens' last hidden states
    ]
)

SCREEN = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("near_duplicate_of", pa.string()),  # smallest id of its group of near-duplicates; null = it has none, or is it
        ("nearest_id", pa.string()),  # the most similar other utterance
        ("similarity", pa.float32()),  # cosine to it
        ("distance", pa.float32()),  # mean of 1 - cosine to the nearest others
    ]
)

FILTERED = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("quality", pa.float32()),  # below the floor of the run
        ("reason", pa.string()),  # the measure that lowers it most: snr_db | voice_ratio | clipping | bandwidth_hz
    ]
)

PICK = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("order", pa.int32()),  # 0 = first picked
        ("strategy", pa.string()),
        ("round", pa.int32()),
    ]
)

REASON = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("measure", pa.string()),  # margin, distance, ... (seral.loop.reasons), chance or doubt
        ("score", pa.float32()),  # of the pick, the larger the sooner; null = drawn by chance
        ("share", pa.float32()),  # of the other candidates, those that had a lower score, 0..1
        ("low", pa.float32()),  # of the candidates' scores the 5 % quantile
        ("median", pa.float32()),
        ("high", pa.float32()),  # the 95 % quantile
    ]
)

LABEL = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("emotion", pa.string()),  # one of the run's classes; null = none of them
        ("annotator", pa.string()),
        ("answer", pa.string()),  # label | skipped | unusable | disputed: people differ and nobody has decided
        ("round", pa.int32()),
        ("probability", pa.list_(pa.float32())),  # of the run's classes, in their order; null = the emotion is certain
    ]
)

ANSWERS = pa.schema(
    [
        ("id", pa.int64()),  # in the order in which the ledger got them
        ("key", pa.string()),
        ("utterance_id", pa.string()),
        ("person", pa.string()),
        ("kind", pa.string()),  # label | unusable | skipped | other-language
        ("emotions", pa.list_(pa.string())),  # the classes heard, alike; usually one
        ("secondary", pa.list_(pa.string())),  # further ones, heard less
        ("valence", pa.float64()),
        ("arousal", pa.float64()),
        ("dominance", pa.float64()),
        ("confidence", pa.float64()),  # 0..1
        ("comment", pa.string()),
        ("seconds", pa.float64()),  # spent on the clip
        ("round", pa.int32()),
        ("tool", pa.string()),
        ("final", pa.bool_()),  # adjudicated: it stands above the votes
        ("answered_at", pa.float64()),  # seconds since 1970, UTC
        ("supersedes", pa.int64()),  # id of the answer that it corrects
        ("batch", pa.string()),  # what asked; null = nobody did
        ("purpose", pa.string()),  # evaluation | round | relabel | check
    ]
)

CONSENSUS = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("emotion", pa.string()),  # null = unusable, a tie, or nobody named a class
        ("probability", pa.list_(pa.float32())),  # of the classes, in the order under CLASSES_KEY; null = no target
        ("valence", pa.float32()),  # mean rating
        ("arousal", pa.float32()),
        ("dominance", pa.float32()),
        ("n_answers", pa.int32()),  # people whose answer counts; adjudications are not among them
        ("unusable", pa.bool_()),  # most of them said so, or the adjudication
        ("final", pa.bool_()),  # adjudicated
        ("agreement", pa.float32()),  # share of the people's votes that the emotion has; of the first where none won
    ]
)

DOUBTS = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("reason", pa.string()),  # label-error | near-duplicate | disagreement
        ("score", pa.float32()),  # share of what is known that speaks against the label, 0..1
        ("label", pa.string()),  # null = a tie
        ("suggested", pa.string()),  # the class that speaks against it; null = no single one
        ("other_id", pa.string()),  # the copy with another label
    ]
)


def pooled_schema(numbers: int) -> pa.Schema:
    """Cached features: id, mean and std over the frames of every hidden state, as cells of so many fp16 numbers, L·D.

    Cells of one size are read in three quarters of the time; older caches, of cells of any size, are read as well.
    """
    cell = pa.binary(2 * numbers)
    return pa.schema([("utterance_id", pa.string()), ("mean", cell), ("std", cell)])


def label_schema(dimensions: Sequence[str]) -> pa.Schema:
    """Labels of a run that learns ratings: LABEL, and a column for each dimension, null where there is no rating."""
    return pa.schema([*LABEL, *((name, pa.float32()) for name in dimensions)])


def prediction_schema(classes: Sequence[str], dimensions: Sequence[str] = ()) -> pa.Schema:
    """Predictions: id, part (pool, dev, test), predicted class (null without classes), one probability column a class
    (`p_<class>`) and one value a dimension, by its name."""
    return pa.schema(
        [("utterance_id", pa.string()), ("part", pa.string()), ("predicted", pa.string())]
        + [(name, pa.float32()) for name in (*(f"p_{name}" for name in classes), *dimensions)]
    )
