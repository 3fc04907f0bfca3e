import array
import asyncio
import os
import socket

from engine.executors import wire
from engine.executors.outbox import Outbox
from engine.executors.wire import Kind


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.setblocking(False)
    return ours, theirs


def receive(theirs: socket.socket) -> tuple[bytes, list[int]]:
    """One message: its bytes and descriptors."""
    data, ancillary, _, _ = theirs.recvmsg(1 << 20, wire.ANCILLARY_BYTES)
    return data, [fd for _, _, packed in ancillary for fd in array.array("i", packed)]


def test_descriptors_go_with_their_frames_and_stay_open_here() -> None:
    ours, theirs = pair()
    with ours, theirs:
        outbox = Outbox(ours)
        read_end, write_end = os.pipe()
        outbox.put(b"hello", (read_end, write_end))
        outbox.flush()
        data, fds = receive(theirs)
        assert (data, len(fds)) == (b"hello", 2)
        os.write(fds[1], b"through")
        assert os.read(fds[0], 10) == b"through"
        for fd in (*fds, read_end, write_end):
            os.close(fd)


def test_a_message_holds_few_descriptors_and_many_small_frames() -> None:
    ours, theirs = pair()
    most = wire.LAUNCHES_PER_MESSAGE
    with ours, theirs:
        outbox = Outbox(ours)
        pipe = os.pipe()
        for _ in range(most + 1):
            outbox.put(b"x", pipe)
        outbox.flush()
        counts = []
        for _ in range(2):
            data, fds = receive(theirs)
            counts.append((len(data), len(fds)))
            for fd in fds:
                os.close(fd)
        assert counts == [(most, 2 * most), (1, 2)]
        for fd in pipe:
            os.close(fd)


async def test_what_the_socket_does_not_take_follows_when_it_does() -> None:
    ours, theirs = pair()
    sent = [wire.encode(Kind.LAUNCH, n, os.urandom(100_000)) for n in range(20)]
    with ours, theirs:
        outbox = Outbox(ours)
        outbox.attach(asyncio.get_running_loop())
        for frame in sent:
            outbox.put(frame)
            outbox.flush()
        received = bytearray()
        async with asyncio.timeout(10):
            while len(received) < sum(map(len, sent)):
                received += await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)
        assert received == b"".join(sent)


async def test_closing_drops_what_was_not_sent() -> None:
    ours, theirs = pair()
    with ours, theirs:
        outbox = Outbox(ours)
        outbox.attach(asyncio.get_running_loop())
        outbox.put(b"x" * 10_000_000)
        outbox.flush()
        outbox.put(b"late", (0, 1))
        outbox.close()
        outbox.flush()
        left = b""
        while data := _rest(theirs):
            left += data
        assert b"late" not in left


def _rest(theirs: socket.socket) -> bytes:
    try:
        return theirs.recv(1 << 20)
    except BlockingIOError:
        return b""


def test_a_peer_that_is_gone_is_no_error_here() -> None:
    ours, theirs = pair()
    theirs.close()
    with ours:
        outbox = Outbox(ours)
        outbox.put(b"x", (0, 1))
        outbox.flush()
