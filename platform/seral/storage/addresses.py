"""Addresses: paths on a local disk, and URIs of object stores (`s3://`, `gs://`), through pyarrow.fs."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow.fs as pafs

from seral.errors import OptionError
from seral.secrets.addresses import complaint
from seral.storage.stores import located


def resolve(uri: str | Path) -> tuple[pafs.FileSystem, str]:
    """The file system an address lives on and the path inside it; a plain path is made absolute. A store is asked with
    patience (seral.storage.stores). No address has a password: OptionError."""
    text = str(uri)
    if "://" in text:
        if reason := complaint(text):
            raise OptionError(reason)
        return located(text)
    return pafs.LocalFileSystem(), absolute(text)


def inside_job() -> bool:
    """Whether this process is the driver of a job submitted to a Ray cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def absolute(uri: str | Path) -> str:
    """An address that means the same in every process: workers may have another working directory.

    Raises OptionError for a relative path in a cluster job, whose working directory is deleted at its end.
    """
    text = str(uri).rstrip("/") or "/"
    if "://" in text:
        return text
    path = os.path.expanduser(text)
    if inside_job() and not os.path.isabs(path):
        raise OptionError(f"{text}: a cluster job needs an absolute path, or an address, that every node can reach")
    return os.path.abspath(path)


def join(uri: str | Path, *parts: str) -> str:
    """`uri` with path parts appended."""
    return "/".join([str(uri).rstrip("/"), *parts])
