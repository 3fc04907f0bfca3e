"""Which object a key means, and how it is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.s3.errors import S3ObjectNotFoundError, S3UrlError
from engine.s3.objects import Facts, Found, RangeInfo, S3Object, user_metadata
from engine.s3.roots import Bucket, Location, Root, parse_url, root_of
from engine.s3.sender import is_plain

KEYS = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=30)


@given(KEYS)
def test_a_key_is_taken_as_it_is(key: str) -> None:
    at = parse_url(f"s3://bucket/{key}")

    assert (at.key, at.url) == (key, f"s3://bucket/{key}")
    assert Bucket("bucket", "").checked(key) == key


@pytest.mark.parametrize(
    "url",
    ["", "key", "s3:/bucket/x", "s3://", "s3://B/x", "s3://a/x", "http://bucket/x", "s3://b_b/x"],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(S3UrlError, match="is no url"):
        parse_url(url)


@pytest.mark.parametrize(
    ("key", "problem"), [("", "names no object"), ("é" * 513, "is longer than 1,024 bytes")]
)
def test_what_s3_takes_for_no_key_is_refused(key: str, problem: str) -> None:
    with pytest.raises(S3UrlError, match=problem):
        Bucket("bucket", "").checked(key)


def test_keys_are_relative_to_the_root_and_whole_urls_without_one() -> None:
    root, no_root = Root("s3://bucket/a"), Root()

    assert root.locate("b/c") == Location("bucket", "a/b/c")
    assert root.locate(None) == Location("bucket", "a")
    assert no_root.locate("s3://bucket/b") == Location("bucket", "b")
    with pytest.raises(S3UrlError, match="is a whole url, and this S3 has the root s3://bucket/a"):
        root.locate("s3://bucket/a/b")
    for key in (None, "", "b"):
        with pytest.raises(S3UrlError, match="is no url, and this S3 has no root"):
            no_root.locate(key)
    with pytest.raises(S3UrlError, match="is a int, not a key"):
        root.locate(3)  # type: ignore[arg-type]  # a slip


def test_a_directory_ends_with_a_slash_and_a_bucket_is_one() -> None:
    assert Location("bucket", "a").folder == Location("bucket", "a/").folder
    assert Location("bucket", "").folder == Location("bucket", "")


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ({}, None),
        ({"s3root": "s3://bucket/a/"}, "s3://bucket/a"),
        ({"s3root": "s3://bucket"}, "s3://bucket"),
        ({"bucket": "bucket", "prefix": "a/b"}, "s3://bucket/a/b"),
        ({"bucket": "bucket"}, "s3://bucket"),
        ({"run": 1, "pathspec": "F/1", "default": "s3://bucket/d"}, "s3://bucket/d/F/1"),
        ({"run": 1, "pathspec": "F/1", "bucket": "bucket"}, "s3://bucket/F/1"),
        (
            {"run": 1, "pathspec": "F/1", "bucket": "bucket", "prefix": "p/"},
            "s3://bucket/p/F/1",
        ),
        ({"default": "s3://bucket/d"}, None),
    ],
)
def test_the_arguments_make_a_root(arguments: dict[str, str], url: str | None) -> None:
    assert root_of(**arguments).url == url


@pytest.mark.parametrize(
    "arguments",
    [
        {"s3root": "s3://bucket", "run": 1, "pathspec": "F/1"},
        {"s3root": "s3://bucket", "bucket": "bucket"},
        {"prefix": "a"},
        {"s3root": "bucket/a"},
        {"bucket": "Not A Bucket"},
    ],
)
def test_arguments_that_make_no_root_are_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(S3UrlError):
        root_of(**arguments)


def test_a_run_needs_a_place() -> None:
    with pytest.raises(ConfigError, match="no place in S3") as caught:
        root_of(run=1, pathspec="F/1")

    assert "AFLOW_S3_ROOT" in (caught.value.hint or "")


def test_keys_that_clients_spell_differently_are_known() -> None:
    assert is_plain("dt=2026-01-01/part-0.parquet")
    for key in ("a//b", "a/../b", "./a", "a b", "a%20b", "é", "a/", "/a", "a+b", "a#b", ""):
        assert not is_plain(key), key


def test_an_object_tells_what_is_known_of_it() -> None:
    facts = Facts(5, 3_000_000, "text/plain", "AES256", {"a": 1})
    url = "s3://bucket/root/a/b"

    listed = S3Object(Found(url, "s3://bucket/root", size_bytes=5))
    known = S3Object(Found(url, None, size_bytes=5, facts=facts, part=RangeInfo(5, 1, 2)))
    missing = S3Object(Found(url, "s3://bucket/root"))
    folder = S3Object(Found("s3://bucket/root/a/", "s3://bucket/root"))

    assert (listed.exists, listed.downloaded, listed.has_info) == (True, False, False)
    assert (listed.key, listed.size, listed.blob, listed.text) == ("a/b", 5, None, None)
    assert (known.key, known.size, known.range_info) == (url, 2, RangeInfo(5, 1, 2))
    assert (known.content_type, known.encryption, known.metadata, known.last_modified) == (
        *("text/plain", "AES256"),
        *({"a": 1}, 3),
    )
    assert (missing.exists, missing.size, missing.metadata) == (False, None, None)
    assert (folder.exists, folder.key) == (False, "a/")
    assert [repr(o) for o in (listed, missing, folder)] == [
        "S3Object('s3://bucket/root/a/b', 5 bytes)",
        "S3Object('s3://bucket/root/a/b', missing)",
        "S3Object('s3://bucket/root/a/', a directory)",
    ]


def test_a_file_that_is_gone_is_told() -> None:
    with pytest.raises(S3ObjectNotFoundError, match="was fetched, but its file is gone"):
        _ = S3Object(Found("s3://bucket/a", path="/nowhere/a", size_bytes=1)).blob


def test_metadata_is_the_user_s_also_where_another_client_wrote_it() -> None:
    assert user_metadata({"metaflow-user-attributes": '{"a": [1]}', "aflow-writer": "x"}) == {
        "a": [1]
    }
    assert user_metadata({"colour": "red", "aflow-writer": "x"}) == {"colour": "red"}
    assert user_metadata({"Aflow-Writer": "x"}) is None
    assert user_metadata({"metaflow-user-attributes": "{"}) is None
