"""Calls the command line in this process, and as a process of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import client
from engine.cli.main import invoke
from engine.client.namespaces import close_default_reader
from tests.unit.client.stored import BEGAN_US

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Call = Callable[..., Done]


@pytest.fixture
def aflow(
    datastore: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Call]:
    """Call a verb in this process, in a directory of the test's own."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("AFLOW_USER", "ada")

    def call(*args: str | Path) -> Done:
        capsys.readouterr()
        code = invoke([str(arg) for arg in args])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    yield call
    monkeypatch.chdir(tmp_path)
    client.default_namespace()
    close_default_reader()


def variables(datastore: Path, **more: str) -> dict[str, str]:
    """The environment of a command that is a process of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME", "XDG_CONFIG_HOME", "TESTED_BY") or name.startswith("COVERAGE")
    }
    return {
        **kept,
        "AFLOW_DATASTORE": str(datastore),
        "AFLOW_USER": "ada",
        "PYTHONPATH": str(ROOT),
        "TZ": "UTC",
        **more,
    }


@pytest.fixture
def process(datastore: Path, tmp_path: Path) -> Call:
    """Run a command as a process of its own and wait for it."""

    def call(*args: str | Path, cwd: Path = tmp_path, **more: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "engine.cli.main", *map(str, args)],
            cwd=cwd,
            env=variables(datastore, **more),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return call


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour after the runs of these tests began."""
    monkeypatch.setattr("time.time_ns", lambda: (BEGAN_US + 3_600_000_000) * 1000)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
