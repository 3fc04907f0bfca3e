"""A place in S3 is a bucket and a prefix, and no key leaves it."""

import pytest

from engine.errors import ConfigError, UnsafeNameError
from engine.stores.s3.place import S3Place


@pytest.mark.parametrize(
    ("url", "bucket", "prefix"),
    [
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/", "bucket", ""),
        ("s3://my.bucket-1/team/flows/", "my.bucket-1", "team/flows/"),
    ],
)
def test_a_url_is_a_bucket_and_a_prefix(url: str, bucket: str, prefix: str) -> None:
    place = S3Place.parse(url)
    assert (place.bucket, place.prefix) == (bucket, prefix)
    assert place.key(place.name("a/b")) == "a/b"
    assert S3Place.parse(place.url) == place


@pytest.mark.parametrize(
    "url", ["s3://", "s3://ab", "s3://Bucket", "gs://bucket", "/bucket", "s3:"]
)
def test_what_is_no_bucket_is_refused_with_how_to_write_it(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        S3Place.parse(url)
    assert "s3://BUCKET/PREFIX" in str(caught.value.hint)


@pytest.mark.parametrize("url", ["s3://bucket/../x", "s3://bucket/a//b", "s3://bucket/a b"])
def test_a_prefix_has_safe_names(url: str) -> None:
    with pytest.raises(UnsafeNameError):
        S3Place.parse(url)
