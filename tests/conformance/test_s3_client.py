"""`engine.S3` on real servers: what is written comes back, whatever its key, size and kind."""

import asyncio
import inspect
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import FlowSpec
from engine.config import Config
from engine.errors import StoreError
from engine.flow.current import current
from engine.s3 import S3, S3GetObject, S3PutObject, aio
from engine.s3.errors import S3ContentError, S3ObjectNotFoundError, S3RangeError, S3UrlError
from engine.s3.objects import RangeInfo
from engine.testing.servers import ServerAddress

LARGE = 20 << 20  # goes up in parts, comes down in ranges

ODD_KEYS = (
    "plain.txt",
    "dt=2026-01-01/part-0.parquet",
    "with space and ünï©ode/日本.txt",
    "percent%20and+plus&amp;",
    "a..b/c...d",
    "hash#question?star*",
    "tilde~(parens)'quote",
)


@pytest.fixture(params=["seaweedfs", "moto"])
def server(
    request: pytest.FixtureRequest,
    seaweedfs: ServerAddress,
    moto: ServerAddress,
    monkeypatch: pytest.MonkeyPatch,
) -> ServerAddress:
    address = {"seaweedfs": seaweedfs, "moto": moto}[request.param]
    for name, value in address.variables.items():
        monkeypatch.setenv(name, value)
    return address


@pytest.fixture
def s3(server: ServerAddress, s3_url: str, tmp_path: Path) -> Iterator[S3]:
    with S3(s3root=s3_url, tmproot=str(tmp_path), config=Config()) as client:
        yield client
    assert not list(tmp_path.glob("aflow-s3-*")), "files are left behind"


def keys(found: "list[aio.S3Object]") -> list[str]:
    return [listed.key for listed in found]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_what_is_put_under_any_key_comes_back(s3: S3, s3_url: str, key: str) -> None:
    url = s3.put(key, "wörds")

    found = s3.get(key)

    assert url == found.url == f"{s3_url}/{key}"
    assert (found.key, found.prefix, found.text) == (key, s3_url, "wörds")
    assert (found.size, found.exists, found.downloaded) == (6, True, True)
    assert keys(s3.list_recursive()) == [key]
    assert s3.info(key).size == 6


def test_text_bytes_and_files_are_written_from_where_they_stand(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    stream = io.BytesIO(b"0123456789")
    stream.seek(4)
    with (
        open(tmp_path / "file", "rb") as whole,
        open(tmp_path / "file", "rb") as rest,
        open(tmp_path / "file", "rb", buffering=0) as raw,
    ):
        rest.seek(7)
        written = s3.put_many(
            [
                ("text", "é"),
                ("bytes", b"b"),
                ("array", bytearray(b"a")),
                ("view", memoryview(b"view")[1:]),
                ("stream", stream),
                ("whole", whole),
                ("rest", rest),
                ("raw", raw),
                ("empty", b""),
            ]
        )

    assert [key for key, _ in written] == [
        *("text", "bytes", "array", "view", "stream", "whole", "rest", "raw", "empty")
    ]
    assert [found.blob for found in s3.get_many([key for key, _ in written])] == [
        *("é".encode(), b"b", b"a", b"iew", b"456789", b"0123456789", b"789"),
        *(b"0123456789", b""),
    ]


def test_a_large_object_goes_and_comes_whole_in_files(s3: S3, tmp_path: Path) -> None:
    data = os.urandom(LARGE)
    (tmp_path / "large").write_bytes(data)

    s3.put_files([("large", tmp_path / "large"), S3PutObject("again", path=tmp_path / "large")])

    for found in s3.get_many(["large", "again"], return_info=False):
        assert found.blob == data
        assert found.path is not None
        assert found.path.endswith(("-large", "-again"))
    part = s3.get(S3GetObject("large", LARGE - 10, 100))
    assert (part.blob, part.range_info) == (data[-10:], RangeInfo(LARGE, LARGE - 10, 10))


@pytest.mark.parametrize(
    ("offset", "length", "bytes_"),
    [
        (0, 3, b"012"),
        (2, 3, b"234"),
        (8, 100, b"89"),
        (4, -1, b"456789"),
        (-3, -1, b"789"),
        (-3, 2, b"78"),
    ],
)
def test_a_part_of_an_object_is_fetched(s3: S3, offset: int, length: int, bytes_: bytes) -> None:
    s3.put("digits", b"0123456789")

    found = s3.get(S3GetObject("digits", offset, length))

    assert (found.blob, found.size) == (bytes_, len(bytes_))
    assert found.range_info == RangeInfo(10, offset % 10, len(bytes_))


@pytest.mark.parametrize(("offset", "length"), [(10, 1), (99, -1), (3, 0)])
def test_a_part_that_is_not_there_is_refused(s3: S3, offset: int, length: int) -> None:
    s3.put("digits", b"0123456789")

    with pytest.raises(S3RangeError, match=f"has 10 bytes; there are none at offset {offset}"):
        s3.get(S3GetObject("digits", offset, length))


def test_what_is_missing_is_told_or_returned(s3: S3, s3_url: str) -> None:
    s3.put("here", b"x")

    for call in (s3.get, s3.info, lambda k: s3.get_many(["here", k]), lambda k: s3.info_many([k])):
        with pytest.raises(S3ObjectNotFoundError, match=f"{s3_url}/gone does not exist"):
            call("gone")  # type: ignore[operator]  # each takes a key
    with pytest.raises(S3ObjectNotFoundError):
        s3.get(S3GetObject("gone", 1, 2))
    here, gone = s3.get_many(["here", "gone"], return_missing=True)
    assert (here.exists, gone.exists, gone.path, gone.size) == (True, False, None, None)
    assert [o.exists for o in s3.info_many(["gone", "here"], return_missing=True)] == [False, True]
    assert not s3.get("gone", return_missing=True).exists
    assert not s3.info("gone", return_missing=True).exists


def test_type_and_metadata_are_kept_beside_an_object(s3: S3) -> None:
    noted = {"epoch": 3, "tags": ["é", "b"], "CamelCase": None}
    s3.put("one", b"{}", content_type="application/json", metadata=noted)
    s3.put_many([S3PutObject("two", b"x" * LARGE, metadata={"a": 1})])
    s3.put("bare", b"x")

    one, two, bare = s3.get_many(["one", "two", "bare"])

    assert (one.has_info, one.content_type, one.metadata) == (True, "application/json", noted)
    assert (two.metadata, two.size, bare.metadata) == ({"a": 1}, LARGE, None)
    assert s3.info("one").metadata == noted
    assert abs((one.last_modified or 0) - os.stat(one.path or "").st_mtime) < 3600
    quick = s3.get("one", return_info=False)
    assert (quick.has_info, quick.metadata) == (False, None)


def test_overwrite_false_leaves_what_is_there_alone(s3: S3, s3_url: str) -> None:
    s3.put("a", b"first")

    assert s3.put("a", b"second", overwrite=False) == f"{s3_url}/a"
    assert s3.put_many([("a", b"third"), ("b", b"new")], overwrite=False) == [
        ("a", f"{s3_url}/a"),
        ("b", f"{s3_url}/b"),
    ]
    s3.put(S3PutObject("a", metadata={"x": 1}), b"fourth", overwrite=False)

    assert [o.blob for o in s3.get_many(["a", "b"])] == [b"first", b"new"]
    s3.put("a", b"last")
    assert s3.get("a").blob == b"last"


def test_directories_are_listed_one_level_or_all(s3: S3, s3_url: str) -> None:
    s3.put_many([(key, key) for key in ("a", "d/1", "d/2", "d/e/3", "d2/4")])

    level = s3.list_paths()
    inside = s3.list_paths(["d"])

    assert [(o.key, o.exists, o.size) for o in level] == [
        ("a", True, 1),
        ("d/", False, None),
        ("d2/", False, None),
    ]
    assert [(o.key, o.exists) for o in inside] == [("1", True), ("2", True), ("e/", False)]
    assert {o.prefix for o in inside} == {f"{s3_url}/d"}
    assert sorted(keys(s3.list_recursive())) == ["a", "d/1", "d/2", "d/e/3", "d2/4"]
    assert sorted(keys(s3.list_recursive(["d", "d2/"]))) == ["1", "2", "4", "e/3"]
    assert s3.list_paths(["nothing"]) == s3.list_recursive(["nothing"]) == []
    assert sorted((o.key, o.text) for o in s3.get_recursive(["d"])) == [
        *(("1", "d/1"), ("2", "d/2"), ("e/3", "d/e/3"))
    ]
    everything = s3.get_all(return_info=True)
    assert sorted(o.text or "" for o in everything) == ["a", "d/1", "d/2", "d/e/3", "d2/4"]
    assert all(o.has_info for o in everything)


def test_without_a_root_keys_are_whole_urls(server: ServerAddress, s3_url: str) -> None:
    with S3(config=Config()) as s3:
        s3.put(f"{s3_url}/a", b"x")
        found = s3.get(f"{s3_url}/a")

        assert (found.key, found.prefix, found.blob) == (f"{s3_url}/a", None, b"x")
        assert keys(s3.list_paths([s3_url])) == ["a"]
        with pytest.raises(S3UrlError, match="no root"):
            s3.get_all()


def test_a_run_has_a_place_of_its_own(server: ServerAddress, s3_url: str) -> None:
    class Trains(FlowSpec):
        pass

    class Past:
        pathspec = "Trains/R1"

    config = Config(s3_root=s3_url)
    current._bind(flow_name="Trains", run_id="R1", pathspec="Trains/R1/start/0")
    try:
        with S3(run=Trains(use_cli=False), config=config) as s3:
            url = s3.put("model", b"m")
    finally:
        current._bind()

    assert url == f"{s3_url}/Trains/R1/model"
    with S3(run=Past(), config=config) as s3:
        assert s3.get("model").blob == b"m"
    bucket, _, prefix = s3_url.removeprefix("s3://").partition("/")
    with S3(run=Past(), bucket=bucket, prefix=prefix, config=Config()) as s3:
        assert keys(s3.get_all()) == ["model"]
    with S3(run=Past(), config=Config(datastore=f"{s3_url}/d")) as s3:
        assert s3.root == f"{s3_url}/d/data/Trains/R1"


def test_what_cannot_be_written_is_refused_and_ends_the_others(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("x")

    with pytest.raises(S3ContentError, match="the value for 'a' is a int"):
        s3.put("a", 3)  # type: ignore[arg-type]  # a slip
    with pytest.raises(S3ContentError, match="is a NoneType"):
        s3.put("a", None)
    with open(tmp_path / "text") as file, pytest.raises(S3ContentError, match="a file of text"):
        s3.put("a", file)  # type: ignore[arg-type]  # a slip
    with pytest.raises(S3ContentError, match="is the file 'nowhere', which cannot be read"):
        s3.put_files([("a", "nowhere")])
    with pytest.raises(S3ContentError):
        s3.put_many([("a", 3), *((f"k{i}", b"x") for i in range(200))])  # type: ignore[list-item]


def test_many_small_objects_go_and_come_in_order(s3: S3) -> None:
    pairs = [(f"k{i:03}", f"value {i}".encode()) for i in range(200)]

    urls = s3.put_many(pairs)
    found = s3.get_many([key for key, _ in reversed(pairs)], return_info=False)

    assert [key for key, _ in urls] == [key for key, _ in pairs]
    assert [o.blob for o in found] == [value for _, value in reversed(pairs)]
    assert len(s3.list_paths()) == 200


def test_r06_what_s3_refuses_is_an_error_with_its_reason(server: ServerAddress) -> None:
    with S3(config=Config(s3_deadline_s=2)) as s3, pytest.raises(StoreError) as caught:
        s3.get("s3://no-such-bucket-at-all/key")

    assert "no-such-bucket-at-all" in caught.value.message


async def test_the_awaited_client_does_the_same(
    server: ServerAddress, s3_url: str, tmp_path: Path
) -> None:
    async with aio.S3(s3root=s3_url, tmproot=str(tmp_path), config=Config()) as s3:
        await s3.put_many([("a", b"1"), ("d/b", b"2")])
        found = await s3.get_many(["a", "d/b"])
        assert [o.blob for o in found] == [b"1", b"2"]
        assert keys(await s3.list_paths()) == ["a", "d/"]
        assert [o.size for o in await s3.info_many(["a"])] == [1]
        assert len(await s3.get_all()) == 2
        assert s3.root == s3_url
    assert found[0].path is not None
    assert not os.path.exists(found[0].path)  # noqa: ASYNC240  # a test


async def test_the_synchronous_client_works_inside_of_a_running_loop(
    server: ServerAddress, s3_url: str
) -> None:
    def use() -> bytes | None:
        with S3(s3root=s3_url, config=Config()) as s3:
            s3.put("a", b"1")
            return s3.get("a").blob

    assert await asyncio.to_thread(use) == b"1"


def test_both_clients_have_the_same_names_and_arguments() -> None:
    names = [n for n in vars(aio.S3) if not n.startswith("_")]

    assert names == [n for n in vars(S3) if not n.startswith("_")]
    for name in names:
        awaited, plain = getattr(aio.S3, name), getattr(S3, name)
        if callable(plain):
            assert inspect.signature(awaited).parameters == inspect.signature(plain).parameters, (
                name
            )


UNCLOSED = """
import sys
from engine import S3

s3 = S3(sys.argv[1], tmproot=sys.argv[2])
s3.put("key", b"data")
print(s3.get("key").text)
"""


def test_a_program_that_closes_no_client_ends_and_leaves_nothing(
    server: ServerAddress, s3_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-P", "-c", UNCLOSED, s3_url, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "data\n", "")
    assert not list(tmp_path.iterdir())


FORKED = """
import atexit, os, sys
from pathlib import Path
from engine import S3

s3 = S3(sys.argv[1])
s3.put("key", b"of the parent")
path = s3.get("key").path
child = os.fork()
if not child:  # as a step of a flow whose module has used S3
    assert s3.get("key").blob == b"of the parent"
    s3.put("other", b"of the child")
    atexit._run_exitfuncs()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert Path(path).read_bytes() == b"of the parent"
print(s3.get("other").text)
"""


def test_a_client_can_be_used_by_a_fork_of_the_process_that_has_used_it(
    server: ServerAddress, s3_url: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", FORKED, s3_url], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "of the child\n", "")


def test_the_files_of_a_client_that_nobody_closed_go_with_it(
    server: ServerAddress, s3_url: str, tmp_path: Path
) -> None:
    async def fetch() -> str | None:
        s3 = aio.S3(s3root=s3_url, tmproot=str(tmp_path), config=Config())
        await s3.put("a", b"1")
        path = (await s3.get("a")).path
        await s3._transfers._session.aclose()  # its sockets would be told of, too
        for opened in s3._transfers._buckets.values():
            await opened.store.aclose()
        return path

    assert not os.path.exists(asyncio.run(fetch()) or "")
    assert not list(tmp_path.glob("aflow-s3-*"))
