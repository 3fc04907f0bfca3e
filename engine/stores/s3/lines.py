"""Connections to where S3 answers, for threads that read large replies from them.

They are opened on the loop, so that who is cancelled meanwhile need not wait, and read in a thread
with http.client. What is read is copied once, by the kernel, into memory that is used again.
"""

import asyncio
import base64
import http.client
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import cast
from urllib.parse import SplitResult, unquote, urlsplit

from engine.aws.errors import parse_answer
from engine.aws.sessions import CONNECT_S, Wire
from engine.errors import (
    StoreError,
    StoreSettingError,
    StoreThrottledError,
    StoreUnavailableError,
    StoreUnreachableError,
)
from engine.stores.s3 import requests as ask
from engine.stores.s3.answers import ENDPOINT_HINT, RefusedError, check_range

QUIET_S = 20.0
"""How long a server may say nothing; as long a range as there is may take much more in all."""

_PORTS = {"http": 80, "https": 443}
_PARTIAL = 206
_REFUSAL_BYTES = 64 << 10
_CA_HINT = "set s3_ca_bundle (AFLOW_S3_CA_BUNDLE) to the file that holds its authority"


class StaleError(Exception):
    """The server had closed a connection that was used before, as it may: ask on another."""


class Line:
    """A connection that takes one request after the other, each in a thread; see `connected`."""

    def __init__(
        self, sock: socket.socket, *, headers: Mapping[str, str], is_proxied: bool
    ) -> None:
        self._sock = sock
        self._headers = headers
        self._is_proxied = is_proxied
        self._http = http.client.HTTPConnection("")  # never asked to connect
        self._http.auto_open = 0
        self._http.sock = sock
        self._is_new = True
        self._quiet_s = sock.gettimeout() or QUIET_S  # of what is asked in the end

    @property
    def is_open(self) -> bool:
        """Whether it takes another request, as far as is known here."""
        return self._http.sock is not None

    def receive(
        self, url: SplitResult, headers: Mapping[str, str], request: ask.Get, doing: str
    ) -> ask.Fetched:
        """Ask for a range and give what comes to the request's sink; blocks.

        Raises:
            StaleError: the connection was closed before this request.
            RefusedError: S3 answered with an error.
            StoreError: the connection failed, or what came is not the range.
        """
        target = url.geturl() if self._is_proxied else f"{url.path}?{url.query}"
        with _failures(doing, self._quiet_s):
            reply = self._asked(target, {"Host": host_of(url), **headers, **self._headers})
        with reply:  # else an error that is kept would keep the socket open
            return self._taken(reply, request, doing)

    def _asked(self, target: str, said: Mapping[str, str]) -> http.client.HTTPResponse:
        import ssl  # noqa: PLC0415  # the SDK has imported it already

        if was_new := self._is_new:
            self._shake_hands()
        try:
            self._http.request("GET", target, headers=said)
            return self._http.getresponse()
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            if was_new:
                raise
            raise StaleError from error

    def _taken(self, reply: http.client.HTTPResponse, request: ask.Get, doing: str) -> ask.Fetched:
        if reply.status != _PARTIAL:
            with _failures(doing, self._quiet_s):
                text = reply.read(_REFUSAL_BYTES).decode(errors="replace")
            raise RefusedError(parse_answer(reply.status, text))
        start, size_bytes = _range_of(reply.headers.get("Content-Range", ""), doing)
        if start != request.start:
            raise StoreUnavailableError(f"cannot {doing}: another range came than was asked for")
        came = self._pour(reply, request, doing)
        if not reply.isclosed():  # what is left of it would be taken for the next reply
            self._http.close()
        check_range(request, size_bytes, came, doing)
        return ask.Fetched(b"", size_bytes, reply.headers.get("ETag", ""))

    def stop(self) -> None:
        """Let `receive` fail at once, in whatever it waits for."""
        with suppress(OSError):  # it is closed already
            # Not that of a TLS socket: it would let the thread read what is enciphered.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._http.close()
        self._sock.close()

    def _shake_hands(self) -> None:
        import ssl  # noqa: PLC0415  # the SDK has imported it already

        if isinstance(self._sock, ssl.SSLSocket):
            self._sock.do_handshake()
        self._is_new = False

    def _pour(self, reply: http.client.HTTPResponse, request: ask.Get, doing: str) -> int:
        """Let the sink have the body as it comes; return how many bytes came."""
        sink = cast("ask.Sink", request.sink)
        piece = memoryview(bytearray(request.held_bytes))
        came = 0
        while came < request.length:
            with _failures(doing, self._quiet_s):
                count = reply.readinto(piece)
            if not count:
                break
            if came + count > request.length:
                raise StoreUnavailableError(f"cannot {doing}: more came than was asked for")
            sink(request.start + came, piece[:count])  # its errors are no failures of S3
            came += count
        return came


def host_of(url: SplitResult) -> str:
    """What is said to be asked, which is signed: no name or password, and no port that is usual."""
    name = f"[{url.hostname}]" if ":" in (url.hostname or "") else str(url.hostname)
    usual = url.port in (None, _PORTS.get(url.scheme))
    return name if usual else f"{name}:{url.port}"


async def connected(url: SplitResult, wire: Wire, doing: str, *, quiet_s: float = QUIET_S) -> Line:
    """A line to the server of `url`, by the proxy if there is one. Either may be silent `quiet_s`.

    Raises:
        StoreUnreachableError: nothing answers there.
        StoreSettingError, StoreUnavailableError: the proxy refuses, is in trouble, or is none.
    """
    proxy = urlsplit(wire.proxy) if wire.proxy else None
    if proxy and proxy.scheme not in ("", "http"):
        named = f"{proxy.scheme}://{host_of(proxy)}"  # its password is nobody's business
        raise StoreSettingError(f"cannot {doing}: a proxy is spoken to by http://, not {named}")
    near = proxy or url
    try:
        sock = await _open_socket(str(near.hostname), near.port or _PORTS[near.scheme or "http"])
    except OSError as error:
        problem = f"cannot {doing}: nothing answers at {near.hostname}: {error or 'no answer'}"
        raise StoreUnreachableError(problem, hint=ENDPOINT_HINT) from error
    headers = _proxy_headers(proxy) if proxy else {}
    try:
        if url.scheme != "https":
            sock.settimeout(quiet_s)
            return Line(sock, headers=headers, is_proxied=proxy is not None)
        if proxy:
            far = host_of(url._replace(scheme=""))
            far = far if url.port else f"{far}:443"
            await _tunnel(sock, {"Host": far, **headers}, doing, quiet_s)
        sock.settimeout(quiet_s)
        secured = wire.trusted.wrap_socket(
            sock, server_hostname=url.hostname, do_handshake_on_connect=False
        )
        return Line(secured, headers={}, is_proxied=False)
    except BaseException:
        sock.close()
        raise


async def _open_socket(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure = OSError("it has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a machine may lack IPv6
            failure = error
            continue
        try:
            sock.setblocking(False)
            async with asyncio.timeout(CONNECT_S):
                await loop.sock_connect(sock, address)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            failure = error
        else:
            return sock
    raise failure


async def _tunnel(sock: socket.socket, said: Mapping[str, str], doing: str, quiet_s: float) -> None:
    """Have a proxy connect `sock` to the Host that is `said` (RFC 9110, 9.3.6)."""
    try:
        async with asyncio.timeout(quiet_s):
            answer = await _answer_to_connect(sock, said)
    except OSError as error:
        problem = str(error) or f"no answer in {quiet_s:g} s"
        raise StoreUnavailableError(f"cannot {doing}: the proxy: {problem}") from error
    head = answer.decode(errors="replace").partition("\r\n")[0]
    status = (head.split()[1:2] or [""])[0]
    if status.startswith("2"):
        return
    problem = f"cannot {doing}: the proxy answered {head!r} to CONNECT"
    if not status or status.startswith("5"):  # it may be better soon
        raise StoreUnavailableError(problem)
    raise StoreSettingError(problem)


async def _answer_to_connect(sock: socket.socket, said: Mapping[str, str]) -> bytes:
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {said['Host']} HTTP/1.1", *(f"{k}: {v}" for k, v in said.items()), "", ""]
    await loop.sock_sendall(sock, "\r\n".join(lines).encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _REFUSAL_BYTES:
        # By the byte: what follows the head is the server's.
        piece = await loop.sock_recv(sock, 1)
        if not piece:
            break
        answer += piece
    return answer


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words).decode()}"}


def _range_of(text: str, doing: str) -> tuple[int, int]:
    """The first byte and the blob's size of "bytes 0-99/1234" (RFC 9110, 14.4)."""
    reach, _, size = text.removeprefix("bytes ").partition("/")
    start = reach.partition("-")[0]
    if not (start.isdecimal() and size.isdecimal()):
        raise StoreError(f"cannot {doing}: the answer has no range: {text!r}")
    return int(start), int(size)


@contextmanager
def _failures(doing: str, quiet_s: float) -> Iterator[None]:
    """Turn what a connection raises into errors of ours."""
    import ssl  # noqa: PLC0415  # the SDK has imported it already

    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise StoreSettingError(f"cannot {doing}: {error}", hint=_CA_HINT) from error
    except TimeoutError as error:  # fewer at once may each be in time
        problem = f"nothing came for {quiet_s:g} s"
        raise StoreThrottledError(f"cannot {doing}: {problem}") from error
    except (OSError, http.client.HTTPException) as error:
        problem = str(error) or type(error).__name__
        raise StoreUnavailableError(f"cannot {doing}: {problem}") from error
