"""Options of what becomes of a trained model: fitted for good, used, exported."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from seral.cluster import ClusterOptions
from seral.features.options import FeatureOptions
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
    """Class logits are divided by it; None = that of a transfer's model, 1 of any other."""
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
    cluster: ClusterOptions | None = None
    """The machines that it is trained on; None = those of the run."""
