"""Passwords and keys in addresses: where there are any, their masked form, and how to give them otherwise.

An address that is written on a command line or into options ends in configurations, reports, logs and error sentences.
So one with a secret is refused (`complaint`), and whatever is printed goes through `mask` besides.
"""

from __future__ import annotations

import re

HIDDEN = "***"
DATABASES = ("postgresql", "postgres", "mysql", "mariadb", "oracle", "mssql", "sqlite")
"""Schemes of databases, without their driver (`postgresql+psycopg`)."""
STORES = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl")
"""Schemes of object stores, whose buckets have no port."""
LEDGER_PASSWORD = "SERAL_LEDGER_PASSWORD"
"""Environment variable of the ledger's password."""
TRACKING = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Environment variables of MLflow's client."""

_PORTLESS = "|".join((*(rf"{name}(?:\+\w+)?" for name in DATABASES), *STORES))
_USER = r"[^\s/:@?#\[\]]*"
# Passwords may hold / and @ unescaped, so they go to the last @. What follows a host is a port if it is a number.
_AFTER_USER = rf"(?:(?P<portless>(?:{_PORTLESS})://{_USER}:)|(?P<user>[a-z][a-z0-9+.-]*://{_USER}:)(?!\d+(?:[/?#]|$)))"
IN_TEXT = re.compile(rf"(?i)(?<![a-z0-9+.-]){_AFTER_USER}\S+@")
WHOLE = re.compile(rf"(?is)\A{_AFTER_USER}.+@")
"""An address alone, in which a password may hold spaces too."""
WEB_USER = re.compile(r"(?i)(https?://)[^\s/?#@]+@")
"""A name before a host of the web, which is often a token."""
QUERY = re.compile(
    r"(?i)([?&;](?:[\w.-]*(?:passw(?:or)?d|pwd|secret|token|signature|credential|api_?key|access_?key|account_?key)"
    r"|sig|pass|odbc_connect)=)([^\s&;#'\"]+)"
)
VARIABLE = re.compile(r"(?i)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|_KEY|CONNECTION_STRING)$")
"""Names of environment variables that hold secrets."""
WAYS = {
    "database": f"set {LEDGER_PASSWORD}, or {LEDGER_PASSWORD}_FILE to a file that holds it "
    "(PGPASSWORD and ~/.pgpass do too)",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write them to ~/.aws/credentials",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file that holds the key",
    "http": f"set {TRACKING[0]} and {TRACKING[1]} (or {TRACKING[1]}_FILE) if it is MLflow's, else sign in by the "
    "environment or a file of the program that opens it",
    "": "give it by the environment, or by a file of the program that opens the address",
}
"""Advice, by the kind of address."""


def mask(text: str) -> str:
    """A text in which passwords and keys of addresses are three stars."""
    return _mask(text, IN_TEXT) if "://" in text else text


def complaint(text: str) -> str | None:
    """The sentence for an address that holds a password or a key, or a text with one; None where there is none."""
    if "://" not in text:
        return None
    masked = _mask(_mask(text, WHOLE), IN_TEXT)
    if masked == text:
        return None
    way = WAYS[_kind(text)]
    return f"{masked} holds a secret, which would be stored and printed: leave it out of the address, and {way}"


def is_secret(variable: str) -> bool:
    """Whether an environment variable of this name holds a secret, as AWS_SECRET_ACCESS_KEY and PGPASSWORD do."""
    return VARIABLE.search(variable) is not None


def _mask(text: str, pattern: re.Pattern[str]) -> str:
    text = pattern.sub(lambda match: f"{match['portless'] or match['user']}{HIDDEN}@", text)
    text = WEB_USER.sub(rf"\g<1>{HIDDEN}@", text) if "@" in text else text
    return QUERY.sub(rf"\g<1>{HIDDEN}", text)


def _kind(text: str) -> str:
    match = re.search(r"(?i)([a-z][a-z0-9.-]*)(?:\+\w+)?://", text)
    scheme = match[1].lower() if match else ""
    if scheme in DATABASES:
        return "database"
    return {"s3a": "s3", "gcs": "gs", "https": "http"}.get(scheme, scheme if scheme in WAYS else "")
