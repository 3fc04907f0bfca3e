"""The zygote's side: fork a fresh child for each launch, reap it, leave nothing behind.

Single-threaded, without an event loop: one poll over the control socket and a pipe that SIGCHLD
writes to. When the executor closes its end or dies, so does everything here.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

from msgspec import Struct

from engine.executors import child, process, wire
from engine.executors.strays import Strays
from engine.executors.wire import Kind, WireFrame

SHUTDOWN_MAX_S = 5.0
_LAUNCHES_PER_TURN = 4  # then look at who died: an ended task is told within some 2 ms
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


_WARM_UP_AFTER = 24  # tasks; the warm-up costs some 15 ms and spares each task 0.6


def _nothing() -> None:
    pass


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()  # a collection in a child must not touch, and so copy, the zygote's pages


class _Launch(Struct, frozen=True):
    token: int
    spec: bytes
    stdout: int
    stderr: int

    @property
    def fds(self) -> tuple[int, int]:
        return self.stdout, self.stderr


class ForkServer:
    """Serves one executor over `control`; its tasks report on `channel`."""

    def __init__(self, control: socket.socket, channel: socket.socket) -> None:
        self._control = control
        self._channel = channel
        self._engine_fds = [control.fileno()]
        self._driver = os.getppid()
        self._reader = wire.FrameReader()
        self._poll = select.poll()
        self._wakeup = -1
        self._boot: bytes | None = None
        self._fds: deque[int] = deque()
        self._launches: deque[_Launch] = deque()
        self._pid_of: dict[int, int] = {}
        self._token_of: dict[int, int] = {}
        self._kill_at: dict[int, float] = {}  # pid -> when SIGTERM's grace is over
        self._strays = Strays()
        self._replies: list[bytes] = []
        self._launched = 0

    def await_boot(self) -> bytes | None:
        """Wait for the BOOT frame; None if the executor went away before it."""
        while self._boot is None and self._receive():
            pass  # launches that came with it wait in line
        return self._boot

    def fail_boot(self, message: str) -> None:
        """Tell the executor that nothing can be served."""
        self._control.sendall(wire.encode(Kind.BOOT_FAILED, payload=message.encode()))

    def serve(self, target: process.Target, warm_up: Callable[[], None] = _nothing) -> NoReturn:
        """Serve until the executor closes its end or dies; then kill everything and exit.

        `warm_up` makes tasks cheaper, at a price: it is called once it is clear that many come.
        """
        try:
            self._prepare()
            self._strays = Strays()
            _settle_memory()
            self._reply(Kind.READY)
            self._flush()
            is_open = True
            while is_open and self._launched < _WARM_UP_AFTER:
                is_open = self._turn(target)
            if is_open:
                warm_up()
                _settle_memory()
            while is_open:
                is_open = self._turn(target)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the executor is gone
        except BaseException:  # noqa: BLE001 (a bug of ours: nobody else could tell of it)
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            self._shut_down()
            os._exit(0)

    def _prepare(self) -> None:
        self._wakeup, write_end = os.pipe()
        self._engine_fds += (self._wakeup, write_end)
        os.set_blocking(self._wakeup, False)
        os.set_blocking(write_end, False)
        child.prepare(write_end)
        # Wakes the poll to look for the parent: the death of its thread alone is no end.
        process.die_with_parent(signal.SIGCHLD)
        process.adopt_orphans()
        self._poll.register(self._control, select.POLLIN)
        self._poll.register(self._wakeup, select.POLLIN)

    def _turn(self, target: process.Target) -> bool:
        """Do what there is to do; False when the executor is gone."""
        for fd, _ in self._poll.poll(self._timeout_ms()):
            if fd == self._wakeup:
                os.read(fd, 4096)
            elif not self._receive():
                return False
        if os.getppid() != self._driver:
            return False
        for _ in range(min(_LAUNCHES_PER_TURN, len(self._launches))):
            self._launch(target, self._launches.popleft())
        self._reap()
        self._kill_overdue()
        self._flush()
        return True

    def _timeout_ms(self) -> int | None:
        if self._launches:
            return 0
        due = min((*self._kill_at.values(), *self._strays.due()), default=None)
        if due is None:
            return None
        return max(0, int((due - time.monotonic()) * 1000) + 1)

    def _receive(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(
            wire.RECEIVE_BYTES, wire.ANCILLARY_BYTES, _CLOSE_ON_EXEC
        )
        for _level, _kind, packed in ancillary:  # only SCM_RIGHTS comes on such a socket
            self._fds.extend(wire.unpack_fds(packed))
        for frame in self._reader.feed(data):
            if frame.kind == Kind.LAUNCH:
                fds = self._fds.popleft(), self._fds.popleft()
                self._launches.append(_Launch(frame.token, frame.payload, *fds))
            elif frame.kind == Kind.KILL_JOB:
                self._ask_to_end(frame)
            elif frame.kind == Kind.BOOT:
                self._boot = frame.payload
        return bool(data)

    def _launch(self, target: process.Target, launch: _Launch) -> None:
        zygote = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._reply(Kind.JOB_REFUSED, launch.token, wire.REFUSED.pack(error.errno or 0))
        else:
            if pid == 0:
                self._become_task(target, launch, zygote)
            self._pid_of[launch.token] = pid
            self._token_of[pid] = launch.token
            self._launched += 1
            self._reply(Kind.JOB_STARTED, launch.token, wire.STARTED.pack(pid))
        child.close_fds(launch.fds)

    def _become_task(self, target: process.Target, launch: _Launch, zygote: int) -> NoReturn:
        child.close_fds(self._engine_fds)
        for unborn in self._launches:
            child.close_fds(unborn.fds)
        child.close_fds(self._fds)
        report = process.ReportChannel(self._channel, launch.token)
        child.run_child(target, launch.spec, report, pipes=launch.fds, zygote=zygote)

    def _ask_to_end(self, frame: WireFrame) -> None:
        (grace_s,) = wire.KILL.unpack(frame.payload)
        pid = self._pid_of.get(frame.token)
        if pid is None:
            self._withdraw(frame.token)
        elif grace_s > 0:
            process.kill_group(pid, signal.SIGTERM)
            self._kill_at[pid] = time.monotonic() + grace_s
        else:
            process.kill_group(pid, signal.SIGKILL)

    def _withdraw(self, token: int) -> None:
        """End a job that waits for its fork; one that has ended already is not found."""
        for launch in self._launches:
            if launch.token == token:
                self._launches.remove(launch)
                child.close_fds(launch.fds)
                self._reply(Kind.JOB_EXITED, token, wire.EXITED.pack(signal.SIGKILL, 0))
                return

    def _reap(self) -> None:
        dead, ended = [], []
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                dead.append(pid)
                token = self._token_of.pop(pid, None)
                if token is not None:
                    del self._pid_of[token]
                    self._kill_at.pop(pid, None)
                    payload = wire.EXITED.pack(status, usage.ru_maxrss)
                    ended.append(wire.encode(Kind.JOB_EXITED, token, payload))
        if dead:
            self._strays.look(self._token_of, dead, ended)

    def _kill_overdue(self) -> None:
        now = time.monotonic()
        for pid in [p for p, at in self._kill_at.items() if at <= now]:
            process.kill_group(pid, signal.SIGKILL)
            del self._kill_at[pid]
        self._strays.kill_overdue(now)

    def _flush(self) -> None:
        self._replies += self._strays.take_free()
        if self._replies:
            self._control.sendall(b"".join(self._replies))
            self._replies.clear()

    def _reply(self, kind: Kind, token: int = 0, payload: bytes = b"") -> None:
        self._replies.append(wire.encode(kind, token, payload))

    def _shut_down(self) -> None:
        """Kill every task and stray, and their strays, until no child is left."""
        deadline = time.monotonic() + SHUTDOWN_MAX_S
        for pid in self._token_of:
            process.kill_group(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline:
                for pid in process.own_children():
                    process.kill_group(pid, signal.SIGKILL)
                os.waitpid(-1, 0)


def serve_spawned(words: Sequence[str]) -> ForkServer:
    """The server of a program that `spawn_zygote` started with `words` at the end of its argv."""
    control, reports = (socket.socket(fileno=int(word)) for word in words)
    control.set_inheritable(False)
    reports.set_inheritable(False)
    return ForkServer(control, reports)
