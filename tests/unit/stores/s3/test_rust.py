"""What obstore is told of where S3 is."""

import pytest

from engine.aws.sessions import Location
from engine.config import Config
from engine.stores.s3.rust import store_options

AWS = "https://s3.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("url", "is_checksum"),
    [
        (AWS, True),
        (AWS.replace("https", "http"), False),
        ("https://minio.example", False),
        ("http://127.0.0.1:8333", False),
    ],
)
def test_each_body_has_one_digest(url: str, is_checksum: bool) -> None:
    options = store_options(Config(), Location("eu-west-1", url, None), "bucket")
    assert options.get("checksum_algorithm") == ("CRC64NVME" if is_checksum else None)
    assert options.get("unsigned_payload", False) is is_checksum


@pytest.mark.parametrize(
    ("bucket", "endpoint"),
    [("bucket", "https://bucket.s3.eu-west-1.amazonaws.com"), ("with.dots", AWS)],
)
def test_buckets_are_in_host_names_where_certificates_allow_it(bucket: str, endpoint: str) -> None:
    options = store_options(Config(), Location("eu-west-1", AWS, None), bucket)
    assert options["endpoint"] == endpoint
