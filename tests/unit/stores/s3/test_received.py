"""Ranges received in threads: what servers and proxies may do to a connection, byte by byte."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import _host_from_url

from engine.aws.sessions import AwsSession
from engine.config import Config
from engine.errors import (
    BlobChangedError,
    BlobNotFoundError,
    StoreDeniedError,
    StoreError,
    StoreSettingError,
    StoreThrottledError,
    StoreUnavailableError,
)
from engine.stores.base import Buffer
from engine.stores.s3 import requests as ask
from engine.stores.s3.lines import host_of
from engine.stores.s3.place import S3Place
from engine.stores.s3.received import RangeReceiver
from engine.testing.s3 import MemorySender
from tests.unit.stores.s3.loopback import Serve, serving

DATA = bytes(range(256)) * 8
START, LENGTH = 100, 500
WANTED = DATA[START : START + LENGTH]
RANGE = f"Content-Range: bytes {START}-{START + LENGTH - 1}/{len(DATA)}\r\n"
PARTIAL = f"HTTP/1.1 206 Partial Content\r\n{RANGE}"
WHOLE = f"{PARTIAL}Content-Length: {LENGTH}\r\n\r\n".encode() + WANTED


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@asynccontextmanager
async def receiving(
    url: str, *, quiet_s: float = 20.0, **set_: Any
) -> AsyncIterator[RangeReceiver]:
    """A receiver from `url`; `set_` are settings, of any type."""
    config = Config(s3_endpoint_url=url, **set_)
    session = AwsSession(config)
    receiver = RangeReceiver(S3Place("bucket", ""), session, config, MemorySender())
    receiver.quiet_s = quiet_s
    try:
        yield receiver
    finally:
        await receiver.aclose()
        await session.aclose()


@asynccontextmanager
async def against(serve: Serve, *, quiet_s: float = 20.0) -> AsyncIterator[RangeReceiver]:
    """A receiver from a server of the test's own."""
    async with serving(serve) as port:
        url = f"http://127.0.0.1:{port}"
        async with receiving(url, quiet_s=quiet_s) as receiver:
            yield receiver


async def received(receiver: RangeReceiver, key: str = "key") -> bytes:
    """The range of the blob; fails at the first failure."""
    pieces: dict[int, bytes] = {}

    def sink(start: int, body: Buffer) -> None:
        pieces[start] = bytes(body)

    await receiver.send(ask.Get(key=key, start=START, length=LENGTH, etag='"1"', sink=sink))
    return b"".join(body for _, body in sorted(pieces.items()))


def answering(answer: bytes, heads: list[str], *, times: int = 1) -> Serve:
    """Answer so many requests of each connection, then close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            writer.write(answer)
            await writer.drain()
        writer.write_eof()
        await reader.read()

    return serve


async def test_connections_that_the_server_closed_while_idle_are_replaced_at_once() -> None:
    heads: list[str] = []
    async with against(answering(WHOLE, heads)) as receiver:
        for _ in range(2):  # the second two find two connections that are closed
            assert await asyncio.gather(received(receiver), received(receiver)) == [WANTED] * 2
    assert len(heads) == 4


async def test_a_connection_that_stays_open_is_used_again() -> None:
    connections: list[int] = []
    heads: list[str] = []
    answer = answering(WHOLE, heads, times=9)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await answer(reader, writer)

    async with serving(serve) as port, receiving(f"http://127.0.0.1:{port}") as receiver:
        for _ in range(3):
            assert await received(receiver) == WANTED
    assert (len(connections), len(heads)) == (1, 3)


async def test_a_new_connection_that_is_closed_without_a_word_is_a_failure() -> None:
    heads: list[str] = []
    async with against(answering(b"", heads)) as receiver:
        with pytest.raises(StoreUnavailableError, match="closed connection"):
            await received(receiver)
    assert len(heads) == 1


@pytest.mark.parametrize("said", [b"", WHOLE[:30], WHOLE[:-200]], ids=["nothing", "head", "body"])
async def test_r06_a_server_that_falls_silent_in_a_range_is_given_up_soon(said: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    async with against(serve, quiet_s=0.2) as receiver:
        with pytest.raises(StoreThrottledError, match=r"nothing came for 0\.2 s"):
            await received(receiver)


async def test_r06_a_proxy_that_falls_silent_is_given_up_soon() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as port:
        proxy = f"http://127.0.0.1:{port}"
        async with receiving("https://s3.example", s3_proxy=proxy, quiet_s=0.2) as receiver:
            with pytest.raises(StoreUnavailableError, match="the proxy"):
                await received(receiver)


def _error(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>" if code else ""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _chunked(*chunks: bytes) -> bytes:
    sized = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return f"{PARTIAL}Transfer-Encoding: chunked\r\n\r\n".encode() + sized


def _long(size: int, body: bytes, head: str = PARTIAL) -> bytes:
    return f"{head}Content-Length: {size}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (_error("301 Moved", "PermanentRedirect"), StoreSettingError),
        (_error("307 Elsewhere", "TemporaryRedirect"), StoreSettingError),
        (_error("400 Bad Request", "ExpiredToken"), StoreDeniedError),
        (_error("403 Forbidden", "AccessDenied"), StoreDeniedError),
        (_error("404 Not Found", "NoSuchKey"), BlobNotFoundError),
        (_error("412 Precondition Failed", "PreconditionFailed"), BlobChangedError),
        (_error("503 Slow Down", "SlowDown"), StoreThrottledError),
        (_long(len(DATA), DATA, "HTTP/1.1 200 OK\r\n"), StoreSettingError),
        (_long(LENGTH, WANTED[:-1]), StoreUnavailableError),
        (_long(LENGTH - 1, WANTED), StoreUnavailableError),
        (_chunked(WANTED[:9], WANTED[9:-1]), StoreUnavailableError),
        (_chunked(WANTED[:9], WANTED[9:-1], b""), StoreUnavailableError),
        (_long(LENGTH, WANTED, PARTIAL.replace("bytes 100-", "bytes 99-")), StoreUnavailableError),
        (_long(LENGTH, WANTED, PARTIAL.replace("bytes ", "pages ")), StoreError),
        (b"220 mail.example ESMTP\r\n", StoreUnavailableError),
    ],
)
async def test_what_is_no_such_range_is_an_error_of_its_kind(
    answer: bytes, kind: type[StoreError]
) -> None:
    async with against(answering(answer, [])) as receiver:
        with pytest.raises(StoreError) as caught:
            await received(receiver)
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    "answer",
    [
        _chunked(WANTED[:9], WANTED[9:], b""),
        _long(LENGTH + 7, WANTED + b"another"),
        f"{PARTIAL}Connection: close\r\n\r\n".encode() + WANTED,
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["chunks", "too long", "until the end", "of old"],
)
async def test_a_range_is_taken_however_its_length_is_told(answer: bytes) -> None:
    async with against(answering(answer, [])) as receiver:
        assert await received(receiver) == WANTED
        assert await received(receiver) == WANTED


async def test_a_failure_that_is_kept_keeps_no_connection_open() -> None:
    closed = asyncio.Event()
    body = b"x" * (100 << 10)  # more than is read of a refusal

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\n\r\n" + body)
        try:
            await reader.read()
        finally:
            closed.set()

    async with serving(serve) as port, receiving(f"http://127.0.0.1:{port}") as receiver:
        with pytest.raises(StoreThrottledError) as kept:
            await received(receiver)
        async with asyncio.timeout(5):
            await closed.wait()
        assert kept.value.__context__ is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://S3.example:80/",
        "https://s3.example:443/",
        "https://s3.example:80/",
        "https://[::1]:443/",
        "http://[::1]:9000/",
        "http://you:secret@s3.example:9000/",
    ],
)
def test_the_host_that_is_said_is_the_one_that_the_sdk_signs(url: str) -> None:
    assert host_of(urlsplit(url)) == _host_from_url(url)


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_endpoint_is_reached_and_named_in_brackets() -> None:
    heads: list[str] = []
    async with (
        serving(answering(WHOLE, heads), "::1") as port,
        receiving(f"http://[::1]:{port}") as receiver,
    ):
        assert await received(receiver) == WANTED
    assert f"\r\nHost: [::1]:{port}\r\n" in heads[0]


async def test_an_address_of_a_family_that_the_machine_lacks_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    look_up = loop.getaddrinfo

    async def both(*where: Any, **how: Any) -> list[Any]:  # Any: as the loop's own
        found = await look_up(*where, **how)
        return [(9999, *found[0][1:]), *found]

    heads: list[str] = []
    async with against(answering(WHOLE, heads)) as receiver:
        monkeypatch.setattr(loop, "getaddrinfo", both)
        assert await received(receiver) == WANTED


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 407 Who are you\r\n\r\n", StoreSettingError),
        (b"HTTP/1.1 403 Not there\r\n\r\n", StoreSettingError),
        (b"HTTP/1.1 502 Not now\r\n\r\n", StoreUnavailableError),
        (b"", StoreUnavailableError),
    ],
)
async def test_a_proxy_that_refuses_is_a_setting_and_one_in_trouble_is_tried_again(
    answer: bytes, kind: type[StoreError]
) -> None:
    heads: list[str] = []
    async with serving(answering(answer, heads)) as port:
        proxy = f"http://you:s%40crt@127.0.0.1:{port}"
        async with receiving("https://[::1]", s3_proxy=proxy) as receiver:
            with pytest.raises(StoreError) as caught:
                await received(receiver)
    assert type(caught.value) is kind
    assert heads[0].startswith("CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n")
    assert "\r\nProxy-Authorization: Basic eW91OnNAY3J0\r\n" in heads[0]


async def test_a_proxy_that_cannot_be_spoken_to_is_told_without_its_password() -> None:
    proxy = "https://you:secret@127.0.0.1:9"
    async with receiving("https://s3.example", s3_proxy=proxy) as receiver:
        with pytest.raises(StoreSettingError) as caught:
            await received(receiver)
    assert "secret" not in str(caught.value)
    assert "https://127.0.0.1:9" in caught.value.message


async def test_a_proxy_named_without_a_scheme_is_one_for_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads: list[str] = []
    async with serving(answering(WHOLE, heads)) as port:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        async with receiving("http://s3.example:9000") as receiver:
            assert await received(receiver) == WANTED
    assert heads[0].startswith("GET http://s3.example:9000/bucket/key?")


async def test_a_host_that_no_proxy_names_is_asked_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    heads: list[str] = []
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    async with against(answering(WHOLE, heads)) as receiver:
        assert await received(receiver) == WANTED


async def test_the_token_of_a_session_is_in_what_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "to+ken/=")
    heads: list[str] = []
    async with against(answering(WHOLE, heads)) as receiver:
        assert await received(receiver) == WANTED
    assert "X-Amz-Security-Token=to%2Bken%2F%3D" in heads[0]


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a b+c%41", "a%20b%2Bc%2541"),
        ("//x//y", "//x//y"),
        ("né/~'#?;&=", "n%C3%A9/~%27%23%3F%3B%26%3D"),
    ],
)
async def test_a_key_of_odd_characters_is_the_path_that_was_signed(key: str, path: str) -> None:
    heads: list[str] = []
    async with against(answering(WHOLE, heads)) as receiver:
        assert await received(receiver, key) == WANTED
    assert heads[0].startswith(f"GET /bucket/{path}?")


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_is_cancelled_twice_still_waits_for_the_thread_that_writes() -> None:
    began, may_end = threading.Event(), threading.Event()

    def sink(start: int, body: Buffer) -> None:
        began.set()
        may_end.wait(10)

    async with against(answering(WHOLE, [])) as receiver:
        get = ask.Get(key="key", start=START, length=LENGTH, sink=sink)
        reading = asyncio.ensure_future(receiver.send(get))
        await asyncio.to_thread(began.wait, 10)
        for _ in range(3):
            reading.cancel()
            await _turns()
        assert not reading.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_closing_ends_what_still_waits_for_bytes_and_no_more_is_asked() -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async with serving(serve) as port, receiving(f"http://127.0.0.1:{port}") as receiver:
        reading = asyncio.ensure_future(received(receiver))
        await asked.wait()
        await receiver.aclose()
        async with asyncio.timeout(5):
            with pytest.raises(StoreUnavailableError):
                await reading
        with pytest.raises(StoreError, match="its store is closed"):
            await received(receiver)


async def test_a_line_that_is_read_to_its_end_after_the_close_is_closed_too() -> None:
    began, may_end = threading.Event(), threading.Event()
    closed = asyncio.Event()
    answer = answering(WHOLE, [], times=2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            closed.set()

    def sink(start: int, body: Buffer) -> None:
        began.set()
        may_end.wait(10)

    async with serving(serve) as port, receiving(f"http://127.0.0.1:{port}") as receiver:
        get = ask.Get(key="key", start=START, length=LENGTH, sink=sink)
        reading = asyncio.ensure_future(receiver.send(get))
        await asyncio.to_thread(began.wait, 10)
        await receiver.aclose()
        may_end.set()
        await reading  # all of it had come
        async with asyncio.timeout(5):
            await closed.wait()


async def test_what_a_sink_raises_is_raised_as_it_is() -> None:
    def full(start: int, body: Buffer) -> None:
        raise OSError(28, "No space left on device")

    async with against(answering(WHOLE, [])) as receiver:
        get = ask.Get(key="key", start=START, length=LENGTH, sink=full)
        with pytest.raises(OSError, match="No space left") as caught:
            await receiver.send(get)
    assert type(caught.value) is OSError
