"""The servers of `aflow dev`: whether they run, how they are started and ended.

They belong to one process (engine.testing.dev, which this package may name and not import), known
by its pid and by when it began: a pid alone may be another's by now. What it serves, it keeps in
`dev.json` in its folder.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.errors import ConfigError, ServiceError

SERVER = "engine.testing.dev"
NEEDED = ("moto", "flask", "flask_cors")
DOWN_S = 30.0
_LOOK_S = 0.05
_STORED = ("seaweedfs.data", "batch.data")


class DevServer(Struct, frozen=True):
    """A server: what it is for, "s3" or "batch", where it is, and which program it is."""

    name: str
    endpoint_url: str
    program: str


class DevStack(Struct, frozen=True):
    """What runs. `birth` says when the process `pid` began, in words of the system's own."""

    pid: int
    birth: str
    folder: str
    servers: tuple[DevServer, ...]
    bucket: str
    variables: Mapping[str, str]

    @property
    def runs(self) -> bool:
        return birth_of(self.pid) == self.birth


def running(folder: Path) -> DevStack | None:
    """What runs for `folder`, if anything does."""
    try:
        found = msgspec.json.decode((folder / "dev.json").read_bytes(), type=DevStack)
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None
    return found if found.runs else None


def up(folder: Path, *, options: Sequence[str]) -> tuple[DevStack, bool]:
    """Have the servers run; and whether they were started by this.

    Args:
        folder: where they keep what they store; made if need be.
        options: words for engine.testing.dev.

    Raises:
        ConfigError: what they are made of is not installed.
        ServiceError: they did not start.
    """
    with _alone(folder):
        if found := running(folder):
            return found, False
        if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise ConfigError(
                f"`aflow dev` needs packages that are not installed: {', '.join(missing)}",
                hint="pip install 'aflow-engine[dev]'",
            )
        return _start(folder, options), True


def down(folder: Path) -> DevStack | None:
    """End what runs for `folder`; what that was.

    Raises:
        ServiceError: it did not end, even killed.
    """
    with _alone(folder):
        found = running(folder)
        if found is None:
            return None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if found.runs:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(found.pid, number)
            if _gone(found):
                return found
    raise ServiceError(f"process {found.pid} does not end")


def delete(folder: Path) -> None:
    """Remove what the servers stored.

    Raises:
        ServiceError: they run.
    """
    with _alone(folder):
        if running(folder):
            raise ServiceError("the servers run", hint="aflow dev down")
        for name in _STORED:
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "keys.json").unlink(missing_ok=True)


def birth_of(pid: int) -> str | None:
    """When a process began, as far as it tells it from others of its pid; None for none."""
    try:
        # proc(5): field 22 is the start in clock ticks since boot; the name before may hold spaces.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    told = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or None


def _start(folder: Path, options: Sequence[str]) -> DevStack:
    command = [sys.executable, "-P", "-m", SERVER, str(folder), *options]
    with (folder / "dev.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=folder,
            start_new_session=True,  # it outlives the terminal
        )
    assert process.stdout
    with process.stdout as answers:
        text = answers.readline()
    if not text:
        code = process.wait()
        said = (folder / "dev.log").read_text(errors="replace").strip()[-1000:]
        raise ServiceError(
            f"the servers did not start (exit code {code}): {said}",
            hint=f"the whole log is in {folder / 'dev.log'}",
        )
    process.returncode = 0  # it is not ours to wait for
    return msgspec.json.decode(text, type=DevStack)


def _gone(stack: DevStack) -> bool:
    deadline = time.monotonic() + DOWN_S
    while stack.runs:
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(_LOOK_S)
    return True


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one `up` or `down` at a time look at the folder."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (folder / "dev.lock").open("w")
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be used: {error.strerror}", hint="choose another with --folder DIR"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
