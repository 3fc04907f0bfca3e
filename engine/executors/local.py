"""Runs jobs as processes of this machine, forked by a zygote; implements `base.Executor`.

Everything here is callbacks on the caller's loop: no tasks, no threads, no signal handlers. Output
that the consumer does not take stops being read, so that the jobs block instead of our memory
growing; reports and ends are always read.
"""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence

from msgspec import Struct, field

from engine.errors import ExecutorError
from engine.executors import exits, wire
from engine.executors.base import Exit, ExitKind, Job, JobEnded, JobOutput, JobStarted, JobUpdate
from engine.executors.lines import Lines
from engine.executors.outbox import Outbox
from engine.executors.pipes import OutputPipes
from engine.executors.wire import Kind, WireFrame
from engine.executors.zygote import Zygote

_LINE_COST_BYTES = 100  # of a (time, text) pair without its text
_CLOSE_STEP_S = 0.002
_REPORTS_EVERY_S = 0.1
_LATE_GRACE_S = 0.5  # between SIGTERM and SIGKILL of a job that is at its deadline


_REPORTS_A_TURN = 1024  # Linux keeps at most 278 small datagrams in 212,992 bytes
_CLAIMS_MAX = 8  # senders heard before a job is known to have started; one of them is the job


def wall_clock_us() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


class LocalExecutorConfig(Struct, frozen=True):
    """`kill_grace_s` lies between SIGTERM and SIGKILL; 0 skips SIGTERM. A job at its deadline, of
    which its worker has told, gets half a second at most.

    `backlog_bytes` of output may wait for the consumer; then jobs that print are made to wait.
    """

    kill_grace_s: float = 1.0
    backlog_bytes: int = 8 * 1024 * 1024
    close_timeout_s: float = 10.0
    clock: Callable[[], int] = wall_clock_us
    oom_kills: Callable[[], int] = exits.oom_kills


class _Running(Struct, eq=False):
    name: str
    token: int
    deadline_s: float | None
    started_us: int = 0
    pid: int | None = None
    killed: Exit | None = None  # why we asked it to end, if we did
    deadline: asyncio.TimerHandle | None = None
    claims: dict[int | None, bytes] = field(default_factory=dict)  # first report by sender's pid
    early: list[JobOutput] = field(default_factory=list)


class LocalExecutor:
    """Owns `zygote` from now on. Bound to the loop of its first call."""

    def __init__(self, zygote: Zygote, config: LocalExecutorConfig | None = None) -> None:
        self._zygote = zygote
        self._config = config or LocalExecutorConfig()
        self._clock = self._config.clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox = Outbox(zygote.control)
        self._reader = wire.FrameReader(wire.REPLY_MAX_BYTES)
        self._pipes = OutputPipes(self._take_lines, self._clock)
        self._names: set[str] = set()  # of all jobs ever: a name starts once
        self._jobs: dict[int, _Running] = {}
        self._tokens: dict[str, int] = {}
        self._last_token = 0
        self._updates: list[JobUpdate] = []
        self._backlog_bytes = 0
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._reports_timer: asyncio.TimerHandle | None = None
        self._error: ExecutorError | None = None
        self._is_closed = False
        self._oom_kills = self._config.oom_kills()

    async def submit(self, jobs: Sequence[Job]) -> None:
        self._attach()
        for job in jobs:
            if job.name not in self._names:
                self._names.add(job.name)
                self._launch(job)
        self._outbox.flush()

    async def updates(self) -> AsyncIterator[Sequence[JobUpdate]]:
        """See `base.Executor`.

        Raises:
            ExecutorError: the zygote died, or could not start; no more news will come.
        """
        while True:
            if self._updates:
                batch, self._updates = self._updates, []
                self._backlog_bytes = 0
                self._resume()
                yield batch
            elif self._error:
                raise self._error
            elif self._is_closed:
                return
            else:
                self._waiter = self._attach().create_future()
                await self._waiter

    async def cancel(self, names: Collection[str], *, reason: str) -> None:
        for name in names:
            token = self._tokens.get(name)
            if token is not None:
                why = Exit(ExitKind.CANCELLED, detail=reason)
                self._kill(self._jobs[token], why, self._config.kill_grace_s)
        self._outbox.flush()

    async def aclose(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._detach()
        self._zygote.close()
        self._pipes.close()
        self._wake()
        until = time.monotonic() + self._config.close_timeout_s
        while not self._zygote.is_gone():
            if time.monotonic() > until:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._zygote.pid, signal.SIGKILL)
            await asyncio.sleep(_CLOSE_STEP_S)

    def _attach(self) -> asyncio.AbstractEventLoop:
        if self._error:
            raise self._error
        if self._loop is None and not self._is_closed:
            self._loop = loop = asyncio.get_running_loop()
            self._outbox.attach(loop)
            self._outbox.put(self._zygote.boot)
            loop.add_reader(self._zygote.control.fileno(), self._read_control)
            loop.add_reader(self._pipes.fileno(), self._pipes.read_some)
            self._outbox.flush()
        if self._loop is None:
            raise ExecutorError("the executor is closed")
        return self._loop

    def _detach(self) -> None:
        for job in self._jobs.values():
            if job.deadline:
                job.deadline.cancel()
        self._outbox.close()
        if self._reports_timer:
            self._reports_timer.cancel()
        if self._loop is not None:
            for source in (self._zygote.control, self._pipes):
                self._loop.remove_reader(source.fileno())
            self._loop = None

    def _launch(self, job: Job) -> None:
        self._last_token += 1
        running = _Running(job.name, self._last_token, job.deadline_s)
        try:
            fds = self._pipes.open(running.token)
        except OSError as error:
            self._refuse(running, error.errno or 0)
            return
        self._jobs[running.token] = running
        self._tokens[job.name] = running.token
        self._watch_reports()
        self._outbox.put(wire.encode(Kind.LAUNCH, running.token, job.spec), fds)

    def _refuse(self, job: _Running, error: int) -> None:
        detail = f"no process could be started: {os.strerror(error)}"
        if error == errno.EMFILE:
            detail += "; raise the limit of open files (ulimit -n)"
        now = self._clock()
        self._tell(JobEnded(job.name, Exit(ExitKind.LOST, detail=detail), now, now))

    def _kill(self, job: _Running, why: Exit, grace_s: float) -> None:
        if job.killed is None:
            job.killed = why
            self._outbox.put(wire.encode(Kind.KILL_JOB, job.token, wire.KILL.pack(grace_s)))

    def _time_out(self, job: _Running) -> None:
        detail = f"{job.deadline_s:g} s after its start"
        grace_s = min(self._config.kill_grace_s, _LATE_GRACE_S)
        self._kill(job, Exit(ExitKind.TIMED_OUT, detail=detail), grace_s)
        self._outbox.flush()

    # -- what comes from the zygote ------------------------------------------------------------

    def _read_control(self) -> None:
        try:
            data = self._zygote.control.recv(wire.RECEIVE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._fail("the fork server died; nobody knows how its tasks ended")
            return
        try:
            frames = self._reader.feed(data)
        except ValueError as error:
            self._fail(f"the fork server sent {error}")
            return
        if any(frame.kind == Kind.JOB_EXITED for frame in frames):
            self._read_reports()  # a report is sent before its process ends, so it is here by now
        for frame in frames:
            self._handle(frame)

    def _handle(self, frame: WireFrame) -> None:
        if frame.kind == Kind.BOOT_FAILED:
            self._fail(frame.payload.decode("utf-8", "replace"))
            return
        job = self._jobs.get(frame.token)
        if job is None:
            return
        if frame.kind == Kind.JOB_STARTED:
            self._on_started(job, *wire.STARTED.unpack(frame.payload))
        elif frame.kind == Kind.JOB_EXITED:
            self._on_exited(job, *wire.EXITED.unpack(frame.payload))
        elif frame.kind == Kind.JOB_REFUSED:
            self._forget(job)
            self._refuse(job, *wire.REFUSED.unpack(frame.payload))

    def _on_started(self, job: _Running, pid: int) -> None:
        job.pid = pid
        if job.deadline_s is not None and self._loop is not None:
            job.deadline = self._loop.call_later(job.deadline_s, self._time_out, job)
        job.started_us = self._clock()
        self._tell(JobStarted(job.name, job.started_us, pid))
        for output in job.early:
            self._tell(output)
        job.early.clear()

    def _on_exited(self, job: _Running, status: int, peak_kib: int) -> None:
        self._forget(job)
        ended_us = self._clock()
        how = self._exit(job, status, peak_kib)
        started_us = job.started_us or ended_us
        self._tell(JobEnded(job.name, how, started_us, ended_us, _outcome(job)))

    def _exit(self, job: _Running, status: int, peak_kib: int) -> Exit:
        if _outcome(job) is not None:  # what happens after the report does not undo it
            return Exit(ExitKind.RETURNED, os.waitstatus_to_exitcode(status))
        if job.killed is not None:
            return job.killed
        oom_kills, self._oom_kills = self._oom_kills, self._config.oom_kills()
        return exits.describe(status, peak_kib=peak_kib, out_of_memory=self._oom_kills > oom_kills)

    def _forget(self, job: _Running) -> None:
        """Take the last of its output; release what it held."""
        self._pipes.finish(job.token)
        del self._jobs[job.token], self._tokens[job.name]
        if job.deadline:
            job.deadline.cancel()

    def _watch_reports(self) -> None:
        """Read reports now and then while jobs run.

        A report is of use when its job has ended, and is read then; a wake-up for each would cost
        a fifth of what a job costs here. Yet nobody would end if all waited to send large ones.
        """
        if self._reports_timer is None and self._jobs and self._loop is not None:
            self._reports_timer = self._loop.call_later(_REPORTS_EVERY_S, self._on_reports_timer)

    def _on_reports_timer(self) -> None:
        self._reports_timer = None
        self._read_reports()
        self._watch_reports()

    def _read_reports(self) -> None:
        """Take the reports that are there; whoever sent them has run user code.

        A task may send what it likes, as often as it likes: its words count for itself only, and
        no more of them are read in one turn than fit into the channel.
        """
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            for _ in range(_REPORTS_A_TURN):
                datagram, beside, flags, _ = self._zygote.reports.recvmsg(
                    wire.REPORT_MAX_BYTES + wire.TOKEN.size, wire.CREDENTIALS_BYTES
                )
                if not datagram and not beside:
                    return  # the zygote is gone
                if len(datagram) >= wire.TOKEN.size and not flags & socket.MSG_TRUNC:
                    (token,) = wire.TOKEN.unpack_from(datagram)
                    self._note_claim(token, wire.sender(beside), datagram[wire.TOKEN.size :])

    def _note_claim(self, token: int, pid: int | None, outcome: bytes) -> None:
        """Keep a report until its job ends: only then is it sure which process the job is."""
        job = self._jobs.get(token)
        if job is None or (pid is not None and job.pid not in (None, pid)):
            return
        if len(job.claims) < _CLAIMS_MAX:
            job.claims.setdefault(pid, outcome)

    def _take_lines(self, token: int, stream: str, lines: Lines) -> None:
        self._backlog_bytes += sum([len(text) for _, text in lines])
        self._backlog_bytes += _LINE_COST_BYTES * len(lines)
        job = self._jobs[token]
        output = JobOutput(job.name, stream, lines)
        if job.pid is None:  # it overtook the zygote's word that the job was forked
            job.early.append(output)
        else:
            self._tell(output)
        if self._backlog_bytes > self._config.backlog_bytes and not self._is_paused:
            self._is_paused = True
            if self._loop is not None:
                self._loop.remove_reader(self._pipes.fileno())

    def _resume(self) -> None:
        if self._is_paused and self._loop is not None:
            self._is_paused = False
            self._loop.add_reader(self._pipes.fileno(), self._pipes.read_some)

    # -- what goes to the consumer -------------------------------------------------------------

    def _tell(self, update: JobUpdate) -> None:
        self._updates.append(update)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, message: str) -> None:
        """No news will come any more. What the zygote can no longer kill is killed here."""
        for job in self._jobs.values():
            if job.pid is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(job.pid, signal.SIGKILL)
        self._error = ExecutorError(message)
        self._detach()
        self._wake()


def _outcome(job: _Running) -> bytes | None:
    """What the job's own process reported; where the kernel names no senders, what anybody did."""
    return job.claims.get(job.pid, job.claims.get(None))
