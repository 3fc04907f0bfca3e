"""A proxy on loopback between a client and an S3 server that makes requests fail, by seed.

It forwards bytes as they are, so signatures hold. Each request is read whole before its fate is
chosen, and goes to the server on a connection of its own.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

KINDS = (
    *("500:InternalError", "503:ServiceUnavailable", "503:SlowDown"),
    *("reset", "lost", "truncated", "slow"),
)
"""All but "silent": these fail at once or succeed late, so nothing has to wait for a time-out."""

_CHUNK = 1 << 16
_SLOW_PIECES = 5
_SLOW_S = 0.01


@dataclass
class Faults:
    """Which requests fail, and how.

    Args:
        share: 0 to 1 of the requests.
        kinds: "STATUS:CODE" or "STATUS:CODE:MESSAGE": that answer, and nothing is done.
            "reset": the connection is cut before anything is done. "lost": it is done, then the
            connection is cut. "truncated": done, and cut in the middle of the answer. "slow": done,
            and the answer comes in pieces. "silent": nothing is done and nothing ever said.
        seed: of the choices; requests that race may swap theirs.
        path: only requests whose first line has this in it.

    `requests` counts all that came, `by_kind` those that failed; `heads` has the heads of all.
    """

    share: float
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    path: str = ""
    requests: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def choose(self, line: str = "") -> str:
        """The fate of the next request, of this first line: a kind, or "" for none."""
        self.requests += 1
        if self.path not in line:
            return ""
        if self._random.random() >= self.share:
            return ""
        kind = self._random.choice(self.kinds)
        self.by_kind[kind] = self.by_kind.get(kind, 0) + 1
        return kind


@asynccontextmanager
async def fault_proxy(upstream_url: str, faults: Faults) -> AsyncIterator[str]:
    """Forward to `upstream_url` while the block lasts; yields the proxy's own url."""
    proxy = _Proxy(upstream_url, faults)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        await proxy.stop()
        await server.wait_closed()


class _Proxy:
    def __init__(self, upstream_url: str, faults: Faults) -> None:
        parts = urlsplit(upstream_url)
        self._host, self._port = parts.hostname, parts.port
        self._faults = faults
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                while await self._exchange(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # of `stop`; asyncio's server would log it
        finally:
            self._serving.discard(task)
            writer.transport.abort()

    async def stop(self) -> None:
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False if the connection is done with."""
        head = await reader.readuntil(b"\r\n\r\n")
        if _fields(head).get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request = _without_expect(head) + await _read_body(reader, _fields(head))
        self._faults.heads.append(head.decode("latin-1").lower())
        kind = self._faults.choose(self._faults.heads[-1].partition("\r\n")[0])
        if ":" in kind:
            writer.write(_refusal(kind, head))
            await writer.drain()
            return True
        if kind == "reset":
            return False
        if kind == "silent":
            await reader.read()  # until the client has had enough
            return False
        answer_head, body = await self._forward(request, head.startswith(b"HEAD "))
        if kind == "lost":
            return False
        if kind == "truncated":
            cut = body[: len(body) // 2] if body else b""
            writer.write(answer_head + cut if body else answer_head[: len(answer_head) // 2])
            await writer.drain()
            writer.close()
            return False
        pieces = _SLOW_PIECES if kind == "slow" else 1
        writer.write(answer_head)
        for piece in _pieces(body, pieces):
            writer.write(piece)
            await writer.drain()
            if pieces > 1:
                await asyncio.sleep(_SLOW_S)
        return True

    async def _forward(self, request: bytes, is_head: bool) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(request)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            while head.startswith(b"HTTP/1.1 100"):
                head = await reader.readuntil(b"\r\n\r\n")
            bodiless = is_head or head.split(b" ", 2)[1] in (b"204", b"304")
            return head, b"" if bodiless else await _read_body(reader, _fields(head))
        finally:
            writer.transport.abort()


def _fields(head: bytes) -> Mapping[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _without_expect(head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if not line.lower().startswith(b"expect:"))


async def _read_body(reader: asyncio.StreamReader, fields: Mapping[str, str]) -> bytes:
    """The body as it came, chunks with their sizes included."""
    if "chunked" not in fields.get("transfer-encoding", "").lower():
        return await reader.readexactly(int(fields.get("content-length", "0")))
    parts = []
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        parts.append(line)
        if not size:
            break
        parts.append(await reader.readexactly(size + 2))
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        parts.append(line)
    return b"".join([*parts, b"\r\n"])


def _refusal(kind: str, head: bytes) -> bytes:
    status, _, told = kind.partition(":")
    code, _, message = told.partition(":")
    message = message or "as told"
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    fields = "Content-Type: application/xml"
    if head.startswith(b"POST /v1/"):  # AWS Batch answers in JSON
        body = json.dumps({"message": message})
        fields = f"Content-Type: application/json\r\nx-amzn-ErrorType: {code}"
    fields = f"{fields}\r\nContent-Length: {len(body)}"
    if head.startswith(b"HEAD "):
        body = ""
    return f"HTTP/1.1 {status} As-Told\r\n{fields}\r\n\r\n{body}".encode()


def _pieces(body: bytes, count: int) -> list[bytes]:
    size = max(_CHUNK if count == 1 else 1, -(-len(body) // count))
    return [body[start : start + size] for start in range(0, len(body), size)]
