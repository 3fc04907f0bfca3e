"""One process drives a run; who it is can be told; a dead one holds nothing."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import RunHeldError, StoreAccessError
from engine.stores import leases
from engine.stores.leases import Holder, Lease, holder_of
from tests.unit.stores.faulty import FaultyCalls

HOLD = (
    "import os, sys\n"
    "from engine.stores.leases import Lease\n"
    "lease = Lease.acquire(sys.argv[1], run='F/R', since_us=1_790_000_000_000_000)\n"
    "{then}\n"
    "os.write(1, b'held\\n')\n"
    "sys.stdin.read()\n"
)


def holding(lock: Path, then: str = "") -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=then), str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_driver_is_told_who_holds_the_run(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holding(lock) as first:
        with pytest.raises(RunHeldError) as caught:
            Lease.acquire(str(lock), run="F/R", since_us=0)
        host = socket.gethostname()
        assert caught.value.message == (
            f"run F/R held by {host}/{first.pid} since 2026-09-21T14:13:20+00:00"
        )
        assert holder_of(str(lock)) == Holder(host, first.pid, "2026-09-21T14:13:20+00:00")
        first.communicate()
    with Lease.acquire(str(lock), run="F/R", since_us=0) as lease:
        assert holder_of(str(lock)) == lease.holder
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_one_process_cannot_take_a_lease_twice(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with Lease.acquire(lock, run="F/R", since_us=0):
        with pytest.raises(RunHeldError):
            Lease.acquire(lock, run="F/R", since_us=0)
        assert holder_of(lock) is not None
    assert holder_of(lock) is None
    Lease.acquire(lock, run="F/R", since_us=0).release()


def test_asking_does_not_take_the_lease_away(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    assert holder_of(lock) is None
    assert holder_of(str(tmp_path / "no" / "lock")) is None
    lease = Lease.acquire(lock, run="F/R", since_us=0)
    for _ in range(5):
        assert holder_of(lock) == lease.holder
    lease.release()
    lease.release()
    assert not lease.is_held


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with holding(lock) as first:
        first.kill()
    assert holder_of(str(lock)) is None
    Lease.acquire(str(lock), run="F/R", since_us=0).release()


def test_a_lock_that_a_forked_child_keeps_is_taken_over_from_a_dead_holder(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    fork = "pid = os.fork()\nif pid: os.write(1, b'%d\\n' % pid); os._exit(0)"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(then=fork), str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as first:
        assert first.stdout is not None
        lines = {first.stdout.readline(), first.stdout.readline()}
        (child,) = (int(line) for line in lines if line != b"held\n")
        first.wait()
        try:
            assert holder_of(str(lock)) is None
            with Lease.acquire(str(lock), run="F/R", since_us=0) as lease:
                assert holder_of(str(lock)) == lease.holder
                with pytest.raises(RunHeldError):
                    Lease.acquire(str(lock), run="F/R", since_us=0)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_holder_on_another_host_counts_as_alive(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    other = json.dumps({"host": "elsewhere", "pid": 1, "since": "then"})
    with holding(lock, f"os.truncate(sys.argv[1], 0); open(sys.argv[1], 'w').write({other!r})"):
        assert holder_of(str(lock)) == Holder("elsewhere", 1, "then")
        with pytest.raises(RunHeldError, match="held by elsewhere/1 since then"):
            Lease.acquire(str(lock), run="F/R", since_us=0)


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"host": 1}'])
def test_a_holder_that_cannot_be_read_counts_as_alive(tmp_path: Path, content: str) -> None:
    lock = tmp_path / "lock"
    write = f"os.truncate(sys.argv[1], 0); open(sys.argv[1], 'w').write({content!r})"
    with holding(lock, write), pytest.raises(RunHeldError, match="unknown host"):
        Lease.acquire(str(lock), run="F/R", since_us=0)


def test_a_process_of_another_user_counts_as_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(pid: int, signal_number: int) -> None:
        raise PermissionError

    with holding(tmp_path / "lock"):
        monkeypatch.setattr(os, "kill", forbidden)
        assert holder_of(str(tmp_path / "lock")) is not None
        monkeypatch.undo()


def test_one_who_looks_and_hangs_does_not_hang_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_LOOK_S", 0.01)
    hang = "import fcntl; fcntl.flock(os.open(sys.argv[1] + '/..', os.O_RDONLY), fcntl.LOCK_EX)"
    (tmp_path / "dir").mkdir()
    lock = tmp_path / "dir" / "lock"
    with holding(lock, hang.replace("sys.argv[1] + '/..'", "os.path.dirname(sys.argv[1])")):
        with pytest.raises(StoreAccessError, match="hangs"):
            Lease.acquire(str(lock), run="F/R", since_us=0)
        with pytest.raises(StoreAccessError, match="hangs"):
            holder_of(str(lock))


def test_what_the_file_system_refuses_is_told(tmp_path: Path) -> None:
    lock = str(tmp_path / "lock")
    with FaultyCalls(0, errno.EACCES).active():
        with pytest.raises(StoreAccessError, match="Permission denied"):
            Lease.acquire(lock, run="F/R", since_us=0)
        with pytest.raises(StoreAccessError, match="Permission denied"):
            holder_of(lock)
    with FaultyCalls(2, errno.ENOSPC).active(), pytest.raises(StoreAccessError):
        Lease.acquire(lock, run="F/R", since_us=0)
    Lease.acquire(lock, run="F/R", since_us=0).release()
