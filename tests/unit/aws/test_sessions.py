"""Sessions take credentials and places by the SDK's chain, with our settings on top."""

import json
import sys
from pathlib import Path

import pytest

from engine.aws.sessions import AwsSession, Credentials, Location, _timestamp
from engine.config import Config
from engine.errors import StoreDeniedError, StoreSettingError

FILE = """
[profile work]
region = eu-west-1
endpoint_url = http://127.0.0.1:8333
ca_bundle = /certificates
aws_access_key_id = work-key
aws_secret_access_key = work-secret

[profile renewed]
credential_process = {python} {program}
"""


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "program.py"
    facts = {"Version": 1, "AccessKeyId": "k", "SecretAccessKey": "s", "SessionToken": "t"}
    facts["Expiration"] = "2099-01-01T00:00:00Z"
    program.write_text(f"print({json.dumps(json.dumps(facts))})")
    (tmp_path / "config").write_text(FILE.format(python=sys.executable, program=program))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


async def _told(config: Config) -> tuple[Credentials, Location]:
    session = AwsSession(config)
    try:
        return await session.credentials(), await session.location("s3")
    finally:
        await session.aclose()


async def test_a_profile_gives_credentials_region_endpoint_and_certificates() -> None:
    credentials, location = await _told(Config(s3_profile="work"))
    assert credentials == Credentials("work-key", "work-secret", None)
    assert location == Location("eu-west-1", "http://127.0.0.1:8333", "/certificates")
    assert not location.is_aws


async def test_a_setting_beats_the_profile() -> None:
    config = Config(
        s3_profile="work", s3_region="us-west-2", s3_endpoint_url="http://h:1", s3_ca_bundle="/mine"
    )
    _, location = await _told(config)
    assert location == Location("us-west-2", "http://h:1", "/mine")


async def test_variables_of_the_sdk_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "c")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    credentials, location = await _told(Config())
    assert credentials == Credentials("a", "b", "c")
    assert location.endpoint_url == "http://127.0.0.1:1"


async def test_aws_itself_is_where_nothing_else_is_said() -> None:
    _, location = await _told(Config(s3_profile="renewed", s3_region="eu-north-1"))
    assert location.endpoint_url == "https://s3.eu-north-1.amazonaws.com"
    assert location.is_aws


async def test_credentials_that_expire_come_from_the_chain() -> None:
    credentials, _ = await _told(Config(s3_profile="renewed"))
    assert credentials == Credentials("k", "s", "t")


async def test_no_credentials_are_told_with_how_to_get_some() -> None:
    with pytest.raises(StoreDeniedError, match="no AWS credentials") as caught:
        await _told(Config())
    assert "aws sso login" in str(caught.value.hint)


async def test_a_profile_that_is_not_there_is_told() -> None:
    with pytest.raises(StoreSettingError, match="nobody"):
        await _told(Config(s3_profile="nobody"))


@pytest.mark.parametrize(
    "text",
    ["2026-11-24T16:33:22Z", "2026-11-24T16:33:22.123Z", "Tue, 24 Nov 2026 16:33:22 GMT", "17.5"],
)
def test_times_are_read_as_the_sdk_reads_them(text: str) -> None:
    from botocore.utils import parse_timestamp  # noqa: PLC0415  # slow to import

    assert _timestamp(text) == parse_timestamp(text)
    assert _timestamp(text).utcoffset() is not None
