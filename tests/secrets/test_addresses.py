from __future__ import annotations

import pickle
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seral.errors import LabelError
from seral.secrets.addresses import complaint, is_secret, mask

SECRET = "pl4nted"
WITH_SECRET = [
    f"postgresql+psycopg://seral:{SECRET}@db:5432/labels",
    f"postgresql://seral:{SECRET} with spaces@db/labels",
    f"postgresql://seral:12/{SECRET}@db/labels",
    f"postgresql://seral:a@b/{SECRET}@db/labels",
    f"POSTGRESQL://seral:{SECRET}@db/labels",
    f"mysql+pymysql://:{SECRET}@db",
    f"postgresql://db/labels?user=seral&password={SECRET}",
    f"mssql+pyodbc://db/?odbc_connect=UID%3Da%3BPWD%3D{SECRET}",
    f"s3://AKIA:{SECRET}@speech/pool",
    f"s3://AKIA:12/{SECRET}+x@speech/pool",
    f"abfs://:{SECRET}@account/container",
    f"http://user:{SECRET}@mlflow:5000",
    f"https://{SECRET}@mlflow/path",
    f"https://store/clip.wav?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
    f"https://account.blob/clip.wav?sv=1&sig={SECRET}",
    f"hdfs://user:{SECRET}@name:8020/speech",
    f"sftp://user:{SECRET}@host/speech",
]
WITHOUT = [
    "postgresql+psycopg://seral@db:5432/labels",
    "postgresql://db:5432/labels?sslmode=require",
    "s3://speech/pool",
    "s3://speech/runs/at 12:30@night",
    "gs://speech/a@b",
    "http://mlflow:5000/x@y",
    "https://[::1]:8080/x@y",
    "hdfs://name:8020/user/a@b",
    "sqlite:////tmp/a@b.sqlite",
    "runs/mine/labels.sqlite",
    "anna:secret@example.org",
    "http://localhost:8800",
    "https://hub/model?tokenizer=fast",
    "",
]


@pytest.mark.parametrize("address", WITH_SECRET)
def test_an_address_with_a_secret_is_refused_in_a_sentence_without_it(address: str) -> None:
    reason = complaint(address)
    assert reason is not None
    assert SECRET not in reason
    assert "***" in reason
    assert "leave it out of the address, and" in reason


@pytest.mark.parametrize("address", WITHOUT)
def test_an_address_without_a_secret_is_as_it_was(address: str) -> None:
    assert complaint(address) is None
    assert mask(address) == address


@pytest.mark.parametrize("address", [address for address in WITH_SECRET if " " not in address])
def test_secrets_are_masked_in_the_middle_of_a_text(address: str) -> None:
    text = f"no ledger at {address}: refused; ask somebody@example.org"
    assert SECRET not in mask(text)
    assert mask(text).startswith("no ledger at ")
    assert mask(text).endswith("refused; ask somebody@example.org")
    assert mask(mask(text)) == mask(text)


def test_what_is_masked_names_the_place_all_the_same() -> None:
    assert mask(WITH_SECRET[0]) == "postgresql+psycopg://seral:***@db:5432/labels"
    assert mask("s3://AKIA:x/y@speech/pool") == "s3://AKIA:***@speech/pool"
    two = "from s3://a:b@one/x to s3://c:d@two/y"
    assert mask(two) == "from s3://a:***@one/x to s3://c:***@two/y"


@pytest.mark.parametrize(
    ("address", "way"),
    [
        ("postgresql+psycopg://u:p@db", "SERAL_LEDGER_PASSWORD_FILE"),
        ("http://u:p@mlflow", "MLFLOW_TRACKING_PASSWORD"),
        ("s3://k:s@bucket", "AWS_SECRET_ACCESS_KEY"),
        ("gcs://k:s@bucket", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("sftp://u:p@host", "by the environment"),
    ],
)
def test_the_sentence_says_how_to_give_it_instead(address: str, way: str) -> None:
    assert way in str(complaint(address))


@settings(max_examples=300, deadline=None)
@given(
    scheme=st.sampled_from(["postgresql", "postgresql+psycopg", "mysql", "s3", "abfs", "http", "https"]),
    user=st.text(string.ascii_letters + "._-", max_size=6),
    noise=st.text(string.ascii_letters + string.digits + "!$%^&*()-_=+[]{}|;,.<>~'\"", max_size=12),
)
def test_no_password_gets_through(scheme: str, user: str, noise: str) -> None:
    password = f"{noise}{SECRET}{noise}"
    address = f"{scheme}://{user}:{password}@host/path"
    assert SECRET not in mask(f"at {address}, twice")
    assert complaint(address) is not None


def test_errors_are_masked_wherever_they_are_shown() -> None:
    error = LabelError(f"no ledger at {WITH_SECRET[0]}")
    for copy in (error, pickle.loads(pickle.dumps(error))):
        assert SECRET not in f"{copy} {copy!r} {copy.args}"


@pytest.mark.parametrize("name", ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "MY_SECRET"])
def test_variables_that_hold_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    ["AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "SERAL_LEDGER_PASSWORD_FILE", "PGPASSFILE", "TOKENIZERS_PARALLELISM"],
)
def test_variables_that_hold_none(name: str) -> None:
    assert not is_secret(name)
