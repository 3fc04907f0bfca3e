"""Ports of this machine for gangs that run here: free when they are given, and given once."""

import socket
import zlib

from engine.errors import ExecutorError
from engine.worker.gang import PORTS


class Ports:
    """Gives each gang a port that no other of this process's has."""

    def __init__(self) -> None:
        self._given: set[int] = set()

    def take(self, name: str) -> int:
        """A port at which nobody listens on this machine's loopback address.

        Another program may take it before the gang does; then the attempt fails, and the next one
        is given another.

        Raises:
            ExecutorError: there is none.
        """
        if len(self._given) == len(PORTS):
            self._given.clear()  # of gangs long ended
        start = zlib.crc32(name.encode())
        for step in range(len(PORTS)):
            port = PORTS[(start + step) % len(PORTS)]
            if port not in self._given and _is_free(port):
                self._given.add(port)
                return port
        raise ExecutorError(f"no port of {PORTS.start} to {PORTS.stop - 1} is free for a gang")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As a server does: connections that have just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
