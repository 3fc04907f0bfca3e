"""Rules that every test obeys without asking.

A blocking call of the engine on the event loop fails the test; so do processes, threads, asyncio
tasks and descriptors left behind. The environment is scrubbed. setup.cfg adds: warnings are errors,
markers and xfail are strict, and each test has a time limit.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.leaks import MARK, Belongings, Spawns, left_behind, watched_tasks
from tests.house.loop_guard import loop_guard
from tests.servers import batch_emulator, moto, s3_url, seaweedfs

__all__ = ["batch_emulator", "moto", "s3_url", "seaweedfs"]  # fixtures, found by name

_SCRUBBED_PREFIXES = ("AFLOW_", "AWS_", "METAFLOW_", "XDG_")
_SCRUBBED = {
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "CI", "COLUMNS", "LINES"),
    "PYTHONDONTWRITEBYTECODE",  # our own start-up is from .pyc files, also under test
}


def pytest_configure(config: pytest.Config) -> None:
    for name in [n for n in os.environ if n in _SCRUBBED or n.startswith(_SCRUBBED_PREFIXES)]:
        del os.environ[name]


_spawns = Spawns()


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("unguarded"):
        yield
        return
    before = Belongings.now()
    mark = f"{os.getpid()} {request.node.nodeid}"
    _spawns.seen = False
    os.environ[MARK] = mark
    with watched_tasks() as pending:
        yield
    if client := sys.modules.get("engine.client.namespaces"):
        client.close_default_reader()  # kept open for the next read, as a notebook wants it
    del os.environ[MARK]
    problems = [f"task {task}" for task in pending]
    problems += left_behind(before, mark if _spawns.seen else None)
    assert not problems, "left behind:\n" + "\n".join(problems)


@pytest.fixture(autouse=True)
def _loop_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("unguarded"):
        yield
        return
    with loop_guard() as offences:
        yield
    assert not offences, "\n".join(offences)


@pytest.fixture(autouse=True)
def _settings_of_nobody(
    _nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The settings of whoever runs the tests do not reach them."""
    for kind in ("CONFIG", "DATA", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{kind}_HOME", str(tmp_path / ".xdg" / kind.lower()))


@pytest.fixture
def datastore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A datastore directory of the test's own, made on first use, also named to child processes."""
    path = tmp_path / "datastore"
    monkeypatch.setenv("AFLOW_DATASTORE", str(path))
    return path
