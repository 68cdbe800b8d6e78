"""Options of what becomes of a trained model: fitted for good, used, exported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from seral import storage
from seral.cluster import ClusterOptions
from seral.features.options import EncoderName, FeatureOptions
from seral.options import Options


class PredictOptions(Options):
    """Options of a prediction: the run whose model is used, its input, and where the table goes."""

    run: str
    """The run whose model is used: of `seral fit`, `seral loop run`, `seral train` or `seral transfer`."""
    source: list[str] = Field(min_length=1)
    """One pool, or audio files and folders."""
    out: str | None = None
    """Parquet file to write; of files also `.csv` or `.jsonl`, by its suffix; of a pool also a folder: a name without
    suffix, where every shard gets a file. None = the predictions of files are printed."""
    trajectory: str | None = None
    """The trajectory whose last model is used; None = the best on dev among the strategy's."""
    encoder: EncoderName | None = None
    """Folder of features of these clips, for a model of features that were computed elsewhere; None = those that the
    model learnt from, which may be of these clips too."""
    max_duration_s: float = Field(default=60.0, gt=0)
    """Longer files get an error instead of a prediction, in seconds."""
    features: FeatureOptions = FeatureOptions()
    cluster: ClusterOptions = ClusterOptions()


class ExportOptions(Options):
    """Options of an export: the run whose model is written, the format, and where it goes."""

    run: str
    """The run whose model is exported."""
    format: Literal["hf", "peft", "onnx", "torch-export"] = "hf"
    """hf: a folder for `transformers`; peft: adapters beside their encoder; onnx, torch-export: one graph."""
    out: str
    """A new folder."""
    trajectory: str | None = None
    """The trajectory whose last model is exported; None = the best on dev among the strategy's."""
    base: str | None = None
    """Hub id of the encoder, which peft's format names; None = the run's encoder if that is one, else the encoder goes
    into the folder."""
    temperature: float | None = Field(default=None, gt=0)
    """Class logits are divided by it; None = that of a final model or a transfer's, 1 of any other."""
    encoder: str | None = None
    """Folder or hub id of the model's encoder, if that is no longer where the run says."""


class FinalOptions(Options):
    """Options of a final model: the run whose labels are learnt, and where the model goes."""

    of: str
    """The run: of `seral loop run`, come to its end or not, or of `seral train`."""
    run: str
    """The folder of the final model: made when missing, gone on with when there."""
    pool: str | None = None
    """The pool, where it does not lie any more where the run says."""
    licence: str | None = None
    """Licence of the model for its card, as the Hub abbreviates it, such as cc-by-nc-4.0; None = the card says that it
    was not decided."""
    data_licences: dict[str, str] = Field(default={})
    """Corpus -> its licence, for the card."""
    accuracy: float = Field(default=0.9, gt=0, lt=1)
    """Share of right answers that a threshold is chosen for: below it the model had better not answer."""
    cluster: ClusterOptions | None = None
    """The machines that it is trained on; None = those of the run."""


class EnsembleOptions(Options):
    """Options of an ensemble: its members, and how they are joined."""

    runs: list[str] = Field(min_length=2)
    """Runs of `seral loop run` or `seral train`, or final models of `seral fit`, on one pool, with the same classes and
    folds."""
    run: str
    """The folder of the ensemble: its table, and what `seral predict` takes."""
    rule: Literal["mean", "stacked"] = "mean"
    """The rule that predictions are made by: the mean of calibrated probabilities, or a logistic regression on all of
    them. The table has both."""
    cluster: ClusterOptions = ClusterOptions()

    @field_validator("runs")
    @classmethod
    def _absolute(cls, runs: list[str]) -> list[str]:
        return [storage.absolute(run) for run in runs]


class ServeOptions(Options):
    """Options of the application that serves a model, also the arguments of `seral.models.serve:app` in a manifest."""

    model: str
    """The run whose model is served, a model's own folder, or an export of the format hf: on disk or in a store."""
    trajectory: str | None = None
    """Of a run, the trajectory whose last model is served; None = the best on dev among the strategy's."""
    replicas: int = Field(default=1, ge=1)
    """Copies of the model, each on a CPU, or a GPU, of its own."""
    use_gpu: bool = False
    """Serve from GPUs."""
    max_batch: int = Field(default=8, ge=1)
    """Clips that a copy takes at once; those of like length are computed together."""
    batch_wait_s: float = Field(default=0.02, ge=0)
    """Time that a clip waits for others to be taken with, in seconds."""
    max_waiting: int = Field(default=100, ge=1)
    """Clips that may wait; more are refused with status 503."""
    abstain: bool = False
    """Name no class, `unsure` instead, where the most probable one is below the model's threshold."""
    max_clip_s: float = Field(default=30.0, gt=0)
    """Seconds of a clip that are listened to."""
    max_duration_s: float = Field(default=60.0, gt=0)
    """Longer clips are refused, in seconds."""
    max_upload_mb: float = Field(default=20.0, gt=0, le=900)
    """Longer requests are refused, in megabytes."""
    max_files: int = Field(default=16, ge=1)
    """Clips of one request, at most."""


class ServerOptions(ServeOptions):
    """Options of `seral serve`: those of the application, and where it listens."""

    host: str = "127.0.0.1"
    """Address to listen on; only this machine unless told otherwise. Beyond it, set a token and put a proxy with https
    in front."""
    port: int = Field(default=8000, ge=1, le=65_535)
    address: str | None = None
    """Ray address; None starts a local Ray."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs a local Ray offers; None = all of this machine."""
    request_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds in which an answer has to be there."""
