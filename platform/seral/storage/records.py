"""Records of JSON under an address, and whole files of bytes, with checksums of their own: bytes that rot are noticed.

A record begins with the SHA-256 of all that follows its line. Files of releases that wrote none are read without.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seral.errors import DamagedError, PoolError
from seral.security.text import parse_json
from seral.storage.files import read_bytes, write_bytes

SUM = "sha256"
HEADS = {b'{\n  "sha256": "': rb'",?\n', b'seral sha256 "': rb'"\n'}
"""Beginnings of files with a checksum of their own, and what comes after it: of JSON, and of bytes."""
JSON_HEAD, BYTES_HEAD = HEADS
YAML_HEAD, DIGITS = b"# sha256: ", 64
"""Beginning of the last line of YAML with a checksum, and how many digits follow."""


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """A record as JSON, indented and with sorted keys, so that equal records are equal files, under its checksum.

    Raises ValueError for one that has a `sha256` already.
    """
    if SUM in value:
        raise ValueError(f"a record has its checksum under {SUM!r}: give that another name")
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    return (
        _under_checksum(JSON_HEAD, text.removeprefix(b"{\n"), b'",\n')
        if value
        else _under_checksum(JSON_HEAD, b"}\n", b'"\n')
    )


def write_json(uri: str | Path, value: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all."""
    write_bytes(uri, json_bytes(value))


def read_json(uri: str | Path) -> Any:
    """Read JSON. Raises PoolError, which names the file, where it is none, and DamagedError where bytes have changed
    since it was written."""
    data = read_bytes(uri)
    sealed = _without_checksum(uri, data) is not data
    try:
        content = parse_json(data)
    except ValueError as error:
        raise PoolError(f"{uri} is no JSON: {error}") from None
    if sealed:
        del content[SUM]
    return content


def write_yaml(uri: str | Path, text: str) -> None:
    """Write a document of YAML, whole or not at all, with its checksum in a comment at its end."""
    content = text.encode()
    write_bytes(uri, content + YAML_HEAD + hashlib.sha256(content).hexdigest().encode() + b"\n")


def read_yaml(uri: str | Path) -> str:
    """The text of a document of YAML. Raises DamagedError where bytes have changed since it was written."""
    data = read_bytes(uri)
    content, line = data[: -len(YAML_HEAD) - DIGITS - 1], data[-len(YAML_HEAD) - DIGITS - 1 :]
    expected = YAML_HEAD + hashlib.sha256(content).hexdigest().encode() + b"\n"
    if begins(line, YAML_HEAD) and line != expected:
        raise damaged(uri)
    return data.decode(errors="replace")


def read_sealed(uri: str | Path) -> bytes:
    """The bytes that were sealed in a file, or all of one without a checksum. Raises DamagedError."""
    return _without_checksum(uri, read_bytes(uri))


def seal(data: bytes) -> bytes:
    """Bytes after their checksum."""
    return _under_checksum(BYTES_HEAD, data, b'"\n')


def has_checksum(data: bytes) -> bool:
    """Whether a file has its own checksum, or had before one byte of that changed."""
    return any(begins(data, head) for head in HEADS) or begins(data[-len(YAML_HEAD) - DIGITS - 1 :], YAML_HEAD)


def damaged(uri: str | Path, reason: object = "its bytes are not those that were written") -> DamagedError:
    """The error about a file that is not as it was written."""
    return DamagedError(f"{uri} is damaged: {reason}")


def _under_checksum(head: bytes, content: bytes, end: bytes) -> bytes:
    return head + hashlib.sha256(content).hexdigest().encode() + end + content


def _without_checksum(uri: str | Path, data: bytes) -> bytes:
    """The content of a file; the very same bytes where it has no checksum."""
    for head, end in HEADS.items():
        if match := re.match(re.escape(head) + b"([0-9a-f]{64})" + end, data):
            content = data[match.end() :]
            if hashlib.sha256(content).hexdigest() != match[1].decode():
                raise damaged(uri)
            return content
    if any(begins(data, head) for head in HEADS):
        raise damaged(uri)
    return data


def begins(data: bytes, head: bytes) -> bool:
    """Whether data begin with `head`, or did before one byte changed."""
    return len(data) > len(head) and sum(a != b for a, b in zip(head, data, strict=False)) <= 1
