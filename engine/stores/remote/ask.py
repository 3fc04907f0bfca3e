"""How a task's process gets a blob that its machine lacks: it asks who has the connections.

One line each way over a socket in a private directory: the digest, then "+" or what went wrong.
Imports no asyncio and no SDK: each task would pay.
"""

import socket
from collections.abc import Callable

from engine.errors import BlobNotFoundError, StoreUnavailableError

FOUND, MISSING, FAILED = b"+", b"-", b"!"
LINE_MAX_BYTES = 4096


def asker(path: str) -> Callable[[str], None]:
    """What `BlobDirectory` calls for a blob that is not there.

    Args:
        path: of the socket of a `broker.serve`.
    """

    def fetch(digest: str) -> None:
        answer = _answer(path, digest)
        if answer[:1] == MISSING:
            raise BlobNotFoundError(digest)
        if answer[:1] != FOUND:
            told = answer[1:].decode("utf-8", "replace").strip()
            raise StoreUnavailableError(f"blob {digest[:12]} could not be fetched: {told}")

    return fetch


def _answer(path: str, digest: str) -> bytes:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(path)
            connection.sendall(digest.encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n") and len(answer) < LINE_MAX_BYTES:
                if not (piece := connection.recv(LINE_MAX_BYTES)):
                    break
                answer += piece
    except OSError as error:
        raise StoreUnavailableError(
            f"blob {digest[:12]} could not be fetched: the process that drives the run is gone"
        ) from error
    return answer
