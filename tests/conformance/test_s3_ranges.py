"""Ranges of large blobs on the wire: signed whole, through TLS and proxies, and stopped at once."""

import asyncio
import datetime
import ipaddress
import random
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.config import Config
from engine.stores.s3.store import open_s3
from engine.testing.fault_proxy import Faults, fault_proxy
from engine.testing.servers import ServerAddress

MIB = 1 << 20
DATA = random.Random(5).randbytes(21 * MIB)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(autouse=True)
def _credentials(seaweedfs: ServerAddress, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in seaweedfs.variables.items():
        monkeypatch.setenv(name, value)


async def fetched(s3_url: str, config: Config, folder: Path) -> bytes:
    """What comes of the blob "big", by a file."""
    store = open_s3(s3_url, config)
    try:
        with (folder / "copy").open("wb") as copy:
            assert await store.get_to_file("big", copy.fileno()) == len(DATA)
    finally:
        await store.aclose()
    return (folder / "copy").read_bytes()


@pytest.fixture
async def big(s3_url: str, seaweedfs: ServerAddress) -> str:
    """The store with a blob of DATA, "big"."""
    store = open_s3(s3_url, Config())
    await store.put("big", (DATA,))
    await store.aclose()
    return s3_url


async def test_a_range_is_signed_with_its_reach_its_version_and_who_pays(
    big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    faults = Faults(0.0)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        config = Config(s3_endpoint_url=url, s3_requester_pays=True)
        assert await fetched(big, config, tmp_path) == DATA
    first, *ranges = faults.heads
    assert "range: bytes=0-2097151\r\n" in first
    assert len(ranges) == 3
    for head in ranges:
        assert "host%3bif-match%3brange%3bx-amz-request-payer&" in head
        assert "if-match: " in head
        assert "x-amz-request-payer: requester\r\n" in head
    assert sum("range: bytes=2097152-8388607\r\n" in head for head in ranges) == 1


async def test_a_blob_in_memory_is_put_together_of_ranges_that_come_in_any_order(
    big: str, seaweedfs: ServerAddress
) -> None:
    store = open_s3(big, Config())
    assert await store.get("big") == DATA
    assert await store.get_range("big", 3 * MIB, 17 * MIB) == DATA[3 * MIB : 20 * MIB]
    await store.aclose()


class SilentRanges(Faults):
    """Answers the first request and no other; `all_wait` is set when three have none."""

    def __post_init__(self) -> None:
        self.all_wait = asyncio.Event()

    def choose(self, line: str = "") -> str:
        self.requests += 1
        if self.requests > 3:
            self.all_wait.set()
        return "silent" if self.requests > 1 else ""


async def test_a_download_that_is_cancelled_leaves_no_thread_that_writes(
    big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    faults = SilentRanges(0.0)
    async with fault_proxy(seaweedfs.endpoint_url, faults) as url:
        store = open_s3(big, Config(s3_endpoint_url=url))
        with (tmp_path / "copy").open("wb") as copy:
            getting = asyncio.ensure_future(store.get_to_file("big", copy.fileno()))
            await faults.all_wait.wait()
            getting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await getting
        await store.aclose()
    for thread in threading.enumerate():
        if thread.name.startswith("aflow-s3"):
            thread.join(5.0)
            assert not thread.is_alive()


async def test_tls_is_checked_with_the_bundle_that_is_set(
    big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    async with secured(seaweedfs, tmp_path) as (url, bundle):
        config = Config(s3_endpoint_url=url, s3_ca_bundle=str(bundle))
        assert await fetched(big, config, tmp_path) == DATA


@pytest.mark.parametrize("is_secured", [False, True])
async def test_ranges_come_through_the_proxy_that_is_set(
    is_secured: bool, big: str, seaweedfs: ServerAddress, tmp_path: Path
) -> None:
    heads: list[str] = []
    async with secured(seaweedfs, tmp_path) as (url, bundle), proxied(heads) as proxy:
        config = Config(
            s3_endpoint_url=url if is_secured else seaweedfs.endpoint_url,
            s3_ca_bundle=str(bundle),
            s3_proxy=proxy,
        )
        assert await fetched(big, config, tmp_path) == DATA
    if is_secured:
        assert all(head.startswith("CONNECT 127.0.0.1:") for head in heads)
    else:
        ranges = [head for head in heads if "X-Amz-Signature=" in head.partition("\r\n")[0]]
        assert len(ranges) == 3
        assert all(head.startswith(f"GET {seaweedfs.endpoint_url}/") for head in ranges)


@asynccontextmanager
async def listening(serve: Serve, secret: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on a port of loopback."""
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks[task] = writer
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await serve(reader, writer)
        finally:
            del tasks[task]
            writer.close()

    server = await asyncio.start_server(kept, "127.0.0.1", 0, ssl=secret)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in tasks.values():
            writer.close()
        if tasks:
            await asyncio.wait(list(tasks))


async def joined(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, said: bytes = b""
) -> None:
    """Pass bytes on between a client and the server of `url`, until both have ended."""
    where = urlsplit(url)
    far_reader, far_writer = await asyncio.open_connection(where.hostname, where.port)

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while piece := await source.read(1 << 16):
                target.write(piece)
                await target.drain()
        finally:
            target.close()

    try:
        far_writer.write(said)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
    finally:
        far_writer.close()


def _certificate(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_root: bool
) -> x509.CertificateBuilder:
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
    )


@asynccontextmanager
async def secured(server: ServerAddress, folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """The server behind TLS: its url, and the file with what to trust."""
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    names = [
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("us", "localhost")
    ]
    pem = serialization.Encoding.PEM
    root = _certificate(names[0], authority, is_root=True).issuer_name(names[0])
    leaf = _certificate(names[1], key, is_root=False).issuer_name(names[0])
    for built, file in ((root, "trusted.pem"), (leaf, "own.pem")):
        signed = built.sign(authority, hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(pem))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    secret = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secret.load_cert_chain(folder / "own.pem", folder / "key.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await joined(reader, writer, server.endpoint_url)

    async with listening(serve, secret) as port:
        yield f"https://127.0.0.1:{port}", folder / "trusted.pem"


@asynccontextmanager
async def proxied(heads: list[str]) -> AsyncIterator[str]:
    """A proxy for http and https that notes the first head of each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head.decode())
        method, target, _ = head.split(b" ", 2)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 yours\r\n\r\n")
            await joined(reader, writer, f"//{target.decode()}")
        else:
            where = urlsplit(target.decode())
            await joined(reader, writer, f"//{where.netloc}", head)

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}"
