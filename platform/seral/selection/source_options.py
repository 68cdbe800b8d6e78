"""Options of where candidates are read from."""

from __future__ import annotations

from pydantic import Field

from seral.options import Options


class SourceOptions(Options):
    """Options of where candidates are read from. Every folder holds Parquet files with a column `utterance_id`."""

    features: str
    """Folder of features: `embedding` (fp16 or fp32 numbers, as lists or as binary fp16), or the `mean` of all hidden
    states as jobs/features.py writes it (FEATURES/<fingerprint>/pooled)."""
    state: int | None = Field(default=None, ge=0)
    """Index of the hidden state of `mean` to use; needs `states`."""
    states: int | None = Field(default=None, ge=1)
    """Number of hidden states that `mean` holds."""
    predictions: str | None = None
    """Folder or file of class probabilities `p_<class>`; of a run, only the part `pool` is read. For `bald` and
    `batch_bald` also those of stochastic passes, or members of an ensemble: `p1_<class>`, `p2_<class>` and so on.
    Beside them or instead, ratings that a model predicts: `valence`, `arousal`, `dominance`; for `emcm` also those of
    members of an ensemble: `valence_1`, `valence_2` and so on."""
    metadata: str | None = None
    """A pool's `utterances` folder: durations, speakers, corpora, languages, quality."""
    surprisal: str | None = None
    """Folder of pretraining losses, for `alps`: TAPT/surprisal."""
    labelled: str | None = None
    """Folder or file of what is labelled already: `utterance_id`; `answer` where it is there, of which only `unusable`
    is read; for `relabel` also `doubt`, how little the label is believed, 0..1, where null is 0; for `gsy` and `igs`
    the ratings that the model predicts, as in `predictions`. What is said of an utterance twice must agree."""
    labelled_features: str | None = None
    """Folder or file of the features of what is labelled, where `features` has those of candidates alone."""
