"""R-20: a collection beside a live writer. Real processes, stopped, killed and raced."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.stores.gate import shut
from engine.stores.layout import create_layout
from tests.faults.jobs import is_alive

FLOW = """
import os, signal
from engine import FlowSpec, Parameter, step


class Stops:
    def __reduce__(self):
        if os.environ.get("STOPS") and not os.path.exists("saving"):
            with open("making", "w") as file:
                file.write(str(os.getpid()))
            os.rename("making", "saving")
            os.kill(os.getpid(), signal.SIGSTOP)
        return str, ("went on",)


class Writes(FlowSpec):
    seed = Parameter("seed", default=7)

    @step
    def start(self):
        self.large = bytes([self.seed]) * (1 << 20)
        self.stops = Stops()
        self.next(self.end)

    @step
    def end(self):
        assert self.stops == "went on"
        assert self.large == bytes([self.seed]) * (1 << 20)
"""
AFLOW = [sys.executable, "-P", "-c", "from engine.cli.main import main; main()"]

pytestmark = pytest.mark.usefixtures("datastore")


@pytest.fixture(autouse=True)
def _flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "writes.py").write_text(FLOW)
    # Blobs are counted here; of code packages tests/unit/runtime/test_code.py has more to say.
    monkeypatch.setenv("AFLOW_PACKAGE_SUFFIXES", "none")


def aflow(folder: Path, *args: str) -> str:
    done = subprocess.run(
        [*AFLOW, *args], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def collect(folder: Path) -> dict[str, Any]:  # Any: JSON
    found: dict[str, Any] = json.loads(aflow(folder, "gc", "--grace", "0s", "--yes", "--json"))
    return found


def blobs(datastore: Path) -> list[str]:
    return sorted(path.name for path in datastore.glob("blobs/??/*"))


def is_database_free() -> bool:
    """Whether nobody is in the middle of a write to the list of runs."""
    path = Path(os.environ["AFLOW_DATASTORE"]) / "metadata.db"
    with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as database:
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True


@contextmanager
def stopped_before_commit(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A run that stands still, driver and task, after a put of a blob and before its commit."""
    run = subprocess.Popen(
        [*AFLOW, "run", "writes.py"],
        cwd=folder,
        env={**os.environ, "STOPS": "yes"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        deadline = time.monotonic() + 30
        while not (folder / "saving").exists():
            assert run.poll() is None, run.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGSTOP)
        while not is_database_free():  # it was stopped as it wrote to the list of runs
            os.killpg(run.pid, signal.SIGCONT)
            time.sleep(0.02)
            os.killpg(run.pid, signal.SIGSTOP)
        yield run
    finally:
        run.kill()
        run.communicate()


def go_on(folder: Path, run: "subprocess.Popen[str]") -> str:
    """Let a stopped run go on, and wait for its end; return what it said."""
    os.killpg(run.pid, signal.SIGCONT)
    os.kill(int((folder / "saving").read_text()), signal.SIGCONT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 0, err
    return err


def test_r20_a_writer_stopped_between_put_and_commit_loses_nothing(
    tmp_path: Path, datastore: Path
) -> None:
    with stopped_before_commit(tmp_path) as run:
        put = blobs(datastore)
        assert len(put) == 1, "the blob is there, and no manifest names it"

        done = collect(tmp_path)

        assert (done["blobs"], done["complete"], len(done["alive"])) == (0, False, 1)
        assert blobs(datastore) == put
        go_on(tmp_path, run)
    assert "all is well" in aflow(tmp_path, "fsck", "--read-data")
    assert collect(tmp_path)["complete"]
    assert set(put) <= set(blobs(datastore))
    assert "all is well" in aflow(tmp_path, "fsck", "--read-data")


def test_r20_a_writer_that_found_the_blob_of_a_run_deleted_meanwhile_loses_nothing(
    tmp_path: Path, datastore: Path
) -> None:
    aflow(tmp_path, "run", "writes.py", "--run-id-file", "first")
    before = blobs(datastore)
    with stopped_before_commit(tmp_path) as run:
        assert blobs(datastore) == before, "equal bytes are not put again"

        aflow(tmp_path, "delete", (tmp_path / "first").read_text(), "--yes")
        collect(tmp_path)

        assert blobs(datastore) == before
        go_on(tmp_path, run)
    assert aflow(tmp_path, "fsck", "--read-data") == "1 runs checked: all is well\n"


def test_r20_what_a_writer_left_that_was_killed_there_is_removed(
    tmp_path: Path, datastore: Path
) -> None:
    with stopped_before_commit(tmp_path) as run:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        task = int((tmp_path / "saving").read_text())
        deadline = time.monotonic() + 2
        while is_alive(task) and time.monotonic() < deadline:
            time.sleep(0.005)

        done = collect(tmp_path)

    assert (done["blobs"], done["complete"]) == (1, True)
    assert blobs(datastore) == []


def test_r20_a_resumed_run_keeps_what_it_reused_of_a_run_that_is_deleted(
    tmp_path: Path, datastore: Path
) -> None:
    aflow(tmp_path, "run", "writes.py")
    put = blobs(datastore)
    aflow(tmp_path, "resume", "@latest")

    deleted = json.loads(aflow(tmp_path, "delete", "@-2", "--yes", "--json"))

    assert (deleted["blobs"], collect(tmp_path)["blobs"]) == (0, 0)
    assert blobs(datastore) == put
    assert aflow(tmp_path, "fsck", "--read-data") == "1 runs checked: all is well\n"


def test_r20_runs_that_begin_while_others_are_collected_lose_nothing(tmp_path: Path) -> None:
    """Each run finds the bytes of the one before it, which is deleted while they are in use."""
    aflow(tmp_path, "run", "writes.py")
    for _ in range(6):
        run = subprocess.Popen(
            [*AFLOW, "run", "writes.py"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        while run.poll() is None:
            aflow(tmp_path, "gc", "--keep-last", "1", "--grace", "0s", "--yes")
        assert run.returncode == 0
    assert aflow(tmp_path, "fsck", "--read-data").endswith("all is well\n")
    collect(tmp_path)
    assert aflow(tmp_path, "fsck", "--read-data").endswith("all is well\n")


def test_r20_a_run_begins_when_the_batch_that_is_being_removed_is_done(
    tmp_path: Path, datastore: Path
) -> None:
    create_layout(datastore)
    with shut(str(datastore / "runs")):
        run = subprocess.Popen(
            [*AFLOW, "run", "writes.py"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(timeout=1.0)
        began = list(datastore.glob("runs/*/*"))
    assert (began, run.wait(timeout=30)) == ([], 0)
    assert len(list(datastore.glob("runs/*/*"))) == 1
