"""Ways to a server on loopback that are not plain: through TLS, through a proxy."""

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from engine.testing.servers import ServerAddress

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


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
