"""The model of a run in formats that are loaded without seral."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ser_models.build import SerModel
from ser_models.exports import write_export
from ser_models.inference import load_trained
from seral import storage
from seral.errors import OptionError
from seral.models.options import ExportOptions
from seral.models.prediction import decision_of, model_folder
from seral.progress import say
from seral.training.model import checked_copy, read_encoder, read_normalisation

BESIDE = ("README.md", "LICENSES")
"""Files of the run that go along: the card of a final model, and the licences of what it was made from."""


def export_model(options: ExportOptions) -> dict[str, str]:
    """Write the model of a run in a format. Returns the folders of the model and of the export.

    Raises OptionError where the format cannot hold the model, and where there is something at `out` already.
    """
    out, folder = check_new(options), model_folder(storage.absolute(options.run), options.trajectory)
    if (normalise := read_normalisation(folder)) != "none":
        say(f"the model takes away the mean of a {normalise}, which clips one by one have none of: an export does not")
    with open_trained(options, folder) as model, tempfile.TemporaryDirectory(prefix="seral-export-") as scratch:
        written = Path(scratch) / "export"
        try:
            decision, base = _decision(options), base_of(options, folder)
            write_export(model, written, options.format, **decision, base=base, home=out)
        except (ValueError, ImportError) as error:
            raise OptionError(f"format={options.format}: {error}") from error
        for name in BESIDE:
            if storage.exists(beside := storage.join(storage.absolute(options.run), name)):
                _copy(beside, storage.join(str(written), name))
        storage.copy_folder(written, out)
    return {"model": folder, "format": options.format, "out": out}


def check_new(options: ExportOptions) -> str:
    """The address of an export. Raises OptionError where there is something already."""
    out = storage.absolute(options.out)
    if storage.exists(out):
        raise OptionError(f"there is something at {out} already: give a new folder")
    return out


@contextmanager
def open_trained(options: ExportOptions, folder: str) -> Iterator[SerModel]:
    """The model of a folder. Raises OptionError where its encoder is missing or another one."""
    with checked_copy(folder) as local:
        try:
            model = load_trained(local, options.encoder or read_encoder(folder))
        except ValueError as error:
            raise OptionError(f"encoder: {error}") from error
        yield model


def base_of(options: ExportOptions, folder: str) -> str | None:
    """The hub id of the encoder of a model that peft's format names; None where the encoder goes along."""
    return options.base or _hub_id(read_encoder(folder))


def _decision(options: ExportOptions) -> dict[str, Any]:
    """Temperature and threshold that go along; a threshold is one of probabilities at its own temperature."""
    decision = decision_of(options.run)
    if options.temperature not in {None, decision["temperature"]}:
        return {"temperature": options.temperature}
    return decision


def _hub_id(name: str) -> str | None:
    """The name of an encoder if it is one of the hub's, not a folder and not one of seral's own."""
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not Path(name).exists() else None


def _copy(source: str, target: str) -> None:
    copy = storage.copy_file if storage.is_file(source) else storage.copy_folder
    copy(source, target)
