"""R-13: two drivers for one run. A run is driven by who holds its lease, and by nobody else."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import RunHeldError, StoreError
from engine.scheduler.journal import CancelRequestedRecord, encode
from engine.stores.journals import JournalReader, JournalWriter, run_holder
from engine.stores.leases import Lease

ROOT = Path(__file__).parents[2]

DRIVES = """
import sys, time
sys.path.insert(0, {root!r})
from engine.stores.journals import JournalWriter
from engine.stores.leases import Lease
folder = sys.argv[1]
lease = Lease.acquire(folder + "/lock", run="F/r", since_us=1_000_000)
journal = JournalWriter(folder + "/journal", lease)
journal.append(b"of the first")
print("drives", flush=True)
sys.stdin.readline()
journal.append(b"late, of the first")
print("still drives", flush=True)
sys.stdin.readline()
"""


async def first_driver(folder: Path) -> asyncio.subprocess.Process:
    driver = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DRIVES.format(root=str(ROOT)),
        str(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert driver.stdout is not None
    assert await driver.stdout.readline() == b"drives\n"
    return driver


def attempt(folder: Path) -> Lease:
    return Lease.acquire(f"{folder}/lock", run="F/r", since_us=2_000_000)


async def test_r13_a_second_driver_is_told_who_holds_the_run_and_since_when(
    tmp_path: Path,
) -> None:
    driver = await first_driver(tmp_path)
    with pytest.raises(RunHeldError, match=rf"held by .*/{driver.pid} since 1970-01-01T00:00:01"):
        attempt(tmp_path)
    driver.kill()
    await driver.wait()
    with attempt(tmp_path) as lease:
        assert lease.is_held


async def test_r13_a_stopped_driver_holds_its_run_and_goes_on_alone(tmp_path: Path) -> None:
    driver = await first_driver(tmp_path)
    assert driver.stdin is not None
    assert driver.stdout is not None
    driver.send_signal(signal.SIGSTOP)
    with pytest.raises(RunHeldError):
        attempt(tmp_path)
    driver.send_signal(signal.SIGCONT)
    driver.stdin.write(b"\n")
    assert await driver.stdout.readline() == b"still drives\n"
    driver.kill()
    await driver.wait()
    with JournalReader(str(tmp_path / "journal")) as journal:
        assert [p for _, p in journal.scan()] == [b"of the first", b"late, of the first"]


def test_r13_of_many_drivers_at_once_one_gets_the_run(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from engine.errors import RunHeldError
from engine.stores.leases import Lease
sys.stdin.readline()
try:
    lease = Lease.acquire({str(tmp_path / "lock")!r}, run="F/r", since_us=1)
    print("mine", flush=True)
    sys.stdin.readline()
except RunHeldError:
    print("held", flush=True)
"""
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("\n")
        driver.stdin.flush()
    said = []
    for driver in drivers:
        assert driver.stdout is not None
        said.append(driver.stdout.readline().strip())
    for driver in drivers:
        driver.communicate("\n")
    assert sorted(said) == ["held"] * 7 + ["mine"]


def test_r13_a_driver_whose_lease_is_gone_writes_nothing_more(tmp_path: Path) -> None:
    lease = attempt(tmp_path)
    with JournalWriter(str(tmp_path / "journal"), lease) as journal:
        journal.append(encode(CancelRequestedRecord(1, "first")))
        size = os.path.getsize(journal.path)
        lease.release()
        with pytest.raises(StoreError, match="lease"):
            journal.append(encode(CancelRequestedRecord(2, "second")))
        with pytest.raises(StoreError, match="lease"):
            journal.append_many([b"third"])
        assert os.path.getsize(journal.path) == size
    assert run_holder(str(tmp_path / "lock")) is None
